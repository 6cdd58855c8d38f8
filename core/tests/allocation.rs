//! What a frame makes a reader allocate is bounded by its length, whatever stands in it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bowline_core::limits::FRAME_BYTES;
use bowline_core::wire::{decode_broker, decode_client};

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, and how much each thread holds of it: now, and at most.
struct Counting;

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (held, most) = HELD.get();
        let held = held.wrapping_add(layout.size());
        HELD.set((held, most.max(held)));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let (held, most) = HELD.get();
        HELD.set((held.wrapping_sub(layout.size()), most));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that `what` held at once.
fn held_by(what: impl FnOnce()) -> usize {
    HELD.set((0, 0));
    what();
    HELD.get().1
}

/// A frame of the greatest length that says one thing again and again.
fn filled(head: &str, again: &str, tail: &str) -> String {
    let times = (FRAME_BYTES - head.len() - tail.len()) / again.len();
    let mut text = head.to_owned();
    for _ in 0..times - 1 {
        text.push_str(again);
        text.push(',');
    }
    text.truncate(FRAME_BYTES - tail.len());
    let whole = text.rfind(',').unwrap_or(text.len());
    text.truncate(whole);
    text + tail
}

/// What a list or an object can be filled with that is long in memory and short on the wire.
const FILLED_WITH: [(char, &str, char); 7] = [
    ('[', "0", ']'),
    ('[', "1e9", ']'),
    ('[', r#""""#, ']'),
    ('[', "[]", ']'),
    ('[', "{}", ']'),
    ('[', r#"{"":0}"#, ']'),
    ('{', r#""a":0"#, '}'),
];
const KINDS: [&str; 12] = [
    "hello",
    "session_hello",
    "send",
    "client_ack",
    "join_group",
    "set_stats",
    "set_profile",
    "push",
    "event",
    "hello_ack",
    "peers_list",
    "nobody_knows",
];
const FIELDS: [&str; 8] = [
    "stats",
    "profile",
    "capabilities",
    "groups",
    "mentions",
    "peers",
    "data",
    "else",
];

#[test]
fn no_frame_makes_a_reader_hold_many_times_its_length() {
    for kind in KINDS {
        for field in FIELDS {
            for (open, again, close) in FILLED_WITH {
                let head = format!(r#"{{"type":"{kind}","{field}":{open}"#);
                let text = filled(&head, again, &format!("{close}}}"));
                let held = held_by(|| {
                    let _read = decode_client(text.as_bytes());
                })
                .max(held_by(|| {
                    let _read = decode_broker(text.as_bytes());
                }));
                let times = held / text.len();
                assert!(times < 3, "{times} times: {kind}, {field} of {again}");
            }
        }
    }
}

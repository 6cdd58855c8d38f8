//! A global allocator that counts what is asked of it.
//!
//! A benchmark installs it with `#[global_allocator]` and reads the difference over a section.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// What was asked for, since the start of the process or over a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    pub bytes: u64,
    pub calls: u64,
}

impl Allocated {
    #[must_use]
    pub fn so_far() -> Self {
        Self {
            bytes: BYTES.load(Relaxed),
            calls: CALLS.load(Relaxed),
        }
    }

    #[must_use]
    pub fn since(earlier: Self) -> Self {
        let now = Self::so_far();
        Self {
            bytes: now.bytes - earlier.bytes,
            calls: now.calls - earlier.calls,
        }
    }
}

// SAFETY: every call is passed on to `System` with the arguments it came with; counting touches
// nothing but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size.saturating_sub(layout.size()));
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

fn count(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Relaxed);
    CALLS.fetch_add(1, Relaxed);
}

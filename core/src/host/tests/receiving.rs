//! From a push to its acknowledgement.

use super::*;
use crate::store::host::InboxContent;

#[test]
fn a_push_is_acknowledged_when_its_row_is_durable() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    let message = bench.push(&session.pubkey, &peer(5), "k", "hi");
    let (load, what) = bench.unanswered.pop_front().unwrap();
    let loaded = bench.image.load(&what);
    bench.feed(Input::Store(Event::Loaded { load, loaded }));
    assert!(bench.take_client_acks().is_empty());
    bench.catch_up();
    assert_eq!(bench.take_client_acks(), [message]);
    let row = bench.image.inbox.values().next().unwrap();
    assert_eq!(
        row.content,
        InboxContent::Opened {
            body: "hi".into(),
            meta: String::new()
        }
    );
    assert_eq!(row.session, Some(session.id));
}

#[test]
fn a_duplicate_is_acknowledged_and_is_no_second_row() {
    for cache in [Limits::default().dedupe_cache, 0] {
        let mut bench = Bench::with(Limits {
            dedupe_cache: cache,
            ..Limits::default()
        });
        let session = bench.session("a");
        let message = bench.push(&session.pubkey, &peer(5), "k", "hi");
        bench.push(&session.pubkey, &peer(5), "k", "hi");
        assert_eq!(bench.take_client_acks(), [message.clone(), message]);
        assert_eq!(bench.image.inbox.len(), 1);
        // The same id of another sender is another message.
        bench.push(&session.pubkey, &peer(6), "k", "hi");
        assert_eq!(bench.image.inbox.len(), 2);
    }
}

#[test]
fn a_duplicate_of_what_is_not_durable_waits_too() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    assert_eq!(bench.unanswered.len(), 1, "one look-up decides for both");
    let (load, what) = bench.unanswered.pop_front().unwrap();
    let loaded = bench.image.load(&what);
    bench.feed(Input::Store(Event::Loaded { load, loaded }));
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    assert!(bench.take_client_acks().is_empty());
    bench.catch_up();
    assert_eq!(bench.take_client_acks().len(), 3);
    assert_eq!(bench.image.inbox.len(), 1);
    assert!(bench.mark(Mark::InboxDuplicateFresh) > 0);
}

#[test]
fn after_a_crash_a_message_comes_again_and_is_one_row() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    let mut bench = bench.crash();
    bench.connect();
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    assert_eq!(bench.take_client_acks().len(), 1);
    assert_eq!(bench.image.inbox.len(), 1);
}

#[test]
fn rows_stand_in_the_order_of_the_pushes_whatever_the_look_ups_do() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    for id in ["k1", "k2", "k3"] {
        bench.push(&session.pubkey, &peer(5), id, id);
    }
    while let Some((load, what)) = bench.unanswered.pop_back() {
        let loaded = bench.image.load(&what);
        bench.feed(Input::Store(Event::Loaded { load, loaded }));
    }
    bench.catch_up();
    let ids: Vec<_> = bench
        .image
        .inbox
        .values()
        .map(|row| row.client_message_id.to_string())
        .collect();
    assert_eq!(ids, ["k1", "k2", "k3"]);
}

#[test]
fn what_does_not_open_is_kept_and_not_shown() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = bench.conn_of(&session.pubkey);
    let mut moved = sealed_push(&session.pubkey, &peer(5), "k1", "secret");
    moved.priority = Priority::Now;
    let mut boxed = sealed_push(&session.pubkey, &peer(5), "k2", "secret");
    boxed.seal = Some("box".into());
    let to_another = sealed_push(&key_of(&peer(8)), &peer(5), "k3", "secret");
    for push in [moved, boxed, to_another] {
        bench.frame(conn, BrokerFrame::Push(Box::new(push)));
    }
    assert_eq!(bench.take_client_acks().len(), 3);
    assert_eq!(bench.mark(Mark::InboxUndecryptable), 3);
    let page = bench.ask(&session.token, Request::Inbox(Default::default()));
    for message in page.body["messages"].as_array().unwrap() {
        assert_eq!(message["undecryptable"], true);
        assert_eq!(message["body"], Value::Null);
    }
}

#[test]
fn a_message_of_another_mesh_is_not_taken() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = bench.conn_of(&session.pubkey);
    let mut push = sealed_push(&session.pubkey, &peer(5), "k", "hi");
    push.mesh_id = MeshId::from("m2");
    bench.frame(conn, BrokerFrame::Push(Box::new(push)));
    assert!(bench.take_client_acks().is_empty());
    assert!(bench.image.inbox.is_empty());
}

#[test]
fn an_inbox_without_room_takes_nothing_more_until_it_has_and_then_all_in_order() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.push(&session.pubkey, &peer(5), "k1", "1");
    bench.feed(Input::DiskFree { bytes: 1_000 });
    bench.push(&session.pubkey, &peer(5), "k2", "2");
    bench.take_client_acks();
    // A later one must not overtake it, even if there were room for it.
    bench.host.ctx.disk_free = Some(1 << 40);
    bench.push(&session.pubkey, &peer(5), "k3", "3");
    assert!(bench.take_client_acks().is_empty());
    assert_eq!(bench.image.inbox.len(), 1);
    bench.feed(Input::DiskFree { bytes: 1 << 40 });
    bench.connect();
    for id in ["k2", "k3"] {
        bench.push(&session.pubkey, &peer(5), id, id);
    }
    assert_eq!(bench.take_client_acks().len(), 2);
    assert_eq!(bench.image.inbox.len(), 3);
}

#[test]
fn more_than_is_held_behind_a_look_up_is_hung_up_on() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    for n in 0..=crate::limits::HELD_PUSHES {
        if !bench.up.contains_key(&session.pubkey) {
            break;
        }
        bench.push(&session.pubkey, &peer(5), &alloc::format!("k{n}"), "x");
    }
    assert_eq!(bench.hangups.len(), 1);
    assert_eq!(bench.host.sizes().held_pushes, 0);
}

#[test]
fn seen_marks_the_callers_rows_only() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    bench.push(&a.pubkey, &peer(5), "k1", "to a");
    bench.push(&b.pubkey, &peer(5), "k2", "to b");
    let ids: Vec<InboxSeq> = bench.image.inbox.keys().copied().collect();
    let answer = bench.ask(&a.token, Request::InboxSeen { ids: ids.clone() });
    assert_eq!(answer.body["seen"], 1);
    let seen: Vec<bool> = bench
        .image
        .inbox
        .values()
        .map(|row| row.seen_at.is_some())
        .collect();
    assert_eq!(seen, [true, false]);
}

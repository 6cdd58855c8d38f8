//! What was read, told to its broker.

use super::*;
use crate::limits::SEEN_IDS_PER_FRAME;
use crate::wire::client::ReqId;
use crate::wire::receipt::Seen;

fn take_seen(bench: &mut Bench) -> Vec<(ConnId, Seen)> {
    bench.take_frames(|frame| match frame {
        ClientFrame::Seen(seen) => Some(seen.clone()),
        _ => None,
    })
}

fn mark(bench: &mut Bench, token: &str, ids: impl IntoIterator<Item = u64>) {
    let ids = ids.into_iter().map(InboxSeq).collect();
    let answer = bench.ask(token, Request::InboxSeen { ids });
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn take_it(bench: &mut Bench, conn: ConnId, seen: &Seen) {
    let req_id = seen.req_id.clone();
    bench.frame(conn, BrokerFrame::Ok { req_id });
}

fn names(messages: &[MessageId]) -> Vec<String> {
    messages.iter().map(ToString::to_string).collect()
}

#[test]
fn what_was_read_is_told_once_over_the_readers_own_uplink() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    let read = bench.push(&a.pubkey, &peer(5), "k1", "1");
    bench.push(&a.pubkey, &peer(5), "k2", "2");
    bench.push(&b.pubkey, &peer(5), "k3", "3");
    mark(&mut bench, &a.token, [1]);
    let (conn, seen) = take_seen(&mut bench).remove(0);
    assert_eq!(conn, bench.conn_of(&a.pubkey));
    assert_eq!(seen.ids, names(&[read]));
    take_it(&mut bench, conn, &seen);
    // Marked again, or by somebody else, it is no news.
    mark(&mut bench, &a.token, [1, 3]);
    mark(&mut bench, &b.token, [1, 2]);
    bench.advance(Duration::from_secs(120));
    assert_eq!(take_seen(&mut bench), []);
    assert!(bench.image.seen_owed.is_empty());
}

#[test]
fn mail_of_the_member_that_a_session_read_is_told_as_the_members() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    let member = bench.member_key();
    bench.push(&member, &peer(5), "k1", "1");
    mark(&mut bench, &a.token, [1]);
    let (conn, _) = take_seen(&mut bench).remove(0);
    assert_eq!(conn, bench.conn_of(&member));
}

#[test]
fn what_was_not_opened_was_read_by_nobody() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    let for_another = sealed_push(&key_of(&peer(8)), &peer(5), "k1", "secret");
    bench.frame(
        bench.conn_of(&a.pubkey),
        BrokerFrame::Push(Box::new(for_another)),
    );
    mark(&mut bench, &a.token, [1]);
    assert_eq!(take_seen(&mut bench), []);
    assert!(bench.image.inbox[&InboxSeq(1)].seen_at.is_some());
}

#[test]
fn nothing_is_told_before_the_mark_is_durable() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    bench.push(&a.pubkey, &peer(5), "k1", "1");
    bench.store = Store::Held;
    let ids = alloc::vec![InboxSeq(1)];
    bench.call(&a.token, Request::InboxSeen { ids });
    let (load, what) = bench.unanswered.pop_front().unwrap();
    let loaded = bench.image.load(&what);
    bench.feed(Input::Store(Event::Loaded { load, loaded }));
    assert_eq!(take_seen(&mut bench), []);
    bench.catch_up();
    assert_eq!(take_seen(&mut bench).len(), 1);
}

#[test]
fn it_is_told_again_until_it_was_taken() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    let read = names(&[bench.push(&a.pubkey, &peer(5), "k1", "1")]);
    mark(&mut bench, &a.token, [1]);
    assert_eq!(take_seen(&mut bench)[0].1.ids, read);
    // No answer.
    bench.advance(Duration::from_secs(20));
    let (conn, seen) = take_seen(&mut bench).remove(0);
    // Not now.
    let busy = crate::wire::broker::ErrorFrame {
        code: "busy".into(),
        message: "later".into(),
        id: None,
        req_id: seen.req_id.clone(),
        broker_time_ms: None,
    };
    bench.frame(conn, BrokerFrame::Error(busy));
    assert_eq!(take_seen(&mut bench), []);
    bench.advance(Duration::from_secs(2));
    assert_eq!(take_seen(&mut bench)[0].1.ids, read);
    // The connection goes, and then the process.
    bench.drop_conn(conn, Close::silent());
    bench.advance(Duration::from_secs(60));
    bench.connect();
    assert_eq!(take_seen(&mut bench)[0].1.ids, read);
    let mut bench = bench.crash();
    bench.connect();
    let (conn, seen) = take_seen(&mut bench).remove(0);
    assert_eq!(seen.ids, read);
    // An answer to another question is none to this one.
    bench.frame(conn, BrokerFrame::Ok { req_id: None });
    let other = Some(ReqId("s999".into()));
    bench.frame(conn, BrokerFrame::Ok { req_id: other });
    assert!(!bench.image.seen_owed.is_empty());
    take_it(&mut bench, conn, &seen);
    assert!(bench.image.seen_owed.is_empty());
    let mut bench = bench.crash();
    bench.connect();
    assert_eq!(take_seen(&mut bench), []);
}

#[test]
fn much_is_told_in_batches_one_after_the_other() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    let all: Vec<MessageId> = (0..250)
        .map(|n| bench.push(&a.pubkey, &peer(5), &alloc::format!("k{n}"), "x"))
        .collect();
    mark(&mut bench, &a.token, 1..=250);
    let mut told = Vec::new();
    for most in [SEEN_IDS_PER_FRAME, SEEN_IDS_PER_FRAME, 50] {
        let (conn, seen) = take_seen(&mut bench).remove(0);
        assert_eq!(seen.ids.len(), most);
        assert_eq!(take_seen(&mut bench), [], "one at a time");
        told.extend(seen.ids.clone());
        take_it(&mut bench, conn, &seen);
    }
    assert_eq!(told, names(&all));
    assert_eq!(take_seen(&mut bench), []);
}

#[test]
fn what_was_read_while_a_batch_was_under_way_follows() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    for n in 1..=3 {
        bench.push(&a.pubkey, &peer(5), &alloc::format!("k{n}"), "x");
    }
    mark(&mut bench, &a.token, [1]);
    let (conn, seen) = take_seen(&mut bench).remove(0);
    mark(&mut bench, &a.token, [2]);
    take_it(&mut bench, conn, &seen);
    let (conn, seen) = take_seen(&mut bench).remove(0);
    assert_eq!(seen.ids.len(), 1);
    // The store was asked, and answers what it held before the next mark.
    bench.store = Store::Held;
    take_it(&mut bench, conn, &seen);
    bench.catch_up();
    mark(&mut bench, &a.token, [3]);
    assert_eq!(take_seen(&mut bench).len(), 1);
}

#[test]
fn a_broker_that_takes_no_seen_is_told_none() {
    let mut bench = Bench::new();
    let a = bench.open("a");
    bench.advance(Duration::from_millis(300));
    while let Some((conn, plan)) = bench.dials.pop_front() {
        let secret = plan.session.as_ref().map(|session| &session.secret);
        let key = StandIn.public_key(secret.unwrap_or(&plan.member_secret));
        bench.up.insert(key, conn);
        let mut ack = hello_ack(Resumed::Fresh, 0);
        ack.features = None;
        let ack = Box::new(ack);
        bench.feed(Input::Up { conn, ack });
    }
    bench.push(&a.pubkey, &peer(5), "k1", "1");
    mark(&mut bench, &a.token, [1]);
    bench.advance(Duration::from_secs(60));
    assert_eq!(take_seen(&mut bench), []);
    // Another broker, later, is told; and nothing of it keeps an ended session here.
    bench.ask(&a.token, Request::SessionEnd { session: None });
    let byes = bench.take_frames(|frame| (*frame == ClientFrame::Bye).then_some(()));
    assert_eq!(byes.len(), 1);
}

#[test]
fn an_ended_session_stays_until_it_has_told_what_it_read() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    bench.push(&a.pubkey, &peer(5), "k1", "1");
    mark(&mut bench, &a.token, [1]);
    let (conn, seen) = take_seen(&mut bench).remove(0);
    bench.ask(&a.token, Request::SessionEnd { session: None });
    let bye = |frame: &ClientFrame| (*frame == ClientFrame::Bye).then_some(());
    assert_eq!(bench.take_frames(bye), []);
    take_it(&mut bench, conn, &seen);
    assert_eq!(bench.take_frames(bye), [(conn, ())]);
}

//! Sessions that end, and a host that stops.

use super::*;
use crate::store::host::OutboxStatus;

fn said_bye(bench: &Bench, conn: ConnId) -> bool {
    bench
        .frames
        .iter()
        .any(|(on, frame)| *on == conn && *frame == ClientFrame::Bye)
}

#[test]
fn a_session_that_ends_says_bye_when_that_is_durable() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = bench.conn_of(&session.pubkey);
    bench.store = Store::Held;
    bench.call(&session.token, Request::SessionEnd { session: None });
    assert!(!said_bye(&bench, conn));
    bench.catch_up();
    assert!(said_bye(&bench, conn));
    assert_eq!(bench.hangups[0].0, conn);
    let me = bench.ask(&session.token, Request::SessionMe);
    assert_eq!(me.status, 401);
}

#[test]
fn a_process_that_is_gone_ends_its_session() {
    let mut bench = Bench::new();
    let open = SessionOpen {
        pid: Some(77),
        ..session_open("a")
    };
    bench.ask("", Request::SessionOpen(open));
    bench.connect();
    assert!(bench.host.watched_pids().contains(&77));
    bench.feed(Input::ProcessGone { pid: 76 });
    assert!(bench.hangups.is_empty());
    bench.feed(Input::ProcessGone { pid: 77 });
    assert_eq!(bench.hangups.len(), 1);
    assert!(bench.host.watched_pids().is_empty());
}

#[test]
fn an_ended_session_keeps_its_uplink_until_its_rows_are_settled() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.send_now(&session.token, &to, "1", Some("k1"));
    bench.send_now(&session.token, &to, "2", Some("k2"));
    let conn = bench.conn_of(&session.pubkey);
    bench.ask(&session.token, Request::SessionEnd { session: None });
    assert!(!said_bye(&bench, conn));
    for _ in 0..2 {
        let sends = bench.take_sends();
        assert_eq!(sends[0].0, conn);
        bench.ack(conn, &sends[0].1);
    }
    assert!(said_bye(&bench, conn));
}

#[test]
fn after_a_restart_an_ended_session_sends_what_it_owes() {
    let mut bench = Bench::new();
    let session = bench.open("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    bench.ask(&session.token, Request::SessionEnd { session: None });
    let mut bench = bench.crash();
    bench.connect();
    let sends = bench.take_sends();
    assert_eq!(sends[0].0, bench.conn_of(&session.pubkey));
    bench.ack(sends[0].0, &sends[0].1);
    assert!(said_bye(&bench, sends[0].0));
    let row = bench.image.outbox.values().next().unwrap();
    assert_eq!(row.state.status, OutboxStatus::Done);
}

#[test]
fn a_session_that_is_opened_again_does_not_leave() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    let conn = bench.conn_of(&session.pubkey);
    bench.ask(&session.token, Request::SessionEnd { session: None });
    let again = bench.open("a");
    assert_eq!(again.pubkey, session.pubkey);
    let sends = bench.take_sends();
    bench.ack(conn, &sends[0].1);
    assert!(!said_bye(&bench, conn));
    assert!(bench.hangups.is_empty());
}

#[test]
fn stopping_closes_without_bye_and_waits_for_the_store() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conns: Vec<ConnId> = bench.up.values().copied().collect();
    bench.store = Store::Held;
    let request = bench.send(&session.token, &hex_of(&peer(5)), "hi", None);
    bench.feed(Input::Stop);
    assert_eq!(bench.hangups.len(), conns.len());
    assert!(bench.frames.iter().all(|(_, f)| *f != ClientFrame::Bye));
    for conn in &conns {
        let close = Close::new(Close::GOING_AWAY, "");
        bench.drop_conn(*conn, close);
    }
    assert!(!bench.stopped);
    bench.catch_up();
    assert_eq!(bench.answered(request).unwrap().status, 202);
    assert!(bench.stopped);
    assert!(bench.take_sends().is_empty());
    bench.advance(Duration::from_secs(3600));
    assert!(bench.dials.is_empty());
}

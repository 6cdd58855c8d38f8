//! Where a message is, and why.

use super::*;
use crate::wire::broker::ErrorFrame;
use crate::wire::receipt::{DeliveryState, Explain, ExplainResult, Happened, WaitsFor};

fn message(bench: &mut Bench, token: &str, id: &str) -> RequestId {
    let id = id.into();
    bench.call(token, Request::Message { id, mesh: None })
}

fn message_now(bench: &mut Bench, token: &str, id: &str) -> Answer {
    let request = message(bench, token, id);
    bench.answered(request).expect("answered at once")
}

fn take_explains(bench: &mut Bench) -> Vec<(ConnId, Explain)> {
    bench.take_frames(|frame| match frame {
        ClientFrame::Explain(explain) => Some(explain.clone()),
        _ => None,
    })
}

/// A message that the broker has, as `broker-1`.
fn accepted(bench: &mut Bench, session: &OpenedSession, id: &str) {
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some(id));
    let (conn, send) = bench.take_sends().remove(0);
    bench.ack(conn, &send);
}

fn result(explain: &Explain, state: DeliveryState, waits_for: WaitsFor) -> ExplainResult {
    ExplainResult {
        message_id: MessageId::from("broker-1"),
        client_message_id: ClientMessageId::from("k"),
        recipient: key_of(&peer(5)),
        state,
        waits_for,
        holder: None,
        attempt: 2,
        next_at: Some("2026-01-01T00:00:00.000Z".into()),
        history: alloc::vec![Happened {
            what: "accepted".into(),
            at: "2026-01-01T00:00:00.000Z".into(),
        }],
        req_id: explain.req_id.clone(),
    }
}

fn rungs(answer: &Answer) -> Vec<&str> {
    let ladder = answer.body["ladder"].as_array().expect("a ladder");
    ladder
        .iter()
        .map(|rung| rung["rung"].as_str().expect("a rung has a name"))
        .collect()
}

#[test]
fn what_has_not_left_waits_for_its_uplink_and_says_so() {
    let mut bench = Bench::new();
    let a = bench.open("a");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
    let answer = message_now(&mut bench, &a.token, "k");
    assert_eq!(answer.body["state"], "queued");
    assert_eq!(answer.body["why"]["waits_for"], "uplink");
    assert_eq!(answer.body["why"]["uplink"]["state"], "waiting");
    assert!(answer.body["why"]["next_at"].is_string());
    bench.connect();
    let answer = message_now(&mut bench, &a.token, "k");
    assert_eq!(answer.body["why"]["waits_for"], "acknowledgement");
    // The next of its lane waits for it.
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k2"));
    let answer = message_now(&mut bench, &a.token, "k2");
    assert_eq!(answer.body["why"]["waits_for"], "turn");
    assert_eq!(answer.body["why"]["behind"], 1);
}

#[test]
fn a_deferral_says_which_code_and_until_when() {
    for (code, most_ms) in [
        ("busy", 3_000),
        ("rate_limited", 3_000),
        ("recipient_full", 3_000),
    ] {
        let mut bench = Bench::new();
        let a = bench.session("a");
        bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
        let (conn, send) = bench.take_sends().remove(0);
        bench.refuse(conn, &send, code, Some(2_000));
        let answer = message_now(&mut bench, &a.token, "k");
        let why = &answer.body["why"];
        assert_eq!(why["waits_for"], "deferral", "{code}: {answer:?}");
        assert_eq!(why["code"], code);
        assert_eq!(why["attempt"], 0, "not now is no attempt");
        let until = bench.now.wall + Duration::from_millis(most_ms);
        assert!(why["next_at"].as_str() <= Some(until.iso8601().to_string().as_str()));
        assert!(why["next_at"].as_str() > Some(bench.now.wall.iso8601().to_string().as_str()));
    }
}

#[test]
fn an_attempt_that_failed_says_how_and_when_the_next_is() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
    let (conn, send) = bench.take_sends().remove(0);
    bench.refuse(conn, &send, "out_of_cheese", None);
    let answer = message_now(&mut bench, &a.token, "k");
    let why = &answer.body["why"];
    assert_eq!(
        (&why["waits_for"], &why["code"]),
        (&json!("retry"), &json!("out_of_cheese"))
    );
    assert_eq!(why["attempt"], 1);
    assert!(why["next_at"].is_string());
}

#[test]
fn the_broker_is_asked_over_the_senders_uplink_for_what_it_has() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    accepted(&mut bench, &a, "k");
    let request = message(&mut bench, &a.token, "k");
    let (conn, explain) = take_explains(&mut bench).remove(0);
    assert_eq!(conn, bench.conn_of(&a.pubkey));
    assert_eq!(explain.id, "broker-1");
    let said = result(&explain, DeliveryState::Ready, WaitsFor::Status);
    // On another connection it is no answer.
    let other = bench.conn_of(&bench.member_key());
    bench.frame(other, BrokerFrame::ExplainResult(Box::new(said.clone())));
    assert_eq!(bench.answered(request), None);
    bench.frame(conn, BrokerFrame::ExplainResult(Box::new(said)));
    let answer = bench.answered(request).expect("answered");
    assert_eq!(answer.body["state"], "accepted");
    assert_eq!(rungs(&answer), ["queued", "accepted"]);
    let why = &answer.body["why"];
    assert_eq!(
        (&why["said_by"], &why["waits_for"]),
        (&json!("broker"), &json!("status"))
    );
    assert_eq!(why["attempt"], 2);
}

#[test]
fn what_receipts_told_needs_no_question() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    accepted(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 1, "k", Rung::Delivered);
    let answer = message_now(&mut bench, &a.token, "k");
    assert_eq!(answer.body["state"], "delivered");
    assert_eq!(answer.body["why"]["waits_for"], "reader");
    bench.receipt(&a.pubkey, 2, "k", Rung::Seen);
    let answer = message_now(&mut bench, &a.token, "broker-1");
    assert_eq!(answer.body["state"], "seen");
    assert_eq!(rungs(&answer), ["queued", "accepted", "delivered", "seen"]);
    assert_eq!(answer.body["why"]["waits_for"], "nothing");
}

#[test]
fn a_mesh_that_is_away_is_said_to_be() {
    for ending in ["lost", "silent", "away"] {
        let mut bench = Bench::new();
        let a = bench.session("a");
        accepted(&mut bench, &a, "k");
        let conn = bench.conn_of(&a.pubkey);
        if ending == "away" {
            bench.drop_conn(conn, Close::silent());
        }
        let request = message(&mut bench, &a.token, "k");
        match ending {
            "lost" => bench.drop_conn(conn, Close::silent()),
            "silent" => bench.advance(Duration::from_secs(11)),
            _ => {}
        }
        let answer = bench.answered(request).expect("answered");
        assert_eq!(answer.body["state"], "accepted", "{ending}");
        assert_eq!(answer.body["why"]["waits_for"], "broker");
        assert_eq!(answer.body["why"]["said_by"], "host");
        let up = answer.body["why"]["uplink"]["state"] == "up";
        assert_eq!(up, ending == "silent", "{ending}");
    }
}

#[test]
fn what_the_broker_does_not_know_is_told_apart() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    accepted(&mut bench, &a, "k");
    for (code, waits_for) in [("not_found", "unknown"), ("busy", "broker")] {
        let request = message(&mut bench, &a.token, "k");
        let (conn, explain) = take_explains(&mut bench).remove(0);
        let error = ErrorFrame {
            code: code.into(),
            message: String::new(),
            id: None,
            req_id: explain.req_id,
            broker_time_ms: None,
        };
        bench.frame(conn, BrokerFrame::Error(error));
        let answer = bench.answered(request).expect("answered");
        assert_eq!(answer.body["why"]["waits_for"], waits_for);
    }
}

#[test]
fn what_was_received_is_found_by_its_reader_and_by_nobody_else() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    let id = bench.push(&a.pubkey, &peer(5), "k1", "1").to_string();
    let answer = message_now(&mut bench, &a.token, &id);
    assert_eq!(answer.body["direction"], "received");
    assert_eq!(answer.body["state"], "delivered");
    let ids = alloc::vec![InboxSeq(1)];
    bench.ask(&a.token, Request::InboxSeen { ids });
    let answer = message_now(&mut bench, &a.token, &id);
    assert_eq!(answer.body["state"], "seen");
    for other in [&b.token, ""] {
        let answer = message_now(&mut bench, other, &id);
        assert_eq!(code(&answer), (404, "not_found"));
    }
}

#[test]
fn the_beginning_of_an_id_is_enough_where_it_means_one() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    for id in ["abcdefgh1", "abcdefgh2", "abcdefgh"] {
        bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some(id));
    }
    let answer = message_now(&mut bench, &a.token, "abcdefgh1");
    assert_eq!(answer.body["id"], "abcdefgh1");
    // All of one id is that one.
    let answer = message_now(&mut bench, &a.token, "abcdefgh");
    assert_eq!(answer.body["id"], "abcdefgh");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("zyxwvuts1"));
    let answer = message_now(&mut bench, &a.token, "zyxwvuts");
    assert_eq!(answer.body["id"], "zyxwvuts1");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("zyxwvuts2"));
    let answer = message_now(&mut bench, &a.token, "zyxwvuts");
    assert_eq!(code(&answer), (422, "ambiguous_prefix"));
    // Too short to be the beginning of anything.
    assert_eq!(
        code(&message_now(&mut bench, &a.token, "zyxwvut")),
        (404, "not_found")
    );
    assert_eq!(
        code(&message_now(&mut bench, &b.token, "zyxwvuts1")),
        (404, "not_found")
    );
}

#[test]
fn what_was_given_up_here_says_why() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
    let (conn, send) = bench.take_sends().remove(0);
    bench.refuse(conn, &send, "forbidden", None);
    let answer = message_now(&mut bench, &a.token, "k");
    assert_eq!(answer.body["state"], "dead");
    assert_eq!(answer.body["ladder"][1]["reason"], "forbidden");
    let b = bench.open("b");
    bench.send_now(&b.token, &hex_of(&peer(5)), "hi", Some("late"));
    bench.dials.clear();
    bench.advance(Duration::from_secs(28 * 24 * 3600));
    let answer = message_now(&mut bench, &b.token, "late");
    assert_eq!(answer.body["state"], "expired");
}

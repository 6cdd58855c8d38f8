//! From a send to its end.

use super::*;
use crate::store::host::{OutboxRow, OutboxState, OutboxStatus};

fn row(bench: &Bench, id: &str) -> OutboxRow {
    let id = ClientMessageId::from(id);
    let rows: Vec<&OutboxRow> = bench
        .image
        .outbox
        .values()
        .filter(|row| row.client_message_id == id)
        .collect();
    assert_eq!(rows.len(), 1, "one row for {id}");
    rows[0].clone()
}

fn state(bench: &Bench, id: &str) -> OutboxState {
    row(bench, id).state
}

#[test]
fn nothing_is_promised_or_sent_before_it_is_durable() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    let request = bench.send(&session.token, &hex_of(&peer(5)), "hi", None);
    assert_eq!(bench.answered(request), None);
    assert!(bench.take_sends().is_empty());
    bench.catch_up();
    assert_eq!(bench.answered(request).unwrap().status, 202);
    assert_eq!(bench.take_sends().len(), 1);
}

#[test]
fn a_message_is_sealed_for_its_target_and_goes_over_its_senders_uplink() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = peer(5);
    let answer = bench.send_now(&session.token, &hex_of(&to), "hi", Some("k"));
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["id"], "k");
    let sends = bench.take_sends();
    let (conn, send) = &sends[0];
    assert_eq!(*conn, bench.conn_of(&session.pubkey));
    assert_eq!(send.target_spec, hex_of(&to));
    let id = ClientMessageId::from("k");
    let context = SealContext {
        mesh: &MeshId::from("m1"),
        sender: &session.pubkey,
        recipient: &key_of(&to),
        client_message_id: &id,
        priority: Priority::Next,
        reply_to: None,
    };
    let sealed = crate::crypto::Sealed {
        nonce: send.nonce.decode().try_into().unwrap(),
        ciphertext: send.ciphertext.decode(),
    };
    let plain = StandIn.open_x1(&to, &context, &sealed).unwrap();
    assert_eq!(plain, br#"{"v":1,"body":"hi"}"#);
    // Form 1 stays here.
    assert_eq!(send.request_fingerprint, Some(row(&bench, "k").form_2));
    assert_ne!(row(&bench, "k").form_1, row(&bench, "k").form_2);
    bench.ack(*conn, send);
    assert_eq!(state(&bench, "k").status, OutboxStatus::Done);
    assert_eq!(bench.host.outbox_depth(), 0);
}

#[test]
fn without_its_own_uplink_a_message_waits_and_never_goes_by_another() {
    let mut bench = Bench::new();
    bench.connect();
    assert_eq!(bench.up.len(), 1, "the control plane is up");
    let session = bench.open("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    bench.advance(Duration::from_secs(600));
    assert!(bench.take_sends().is_empty());
    assert_eq!(state(&bench, "k").attempts, 0);
    bench.connect();
    let sends = bench.take_sends();
    assert_eq!(sends.len(), 1);
    assert_eq!(sends[0].0, bench.conn_of(&session.pubkey));
}

#[test]
fn the_member_sends_over_the_control_plane() {
    let mut bench = Bench::new();
    bench.connect();
    bench.send_now("", &hex_of(&peer(5)), "hi", None);
    let sends = bench.take_sends();
    assert_eq!(sends[0].0, bench.conn_of(&bench.member_key()));
}

#[test]
fn only_an_id_of_ours_that_was_never_on_a_wire_is_first() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "minted", None);
    bench.send_now(&session.token, &hex_of(&peer(6)), "given", Some("k"));
    let sends = bench.take_sends();
    assert_eq!(
        sends.iter().map(|(_, s)| s.first).collect::<Vec<_>>(),
        [true, false]
    );
    // On the next connection both were on a wire.
    let conn = bench.conn_of(&session.pubkey);
    bench.drop_conn(conn, Close::new(Close::ABNORMAL, ""));
    bench.advance(Duration::from_secs(2));
    bench.connect();
    let again = bench.take_sends();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|(_, send)| !send.first));
}

#[test]
fn a_recovered_row_is_pending_and_never_first() {
    for was_sent in [true, false] {
        let mut bench = Bench::new();
        let session = if was_sent {
            bench.session("a")
        } else {
            bench.open("a")
        };
        bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
        assert_eq!(bench.take_sends().len(), usize::from(was_sent));
        let mut bench = bench.crash();
        assert_eq!(bench.host.outbox_depth(), 1);
        assert_eq!(bench.mark(Mark::InflightRecovered), u64::from(was_sent));
        bench.connect();
        let sends = bench.take_sends();
        assert_eq!(sends.len(), 1);
        assert!(!sends[0].1.first);
    }
}

#[test]
fn an_accept_that_was_not_durable_is_not_there_after_a_crash() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    bench.send(&session.token, &hex_of(&peer(5)), "hi", None);
    let bench = bench.crash();
    assert_eq!(bench.host.outbox_depth(), 0);
}

/// The table of DAEMON, "Accepting a send": the row's state, then the answers to the same and to
/// another request.
#[test]
fn the_accept_table() {
    type Settle = fn(&mut Bench, ConnId, &Send);
    let cases: [(&str, Settle, (u16, &str), &str); 4] = [
        (
            "inflight",
            |_, _, _| {},
            (202, ""),
            "outbox_inflight_fingerprint_mismatch",
        ),
        (
            "done",
            |bench, conn, send| bench.ack(conn, send),
            (200, ""),
            "outbox_done_fingerprint_mismatch",
        ),
        (
            "dead",
            |bench, conn, send| bench.refuse(conn, send, "forbidden", None),
            (409, "outbox_dead_fingerprint_match"),
            "outbox_dead_fingerprint_mismatch",
        ),
        (
            "pending",
            |bench, conn, _| bench.drop_conn(conn, Close::new(Close::ABNORMAL, "")),
            (202, ""),
            "outbox_pending_fingerprint_mismatch",
        ),
    ];
    for (name, settle, same, mismatch) in cases {
        // With everything in memory, and with only the store to ask.
        for cache in [Limits::default().dedupe_cache, 0] {
            let mut bench = Bench::with(Limits {
                dedupe_cache: cache,
                ..Limits::default()
            });
            let session = bench.session("a");
            let to = hex_of(&peer(5));
            bench.send_now(&session.token, &to, "hi", Some("k"));
            let sends = bench.take_sends();
            settle(&mut bench, sends[0].0, &sends[0].1);
            let answer = bench.send_now(&session.token, &to, "hi", Some("k"));
            assert_eq!(code(&answer), same, "{name}");
            let other = bench.send_now(&session.token, &to, "other", Some("k"));
            assert_eq!(code(&other), (409, mismatch), "{name}");
            let prefix = other.body["error"]["fingerprint_prefix"].as_str().unwrap();
            assert_eq!(prefix, &row(&bench, "k").form_1.to_string()[..16], "{name}");
            if name == "done" {
                assert_eq!(answer.body["duplicate"], true);
                assert_eq!(answer.body["broker_message_id"], "broker-1");
            }
            if name == "dead" {
                assert_eq!(answer.body["error"]["reason"], "forbidden");
            }
            assert_eq!(bench.image.outbox.len(), 1, "{name}: nothing was written");
        }
    }
}

#[test]
fn a_repeat_of_what_is_not_durable_waits_for_the_same_transaction() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.store = Store::Held;
    let first = bench.send(&session.token, &to, "hi", Some("k"));
    let repeat = bench.send(&session.token, &to, "hi", Some("k"));
    assert_eq!(
        (bench.answered(first), bench.answered(repeat)),
        (None, None)
    );
    bench.catch_up();
    assert_eq!(bench.answered(first).unwrap().status, 202);
    assert_eq!(bench.answered(repeat).unwrap().status, 202);
    assert_eq!(bench.image.outbox.len(), 1);
}

#[test]
fn a_retry_does_not_fail_because_its_target_has_left() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let other = bench.open("bob");
    assert_eq!(
        bench
            .send_now(&session.token, "bob", "hi", Some("k"))
            .status,
        202
    );
    assert_eq!(row(&bench, "k").target, other.pubkey);
    bench.ask(&other.token, Request::SessionEnd { session: None });
    let retry = bench.send_now(&session.token, "bob", "hi", Some("k"));
    assert_eq!(retry.status, 202);
    // What means nobody, and is not the row's own text, is another message.
    let renamed = bench.send_now(&session.token, "bobby", "hi", Some("k"));
    assert_eq!(
        code(&renamed),
        (409, "outbox_inflight_fingerprint_mismatch")
    );
}

#[test]
fn what_is_too_large_under_a_known_id_is_another_message() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    let large = "x".repeat(70_000);
    let refused = bench.send_now(&session.token, &to, &large, Some("k"));
    assert_eq!(code(&refused), (413, "payload_too_large"));
    let accepted = bench.send_now(&session.token, &to, "hi", Some("k"));
    assert_eq!(accepted.status, 202);
    let other = bench.send_now(&session.token, &to, &large, Some("k"));
    assert_eq!(code(&other), (409, "outbox_inflight_fingerprint_mismatch"));
}

#[test]
fn a_refused_request_consumes_no_id() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let unknown = bench.send_now(&session.token, "nobody", "hi", Some("k"));
    assert_eq!(code(&unknown), (422, "target_unknown"));
    let to = hex_of(&peer(5));
    assert_eq!(
        bench.send_now(&session.token, &to, "hi", Some("k")).status,
        202
    );
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let own = session.pubkey.to_string();
    let long = "x".repeat(65 * 1024);
    let to = hex_of(&peer(5));
    for (to, body, expected) in [
        ("*", "hi", (400, "bad_request")),
        ("@team", "hi", (400, "bad_request")),
        ("#general", "hi", (400, "bad_request")),
        ("", "hi", (400, "bad_request")),
        ("a\0b", "hi", (400, "bad_request")),
        (own.as_str(), "hi", (400, "bad_request")),
        ("a", "hi", (400, "bad_request")),
        (to.as_str(), long.as_str(), (413, "payload_too_large")),
    ] {
        let answer = bench.send_now(&session.token, to, body, None);
        assert_eq!(code(&answer), expected, "{to:?}");
    }
    assert!(bench.image.outbox.is_empty());
}

#[test]
fn one_row_of_a_lane_is_under_way_and_lanes_run_side_by_side() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let (x, y) = (hex_of(&peer(5)), hex_of(&peer(6)));
    for (to, id) in [(&x, "x1"), (&x, "x2"), (&y, "y1"), (&x, "x3")] {
        bench.send_now(&session.token, to, "hi", Some(id));
    }
    let ids = |sends: &[(ConnId, Send)]| -> Vec<String> {
        let id = |(_, send): &(ConnId, Send)| send.client_message_id.as_ref().unwrap().to_string();
        sends.iter().map(id).collect()
    };
    let sends = bench.take_sends();
    assert_eq!(ids(&sends), ["x1", "y1"]);
    bench.ack(sends[0].0, &sends[0].1);
    let sends = bench.take_sends();
    assert_eq!(ids(&sends), ["x2"]);
    // A deferral keeps the head in its place.
    bench.refuse(sends[0].0, &sends[0].1, "recipient_full", None);
    assert!(bench.take_sends().is_empty());
    bench.advance(Duration::from_secs(2));
    assert_eq!(ids(&bench.take_sends()), ["x2"]);
}

/// Runs until something is sent.
fn next_send(bench: &mut Bench) -> (ConnId, Send) {
    for _ in 0..200 {
        if let Some(sent) = bench.take_sends().pop() {
            return sent;
        }
        bench.advance(Duration::from_millis(500));
    }
    panic!("nothing is sent");
}

#[test]
fn not_now_is_not_an_attempt() {
    for refusal in [
        "rate_limited",
        "busy",
        "storage_full",
        "recipient_full",
        "audience_changed",
        "outcome_unknown",
    ] {
        let mut bench = Bench::new();
        let session = bench.session("a");
        bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
        for _ in 0..40 {
            let (conn, send) = next_send(&mut bench);
            bench.refuse(conn, &send, refusal, Some(700));
            bench.advance(Duration::from_millis(699));
            let early = bench.take_sends();
            assert!(early.is_empty(), "{refusal}: not before retryAfterMs");
        }
        assert_eq!(state(&bench, "k").attempts, 0, "{refusal}");
        assert_eq!(state(&bench, "k").last_error.as_deref(), Some(refusal));
        let (conn, send) = next_send(&mut bench);
        assert!(!send.first);
        bench.ack(conn, &send);
        assert_eq!(state(&bench, "k").status, OutboxStatus::Done);
        assert!(bench.hangups.is_empty());
    }
}

#[test]
fn rate_limited_stops_the_session_and_busy_the_mesh() {
    for (refusal, sibling_goes) in [
        ("rate_limited", true),
        ("busy", false),
        ("recipient_full", true),
    ] {
        let mut bench = Bench::new();
        let (a, b) = (bench.session("a"), bench.session("b"));
        bench.send_now(&a.token, &hex_of(&peer(5)), "hi", None);
        let sends = bench.take_sends();
        bench.refuse(sends[0].0, &sends[0].1, refusal, Some(5_000));
        bench.send_now(&a.token, &hex_of(&peer(6)), "hi", None);
        let own = bench.take_sends().len();
        assert_eq!(own, usize::from(refusal == "recipient_full"), "{refusal}");
        bench.send_now(&b.token, &hex_of(&peer(5)), "hi", None);
        assert_eq!(
            bench.take_sends().len(),
            usize::from(sibling_goes),
            "{refusal}"
        );
    }
}

#[test]
fn a_code_that_is_not_known_is_an_attempt_and_ends() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    for attempt in 1..=25 {
        let (conn, send) = next_send(&mut bench);
        bench.refuse(conn, &send, "from_the_future", None);
        assert_eq!(state(&bench, "k").attempts, attempt);
    }
    bench.advance(Duration::from_secs(60));
    let state = state(&bench, "k");
    assert_eq!(state.status, OutboxStatus::Dead);
    assert_eq!(
        state.last_error.as_deref(),
        Some("gave_up: from_the_future")
    );
    assert!(bench.take_sends().is_empty());
}

#[test]
fn a_permanent_refusal_is_dead_and_the_lane_goes_on() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.send_now(&session.token, &to, "one", Some("k1"));
    bench.send_now(&session.token, &to, "two", Some("k2"));
    let sends = bench.take_sends();
    bench.refuse(sends[0].0, &sends[0].1, "target_not_found", None);
    assert_eq!(state(&bench, "k1").status, OutboxStatus::Dead);
    assert_eq!(bench.take_sends().len(), 1);
}

#[test]
fn no_ack_on_a_live_link_is_an_attempt() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    let conn = bench.take_sends()[0].0;
    bench.advance(Duration::from_secs(15));
    let ping = bench.frames.iter().find_map(|(on, frame)| match frame {
        ClientFrame::Ping { n } if *on == conn => *n,
        _ => None,
    });
    assert!(ping.is_some(), "the link is probed");
    assert_eq!(state(&bench, "k").attempts, 0);
    bench.frame(conn, BrokerFrame::Pong { n: ping });
    assert_eq!(state(&bench, "k").attempts, 1);
    bench.advance(Duration::from_secs(1));
    let again = bench.take_sends();
    assert_eq!(again.len(), 1);
    assert!(!again[0].1.first);
    assert!(bench.hangups.is_empty());
}

#[test]
fn no_ack_on_a_dead_link_is_no_attempt() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    let conn = bench.take_sends()[0].0;
    bench.advance(Duration::from_secs(26));
    assert_eq!(bench.hangups[0].0, conn);
    assert_eq!(state(&bench, "k").attempts, 0);
    bench.advance(Duration::from_secs(1));
    bench.connect();
    assert_eq!(bench.take_sends().len(), 1);
}

#[test]
fn a_row_at_its_max_age_is_dead_and_said_so() {
    let mut bench = Bench::new();
    let session = bench.open("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    let age = bench.limits.outbox_max_age();
    bench.dials.clear();
    bench.advance(age - Duration::from_secs(60));
    assert_eq!(state(&bench, "k").status, OutboxStatus::Pending);
    bench.advance(Duration::from_secs(120));
    assert_eq!(state(&bench, "k").status, OutboxStatus::Dead);
    assert_eq!(state(&bench, "k").last_error.as_deref(), Some("expired"));
}

#[test]
fn an_outbox_that_is_full_says_busy() {
    let mut bench = Bench::with(Limits {
        outbox_rows_per_session: 2,
        ..Limits::default()
    });
    let session = bench.open("a");
    let to = hex_of(&peer(5));
    assert_eq!(bench.send_now(&session.token, &to, "1", None).status, 202);
    assert_eq!(
        bench.send_now(&session.token, &to, "2", Some("k")).status,
        202
    );
    let third = bench.send_now(&session.token, &to, "3", None);
    assert_eq!(code(&third), (429, "busy"));
    // A repeat is not new.
    let repeat = bench.send_now(&session.token, &to, "2", Some("k"));
    assert_eq!(repeat.status, 202);
}

#[test]
fn a_disk_without_room_refuses_and_drains() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.send_now(&session.token, &to, "1", Some("k1"));
    bench.send_now(&session.token, &to, "2", Some("k2"));
    bench.feed(Input::DiskFree { bytes: 1_000 });
    let refused = bench.send_now(&session.token, &to, "3", None);
    assert_eq!(code(&refused), (507, "storage_full"));
    let sends = bench.take_sends();
    bench.ack(sends[0].0, &sends[0].1);
    assert_eq!(bench.take_sends().len(), 1);
    bench.feed(Input::DiskFree { bytes: 1 << 40 });
    assert_eq!(bench.send_now(&session.token, &to, "3", None).status, 202);
}

#[test]
fn an_ack_on_anothers_uplink_settles_nothing() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
    let sends = bench.take_sends();
    let wrong = bench.conn_of(&b.pubkey);
    bench.ack(wrong, &sends[0].1);
    assert_eq!(state(&bench, "k").status, OutboxStatus::Inflight);
}

#[test]
fn a_full_queue_of_a_connection_holds_the_rest_back() {
    let mut bench = Bench::with(Limits {
        queued_bytes: 2_000,
        ..Limits::default()
    });
    let session = bench.session("a");
    let body = "x".repeat(600);
    for n in 10..14 {
        bench.send_now(&session.token, &hex_of(&peer(n)), &body, None);
    }
    let sends = bench.take_sends();
    assert_eq!(sends.len(), 1, "half of what may be queued is queued");
    let bytes = crate::wire::encode_client(&ClientFrame::Send(Box::new(sends[0].1.clone()))).len();
    bench.feed(Input::Sent {
        conn: sends[0].0,
        bytes: bytes as u64,
    });
    assert_eq!(bench.take_sends().len(), 1);
}

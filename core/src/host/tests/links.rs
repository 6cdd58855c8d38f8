//! When uplinks dial, and what their ends mean.

use super::*;

fn member_conn(bench: &Bench) -> ConnId {
    bench.conn_of(&bench.member_key())
}

fn uplink(bench: &mut Bench) -> (String, String) {
    let health = bench.health();
    let shown = &health["uplinks"][0];
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_string();
    (text("state"), text("reason"))
}

fn end(bench: &mut Bench, down: Down) {
    let conn = match bench.up.get(&bench.member_key()) {
        Some(conn) => *conn,
        None => bench.dials.pop_front().expect("dialled").0,
    };
    bench.up.clear();
    bench.feed(Input::Down { conn, down });
}

fn closed(code: u16, reason: &str) -> Down {
    Down::Closed(Close::new(code, reason))
}

fn refused(code: &str, broker_time: Option<Wall>) -> Down {
    Down::Refused {
        code: code.into(),
        message: String::new(),
        broker_time,
    }
}

#[test]
fn a_lost_connection_is_dialled_again_and_resumed() {
    for down in [
        closed(1001, ""),
        closed(1006, ""),
        closed(1011, ""),
        closed(1012, ""),
        closed(1013, ""),
        closed(4008, "slow_consumer"),
        Down::DialFailed {
            detail: "refused".into(),
        },
        refused("capacity", None),
    ] {
        let mut bench = Bench::new();
        bench.connect();
        end(&mut bench, down);
        bench.advance(Duration::from_secs(1));
        let (_, plan) = bench.dials.pop_front().expect("dialled again");
        let seen = Resume {
            epoch: EPOCH,
            count: 0,
        };
        assert_eq!(plan.resume, Some(seen));
    }
}

#[test]
fn a_broker_that_says_when_is_not_dialled_before() {
    let mut bench = Bench::new();
    bench.connect();
    end(&mut bench, closed(1013, "{\"retryAfterMs\":8000}"));
    bench.advance(Duration::from_secs(7));
    assert!(bench.dials.is_empty());
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn replaced_three_times_in_five_minutes_stops() {
    let mut bench = Bench::new();
    bench.connect();
    for _ in 0..2 {
        end(&mut bench, Down::Closed(Close::session_replaced()));
        bench.advance(Duration::from_secs(29));
        assert!(bench.dials.is_empty());
        bench.advance(Duration::from_secs(2));
        bench.connect();
        assert_eq!(bench.up.len(), 1);
    }
    end(&mut bench, Down::Closed(Close::session_replaced()));
    bench.advance(Duration::from_secs(7_200));
    assert!(bench.dials.is_empty());
    let (state, reason) = uplink(&mut bench);
    assert_eq!(state, "stopped");
    assert!(reason.contains("session_replaced"));
    assert_eq!(bench.errors.len(), 1);
}

#[test]
fn the_late_close_of_a_past_connection_changes_nothing() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let old = bench.conn_of(&session.pubkey);
    // The host gave this connection up by itself.
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    bench.advance(Duration::from_secs(26));
    assert_eq!(bench.hangups[0].0, old);
    bench.advance(Duration::from_secs(1));
    bench.connect();
    let new = bench.conn_of(&session.pubkey);
    assert_ne!(old, new);
    bench.feed(Input::Down {
        conn: old,
        down: Down::Closed(Close::session_replaced()),
    });
    assert!(bench.up.contains_key(&session.pubkey));
    assert_eq!(uplink(&mut bench).0, "up");
    // What an old connection still says is nobody's.
    let push = sealed_push(&session.pubkey, &peer(5), "k", "late");
    bench.frame(old, BrokerFrame::Push(Box::new(push)));
    assert!(bench.image.inbox.is_empty());
}

#[test]
fn a_wrong_clock_is_corrected_and_tried_at_once() {
    let mut bench = Bench::new();
    bench.advance(Duration::from_millis(300));
    let theirs = bench.now.wall + Duration::from_secs(3_600);
    end(&mut bench, refused("timestamp_skew", Some(theirs)));
    bench.advance(Duration::from_millis(1));
    let (conn, plan) = bench.dials.pop_front().expect("dialled at once");
    assert_eq!(plan.clock_offset_ms, 3_600_000);
    // The second time in a row waits its turn.
    bench.feed(Input::Down {
        conn,
        down: refused("timestamp_skew", Some(theirs)),
    });
    bench.advance(Duration::from_millis(0));
    assert!(bench.dials.is_empty());
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_refusal_that_will_not_mend_is_tried_hourly_and_shown() {
    for down in [
        refused("unauthorized", None),
        refused("bad_signature", None),
        closed(1008, "unauthorized"),
        Down::FeatureMismatch(Close::new(4010, "{}")),
    ] {
        let mut bench = Bench::new();
        bench.advance(Duration::from_millis(300));
        end(&mut bench, down);
        bench.advance(Duration::from_secs(3_500));
        assert!(bench.dials.is_empty());
        assert_eq!(uplink(&mut bench).0, "stopped");
        bench.advance(Duration::from_secs(200));
        assert_eq!(bench.dials.len(), 1);
    }
}

#[test]
fn a_member_that_is_put_out_takes_its_sessions_along() {
    for down in [closed(4001, "kicked"), refused("revoked", None)] {
        let mut bench = Bench::new();
        bench.session("a");
        let conn = member_conn(&bench);
        bench.feed(Input::Down { conn, down });
        bench.advance(Duration::from_secs(7_200));
        assert!(bench.dials.is_empty());
        let health = bench.health();
        for shown in health["uplinks"].as_array().unwrap() {
            assert_eq!(shown["state"], "stopped");
        }
    }
}

#[test]
fn a_kicked_session_is_alone() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = bench.conn_of(&session.pubkey);
    bench.drop_conn(conn, Close::new(Close::KICKED, "kicked"));
    bench.advance(Duration::from_secs(60));
    assert!(bench.dials.is_empty());
    assert!(bench.up.contains_key(&bench.member_key()));
    // Opening it again is a deliberate act.
    let open = SessionOpen {
        take_over: true,
        ..session_open("a")
    };
    bench.ask("", Request::SessionOpen(open));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_count_that_does_not_match_starts_the_stream_anew() {
    let mut bench = Bench::new();
    bench.connect();
    let conn = member_conn(&bench);
    let at = |count| {
        BrokerFrame::Stream(StreamAt {
            epoch: EPOCH,
            count,
        })
    };
    bench.frame(conn, at(0));
    assert!(bench.hangups.is_empty());
    bench.frame(conn, at(1));
    assert_eq!(bench.hangups[0].0, conn);
    bench.advance(Duration::from_secs(1));
    let (_, plan) = bench.dials.pop_front().expect("dialled again");
    assert_eq!(plan.resume, None);
}

#[test]
fn a_broker_that_resumes_elsewhere_is_not_believed() {
    let mut bench = Bench::new();
    bench.connect();
    end(&mut bench, closed(1006, ""));
    bench.advance(Duration::from_secs(1));
    let (conn, plan) = bench.dials.pop_front().unwrap();
    bench.take_hello(conn, &plan, Resumed::Hit, 5);
    assert_eq!(bench.hangups[0].0, conn);
}

#[test]
fn a_host_that_did_not_run_gives_others_their_full_time() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    let sends = bench.take_sends();
    bench.sleep(Duration::from_secs(600));
    bench.host.handle_timeout(bench.now);
    bench.pump();
    assert_eq!(bench.mark(Mark::OwnerStalled), 1);
    assert!(bench.hangups.is_empty());
    assert_eq!(bench.mark(Mark::DrainTimedOut), 0);
    bench.ack(sends[0].0, &sends[0].1);
    assert_eq!(bench.host.outbox_depth(), 0);
}

#[test]
fn a_spurious_time_out_changes_nothing() {
    let mut bench = Bench::new();
    bench.session("a");
    let before = (bench.host.poll_timeout(), bench.host.sizes());
    for _ in 0..3 {
        bench.host.handle_timeout(bench.now);
        assert!(bench.host.poll_output().is_none());
    }
    assert_eq!((bench.host.poll_timeout(), bench.host.sizes()), before);
}

#[test]
fn no_deadline_is_left_of_an_idle_host() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    let sends = bench.take_sends();
    bench.ack(sends[0].0, &sends[0].1);
    let left = bench.host.poll_timeout().map(|next| next.why);
    assert!(
        matches!(left, None | Some(Why::OutboxAge)),
        "an idle host waits for nobody: {left:?}"
    );
}

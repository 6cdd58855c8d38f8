//! Kick and ban, asked for over the IPC and answered by the broker; and what being put out means
//! here.

use alloc::vec;

use super::*;
use crate::host::ipc::KickRequest;
use crate::wire::broker::ErrorFrame;
use crate::wire::client::ReqId;
use crate::wire::moderation::{Ban, BanAck, BansResult, KickAck, UnbanAck, Whom};

fn member_conn(bench: &Bench) -> ConnId {
    bench.conn_of(&bench.member_key())
}

fn kick(target: &str) -> Request {
    Request::Kick(KickRequest {
        target: Some(target.into()),
        ..KickRequest::default()
    })
}

/// What the control plane was given to ask last, and under which id.
fn asked(bench: &mut Bench) -> (ConnId, ClientFrame, Option<ReqId>) {
    let (conn, frame) = bench.frames.pop().expect("something was asked");
    let req_id = match &frame {
        ClientFrame::Kick { req_id, .. }
        | ClientFrame::Ban { req_id, .. }
        | ClientFrame::Unban { req_id, .. }
        | ClientFrame::ListBans { req_id, .. } => req_id.clone(),
        other => panic!("not of moderation: {other:?}"),
    };
    (conn, frame, req_id)
}

fn uplinks(bench: &mut Bench) -> Vec<(String, String)> {
    let health = bench.health();
    let text = |shown: &Value, key: &str| shown[key].as_str().unwrap_or_default().to_string();
    let shown = health["uplinks"].as_array().unwrap();
    shown
        .iter()
        .map(|shown| (text(shown, "kind"), text(shown, "state")))
        .collect()
}

#[test]
fn a_kick_goes_over_the_control_plane_and_is_answered_when_the_broker_answers() {
    let mut bench = Bench::new();
    bench.session("a");
    let call = bench.call("", kick("bob"));
    let (conn, frame, req_id) = asked(&mut bench);
    assert_eq!(conn, member_conn(&bench));
    assert!(matches!(frame, ClientFrame::Kick { whom: Whom::Target(bob), .. } if bob == "bob"));
    assert_eq!(bench.answered(call), None);
    let ack = KickAck {
        kicked: vec!["bob".into()],
        affected: vec!["bob".into()],
        skipped_control_plane: vec!["host".into()],
        more: 0,
        req_id,
    };
    bench.frame(conn, BrokerFrame::KickAck(ack));
    let answer = bench.answered(call).expect("answered");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["kicked"], json!(["bob"]));
    assert_eq!(answer.body["skipped_control_plane"], json!(["host"]));
}

#[test]
fn bans_are_made_taken_back_and_listed_page_by_page() {
    let mut bench = Bench::new();
    bench.connect();
    let (target, mesh) = ("bob".to_string(), None);
    let ban = bench.call(
        "",
        Request::Ban {
            target: target.clone(),
            mesh: mesh.clone(),
        },
    );
    let (conn, _, req_id) = asked(&mut bench);
    bench.frame(
        conn,
        BrokerFrame::BanAck(BanAck {
            banned: "bob".into(),
            req_id,
        }),
    );
    assert_eq!(bench.answered(ban).unwrap().body["banned"], "bob");

    let unban = bench.call(
        "",
        Request::Unban {
            target,
            mesh: mesh.clone(),
        },
    );
    let (_, _, req_id) = asked(&mut bench);
    bench.frame(
        conn,
        BrokerFrame::UnbanAck(UnbanAck {
            unbanned: "bob".into(),
            req_id,
        }),
    );
    assert_eq!(bench.answered(unban).unwrap().body["unbanned"], "bob");

    let list = bench.call("", Request::Bans { mesh });
    for (page, next) in [(1, Some("further".to_string())), (2, None)] {
        let (_, frame, req_id) = asked(&mut bench);
        let after = (page > 1).then(|| "further".to_string());
        assert!(matches!(frame, ClientFrame::ListBans { after: asked, .. } if asked == after));
        let bans = vec![Ban {
            name: alloc::format!("member {page}"),
            pubkey: key_of(&peer(page)),
            revoked_at: "2026-01-01T00:00:00.000Z".into(),
        }];
        bench.frame(
            conn,
            BrokerFrame::ListBansResult(BansResult { bans, next, req_id }),
        );
    }
    let answer = bench.answered(list).unwrap();
    let names: Vec<&Value> = answer.body["bans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| &ban["name"])
        .collect();
    assert_eq!(names, ["member 1", "member 2"]);
}

#[test]
fn a_refusal_keeps_its_code_and_an_old_broker_is_told_apart() {
    for (said, status, code_) in [
        ("forbidden", 403, "forbidden"),
        ("bad_request", 422, "bad_request"),
        ("unknown_message_type", 501, "unsupported"),
    ] {
        let mut bench = Bench::new();
        bench.connect();
        let call = bench.call("", kick("bob"));
        let (conn, _, req_id) = asked(&mut bench);
        let error = ErrorFrame {
            code: said.into(),
            message: "because".into(),
            id: None,
            req_id,
            broker_time_ms: None,
        };
        bench.frame(conn, BrokerFrame::Error(error));
        assert_eq!(code(&bench.answered(call).unwrap()), (status, code_));
    }
}

#[test]
fn a_mesh_that_is_away_says_so_and_silence_is_not_taken_for_an_answer() {
    let mut bench = Bench::new();
    assert_eq!(code(&bench.ask("", kick("bob"))), (503, "mesh_away"));
    bench.connect();
    let call = bench.call("", kick("bob"));
    bench.advance(Duration::from_secs(10));
    assert_eq!(code(&bench.answered(call).unwrap()), (503, "broker_silent"));

    let (kicked, listed) = (
        bench.call("", kick("bob")),
        bench.call("", Request::Bans { mesh: None }),
    );
    let conn = member_conn(&bench);
    bench.drop_conn(conn, Close::new(Close::GOING_AWAY, ""));
    assert_eq!(
        code(&bench.answered(kicked).unwrap()),
        (503, "broker_silent")
    );
    assert_eq!(code(&bench.answered(listed).unwrap()), (503, "mesh_away"));
    assert_eq!(bench.host.sizes().asked, 0);
}

#[test]
fn a_session_puts_nobody_out_and_one_word_says_whom() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let requests = || {
        let (target, mesh) = ("bob".to_string(), None);
        [
            kick("bob"),
            Request::Ban {
                target: target.clone(),
                mesh: None,
            },
            Request::Unban { target, mesh: None },
            Request::Bans { mesh },
            Request::RetryUplinks,
        ]
    };
    for request in requests() {
        assert_eq!(
            code(&bench.ask(&session.token, request)),
            (403, "forbidden")
        );
    }
    let vague = KickRequest {
        target: Some("bob".into()),
        all: true,
        ..KickRequest::default()
    };
    for vague in [vague, KickRequest::default()] {
        let answer = bench.ask("", Request::Kick(vague));
        assert_eq!(code(&answer), (400, "bad_request"));
    }
}

#[test]
fn up_brings_back_whoever_was_put_out() {
    let mut bench = Bench::new();
    bench.session("a");
    let conn = member_conn(&bench);
    bench.drop_conn(conn, Close::new(Close::KICKED, "kicked"));
    let stopped = |kind: &str| (kind.to_string(), "stopped".to_string());
    assert_eq!(
        uplinks(&mut bench),
        [stopped("session"), stopped("control-plane")]
    );
    // A session that is opened meanwhile does not come in by itself.
    bench.open("b");
    bench.advance(Duration::from_secs(7_200));
    assert!(bench.dials.is_empty());
    let health = bench.health();
    let reasons: Vec<&str> = health["uplinks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|shown| shown["reason"].as_str())
        .collect();
    assert!(reasons.contains(&"closed 4001 kicked"), "{reasons:?}");

    let answer = bench.ask("", Request::RetryUplinks);
    assert_eq!(answer.body["retried"], 3);
    bench.advance(Duration::from_secs(1));
    bench.connect();
    assert!(uplinks(&mut bench).iter().all(|(_, state)| state == "up"));
    assert_eq!(bench.ask("", Request::RetryUplinks).body["retried"], 0);
}

//! Event streams, and joining meshes.

use super::*;
use crate::crypto::invite::InviteToken;
use crate::host::ipc::{Invite, MeshCreate, MeshJoin};
use crate::limits::{EVENT_STREAMS, SUBSCRIBER_EVENTS};

#[test]
fn a_stream_is_ready_then_mail_then_peers_then_live() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    for n in 0..250 {
        bench.push(&session.pubkey, &peer(5), &alloc::format!("k{n}"), "old");
    }
    let stream = bench.listen(&session.token, Some(5));
    bench.push(&session.pubkey, &peer(5), "new", "new");
    let events = bench.take_events(stream);
    let kinds: Vec<&str> = events.iter().map(|(event, _)| *event).collect();
    assert_eq!(kinds[0], "ready");
    assert_eq!(events[0].1["daemon_version"], "0.0.0");
    assert!(kinds[1..246].iter().all(|kind| *kind == "message"));
    assert_eq!(kinds[246..], ["peers", "message"]);
    let seqs: Vec<u64> = events
        .iter()
        .filter(|(event, _)| *event == "message")
        .map(|(_, data)| data["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (6..=251).collect::<Vec<_>>());
}

#[test]
fn mail_that_arrives_while_the_backlog_is_read_is_told_once() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.push(&session.pubkey, &peer(5), "k1", "1");
    bench.store = Store::Held;
    let stream = bench.listen(&session.token, Some(0));
    let (load, what) = bench.unanswered.pop_front().unwrap();
    bench.push(&session.pubkey, &peer(5), "k2", "2");
    // The new row is durable before the page is read, and told of before the page comes.
    while bench.store_step() {
        bench.pump();
    }
    let loaded = bench.image.load(&what);
    bench.feed(Input::Store(Event::Loaded { load, loaded }));
    bench.catch_up();
    let mail = bench.take_events(stream);
    let bodies: Vec<&Value> = mail
        .iter()
        .filter(|(event, _)| *event == "message")
        .map(|(_, data)| &data["body"])
        .collect();
    assert_eq!(bodies, ["1", "2"]);
}

#[test]
fn a_stream_that_is_not_read_is_told_gap_and_ended() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let slow = bench.listen(&session.token, None);
    let fast = bench.listen(&session.token, None);
    for n in 0..SUBSCRIBER_EVENTS {
        bench.push(&session.pubkey, &peer(5), &alloc::format!("k{n}"), "x");
        bench.feed(Input::SubscriberSent {
            subscriber: fast,
            events: 3,
        });
    }
    assert_eq!(bench.ended_streams, [slow]);
    assert_eq!(bench.take_events(slow).last().unwrap().0, "gap");
    assert_eq!(bench.mark(Mark::SubscriberGap), 1);
    let told = bench.take_events(fast).len();
    assert_eq!(told, SUBSCRIBER_EVENTS + 2);
}

#[test]
fn a_backlog_is_paced_by_its_reader() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let rows = SUBSCRIBER_EVENTS + 300;
    for n in 0..rows {
        bench.push(&session.pubkey, &peer(5), &alloc::format!("k{n}"), "x");
    }
    let stream = bench.listen(&session.token, Some(0));
    let mut told = 0;
    loop {
        let events = bench.take_events(stream);
        assert!(events.len() <= SUBSCRIBER_EVENTS);
        if events.is_empty() {
            break;
        }
        told += events
            .iter()
            .filter(|(event, _)| *event == "message")
            .count();
        bench.feed(Input::SubscriberSent {
            subscriber: stream,
            events: events.len(),
        });
    }
    assert_eq!(told, rows);
    assert!(bench.ended_streams.is_empty());
}

#[test]
fn a_stream_ends_with_its_token() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let stream = bench.listen(&session.token, None);
    bench.ask(&session.token, Request::SessionEnd { session: None });
    assert_eq!(bench.ended_streams, [stream]);
}

#[test]
fn streams_are_counted() {
    let mut bench = Bench::new();
    for _ in 0..EVENT_STREAMS {
        bench.listen("", None);
    }
    bench.listen("", None);
    assert_eq!(bench.refused_streams.len(), 1);
    assert_eq!(bench.refused_streams[0].1.status, 429);
}

#[test]
fn a_mesh_is_made_and_its_maker_joins_it() {
    let mut bench = Bench::new();
    let create = MeshCreate {
        slug: "team".into(),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
        policy: None,
        display_name: None,
    };
    let request = bench.call("", Request::MeshCreate(create.clone()));
    let (http, made) = bench.http.pop_front().unwrap();
    assert_eq!(made.url, "http://127.0.0.1:7900/meshes");
    // No answer is not "did not happen": asking again asks for the same owner.
    let failed = HttpOutcome::Failed {
        detail: "reset".into(),
    };
    bench.feed(Input::HttpDone {
        request: http,
        outcome: failed,
    });
    assert_eq!(bench.answered(request).unwrap().status, 503);
    let request = bench.call("", Request::MeshCreate(create));
    let (http, again) = bench.http.pop_front().unwrap();
    let owner = |call: &HttpCall| {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        body["owner_pubkey"].as_str().unwrap().to_string()
    };
    assert_eq!(owner(&made), owner(&again));

    bench.feed(answered(http, 200, &json!({ "mesh_id": "m9" })));
    let (http, join) = bench.http.pop_front().unwrap();
    assert_eq!(join.url, "http://127.0.0.1:7900/join");
    let body: Value = serde_json::from_slice(&join.body).unwrap();
    let token = InviteToken::decode(body["invite_token"].as_str().unwrap()).unwrap();
    assert_eq!(token.verify(&StandIn, bench.now.wall), Ok(()));
    assert_eq!(
        body["invite_payload"],
        serde_json::to_value(&token).unwrap()
    );
    bench.store = Store::Held;
    bench.feed(answered(
        http,
        200,
        &json!({ "ok": true, "memberId": "mem9" }),
    ));
    assert_eq!(bench.answered(request), None);
    bench.catch_up();
    let answer = bench.answered(request).unwrap();
    assert_eq!((answer.status, &answer.body["owner"]), (200, &json!(true)));
    bench.connect();
    let row = &bench.image.meshes[&MeshId::from("m9")];
    assert!(bench.up.contains_key(&key_of(&row.member_secret)));

    // Its owner can invite to it, and whoever has joined has joined.
    let invite = Invite {
        mesh: Some("team".into()),
        role: None,
        expires_in_s: None,
        uses: None,
    };
    let invite = bench.ask("", Request::Invite(invite));
    let link = invite.body["invite"].as_str().unwrap().to_string();
    assert!(link.starts_with("bowline://join/"));
    let join = MeshJoin {
        invite: link,
        display_name: None,
    };
    let joined = bench.ask("", Request::MeshJoin(join));
    assert_eq!((joined.status, &joined.body["id"]), (200, &json!("m9")));
}

#[test]
fn a_join_is_answered_with_the_brokers_code() {
    let mut bench = Bench::new();
    let owner = peer(30);
    let terms = |expires_at_s| crate::crypto::invite::InviteTerms {
        mesh_id: MeshId::from("m7"),
        mesh_slug: "other".into(),
        broker_url: "wss://b.example/ws".into(),
        expires_at_s,
        mesh_root_key: "cm9vdA".into(),
        role: crate::store::mesh::MemberRole::Member,
    };
    let good = bench.now.wall.0 / 1_000 + 60;
    let join = |expires_at_s| {
        let token = InviteToken::sign(&StandIn, &owner, terms(expires_at_s)).unwrap();
        Request::MeshJoin(MeshJoin {
            invite: token.link(),
            display_name: Some("me".into()),
        })
    };
    let expired = bench.ask("", join(1));
    assert_eq!(code(&expired), (400, "invite_expired"));
    let garbage = Request::MeshJoin(MeshJoin {
        invite: "bowline://join/xyz".into(),
        display_name: None,
    });
    assert_eq!(code(&bench.ask("", garbage)), (400, "bad_invite"));
    let request = bench.call("", join(good));
    let (http, call) = bench.http.pop_front().unwrap();
    assert_eq!(call.url, "https://b.example/join");
    let refusal = json!({ "ok": false, "error": "invite_exhausted" });
    bench.feed(answered(http, 400, &refusal));
    let answer = bench.answered(request).unwrap();
    assert_eq!(code(&answer), (400, "invite_exhausted"));
}

#[test]
fn nobody_but_the_owner_invites() {
    let mut bench = Bench::new();
    let invite = Invite {
        mesh: None,
        role: None,
        expires_in_s: None,
        uses: None,
    };
    let refused = bench.ask("", Request::Invite(invite));
    assert_eq!(code(&refused), (403, "not_owner"));
}

#[test]
fn secrets_and_bodies_are_in_no_log_and_no_status() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.send_now(&session.token, &hex_of(&peer(5)), "the-body", None);
    let shown = alloc::format!(
        "{} {}",
        bench.health(),
        bench.ask("", Request::Metrics).body
    );
    for secret in ["the-body", session.token.as_str()] {
        assert!(!shown.contains(secret));
    }
}

fn answered(request: RequestId, status: u16, body: &Value) -> Input {
    Input::HttpDone {
        request,
        outcome: HttpOutcome::Answered {
            status,
            body: bytes::Bytes::from(body.to_string()),
        },
    }
}

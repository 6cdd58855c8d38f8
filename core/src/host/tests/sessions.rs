//! Sessions: keys, tokens, isolation.

use super::*;
use crate::host::ipc::{InboxQuery, OutboxQuery};

fn bodies(answer: &Answer, list: &str) -> Vec<String> {
    let rows = answer.body[list].as_array().unwrap();
    let body = |row: &Value| row["body"].as_str().unwrap().to_string();
    rows.iter().map(body).collect()
}

#[test]
fn the_same_id_and_the_same_name_keep_their_key() {
    let mut bench = Bench::new();
    let first = bench.open("a");
    bench.ask(&first.token, Request::SessionEnd { session: None });
    let again = bench.open("a");
    assert_eq!(again.id, first.id);
    assert_eq!(again.pubkey, first.pubkey);
    assert_ne!(again.token, first.token);
    let mut bench = bench.crash();
    let request = SessionOpen {
        session_id: Some(first.id.clone()),
        take_over: true,
        ..session_open("renamed")
    };
    let answer = bench.ask("", Request::SessionOpen(request));
    assert_eq!(answer.body["pubkey"], first.pubkey.to_string());
}

#[test]
fn a_live_name_is_not_taken_unless_asked_to() {
    let mut bench = Bench::new();
    let first = bench.session("a");
    let refused = bench.ask("", Request::SessionOpen(session_open("a")));
    assert_eq!(code(&refused), (409, "session_live"));
    let taking = SessionOpen {
        take_over: true,
        ..session_open("a")
    };
    let answer = bench.ask("", Request::SessionOpen(taking));
    assert_eq!(answer.body["pubkey"], first.pubkey.to_string());
    let old = bench.ask(&first.token, Request::SessionMe);
    assert_eq!(code(&old), (401, "unauthorized"));
    // Another id that takes the name over ends the one that had it.
    let another = SessionOpen {
        session_id: Some(SessionId::from("other")),
        take_over: true,
        ..session_open("a")
    };
    let answer = bench.ask("", Request::SessionOpen(another));
    assert_ne!(answer.body["pubkey"], first.pubkey.to_string());
    let listed = bench.ask("", Request::Sessions);
    assert_eq!(listed.body["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_session_is_dialled_when_its_key_is_durable() {
    let mut bench = Bench::new();
    bench.connect();
    bench.store = Store::Held;
    let request = bench.call("", Request::SessionOpen(session_open("a")));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.answered(request), None);
    assert!(bench.dials.is_empty());
    bench.catch_up();
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.answered(request).unwrap().status, 200);
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_restart_dials_every_session_that_had_not_ended() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    bench.ask(&b.token, Request::SessionEnd { session: None });
    let mut bench = bench.crash();
    bench.connect();
    let up: Vec<PubKey> = bench.up.keys().copied().collect();
    assert!(up.contains(&a.pubkey) && up.contains(&bench.member_key()));
    assert_eq!(up.len(), 2);
    // Its token is as good as before.
    let me = bench.ask(&a.token, Request::SessionMe);
    assert_eq!(me.body["session_id"], a.id.as_str());
}

#[test]
fn an_unknown_token_sees_nothing() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    for request in [
        Request::Version,
        Request::Health,
        Request::SessionMe,
        Request::Inbox(InboxQuery::default()),
        Request::Outbox(OutboxQuery::default()),
        send_request("x", "y", None),
    ] {
        let answer = bench.ask("wrong", request);
        assert_eq!(code(&answer), (401, "unauthorized"));
    }
    let stream = bench.listen("wrong", Some(0));
    assert!(bench.take_events(stream).is_empty());
    assert_eq!(bench.refused_streams[0].1.status, 401);
}

#[test]
fn sessions_never_see_each_others_rows_events_or_errors() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    let (hears_a, hears_b) = (bench.listen(&a.token, None), bench.listen(&b.token, None));
    let hears_member = bench.listen("", None);
    bench.take_events(hears_a);
    bench.take_events(hears_b);
    bench.take_events(hears_member);
    bench.push(&a.pubkey, &peer(5), "k", "to a");
    bench.send_now(&a.token, &hex_of(&peer(6)), "from a", Some("k"));

    assert_eq!(bench.take_events(hears_a).len(), 1);
    assert!(bench.take_events(hears_b).is_empty());
    assert!(bench.take_events(hears_member).is_empty());
    let inbox = |bench: &mut Bench, token: &str| {
        let page = bench.ask(token, Request::Inbox(InboxQuery::default()));
        bodies(&page, "messages")
    };
    assert_eq!(inbox(&mut bench, &a.token), ["to a"]);
    assert!(inbox(&mut bench, &b.token).is_empty());
    assert!(inbox(&mut bench, "").is_empty());
    let outbox = |bench: &mut Bench, token: &str| {
        let page = bench.ask(token, Request::Outbox(OutboxQuery::default()));
        bodies(&page, "rows")
    };
    assert_eq!(outbox(&mut bench, &a.token), ["from a"]);
    assert!(outbox(&mut bench, &b.token).is_empty());
    assert!(outbox(&mut bench, "").is_empty());
    let one = Request::OutboxGet {
        id: ClientMessageId::from("k"),
        mesh: None,
    };
    assert_eq!(bench.ask(&b.token, one.clone()).status, 404);
    assert_eq!(bench.ask(&a.token, one).body["status"], "inflight");
    // The same id of another session is another row.
    let other = bench.send_now(&b.token, &hex_of(&peer(6)), "from b", Some("k"));
    assert_eq!(other.status, 202);
}

#[test]
fn everything_is_for_the_machine_token_only() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.push(&session.pubkey, &peer(5), "k", "hi");
    let all = || {
        Request::Inbox(InboxQuery {
            all: true,
            ..InboxQuery::default()
        })
    };
    assert_eq!(bench.ask("", all()).status, 403);
    assert_eq!(bench.ask(&session.token, all()).status, 403);
    let page = bench.ask(MACHINE_TOKEN, all());
    assert_eq!(bodies(&page, "messages"), ["hi"]);
}

#[test]
fn a_session_sees_its_members_mail_too() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let member = bench.member_key();
    bench.push(&member, &peer(5), "k", "to the member");
    let page = bench.ask(&session.token, Request::Inbox(InboxQuery::default()));
    assert_eq!(bodies(&page, "messages"), ["to the member"]);
    let page = bench.ask("", Request::Inbox(InboxQuery::default()));
    assert_eq!(bodies(&page, "messages"), ["to the member"]);
}

#[test]
fn what_is_the_members_is_not_a_sessions() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let other = bench.session("b");
    let create = crate::host::ipc::MeshCreate {
        slug: "x".into(),
        broker_url: "ws://127.0.0.1:1/ws".into(),
        policy: None,
        display_name: None,
    };
    let refused = bench.ask(&session.token, Request::MeshCreate(create));
    assert_eq!(refused.status, 403);
    let end = Request::SessionEnd {
        session: Some(other.id),
    };
    assert_eq!(bench.ask(&session.token, end).status, 403);
}

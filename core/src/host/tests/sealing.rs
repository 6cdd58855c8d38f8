//! By what mail is sealed, and what is said of it.

use super::*;
use crate::crypto::Sealed;
use crate::store::host::{InboxContent, OutboxStatus};
use crate::wire::Suite;
use crate::wire::audience::Audience;
use crate::wire::broker::{Event as LiveEvent, EventData, EventKind};

/// Everybody hears that `who` came, who opens these.
fn joined(bench: &mut Bench, who: u8, suites: &[&str]) {
    let conn = bench.conn_of(&bench.member_key());
    let event = LiveEvent {
        kind: EventKind::PeerJoined,
        data: EventData {
            name: "plain".into(),
            pubkey: key_of(&peer(who)),
            member_pubkey: None,
            role: Some("session".into()),
            groups: None,
            summary: None,
            profile: None,
            suites: Some(suites.iter().map(|suite| String::from(*suite)).collect()),
        },
    };
    bench.frame(conn, BrokerFrame::Event(event));
}

fn opened(send: &Send, sender: &PubKey, recipient: &SecretKey) -> Option<String> {
    assert_eq!(send.seal.as_deref(), Some("box"));
    let sealed = Sealed {
        nonce: send.nonce.decode().try_into().ok()?,
        ciphertext: send.ciphertext.decode(),
    };
    let plain = StandIn.open_box(recipient, sender, &sealed).ok()?;
    String::from_utf8(plain).ok()
}

fn boxed_push(to: &PubKey, sender: &SecretKey, id: &str, plaintext: &[u8]) -> Push {
    let entropy = &mut Entropy::from_seed([4; 32]);
    let sealed = StandIn.seal_box(entropy, sender, to, plaintext).unwrap();
    Push {
        nonce: Base64Body::encode(&sealed.nonce),
        ciphertext: Base64Body::encode(&sealed.ciphertext),
        seal: None,
        ..sealed_push(to, sender, id, "")
    }
}

#[test]
fn a_peer_that_opens_nothing_else_is_written_to_in_a_box_of_the_body_alone() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    joined(&mut bench, 5, &["box"]);
    joined(&mut bench, 6, &["x1", "box"]);
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    bench.send_now(&session.token, &hex_of(&peer(6)), "hi", None);
    let sends = bench.take_sends();
    let body = opened(&sends[0].1, &session.pubkey, &peer(5));
    assert_eq!(body.as_deref(), Some("hi"));
    assert_eq!(opened(&sends[0].1, &session.pubkey, &peer(7)), None);
    assert_eq!(sends[1].1.seal.as_deref(), Some("x1"));
}

#[test]
fn what_a_peer_opens_is_remembered_over_a_restart() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    joined(&mut bench, 5, &["box"]);
    let mut bench = bench.crash();
    bench.connect();
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", None);
    let sends = bench.take_sends();
    let body = opened(&sends[0].1, &session.pubkey, &peer(5));
    assert_eq!(body.as_deref(), Some("hi"));
}

#[test]
fn a_box_holds_no_meta_and_the_caller_is_told_so() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    joined(&mut bench, 5, &["box"]);
    let with_meta = |to: &SecretKey| {
        let mut request = send_request(&hex_of(to), "hi", Some("k"));
        if let Request::Send { send, .. } = &mut request {
            send.meta = Some(json!({ "k": 1 }));
        }
        request
    };
    let answer = bench.ask(&session.token, with_meta(&peer(5)));
    assert_eq!(code(&answer), (422, "meta_unsupported"));
    assert!(bench.image.outbox.is_empty());

    // Accepted before it was known: it ends with the same reason, and holds up nothing.
    let answer = bench.ask(&session.token, with_meta(&peer(6)));
    assert_eq!(answer.status, 202);
    let (conn, send) = bench.take_sends().remove(0);
    refuse_with(&mut bench, conn, &send, &peer(6), Suite::Box);
    bench.advance(Duration::from_secs(2));
    assert!(bench.take_sends().is_empty());
    let row = bench.image.outbox.values().next().unwrap();
    assert_eq!(row.state.status, OutboxStatus::Dead);
    assert_eq!(row.state.last_error.as_deref(), Some("meta_unsupported"));
}

fn refuse_with(bench: &mut Bench, conn: ConnId, send: &Send, to: &SecretKey, opens: Suite) {
    let ack = Ack {
        id: send.id.clone(),
        code: Some("audience_changed".into()),
        retry_after_ms: Some(1),
        audience: Some(Audience::of_one(key_of(to), &[opens])),
        ..Ack::default()
    };
    bench.frame(conn, BrokerFrame::Ack(Box::new(ack)));
}

#[test]
fn mail_that_was_sealed_by_another_suite_is_sealed_anew() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = peer(5);
    bench.send_now(&session.token, &hex_of(&to), "hi", Some("k"));
    let (conn, send) = bench.take_sends().remove(0);
    assert_eq!(send.seal.as_deref(), Some("x1"));
    refuse_with(&mut bench, conn, &send, &to, Suite::Box);
    bench.advance(Duration::from_secs(2));
    let (_, again) = bench.take_sends().remove(0);
    assert_eq!(again.client_message_id, send.client_message_id);
    assert_eq!(again.request_fingerprint, send.request_fingerprint);
    let body = opened(&again, &session.pubkey, &to);
    assert_eq!(body.as_deref(), Some("hi"));
    let row = bench.image.outbox.values().next().unwrap();
    assert_eq!(row.state.attempts, 0, "a deferral is no attempt");

    // And back, for one that was a plain client once.
    refuse_with(&mut bench, conn, &again, &to, Suite::X1);
    bench.advance(Duration::from_secs(2));
    let (_, again) = bench.take_sends().remove(0);
    assert_eq!(again.seal.as_deref(), Some("x1"));
}

#[test]
fn a_box_is_opened_and_says_that_it_was_one() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = bench.conn_of(&session.pubkey);
    let push = boxed_push(&session.pubkey, &peer(5), "k1", b"from afar");
    bench.frame(conn, BrokerFrame::Push(Box::new(push)));
    bench.push(&session.pubkey, &peer(5), "k2", "from here");
    let not_text = boxed_push(&session.pubkey, &peer(5), "k3", b"\xff\xfe");
    bench.frame(conn, BrokerFrame::Push(Box::new(not_text)));
    let mut unknown = boxed_push(&session.pubkey, &peer(5), "k4", b"later");
    unknown.seal = Some("x9".into());
    bench.frame(conn, BrokerFrame::Push(Box::new(unknown)));
    assert_eq!(bench.take_client_acks().len(), 4);

    let rows: Vec<_> = bench.image.inbox.values().collect();
    let seals: Vec<Option<Suite>> = rows.iter().map(|row| row.seal).collect();
    assert_eq!(
        seals,
        [Some(Suite::Box), Some(Suite::X1), Some(Suite::Box), None]
    );
    assert!(matches!(
        &rows[0].content,
        InboxContent::Opened { body, meta } if body == "from afar" && meta.is_empty()
    ));
    let kept = |row: &InboxContent| matches!(row, InboxContent::Undecryptable { .. });
    assert!(kept(&rows[2].content) && kept(&rows[3].content));
    let page = bench.ask(&session.token, Request::Inbox(Default::default()));
    let told = |nth: usize| &page.body["messages"][nth]["seal"];
    assert_eq!((told(0), told(1)), (&json!("box"), &json!("x1")));
    assert_eq!(told(3), &Value::Null);
}

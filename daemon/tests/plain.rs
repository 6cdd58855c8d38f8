//! A client that knows the dialect and nothing of ours writes to a session of a daemon, and back.

mod common;
#[path = "../../broker/tests/script/mod.rs"]
mod script;

use std::fs;
use std::time::Duration;

use bowline_daemon::client::{Daemon, Event, Events};
use bowline_daemon::home::Home;
use common::{Broker, Host, Session, program, temp};
use script::Script;
use serde_json::{Value, json};
use tokio::time::timeout;

/// Nothing here takes longer, unless it is broken.
const SOON: Duration = Duration::from_secs(45);

/// Ada is a session of a member of her own, vouched for in the old form.
const ADA_JOINS: &str = r#"{"keys": ["host", "ada"]}
{"post": "/join", "body": {"invite_token": "{invite}", "peer_pubkey": "{host_key}", "display_name": "elsewhere"}, "answers": {"ok": true, "memberId": "{member}"}}
{"let": {"a": {"$ms": 43200000}, "t": {"$ms": 0}}}
{"let": {"attestation": {"sessionPubkey": "{ada_key}", "parentMemberPubkey": "{host_key}", "expiresAt": "{a}", "signature": {"$sign": "host", "text": "claudemesh-session-attest|{host_key}|{ada_key}|{a}"}}}}
{"who": "ada", "dials": true}
{"who": "ada", "says": {"type": "session_hello", "meshId": "{mesh}", "parentMemberId": "{member}", "parentMemberPubkey": "{host_key}", "sessionPubkey": "{ada_key}", "parentAttestation": "{attestation}", "sessionId": "ada-1", "pid": 1, "cwd": "/", "displayName": "ada", "timestamp": "{t}", "signature": {"$sign": "ada", "text": "claudemesh-session-hello|{mesh}|{host_key}|{ada_key}|{t}"}}}
{"who": "ada", "hears": {"type": "hello_ack"}}"#;

const ADA_SEES_BOB: &str = r#"{"who": "ada", "hears": {"type": "push", "subtype": "system", "event": "peer_joined", "eventData": {"name": "bob", "pubkey": "{bob_key}"}}}"#;

const ADA_WRITES: &str = r#"{"who": "ada", "says": {"type": "send", "id": "s1", "client_message_id": "c1", "targetSpec": "{bob_key}", "priority": "next", "nonce": {"$nonce": "n1"}, "ciphertext": {"$box": {"from": "ada", "to": "bob", "nonce": "n1", "text": "which knot?"}}}}
{"who": "ada", "hears": {"type": "ack", "id": "s1", "queued": true}}"#;

const ADA_READS: &str = r#"{"who": "ada", "hears": {"type": "push", "messageId": "{m}", "senderPubkey": "{bob_key}", "senderName": "bob", "client_message_id": "{c}", "ciphertext": {"$opens": {"by": "ada", "from": "bob", "text": "a bowline"}}}}
{"who": "ada", "says": {"type": "client_ack", "clientMessageId": "{c}", "brokerMessageId": "{m}"}}"#;

#[tokio::test]
async fn a_daemon_and_a_client_of_the_dialect_open_what_the_other_sealed() {
    let dir = temp();
    let broker = Broker::start(dir.path());
    let north = Host::start(dir.path(), "north");
    let made = north.run(&["mesh", "create", "team", "--broker", &broker.url()]);
    assert_eq!(made.code, 0, "{made:?}");
    let mut script = Script::new(broker.address);
    bind_invite(&mut script, &north);
    script.play(ADA_JOINS).await;
    let bob = north.session("bob");
    script.play(ADA_SEES_BOB).await;

    let daemon = as_session(&bob);
    let mut events = daemon.events("", None).await.expect("a stream");
    until(&mut events, "ready").await;
    script.play(ADA_WRITES).await;
    let told = until(&mut events, "message").await.data;
    let shown = (&told["body"], &told["seal"], &told["from"]["name"]);
    assert_eq!(
        shown,
        (&json!("which knot?"), &json!("box"), &json!("ada")),
        "{told}"
    );
    let inbox = bob.run(&["inbox", "--peek"]);
    assert_eq!(inbox.one()["seal"], "box", "{inbox:?}");
    let words = in_words(&bob, &["inbox", "--peek"]);
    assert!(words.contains("ada (box): which knot?"), "{words}");

    let ada = told["from"]["pubkey"].as_str().expect("a key");
    let sent = bob.run(&["send", ada, "a bowline"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    script.play(ADA_READS).await;

    // A box has room for the body alone.
    let with_meta = json!({ "to": ada, "body": "and how", "meta": { "turns": 2 } });
    let refused = daemon.post("/v1/send", &with_meta).await;
    let refused = refused.expect_err("it would lose its meta");
    assert_eq!(refused.code, "meta_unsupported", "{refused:?}");
    let outbox = bob.run(&["outbox"]);
    let rows = outbox.one()["rows"].as_array().map(Vec::len);
    assert_eq!(rows, Some(1), "{outbox:?}");
}

fn bind_invite(script: &mut Script, host: &Host) {
    let invite = host.run(&["invite"]);
    let link = invite.one()["invite"].as_str().expect("a link");
    let token = link.rsplit('/').next().expect("a token");
    script.bind("invite", json!(token));
    script.bind("mesh", invite.one()["mesh_id"].clone());
}

fn as_session(session: &Session) -> Daemon {
    let home = Home::at(&session.home).expect("its home");
    let file = fs::read(&session.file).expect("its file");
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    Daemon::new(&home, file["token"].as_str().map(str::to_owned))
}

/// The next event of this kind; those before it are passed over.
async fn until(events: &mut Events, kind: &str) -> Event {
    let next = async {
        loop {
            let event = events.next().await.expect("JSON").expect("a stream");
            if event.kind == kind {
                return event;
            }
        }
    };
    let told = timeout(SOON, next).await;
    told.unwrap_or_else(|_| panic!("no {kind} came"))
}

/// What a person sees.
fn in_words(session: &Session, args: &[&str]) -> String {
    let output = program()
        .args(args)
        .env("BOWLINE_HOME", &session.home)
        .env("BOWLINE_SESSION_FILE", &session.file)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

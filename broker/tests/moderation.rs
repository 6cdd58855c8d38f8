//! The broker binary over real sockets: who is put out, at once and for how long.

#[path = "wire/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use bowline_core::store::mesh::MemberRole;
use harness::{BrokerProcess, Client, Member, TestMesh, public, send_frame};
use serde_json::{Value, json};

/// A ban has to be felt within this, an fsync included.
const AT_ONCE: Duration = Duration::from_secs(1);

struct Scene {
    broker: BrokerProcess,
    mesh: TestMesh,
    admin: Member,
    member: Member,
}

async fn scene() -> Scene {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let admin = mesh.member_with(&broker, MemberRole::Admin).await;
    let member = mesh.member(&broker).await;
    Scene {
        broker,
        mesh,
        admin,
        member,
    }
}

/// The kinds and keys of the next so many events.
async fn events(client: &mut Client, count: usize) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    for _ in 0..count {
        let event = client.expect("event").await;
        let kind = event["event"].as_str().expect("a kind").to_owned();
        told.push((kind, event["data"]["pubkey"].clone()));
    }
    told
}

#[tokio::test]
async fn a_ban_ends_a_live_socket_within_a_second_and_a_peer_in_grace_at_once() {
    let Scene {
        broker,
        mesh,
        admin,
        member,
    } = scene().await;
    let (ada, bob, eve) = (
        admin.session("ada"),
        member.session("bob"),
        member.session("eve"),
    );
    let (mut a, _) = ada.join(&broker).await;
    let (mut b, _) = bob.join(&broker).await;
    let (e, _) = eve.join(&broker).await;
    let mut control = Client::connect(&broker).await;
    control.send(&member.hello()).await;
    control.expect("hello_ack").await;
    events(&mut a, 2).await;
    b.drain().await;
    // Eve's socket dies; she is in grace for 90 s.
    e.cut();
    while a
        .peers()
        .await
        .iter()
        .any(|peer| peer["displayName"] == "eve" && peer["state"] == "live")
    {}
    a.send(&send_frame("owed", &eve.key(), 20)).await;
    assert_eq!(a.expect_past_events("ack").await["queued"], true);

    let begun = Instant::now();
    a.send(&json!({"type": "ban", "target": bob.key(), "_reqId": "b"}))
        .await;
    assert_eq!(b.expect_close_past_events().await, (4002, "banned".into()));
    assert_eq!(
        control.expect_close_past_events().await,
        (4002, "banned".into())
    );
    let mut left = Vec::new();
    let mut acked = false;
    while left.len() < 2 || !acked {
        let frame = a.frame().await;
        match frame["type"].as_str() {
            Some("event") => left.push((frame["event"].clone(), frame["data"]["pubkey"].clone())),
            Some("ban_ack") => acked = frame["_reqId"] == "b",
            _ => panic!("{frame}"),
        }
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let mut gone: Vec<_> = [bob.key(), eve.key()]
        .map(|key| (json!("peer_left"), json!(key)))
        .to_vec();
    gone.sort_by_key(|(_, key)| key.to_string());
    left.sort_by_key(|(_, key)| key.to_string());
    assert_eq!(left, gone, "one leave each");

    // Nobody of it comes back, over either kind of hello or by joining anew.
    for hello in [bob.hello(), eve.hello(), member.hello()] {
        let mut late = Client::connect(&broker).await;
        late.send(&hello).await;
        assert_eq!(late.expect("error").await["code"], "revoked");
        assert_eq!(late.expect_close().await, (4002, "banned".into()));
    }
    let (status, refused) = mesh.join_again(&broker, &member).await;
    assert_eq!(
        (status, refused["error"].as_str()),
        (400, Some("forbidden"))
    );

    // What was accepted is answered again; nothing new is.
    a.send(&send_frame("owed", &eve.key(), 20)).await;
    assert_eq!(a.expect("ack").await["duplicate"], true);
    a.send(&send_frame("new", &eve.key(), 20)).await;
    let refused = a.expect("ack").await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|text| text.contains("forbidden"))
    );
    assert_eq!(a.drain().await, Vec::<Value>::new(), "nobody leaves twice");
}

#[tokio::test]
async fn a_ban_is_listed_survives_a_kill_and_is_taken_back() {
    let Scene {
        mut broker,
        admin,
        member,
        ..
    } = scene().await;
    let (ada, bob) = (admin.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (b, _) = bob.join(&broker).await;
    events(&mut a, 1).await;
    a.send(&json!({"type": "ban", "target": member.id})).await;
    a.expect_past_events("ban_ack").await;
    drop(b);

    broker.kill_and_restart();
    let (mut a, _) = ada.attach(&broker).await;
    a.send(&json!({"type": "list_bans", "_reqId": "l"})).await;
    let list = a.expect_past_events("list_bans_result").await;
    let bans = list["bans"].as_array().expect("a list");
    assert_eq!(bans.len(), 1, "{list}");
    assert_eq!(bans[0]["pubkey"], json!(public(&member.secret)));
    assert!(
        bans[0]["revokedAt"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z'))
    );
    let mut late = Client::connect(&broker).await;
    late.send(&bob.hello()).await;
    assert_eq!(late.expect("error").await["code"], "revoked");

    a.send(&json!({"type": "unban", "target": public(&member.secret)}))
        .await;
    a.expect_past_events("unban_ack").await;
    let (mut b, _) = bob.attach(&broker).await;
    let joined = a.expect("event").await;
    assert_eq!(
        (&joined["event"], &joined["data"]["pubkey"]),
        (&json!("peer_joined"), &json!(bob.key()))
    );
    a.send(&send_frame("again", &bob.key(), 20)).await;
    assert_eq!(
        b.expect_past_events("push").await["client_message_id"],
        "again"
    );
}

#[tokio::test]
async fn a_kick_ends_a_lease_and_one_in_grace_is_told_when_it_comes() {
    let Scene {
        broker,
        admin,
        member,
        ..
    } = scene().await;
    let (ada, bob) = (admin.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (mut b, _) = bob.join(&broker).await;
    events(&mut a, 1).await;

    // Only admins are obeyed.
    b.send(&json!({"type": "kick", "all": true, "_reqId": "k"}))
        .await;
    let refused = b.expect("error").await;
    assert_eq!(
        (&refused["code"], &refused["_reqId"]),
        (&json!("forbidden"), &json!("k"))
    );

    a.send(&json!({"type": "kick", "target": "bob", "_reqId": "k"}))
        .await;
    assert_eq!(
        events(&mut a, 1).await,
        [("peer_left".into(), json!(bob.key()))]
    );
    let ack = a.expect("kick_ack").await;
    assert_eq!(ack["kicked"], json!(["bob"]));
    assert_eq!(ack["affected"], json!(["bob"]));
    assert_eq!(b.expect_close().await, (4001, "kicked".into()));

    // It heard of it, and may come again; its socket dies, and it is kicked where it cannot hear it.
    let (b, _) = bob.attach(&broker).await;
    assert_eq!(
        events(&mut a, 1).await,
        [("peer_joined".into(), json!(bob.key()))]
    );
    b.cut();
    while a
        .peers()
        .await
        .iter()
        .any(|peer| peer["displayName"] == "bob" && peer["state"] == "live")
    {}
    a.send(&json!({"type": "kick", "target": bob.key()})).await;
    assert_eq!(
        events(&mut a, 1).await,
        [("peer_left".into(), json!(bob.key()))]
    );
    assert_eq!(a.expect("kick_ack").await["kicked"], json!(["bob"]));
    let mut late = Client::connect(&broker).await;
    late.send(&bob.hello()).await;
    assert_eq!(late.expect_close().await, (4001, "kicked".into()));
    bob.attach(&broker).await;
    assert_eq!(
        events(&mut a, 1).await,
        [("peer_joined".into(), json!(bob.key()))]
    );
}

#[tokio::test]
async fn a_quiet_connection_sends_and_nobody_sees_it() {
    let Scene {
        broker,
        admin,
        member,
        ..
    } = scene().await;
    let (ada, bob) = (admin.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let mut quiet = Client::connect(&broker).await;
    let mut hello = bob.hello();
    hello["quiet"] = json!(true);
    let capabilities = hello["capabilities"].as_array_mut().expect("a list");
    capabilities.push(json!("quiet1"));
    quiet.send(&hello).await;
    let ack = quiet.expect("hello_ack").await;
    assert!(
        ack.get("stream").is_none() && ack.get("leaseTtlMs").is_none(),
        "{ack}"
    );
    quiet.send(&send_frame("m1", &ada.key(), 20)).await;
    assert_eq!(quiet.expect("ack").await["queued"], true);
    let push = a.expect("push").await;
    assert_eq!(push["senderPubkey"], json!(bob.key()));
    assert!(
        a.peers()
            .await
            .iter()
            .all(|peer| peer["pubkey"] != json!(bob.key()))
    );
    a.send(&json!({"type": "ban", "target": member.id})).await;
    a.expect("ban_ack").await;
    assert_eq!(quiet.expect_close().await, (4002, "banned".into()));
    assert_eq!(
        a.drain().await,
        Vec::<Value>::new(),
        "nobody left, for nobody was here"
    );
}

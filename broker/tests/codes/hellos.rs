//! Codes of a refused hello: an `error`, and the close that follows.

use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::{Crypto, SecretKey, canonical};
use bowline_core::id::Role;
use bowline_core::limits::CONNECTIONS_PER_PEER;
use bowline_core::time::Wall;
use serde_json::{Value, json};

use crate::harness::{At, Client, Session, now_ms, public, secret};
use crate::scene::Scene;

/// The `error` that answers a hello, whose code is also why the connection is closed.
async fn assert_refused(broker: &At, hello: &Value, code: &str) -> Value {
    let mut client = Client::connect(broker).await;
    client.send(hello).await;
    let error = client.expect("error").await;
    assert_eq!(error["code"], code, "{error}");
    let expected = match code {
        "revoked" => (4002, "banned".to_owned()),
        other => (1008, other.to_owned()),
    };
    assert_eq!(client.expect_close().await, expected);
    error
}

/// The hello of `session` with an attestation signed by `by` that is good for so long.
fn attested(session: &Session, by: &SecretKey, good_for_ms: i64) -> Value {
    let mut hello = session.hello();
    let expires = Wall(now_ms().saturating_add_signed(good_for_ms));
    let (parent, key) = (public(&session.parent), session.key());
    let signed =
        canonical::bowline_attestation(&session.mesh, &parent, &key, Role::Session, expires);
    let attestation = &mut hello["parentAttestation"];
    attestation["expiresAt"] = json!(expires.0);
    attestation["signature"] = json!(RealCrypto.sign(by, signed.as_bytes()));
    hello
}

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn hello_code_bad_session_pubkey() {
    let Scene {
        broker,
        admin,
        member,
        bob,
        ..
    } = Scene::start(&[]).await;
    let mut no_key = member.session("x").hello();
    no_key["sessionPubkey"] = json!("abc");
    assert_refused(&broker, &no_key, "bad_session_pubkey").await;
    // Bob's, whose member is another.
    let mut taken = admin.hello();
    taken["sessionPubkey"] = json!(bob.key());
    assert_refused(&broker, &taken, "bad_session_pubkey").await;
    let mut own = member.hello();
    own["sessionPubkey"] = json!(bob.key());
    let mut control = Client::connect(&broker).await;
    control.send(&own).await;
    control.expect("hello_ack").await;
}

#[tokio::test]
async fn hello_code_bad_parent_pubkey() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    for wrong in [json!(7), json!("abc")] {
        let mut hello = member.session("x").hello();
        hello["parentMemberPubkey"] = wrong;
        assert_refused(&broker, &hello, "bad_parent_pubkey").await;
    }
}

#[tokio::test]
async fn hello_code_attestation_mismatch() {
    let Scene {
        broker,
        admin,
        member,
        ..
    } = Scene::start(&[]).await;
    // For another session, by another member, for a role that nobody can give.
    for other in [member.session("y"), admin.session("y")] {
        let mut hello = member.session("x").hello();
        hello["parentAttestation"] = other.hello()["parentAttestation"].clone();
        assert_refused(&broker, &hello, "attestation_mismatch").await;
    }
    let mut hello = member.session("x").hello();
    hello["role"] = json!("control-plane");
    assert_refused(&broker, &hello, "attestation_mismatch").await;
}

#[tokio::test]
async fn hello_code_capacity() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS_PER_PEER {
        let mut control = Client::connect(&broker).await;
        control.send(&member.hello()).await;
        control.expect("hello_ack").await;
        connections.push(control);
    }
    assert_refused(&broker, &member.hello(), "capacity").await;
    // None of those that are here had to go for it.
    for control in &mut connections {
        assert!(control.drain().await.iter().all(|f| f["type"] == "event"));
    }
}

#[tokio::test]
async fn hello_code_timestamp_skew() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let session = member.session("x");
    for timestamp in [now_ms() - 61_000, now_ms() + 61_000] {
        let hello = session.hello_at(timestamp);
        let error = assert_refused(&broker, &hello, "timestamp_skew").await;
        let told = error["brokerTime"].as_u64().expect("the broker's clock");
        assert!(told.abs_diff(now_ms()) < 5_000, "{error}");
    }
}

#[tokio::test]
async fn hello_code_bad_signature() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let session = member.session("x");
    let mut forged = session.hello();
    forged["signature"] = session.hello_at(1)["signature"].clone();
    assert_refused(&broker, &forged, "bad_signature").await;
    let stranger = attested(&session, &secret(), HOUR_MS);
    assert_refused(&broker, &stranger, "bad_signature").await;
    let mut of_member = member.hello();
    of_member["memberId"] = json!("another");
    assert_refused(&broker, &of_member, "bad_signature").await;
}

#[tokio::test]
async fn hello_code_malformed() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let mut nul = member.session("x").hello();
    nul["displayName"] = json!("a\0b");
    assert_refused(&broker, &nul, "malformed").await;
    let mut bare = member.session("x").hello();
    bare.as_object_mut().expect("an object").remove("meshId");
    assert_refused(&broker, &bare, "malformed").await;
}

#[tokio::test]
async fn hello_code_expired() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let hello = attested(&member.session("x"), &member.secret, -1);
    assert_refused(&broker, &hello, "expired").await;
}

#[tokio::test]
async fn hello_code_ttl_too_long() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let session = member.session("x");
    let hello = attested(&session, &member.secret, 25 * HOUR_MS);
    assert_refused(&broker, &hello, "ttl_too_long").await;
    let mut client = Client::connect(&broker).await;
    client
        .send(&attested(&session, &member.secret, 23 * HOUR_MS))
        .await;
    client.expect("hello_ack").await;
}

#[tokio::test]
async fn hello_code_replayed() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let hello = member.session("x").hello();
    let mut client = Client::connect(&broker).await;
    client.send(&hello).await;
    client.expect("hello_ack").await;
    assert_refused(&broker, &hello, "replayed").await;
    assert_eq!(
        client.drain().await,
        Vec::<Value>::new(),
        "the first stands"
    );
}

#[tokio::test]
async fn hello_code_unauthorized() {
    let Scene { broker, member, .. } = Scene::start(&[]).await;
    let mut elsewhere = member.session("x");
    elsewhere.mesh = "nowhere".into();
    assert_refused(&broker, &elsewhere.hello(), "unauthorized").await;
    let mut stranger = member.session("x");
    stranger.parent = secret();
    assert_refused(&broker, &stranger.hello(), "unauthorized").await;
}

#[tokio::test]
async fn hello_code_revoked() {
    let Scene {
        broker,
        member,
        mut a,
        ..
    } = Scene::start(&[]).await;
    a.send(&json!({"type": "ban", "target": member.id})).await;
    a.expect_past_events("ban_ack").await;
    assert_refused(&broker, &member.session("x").hello(), "revoked").await;
    assert_refused(&broker, &member.hello(), "revoked").await;
}

#[tokio::test]
async fn hello_code_parent_member_id_mismatch() {
    let Scene {
        broker,
        admin,
        member,
        ..
    } = Scene::start(&[]).await;
    let mut hello = member.session("x").hello();
    hello["parentMemberId"] = json!(admin.id);
    assert_refused(&broker, &hello, "parent_member_id_mismatch").await;
}

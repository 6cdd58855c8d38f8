//! Codes of a refused `ack`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, TestMesh, public, secret, send_frame};
use crate::scene::{OnFullDisk, Scene, WriteLock, first_send, until_ready};

/// The refusal of `frame`, which is no `error`, and whose text is more than its code.
async fn refusal(client: &mut Client, frame: &Value) -> Value {
    client.send(frame).await;
    let ack = client.expect_past_events("ack").await;
    assert_eq!(
        (&ack["id"], &ack["queued"], &ack["messageId"]),
        (&frame["id"], &json!(false), &json!("")),
        "{ack}"
    );
    let text = ack["error"].as_str().expect("a text");
    assert!(!text.is_empty() && Some(text) != ack["code"].as_str());
    ack
}

/// A sender that only reads the text keeps the row.
fn assert_deferred(ack: &Value, code: &str, most_ms: u64) {
    assert_eq!(ack["code"], code, "{ack}");
    let wait = ack["retryAfterMs"].as_u64().expect("a deferral says when");
    assert!((1..=most_ms).contains(&wait), "{ack}");
    let text = ack["error"].as_str().expect("a text").to_lowercase();
    for word in ["invalid", "forbidden", "unknown", "not_found"] {
        assert!(!text.contains(word), "{text}");
    }
}

/// A sender that only reads the text gives the row up.
fn assert_permanent(ack: &Value, code: &str) {
    assert_eq!(ack["code"], code, "{ack}");
    assert_eq!(ack.get("retryAfterMs"), None, "{ack}");
    let text = ack["error"].as_str().expect("a text").to_lowercase();
    assert!(text.contains("invalid") || text.contains("forbidden"));
}

#[tokio::test]
async fn send_code_rate_limited() {
    let Scene {
        bob, mut a, broker, ..
    } = Scene::start(&["sends_per_second=1", "sends_burst=1"]).await;
    a.send(&first_send("m1", &bob)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    let ack = refusal(&mut a, &first_send("m2", &bob)).await;
    assert_deferred(&ack, "rate_limited", 1_000);
    // What was accepted is answered again, budget or none.
    a.send(&first_send("m1", &bob)).await;
    assert_eq!(a.expect("ack").await["duplicate"], true);
    let wait = Duration::from_millis(ack["retryAfterMs"].as_u64().expect("a number"));
    tokio::time::sleep(wait).await;
    a.send(&first_send("m2", &bob)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    drop(broker);
}

#[tokio::test]
async fn send_code_busy() {
    let Scene {
        broker,
        bob,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    let lock = WriteLock::take(broker.dir());
    a.send(&first_send("m1", &bob)).await;
    until_ready(&broker, false).await;
    let ack = refusal(&mut a, &first_send("m2", &bob)).await;
    assert_deferred(&ack, "busy", 1_000);
    drop(lock);
    let ack = a.expect("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!("m1"), &json!(true)));
    assert_eq!(b.expect("push").await["client_message_id"], "m1");
    until_ready(&broker, true).await;
    a.send(&first_send("m2", &bob)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
}

#[tokio::test]
async fn send_code_storage_full() {
    let disk = OnFullDisk::start().await;
    let mesh = TestMesh::create(&disk.at, "team").await;
    let member = mesh.member(&disk.at).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&disk.at).await;
    let (mut b, _) = bob.join(&disk.at).await;
    a.expect("event").await;
    disk.is_full.store(true, Ordering::Relaxed);
    a.send(&first_send("m1", &bob)).await;
    until_ready(&disk.at, false).await;
    let ack = refusal(&mut a, &first_send("m2", &bob)).await;
    assert_deferred(&ack, "storage_full", 5_000);
    disk.is_full.store(false, Ordering::Relaxed);
    let ack = a.expect("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!("m1"), &json!(true)));
    assert_eq!(b.expect("push").await["client_message_id"], "m1");
    disk.running.stop().await.expect("it stops in good order");
}

#[tokio::test]
async fn send_code_recipient_full() {
    let Scene {
        bob,
        mut a,
        mut b,
        broker,
        ..
    } = Scene::start(&["owed_messages=1"]).await;
    a.send(&first_send("m1", &bob)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    let ack = refusal(&mut a, &first_send("m2", &bob)).await;
    assert_deferred(&ack, "recipient_full", 5_000);
    let push = b.expect("push").await;
    b.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]}))
        .await;
    b.drain().await;
    a.send(&first_send("m2", &bob)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    drop(broker);
}

#[tokio::test]
async fn send_code_outcome_unknown() {
    let Scene {
        broker,
        bob,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    let lock = WriteLock::take(broker.dir());
    let begun = Instant::now();
    let ack = refusal(&mut a, &first_send("m1", &bob)).await;
    assert_deferred(&ack, "outcome_unknown", 1_000);
    assert!(begun.elapsed() >= Duration::from_secs(10));
    drop(lock);
    // It stands: the same id finds it.
    a.send(&first_send("m1", &bob)).await;
    let ack = a.expect("ack").await;
    assert_eq!(
        (&ack["queued"], &ack["duplicate"]),
        (&json!(true), &json!(true)),
        "{ack}"
    );
    assert_eq!(b.expect("push").await["messageId"], ack["messageId"]);
    assert_eq!(b.drain().await, Vec::<Value>::new(), "once");
}

#[tokio::test]
async fn send_code_payload_too_large() {
    let Scene {
        bob, mut a, broker, ..
    } = Scene::start(&[]).await;
    // 64 KiB in base64 are 48 KiB.
    a.send(&send_frame("fits", &bob.key(), 48 * 1024)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    for bytes in [48 * 1024 + 1, 350 * 1024] {
        let ack = refusal(&mut a, &send_frame("big", &bob.key(), bytes)).await;
        assert_permanent(&ack, "payload_too_large");
    }
    drop(broker);
}

#[tokio::test]
async fn send_code_bad_request() {
    let Scene {
        ada,
        bob,
        mut a,
        broker,
        ..
    } = Scene::start(&[]).await;
    let to_itself = send_frame("itself", &ada.key(), 20);
    let mut to_nothing = send_frame("nothing", &bob.key(), 20);
    to_nothing["targetSpec"] = json!("bob");
    let mut without_body = send_frame("bare", &bob.key(), 20);
    without_body
        .as_object_mut()
        .expect("an object")
        .remove("ciphertext");
    let mut no_priority = send_frame("soon", &bob.key(), 20);
    no_priority["priority"] = json!("soon");
    for frame in [to_itself, to_nothing, without_body, no_priority] {
        let ack = refusal(&mut a, &frame).await;
        assert_permanent(&ack, "bad_request");
    }
    drop(broker);
}

#[tokio::test]
async fn send_code_forbidden() {
    let Scene {
        bob,
        member,
        mut a,
        broker,
        ..
    } = Scene::start(&[]).await;
    a.send(&json!({"type": "ban", "target": member.id})).await;
    a.expect_past_events("ban_ack").await;
    let ack = refusal(&mut a, &first_send("m1", &bob)).await;
    assert_permanent(&ack, "forbidden");
    drop(broker);
}

#[tokio::test]
async fn send_code_target_not_found() {
    let Scene { mut a, broker, .. } = Scene::start(&[]).await;
    let ack = refusal(&mut a, &send_frame("m1", &public(&secret()), 20)).await;
    assert_permanent(&ack, "target_not_found");
    drop(broker);
}

#[tokio::test]
async fn send_code_idempotency_key_reused() {
    let Scene {
        bob,
        mut a,
        mut b,
        broker,
        ..
    } = Scene::start(&[]).await;
    a.send(&send_frame("m1", &bob.key(), 20)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    let ack = refusal(&mut a, &send_frame("m1", &bob.key(), 21)).await;
    assert_permanent(&ack, "idempotency_key_reused");
    let prefix = ack["fingerprintPrefix"].as_str().expect("what was taken");
    assert_eq!(prefix.len(), 16);
    b.expect("push").await;
    assert_eq!(b.drain().await, Vec::<Value>::new());
    drop(broker);
}

//! Codes of a close. Those that end a hello are beside it.

use serde_json::{Value, json};

use crate::harness::Client;
use crate::scene::Scene;

#[tokio::test]
async fn close_1000_session_replaced() {
    let Scene {
        broker,
        bob,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    let (mut newer, ack) = bob.attach(&broker).await;
    assert_eq!(ack["resumed"], "fresh");
    assert_eq!(b.expect_close().await, (1000, "session_replaced".into()));
    assert_eq!(newer.drain().await, Vec::<Value>::new());
    assert_eq!(a.drain().await, Vec::<Value>::new(), "nobody heard of it");
}

#[tokio::test]
async fn close_1009_frame_too_large() {
    let Scene {
        broker, mut a, bob, ..
    } = Scene::start(&[]).await;
    // Before the hello 8 KiB, past it 512 KiB.
    let mut early = Client::connect(&broker).await;
    early.send_text("x".repeat(8 * 1024 + 1)).await;
    assert_eq!(early.expect_close().await.0, 1009);
    let mut summary = json!({"type": "set_summary", "summary": "", "_reqId": "s"});
    summary["filler"] = json!("x".repeat(511 * 1024));
    a.send(&summary).await;
    assert_eq!(a.expect("ok").await["_reqId"], "s");
    a.send_text("x".repeat(512 * 1024 + 1)).await;
    assert_eq!(a.expect_close().await.0, 1009);
    drop(bob);
}

#[tokio::test]
async fn close_4001_kicked() {
    let Scene {
        broker,
        bob,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    a.send(&json!({"type": "kick", "target": bob.key()})).await;
    let ack = a.expect_past_events("kick_ack").await;
    assert_eq!(ack["kicked"], json!(["bob"]));
    assert_eq!(b.expect_close_past_events().await, (4001, "kicked".into()));
    let is_bob = |peer: &Value| peer["displayName"] == "bob";
    assert!(!a.peers().await.iter().any(is_bob), "it has left at once");
    // It heard of it: it may come again.
    bob.attach(&broker).await;
}

#[tokio::test]
async fn close_4002_banned() {
    let Scene {
        broker,
        bob,
        member,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    a.send(&json!({"type": "ban", "target": member.id})).await;
    a.expect_past_events("ban_ack").await;
    assert_eq!(b.expect_close_past_events().await, (4002, "banned".into()));
    let mut late = Client::connect(&broker).await;
    late.send(&bob.hello()).await;
    assert_eq!(
        late.expect_close_past_errors().await,
        (4002, "banned".into())
    );
}

/// The close of a hello that requires this. Its reason is JSON that fits a close frame.
async fn mismatch(scene: &Scene, require: Value) -> (u16, Value) {
    let mut hello = scene.member.session("x").hello();
    hello["require"] = require;
    let mut client = Client::connect(&scene.broker).await;
    client.send(&hello).await;
    let (code, reason) = client.expect_close().await;
    assert!(reason.len() <= 123, "{reason}");
    (code, serde_json::from_str(&reason).expect("JSON"))
}

#[tokio::test]
async fn close_4010_feature_unavailable() {
    let scene = Scene::start(&[]).await;
    let (code, reason) = mismatch(&scene, json!({"telepathy": {"version": 1}})).await;
    assert_eq!(
        (code, &reason["kind"]),
        (4010, &"feature_unavailable".into())
    );
    assert_eq!(reason["feature"], "telepathy");
}

#[tokio::test]
async fn close_4011_feature_param_invalid() {
    let scene = Scene::start(&[]).await;
    for params in [
        json!({"version": 1, "shape": "round"}),
        json!({"version": "one"}),
    ] {
        let (code, reason) = mismatch(&scene, json!({ "max_payload": params })).await;
        let kind = "feature_param_invalid";
        assert_eq!((code, &reason["kind"]), (4011, &kind.into()), "{reason}");
        assert_eq!(reason["feature"], "max_payload");
    }
}

#[tokio::test]
async fn close_4012_feature_param_below_floor() {
    let scene = Scene::start(&["inline_bytes=4096"]).await;
    let params = json!({"version": 1, "inline_bytes": 4097});
    let (code, reason) = mismatch(&scene, json!({ "max_payload": params })).await;
    let kind = "feature_param_below_floor";
    assert_eq!((code, &reason["kind"]), (4012, &kind.into()));
    let detail = reason["detail"].as_str().expect("what was asked for");
    assert!(detail.contains("inline_bytes"), "{reason}");
}

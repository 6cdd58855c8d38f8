//! Codes of an `error` that answers a frame, past the hello or before it. The connection lives on.

use bowline_core::limits::GROUPS_PER_PEER;
use serde_json::{Value, json};

use crate::harness::{Client, capabilities, send_frame};
use crate::scene::{Scene, WriteLock, first_send, until_ready};

/// The frame is refused so, and nothing else happens.
async fn assert_refused(client: &mut Client, frame: &Value, code: &str) {
    let mut asked = frame.clone();
    asked["_reqId"] = json!("r");
    client.send(&asked).await;
    let error = client.expect_past_events("error").await;
    assert_eq!(
        (&error["code"], &error["_reqId"]),
        (&json!(code), &json!("r")),
        "{error}"
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert_eq!(client.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn frame_code_bad_request() {
    let Scene { mut a, broker, .. } = Scene::start(&[]).await;
    let wrong_status = json!({"type": "set_status", "status": "asleep"});
    assert_refused(&mut a, &wrong_status, "bad_request").await;
    let no_status = json!({"type": "set_status"});
    assert_refused(&mut a, &no_status, "bad_request").await;
    let nobody = json!({"type": "kick", "target": "nobody"});
    assert_refused(&mut a, &nobody, "bad_request").await;
    a.send_text("no frame at all".into()).await;
    assert_eq!(a.expect("error").await["code"], "bad_request");
    drop(broker);
}

#[tokio::test]
async fn frame_code_unknown_message_type() {
    let Scene { mut a, broker, .. } = Scene::start(&[]).await;
    // These never add up to a close, however many there are.
    for _ in 0..25 {
        assert_refused(&mut a, &json!({"type": "dance"}), "unknown_message_type").await;
    }
    drop(broker);
}

#[tokio::test]
async fn frame_code_no_hello() {
    let Scene {
        broker,
        bob,
        member,
        ..
    } = Scene::start(&[]).await;
    let mut early = Client::connect(&broker).await;
    early
        .send(&json!({"type": "list_peers", "_reqId": "r"}))
        .await;
    let error = early.expect("error").await;
    assert_eq!(
        (&error["code"], &error["_reqId"]),
        (&json!("no_hello"), &json!("r"))
    );
    // A `send` is answered by an `ack`, with a code that is no refusal of the message.
    early.send(&send_frame("m1", &bob.key(), 20)).await;
    let ack = early.expect("ack").await;
    assert_eq!(
        (&ack["id"], &ack["code"], &ack["queued"]),
        (&json!("m1"), &json!("no_hello"), &json!(false))
    );
    early.send(&member.session("x").hello()).await;
    early.expect("hello_ack").await;
}

#[tokio::test]
async fn frame_code_already_authenticated() {
    let Scene {
        mut a, ada, broker, ..
    } = Scene::start(&[]).await;
    a.send(&ada.hello()).await;
    let error = a.expect("error").await;
    assert_eq!(error["code"], "already_authenticated");
    assert_eq!(a.drain().await, Vec::<Value>::new());
    drop(broker);
}

#[tokio::test]
async fn frame_code_rate_limited() {
    let Scene { mut a, broker, .. } =
        Scene::start(&["look_ups_per_second=1", "look_ups_burst=1"]).await;
    let question = json!({"type": "message_status", "messageId": "00000000"});
    assert_refused(&mut a, &question, "not_found").await;
    assert_refused(&mut a, &question, "rate_limited").await;
    drop(broker);
}

#[tokio::test]
async fn frame_code_forbidden() {
    let Scene {
        broker,
        member,
        mut a,
        mut b,
        ..
    } = Scene::start(&[]).await;
    for frame in [
        json!({"type": "kick", "all": true}),
        json!({"type": "disconnect", "all": true}),
        json!({"type": "ban", "target": "ada"}),
        json!({"type": "unban", "target": "ada"}),
        json!({"type": "list_bans"}),
    ] {
        assert_refused(&mut b, &frame, "forbidden").await;
    }
    assert_eq!(a.drain().await, Vec::<Value>::new(), "nobody left");

    let mut hello = member.session("quiet").hello();
    hello["quiet"] = json!(true);
    let mut capable = capabilities();
    capable
        .as_array_mut()
        .expect("a list")
        .push("quiet1".into());
    hello["capabilities"] = capable;
    let mut quiet = Client::connect(&broker).await;
    quiet.send(&hello).await;
    quiet.expect("hello_ack").await;
    assert_refused(&mut quiet, &json!({"type": "list_peers"}), "forbidden").await;
}

#[tokio::test]
async fn frame_code_capacity() {
    let Scene { mut a, broker, .. } = Scene::start(&[]).await;
    for n in 0..GROUPS_PER_PEER {
        let join = json!({"type": "join_group", "name": format!("g{n}"), "_reqId": "g"});
        a.send(&join).await;
        a.expect_past_events("ok").await;
    }
    let one_more = json!({"type": "join_group", "name": "more"});
    assert_refused(&mut a, &one_more, "capacity").await;
    a.send(&json!({"type": "leave_group", "name": "g0", "_reqId": "l"}))
        .await;
    a.expect_past_events("ok").await;
    a.send(&json!({"type": "join_group", "name": "more", "_reqId": "g"}))
        .await;
    a.expect_past_events("ok").await;
    drop(broker);
}

#[tokio::test]
async fn frame_code_busy() {
    let Scene {
        broker, bob, mut a, ..
    } = Scene::start(&[]).await;
    let lock = WriteLock::take(broker.dir());
    a.send(&first_send("m1", &bob)).await;
    until_ready(&broker, false).await;
    let question = json!({"type": "message_status", "messageId": "00000000"});
    assert_refused(&mut a, &question, "busy").await;
    drop(lock);
    a.expect("ack").await;
    until_ready(&broker, true).await;
    assert_refused(&mut a, &question, "not_found").await;
}

#[tokio::test]
async fn frame_code_not_found() {
    let Scene {
        bob,
        mut a,
        mut b,
        broker,
        ..
    } = Scene::start(&[]).await;
    a.send(&first_send("m1", &bob)).await;
    let sent = a.expect("ack").await["messageId"].clone();
    b.expect("push").await;
    for kind in ["message_status", "explain"] {
        let unknown = json!({"type": kind, "messageId": "0123456789", "id": "0123456789"});
        assert_refused(&mut a, &unknown, "not_found").await;
    }
    // Whose it is not is told nothing else.
    let of_another = json!({"type": "message_status", "messageId": sent});
    assert_refused(&mut b, &of_another, "not_found").await;
    drop(broker);
}

#[tokio::test]
async fn frame_code_ambiguous_prefix() {
    let Scene {
        bob, mut a, broker, ..
    } = Scene::start(&[]).await;
    // The first 8 characters of an id change about once a second: one of three that were sent
    // within less begins like its neighbour.
    let mut ids = Vec::new();
    for id in ["m1", "m2", "m3"] {
        a.send(&first_send(id, &bob)).await;
        let sent = a.expect("ack").await;
        ids.push(sent["messageId"].as_str().expect("an id").to_owned());
    }
    let shared = &ids[1][..8];
    assert!(
        ids[0].starts_with(shared) || ids[2].starts_with(shared),
        "{ids:?}"
    );
    let question = json!({"type": "message_status", "messageId": shared});
    assert_refused(&mut a, &question, "ambiguous_prefix").await;
    let whole = json!({"type": "message_status", "messageId": ids[1], "_reqId": "w"});
    a.send(&whole).await;
    assert_eq!(
        a.expect("message_status_result").await["messageId"],
        json!(ids[1])
    );
    drop(broker);
}

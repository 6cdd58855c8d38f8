//! The broker binary over real sockets, spoken to with hand-written frames of the wire.

#[path = "wire/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::{Crypto, canonical};
use bowline_core::time::Wall;
use harness::{
    BrokerProcess, Client, Incoming, SOON, TestMesh, command, now_ms, public, run_to_end, secret,
    send_frame,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn both_hellos_a_send_its_push_and_its_acknowledgement() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;

    let mut control = Client::connect(&broker).await;
    control.send(&member.hello()).await;
    let ack = control.expect("hello_ack").await;
    assert_eq!(
        ack["services"],
        json!([]),
        "a member gets them, always empty"
    );
    assert_eq!(ack["memberProfile"]["messageMode"], "push");
    assert_eq!(ack["protocolVersion"], 1);
    assert_eq!(ack["leaseTtlMs"], 90_000);
    assert_eq!(ack["resumed"], "fresh");
    assert_eq!(
        ack["features"]["client_message_id_dedupe"]["mode"],
        "retention_scoped"
    );

    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, ack) = ada.join(&broker).await;
    assert!(ack.get("services").is_none(), "a session gets none");
    let joined = control.expect("event").await;
    assert_eq!(joined["event"], "peer_joined");
    assert_eq!(joined["data"]["pubkey"], json!(ada.key()));
    let (mut b, _) = bob.join(&broker).await;
    assert_eq!(a.expect("event").await["data"]["name"], "bob");

    a.send(&send_frame("m1", &bob.key(), 20)).await;
    let ack = a.expect("ack").await;
    assert_eq!(
        (ack["id"].as_str(), ack["queued"].as_bool()),
        (Some("m1"), Some(true))
    );
    let push = b.expect("push").await;
    assert_eq!(push["messageId"], ack["messageId"]);
    assert_eq!(push["client_message_id"], "m1");
    assert_eq!(push["senderPubkey"], json!(ada.key()));
    assert_eq!(push["senderMemberPubkey"], json!(public(&member.secret)));
    assert_eq!(push["seal"], "x1");

    // The same again is the same message; another one under its id is refused.
    a.send(&send_frame("m1", &bob.key(), 20)).await;
    let again = a.expect("ack").await;
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["messageId"], ack["messageId"]);
    a.send(&send_frame("m1", &bob.key(), 21)).await;
    assert_eq!(a.expect("ack").await["code"], "idempotency_key_reused");
    a.send(&send_frame("m2", &public(&secret()), 20)).await;
    assert_eq!(a.expect("ack").await["code"], "target_not_found");

    b.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]}))
        .await;
    assert_eq!(
        b.drain().await,
        Vec::<Value>::new(),
        "no reply, and no other push"
    );
    b.cut();
    let (mut b, _) = bob.attach(&broker).await;
    assert_eq!(
        b.drain().await,
        Vec::<Value>::new(),
        "what was settled stays settled"
    );
}

#[tokio::test]
async fn peers_status_and_frames_that_nobody_knows() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (mut b, _) = bob.join(&broker).await;

    let peers = a.peers().await;
    let names: Vec<_> = peers
        .iter()
        .map(|peer| peer["displayName"].as_str())
        .collect();
    assert!(
        names.contains(&Some("ada")) && names.contains(&Some("bob")),
        "{peers:?}"
    );
    assert!(peers.iter().all(|peer| peer["state"] == "live"));
    assert!(peers.iter().all(|peer| peer["attestation"].is_object()));

    // Who works takes `now` only; becoming idle delivers what was held.
    b.send(&json!({"type": "set_status", "status": "working", "_reqId": "s"}))
        .await;
    assert_eq!(b.expect("ok").await["_reqId"], "s");
    a.send(&send_frame("held", &bob.key(), 20)).await;
    assert_eq!(a.expect_past_events("ack").await["queued"], true);
    assert_eq!(b.drain().await, Vec::<Value>::new());
    let status = |peers: &[Value], key: Value| {
        let peer = peers.iter().find(|peer| peer["pubkey"] == key);
        peer.expect("listed")["status"].clone()
    };
    assert_eq!(status(&a.peers().await, json!(bob.key())), "working");
    b.send(&json!({"type": "set_status", "status": "idle"}))
        .await;
    assert_eq!(b.expect("push").await["client_message_id"], "held");

    a.send(&json!({"type": "no_such_frame", "id": "x", "_reqId": "r"}))
        .await;
    let error = a.expect("error").await;
    assert_eq!(error["code"], "unknown_message_type");
    assert_eq!(
        (error["id"].as_str(), error["_reqId"].as_str()),
        (Some("x"), Some("r"))
    );
    a.send(&ada.hello()).await;
    assert_eq!(a.expect("error").await["code"], "already_authenticated");
    a.send_text("not json".into()).await;
    assert_eq!(a.expect("error").await["code"], "bad_request");
    a.send(
        &json!({"type": "send", "id": "bad", "targetSpec": "*", "priority": "next",
        "nonce": "", "ciphertext": "eA=="}),
    )
    .await;
    let refused = a.expect("ack").await;
    assert_eq!(
        (refused["queued"].as_bool(), refused["code"].as_str()),
        (Some(false), Some("bad_request"))
    );
    assert_eq!(
        a.drain().await,
        Vec::<Value>::new(),
        "and the connection lives on"
    );
}

#[tokio::test]
async fn close_1008_malformed_after_twenty_texts_that_are_no_frames() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (mut a, _) = member.session("ada").join(&broker).await;
    for _ in 0..20 {
        a.send_text("[]".into()).await;
    }
    loop {
        match a.next().await {
            Incoming::Frame(frame) => assert_eq!(frame["code"], "bad_request"),
            Incoming::Close(code, _) => {
                assert_eq!(code, 1008);
                return;
            }
            Incoming::Gone => panic!("closed without a reason"),
        }
    }
}

#[tokio::test]
async fn a_cut_and_a_silent_return_are_told_to_nobody_and_lose_nothing() {
    let mut broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob, eve) = (
        member.session("ada"),
        member.session("bob"),
        member.session("eve"),
    );
    let (mut a, _) = ada.join(&broker).await;
    let (b, ack) = bob.join(&broker).await;
    assert_eq!(a.expect("event").await["event"], "peer_joined");
    let stream = ack["stream"].clone();

    b.cut();
    until(&mut a, "bob", "grace").await;
    a.send(&send_frame("while-away", &bob.key(), 20)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    let (mut e, _) = eve.join(&broker).await;
    assert_eq!(a.expect("event").await["data"]["name"], "eve");

    let mut b = Client::connect(&broker).await;
    b.send(&bob.hello_resuming(&stream)).await;
    let ack = b.expect("hello_ack").await;
    assert_eq!(ack["resumed"], "hit");
    assert_eq!(
        b.expect("event").await["data"]["name"],
        "eve",
        "the missed event"
    );
    assert_eq!(b.expect("push").await["client_message_id"], "while-away");
    until(&mut a, "bob", "live").await;
    assert_eq!(
        a.drain().await,
        Vec::<Value>::new(),
        "nobody saw bob go or come"
    );
    assert_eq!(e.drain().await, Vec::<Value>::new());

    // A broker that was killed finds its peers in grace: they return as silently.
    broker.kill_and_restart();
    let (mut a, ack) = ada.attach(&broker).await;
    assert_eq!(ack["resumed"], "fresh");
    let (mut b, _) = bob.attach(&broker).await;
    let push = b.expect("push").await;
    assert_eq!(
        push["client_message_id"], "while-away",
        "it was never acknowledged"
    );
    assert_eq!(a.drain().await, Vec::<Value>::new());
    until(&mut a, "eve", "grace").await;
}

#[tokio::test]
async fn beyond_the_grace_there_is_one_leave_and_one_join() {
    let broker = BrokerProcess::start(&["lease_grace=1s"]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (b, _) = bob.join(&broker).await;
    assert_eq!(a.expect("event").await["event"], "peer_joined");

    b.cut();
    let left = a.expect("event").await;
    assert_eq!(
        (left["event"].as_str(), &left["data"]["pubkey"]),
        (Some("peer_left"), &json!(bob.key()))
    );
    assert!(
        a.peers()
            .await
            .iter()
            .all(|peer| peer["displayName"] != "bob")
    );
    a.send(&send_frame("to-the-absent", &bob.key(), 20)).await;
    assert_eq!(
        a.expect("ack").await["queued"],
        true,
        "those who are away are queued for"
    );

    let (mut b, ack) = bob.attach(&broker).await;
    assert_eq!(ack["resumed"], "fresh");
    assert_eq!(b.expect("push").await["client_message_id"], "to-the-absent");
    let joined = a.expect("event").await;
    assert_eq!(
        (joined["event"].as_str(), &joined["data"]["pubkey"]),
        (Some("peer_joined"), &json!(bob.key()))
    );
    assert_eq!(a.drain().await, Vec::<Value>::new());
    b.send(&json!({"type": "bye"})).await;
    assert_eq!(
        a.expect("event").await["event"],
        "peer_left",
        "`bye` ends it at once"
    );
}

#[tokio::test]
async fn a_handshake_that_stays_silent_is_closed_after_five_seconds() {
    let broker = BrokerProcess::start(&[]);
    let begun = Instant::now();
    let mut mute = TcpStream::connect(broker.address)
        .await
        .expect("it listens");
    let mut upgraded = Client::connect(&broker).await;
    let silent_tcp = async {
        let mut bytes = Vec::new();
        let ended = timeout(SOON, mute.read_to_end(&mut bytes)).await;
        drop(ended.expect("closed in time"));
        begun.elapsed()
    };
    let silent_socket = async {
        let close = upgraded.expect_close_past_errors().await;
        (begun.elapsed(), close)
    };
    let (tcp_after, (socket_after, (code, _))) = tokio::join!(silent_tcp, silent_socket);
    assert_eq!(code, 1008);
    for after in [tcp_after, socket_after] {
        assert!(
            after > Duration::from_secs(4) && after < Duration::from_secs(8),
            "{after:?}"
        );
    }
}

#[tokio::test]
async fn hellos_that_are_not_good_are_refused_with_their_code() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let ada = member.session("ada");

    let hello = ada.hello();
    let mut first = Client::connect(&broker).await;
    first.send(&hello).await;
    first.expect("hello_ack").await;
    assert_eq!(refusal(&broker, &hello).await, ("replayed".into(), 1008));

    let late = ada.hello_at(now_ms() - 120_000);
    assert_eq!(
        refusal(&broker, &late).await,
        ("timestamp_skew".into(), 1008)
    );

    let mut forged = ada.hello();
    let text = canonical::session_hello(&mesh.id, &public(&member.secret), &ada.key(), Wall(1));
    forged["signature"] = json!(RealCrypto.sign(&secret(), text.as_bytes()));
    assert_eq!(
        refusal(&broker, &forged).await,
        ("bad_signature".into(), 1008)
    );

    let mut stranger = mesh.member(&broker).await.session("x");
    stranger.parent = secret();
    assert_eq!(
        refusal(&broker, &stranger.hello()).await,
        ("unauthorized".into(), 1008)
    );

    let mut elsewhere = member.session("y");
    elsewhere.mesh = "nowhere".into();
    assert_eq!(
        refusal(&broker, &elsewhere.hello()).await,
        ("unauthorized".into(), 1008)
    );

    let mut nul = ada.hello();
    nul["displayName"] = json!("a\0b");
    assert_eq!(refusal(&broker, &nul).await, ("malformed".into(), 1008));

    let mut early = Client::connect(&broker).await;
    early
        .send(&json!({"type": "list_peers", "_reqId": "r"}))
        .await;
    assert_eq!(early.expect("error").await["code"], "no_hello");
    assert_eq!(
        first.drain().await,
        Vec::<Value>::new(),
        "none of this touched the first"
    );
}

#[tokio::test]
async fn names_that_are_too_long_are_cut_and_lone_surrogates_refused() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let long = member.session(&"é".repeat(60));
    let (mut a, _) = long.join(&broker).await;
    until(&mut a, &"é".repeat(32), "live").await; // 64 bytes, cut at a character

    a.send_text(r#"{"type":"set_summary","summary":"\ud800","_reqId":"r"}"#.into())
        .await;
    assert_eq!(a.expect("error").await["code"], "bad_request");
    a.send_text(r#"{"type":"set_summary","summary":"\u0000","_reqId":"r"}"#.into())
        .await;
    assert_eq!(a.expect("error").await["code"], "bad_request");
}

#[tokio::test]
async fn invites_that_are_not_good_are_refused_with_their_code() {
    let broker = BrokerProcess::start(&[]);
    let (mesh, other) = tokio::join!(
        TestMesh::create(&broker, "team"),
        TestMesh::create(&broker, "other")
    );
    let key = public(&secret());
    let expired = mesh.invite(&mesh.owner, -1);
    assert_eq!(
        join(&broker, &expired, &key).await,
        (400, "invite_expired".into())
    );
    let forged = mesh.invite(&secret(), 60);
    assert_eq!(
        join(&broker, &forged, &key).await,
        (400, "invite_owner_mismatch".into())
    );
    let mut tampered = mesh.invite(&mesh.owner, 60);
    tampered.expires_at_s += 60;
    assert_eq!(
        join(&broker, &tampered, &key).await,
        (400, "invite_bad_signature".into())
    );
    let mut moved = mesh.invite(&mesh.owner, 60);
    moved.mesh_id = other.id.clone();
    let (status, code) = join(&broker, &moved, &key).await;
    assert_eq!(status, 400);
    assert!(
        ["invite_owner_mismatch", "invite_bad_signature"].contains(&code.as_str()),
        "{code}"
    );
    let mut nowhere = mesh.invite(&mesh.owner, 60);
    nowhere.mesh_id = "nowhere".into();
    assert_eq!(
        join(&broker, &nowhere, &key).await,
        (400, "mesh_not_found".into())
    );

    // Registered for one use: the second key finds it exhausted, the first finds itself joined.
    let once = mesh.invite(&mesh.owner, 60);
    let registered = signed_invite(&mesh, &once, 1);
    assert_eq!(broker.request("POST", "/invites", &registered).await.0, 200);
    assert_eq!(join(&broker, &once, &key).await, (200, String::new()));
    assert_eq!(join(&broker, &once, &key).await, (200, String::new()));
    let second = public(&secret());
    assert_eq!(
        join(&broker, &once, &second).await,
        (400, "invite_exhausted".into())
    );

    let revoked = mesh.invite(&mesh.owner, 61);
    let timestamp = now_ms();
    let text = canonical::invite_revocation(&mesh.id, &revoked.id(), Wall(timestamp));
    let revocation = json!({
        "mesh_id": mesh.id,
        "timestamp": timestamp,
        "signature": RealCrypto.sign(&mesh.owner, text.as_bytes()),
    });
    let path = format!("/invites/{}", revoked.id());
    assert_eq!(broker.request("DELETE", &path, &revocation).await.0, 200);
    assert_eq!(
        join(&broker, &revoked, &second).await,
        (400, "invite_revoked".into())
    );
    assert_eq!(
        broker.request("DELETE", &path, &revocation).await.0,
        409,
        "signed once, good once"
    );
}

#[tokio::test]
async fn a_slug_belongs_to_whoever_signed_for_it_first() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let again = TestMesh::creation(&mesh.owner, "team", now_ms() + 1);
    let (status, made) = broker.request("POST", "/meshes", &again).await;
    assert_eq!(
        (status, made["mesh_id"].as_str()),
        (200, Some(mesh.id.as_str()))
    );
    let theft = TestMesh::creation(&secret(), "team", now_ms());
    assert_eq!(broker.request("POST", "/meshes", &theft).await.0, 409);
    let bad = TestMesh::creation(&secret(), "Team!", now_ms());
    assert_eq!(broker.request("POST", "/meshes", &bad).await.0, 400);
}

#[tokio::test]
async fn a_data_directory_and_a_port_have_one_broker() {
    let mut broker = BrokerProcess::start(&[]);
    let (code, said) = run_to_end(command(broker.dir(), "127.0.0.1:0"));
    assert_eq!(code, Some(6));
    assert_eq!(said["error"]["code"], "data_in_use");
    let message = said["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&broker.pid().to_string()), "{message}");

    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let (code, said) = run_to_end(command(elsewhere.path(), &broker.address.to_string()));
    assert_eq!(code, Some(6));
    assert_eq!(said["error"]["code"], "address_in_use");

    assert_eq!(broker.terminate(), Some(0));
    let database = broker.dir().join("broker.db");
    std::fs::write(&database, vec![b'?'; 8192]).expect("writable");
    let (code, said) = run_to_end(command(broker.dir(), "127.0.0.1:0"));
    assert_eq!(code, Some(8), "{said}");
    assert_eq!(said["error"]["code"], "database_damaged");
    assert_eq!(
        std::fs::read(&database).expect("there"),
        vec![b'?'; 8192],
        "left as it is"
    );
}

#[tokio::test]
async fn a_broker_whose_store_was_taken_over_halts_and_the_next_recovers() {
    let mut broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (_b, _) = bob.join(&broker).await;
    a.send(&send_frame("kept", &bob.key(), 20)).await;
    assert_eq!(a.expect_past_events("ack").await["queued"], true);

    let database = rusqlite::Connection::open(broker.dir().join("broker.db")).expect("opened");
    let taken = database.execute(
        "UPDATE owner SET term = term + 1 WHERE mesh = ?1",
        [mesh.id.as_str()],
    );
    assert_eq!(taken.expect("written"), 1);
    drop(database);
    a.send(&send_frame("fenced", &bob.key(), 20)).await;
    let halted = tokio::task::spawn_blocking(move || (broker.wait(), broker));
    let (code, mut broker) = halted.await.expect("it halts");
    assert_eq!(code, Some(9));

    broker.kill_and_restart();
    let (mut b, _) = bob.attach(&broker).await;
    let push = b.expect_past_events("push").await;
    assert_eq!(push["client_message_id"], "kept");
    assert_eq!(
        b.drain().await,
        Vec::<Value>::new(),
        "what was not durable was promised to nobody"
    );
}

#[tokio::test]
async fn a_hook_on_this_host_sets_the_status_of_a_session_in_every_mesh() {
    let broker = BrokerProcess::start(&[]);
    let mut rooms = Vec::new();
    for slug in ["team", "other"] {
        let mesh = TestMesh::create(&broker, slug).await;
        let member = mesh.member(&broker).await;
        let ada = member.session("ada").join(&broker).await.0;
        rooms.push((ada, member.session("bob").join(&broker).await.0));
    }
    let hook = json!({ "cwd": "/nowhere", "session_id": "ada", "status": "working" });
    let path = "/hook/set-status";
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    let (status, refused) = broker.request_with("POST", path, &hook, &forwarded).await;
    assert_eq!(
        (status, refused["error"].as_str()),
        (401, Some("unauthorized"))
    );
    for (_, bob) in &mut rooms {
        assert_eq!(status_of(bob, "ada").await, "idle");
    }

    let told = broker.request("POST", path, &hook).await;
    assert_eq!(told, (200, json!({ "ok": true, "peers": 2 })));
    for (_, bob) in &mut rooms {
        assert_eq!(status_of(bob, "ada").await, "working");
        assert_eq!(status_of(bob, "bob").await, "idle");
    }

    // The surest that is anywhere decides: nobody is guessed at beside it.
    let (ada, mut bob) = rooms.pop().expect("the other room");
    ada.cut();
    bob.send(&json!({ "type": "bye" })).await;
    bob.expect_close_past_events().await;
    let hook = json!({ "cwd": "/", "session_id": "bob", "status": "dnd" });
    let told = broker.request("POST", path, &hook).await;
    assert_eq!(told, (200, json!({ "ok": true, "peers": 1 })));
    let (_, bob) = &mut rooms[0];
    assert_eq!(status_of(bob, "ada").await, "working");
    assert_eq!(status_of(bob, "bob").await, "dnd");

    let (status, _) = broker.request("POST", path, &json!({ "cwd": "/" })).await;
    assert_eq!(status, 400);
    assert_eq!(broker.request("GET", path, &Value::Null).await.0, 405);
}

async fn status_of(client: &mut Client, name: &str) -> String {
    let peers = client.peers().await;
    let peer = peers.iter().find(|peer| peer["displayName"] == name);
    let status = peer.and_then(|peer| peer["status"].as_str());
    status.expect("it is listed").to_owned()
}

#[tokio::test]
async fn a_mesh_is_not_made_through_a_proxy() {
    let broker = BrokerProcess::start(&[]);
    let body = TestMesh::creation(&secret(), "team", now_ms());
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    let (status, refused) = broker
        .request_with("POST", "/meshes", &body, &forwarded)
        .await;
    assert_eq!(
        (status, refused["error"].as_str()),
        (403, Some("forbidden"))
    );
}

#[tokio::test]
async fn close_1001_at_a_stop_loses_nothing() {
    let mut broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (mut a, _) = member.session("ada").join(&broker).await;
    assert_eq!(a.drain().await, Vec::<Value>::new());
    let stop = tokio::task::spawn_blocking(move || (broker.terminate(), broker));
    assert_eq!(a.expect_close().await.0, 1001);
    assert_eq!(stop.await.expect("it stops").0, Some(0));
}

#[tokio::test]
async fn every_answer_is_json_but_for_metrics() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (_b, _) = bob.join(&broker).await;
    a.send(&send_frame("m", &bob.key(), 20)).await;
    a.expect_past_events("ack").await;
    a.send(&send_frame("n", &public(&secret()), 20)).await;
    a.expect_past_events("ack").await;

    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/join", 405),
        ("GET", "/ws", 426),
        ("POST", "/join", 400),
        ("POST", "/meshes", 400),
        ("DELETE", "/invites/x", 400),
    ] {
        let (answered, body) = broker.request(method, path, &Value::Null).await;
        assert_eq!(answered, status, "{method} {path}: {body}");
    }
    let (status, metrics) = broker.request_text("GET", "/metrics", &Value::Null).await;
    assert_eq!(status, 200);
    for line in [
        "bowline_broker_leases{mesh=\"team\",state=\"live\"} 2",
        "bowline_broker_accepts_total{mesh=\"team\"} 1",
        "bowline_broker_refusals_total{mesh=\"team\",code=\"target_not_found\"} 1",
        "bowline_broker_connections 2",
    ] {
        assert!(
            metrics.lines().any(|own| own == line),
            "{line} is not in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn close_4008_slow_consumer_loses_nothing_durable() {
    let broker = BrokerProcess::start(&["queued_bytes=32768", "ring_events=8"]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let mut slow = Client::connect_narrow(&broker).await;
    slow.send(&bob.hello()).await;
    slow.expect("hello_ack").await;
    assert_eq!(a.expect("event").await["event"], "peer_joined");
    a.send(&send_frame("kept", &bob.key(), 20)).await;
    a.expect("ack").await;

    // Each of these is a live event for bob, who reads none.
    let bio = "x".repeat(4000);
    let mut events = 0;
    while a
        .peers()
        .await
        .iter()
        .any(|peer| peer["displayName"] == "bob" && peer["state"] == "live")
    {
        for _ in 0..50 {
            a.send(
                &json!({"type": "set_profile", "profile": {"bio": bio, "title": events.to_string()},
                "bio": bio, "title": events.to_string(), "id": "p"}),
            )
            .await;
            events += 1;
        }
        a.drain().await;
        assert!(events < 20_000, "the broker buffers without end");
    }
    let close = loop {
        match slow.next().await {
            Incoming::Frame(_) => {}
            Incoming::Close(code, reason) => break (code, reason),
            Incoming::Gone => panic!("the close frame was not delivered"),
        }
    };
    assert_eq!(close, (4008, "slow_consumer".into()));

    let (mut b, _) = bob.attach(&broker).await;
    assert_eq!(
        b.expect_past_events("push").await["client_message_id"],
        "kept"
    );
}

#[tokio::test]
async fn one_who_was_away_with_much_mail_waiting_is_paced_and_not_cut_off() {
    const WAITING: usize = 256;
    let broker = BrokerProcess::start(&["sends_burst=1000"]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (b, _) = bob.join(&broker).await;
    a.expect("event").await;
    b.cut();
    until(&mut a, "bob", "grace").await;
    // 48 KiB are 64 KiB in base64.
    for n in 0..WAITING {
        a.send(&send_frame(&format!("m{n}"), &bob.key(), 48 * 1024))
            .await;
        let ack = a.expect("ack").await;
        assert_eq!(ack["queued"], true, "{ack}");
    }

    let mut b = Client::connect_narrow(&broker).await;
    b.send(&bob.hello()).await;
    b.expect("hello_ack").await;
    for n in 0..WAITING {
        let push = b.expect("push").await;
        assert_eq!(
            push["client_message_id"],
            format!("m{n}"),
            "in order, each once"
        );
        b.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]}))
            .await;
    }
    assert_eq!(b.drain().await, Vec::<Value>::new());
    assert_eq!(
        a.drain().await,
        Vec::<Value>::new(),
        "bob was never seen to go"
    );
}

/// Until a peer of this name is listed in this state.
async fn until(client: &mut Client, name: &str, state: &str) {
    let listed = timeout(SOON, async {
        loop {
            let peers = client.peers().await;
            let peer = peers.iter().find(|peer| peer["displayName"] == name);
            if peer.is_some_and(|peer| peer["state"] == state) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    listed
        .await
        .unwrap_or_else(|_| panic!("{name} never was {state}"));
}

/// The code of the `error` frame that answers a hello, and of the close that follows.
async fn refusal(broker: &BrokerProcess, hello: &Value) -> (String, u16) {
    let mut client = Client::connect(broker).await;
    client.send(hello).await;
    let error = client.expect("error").await;
    let (code, _) = client.expect_close().await;
    (error["code"].as_str().expect("a code").to_owned(), code)
}

async fn join(
    broker: &BrokerProcess,
    token: &bowline_core::crypto::invite::InviteToken,
    key: &bowline_core::id::PubKey,
) -> (u16, String) {
    let (status, body) = broker
        .request("POST", "/join", &TestMesh::join_body(token, key))
        .await;
    assert_eq!(body["ok"], status == 200, "{body}");
    (
        status,
        body["error"].as_str().unwrap_or_default().to_owned(),
    )
}

fn signed_invite(
    mesh: &TestMesh,
    token: &bowline_core::crypto::invite::InviteToken,
    uses: u32,
) -> Value {
    let timestamp = now_ms();
    let text = canonical::invite_registration(
        &mesh.id,
        &token.id(),
        uses,
        token.expires_at_s,
        Wall(timestamp),
    );
    json!({
        "mesh_id": mesh.id,
        "invite_id": token.id(),
        "uses": uses,
        "expires_at": token.expires_at_s,
        "timestamp": timestamp,
        "signature": RealCrypto.sign(&mesh.owner, text.as_bytes()),
    })
}

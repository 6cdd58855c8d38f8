//! Both ends of a connection, as their shells see them.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ClientLink, DialPlan, Down, ServerLink, ServerLinkConfig, SessionIdentity};
use super::{VerifiedHello, Why, client, server};
use crate::crypto::attestation::{Attestation, Form};
use crate::crypto::stand_in::StandIn;
use crate::crypto::{Crypto, SecretKey, canonical};
use crate::id::{Epoch, MeshId, PeerKey, Role};
use crate::limits::{HELD_FRAMES_AT_HELLO, Limits};
use crate::machine::Machine;
use crate::mark::Mark;
use crate::time::{Mono, Now, Wall};
use crate::wire::broker::{HelloAck, MemberProfile};
use crate::wire::client::{About, Resume};
use crate::wire::feature::{Features, SEALING, Terms};
use crate::wire::{BrokerFrame, ClientFrame, Close, ProtocolVersion, decode_broker, encode_broker};

/// Wall time at `Mono` zero, when the brokers of these tests start.
const STARTED: Wall = Wall(1_700_000_000_000);

fn at(ms: u64) -> Now {
    Now {
        mono: Mono(ms * 1_000),
        wall: STARTED + Duration::from_millis(ms),
    }
}

fn crypto() -> Arc<dyn Crypto> {
    Arc::new(StandIn)
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn drain<M: Machine>(machine: &mut M) -> Vec<M::Output> {
    core::iter::from_fn(|| machine.poll_output()).collect()
}

fn feed<M: Machine>(machine: &mut M, ms: u64, input: M::Input) -> Vec<M::Output> {
    machine.handle_input(at(ms), input);
    drain(machine)
}

fn fire<M: Machine>(machine: &mut M, ms: u64) -> Vec<M::Output> {
    machine.handle_timeout(at(ms));
    drain(machine)
}

fn plan(role: Option<Role>) -> DialPlan {
    DialPlan {
        url: "ws://127.0.0.1:1/ws".into(),
        mesh: "m1".into(),
        member_id: "p1".into(),
        member_secret: secret(1),
        session: role.map(|role| SessionIdentity {
            secret: secret(2),
            role,
        }),
        session_id: "s1".into(),
        about: About {
            display_name: Some("alice".into()),
            ..About::default()
        },
        resume: None,
        quiet: false,
        receipts: None,
        terms: Terms::default(),
        sealed: false,
        clock_offset_ms: 0,
    }
}

/// What our own client says at `ms`.
fn hello(plan: DialPlan, ms: u64) -> Bytes {
    let mut client = ClientLink::new(at(ms), plan, crypto());
    match feed(&mut client, ms, client::Input::Connected).remove(0) {
        client::Output::Send(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A hello of an unmodified client of the dialect.
fn plain_hello(ms: u64) -> Value {
    let (parent, session) = (
        StandIn.public_key(&secret(1)),
        StandIn.public_key(&secret(2)),
    );
    let now = at(ms).wall;
    let attestation = Attestation::mint(&StandIn, &secret(1), session, &Form::Dialect, now);
    let signed = canonical::session_hello(&"m1".into(), &parent, &session, now);
    json!({
        "type": "session_hello", "meshId": "m1", "parentMemberId": "p1",
        "parentMemberPubkey": parent, "sessionPubkey": session,
        "parentAttestation": attestation, "sessionId": "s1", "pid": 7, "cwd": "/",
        "role": "whatever", "timestamp": now.0,
        "signature": StandIn.sign(&secret(2), signed.as_bytes()),
    })
}

fn text(value: &Value) -> server::Input {
    server::Input::Text(value.to_string().into())
}

fn server_link() -> ServerLink {
    ServerLink::new(at(0), link_config(STARTED), crypto())
}

fn link_config(started: Wall) -> ServerLinkConfig {
    ServerLinkConfig {
        started,
        version: ProtocolVersion::SPOKEN,
    }
}

/// A server link whose mesh took the hello.
fn attached(hello: Bytes) -> ServerLink {
    let mut link = server_link();
    attach(feed(&mut link, 0, server::Input::Text(hello)));
    assert!(feed(&mut link, 0, server::Input::Attached).is_empty());
    link
}

fn attached_own() -> ServerLink {
    attached(hello(plan(Some(Role::Session)), 0))
}

fn attached_plain() -> ServerLink {
    attached(plain_hello(0).to_string().into())
}

fn attach(outputs: Vec<server::Output>) -> VerifiedHello {
    match <[_; 1]>::try_from(outputs) {
        Ok([server::Output::Attach(hello)]) => *hello,
        other => panic!("{other:?}"),
    }
}

/// The one answer of a link.
fn answer(outputs: Vec<server::Output>) -> Value {
    match &outputs[..] {
        [server::Output::Send(bytes)] => json_of(bytes),
        other => panic!("{other:?}"),
    }
}

/// A refused hello: the error, and the close behind it.
fn refusal(outputs: Vec<server::Output>) -> (Value, Close) {
    match &outputs[..] {
        [server::Output::Send(bytes), server::Output::Close(close)] => {
            (json_of(bytes), close.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn refused_code(hello: &Value) -> String {
    let (error, _) = refusal(feed(&mut server_link(), 0, text(hello)));
    assert_eq!(error["type"], "error");
    error["code"].as_str().unwrap().into()
}

mod hello_at_the_broker {
    use super::*;

    #[test]
    fn a_session_is_attached_as_what_its_member_signed() {
        for role in [Role::Session, Role::Service] {
            let hello = hello(plan(Some(role)), 0);
            let verified = attach(feed(&mut server_link(), 0, server::Input::Text(hello)));
            assert_eq!(verified.role, role);
            assert_eq!(verified.mesh, MeshId::from("m1"));
            assert_eq!(verified.key, PeerKey::Session(verified.pubkey));
            assert_eq!(verified.pubkey, StandIn.public_key(&secret(2)));
            assert_eq!(verified.member_pubkey, StandIn.public_key(&secret(1)));
            assert_eq!(verified.member_id, Some("p1".into()));
        }
    }

    #[test]
    fn a_member_is_attached_as_its_control_plane() {
        let hello = hello(plan(None), 0);
        let verified = attach(feed(&mut server_link(), 0, server::Input::Text(hello)));
        assert_eq!(verified.role, Role::ControlPlane);
        assert_eq!(verified.key, PeerKey::Member("p1".into()));
        assert_eq!(verified.pubkey, StandIn.public_key(&secret(1)));
        assert_eq!(verified.attestation, None);
    }

    #[test]
    fn a_quiet_hello_is_verified_in_full_and_resumes_nothing() {
        for role in [None, Some(Role::Session)] {
            let resume = Some(Resume {
                epoch: Epoch([1; 16]),
                count: 3,
            });
            let quiet = DialPlan {
                quiet: true,
                resume,
                ..plan(role)
            };
            let bytes = hello(quiet, 0);
            let verified = attach(feed(
                &mut server_link(),
                0,
                server::Input::Text(bytes.clone()),
            ));
            assert!(verified.offer.is_quiet());
            assert_eq!(verified.offer.resume, None);
            let mut forged = json_of(&bytes);
            forged["signature"] = json!("00".repeat(64));
            assert_eq!(refused_code(&forged), "bad_signature");
        }
        let loud = attach(feed(
            &mut server_link(),
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
        assert!(!loud.offer.is_quiet());
    }

    #[test]
    fn a_plain_client_is_a_session_whatever_its_hello_says() {
        let verified = attach(feed(&mut server_link(), 0, text(&plain_hello(0))));
        assert_eq!(verified.role, Role::Session);
    }

    #[test]
    fn a_service_cannot_pass_as_a_session_nor_a_control_plane_be_vouched_for() {
        let mut other_role = json_of(&hello(plan(Some(Role::Service)), 0));
        other_role["role"] = json!("session");
        assert_eq!(refused_code(&other_role), "bad_signature");
        other_role["role"] = json!("control-plane");
        assert_eq!(refused_code(&other_role), "attestation_mismatch");
    }

    #[test]
    fn each_mistake_has_its_code() {
        let with = |field: &str, value: Value| {
            let mut hello = plain_hello(0);
            hello[field] = value;
            refused_code(&hello)
        };
        let stranger = json!(StandIn.public_key(&secret(9)));
        assert_eq!(with("sessionPubkey", json!("x")), "bad_session_pubkey");
        assert_eq!(with("parentMemberPubkey", json!("x")), "bad_parent_pubkey");
        assert_eq!(with("parentMemberPubkey", stranger), "attestation_mismatch");
        assert_eq!(with("meshId", json!("m2")), "bad_signature");
        assert_eq!(with("sessionId", json!(7)), "malformed");
        let mut expired = plain_hello(0);
        expired["parentAttestation"]["expiresAt"] = json!(STARTED);
        assert_eq!(refused_code(&expired), "expired");
        expired["parentAttestation"]["expiresAt"] = json!(STARTED.0 + 25 * 3_600_000);
        assert_eq!(refused_code(&expired), "ttl_too_long");
    }

    #[test]
    fn a_skewed_clock_is_told_the_brokers_time() {
        for (said_at, now) in [(0, 60_001), (60_001, 0)] {
            let mut link = ServerLink::new(at(now), link_config(STARTED), crypto());
            let hello = hello(plan(None), said_at);
            let (error, close) = refusal(feed(&mut link, now, server::Input::Text(hello)));
            assert_eq!(error["code"], "timestamp_skew");
            assert_eq!(error["brokerTime"], json!(at(now).wall));
            assert_eq!(
                (close.code, close.reason.as_str()),
                (1008, "timestamp_skew")
            );
            assert_eq!(link.marks().get(Mark::HelloSkewed), 1);
        }
    }

    #[test]
    fn a_hello_of_ours_is_not_taken_ahead_of_its_time() {
        let hello = hello(plan(None), 11);
        let mut link = server_link();
        let early = server::Input::Text(hello.clone());
        let (error, _) = refusal(feed(&mut link, 10, early));
        assert_eq!(error["code"], "timestamp_skew");
        let mut link = server_link();
        attach(feed(&mut link, 11, server::Input::Text(hello)));

        let mut link = server_link();
        attach(feed(&mut link, 10, text(&plain_hello(11))));
    }

    #[test]
    fn a_hello_from_before_the_start_is_refused() {
        let started = at(10).wall;
        let mut link = ServerLink::new(at(10), link_config(started), crypto());
        let early = hello(plan(None), 9);
        let (error, _) = refusal(feed(&mut link, 10, server::Input::Text(early)));
        assert_eq!(error["code"], "timestamp_skew");

        let mut link = ServerLink::new(at(10), link_config(started), crypto());
        let on_time = hello(plan(None), 10);
        attach(feed(&mut link, 10, server::Input::Text(on_time)));
    }

    #[test]
    fn what_nobody_takes_is_refused() {
        let mut link = server_link();
        attach(feed(
            &mut link,
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
        let code = crate::wire::HelloCode::Unauthorized;
        let (error, close) = refusal(feed(&mut link, 0, server::Input::Refused(code)));
        assert_eq!(error["code"], "unauthorized");
        assert_eq!(close.code, Close::POLICY);
    }

    #[test]
    fn a_silent_handshake_is_closed_five_seconds_after_the_accept() {
        let mut link = server_link();
        assert!(fire(&mut link, 4_999).is_empty());
        match &fire(&mut link, 5_000)[..] {
            [server::Output::Close(close)] => assert_eq!(close.code, Close::POLICY),
            other => panic!("{other:?}"),
        }
        assert_eq!(link.marks().get(Mark::LinkHelloTimedOut), 1);
        assert_eq!(link.poll_timeout(), None);
    }

    #[test]
    fn chatter_does_not_prolong_a_handshake() {
        let mut link = server_link();
        feed(&mut link, 4_000, server::Input::Alive);
        feed(&mut link, 4_500, text(&json!({"type": "ping"})));
        assert_eq!(fire(&mut link, 5_000).len(), 1);
    }

    #[test]
    fn nothing_but_a_hello_is_honoured_before_it() {
        let mut link = server_link();
        let error = answer(feed(&mut link, 0, text(&json!({"type": "ping", "n": 1}))));
        assert_eq!(error["code"], "no_hello");
        let list = json!({"type": "list_peers", "_reqId": "r"});
        let error = answer(feed(&mut link, 0, text(&list)));
        assert_eq!(
            (&error["code"], &error["_reqId"]),
            (&json!("no_hello"), &json!("r"))
        );
        let unknown = json!({"type": "mint_coin"});
        assert_eq!(
            answer(feed(&mut link, 0, text(&unknown)))["code"],
            "no_hello"
        );
        attach(feed(
            &mut link,
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
    }

    #[test]
    fn a_send_before_the_hello_gets_its_ack_and_may_come_again() {
        let send = json!({
            "type": "send", "id": "i", "targetSpec": "*", "priority": "now", "nonce": "",
            "ciphertext": "",
        });
        let ack = answer(feed(&mut server_link(), 0, text(&send)));
        assert_eq!(
            ack,
            json!({
                "type": "ack", "id": "i", "messageId": "", "queued": false,
                "error": "say hello first", "code": "no_hello",
            })
        );
    }

    #[test]
    fn a_text_that_no_hello_can_be_is_not_read() {
        let mut big = plain_hello(0);
        big["cwd"] = json!("x".repeat(8 * 1024));
        match &feed(&mut server_link(), 0, text(&big))[..] {
            [server::Output::Close(close)] => assert_eq!(close.code, Close::TOO_BIG),
            other => panic!("{other:?}"),
        }
    }
}

mod behind_a_hello {
    use super::*;

    fn kinds(outputs: &[server::Output]) -> Vec<&'static str> {
        outputs
            .iter()
            .map(|output| match output {
                server::Output::Attach(_) => "attach",
                server::Output::Frame(_) => "frame",
                server::Output::Send(_) => "send",
                server::Output::Ping => "ping",
                server::Output::Pause => "pause",
                server::Output::Resume => "resume",
                server::Output::Close(_) => "close",
            })
            .collect()
    }

    #[test]
    fn frames_wait_for_the_mesh_and_keep_their_order() {
        let mut link = server_link();
        attach(feed(
            &mut link,
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
        for frame in [
            json!({"type": "set_summary", "summary": "1"}),
            json!({"type": "mint_coin"}),
            json!({"type": "set_summary", "summary": "2"}),
        ] {
            assert!(feed(&mut link, 1, text(&frame)).is_empty());
        }
        let outputs = feed(&mut link, 2, server::Input::Attached);
        assert_eq!(kinds(&outputs), ["frame", "send", "frame"]);
        assert_eq!(link.marks().get(Mark::LinkHeldFrames), 3);
        let live = feed(&mut link, 3, text(&json!({"type": "bye"})));
        assert!(matches!(
            live[..],
            [server::Output::Frame(ClientFrame::Bye)]
        ));
    }

    #[test]
    fn reading_stops_when_too_much_waits() {
        let mut link = server_link();
        attach(feed(
            &mut link,
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
        let bye = json!({"type": "bye"});
        for held in 1..=HELD_FRAMES_AT_HELLO + 2 {
            let outputs = feed(&mut link, 1, text(&bye));
            let expected: &[&str] = if held == HELD_FRAMES_AT_HELLO {
                &["pause"]
            } else {
                &[]
            };
            assert_eq!(kinds(&outputs), expected, "{held}");
        }
        let outputs = feed(&mut link, 2, server::Input::Attached);
        assert_eq!(outputs.len(), HELD_FRAMES_AT_HELLO + 3);
        assert_eq!(kinds(&outputs).last(), Some(&"resume"));
    }

    #[test]
    fn reading_stops_at_bytes_too() {
        let mut link = server_link();
        attach(feed(
            &mut link,
            0,
            server::Input::Text(hello(plan(None), 0)),
        ));
        let long = json!({"type": "bye", "x": "x".repeat(64 * 1024)});
        assert_eq!(kinds(&feed(&mut link, 1, text(&long))), ["pause"]);
    }

    #[test]
    fn a_second_hello_changes_nothing() {
        let mut link = attached_own();
        let again = server::Input::Text(hello(plan(None), 1));
        assert_eq!(
            answer(feed(&mut link, 1, again))["code"],
            "already_authenticated"
        );
        assert_eq!(
            kinds(&feed(&mut link, 1, text(&json!({"type": "bye"})))),
            ["frame"]
        );
    }

    #[test]
    fn a_ping_of_the_dialect_is_answered_by_the_link() {
        let pong = answer(feed(
            &mut attached_own(),
            1,
            text(&json!({"type": "ping", "n": 3})),
        ));
        assert_eq!(pong, json!({"type": "pong", "n": 3}));
    }

    #[test]
    fn a_bad_send_is_refused_by_an_ack() {
        let send = json!({"type": "send", "id": "i", "_reqId": "r", "priority": "soon"});
        for mut link in [attached_own(), attached_plain()] {
            let ack = answer(feed(&mut link, 1, text(&send)));
            assert_eq!(ack["type"], "ack");
            assert_eq!(
                (&ack["id"], &ack["code"]),
                (&json!("i"), &json!("bad_request"))
            );
            assert_eq!(
                (&ack["queued"], &ack["messageId"]),
                (&json!(false), &json!(""))
            );
            assert!(ack["error"].as_str().unwrap().contains("invalid"));
        }
    }

    #[test]
    fn our_clients_are_told_of_everything_that_is_not_honoured() {
        let mut link = attached_own();
        let code_of = |link: &mut ServerLink, frame: Value| {
            let error = answer(feed(link, 1, text(&frame)));
            assert_eq!(error["type"], "error");
            error["code"].as_str().unwrap().to_string()
        };
        assert_eq!(
            code_of(&mut link, json!({"type": "mint_coin"})),
            "unknown_message_type"
        );
        assert_eq!(
            code_of(&mut link, json!({"type": "set_status", "status": "bored"})),
            "bad_request"
        );
        assert_eq!(code_of(&mut link, json!(7)), "bad_request");
    }

    #[test]
    fn plain_clients_are_told_only_what_does_not_confuse_them() {
        let mut link = attached_plain();
        for quiet in [
            json!({"type": "mint_coin"}),
            json!({"type": "set_status", "status": "bored"}),
            json!(7),
            plain_hello(1),
        ] {
            assert!(feed(&mut link, 1, text(&quiet)).is_empty(), "{quiet}");
        }
        let asked = json!({"type": "mint_coin", "_reqId": "r"});
        let error = answer(feed(&mut link, 1, text(&asked)));
        assert_eq!(
            (&error["code"], &error["_reqId"]),
            (&json!("bad_request"), &json!("r")),
            "never unknown_message_type on a session's socket"
        );
        let topic = json!({"type": "topic_create", "name": "t"});
        assert_eq!(
            answer(feed(&mut link, 1, text(&topic)))["code"],
            "bad_request"
        );
        assert_eq!(
            answer(feed(&mut link, 1, text(&json!({"type": "list_skills"})))),
            json!({"type": "skill_list", "skills": []})
        );
    }

    #[test]
    fn twenty_garbage_texts_in_a_row_close_the_link() {
        for mut link in [attached_own(), attached_plain()] {
            let garbage = || server::Input::Text(Bytes::from_static(b"{\"type\":1}"));
            for _ in 0..19 {
                assert!(!kinds(&feed(&mut link, 1, garbage())).contains(&"close"));
            }
            feed(&mut link, 1, text(&json!({"type": "mint_coin"})));
            for _ in 0..19 {
                assert!(!kinds(&feed(&mut link, 1, garbage())).contains(&"close"));
            }
            match &feed(&mut link, 1, garbage())[..] {
                [server::Output::Close(close)] => assert_eq!(close.code, Close::POLICY),
                other => panic!("{other:?}"),
            }
            assert!(feed(&mut link, 1, text(&json!({"type": "bye"}))).is_empty());
        }
    }

    #[test]
    fn nothing_comes_out_after_the_socket_went() {
        let mut link = attached_own();
        assert!(feed(&mut link, 1, server::Input::Closed).is_empty());
        assert!(feed(&mut link, 1, text(&json!({"type": "bye"}))).is_empty());
        assert_eq!(link.poll_timeout(), None);
    }
}

mod heartbeat {
    use super::*;

    #[test]
    fn silence_is_pinged_after_25_s_and_closed_10_s_after_the_ping_left() {
        let mut link = attached_own();
        assert!(fire(&mut link, 24_999).is_empty());
        assert!(matches!(
            fire(&mut link, 25_000)[..],
            [server::Output::Ping]
        ));
        assert!(feed(&mut link, 27_000, server::Input::PingSent).is_empty());
        assert!(fire(&mut link, 36_999).is_empty());
        match &fire(&mut link, 37_000)[..] {
            [server::Output::Close(close)] => assert_eq!(*close, Close::silent()),
            other => panic!("{other:?}"),
        }
        assert_eq!(link.marks().get(Mark::LinkPinged), 1);
        assert_eq!(link.marks().get(Mark::LinkSilent), 1);
    }

    #[test]
    fn any_sign_of_life_counts() {
        let mut link = attached_own();
        fire(&mut link, 25_000);
        feed(&mut link, 25_000, server::Input::PingSent);
        assert!(feed(&mut link, 34_999, server::Input::Alive).is_empty());
        assert!(fire(&mut link, 35_000).is_empty());
        feed(&mut link, 50_000, text(&json!({"type": "bye"})));
        assert!(fire(&mut link, 74_999).is_empty());
        assert!(matches!(
            fire(&mut link, 75_000)[..],
            [server::Output::Ping]
        ));
    }

    #[test]
    fn a_socket_that_takes_no_ping_is_silent_too() {
        let mut link = attached_own();
        fire(&mut link, 25_000);
        assert!(matches!(
            fire(&mut link, 35_000)[..],
            [server::Output::Close(_)]
        ));
    }

    #[test]
    fn a_stopped_owner_holds_its_own_silence_against_nobody() {
        // The pong is due at 35 s, and the owner comes back a minute later: by a timer, or by input.
        let stopped = || {
            let mut link = attached_own();
            fire(&mut link, 25_000);
            feed(&mut link, 25_000, server::Input::PingSent);
            link
        };
        let mut link = stopped();
        assert!(fire(&mut link, 95_000).is_empty());
        assert_eq!(link.poll_timeout().unwrap().at, at(120_000).mono);
        let mut link = stopped();
        assert!(feed(&mut link, 95_000, server::Input::PingSent).is_empty());
        assert_eq!(link.poll_timeout().unwrap().at, at(120_000).mono);
        assert_eq!(link.poll_timeout().unwrap().why, Why::Ping);

        // Late by no more than 5 s it was slow, not stopped.
        assert!(matches!(
            fire(&mut stopped(), 40_000)[..],
            [server::Output::Close(_)]
        ));
        assert!(fire(&mut stopped(), 40_001).is_empty());
    }

    #[test]
    fn a_stopped_owner_gives_a_hello_its_time_again() {
        let mut link = server_link();
        assert!(fire(&mut link, 10_001).is_empty());
        assert_eq!(link.poll_timeout().unwrap().at, at(15_001).mono);
        assert_eq!(fire(&mut link, 15_001).len(), 1);
    }
}

mod at_the_client {
    use super::*;

    fn hello_ack(features: Option<Features>) -> Bytes {
        encode_broker(&BrokerFrame::HelloAck(Box::new(HelloAck {
            presence_id: "x".into(),
            member_display_name: "alice".into(),
            member_profile: MemberProfile::default(),
            services: None,
            protocol_version: Some(1),
            features,
            lease_ttl_ms: Some(90_000),
            stream: None,
            resumed: None,
        })))
    }

    fn features() -> Features {
        Features::of_mesh(&Limits::default(), false)
    }

    fn greeting() -> ClientLink {
        let mut link = ClientLink::new(at(0), plan(Some(Role::Session)), crypto());
        feed(&mut link, 1, client::Input::Connected);
        link
    }

    fn up() -> ClientLink {
        let mut link = greeting();
        let outputs = feed(
            &mut link,
            2,
            client::Input::Text(hello_ack(Some(features()))),
        );
        assert!(matches!(outputs[..], [client::Output::Up(_)]));
        link
    }

    fn down(outputs: Vec<client::Output>) -> (Option<Close>, Down) {
        let mut outputs = outputs.into_iter();
        match (outputs.next(), outputs.next(), outputs.next()) {
            (Some(client::Output::Down(down)), None, None) => (None, down),
            (Some(client::Output::Close(close)), Some(client::Output::Down(down)), None) => {
                (Some(close), down)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_two_ends_agree() {
        let mut client = ClientLink::new(at(0), plan(Some(Role::Service)), crypto());
        let mut server = server_link();
        let [client::Output::Send(hello)] = &feed(&mut client, 5, client::Input::Connected)[..]
        else {
            panic!("no hello");
        };
        attach(feed(&mut server, 9, server::Input::Text(hello.clone())));
        feed(&mut server, 9, server::Input::Attached);
        let ack = client::Input::Text(hello_ack(Some(features())));
        assert!(matches!(
            feed(&mut client, 12, ack)[..],
            [client::Output::Up(_)]
        ));
        let pong = encode_broker(&BrokerFrame::Pong { n: Some(1) });
        assert!(matches!(
            feed(&mut client, 13, client::Input::Text(pong))[..],
            [client::Output::Frame(BrokerFrame::Pong { n: Some(1) })]
        ));
    }

    #[test]
    fn every_connection_mints_and_signs_anew() {
        let first = json_of(&hello(plan(Some(Role::Session)), 0));
        let second = json_of(&hello(plan(Some(Role::Session)), 13 * 3_600_000));
        let expiry = |hello: &Value| hello["parentAttestation"]["expiresAt"].as_u64().unwrap();
        assert_eq!(expiry(&second) - expiry(&first), 13 * 3_600_000);
        assert_ne!(first["signature"], second["signature"]);
    }

    #[test]
    fn a_clock_that_is_off_is_corrected() {
        let mut plan = plan(Some(Role::Session));
        plan.clock_offset_ms = -3_600_000;
        let hello = hello(plan, 3_600_000);
        attach(feed(&mut server_link(), 0, server::Input::Text(hello)));
    }

    #[test]
    fn a_dial_that_fails_is_down_once() {
        let mut link = ClientLink::new(at(0), plan(None), crypto());
        let failed = client::Input::Failed("refused".into());
        let (close, why) = down(feed(&mut link, 1, failed));
        assert_eq!(close, None);
        assert_eq!(
            why,
            Down::DialFailed {
                detail: "refused".into()
            }
        );
        let gone = client::Input::Closed(Close::new(Close::ABNORMAL, ""));
        assert!(feed(&mut link, 2, gone).is_empty());
        assert!(feed(&mut link, 3, client::Input::Connected).is_empty());
    }

    #[test]
    fn dial_and_handshake_together_have_ten_seconds() {
        let mut dialling = ClientLink::new(at(0), plan(None), crypto());
        assert!(fire(&mut dialling, 9_999).is_empty());
        for mut link in [dialling, greeting()] {
            let (close, why) = down(fire(&mut link, 10_000));
            assert!(close.is_some());
            assert!(matches!(why, Down::DialFailed { .. }));
            assert_eq!(link.poll_timeout(), None);
        }
    }

    #[test]
    fn a_refusal_is_told_with_the_brokers_time() {
        let mut link = greeting();
        let error = json!({
            "type": "error", "code": "timestamp_skew", "message": "m", "brokerTime": 7,
        });
        let (_, why) = down(feed(
            &mut link,
            2,
            client::Input::Text(error.to_string().into()),
        ));
        assert_eq!(
            why,
            Down::Refused {
                code: "timestamp_skew".into(),
                message: "m".into(),
                broker_time: Some(Wall(7)),
            }
        );
        let closed = client::Input::Closed(Close::new(Close::POLICY, "timestamp_skew"));
        assert!(feed(&mut link, 3, closed).is_empty());
    }

    #[test]
    fn an_error_later_is_a_frame_like_any_other() {
        let error = json!({"type": "error", "code": "bad_request", "message": "m"});
        let outputs = feed(&mut up(), 3, client::Input::Text(error.to_string().into()));
        assert!(matches!(
            outputs[..],
            [client::Output::Frame(BrokerFrame::Error(_))]
        ));
    }

    #[test]
    fn a_broker_that_offers_too_little_is_left() {
        let mut unsealed = features();
        unsealed.0.remove(SEALING);
        for offered in [None, Some(unsealed)] {
            let ack = client::Input::Text(hello_ack(offered));
            let (close, why) = down(feed(&mut greeting(), 2, ack));
            let close = close.unwrap();
            assert_eq!(close.code, Close::FEATURE_UNAVAILABLE);
            assert_eq!(why, Down::FeatureMismatch(close));
        }
    }

    #[test]
    fn what_comes_before_the_answer_or_cannot_be_read_is_ignored() {
        let pong = || client::Input::Text(encode_broker(&BrokerFrame::Pong { n: None }));
        assert!(feed(&mut greeting(), 2, pong()).is_empty());
        let mut link = up();
        for ignored in [
            json!({"type": "tick"}),
            json!({"type": "push", "messageId": 7}),
            json!(7),
        ] {
            let ignored = client::Input::Text(ignored.to_string().into());
            assert!(feed(&mut link, 3, ignored).is_empty());
        }
        assert_eq!(feed(&mut link, 4, pong()).len(), 1);
    }

    #[test]
    fn a_silent_broker_is_left() {
        let mut link = up();
        assert!(matches!(
            fire(&mut link, 25_002)[..],
            [client::Output::Ping]
        ));
        feed(&mut link, 25_002, client::Input::PingSent);
        let (close, why) = down(fire(&mut link, 35_002));
        assert_eq!(close, Some(Close::silent()));
        assert_eq!(why, Down::Closed(Close::silent()));
    }

    #[test]
    fn a_laptop_that_slept_does_not_blame_its_broker() {
        let mut link = up();
        fire(&mut link, 25_002);
        feed(&mut link, 25_002, client::Input::PingSent);
        assert!(fire(&mut link, 3_600_000).is_empty());
        assert_eq!(link.poll_timeout().unwrap().at, at(3_625_000).mono);
    }

    #[test]
    fn the_close_that_travelled_is_told() {
        let close = Close::session_replaced();
        let (_, why) = down(feed(&mut up(), 3, client::Input::Closed(close.clone())));
        assert_eq!(why, Down::Closed(close));
    }
}

/// What a driver can do to a link, at which distance from the step before.
#[derive(Clone, Debug)]
enum Step<I> {
    Input(u64, I),
    Timeout(u64),
    /// When the link itself asks for it.
    Due,
}

fn steps<I: core::fmt::Debug + Clone + 'static>(
    input: impl Strategy<Value = I> + 'static,
) -> impl Strategy<Value = Vec<Step<I>>> {
    let gap = prop_oneof![0u64..10, 0u64..12_000, 0u64..100_000];
    let step = prop_oneof![
        4 => (gap.clone(), input).prop_map(|(gap, input)| Step::Input(gap, input)),
        1 => gap.prop_map(Step::Timeout),
        3 => Just(Step::Due),
    ];
    prop::collection::vec(step, 0..40)
}

/// Runs `steps`, checks what holds for every machine, and returns all outputs in order.
fn run<M, I>(
    link: &mut M,
    steps: Vec<Step<I>>,
    input: impl Fn(I, u64) -> M::Input,
) -> Vec<M::Output>
where
    M: Machine,
    M::Why: PartialEq,
{
    let mut ms = 0;
    let mut outputs = Vec::new();
    for step in steps {
        let timed_out = match step {
            Step::Input(gap, kind) => {
                ms += gap;
                link.handle_input(at(ms), input(kind, ms));
                false
            }
            Step::Timeout(gap) => {
                ms += gap;
                link.handle_timeout(at(ms));
                true
            }
            Step::Due => {
                let due = link
                    .poll_timeout()
                    .map_or(0, |due| due.at.0.div_ceil(1_000));
                ms = ms.max(due);
                link.handle_timeout(at(ms));
                true
            }
        };
        outputs.extend(drain(link));
        let next = link.poll_timeout();
        if timed_out {
            assert!(next.as_ref().is_none_or(|next| next.at > at(ms).mono));
            link.handle_timeout(at(ms));
            assert!(
                link.poll_output().is_none(),
                "a spurious time-out told something"
            );
            assert!(
                link.poll_timeout() == next,
                "a spurious time-out moved a deadline"
            );
        }
    }
    outputs
}

#[derive(Clone, Debug)]
enum ServerKind {
    Hello,
    PlainHello,
    Frame,
    BadSend,
    Unknown,
    Garbage,
    Long,
    Alive,
    PingSent,
    Attached,
    Closed,
}

#[derive(Clone, Debug)]
enum ClientKind {
    Connected,
    Failed,
    Ack,
    PoorAck,
    Error,
    Frame,
    Garbage,
    Alive,
    PingSent,
    Closed,
}

proptest! {
    #[test]
    fn a_server_link_keeps_its_contract(
        steps in steps(prop::sample::select(vec![
            ServerKind::Hello, ServerKind::Hello, ServerKind::PlainHello, ServerKind::Frame,
            ServerKind::BadSend, ServerKind::Unknown, ServerKind::Garbage, ServerKind::Long,
            ServerKind::Alive, ServerKind::PingSent, ServerKind::Attached, ServerKind::Closed,
        ]))
    ) {
        let mut link = server_link();
        let outputs = run(&mut link, steps, |kind, ms| match kind {
            ServerKind::Hello => server::Input::Text(hello(plan(Some(Role::Session)), ms)),
            ServerKind::PlainHello => text(&plain_hello(ms)),
            ServerKind::Frame => text(&json!({"type": "bye"})),
            ServerKind::BadSend => text(&json!({"type": "send", "id": "i"})),
            ServerKind::Unknown => text(&json!({"type": "mint_coin", "_reqId": "r"})),
            ServerKind::Garbage => text(&json!(7)),
            ServerKind::Long => text(&json!({"type": "bye", "x": "x".repeat(9_000)})),
            ServerKind::Alive => server::Input::Alive,
            ServerKind::PingSent => server::Input::PingSent,
            ServerKind::Attached => server::Input::Attached,
            ServerKind::Closed => server::Input::Closed,
        });
        let place = |is: fn(&server::Output) -> bool| outputs.iter().position(is);
        let count = |is: fn(&server::Output) -> bool| outputs.iter().filter(|o| is(o)).count();
        prop_assert!(count(|o| matches!(o, server::Output::Attach(_))) <= 1);
        if let Some(frame) = place(|o| matches!(o, server::Output::Frame(_))) {
            let attach = place(|o| matches!(o, server::Output::Attach(_)));
            prop_assert!(attach.is_some_and(|attach| attach < frame));
        }
        if let Some(close) = place(|o| matches!(o, server::Output::Close(_))) {
            prop_assert_eq!(close, outputs.len() - 1, "a close is last");
        }
    }

    #[test]
    fn a_client_link_keeps_its_contract(
        steps in steps(prop::sample::select(vec![
            ClientKind::Connected, ClientKind::Connected, ClientKind::Failed, ClientKind::Ack,
            ClientKind::Ack, ClientKind::PoorAck, ClientKind::Error, ClientKind::Frame,
            ClientKind::Garbage, ClientKind::Alive, ClientKind::PingSent, ClientKind::Closed,
        ]))
    ) {
        let ack = |features: Features| {
            let features = serde_json::to_value(features).unwrap();
            client::Input::Text(json!({
                "type": "hello_ack", "presenceId": "x", "memberDisplayName": "a",
                "memberProfile": {"roleTag": null, "groups": [], "messageMode": "push"},
                "features": features,
            }).to_string().into())
        };
        let mut link = ClientLink::new(at(0), plan(Some(Role::Session)), crypto());
        let mut outputs = run(&mut link, steps, |kind, _| match kind {
            ClientKind::Connected => client::Input::Connected,
            ClientKind::Failed => client::Input::Failed(String::new()),
            ClientKind::Ack => ack(Features::of_mesh(&Limits::default(), true)),
            ClientKind::PoorAck => ack(Features::default()),
            ClientKind::Error => client::Input::Text(
                json!({"type": "error", "code": "c", "message": "m"}).to_string().into()
            ),
            ClientKind::Frame => client::Input::Text(encode_broker(&BrokerFrame::Ok { req_id: None })),
            ClientKind::Garbage => client::Input::Text(Bytes::from_static(b"x")),
            ClientKind::Alive => client::Input::Alive,
            ClientKind::PingSent => client::Input::PingSent,
            ClientKind::Closed => client::Input::Closed(Close::new(Close::ABNORMAL, "")),
        });
        // Whatever happened, a link ends.
        outputs.extend(feed(&mut link, 10_000_000, client::Input::Failed(String::new())));
        let count = |is: fn(&client::Output) -> bool| outputs.iter().filter(|o| is(o)).count();
        prop_assert_eq!(count(|o| matches!(o, client::Output::Down(_))), 1);
        prop_assert!(matches!(outputs.last(), Some(client::Output::Down(_))));
        prop_assert!(count(|o| matches!(o, client::Output::Up(_))) <= 1);
        let up = outputs.iter().position(|o| matches!(o, client::Output::Up(_)));
        if let Some(frame) = outputs.iter().position(|o| matches!(o, client::Output::Frame(_))) {
            prop_assert!(up.is_some_and(|up| up < frame));
        }
    }
}

#[test]
fn what_a_link_says_can_be_read() {
    match &feed(&mut server_link(), 0, text(&json!({"type": "bye"})))[..] {
        [server::Output::Send(bytes)] => {
            assert!(matches!(decode_broker(bytes), Ok(BrokerFrame::Error(_))));
        }
        other => panic!("{other:?}"),
    }
}

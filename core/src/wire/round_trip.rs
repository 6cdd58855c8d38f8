//! Whatever can be said can be read back.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::audience::{Audience, AudienceKey};
use super::broker::{
    Ack, ErrorFrame, Event, EventData, EventKind, HelloAck, MemberProfile, Peer, PeerState,
    PeersList, Push, Resumed, StreamAt,
};
use super::client::{
    About, ClientAck, Group, MemberHello, Offer, Profile, ReceiptsAfter, ReqId, Resume, Send,
    SessionHello,
};
use super::feature::{Capabilities, Features, Require};
use super::moderation::{Ban, BanAck, BansResult, DisconnectAck, KickAck, UnbanAck, Whom};
use super::receipt::{
    DeliveryState, Explain, ExplainResult, Happened, MessageStatus, MessageStatusResult, Reach,
    Receipt, RecipientStatus, Rung, Seen, WaitsFor,
};
use super::*;
use crate::crypto::attestation::Attestation;
use crate::id::{Epoch, Fingerprint, MeshId, MessageId, PubKey, Signature};
use crate::limits::Limits;
use crate::time::Wall;

fn id<T: From<String> + core::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-zA-Z0-9|\"\\\\é-]{1,40}".prop_map(T::from)
}

fn req_id() -> impl Strategy<Value = Option<ReqId>> {
    of(id::<String>().prop_map(ReqId))
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,16}"
}

fn key() -> impl Strategy<Value = PubKey> {
    any::<[u8; 32]>().prop_map(PubKey)
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[u8; 32]>().prop_map(|half| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&half);
        Signature(bytes)
    })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<[u8; 16]>().prop_map(Epoch)
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![
        Just(Priority::Now),
        Just(Priority::Next),
        Just(Priority::Low)
    ]
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Idle), Just(Status::Working), Just(Status::Dnd)]
}

fn nonce() -> impl Strategy<Value = Nonce> {
    prop_oneof![
        Just(Base64Body::encode(&[])),
        any::<[u8; 24]>().prop_map(|bytes| Base64Body::encode(&bytes))
    ]
}

fn body() -> impl Strategy<Value = Base64Body> {
    vec(any::<u8>(), 0..64).prop_map(|bytes| Base64Body::encode(&bytes))
}

prop_compose! {
    fn group()(name in name(), role in of(name())) -> Group {
        Group { name, role }
    }
}

prop_compose! {
    fn about()(
        pid in any::<u64>(), cwd in name(), display_name in of(name()), hostname in of(name()),
        peer_type in of(name()), channel in of(name()), model in of(name()),
        groups in vec(group(), 0..3),
    ) -> About {
        About { pid, cwd, display_name, hostname, peer_type, channel, model, groups }
    }
}

prop_compose! {
    fn offer()(
        protocol_version in of(any::<u32>()),
        capabilities in vec(name(), 0..4),
        resume in of((epoch(), any::<u64>())),
        receipts in of(any::<u64>()),
        required in any::<bool>(),
        quiet in any::<bool>(),
    ) -> Offer {
        Offer {
            protocol_version,
            capabilities: Capabilities(capabilities),
            resume: resume.map(|(epoch, count)| Resume { epoch, count }),
            receipts: receipts.map(|after| ReceiptsAfter { after }),
            require: if required { Require::ours() } else { Require::default() },
            quiet,
        }
    }
}

prop_compose! {
    fn attestation()(
        session_pubkey in key(), parent_member_pubkey in key(), expires_at in any::<u64>(),
        signature in signature(),
    ) -> Attestation {
        Attestation { session_pubkey, parent_member_pubkey, expires_at: Wall(expires_at), signature }
    }
}

prop_compose! {
    fn member_hello()(
        mesh_id in id(), member_id in id(), pubkey in key(), session_pubkey in of(key()),
        session_id in id(), about in about(), offer in offer(), timestamp in any::<u64>(),
        signature in signature(),
    ) -> MemberHello {
        MemberHello {
            mesh_id, member_id, pubkey, session_pubkey, session_id, about, offer, timestamp,
            signature,
        }
    }
}

prop_compose! {
    fn session_hello()(
        mesh_id in id(), parent_member_id in of(id()), parent_member_pubkey in key(),
        session_pubkey in key(), parent_attestation in attestation(), session_id in id(),
        role in of(name()), about in about(), offer in offer(), timestamp in any::<u64>(),
        signature in signature(),
    ) -> SessionHello {
        SessionHello {
            mesh_id, parent_member_id, parent_member_pubkey, session_pubkey, parent_attestation,
            session_id, role, about, offer, timestamp, signature,
        }
    }
}

prop_compose! {
    fn send()(
        id in of(id()), client_message_id in of(id()),
        request_fingerprint in of(any::<[u8; 32]>().prop_map(Fingerprint)),
        target_spec in name(), priority in priority(), nonce in nonce(), ciphertext in body(),
        mentions in vec(name(), 0..4), reply_to_id in of(id()), body_version in of(any::<u32>()),
        flags in (any::<bool>(), of(Just(String::from("x1")))),
    ) -> Send {
        let (first, seal) = flags;
        Send {
            id, client_message_id, request_fingerprint, target_spec, priority, nonce, ciphertext,
            mentions, reply_to_id, body_version, first, seal,
        }
    }
}

prop_compose! {
    fn profile()(
        avatar in of(name()), title in of(name()), bio in of(name()),
        capabilities in vec(name(), 0..3),
    ) -> Profile {
        Profile { avatar, title, bio, capabilities }
    }
}

fn stats() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (any::<u32>(), name()).prop_map(|(n, text)| json!({"messagesIn": n, "text": text})),
    ]
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        member_hello().prop_map(|hello| ClientFrame::Hello(Box::new(hello))),
        session_hello().prop_map(|hello| ClientFrame::SessionHello(Box::new(hello))),
        send().prop_map(|send| ClientFrame::Send(Box::new(send))),
        (of(id()), of(id())).prop_map(|(client_message_id, broker_message_id)| {
            ClientFrame::ClientAck(ClientAck {
                client_message_id,
                broker_message_id,
            })
        }),
        (of(id()), of(any::<u32>()), req_id()).prop_map(|(after, limit, req_id)| {
            ClientFrame::ListPeers {
                after,
                limit,
                req_id,
            }
        }),
        (status(), req_id()).prop_map(|(status, req_id)| ClientFrame::SetStatus { status, req_id }),
        (name(), req_id())
            .prop_map(|(summary, req_id)| ClientFrame::SetSummary { summary, req_id }),
        (id(), of(name()), req_id()).prop_map(|(name, role, req_id)| ClientFrame::JoinGroup {
            name,
            role,
            req_id
        }),
        (id(), req_id()).prop_map(|(name, req_id)| ClientFrame::LeaveGroup { name, req_id }),
        (any::<bool>(), of(id()), req_id()).prop_map(|(visible, id, req_id)| {
            ClientFrame::SetVisible {
                visible,
                id,
                req_id,
            }
        }),
        (profile(), of(id()), req_id()).prop_map(|(profile, id, req_id)| {
            ClientFrame::SetProfile {
                profile,
                id,
                req_id,
            }
        }),
        (stats(), req_id()).prop_map(|(stats, req_id)| ClientFrame::SetStats { stats, req_id }),
        (vec(id(), 0..4), req_id())
            .prop_map(|(ids, req_id)| ClientFrame::Seen(Seen { ids, req_id })),
        ("[A-Za-z0-9]{8,32}", req_id()).prop_map(|(message_id, req_id)| {
            ClientFrame::MessageStatus(MessageStatus { message_id, req_id })
        }),
        (id(), req_id()).prop_map(|(id, req_id)| ClientFrame::Explain(Explain { id, req_id })),
        (any::<bool>(), whom(), req_id()).prop_map(|(hard, whom, req_id)| if hard {
            ClientFrame::Kick { whom, req_id }
        } else {
            ClientFrame::Disconnect { whom, req_id }
        }),
        (any::<bool>(), id(), req_id()).prop_map(|(ban, target, req_id)| if ban {
            ClientFrame::Ban { target, req_id }
        } else {
            ClientFrame::Unban { target, req_id }
        }),
        (of(id()), req_id()).prop_map(|(after, req_id)| ClientFrame::ListBans { after, req_id }),
        Just(ClientFrame::Bye),
        of(any::<u64>()).prop_map(|n| ClientFrame::Ping { n }),
    ]
}

fn whom() -> impl Strategy<Value = Whom> {
    prop_oneof![
        id().prop_map(Whom::Target),
        any::<u64>().prop_map(Whom::Stale),
        Just(Whom::All),
    ]
}

prop_compose! {
    fn kick_ack()(
        kicked in vec(name(), 0..3), affected in vec(name(), 0..3),
        skipped_control_plane in vec(name(), 0..3), more in any::<u64>(), req_id in req_id(),
    ) -> KickAck {
        KickAck { kicked, affected, skipped_control_plane, more, req_id }
    }
}

prop_compose! {
    fn bans()(
        bans in vec((name(), key(), name()), 0..3), next in of(name()), req_id in req_id(),
    ) -> BansResult {
        let ban = |(name, pubkey, revoked_at)| Ban { name, pubkey, revoked_at };
        BansResult { bans: bans.into_iter().map(ban).collect(), next, req_id }
    }
}

prop_compose! {
    fn stream_at()(epoch in epoch(), count in any::<u64>()) -> StreamAt {
        StreamAt { epoch, count }
    }
}

prop_compose! {
    fn hello_ack()(
        presence_id in id(), member_display_name in name(), role_tag in of(name()),
        groups in vec(group(), 0..3), is_member in any::<bool>(), is_bowline in any::<bool>(),
        stream in of((stream_at(), prop_oneof![
            Just(Resumed::Hit), Just(Resumed::Miss), Just(Resumed::Fresh)
        ])),
    ) -> HelloAck {
        let (stream, resumed) = stream.unzip();
        HelloAck {
            presence_id,
            member_display_name,
            member_profile: MemberProfile { role_tag, groups, message_mode: "push".into() },
            services: is_member.then(Vec::new),
            protocol_version: is_bowline.then_some(1),
            features: is_bowline.then(|| Features::of_mesh(&Limits::default(), false)),
            lease_ttl_ms: is_bowline.then_some(90_000),
            stream,
            resumed,
        }
    }
}

prop_compose! {
    fn ack()(
        id in of(id()), message_id in name(), queued in any::<bool>(), duplicate in any::<bool>(),
        first_seen_at in of(name()), history_available in of(any::<bool>()), error in of(name()),
        code in of(name()), retry_after_ms in of(any::<u64>()), fingerprint_prefix in of(name()),
        audience in of(audience()), req_id in req_id(),
    ) -> Ack {
        Ack {
            id, message_id, queued, duplicate, first_seen_at, history_available, error, code,
            retry_after_ms, fingerprint_prefix, audience, req_id,
        }
    }
}

prop_compose! {
    fn audience()(
        version in name(),
        all in of(vec((key(), vec(name(), 0..3)), 0..3)),
    ) -> Audience {
        let one = |(key, suites)| AudienceKey { key, suites };
        Audience { version, all: all.map(|all| all.into_iter().map(one).collect()) }
    }
}

prop_compose! {
    fn push()(
        ids in (id(), id(), id(), of(id())), sender_pubkey in key(),
        sender_member in of((key(), id())), sender_name in name(), priority in priority(),
        nonce in nonce(), ciphertext in body(), created_at in name(),
        request_fingerprint in of(any::<[u8; 32]>().prop_map(Fingerprint)),
        body_version in of(any::<u32>()), target_spec in of(name()), seal in of(name()),
        attempt in of(any::<u32>()),
    ) -> Push {
        let (message_id, mesh_id, client_message_id, reply_to_id) = ids;
        let (sender_member_pubkey, sender_member_id) = sender_member.unzip();
        Push {
            message_id, mesh_id, sender_pubkey, sender_member_pubkey, sender_member_id,
            sender_name, reply_to_id, priority, nonce, ciphertext, created_at, client_message_id,
            request_fingerprint, body_version, target_spec, seal, attempt,
        }
    }
}

prop_compose! {
    fn event()(
        kind in prop_oneof![
            Just(EventKind::PeerJoined), Just(EventKind::PeerLeft), Just(EventKind::PeerVisible),
            Just(EventKind::PeerHidden), Just(EventKind::ProfileUpdated)
        ],
        name in name(), pubkey in key(), member_pubkey in of(key()), role in of(name()),
        groups in of(vec(group(), 0..3)), summary in of(name()), profile in of(profile()),
        suites in of(vec(name(), 0..3)),
    ) -> Event {
        Event {
            kind,
            data: EventData { name, pubkey, member_pubkey, role, groups, summary, profile, suites },
        }
    }
}

prop_compose! {
    fn receipt()(
        n in any::<u64>(), client_message_id in id(), recipient in key(), rung in rung(),
        reason in of(name()), at in name(),
    ) -> Receipt {
        Receipt { n, client_message_id, recipient, rung, reason, at }
    }
}

fn rung() -> impl Strategy<Value = Rung> {
    prop::sample::select(&Rung::ALL)
}

prop_compose! {
    fn message_status_result()(
        message_id in id(), target_spec in name(), delivered in any::<bool>(),
        delivered_at in of(name()),
        recipients in vec((name(), key(), prop_oneof![
            Just(Reach::Delivered), Just(Reach::Held), Just(Reach::Disconnected)
        ]), 0..3),
        req_id in req_id(),
    ) -> MessageStatusResult {
        let recipients = recipients
            .into_iter()
            .map(|(name, pubkey, status)| RecipientStatus { name, pubkey, status })
            .collect();
        MessageStatusResult { message_id, target_spec, delivered, delivered_at, recipients, req_id }
    }
}

prop_compose! {
    fn explain_result()(
        ids in (id(), id()), recipient in key(),
        state in prop_oneof![
            Just(DeliveryState::Ready), Just(DeliveryState::Claimed),
            rung().prop_map(DeliveryState::from)
        ],
        waits_for in prop_oneof![
            Just(WaitsFor::Nothing), Just(WaitsFor::Reattach),
            Just(WaitsFor::Status), Just(WaitsFor::Suite), Just(WaitsFor::Acknowledgement),
            Just(WaitsFor::Window), Just(WaitsFor::Connection), Just(WaitsFor::Turn)
        ],
        holder in of(key()), attempt in any::<u32>(), next_at in of(name()),
        history in vec((name(), name()), 0..3), req_id in req_id(),
    ) -> ExplainResult {
        let (message_id, client_message_id) = ids;
        let history = history.into_iter().map(|(what, at)| Happened { what, at }).collect();
        ExplainResult {
            message_id, client_message_id, recipient, state, waits_for, holder, attempt, next_at,
            history, req_id,
        }
    }
}

prop_compose! {
    fn peer()(
        keys in (key(), key()), display_name in name(), status in status(), summary in of(name()),
        groups in vec(group(), 0..3), session_id in id(), texts in (name(), name(), name()),
        said in (of(name()), of(name()), of(name()), of(name())), visible in of(any::<bool>()),
        profile in of(profile()),
        bowline in of((prop_oneof![Just(PeerState::Live), Just(PeerState::Grace)], any::<u64>(),
            attestation(), vec(name(), 0..3))),
    ) -> Peer {
        let (pubkey, member_pubkey) = keys;
        let (connected_at, cwd, peer_role) = texts;
        let (hostname, peer_type, channel, model) = said;
        let mut peer = Peer {
            pubkey, member_pubkey, display_name, status, summary, groups, session_id,
            connected_at, cwd, peer_role, hostname, peer_type, channel, model,
            stats: None, visible, profile, state: None, away_ms: None, attestation: None,
            capabilities: None,
        };
        if let Some((state, away_ms, attestation, capabilities)) = bowline {
            peer.state = Some(state);
            peer.away_ms = Some(away_ms);
            peer.attestation = Some(attestation);
            peer.capabilities = Some(Capabilities(capabilities));
        }
        peer
    }
}

fn broker_frame() -> impl Strategy<Value = BrokerFrame> {
    prop_oneof![
        hello_ack().prop_map(|frame| BrokerFrame::HelloAck(Box::new(frame))),
        ack().prop_map(|frame| BrokerFrame::Ack(Box::new(frame))),
        push().prop_map(|frame| BrokerFrame::Push(Box::new(frame))),
        event().prop_map(BrokerFrame::Event),
        stream_at().prop_map(BrokerFrame::Stream),
        (vec(peer(), 0..3), of(name()), req_id()).prop_map(|(peers, next, req_id)| {
            BrokerFrame::PeersList(PeersList {
                peers,
                next,
                req_id,
            })
        }),
        (name(), name(), of(name()), req_id(), of(any::<u64>())).prop_map(
            |(code, message, id, req_id, broker_time_ms)| {
                BrokerFrame::Error(ErrorFrame {
                    code,
                    message,
                    id,
                    req_id,
                    broker_time_ms,
                })
            }
        ),
        receipt().prop_map(BrokerFrame::Receipt),
        message_status_result().prop_map(BrokerFrame::MessageStatusResult),
        explain_result().prop_map(|frame| BrokerFrame::ExplainResult(Box::new(frame))),
        kick_ack().prop_map(BrokerFrame::KickAck),
        kick_ack().prop_map(|ack| BrokerFrame::DisconnectAck(DisconnectAck {
            affected: ack.affected,
            skipped_control_plane: ack.skipped_control_plane,
            more: ack.more,
            req_id: ack.req_id,
        })),
        (name(), req_id())
            .prop_map(|(banned, req_id)| BrokerFrame::BanAck(BanAck { banned, req_id })),
        (name(), req_id())
            .prop_map(|(unbanned, req_id)| BrokerFrame::UnbanAck(UnbanAck { unbanned, req_id })),
        bans().prop_map(BrokerFrame::ListBansResult),
        req_id().prop_map(|req_id| BrokerFrame::Ok { req_id }),
        of(any::<u64>()).prop_map(|n| BrokerFrame::Pong { n }),
    ]
}

proptest! {
    #[test]
    fn client_frames(frame in client_frame()) {
        prop_assert_eq!(decode_client(&encode_client(&frame)), Ok(frame));
    }

    #[test]
    fn broker_frames(frame in broker_frame()) {
        prop_assert_eq!(decode_broker(&encode_broker(&frame)), Ok(frame));
    }

    #[test]
    fn an_event_says_the_same_to_those_without_live1(event in event()) {
        let (mesh, id) = (MeshId::from("m"), MessageId::from("i"));
        let plain = encode_event_plain(&mesh, &id, Wall(0), &event);
        prop_assert_eq!(decode_broker(&plain), Ok(BrokerFrame::Event(event)));
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..256)) {
        drop((decode_client(&bytes), decode_broker(&bytes)));
    }

    #[test]
    fn damaged_frames_are_read_without_panic(
        frame in client_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encode_client(&frame).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop((decode_client(&bytes), decode_broker(&bytes)));
    }
}

#[test]
fn a_live_event_is_spelled_as_on_the_wire() {
    let event = Event {
        kind: EventKind::PeerLeft,
        data: EventData {
            name: "alice".into(),
            pubkey: PubKey([10; 32]),
            member_pubkey: None,
            role: None,
            groups: None,
            summary: None,
            profile: None,
            suites: None,
        },
    };
    let data = json!({"name": "alice", "pubkey": "0a".repeat(32)});
    let live: Value = serde_json::from_slice(&encode_event(&event)).unwrap();
    assert_eq!(
        live,
        json!({"type": "event", "v": 1, "event": "peer_left", "data": data})
    );
    let plain = encode_event_plain(&"m".into(), &"i".into(), Wall(0), &event);
    let plain: Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(
        plain,
        json!({
            "type": "push", "subtype": "system", "event": "peer_left", "eventData": data,
            "messageId": "i", "meshId": "m", "senderPubkey": "system", "priority": "low",
            "nonce": "", "ciphertext": "", "createdAt": "1970-01-01T00:00:00.000Z",
        })
    );
}

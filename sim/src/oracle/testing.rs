//! Synthetic histories: an oracle that cannot fail proves nothing.

use std::rc::Rc;
use std::sync::Arc;

use bowline_core::host::io::SseEvent;
use bowline_core::id::{
    ClientMessageId, ConnId, Epoch, Fingerprint, InboxSeq, MemberId, MeshId, MessageId, MessageSeq,
    OutboxSeq, PeerKey, PresenceId, PubKey, ReceiptNumber, Role, SessionId, Signature,
    SubscriberId,
};
use bowline_core::link::{Down, VerifiedHello};
use bowline_core::store::TxnId;
use bowline_core::store::host;
use bowline_core::store::mesh::{DedupeRow, MessageRow, Op, PeerRow, ReceiptRow, Registration};
use bowline_core::time::Wall;
use bowline_core::wire::broker::{
    Ack, Event, EventData, EventKind, HelloAck, MemberProfile, Push, Resumed, StreamAt,
};
use bowline_core::wire::client::{About, Offer, Profile as PeerProfile, Resume, Send};
use bowline_core::wire::feature::{Capabilities, Terms};
use bowline_core::wire::receipt::Rung;
use bowline_core::wire::{
    Base64Body, BrokerFrame, ClientFrame, Close, Priority, ProtocolVersion, Suite, encode_broker,
};

use super::{Oracle, View};
use crate::cast::Cast;
use crate::clock::Moment;
use crate::plan::Profile;
use crate::random::Random;
use crate::record::Record;
use crate::stage;
use crate::store::Shared;

/// Seconds to a moment's number.
pub fn s(seconds: u64) -> u64 {
    seconds * 1_000_000
}

pub fn view() -> View {
    let profile = Profile::calm(0, 0, 2);
    View {
        limits: stage::limits(&profile),
        cast: Rc::new(Cast::of(&profile, &Random::new(0), 0)),
        profile,
        mesh: Shared::default(),
        hosts: Vec::new(),
        first_client: stage::FIRST_CLIENT,
    }
}

pub fn judge(oracle: &mut dyn Oracle, history: &[(u64, Record)]) -> Result<(), String> {
    judge_with(oracle, &view(), history)
}

pub fn judge_with(
    oracle: &mut dyn Oracle,
    view: &View,
    history: &[(u64, Record)],
) -> Result<(), String> {
    history
        .iter()
        .try_for_each(|(at, record)| oracle.see(Moment(*at), record, view))
}

pub fn pubkey(peer: u8) -> PubKey {
    PubKey([peer; 32])
}

pub fn key(peer: u8) -> Arc<PeerKey> {
    Arc::new(PeerKey::Session(pubkey(peer)))
}

pub fn attached(peer: u8, conn: u64) -> Record {
    attached_by(peer, conn, conn as u8)
}

/// `hello` names the hello.
pub fn attached_by(peer: u8, conn: u64, hello: u8) -> Record {
    Record::Attached {
        node: 0,
        conn: ConnId(conn),
        peer: key(peer),
        hello: Arc::new(VerifiedHello {
            mesh: MeshId::from("m"),
            key: PeerKey::Session(pubkey(peer)),
            role: Role::Session,
            member_pubkey: pubkey(100),
            member_id: None,
            pubkey: pubkey(peer),
            session_pubkey: None,
            attestation: None,
            session_id: SessionId::from("s"),
            about: About::default(),
            offer: Offer {
                capabilities: Capabilities::ours(),
                ..Offer::default()
            },
            version: ProtocolVersion::V1,
            timestamp: Wall(0),
            signature: Signature([hello; 64]),
        }),
    }
}

pub fn heard(peer: u8, conn: u64) -> Record {
    Record::Heard {
        node: 0,
        conn: ConnId(conn),
        peer: key(peer),
    }
}

pub fn committed(ops: Vec<Op>) -> Record {
    Record::MeshCommitted {
        node: 0,
        txn: TxnId(1),
        ops,
    }
}

pub fn peer_put(peer: u8, present: bool) -> Record {
    committed(vec![Op::PeerPut(Box::new(peer_row(peer, present)))])
}

pub fn peer_row(peer: u8, present: bool) -> PeerRow {
    PeerRow {
        key: PeerKey::Session(pubkey(peer)),
        role: Role::Session,
        member: MemberId::from("m"),
        pubkey: pubkey(peer),
        present,
        joined_at: Wall(0),
        last_seen: Wall(0),
        registration: Registration::default(),
    }
}

/// What one accept commits: message, dedupe record and delivery.
pub fn accept(seq: u64, sender: u8, recipient: u8, id: &str) -> Vec<Op> {
    vec![
        Op::MessagePut(Box::new(MessageRow {
            seq: MessageSeq(seq),
            id: message_id(seq),
            sender: PeerKey::Session(pubkey(sender)),
            sender_pubkey: pubkey(sender),
            sender_member: MemberId::from("m"),
            sender_name: "n".into(),
            target_spec: pubkey(recipient).to_string(),
            priority: Priority::Now,
            nonce: Base64Body::encode(&[0; 24]),
            ciphertext: Base64Body::encode(b"sealed"),
            client_message_id: ClientMessageId::from(id),
            fingerprint: Fingerprint([0; 32]),
            reply_to: None,
            body_version: None,
            seal: Some("x1".into()),
            created_at: Wall(0),
        })),
        Op::DedupePut(DedupeRow {
            sender: PeerKey::Session(pubkey(sender)),
            client_message_id: ClientMessageId::from(id),
            fingerprint: Fingerprint([0; 32]),
            message_id: message_id(seq),
            seq: MessageSeq(seq),
            first_seen_at: Wall(0),
        }),
        Op::DeliveryPut {
            seq: MessageSeq(seq),
            recipient: PeerKey::Session(pubkey(recipient)),
            claim: None,
        },
    ]
}

pub fn message_id(seq: u64) -> MessageId {
    MessageId::from(format!("message-{seq}"))
}

pub fn done(seq: u64, recipient: u8) -> Record {
    settled(seq, recipient, seq, Rung::Delivered)
}

/// As the `n`th receipt of peer 1.
pub fn settled(seq: u64, recipient: u8, n: u64, rung: Rung) -> Record {
    committed(vec![Op::DeliverySettled(Box::new(ReceiptRow {
        sender: PeerKey::Session(pubkey(1)),
        n: ReceiptNumber(n),
        recipient: PeerKey::Session(pubkey(recipient)),
        recipient_pubkey: pubkey(recipient),
        seq: MessageSeq(seq),
        message_id: message_id(seq),
        client_message_id: ClientMessageId::from("a"),
        rung,
        reason: None,
        at: Wall(0),
    }))])
}

pub fn sent(peer: u8, conn: u64, frame: &BrokerFrame) -> Record {
    Record::Sent {
        node: 0,
        conn: ConnId(conn),
        peer: key(peer),
        frame: encode_broker(frame),
        queued_bytes: 0,
    }
}

pub fn ack_frame(id: &str, message: Option<u64>) -> BrokerFrame {
    BrokerFrame::Ack(Box::new(Ack {
        id: Some(id.into()),
        message_id: message.map_or(String::new(), |seq| message_id(seq).to_string()),
        queued: message.is_some(),
        ..Ack::default()
    }))
}

pub fn dialled(peer: u8, conn: u64, epoch: u8, count: u64) -> Record {
    Record::Dialled {
        node: peer.into(),
        conn: ConnId(conn),
        key: key(peer),
        resume: Some(Resume {
            epoch: Epoch([epoch; 16]),
            count,
        }),
        terms: Arc::new(Terms::default()),
    }
}

pub fn up(peer: u8, conn: u64, epoch: u8, count: u64, resumed: Resumed) -> Record {
    Record::Up {
        node: peer.into(),
        conn: ConnId(conn),
        key: key(peer),
        ack: Box::new(HelloAck {
            presence_id: PresenceId::from("p"),
            member_display_name: "n".into(),
            member_profile: MemberProfile::default(),
            services: None,
            protocol_version: None,
            features: None,
            lease_ttl_ms: None,
            stream: Some(StreamAt {
                epoch: Epoch([epoch; 16]),
                count,
            }),
            resumed: Some(resumed),
        }),
    }
}

pub fn down(peer: u8, conn: u64) -> Record {
    Record::Down {
        node: peer.into(),
        conn: ConnId(conn),
        key: key(peer),
        down: Down::Closed(Close::new(Close::ABNORMAL, "")),
    }
}

pub fn frame(peer: u8, conn: u64, frame: BrokerFrame) -> Record {
    Record::Frame {
        node: peer.into(),
        conn: ConnId(conn),
        key: key(peer),
        frame: Box::new(frame),
    }
}

pub fn event(peer: u8, conn: u64, kind: EventKind, about: u8, title: Option<String>) -> Record {
    let data = EventData {
        name: "n".into(),
        pubkey: pubkey(about),
        member_pubkey: None,
        role: None,
        groups: None,
        summary: None,
        profile: title.map(|title| PeerProfile {
            title: Some(title),
            ..PeerProfile::default()
        }),
        suites: None,
    };
    frame(peer, conn, BrokerFrame::Event(Event { kind, data }))
}

pub fn stream(peer: u8, conn: u64, epoch: u8, count: u64) -> Record {
    let epoch = Epoch([epoch; 16]);
    frame(peer, conn, BrokerFrame::Stream(StreamAt { epoch, count }))
}

pub fn ack(peer: u8, conn: u64, id: &str) -> Record {
    frame(
        peer,
        conn,
        BrokerFrame::Ack(Box::new(Ack {
            id: Some(id.into()),
            ..Ack::default()
        })),
    )
}

pub fn tagged(peer: u8, tag: u64) -> Record {
    Record::Tagged {
        key: key(peer),
        tag,
    }
}

pub fn push_frame(seq: u64, attempt: Option<u32>) -> BrokerFrame {
    BrokerFrame::Push(Box::new(Push {
        message_id: message_id(seq),
        mesh_id: MeshId::from("m"),
        sender_pubkey: pubkey(1),
        sender_member_pubkey: None,
        sender_member_id: None,
        sender_name: "n".into(),
        reply_to_id: None,
        priority: Priority::Now,
        nonce: Base64Body::encode(&[0; 24]),
        ciphertext: Base64Body::encode(b"sealed"),
        created_at: "2026-01-01T00:00:00.000Z".into(),
        client_message_id: ClientMessageId::from("a"),
        request_fingerprint: None,
        body_version: None,
        target_spec: None,
        seal: Some("x1".into()),
        attempt,
    }))
}

/// User 0 receives from user 1.
pub fn inbox_put(seq: u64, sender: u8, id: &str, body: &str) -> Record {
    Record::HostCommitted {
        node: 2,
        txn: TxnId(seq),
        ops: vec![host::Op::InboxPut(Box::new(host::InboxRow {
            seq: InboxSeq(seq),
            mesh: MeshId::from("m"),
            recipient: PeerKey::Session(pubkey(0)),
            session: None,
            sender: pubkey(sender),
            sender_name: "n".into(),
            client_message_id: ClientMessageId::from(id),
            message_id: message_id(seq),
            priority: Priority::Now,
            reply_to: None,
            seal: Some(Suite::X1),
            content: host::InboxContent::Opened {
                body: body.into(),
                meta: String::new(),
            },
            sent_at: String::new(),
            received_at: Wall(0),
            seen_at: None,
        }))],
    }
}

pub fn told(user: usize, stream: u64, id: Option<u64>, data: &str) -> Record {
    Record::Told {
        node: 2,
        user,
        subscriber: SubscriberId(stream),
        event: SseEvent {
            id: id.map(InboxSeq),
            event: "message",
            data: data.to_owned().into(),
        },
    }
}

pub fn told_event(user: usize, stream: u64, event: &'static str, data: String) -> Record {
    Record::Told {
        node: 2,
        user,
        subscriber: SubscriberId(stream),
        event: SseEvent {
            id: None,
            event,
            data: data.into(),
        },
    }
}

/// A row of host 2, with a fingerprint of ones and one of twos.
pub fn outbox_put(seq: u64) -> Record {
    let row = host::OutboxRow {
        seq: OutboxSeq(seq),
        mesh: MeshId::from("m"),
        sender: PeerKey::Session(pubkey(1)),
        session: None,
        client_message_id: ClientMessageId::from("a"),
        form_1: Fingerprint([1; 32]),
        form_2: Fingerprint([2; 32]),
        to: "n".into(),
        target: pubkey(2),
        priority: Priority::Now,
        reply_to: None,
        meta: String::new(),
        body: "b".into(),
        accepted_at: Wall(0),
        rungs: Vec::new(),
        state: host::OutboxState {
            status: host::OutboxStatus::Pending,
            attempts: 0,
            on_wire: false,
            form: None,
            next_attempt_at: None,
            last_error: None,
            broker_message_id: None,
            settled_at: None,
        },
    };
    Record::HostCommitted {
        node: 2,
        txn: TxnId(1),
        ops: vec![host::Op::OutboxPut(Box::new(row))],
    }
}

pub fn send_frame(fingerprint: Fingerprint) -> ClientFrame {
    ClientFrame::Send(Box::new(Send {
        id: Some("o1".into()),
        client_message_id: Some(ClientMessageId::from("a")),
        request_fingerprint: Some(fingerprint),
        target_spec: pubkey(2).to_string(),
        priority: Priority::Now,
        nonce: Base64Body::encode(&[0; 24]),
        ciphertext: Base64Body::encode(b"sealed"),
        mentions: Vec::new(),
        reply_to_id: None,
        body_version: None,
        first: false,
        seal: Some("x1".into()),
    }))
}

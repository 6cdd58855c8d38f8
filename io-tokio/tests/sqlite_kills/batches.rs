//! What the writer commits: each batch follows from its number alone, so that whoever knows the
//! number knows every row.

use bowline_core::crypto::SecretKey;
use bowline_core::id::{
    Fingerprint, InboxSeq, MeshId, MessageSeq, OutboxSeq, PeerKey, PubKey, ReceiptNumber, Role,
};
use bowline_core::store::host::{
    DirectoryRow, InboxContent, InboxRow, OutboxRow, OutboxState, OutboxStatus, SessionRow,
};
use bowline_core::store::mesh::{
    DedupeRow, MemberRole, MemberRow, MessageRow, PeerRow, ReceiptRow, Registration,
};
use bowline_core::store::registry::{MeshRow, Policy};
use bowline_core::store::{host, mesh, registry};
use bowline_core::time::Wall;
use bowline_core::wire::receipt::{Receipt, Rung};
use bowline_core::wire::{Base64Body, Priority, Suite};

/// Numbers of messages that belong to one batch.
const NUMBERS: u64 = 64;
/// One batch in so many is more than SQLite keeps in memory: it goes to the log before its commit.
const HEAVY_ONE_IN: u64 = 64;
const HEAVY_MESSAGES: u64 = 36;
const HEAVY_BYTES: usize = 64 * 1024;
const RECIPIENTS: u64 = 3;

pub fn of_registry(batch: u64) -> Vec<registry::Op> {
    (0..2)
        .map(|nth| {
            registry::Op::MeshPut(MeshRow {
                id: MeshId::from(format!("mesh-{batch}-{nth}")),
                slug: format!("slug-{batch}-{nth}"),
                owner_pubkey: key(batch),
                policy: Policy::Sealed,
                created_at: Wall(batch),
            })
        })
        .collect()
}

pub fn of_mesh(batch: u64) -> Vec<mesh::Op> {
    let mut ops = vec![
        mesh::Op::MemberPut(MemberRow {
            id: format!("member-{}", batch % 5).into(),
            pubkey: key(batch % 5),
            display_name: format!("since {batch}"),
            role: MemberRole::Member,
            joined_at: Wall(batch),
            revoked_at: None,
        }),
        mesh::Op::PeerPut(Box::new(PeerRow {
            key: peer(batch % 7),
            role: Role::Session,
            member: "member-1".into(),
            pubkey: key(batch % 7),
            present: batch.is_multiple_of(2),
            joined_at: Wall(1),
            last_seen: Wall(batch),
            registration: Registration::default(),
        })),
        mesh::Op::PeerForget(peer((batch + 3) % 7)),
    ];
    for nth in 0..messages(batch) {
        let seq = number(batch, nth);
        let row = message(batch, nth);
        ops.push(mesh::Op::DedupePut(DedupeRow {
            sender: row.sender.clone(),
            client_message_id: row.client_message_id.clone(),
            fingerprint: row.fingerprint,
            message_id: row.id.clone(),
            seq: row.seq,
            first_seen_at: row.created_at,
        }));
        ops.push(mesh::Op::DeliveryPut {
            seq: MessageSeq(seq),
            recipient: recipient(nth),
            claim: None,
        });
        ops.push(mesh::Op::MessagePut(Box::new(row)));
    }
    // The first of every earlier one settles, the others wait.
    if let Some(earlier) = batch.checked_sub(2).filter(|earlier| *earlier > 0) {
        let row = message(earlier, 0);
        ops.push(mesh::Op::DeliverySettled(Box::new(ReceiptRow {
            sender: row.sender,
            n: ReceiptNumber(batch),
            recipient: recipient(0),
            recipient_pubkey: key(100),
            seq: row.seq,
            message_id: row.id,
            client_message_id: row.client_message_id,
            rung: Rung::Delivered,
            reason: None,
            at: row.created_at,
        })));
    }
    ops
}

pub fn recipients() -> impl Iterator<Item = PeerKey> {
    (0..RECIPIENTS).map(recipient)
}

pub fn of_host(batch: u64) -> Vec<host::Op> {
    let mut ops = vec![
        host::Op::SessionPut(Box::new(session(batch))),
        host::Op::PeerPut(DirectoryRow {
            mesh: "mesh".into(),
            pubkey: key(batch % 9),
            member_pubkey: key(1),
            name: format!("peer at {batch}"),
            role: "session".into(),
            present: batch.is_multiple_of(2),
            last_seen: Wall(batch),
            suite: None,
        }),
    ];
    for nth in 0..messages(batch) {
        ops.push(host::Op::OutboxPut(Box::new(outgoing(batch, nth))));
        ops.push(host::Op::InboxPut(Box::new(incoming(batch, nth))));
    }
    if let Some(earlier) = batch.checked_sub(2).filter(|earlier| *earlier > 0) {
        ops.push(host::Op::OutboxState {
            seq: OutboxSeq(number(earlier, 0)),
            state: state(OutboxStatus::Done, Some(Wall(batch))),
        });
        ops.push(host::Op::InboxSeen {
            seq: InboxSeq(number(earlier, 1)),
            at: Wall(batch),
        });
        ops.push(host::Op::SeenOwed {
            seq: InboxSeq(number(earlier, 1)),
        });
        let settled = outgoing(earlier, 0);
        ops.push(host::Op::Receipt {
            mesh: settled.mesh,
            sender: settled.sender,
            receipt: Box::new(Receipt {
                n: batch,
                client_message_id: settled.client_message_id,
                recipient: settled.target,
                rung: Rung::Delivered,
                reason: None,
                at: format!("at {batch}"),
            }),
        });
    }
    if let Some(earlier) = batch.checked_sub(3).filter(|earlier| *earlier > 0) {
        ops.push(host::Op::SeenTold {
            seq: InboxSeq(number(earlier, 1)),
        });
    }
    ops
}

fn messages(batch: u64) -> u64 {
    if batch.is_multiple_of(HEAVY_ONE_IN) {
        HEAVY_MESSAGES
    } else {
        2 + batch % 3
    }
}

fn body_bytes(batch: u64) -> usize {
    if batch.is_multiple_of(HEAVY_ONE_IN) {
        HEAVY_BYTES
    } else {
        100 * (batch % 17) as usize
    }
}

fn number(batch: u64, nth: u64) -> u64 {
    batch * NUMBERS + nth
}

fn message(batch: u64, nth: u64) -> MessageRow {
    let seq = number(batch, nth);
    MessageRow {
        seq: MessageSeq(seq),
        id: format!("message-{seq}").into(),
        sender: peer(batch % 7),
        sender_pubkey: key(batch % 7),
        sender_member: "member-1".into(),
        sender_name: "sender".into(),
        target_spec: key(nth).to_string(),
        priority: Priority::Next,
        nonce: Base64Body::encode(&[nth as u8; 24]),
        ciphertext: Base64Body::encode(&vec![batch as u8; body_bytes(batch)]),
        client_message_id: format!("client-{seq}").into(),
        fingerprint: Fingerprint([batch as u8; 32]),
        reply_to: None,
        body_version: Some(1),
        seal: Some("x1".into()),
        created_at: Wall(batch),
    }
}

fn session(batch: u64) -> SessionRow {
    SessionRow {
        id: format!("session-{}", batch % 5).into(),
        mesh: "mesh".into(),
        name: format!("since {batch}"),
        role: Role::Session,
        secret: SecretKey::from_bytes([batch as u8; 32]),
        token_sha256: [batch as u8; 32],
        pid: None,
        cwd: "/".into(),
        groups: vec!["all".into()],
        opened_at: Wall(batch),
        ended_at: None,
    }
}

fn outgoing(batch: u64, nth: u64) -> OutboxRow {
    let seq = number(batch, nth);
    OutboxRow {
        seq: OutboxSeq(seq),
        mesh: "mesh".into(),
        sender: peer(1),
        session: Some("session-1".into()),
        client_message_id: format!("client-{seq}").into(),
        form_1: Fingerprint([1; 32]),
        form_2: Fingerprint([2; 32]),
        to: "somebody".into(),
        target: key(nth),
        priority: Priority::Now,
        reply_to: None,
        meta: String::new(),
        body: "o".repeat(100 * nth as usize),
        accepted_at: Wall(batch),
        state: state(OutboxStatus::Pending, None),
        rungs: Vec::new(),
    }
}

fn incoming(batch: u64, nth: u64) -> InboxRow {
    let seq = number(batch, nth);
    InboxRow {
        seq: InboxSeq(seq),
        mesh: "mesh".into(),
        recipient: peer(1),
        session: Some("session-1".into()),
        sender: key(nth),
        sender_name: "sender".into(),
        client_message_id: format!("client-{seq}").into(),
        message_id: format!("message-{seq}").into(),
        priority: Priority::Low,
        reply_to: None,
        seal: Some(Suite::X1),
        content: InboxContent::Opened {
            body: "i".repeat(body_bytes(batch)),
            meta: String::new(),
        },
        sent_at: "2026-01-01T00:00:00Z".into(),
        received_at: Wall(batch),
        seen_at: None,
    }
}

fn state(status: OutboxStatus, settled_at: Option<Wall>) -> OutboxState {
    OutboxState {
        status,
        attempts: 1,
        on_wire: true,
        form: None,
        next_attempt_at: None,
        last_error: None,
        broker_message_id: None,
        settled_at,
    }
}

fn recipient(nth: u64) -> PeerKey {
    peer(100 + nth % RECIPIENTS)
}

fn peer(of: u64) -> PeerKey {
    PeerKey::Session(key(of))
}

fn key(of: u64) -> PubKey {
    PubKey([of as u8; 32])
}

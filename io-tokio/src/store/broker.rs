//! The broker's database: one file, the registry and every mesh of this broker owners of their own.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use bowline_core::id::{ConnId, MeshId, MessageId, MessageSeq, PeerKey, ReceiptNumber};
use bowline_core::store::mesh::{
    ClaimRow, DedupeRow, Head, InviteRow, Load, Loaded, MemberRole, MemberRow, MessageName,
    MessageRow, Op, OwedSummary, PeerRow, ReceiptRow, Recovered, Standing,
};
use bowline_core::store::registry::{self, Policy};
use bowline_core::store::{Event, Owner};
use bowline_core::time::Wall;
use bowline_core::wire::receipt::Rung;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::BrokerStores;
use super::columns::{
    get_base64, get_count, get_id, get_id_if_any, get_json, get_named, get_parsed, get_peer,
    get_priority, get_role, get_wall, get_wall_if_any, json, peer, wall,
};
use super::desk::{Rows, int};
use super::driver::{Handle, OpenOwnerError};
use super::fault::Halt;
use super::file::{Kind, OpenError};
use super::hold::Hold;
use super::migrate::Migration;

/// A broker's data directory, held by this process until it is dropped, which commits what waits, and
/// blocks meanwhile.
pub struct BrokerDatabase {
    hold: Hold,
}

/// The file in the data directory.
pub const BROKER_DATABASE: &str = "broker.db";
pub const BROKER_LOCK: &str = "broker.lock";

/// The owner of the table of meshes. A mesh's id is a ULID: none is called so.
const REGISTRY: &str = "registry";

pub(super) const KIND: Kind = Kind {
    file: BROKER_DATABASE,
    lock: BROKER_LOCK,
    // "BwLb"
    application_id: 0x4277_4c62,
    migrations: &[
        Migration {
            name: "0001_foundation",
            sql: include_str!("../../../migrations/broker/sqlite/0001_foundation.sql"),
        },
        Migration {
            name: "0002_receipts",
            sql: include_str!("../../../migrations/broker/sqlite/0002_receipts.sql"),
        },
    ],
};

impl BrokerDatabase {
    /// Locks `dir`, and opens, checks and migrates the database in it. Blocks: for the start.
    ///
    /// `on_halt` is called at most once, from the writer's thread: the process has to end.
    ///
    /// # Errors
    /// If another process holds it, it is not ours, damaged, or of a newer program.
    pub fn open(
        dir: &Path,
        now: Wall,
        on_halt: impl FnOnce(Halt) + Send + 'static,
    ) -> Result<Self, OpenError> {
        let hold = Hold::take(dir, &KIND, now, on_halt)?;
        Ok(Self { hold })
    }
}

impl BrokerStores for BrokerDatabase {
    type Mesh = Handle<MeshRows>;
    type Registry = Handle<RegistryRows>;

    async fn open_mesh(
        &self,
        mesh: &MeshId,
        events: impl FnMut(Event<Loaded>) + Send + 'static,
    ) -> Result<(Handle<MeshRows>, Recovered), OpenOwnerError> {
        self.hold.driver.open(mesh.as_str(), events).await
    }

    async fn open_registry(
        &self,
        events: impl FnMut(Event<registry::Loaded>) + Send + 'static,
    ) -> Result<(Handle<RegistryRows>, registry::Recovered), OpenOwnerError> {
        self.hold.driver.open(REGISTRY, events).await
    }

    async fn finish(self) -> io::Result<()> {
        self.hold.finish().await
    }
}

/// The tables of one mesh.
pub struct MeshRows;

impl Rows for MeshRows {
    type Op = Op;
    type Load = Load;
    type Loaded = Loaded;
    type Recovered = Recovered;

    fn apply(db: &Connection, mesh: &str, op: &Op) -> rusqlite::Result<()> {
        match op {
            Op::MemberPut(row) => put_member(db, mesh, row),
            Op::InvitePut(row) => put_invite(db, mesh, row),
            Op::PeerPut(row) => put_peer(db, mesh, row),
            Op::PeerForget(key) => forget_peer(db, mesh, key),
            Op::MessagePut(row) => put_message(db, mesh, row),
            Op::DedupePut(row) => put_dedupe(db, mesh, row),
            Op::DeliveryPut {
                seq,
                recipient,
                claim,
            } => put_delivery(db, mesh, *seq, recipient, claim.as_ref()),
            Op::DeliveryClaimed {
                seq,
                recipient,
                claim,
            } => claim_delivery(db, mesh, *seq, recipient, claim),
            Op::DeliverySettled(row) => settle_delivery(db, mesh, row),
        }
    }

    fn load(db: &Connection, mesh: &str, what: &Load) -> rusqlite::Result<Loaded> {
        match what {
            Load::Dedupe {
                sender,
                client_message_id,
            } => db
                .prepare_cached(
                    "SELECT sender, client_message_id, fingerprint, message_id, seq, first_seen_at
                     FROM dedupe WHERE mesh = ?1 AND sender = ?2 AND client_message_id = ?3",
                )?
                .query_row(
                    params![mesh, peer(sender), client_message_id.as_str()],
                    get_dedupe,
                )
                .optional()
                .map(Loaded::Dedupe),
            Load::Backlog {
                recipient,
                after,
                limit,
            } => db
                .prepare_cached(&format!(
                    "SELECT {MESSAGE} FROM deliveries d
                     JOIN messages m ON m.mesh = d.mesh AND m.seq = d.seq
                     WHERE d.mesh = ?1 AND d.recipient = ?2 AND d.seq > ?3
                     ORDER BY d.seq LIMIT ?4"
                ))?
                .query_map(
                    params![mesh, peer(recipient), int(after.0), int(*limit as u64)],
                    get_message,
                )?
                .collect::<rusqlite::Result<_>>()
                .map(Loaded::Backlog),
            Load::Deliveries { recipient, ids } => ids
                .iter()
                .filter_map(|id| load_delivery(db, mesh, recipient, id).transpose())
                .collect::<rusqlite::Result<_>>()
                .map(Loaded::Deliveries),
            Load::Receipts {
                sender,
                after,
                limit,
            } => db
                .prepare_cached(&format!(
                    "SELECT {RECEIPT} FROM receipts
                     WHERE mesh = ?1 AND sender = ?2 AND n > ?3 ORDER BY n LIMIT ?4"
                ))?
                .query_map(
                    params![mesh, peer(sender), int(after.0), int(*limit as u64)],
                    get_receipt,
                )?
                .collect::<rusqlite::Result<_>>()
                .map(Loaded::Receipts),
            Load::Message { asker, name } => {
                load_message(db, mesh, asker, name).map(Loaded::Message)
            }
        }
    }

    fn recover(db: &Connection, mesh: &str, owner: Owner) -> rusqlite::Result<Recovered> {
        let last_seq = db
            .query_row(
                "SELECT last_seq FROM high_water WHERE mesh = ?1",
                [mesh],
                |row| get_count(row, 0),
            )
            .optional()?
            .unwrap_or(0);
        let members = db
            .prepare(
                "SELECT id, pubkey, display_name, role, joined_at, revoked_at
                 FROM members WHERE mesh = ?1 ORDER BY id",
            )?
            .query_map([mesh], get_member)?
            .collect::<rusqlite::Result<_>>()?;
        let invites = db
            .prepare(
                "SELECT id, uses_left, expires_at, revoked FROM invites
                 WHERE mesh = ?1 ORDER BY id",
            )?
            .query_map([mesh], get_invite)?
            .collect::<rusqlite::Result<_>>()?;
        let mut peers: Vec<PeerRow> = db
            .prepare(
                "SELECT peer, role, member, pubkey, present, joined_at, last_seen, registration
                 FROM peers WHERE mesh = ?1",
            )?
            .query_map([mesh], get_peer_row)?
            .collect::<rusqlite::Result<_>>()?;
        // The order of keys is the core's, not that of their names.
        peers.sort_by(|a, b| a.key.cmp(&b.key));
        let mut owed: Vec<OwedSummary> = db
            .prepare(
                "SELECT d.recipient, count(*), sum(m.weight), min(m.created_at) FROM deliveries d
                 JOIN messages m ON m.mesh = d.mesh AND m.seq = d.seq
                 WHERE d.mesh = ?1 GROUP BY d.recipient",
            )?
            .query_map([mesh], get_owed)?
            .collect::<rusqlite::Result<_>>()?;
        owed.sort_by(|a, b| a.recipient.cmp(&b.recipient));
        let mut receipts: Vec<(PeerKey, ReceiptNumber)> = db
            .prepare("SELECT sender, last_n FROM receipt_numbers WHERE mesh = ?1 AND sender != ?2")?
            .query_map([mesh, FORGOTTEN], |row| {
                Ok((get_peer(row, 0)?, ReceiptNumber(get_count(row, 1)?)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        receipts.sort();
        let receipts_floor = db
            .query_row(
                "SELECT last_n FROM receipt_numbers WHERE mesh = ?1 AND sender = ?2",
                [mesh, FORGOTTEN],
                |row| get_count(row, 0),
            )
            .optional()?
            .unwrap_or(0);
        Ok(Recovered {
            owner,
            last_seq: MessageSeq(last_seq),
            members,
            invites,
            peers,
            owed,
            receipts,
            receipts_floor: ReceiptNumber(receipts_floor),
        })
    }
}

/// The table of meshes.
pub struct RegistryRows;

impl Rows for RegistryRows {
    type Op = registry::Op;
    /// A registry reads nothing but what it recovers.
    type Load = Infallible;
    type Loaded = registry::Loaded;
    type Recovered = registry::Recovered;

    fn apply(db: &Connection, _: &str, op: &registry::Op) -> rusqlite::Result<()> {
        let registry::Op::MeshPut(row) = op;
        let registry::MeshRow {
            id,
            slug,
            owner_pubkey,
            policy,
            created_at,
        } = row;
        db.prepare_cached(
            "INSERT INTO meshes (id, slug, owner_pubkey, policy, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            id.as_str(),
            slug,
            owner_pubkey.to_string(),
            policy.as_str(),
            wall(*created_at),
        ])
        .map(drop)
    }

    fn load(_: &Connection, _: &str, what: &Infallible) -> rusqlite::Result<registry::Loaded> {
        match *what {}
    }

    fn recover(db: &Connection, _: &str, owner: Owner) -> rusqlite::Result<registry::Recovered> {
        let meshes = db
            .prepare("SELECT id, slug, owner_pubkey, policy, created_at FROM meshes ORDER BY id")?
            .query_map([], |row| {
                Ok(registry::MeshRow {
                    id: get_id(row, 0)?,
                    slug: row.get(1)?,
                    owner_pubkey: get_parsed(row, 2)?,
                    policy: get_named(row, 3, [Policy::Sealed, Policy::Open], Policy::as_str)?,
                    created_at: get_wall(row, 4)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(registry::Recovered { owner, meshes })
    }
}

fn put_member(db: &Connection, mesh: &str, row: &MemberRow) -> rusqlite::Result<()> {
    let MemberRow {
        id,
        pubkey,
        display_name,
        role,
        joined_at,
        revoked_at,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO members
             (mesh, id, pubkey, display_name, role, joined_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        mesh,
        id.as_str(),
        pubkey.to_string(),
        display_name,
        role_name(*role),
        wall(*joined_at),
        revoked_at.map(wall),
    ])
    .map(drop)
}

fn get_member(row: &Row<'_>) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        id: get_id(row, 0)?,
        pubkey: get_parsed(row, 1)?,
        display_name: row.get(2)?,
        role: get_named(row, 3, [MemberRole::Admin, MemberRole::Member], role_name)?,
        joined_at: get_wall(row, 4)?,
        revoked_at: get_wall_if_any(row, 5)?,
    })
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Admin => "admin",
        MemberRole::Member => "member",
    }
}

fn put_invite(db: &Connection, mesh: &str, row: &InviteRow) -> rusqlite::Result<()> {
    let InviteRow {
        id,
        uses_left,
        expires_at,
        revoked,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO invites (mesh, id, uses_left, expires_at, revoked)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        mesh,
        id.as_str(),
        uses_left,
        wall(*expires_at),
        revoked
    ])
    .map(drop)
}

fn get_invite(row: &Row<'_>) -> rusqlite::Result<InviteRow> {
    Ok(InviteRow {
        id: get_id(row, 0)?,
        uses_left: row.get(1)?,
        expires_at: get_wall(row, 2)?,
        revoked: row.get(3)?,
    })
}

fn put_peer(db: &Connection, mesh: &str, row: &PeerRow) -> rusqlite::Result<()> {
    let PeerRow {
        key,
        role,
        member,
        pubkey,
        present,
        joined_at,
        last_seen,
        registration,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO peers
             (mesh, peer, role, member, pubkey, present, joined_at, last_seen, registration)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        mesh,
        peer(key),
        role.as_str(),
        member.as_str(),
        pubkey.to_string(),
        present,
        wall(*joined_at),
        wall(*last_seen),
        json(registration),
    ])
    .map(drop)
}

fn get_peer_row(row: &Row<'_>) -> rusqlite::Result<PeerRow> {
    Ok(PeerRow {
        key: get_peer(row, 0)?,
        role: get_role(row, 1)?,
        member: get_id(row, 2)?,
        pubkey: get_parsed(row, 3)?,
        present: row.get(4)?,
        joined_at: get_wall(row, 5)?,
        last_seen: get_wall(row, 6)?,
        registration: get_json(row, 7)?,
    })
}

/// The numbers of its receipts are nobody's again: the highest of all who were forgotten stays.
fn forget_peer(db: &Connection, mesh: &str, key: &PeerKey) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM peers WHERE mesh = ?1 AND peer = ?2")?
        .execute(params![mesh, peer(key)])?;
    db.prepare_cached(
        "INSERT INTO receipt_numbers (mesh, sender, last_n)
         SELECT mesh, ?3, last_n FROM receipt_numbers WHERE mesh = ?1 AND sender = ?2
         ON CONFLICT DO UPDATE SET last_n = max(last_n, excluded.last_n)",
    )?
    .execute(params![mesh, peer(key), FORGOTTEN])?;
    db.prepare_cached("DELETE FROM receipt_numbers WHERE mesh = ?1 AND sender = ?2")?
        .execute(params![mesh, peer(key)])
        .map(drop)
}

/// The sender, in `receipt_numbers`, that stands for all who were forgotten.
const FORGOTTEN: &str = "forgotten";

fn put_message(db: &Connection, mesh: &str, row: &MessageRow) -> rusqlite::Result<()> {
    let MessageRow {
        seq,
        id,
        sender,
        sender_pubkey,
        sender_member,
        sender_name,
        target_spec,
        priority,
        nonce,
        ciphertext,
        client_message_id,
        fingerprint,
        reply_to,
        body_version,
        seal,
        created_at,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO messages
             (mesh, seq, id, sender, sender_pubkey, sender_member, sender_name, target_spec,
              priority, client_message_id, fingerprint, reply_to, body_version, seal, created_at,
              weight, nonce, ciphertext)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?
    .execute(params![
        mesh,
        int(seq.0),
        id.as_str(),
        peer(sender),
        sender_pubkey.to_string(),
        sender_member.as_str(),
        sender_name,
        target_spec,
        priority.as_str(),
        client_message_id.as_str(),
        fingerprint.to_string(),
        reply_to.as_ref().map(|id| id.as_str()),
        body_version,
        seal,
        wall(*created_at),
        int(row.weight() as u64),
        nonce.as_str(),
        ciphertext.as_str(),
    ])?;
    db.prepare_cached(
        "INSERT INTO high_water (mesh, last_seq) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET last_seq = max(last_seq, excluded.last_seq)",
    )?
    .execute(params![mesh, int(seq.0)])
    .map(drop)
}

const MESSAGE: &str = "m.seq, m.id, m.sender, m.sender_pubkey, m.sender_member, m.sender_name, \
     m.target_spec, m.priority, m.client_message_id, m.fingerprint, m.reply_to, m.body_version, \
     m.seal, m.created_at, m.nonce, m.ciphertext";

fn get_message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        seq: MessageSeq(get_count(row, 0)?),
        id: get_id(row, 1)?,
        sender: get_peer(row, 2)?,
        sender_pubkey: get_parsed(row, 3)?,
        sender_member: get_id(row, 4)?,
        sender_name: row.get(5)?,
        target_spec: row.get(6)?,
        priority: get_priority(row, 7)?,
        client_message_id: get_id(row, 8)?,
        fingerprint: get_parsed(row, 9)?,
        reply_to: get_id_if_any(row, 10)?,
        body_version: row.get(11)?,
        seal: row.get(12)?,
        created_at: get_wall(row, 13)?,
        nonce: get_base64(row, 14)?,
        ciphertext: get_base64(row, 15)?,
    })
}

fn put_dedupe(db: &Connection, mesh: &str, row: &DedupeRow) -> rusqlite::Result<()> {
    let DedupeRow {
        sender,
        client_message_id,
        fingerprint,
        message_id,
        seq,
        first_seen_at,
    } = row;
    db.prepare_cached(
        "INSERT INTO dedupe
             (mesh, sender, client_message_id, fingerprint, message_id, seq, first_seen_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        mesh,
        peer(sender),
        client_message_id.as_str(),
        fingerprint.to_string(),
        message_id.as_str(),
        int(seq.0),
        wall(*first_seen_at),
    ])
    .map(drop)
}

fn get_dedupe(row: &Row<'_>) -> rusqlite::Result<DedupeRow> {
    Ok(DedupeRow {
        sender: get_peer(row, 0)?,
        client_message_id: get_id(row, 1)?,
        fingerprint: get_parsed(row, 2)?,
        message_id: get_id(row, 3)?,
        seq: MessageSeq(get_count(row, 4)?),
        first_seen_at: get_wall(row, 5)?,
    })
}

fn put_delivery(
    db: &Connection,
    mesh: &str,
    seq: MessageSeq,
    recipient: &PeerKey,
    claim: Option<&ClaimRow>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO deliveries
             (mesh, recipient, seq, claim_id, claimed_at, claim_expires_at, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        mesh,
        peer(recipient),
        int(seq.0),
        claim.map(|claim| int(claim.id.0)),
        claim.map(|claim| wall(claim.claimed_at)),
        claim.map(|claim| wall(claim.expires_at)),
        claim.map_or(0, |claim| claim.attempts),
    ])
    .map(drop)
}

fn claim_delivery(
    db: &Connection,
    mesh: &str,
    seq: MessageSeq,
    recipient: &PeerKey,
    claim: &ClaimRow,
) -> rusqlite::Result<()> {
    let ClaimRow {
        id,
        attempts,
        claimed_at,
        expires_at,
    } = claim;
    db.prepare_cached(
        "UPDATE deliveries
         SET claim_id = ?4, claimed_at = ?5, claim_expires_at = ?6, attempts = ?7
         WHERE mesh = ?1 AND recipient = ?2 AND seq = ?3",
    )?
    .execute(params![
        mesh,
        peer(recipient),
        int(seq.0),
        int(id.0),
        wall(*claimed_at),
        wall(*expires_at),
        attempts,
    ])
    .map(drop)
}

const CLAIM: &str = "d.claim_id, d.claimed_at, d.claim_expires_at, d.attempts";

/// [`CLAIM`] from `column` on.
fn get_claim(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ClaimRow>> {
    let Some(claimed_at) = get_wall_if_any(row, column + 1)? else {
        return Ok(None);
    };
    Ok(Some(ClaimRow {
        id: ConnId(get_count(row, column)?),
        attempts: row.get(column + 3)?,
        claimed_at,
        expires_at: get_wall(row, column + 2)?,
    }))
}

fn settle_delivery(db: &Connection, mesh: &str, row: &ReceiptRow) -> rusqlite::Result<()> {
    let ReceiptRow {
        sender,
        n,
        recipient,
        recipient_pubkey,
        seq,
        message_id,
        client_message_id,
        rung,
        reason,
        at,
    } = row;
    db.prepare_cached("DELETE FROM deliveries WHERE mesh = ?1 AND recipient = ?2 AND seq = ?3")?
        .execute(params![mesh, peer(recipient), int(seq.0)])?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO receipts
             (mesh, sender, n, recipient, recipient_pubkey, seq, message_id, client_message_id,
              rung, reason, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        mesh,
        peer(sender),
        int(n.0),
        peer(recipient),
        recipient_pubkey.to_string(),
        int(seq.0),
        message_id.as_str(),
        client_message_id.as_str(),
        rung.as_str(),
        reason,
        wall(*at),
    ])?;
    db.prepare_cached(
        "INSERT INTO receipt_numbers (mesh, sender, last_n) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET last_n = max(last_n, excluded.last_n)",
    )?
    .execute(params![mesh, peer(sender), int(n.0)])
    .map(drop)
}

const RECEIPT: &str = "sender, n, recipient, recipient_pubkey, seq, message_id, client_message_id, \
     rung, reason, at";

fn get_receipt(row: &Row<'_>) -> rusqlite::Result<ReceiptRow> {
    Ok(ReceiptRow {
        sender: get_peer(row, 0)?,
        n: ReceiptNumber(get_count(row, 1)?),
        recipient: get_peer(row, 2)?,
        recipient_pubkey: get_parsed(row, 3)?,
        seq: MessageSeq(get_count(row, 4)?),
        message_id: get_id(row, 5)?,
        client_message_id: get_id(row, 6)?,
        rung: get_named(row, 7, Rung::ALL, Rung::as_str)?,
        reason: row.get(8)?,
        at: get_wall(row, 9)?,
    })
}

const HEAD: &str = "m.seq, m.id, m.sender, m.target_spec, m.priority, m.client_message_id, m.seal, \
     m.created_at, m.weight";

fn get_head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        seq: MessageSeq(get_count(row, 0)?),
        id: get_id(row, 1)?,
        sender: get_peer(row, 2)?,
        target_spec: row.get(3)?,
        priority: get_priority(row, 4)?,
        client_message_id: get_id(row, 5)?,
        seal: row.get(6)?,
        created_at: get_wall(row, 7)?,
        weight: usize::try_from(get_count(row, 8)?).unwrap_or(usize::MAX),
    })
}

fn load_delivery(
    db: &Connection,
    mesh: &str,
    recipient: &PeerKey,
    id: &MessageId,
) -> rusqlite::Result<Option<(Head, Standing)>> {
    let head = db
        .prepare_cached(&format!(
            "SELECT {HEAD} FROM messages m WHERE m.mesh = ?1 AND m.id = ?2"
        ))?
        .query_row(params![mesh, id.as_str()], get_head)
        .optional()?;
    let Some(head) = head else { return Ok(None) };
    let standings = load_standings(db, mesh, head.seq)?;
    let own = standings.into_iter().find(|(key, _)| key == recipient);
    Ok(own.map(|(_, standing)| (head, standing)))
}

fn load_message(
    db: &Connection,
    mesh: &str,
    asker: &PeerKey,
    name: &MessageName,
) -> rusqlite::Result<Vec<(Head, Vec<(PeerKey, Standing)>)>> {
    let heads: Vec<Head> = match name {
        MessageName::Own(id) => db
            .prepare_cached(&format!(
                "SELECT {HEAD} FROM dedupe k JOIN messages m ON m.mesh = k.mesh AND m.seq = k.seq
                 WHERE k.mesh = ?1 AND k.sender = ?2 AND k.client_message_id = ?3"
            ))?
            .query_map(params![mesh, peer(asker), id.as_str()], get_head)?
            .collect::<rusqlite::Result<_>>()?,
        MessageName::Prefix(prefix) => db
            .prepare_cached(&format!(
                "SELECT {HEAD} FROM messages m
                 WHERE m.mesh = ?1 AND m.id >= ?3 AND m.id < ?3 || '{{' AND (m.sender = ?2
                     OR EXISTS (SELECT 1 FROM deliveries d
                         WHERE d.mesh = m.mesh AND d.recipient = ?2 AND d.seq = m.seq)
                     OR EXISTS (SELECT 1 FROM receipts r
                         WHERE r.mesh = m.mesh AND r.recipient = ?2 AND r.seq = m.seq))
                 ORDER BY m.seq LIMIT 2"
            ))?
            .query_map(params![mesh, peer(asker), prefix], get_head)?
            .collect::<rusqlite::Result<_>>()?,
    };
    heads
        .into_iter()
        .map(|head| {
            let standings = load_standings(db, mesh, head.seq)?;
            Ok((head, standings))
        })
        .collect()
}

/// Of all recipients, in the order of their keys.
fn load_standings(
    db: &Connection,
    mesh: &str,
    seq: MessageSeq,
) -> rusqlite::Result<Vec<(PeerKey, Standing)>> {
    let owed = db
        .prepare_cached(&format!(
            "SELECT d.recipient, {CLAIM} FROM deliveries d WHERE d.mesh = ?1 AND d.seq = ?2"
        ))?
        .query_map(params![mesh, int(seq.0)], |row| {
            Ok((get_peer(row, 0)?, Standing::Owed(get_claim(row, 1)?)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let settled = db
        .prepare_cached(&format!(
            "SELECT {RECEIPT} FROM receipts WHERE mesh = ?1 AND seq = ?2"
        ))?
        .query_map(params![mesh, int(seq.0)], |row| {
            let receipt = get_receipt(row)?;
            Ok((receipt.recipient.clone(), Standing::Settled(receipt)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut all = [owed, settled].concat();
    // The order of keys is the core's, not that of their names.
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

fn get_owed(row: &Row<'_>) -> rusqlite::Result<OwedSummary> {
    Ok(OwedSummary {
        recipient: get_peer(row, 0)?,
        messages: usize::try_from(get_count(row, 1)?).unwrap_or(usize::MAX),
        bytes: usize::try_from(get_count(row, 2)?).unwrap_or(usize::MAX),
        oldest: get_wall(row, 3)?,
    })
}

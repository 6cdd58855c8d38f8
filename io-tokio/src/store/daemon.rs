//! The daemon's database: one file, one owner.

use std::io;
use std::path::Path;

use bowline_core::crypto::fingerprint::Form;
use bowline_core::id::{InboxSeq, MeshId, OutboxSeq, PeerKey};
use bowline_core::store::host::{
    DirectoryRow, InboxContent, InboxRow, Load, Loaded, MeshRow, MessageName, Op, OutboxRow,
    OutboxState, OutboxStatus, Recovered, RungReached, Scope, SessionRow,
};
use bowline_core::store::{Event, Owner};
use bowline_core::time::Wall;
use bowline_core::wire::Suite;
use bowline_core::wire::receipt::{Receipt, Rung};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::HostStores;
use super::columns::{
    get_base64, get_count, get_id, get_id_if_any, get_json, get_named, get_parsed, get_peer,
    get_priority, get_role, get_secret, get_secret_if_any, get_suite_if_any, get_wall,
    get_wall_if_any, json, peer, secret, wall,
};
use super::desk::{Rows, int};
use super::driver::{Handle, OpenOwnerError};
use super::fault::Halt;
use super::file::{Kind, OpenError};
use super::hold::Hold;
use super::migrate::Migration;

/// A daemon's data directory, held by this process until it is dropped, which commits what waits, and
/// blocks meanwhile.
pub struct DaemonDatabase {
    hold: Hold,
}

/// The file in the data directory.
pub const DAEMON_DATABASE: &str = "daemon.db";
pub const DAEMON_LOCK: &str = "daemon.lock";

const OWNER: &str = "host";

pub(super) const KIND: Kind = Kind {
    file: DAEMON_DATABASE,
    lock: DAEMON_LOCK,
    // "BwLd"
    application_id: 0x4277_4c64,
    migrations: &[
        Migration {
            name: "0001_foundation",
            sql: include_str!("../../../migrations/daemon/0001_foundation.sql"),
        },
        Migration {
            name: "0002_receipts",
            sql: include_str!("../../../migrations/daemon/0002_receipts.sql"),
        },
        Migration {
            name: "0003_suites",
            sql: include_str!("../../../migrations/daemon/0003_suites.sql"),
        },
        Migration {
            name: "0004_fingerprint_form",
            sql: include_str!("../../../migrations/daemon/0004_fingerprint_form.sql"),
        },
    ],
};

impl DaemonDatabase {
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

impl HostStores for DaemonDatabase {
    type Host = Handle<HostRows>;

    async fn open_host(
        &self,
        events: impl FnMut(Event<Loaded>) + Send + 'static,
    ) -> Result<(Handle<HostRows>, Recovered), OpenOwnerError> {
        self.hold.driver.open(OWNER, events).await
    }

    async fn finish(self) -> io::Result<()> {
        self.hold.finish().await
    }
}

/// The tables of a host.
pub struct HostRows;

impl Rows for HostRows {
    type Op = Op;
    type Load = Load;
    type Loaded = Loaded;
    type Recovered = Recovered;

    fn apply(db: &Connection, _: &str, op: &Op) -> rusqlite::Result<()> {
        match op {
            Op::MeshPut(row) => put_mesh(db, row),
            Op::MeshDelete(id) => db
                .prepare_cached("DELETE FROM meshes WHERE id = ?1")?
                .execute([id.as_str()])
                .map(drop),
            Op::SessionPut(row) => put_session(db, row),
            Op::PeerPut(row) => put_directory(db, row),
            Op::PeerForget { mesh, pubkey } => db
                .prepare_cached("DELETE FROM directory WHERE mesh = ?1 AND pubkey = ?2")?
                .execute(params![mesh.as_str(), pubkey.to_string()])
                .map(drop),
            Op::OutboxPut(row) => put_outbox(db, row),
            Op::OutboxState { seq, state } => set_outbox_state(db, *seq, state),
            Op::InboxPut(row) => put_inbox(db, row),
            Op::InboxSeen { seq, at } => db
                .prepare_cached("UPDATE inbox SET seen_at = ?2 WHERE seq = ?1 AND seen_at IS NULL")?
                .execute(params![int(seq.0), wall(*at)])
                .map(drop),
            Op::Receipt {
                mesh,
                sender,
                receipt,
            } => put_receipt(db, mesh, sender, receipt),
            Op::SeenOwed { seq } => db
                .prepare_cached(
                    "INSERT OR IGNORE INTO seen_owed (mesh, recipient, seq, message_id)
                     SELECT mesh, recipient, seq, message_id FROM inbox WHERE seq = ?1",
                )?
                .execute([int(seq.0)])
                .map(drop),
            Op::SeenTold { seq } => db
                .prepare_cached("DELETE FROM seen_owed WHERE seq = ?1")?
                .execute([int(seq.0)])
                .map(drop),
        }
    }

    fn load(db: &Connection, _: &str, what: &Load) -> rusqlite::Result<Loaded> {
        match what {
            Load::OutboxDedupe {
                mesh,
                sender,
                client_message_id,
            } => db
                .prepare_cached(&format!(
                    "SELECT {OUTBOX} FROM outbox
                     WHERE mesh = ?1 AND sender = ?2 AND client_message_id = ?3
                     ORDER BY seq DESC LIMIT 1"
                ))?
                .query_row(
                    params![mesh.as_str(), peer(sender), client_message_id.as_str()],
                    get_outbox,
                )
                .optional()?
                .map(|row| with_rungs(db, row))
                .transpose()
                .map(|row| Loaded::OutboxDedupe(row.map(Box::new))),
            Load::InboxDedupe {
                mesh,
                recipient,
                sender,
                client_message_id,
            } => db
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM inbox
                     WHERE mesh = ?1 AND recipient = ?2 AND sender = ?3
                       AND client_message_id = ?4)",
                )?
                .query_row(
                    params![
                        mesh.as_str(),
                        peer(recipient),
                        sender.to_string(),
                        client_message_id.as_str()
                    ],
                    |row| row.get(0),
                )
                .map(Loaded::InboxDedupe),
            Load::Inbox { scope, filter } => {
                let mut query = Query::new(scope, "recipient");
                query.and("seq > ?", [Value::Integer(int(filter.after.0))]);
                if filter.unread {
                    query.and("seen_at IS NULL", []);
                }
                if let Some(from) = &filter.from {
                    query.and("sender = ?", [Value::Text(from.to_string())]);
                }
                query
                    .rows(db, INBOX, "inbox", filter.limit, get_inbox)
                    .map(Loaded::Inbox)
            }
            Load::Outbox { scope, filter } => {
                let mut query = Query::new(scope, "sender");
                query.and("seq > ?", [Value::Integer(int(filter.after.0))]);
                if let Some(status) = filter.status {
                    query.and("status = ?", [Value::Text(status.as_str().into())]);
                }
                if let Some(id) = &filter.id {
                    query.and("client_message_id = ?", [Value::Text(id.as_str().into())]);
                }
                outbox_rows(db, query, filter.limit).map(Loaded::Outbox)
            }
            Load::Message {
                sent_by,
                received_by,
                id,
                limit,
            } => {
                let mut sent = Query::new(sent_by, "sender");
                sent.and_named(&["client_message_id", "broker_message_id"], id);
                let mut received = Query::new(received_by, "recipient");
                received.and_named(&["message_id"], id);
                Ok(Loaded::Message {
                    sent: outbox_rows(db, sent, *limit)?,
                    received: received.rows(db, INBOX, "inbox", *limit, get_inbox)?,
                })
            }
            Load::SeenOwed {
                mesh,
                recipient,
                limit,
            } => db
                .prepare_cached(
                    "SELECT seq, message_id FROM seen_owed
                     WHERE mesh = ?1 AND recipient = ?2 ORDER BY seq LIMIT ?3",
                )?
                .query_map(
                    params![mesh.as_str(), peer(recipient), int(*limit as u64)],
                    |row| Ok((InboxSeq(get_count(row, 0)?), get_id(row, 1)?)),
                )?
                .collect::<rusqlite::Result<_>>()
                .map(Loaded::SeenOwed),
        }
    }

    fn recover(db: &Connection, _: &str, owner: Owner) -> rusqlite::Result<Recovered> {
        let last_seq = |of: &str| {
            db.query_row(
                "SELECT last_seq FROM high_water WHERE box = ?1",
                [of],
                |row| get_count(row, 0),
            )
        };
        let bytes = |of: &str| {
            db.query_row(
                &format!("SELECT coalesce(sum(weight), 0) FROM {of}"),
                [],
                |row| get_count(row, 0),
            )
        };
        Ok(Recovered {
            owner,
            last_outbox_seq: OutboxSeq(last_seq("outbox")?),
            last_inbox_seq: InboxSeq(last_seq("inbox")?),
            meshes: all(
                db,
                "SELECT id, slug, broker_url, policy, display_name, member_id, member_secret,
                        owner_pubkey, owner_secret, mesh_root_key, joined_at
                 FROM meshes ORDER BY id",
                get_mesh,
            )?,
            sessions: all(
                db,
                "SELECT id, mesh, name, role, secret, token_sha256, pid, cwd, groups, opened_at,
                        ended_at
                 FROM sessions ORDER BY mesh, id",
                get_session,
            )?,
            directory: all(
                db,
                "SELECT mesh, pubkey, member_pubkey, name, role, present, last_seen, suite
                 FROM directory ORDER BY mesh, pubkey",
                get_directory,
            )?,
            outbox: all(
                db,
                &format!(
                    "SELECT {OUTBOX} FROM outbox WHERE status IN ('pending', 'inflight')
                     ORDER BY seq"
                ),
                get_outbox,
            )?
            .into_iter()
            .map(|row| with_rungs(db, row))
            .collect::<rusqlite::Result<_>>()?,
            receipts: in_order(all(
                db,
                "SELECT mesh, sender, last_n FROM receipts",
                |row| Ok((get_id(row, 0)?, get_peer(row, 1)?, get_count(row, 2)?)),
            )?),
            seen_owed: in_order(all(
                db,
                "SELECT DISTINCT mesh, recipient FROM seen_owed",
                |row| Ok((get_id(row, 0)?, get_peer(row, 1)?)),
            )?),
            outbox_bytes: bytes("outbox")?,
            inbox_bytes: bytes("inbox")?,
        })
    }
}

/// A page of a box: whose rows, which of them, from where.
struct Query {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Query {
    /// `owner` is the column that says whose row it is.
    fn new(scope: &Scope, owner: &str) -> Self {
        let mut query = Self {
            conditions: Vec::new(),
            values: Vec::new(),
        };
        match scope {
            Scope::Everything => {}
            Scope::Peers { mesh, peers } => {
                let marks = vec!["?"; peers.len()].join(", ");
                query
                    .conditions
                    .push(format!("mesh = ? AND {owner} IN ({marks})"));
                query.values.push(Value::Text(mesh.as_str().into()));
                query
                    .values
                    .extend(peers.iter().map(|key| Value::Text(peer(key))));
            }
            Scope::Members(pairs) => {
                let either = vec![format!("(mesh = ? AND {owner} = ?)"); pairs.len()];
                // None of nothing: no rows.
                let either = if either.is_empty() {
                    "FALSE".into()
                } else {
                    either.join(" OR ")
                };
                query.conditions.push(format!("({either})"));
                for (mesh, key) in pairs {
                    query.values.push(Value::Text(mesh.as_str().into()));
                    query.values.push(Value::Text(peer(key)));
                }
            }
        }
        query
    }

    fn and<const N: usize>(&mut self, condition: &str, values: [Value; N]) {
        self.conditions.push(condition.into());
        self.values.extend(values);
    }

    /// Where one of these columns is what somebody calls a message.
    fn and_named(&mut self, columns: &[&str], name: &MessageName) {
        let either: Vec<String> = columns
            .iter()
            .map(|column| {
                self.values.push(Value::Text(name.text.clone()));
                if !name.or_prefix {
                    return format!("{column} = ?");
                }
                // Of all that begins so, this comes last.
                let last = format!("{}{}", name.text, char::MAX);
                self.values.push(Value::Text(last));
                format!("({column} >= ? AND {column} < ?)")
            })
            .collect();
        self.conditions.push(format!("({})", either.join(" OR ")));
    }

    fn rows<T>(
        mut self,
        db: &Connection,
        columns: &str,
        table: &str,
        limit: usize,
        get: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let conditions = self.conditions.join(" AND ");
        let sql = format!("SELECT {columns} FROM {table} WHERE {conditions} ORDER BY seq LIMIT ?");
        self.values.push(Value::Integer(int(limit as u64)));
        db.prepare_cached(&sql)?
            .query_map(params_from_iter(self.values), get)?
            .collect()
    }
}

fn outbox_rows(db: &Connection, query: Query, limit: usize) -> rusqlite::Result<Vec<OutboxRow>> {
    query
        .rows(db, OUTBOX, "outbox", limit, get_outbox)?
        .into_iter()
        .map(|row| with_rungs(db, row))
        .collect()
}

fn with_rungs(db: &Connection, mut row: OutboxRow) -> rusqlite::Result<OutboxRow> {
    row.rungs = db
        .prepare_cached("SELECT recipient, rung, at, reason FROM rungs WHERE seq = ?1")?
        .query_map([int(row.seq.0)], get_rung)?
        .collect::<rusqlite::Result<_>>()?;
    row.rungs.sort();
    Ok(row)
}

/// As the core orders them: a peer's text is in another order than the peer.
fn in_order<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

fn all<T>(
    db: &Connection,
    sql: &str,
    get: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(sql)?.query_map([], get)?.collect()
}

fn put_mesh(db: &Connection, row: &MeshRow) -> rusqlite::Result<()> {
    let MeshRow {
        id,
        slug,
        broker_url,
        policy,
        display_name,
        member_id,
        member_secret,
        owner_pubkey,
        owner_secret,
        mesh_root_key,
        joined_at,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO meshes
             (id, slug, broker_url, policy, display_name, member_id, member_secret, owner_pubkey,
              owner_secret, mesh_root_key, joined_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        id.as_str(),
        slug,
        broker_url,
        policy,
        display_name,
        member_id.as_str(),
        secret(member_secret),
        owner_pubkey.to_string(),
        owner_secret.as_ref().map(secret),
        mesh_root_key,
        wall(*joined_at),
    ])
    .map(drop)
}

fn get_mesh(row: &Row<'_>) -> rusqlite::Result<MeshRow> {
    Ok(MeshRow {
        id: get_id(row, 0)?,
        slug: row.get(1)?,
        broker_url: row.get(2)?,
        policy: row.get(3)?,
        display_name: row.get(4)?,
        member_id: get_id(row, 5)?,
        member_secret: get_secret(row, 6)?,
        owner_pubkey: get_parsed(row, 7)?,
        owner_secret: get_secret_if_any(row, 8)?,
        mesh_root_key: row.get(9)?,
        joined_at: get_wall(row, 10)?,
    })
}

fn put_session(db: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    let SessionRow {
        id,
        mesh,
        name,
        role,
        secret: key,
        token_sha256,
        pid,
        cwd,
        groups,
        opened_at,
        ended_at,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO sessions
             (id, mesh, name, role, secret, token_sha256, pid, cwd, groups, opened_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        id.as_str(),
        mesh.as_str(),
        name,
        role.as_str(),
        secret(key),
        token_sha256.as_slice(),
        pid,
        cwd,
        json(groups),
        wall(*opened_at),
        ended_at.map(wall),
    ])
    .map(drop)
}

fn get_session(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: get_id(row, 0)?,
        mesh: get_id(row, 1)?,
        name: row.get(2)?,
        role: get_role(row, 3)?,
        secret: get_secret(row, 4)?,
        token_sha256: row.get(5)?,
        pid: row.get(6)?,
        cwd: row.get(7)?,
        groups: get_json(row, 8)?,
        opened_at: get_wall(row, 9)?,
        ended_at: get_wall_if_any(row, 10)?,
    })
}

fn put_directory(db: &Connection, row: &DirectoryRow) -> rusqlite::Result<()> {
    let DirectoryRow {
        mesh,
        pubkey,
        member_pubkey,
        name,
        role,
        present,
        last_seen,
        suite,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO directory
             (mesh, pubkey, member_pubkey, name, role, present, last_seen, suite)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        mesh.as_str(),
        pubkey.to_string(),
        member_pubkey.to_string(),
        name,
        role,
        present,
        wall(*last_seen),
        suite.map(Suite::as_str),
    ])
    .map(drop)
}

fn get_directory(row: &Row<'_>) -> rusqlite::Result<DirectoryRow> {
    Ok(DirectoryRow {
        mesh: get_id(row, 0)?,
        pubkey: get_parsed(row, 1)?,
        member_pubkey: get_parsed(row, 2)?,
        name: row.get(3)?,
        role: row.get(4)?,
        present: row.get(5)?,
        last_seen: get_wall(row, 6)?,
        suite: get_suite_if_any(row, 7)?,
    })
}

fn put_outbox(db: &Connection, row: &OutboxRow) -> rusqlite::Result<()> {
    let OutboxRow {
        seq,
        mesh,
        sender,
        session,
        client_message_id,
        form_1,
        form_2,
        to,
        target,
        priority,
        reply_to,
        meta,
        body,
        accepted_at,
        state,
        rungs: _,
    } = row;
    db.prepare_cached(
        "INSERT OR REPLACE INTO outbox
             (seq, mesh, sender, session, client_message_id, form_1, form_2, \"to\", target,
              priority, reply_to, accepted_at, status, attempts, on_wire, weight, meta, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, '', 0, 0, ?13, ?14, ?15)",
    )?
    .execute(params![
        int(seq.0),
        mesh.as_str(),
        peer(sender),
        session.as_ref().map(|id| id.as_str()),
        client_message_id.as_str(),
        form_1.to_string(),
        form_2.to_string(),
        to,
        target.to_string(),
        priority.as_str(),
        reply_to.as_ref().map(|id| id.as_str()),
        wall(*accepted_at),
        int(row.weight() as u64),
        meta,
        body,
    ])?;
    set_outbox_state(db, *seq, state)?;
    raise_high_water(db, "outbox", seq.0)
}

fn set_outbox_state(db: &Connection, seq: OutboxSeq, state: &OutboxState) -> rusqlite::Result<()> {
    let OutboxState {
        status,
        attempts,
        on_wire,
        form,
        next_attempt_at,
        last_error,
        broker_message_id,
        settled_at,
    } = state;
    db.prepare_cached(
        "UPDATE outbox SET status = ?2, attempts = ?3, on_wire = ?4, next_attempt_at = ?5,
             last_error = ?6, broker_message_id = ?7, settled_at = ?8, form = ?9
         WHERE seq = ?1",
    )?
    .execute(params![
        int(seq.0),
        status.as_str(),
        attempts,
        on_wire,
        next_attempt_at.map(wall),
        last_error,
        broker_message_id.as_ref().map(|id| id.as_str()),
        settled_at.map(wall),
        form.map(Form::number),
    ])
    .map(drop)
}

const OUTBOX: &str = "seq, mesh, sender, session, client_message_id, form_1, form_2, \"to\", \
     target, priority, reply_to, meta, body, accepted_at, status, attempts, on_wire, \
     next_attempt_at, last_error, broker_message_id, settled_at, form";

fn get_outbox(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        seq: OutboxSeq(get_count(row, 0)?),
        mesh: get_id(row, 1)?,
        sender: get_peer(row, 2)?,
        session: get_id_if_any(row, 3)?,
        client_message_id: get_id(row, 4)?,
        form_1: get_parsed(row, 5)?,
        form_2: get_parsed(row, 6)?,
        to: row.get(7)?,
        target: get_parsed(row, 8)?,
        priority: get_priority(row, 9)?,
        reply_to: get_id_if_any(row, 10)?,
        meta: row.get(11)?,
        body: row.get(12)?,
        accepted_at: get_wall(row, 13)?,
        state: OutboxState {
            status: get_named(row, 14, STATUSES, OutboxStatus::as_str)?,
            attempts: row.get(15)?,
            on_wire: row.get(16)?,
            form: get_form(row, 21)?,
            next_attempt_at: get_wall_if_any(row, 17)?,
            last_error: row.get(18)?,
            broker_message_id: get_id_if_any(row, 19)?,
            settled_at: get_wall_if_any(row, 20)?,
        },
        rungs: Vec::new(),
    })
}

fn get_form(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Form>> {
    let Some(number) = row.get::<_, Option<u8>>(at)? else {
        return Ok(None);
    };
    match Form::of(number) {
        Some(form) => Ok(Some(form)),
        None => Err(rusqlite::Error::IntegralValueOutOfRange(at, number.into())),
    }
}

fn get_rung(row: &Row<'_>) -> rusqlite::Result<RungReached> {
    Ok(RungReached {
        recipient: get_parsed(row, 0)?,
        rung: get_named(row, 1, Rung::ALL, Rung::as_str)?,
        at: row.get(2)?,
        reason: row.get(3)?,
    })
}

/// See [`Op::Receipt`]; what is news is said by the core.
fn put_receipt(
    db: &Connection,
    mesh: &MeshId,
    sender: &PeerKey,
    receipt: &Receipt,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO receipts (mesh, sender, last_n) VALUES (?1, ?2, ?3)
         ON CONFLICT (mesh, sender) DO UPDATE SET last_n = max(last_n, excluded.last_n)",
    )?
    .execute(params![mesh.as_str(), peer(sender), int(receipt.n)])?;
    let row = db
        .prepare_cached(
            "SELECT seq FROM outbox WHERE mesh = ?1 AND sender = ?2 AND client_message_id = ?3
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(
            params![
                mesh.as_str(),
                peer(sender),
                receipt.client_message_id.as_str()
            ],
            |row| get_count(row, 0),
        )
        .optional()?;
    let Some(seq) = row else {
        return Ok(());
    };
    let reached = RungReached::of(receipt);
    let recipient = reached.recipient.to_string();
    let here: Vec<Rung> = db
        .prepare_cached("SELECT rung FROM rungs WHERE seq = ?1 AND recipient = ?2")?
        .query_map(params![int(seq), recipient], |row| {
            get_named(row, 0, Rung::ALL, Rung::as_str)
        })?
        .collect::<rusqlite::Result<_>>()?;
    if !reached.is_news(here) {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT INTO rungs (seq, recipient, rung, at, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        int(seq),
        recipient,
        reached.rung.as_str(),
        reached.at,
        reached.reason,
    ])
    .map(drop)
}

const STATUSES: [OutboxStatus; 5] = [
    OutboxStatus::Pending,
    OutboxStatus::Inflight,
    OutboxStatus::Done,
    OutboxStatus::Dead,
    OutboxStatus::Aborted,
];

fn put_inbox(db: &Connection, row: &InboxRow) -> rusqlite::Result<()> {
    let InboxRow {
        seq,
        mesh,
        recipient,
        session,
        sender,
        sender_name,
        client_message_id,
        message_id,
        priority,
        reply_to,
        seal,
        content,
        sent_at,
        received_at,
        seen_at,
    } = row;
    let (meta, body, nonce, ciphertext) = match content {
        InboxContent::Opened { body, meta } => (Some(meta), Some(body), None, None),
        InboxContent::Undecryptable { nonce, ciphertext } => {
            (None, None, Some(nonce.as_str()), Some(ciphertext.as_str()))
        }
    };
    db.prepare_cached(
        "INSERT INTO inbox
             (seq, mesh, recipient, session, sender, sender_name, client_message_id, message_id,
              priority, reply_to, sent_at, received_at, seen_at, weight, meta, body, nonce,
              ciphertext, seal)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19)
         ON CONFLICT (mesh, recipient, sender, client_message_id) DO NOTHING",
    )?
    .execute(params![
        int(seq.0),
        mesh.as_str(),
        peer(recipient),
        session.as_ref().map(|id| id.as_str()),
        sender.to_string(),
        sender_name,
        client_message_id.as_str(),
        message_id.as_str(),
        priority.as_str(),
        reply_to.as_ref().map(|id| id.as_str()),
        sent_at,
        wall(*received_at),
        seen_at.map(wall),
        int(row.weight() as u64),
        meta,
        body,
        nonce,
        ciphertext,
        seal.map(Suite::as_str),
    ])?;
    raise_high_water(db, "inbox", seq.0)
}

const INBOX: &str = "seq, mesh, recipient, session, sender, sender_name, client_message_id, \
     message_id, priority, reply_to, sent_at, received_at, seen_at, meta, body, nonce, ciphertext, \
     seal";

fn get_inbox(row: &Row<'_>) -> rusqlite::Result<InboxRow> {
    let body: Option<String> = row.get(14)?;
    let content = match body {
        Some(body) => InboxContent::Opened {
            body,
            meta: row.get(13)?,
        },
        None => InboxContent::Undecryptable {
            nonce: get_base64(row, 15)?,
            ciphertext: get_base64(row, 16)?,
        },
    };
    Ok(InboxRow {
        seq: InboxSeq(get_count(row, 0)?),
        mesh: get_id(row, 1)?,
        recipient: get_peer(row, 2)?,
        session: get_id_if_any(row, 3)?,
        sender: get_parsed(row, 4)?,
        sender_name: row.get(5)?,
        client_message_id: get_id(row, 6)?,
        message_id: get_id(row, 7)?,
        priority: get_priority(row, 8)?,
        reply_to: get_id_if_any(row, 9)?,
        seal: get_suite_if_any(row, 17)?,
        content,
        sent_at: row.get(10)?,
        received_at: get_wall(row, 11)?,
        seen_at: get_wall_if_any(row, 12)?,
    })
}

fn raise_high_water(db: &Connection, of: &str, seq: u64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE high_water SET last_seq = max(last_seq, ?2) WHERE box = ?1")?
        .execute(params![of, int(seq)])
        .map(drop)
}

//! What holds of any database that somebody damaged: opening it says what is wrong, or the machines
//! that are made from it begin; nothing panics.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use bowline_core::crypto::SecretKey;
use bowline_core::crypto::stand_in::StandIn;
use bowline_core::host::Host;
use bowline_core::id::{
    ConnId, Fingerprint, InboxSeq, MessageSeq, OutboxSeq, PeerKey, PubKey, ReceiptNumber, Role,
};
use bowline_core::limits::Limits;
use bowline_core::machine::Machine;
use bowline_core::mesh::{self, Mesh};
use bowline_core::store::mesh::{
    ClaimRow, DedupeRow, InviteRow, MemberRole, MemberRow, MessageRow, Op as MeshOp, PeerRow,
    ReceiptRow, Registration,
};
use bowline_core::store::{Event, Txn, TxnId, host};
use bowline_core::time::{Mono, Now, Wall};
use bowline_core::wire::feature::{Features, Terms};
use bowline_core::wire::receipt::{Receipt, Rung};
use bowline_core::wire::{Base64Body, Priority, Suite};
use bowline_io::store::{
    BROKER_DATABASE, BrokerDatabase, BrokerStores, DAEMON_DATABASE, DaemonDatabase, HostStores,
    Store,
};
use rusqlite::Connection;
use rusqlite::types::Value;

#[path = "script.rs"]
mod script;

use script::Script;

const NOW: Now = Now {
    mono: Mono(1),
    wall: Wall(1_700_000_000_000),
};
const MESH: &str = "m1";

/// Both databases with a row in each table, as they are before somebody damages them.
struct Whole {
    broker: Vec<u8>,
    daemon: Vec<u8>,
}

/// True if the machine begins all the same.
///
/// # Panics
/// If reading what was damaged does.
pub fn stored_row(bytes: &[u8]) -> bool {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    let whole = WHOLE.get_or_init(Whole::make);
    let runtime = runtime();
    let mut script = Script(bytes);
    let of_broker = script.byte().unwrap_or(0) % 2 == 0;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, content) = if of_broker {
        (BROKER_DATABASE, &whole.broker)
    } else {
        (DAEMON_DATABASE, &whole.daemon)
    };
    let path = dir.path().join(file);
    std::fs::write(&path, content).expect("the temporary directory takes a file");
    damage(&path, &mut script);
    if of_broker {
        runtime.block_on(begin_mesh(dir.path()))
    } else {
        runtime.block_on(begin_host(dir.path()))
    }
}

async fn begin_mesh(dir: &Path) -> bool {
    let Ok(database) = BrokerDatabase::open(dir, NOW.wall, |_| {}) else {
        return false;
    };
    let opened = database.open_mesh(&MESH.into(), |_| {}).await;
    let begins = opened.is_ok();
    if let Ok((_, recovered)) = opened {
        let config = mesh::Config {
            mesh: MESH.into(),
            owner_pubkey: PubKey([9; 32]),
            open: false,
            limits: Limits::default(),
            offered_instead: Features::default(),
        };
        begin(Mesh::new(config, [0; 32], recovered, NOW));
    }
    drop(database);
    begins
}

async fn begin_host(dir: &Path) -> bool {
    let Ok(database) = DaemonDatabase::open(dir, NOW.wall, |_| {}) else {
        return false;
    };
    let opened = database.open_host(|_| {}).await;
    let begins = opened.is_ok();
    if let Ok((_, recovered)) = opened {
        let config = host_config();
        let crypto = Arc::new(StandIn);
        begin(Host::new(config, [0; 32], crypto, recovered, NOW));
    }
    drop(database);
    begins
}

fn begin(mut machine: impl Machine) {
    while machine.poll_output().is_some() {}
    let later = Now {
        mono: Mono(NOW.mono.0 + 600_000_000),
        wall: Wall(NOW.wall.0 + 600_000),
    };
    machine.handle_timeout(later);
    while machine.poll_output().is_some() {}
}

/// Sets columns of all rows of a table, or cuts a piece of the text in them and puts another there.
fn damage(path: &Path, script: &mut Script<'_>) {
    let db = Connection::open(path).expect("a database opens");
    let names = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).expect("it is SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("it runs");
        rows.map(|name| name.expect("a name")).collect()
    };
    let tables = names("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
    while let Some(table) = script.byte() {
        let table = &tables[usize::from(table) % tables.len()];
        let columns = names(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let column = &columns[usize::from(script.byte().unwrap_or(0)) % columns.len()];
        let kind = script.byte().unwrap_or(0) % 5;
        let value = match kind {
            0 => Value::Null,
            1 => Value::Integer(i64::from(script.number() as i16)),
            2 => {
                Value::Integer([i64::MIN, i64::MAX, -1, 1 << 53][usize::from(script.number()) % 4])
            }
            3 => Value::Blob(script.piece().to_vec()),
            _ => Value::Text(String::from_utf8_lossy(script.piece()).into_owned()),
        };
        let splice = format!(
            "UPDATE \"{table}\" SET \"{column}\" =
             substr(\"{column}\", 1, ?2) || ?1 || substr(\"{column}\", ?2 + 2)"
        );
        let put = format!("UPDATE \"{table}\" SET \"{column}\" = ?1");
        // What the schema itself refuses cannot be damaged in this way.
        let _refused = if kind == 4 && script.byte().is_some_and(|how| how % 2 == 0) {
            db.execute(&splice, (&value, script.number()))
        } else {
            db.execute(&put, [&value])
        };
    }
}

impl Whole {
    fn make() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        runtime().block_on(async {
            let database = BrokerDatabase::open(dir.path(), NOW.wall, |_| {}).expect("it opens");
            let (said, events) = mpsc::channel();
            let tell = move |event| said.send(event).expect("somebody listens");
            let (mut handle, _) = database
                .open_mesh(&MESH.into(), tell)
                .await
                .expect("it opens");
            handle.persist(first(mesh_ops()));
            until_durable(&events);
            drop(database);
            let database = DaemonDatabase::open(dir.path(), NOW.wall, |_| {}).expect("it opens");
            let (said, events) = mpsc::channel();
            let tell = move |event| said.send(event).expect("somebody listens");
            let (mut handle, _) = database.open_host(tell).await.expect("it opens");
            handle.persist(first(host_ops()));
            until_durable(&events);
            drop(database);
        });
        let read = |name: &str| {
            let path: PathBuf = dir.path().join(name);
            let db = Connection::open(&path).expect("a database opens");
            db.pragma_update(None, "journal_mode", "DELETE")
                .expect("one file");
            drop(db);
            std::fs::read(path).expect("it can be read")
        };
        Self {
            broker: read(BROKER_DATABASE),
            daemon: read(DAEMON_DATABASE),
        }
    }
}

fn first<Op>(ops: Vec<Op>) -> Txn<Op> {
    Txn {
        id: TxnId(1),
        ops: Arc::new(ops),
    }
}

fn until_durable<T>(events: &mpsc::Receiver<Event<T>>) {
    let said = events.recv().expect("the driver says what became of it");
    assert!(matches!(said, Event::Persisted { upto: TxnId(1) }));
}

fn mesh_ops() -> Vec<MeshOp> {
    let key = PubKey([2; 32]);
    let peer = PeerKey::Session(key);
    vec![
        MeshOp::MemberPut(MemberRow {
            id: "p1".into(),
            pubkey: PubKey([1; 32]),
            display_name: "alice".into(),
            role: MemberRole::Admin,
            joined_at: NOW.wall,
            revoked_at: None,
        }),
        MeshOp::InvitePut(InviteRow {
            id: "i1".into(),
            uses_left: Some(3),
            expires_at: NOW.wall,
            revoked: false,
        }),
        MeshOp::PeerPut(Box::new(PeerRow {
            key: peer.clone(),
            role: Role::Session,
            member: "p1".into(),
            pubkey: key,
            present: true,
            joined_at: NOW.wall,
            last_seen: NOW.wall,
            registration: Registration::default(),
        })),
        MeshOp::MessagePut(Box::new(MessageRow {
            seq: MessageSeq(1),
            id: "b1".into(),
            sender: peer.clone(),
            sender_pubkey: key,
            sender_member: "p1".into(),
            sender_name: "alice".into(),
            target_spec: key.to_string(),
            priority: Priority::Next,
            nonce: Base64Body::encode(&[0; 24]),
            ciphertext: Base64Body::encode(b"sealed"),
            client_message_id: "c1".into(),
            fingerprint: Fingerprint([3; 32]),
            reply_to: None,
            body_version: None,
            seal: Some("x1".into()),
            created_at: NOW.wall,
        })),
        MeshOp::DedupePut(DedupeRow {
            sender: peer.clone(),
            client_message_id: "c1".into(),
            fingerprint: Fingerprint([3; 32]),
            message_id: "b1".into(),
            seq: MessageSeq(1),
            first_seen_at: NOW.wall,
        }),
        MeshOp::DeliveryPut {
            seq: MessageSeq(1),
            recipient: peer.clone(),
            claim: Some(ClaimRow {
                id: ConnId(1),
                attempts: 1,
                claimed_at: NOW.wall,
                expires_at: NOW.wall,
            }),
        },
        MeshOp::DeliverySettled(Box::new(ReceiptRow {
            sender: peer.clone(),
            n: ReceiptNumber(1),
            recipient: peer,
            recipient_pubkey: PubKey([1; 32]),
            seq: MessageSeq(1),
            message_id: "b1".into(),
            client_message_id: "c1".into(),
            rung: Rung::Delivered,
            reason: Some("none".into()),
            at: NOW.wall,
        })),
    ]
}

fn host_ops() -> Vec<host::Op> {
    let secret = |byte| SecretKey::from_bytes([byte; 32]);
    let sender = PeerKey::Session(PubKey([2; 32]));
    vec![
        host::Op::MeshPut(Box::new(host::MeshRow {
            id: MESH.into(),
            slug: "team".into(),
            broker_url: "ws://127.0.0.1:1/ws".into(),
            policy: "sealed".into(),
            display_name: "alice".into(),
            member_id: "p1".into(),
            member_secret: secret(1),
            owner_pubkey: PubKey([9; 32]),
            owner_secret: Some(secret(9)),
            mesh_root_key: "root".into(),
            joined_at: NOW.wall,
        })),
        host::Op::SessionPut(Box::new(host::SessionRow {
            id: "s1".into(),
            mesh: MESH.into(),
            name: "alice".into(),
            role: Role::Session,
            secret: secret(2),
            token_sha256: [4; 32],
            pid: Some(7),
            cwd: "/".into(),
            groups: vec!["all".into()],
            opened_at: NOW.wall,
            ended_at: None,
        })),
        host::Op::PeerPut(host::DirectoryRow {
            mesh: MESH.into(),
            pubkey: PubKey([5; 32]),
            member_pubkey: PubKey([6; 32]),
            name: "bob".into(),
            role: "session".into(),
            present: true,
            last_seen: NOW.wall,
            suite: Some(Suite::Box),
        }),
        host::Op::OutboxPut(Box::new(host::OutboxRow {
            seq: OutboxSeq(1),
            mesh: MESH.into(),
            sender: sender.clone(),
            session: Some("s1".into()),
            client_message_id: "c1".into(),
            form_1: Fingerprint([1; 32]),
            form_2: Fingerprint([2; 32]),
            to: "bob".into(),
            target: PubKey([5; 32]),
            priority: Priority::Next,
            reply_to: None,
            meta: String::new(),
            body: "hello".into(),
            accepted_at: NOW.wall,
            state: host::OutboxState {
                status: host::OutboxStatus::Inflight,
                attempts: 1,
                on_wire: true,
                form: None,
                next_attempt_at: Some(NOW.wall),
                last_error: None,
                broker_message_id: None,
                settled_at: None,
            },
            rungs: Vec::new(),
        })),
        host::Op::InboxPut(Box::new(host::InboxRow {
            seq: InboxSeq(1),
            mesh: MESH.into(),
            recipient: sender.clone(),
            session: Some("s1".into()),
            sender: PubKey([5; 32]),
            sender_name: "bob".into(),
            client_message_id: "c9".into(),
            message_id: "b9".into(),
            priority: Priority::Now,
            reply_to: None,
            seal: Some(Suite::X1),
            content: host::InboxContent::Opened {
                body: "hi".into(),
                meta: String::new(),
            },
            sent_at: "2026-01-01T00:00:00Z".into(),
            received_at: NOW.wall,
            seen_at: None,
        })),
        host::Op::Receipt {
            mesh: MESH.into(),
            sender,
            receipt: Box::new(Receipt {
                n: 3,
                client_message_id: "c1".into(),
                recipient: PubKey([5; 32]),
                rung: Rung::Delivered,
                reason: None,
                at: "2026-01-01T00:00:00Z".into(),
            }),
        },
        host::Op::SeenOwed { seq: InboxSeq(1) },
    ]
}

fn host_config() -> bowline_core::host::io::Config {
    bowline_core::host::io::Config {
        limits: Limits::default(),
        terms: Terms::default(),
        machine_token_sha256: [0; 32],
        hostname: "host".into(),
        version: "0",
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
}

//! A host: conformance with [`Image`].

use bowline_core::crypto::SecretKey;
use bowline_core::crypto::fingerprint::Form;
use bowline_core::id::{InboxSeq, MeshId, OutboxSeq, Role};
use bowline_core::store::host::{
    DirectoryRow, Image, InboxContent, InboxFilter, InboxRow, Load, MeshRow, MessageName, Op,
    OutboxFilter, OutboxRow, OutboxState, OutboxStatus, Recovered, Scope, SessionRow,
};
use bowline_core::store::{Owner, Term};
use bowline_core::wire::receipt::{Receipt, Rung};

use super::*;
use crate::store::daemon::{DaemonDatabase, HostRows, KIND};

#[tokio::test]
async fn agrees_with_the_image_on_what_is_recovered_and_loaded() {
    for seed in 0..24 {
        let (_dir, path) = new_path();
        let mut draw = Draw::new(seed);
        let mut image = Image::default();
        {
            let bench = Bench::open(&path, &KIND);
            let mut client = bench.client::<HostRows>("host").await;
            for txn in 1..=80 {
                let ops: Vec<Op> = (0..=draw.below(4))
                    .map(|_| {
                        let op = draw_op(&mut draw, &image);
                        image.apply(&op);
                        op
                    })
                    .collect();
                client.persist(txn, ops);
                if draw.below(3) == 0 {
                    let what = draw_load(&mut draw);
                    assert_eq!(
                        client.load(what.clone()),
                        image.load(&what),
                        "seed {seed}: {what:?}"
                    );
                }
            }
        }
        let bench = Bench::open(&path, &KIND);
        let client = bench.client::<HostRows>("host").await;
        let owner = Owner {
            term: Term(2),
            last_txn: TxnId(80),
        };
        assert_same(&client.recovered, &image.recover(owner), seed);
        assert!(bench.halts.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_directory_is_held_by_one_daemon() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = DaemonDatabase::open(dir.path(), NOW, |halt| panic!("{halt}"))
        .expect("the first one opens");
    let refused = DaemonDatabase::open(dir.path(), NOW, |halt| panic!("{halt}"));
    assert!(matches!(refused, Err(OpenError::Lock(_))));
    drop(first);
}

/// Secrets have no equality and no `Debug`: they are compared here and nowhere else.
fn assert_same(found: &Recovered, expected: &Recovered, seed: u64) {
    assert_eq!(
        format!("{found:#?}"),
        format!("{expected:#?}"),
        "seed {seed}"
    );
    let secrets = |recovered: &Recovered| {
        let meshes = recovered.meshes.iter().flat_map(|row| {
            [
                Some(*row.member_secret.expose()),
                row.owner_secret.as_ref().map(|key| *key.expose()),
            ]
        });
        let sessions = recovered
            .sessions
            .iter()
            .map(|row| Some(*row.secret.expose()));
        meshes.chain(sessions).collect::<Vec<_>>()
    };
    assert_eq!(secrets(found), secrets(expected), "seed {seed}");
}

fn draw_op(draw: &mut Draw, image: &Image) -> Op {
    match draw.below(16) {
        0 => Op::MeshPut(Box::new(MeshRow {
            id: draw.id("mesh", 3),
            slug: draw.text(),
            broker_url: draw.text(),
            policy: "sealed".into(),
            display_name: draw.text(),
            member_id: draw.id("member", 3),
            member_secret: draw_secret(draw),
            owner_pubkey: draw.pubkey(3),
            owner_secret: draw.some(draw_secret),
            mesh_root_key: draw.text(),
            joined_at: draw.wall(),
        })),
        1 => Op::MeshDelete(draw.id("mesh", 3)),
        2 => Op::SessionPut(Box::new(SessionRow {
            id: draw.id("session", 3),
            mesh: draw.id("mesh", 3),
            name: draw.text(),
            role: [Role::Session, Role::Service][draw.below(2) as usize],
            secret: draw_secret(draw),
            token_sha256: *draw_secret(draw).expose(),
            pid: draw.some(|draw| draw.below(1 << 32) as u32),
            cwd: draw.text(),
            groups: vec![draw.text(), draw.text()],
            opened_at: draw.wall(),
            ended_at: draw.some(Draw::wall),
        })),
        3 => Op::PeerPut(DirectoryRow {
            mesh: draw.id("mesh", 3),
            pubkey: draw.pubkey(5),
            member_pubkey: draw.pubkey(5),
            name: draw.text(),
            role: "session".into(),
            present: draw.coin(),
            last_seen: draw.wall(),
            suite: draw.suite(),
        }),
        4 => Op::PeerForget {
            mesh: draw.id("mesh", 3),
            pubkey: draw.pubkey(5),
        },
        5 => Op::OutboxPut(Box::new(OutboxRow {
            seq: OutboxSeq(image.last_outbox_seq.0 + 1 + draw.below(2)),
            mesh: draw.id("mesh", 2),
            sender: draw.peer(2),
            session: draw.some(|draw| draw.id("session", 3)),
            client_message_id: draw.id("client", 20),
            form_1: draw.fingerprint(),
            form_2: draw.fingerprint(),
            to: draw.text(),
            target: draw.pubkey(3),
            priority: draw.priority(),
            reply_to: draw.some(|draw| draw.id("message", 9)),
            meta: draw.text(),
            body: draw.text(),
            accepted_at: draw.wall(),
            state: draw_state(draw),
            rungs: Vec::new(),
        })),
        6 => Op::OutboxState {
            seq: OutboxSeq(draw.below(image.last_outbox_seq.0 + 2)),
            state: draw_state(draw),
        },
        7 | 8 => Op::InboxPut(Box::new(InboxRow {
            seq: InboxSeq(image.last_inbox_seq.0 + 1 + draw.below(2)),
            mesh: draw.id("mesh", 2),
            recipient: draw.peer(2),
            session: draw.some(|draw| draw.id("session", 3)),
            sender: draw.pubkey(2),
            sender_name: draw.text(),
            client_message_id: draw.id("client", 6),
            message_id: draw.id("message", 99),
            priority: draw.priority(),
            reply_to: draw.some(|draw| draw.id("message", 9)),
            seal: draw.suite(),
            content: if draw.below(4) > 0 {
                InboxContent::Opened {
                    body: draw.text(),
                    meta: draw.text(),
                }
            } else {
                InboxContent::Undecryptable {
                    nonce: draw.base64(),
                    ciphertext: draw.base64(),
                }
            },
            sent_at: draw.text(),
            received_at: draw.wall(),
            seen_at: draw.some(Draw::wall),
        })),
        9..12 => Op::Receipt {
            mesh: draw.id("mesh", 2),
            sender: draw.peer(2),
            receipt: Box::new(Receipt {
                n: draw.below(40),
                client_message_id: draw.id("client", 20),
                recipient: draw.pubkey(2),
                rung: Rung::ALL[draw.below(4) as usize],
                reason: draw.some(Draw::text),
                at: draw.text(),
            }),
        },
        12 | 13 => Op::SeenOwed {
            seq: InboxSeq(draw.below(image.last_inbox_seq.0 + 2)),
        },
        14 => Op::SeenTold {
            seq: InboxSeq(draw.below(image.last_inbox_seq.0 + 2)),
        },
        _ => Op::InboxSeen {
            seq: InboxSeq(draw.below(image.last_inbox_seq.0 + 2)),
            at: draw.wall(),
        },
    }
}

fn draw_state(draw: &mut Draw) -> OutboxState {
    OutboxState {
        status: draw_status(draw),
        attempts: draw.below(30) as u32,
        on_wire: draw.coin(),
        form: draw.some(|draw| if draw.coin() { Form::One } else { Form::Two }),
        next_attempt_at: draw.some(Draw::wall),
        last_error: draw.some(Draw::text),
        broker_message_id: draw.some(|draw| draw.id("message", 99)),
        settled_at: draw.some(Draw::wall),
    }
}

fn draw_status(draw: &mut Draw) -> OutboxStatus {
    [
        OutboxStatus::Pending,
        OutboxStatus::Inflight,
        OutboxStatus::Done,
        OutboxStatus::Dead,
        OutboxStatus::Aborted,
    ][draw.below(5) as usize]
}

fn draw_secret(draw: &mut Draw) -> SecretKey {
    SecretKey::generate(&mut draw.0)
}

fn draw_scope(draw: &mut Draw) -> Scope {
    match draw.below(3) {
        0 => Scope::Everything,
        1 => Scope::Peers {
            mesh: draw.id("mesh", 2),
            peers: (0..draw.below(3)).map(|_| draw.peer(2)).collect(),
        },
        _ => Scope::Members(
            (0..draw.below(3))
                .map(|_| (draw.id::<MeshId>("mesh", 2), draw.peer(2)))
                .collect(),
        ),
    }
}

fn draw_load(draw: &mut Draw) -> Load {
    match draw.below(7) {
        0 => Load::OutboxDedupe {
            mesh: draw.id("mesh", 2),
            sender: draw.peer(2),
            client_message_id: draw.id("client", 20),
        },
        1 => Load::InboxDedupe {
            mesh: draw.id("mesh", 2),
            recipient: draw.peer(2),
            sender: draw.pubkey(2),
            client_message_id: draw.id("client", 6),
        },
        2 => Load::Inbox {
            scope: draw_scope(draw),
            filter: InboxFilter {
                after: InboxSeq(draw.below(20)),
                unread: draw.coin(),
                from: draw.some(|draw| draw.pubkey(2)),
                limit: draw.below(20) as usize,
            },
        },
        3 => Load::SeenOwed {
            mesh: draw.id("mesh", 2),
            recipient: draw.peer(2),
            limit: draw.below(20) as usize,
        },
        4 => Load::Message {
            sent_by: draw_scope(draw),
            received_by: draw_scope(draw),
            id: MessageName {
                text: ["client1", "client", "message", "message3", "nobody"]
                    [draw.below(5) as usize]
                    .into(),
                or_prefix: draw.coin(),
            },
            limit: draw.below(20) as usize,
        },
        _ => Load::Outbox {
            scope: draw_scope(draw),
            filter: OutboxFilter {
                after: OutboxSeq(draw.below(20)),
                status: draw.some(draw_status),
                id: draw.some(|draw| draw.id("client", 20)),
                limit: draw.below(20) as usize,
            },
        },
    }
}

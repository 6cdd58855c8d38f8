//! Meshes: conformance with [`Image`], and the owner row's rules.

use bowline_core::id::Role;
use bowline_core::id::{ClientMessageId, ConnId, MeshId, MessageId, MessageSeq, ReceiptNumber};
use bowline_core::store::mesh::{
    ClaimRow, DedupeRow, Image, InviteRow, Load, Loaded, MemberRole, MemberRow, MessageName,
    MessageRow, Op, PeerRow, ReceiptRow, Registration,
};
use bowline_core::store::registry;
use bowline_core::store::{Owner, Term};
use bowline_core::wire::Status;
use bowline_core::wire::client::{About, Group, Profile};
use bowline_core::wire::feature::Capabilities;
use bowline_core::wire::receipt::Rung;

use super::*;
pub(super) use crate::store::broker::KIND;
use crate::store::broker::{BrokerDatabase, MeshRows, RegistryRows};

#[tokio::test]
async fn agrees_with_the_image_on_what_is_recovered_and_loaded() {
    for seed in 0..24 {
        let (_dir, path) = new_path();
        let mut draw = Draw::new(seed);
        let mut images = [Image::default(), Image::default()];
        let mut txn = [0; 2];
        {
            let bench = Bench::open(&path, &KIND);
            let mut clients = [
                bench.client::<MeshRows>("mesh-a").await,
                bench.client::<MeshRows>("mesh-b").await,
            ];
            for _ in 0..60 {
                let which = draw.below(2) as usize;
                let ops = draw_ops(&mut draw, &mut images[which]);
                txn[which] += 1;
                clients[which].persist(txn[which], ops);
                if draw.below(4) == 0 {
                    let what = draw_load(&mut draw, &images[which]);
                    // A read sees every transaction that was handed over before it.
                    assert_eq!(
                        clients[which].load(what.clone()),
                        images[which].load(&what),
                        "seed {seed}: {what:?}"
                    );
                }
            }
        }
        let bench = Bench::open(&path, &KIND);
        for (which, name) in ["mesh-a", "mesh-b"].into_iter().enumerate() {
            let client = bench.client::<MeshRows>(name).await;
            let owner = Owner {
                term: Term(2),
                last_txn: TxnId(txn[which]),
            };
            assert_eq!(
                client.recovered,
                images[which].recover(owner),
                "seed {seed}"
            );
        }
        assert!(bench.halts.try_recv().is_err());
    }
}

#[tokio::test]
async fn the_registry_recovers_its_meshes() {
    let (_dir, path) = new_path();
    let row = |n: u8| registry::MeshRow {
        id: MeshId::from(format!("mesh-{n}")),
        slug: format!("slug-{n}"),
        owner_pubkey: PubKey([n; 32]),
        policy: [registry::Policy::Sealed, registry::Policy::Open][usize::from(n % 2)],
        created_at: NOW,
    };
    {
        let bench = Bench::open(&path, &KIND);
        let mut client = bench.client::<RegistryRows>("registry").await;
        client.persist(1, vec![registry::Op::MeshPut(row(2))]);
        client.persist(2, vec![registry::Op::MeshPut(row(1))]);
        client.await_persisted(2);
    }
    let bench = Bench::open(&path, &KIND);
    let client = bench.client::<RegistryRows>("registry").await;
    assert_eq!(client.recovered.meshes, [row(1), row(2)]);
}

#[tokio::test]
async fn a_new_owner_raises_the_term_and_fences_the_old_one() {
    let (_dir, path) = new_path();
    let old = Bench::open(&path, &KIND);
    let mut stale = old.client::<MeshRows>("m").await;
    stale.persist(1, vec![member("one")]);
    stale.await_persisted(1);

    let new = Bench::open(&path, &KIND);
    let mut fresh = new.client::<MeshRows>("m").await;
    assert_eq!(fresh.recovered.owner.term, Term(2));
    assert_eq!(fresh.recovered.owner.last_txn, TxnId(1));
    assert_eq!(fresh.recovered.members.len(), 1);

    stale.persist(2, vec![member("late")]);
    let halt = old.halts.recv_timeout(PATIENCE).expect("it halts");
    assert_eq!(
        halt,
        Halt::Fenced {
            owner: "m".into(),
            ours: Term(1),
            found: Term(2)
        }
    );
    // The new owner goes on, and nothing of the fenced one stands.
    fresh.persist(2, vec![member("two")]);
    fresh.await_persisted(2);
    let Loaded::Dedupe(none) = fresh.load(dedupe_load("x")) else {
        panic!("the answer is not for the question");
    };
    assert_eq!(none, None);
    drop((old, new));
    let bench = Bench::open(&path, &KIND);
    let client = bench.client::<MeshRows>("m").await;
    let names: Vec<_> = client
        .recovered
        .members
        .iter()
        .map(|row| row.id.as_str())
        .collect();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_by_its_watermark() {
    let (_dir, path) = new_path();
    let bench = Bench::open(&path, &KIND);
    let mut client = bench.client::<MeshRows>("m").await;
    client.persist(1, vec![member("one")]);
    client.persist(2, vec![member("two")]);
    client.await_persisted(2);
    // The machine did not hear of it, and sends again, with what came since.
    client.persist(1, vec![member("one")]);
    client.persist(2, vec![member("two")]);
    client.persist(3, vec![member("three")]);
    client.await_persisted(3);
    client.persist(3, vec![member("three")]);
    client.await_persisted(3);
    assert!(bench.halts.try_recv().is_err());
    drop(bench);
    let bench = Bench::open(&path, &KIND);
    let client = bench.client::<MeshRows>("m").await;
    assert_eq!(client.recovered.members.len(), 3);
    assert_eq!(client.recovered.owner.last_txn, TxnId(3));
}

#[tokio::test]
async fn a_gap_is_broken() {
    let (_dir, path) = new_path();
    let bench = Bench::open(&path, &KIND);
    let mut client = bench.client::<MeshRows>("m").await;
    client.persist(2, vec![member("two")]);
    let halt = bench.halts.recv_timeout(PATIENCE).expect("it halts");
    assert!(matches!(halt, Halt::Broken { .. }), "{halt}");
}

#[tokio::test]
async fn a_violated_constraint_is_broken_and_writes_nothing() {
    let (_dir, path) = new_path();
    let bench = Bench::open(&path, &KIND);
    let mut client = bench.client::<MeshRows>("m").await;
    let nobodys = Op::DeliveryPut {
        seq: MessageSeq(9),
        recipient: Draw::new(1).peer(1),
        claim: None,
    };
    client.persist(1, vec![member("one"), nobodys]);
    let halt = bench.halts.recv_timeout(PATIENCE).expect("it halts");
    assert!(matches!(halt, Halt::Broken { .. }), "{halt}");
    drop(bench);
    let bench = Bench::open(&path, &KIND);
    let client = bench.client::<MeshRows>("m").await;
    assert_eq!(client.recovered.members, []);
    assert_eq!(client.recovered.owner.last_txn, TxnId(0));
}

#[tokio::test]
async fn a_full_disk_stalls_all_of_the_group_and_forgets_what_it_held() {
    let (_dir, path) = new_path();
    let mut draw = Draw::new(3);
    {
        let full = Bench::open_limited(&path, &KIND, Some(40));
        let mut client = full.client::<MeshRows>("m").await;
        client.persist(1, vec![member("one")]);
        client.await_persisted(1);
        client.persist(2, vec![big_message(&mut draw, 1)]);
        assert_eq!(client.await_stall(), Stall::Full);
        // Emitted before the machine heard of the stall: forgotten too, not a gap.
        client.persist(3, vec![member("three")]);
        // What was durable can still be read.
        assert_eq!(client.load(dedupe_load("x")), Loaded::Dedupe(None));
        // The machine sends again, and the disk is still full.
        client.persist(2, vec![big_message(&mut draw, 1)]);
        client.persist(3, vec![member("three")]);
        assert_eq!(client.await_stall(), Stall::Full);
        assert!(full.halts.try_recv().is_err());
    }
    let freed = Bench::open(&path, &KIND);
    let mut client = freed.client::<MeshRows>("m").await;
    assert_eq!(client.recovered.owner.last_txn, TxnId(1));
    assert_eq!(client.recovered.last_seq, MessageSeq(0));
    client.persist(2, vec![big_message(&mut draw, 1)]);
    client.persist(3, vec![member("three")]);
    client.await_persisted(3);
}

#[tokio::test]
async fn after_a_stall_the_same_driver_takes_what_is_sent_again() {
    let (_dir, path) = new_path();
    let bench = Bench::open(&path, &KIND);
    let mut client = bench.client::<MeshRows>("m").await;
    let other = rusqlite::Connection::open(&path).expect("a second connection");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("it takes the write lock");
    client.persist(1, vec![member("one")]);
    assert_eq!(client.await_stall(), Stall::Unavailable);
    client.persist(2, vec![member("two")]);
    other.execute_batch("ROLLBACK").expect("it lets go");
    client.persist(1, vec![member("one")]);
    client.persist(2, vec![member("two")]);
    client.await_persisted(2);
    assert!(bench.halts.try_recv().is_err());
}

#[tokio::test]
async fn what_waits_for_the_disk_becomes_durable_together() {
    const TXNS: u64 = 200;
    let (_dir, path) = new_path();
    let bench = Bench::open(&path, &KIND);
    let mut clients = [
        bench.client::<MeshRows>("mesh-a").await,
        bench.client::<MeshRows>("mesh-b").await,
    ];
    // As long as another holds the write lock, the writer waits with what it has.
    let other = rusqlite::Connection::open(&path).expect("a second connection");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("it takes the write lock");
    for txn in 1..=TXNS {
        for client in &mut clients {
            client.persist(txn, vec![member(&format!("member-{txn}"))]);
        }
    }
    other.execute_batch("ROLLBACK").expect("it lets go");
    for client in &clients {
        let mut answers = 1;
        loop {
            match client.next() {
                Event::Persisted { upto } if upto == TxnId(TXNS) => break,
                Event::Persisted { .. } => answers += 1,
                other => panic!("{other:?}"),
            }
        }
        // What the writer had picked up before, and all the rest.
        assert!(answers <= 2, "{answers} commits");
    }
}

#[tokio::test]
async fn a_directory_is_held_by_one_broker() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = BrokerDatabase::open(dir.path(), NOW, |halt| panic!("{halt}"))
        .expect("the first one opens");
    let refused = BrokerDatabase::open(dir.path(), NOW, |halt| panic!("{halt}"));
    assert!(matches!(refused, Err(OpenError::Lock(_))));
    drop(first);
    BrokerDatabase::open(dir.path(), NOW, |halt| panic!("{halt}")).expect("it was let go");
}

fn member(id: &str) -> Op {
    Op::MemberPut(MemberRow {
        id: id.into(),
        pubkey: PubKey([1; 32]),
        display_name: id.into(),
        role: MemberRole::Member,
        joined_at: NOW,
        revoked_at: None,
    })
}

fn big_message(draw: &mut Draw, seq: u64) -> Op {
    let mut row = draw_message(draw, seq);
    row.ciphertext = Base64Body::encode(&vec![7; 256 * 1024]);
    Op::MessagePut(Box::new(row))
}

fn dedupe_load(id: &str) -> Load {
    Load::Dedupe {
        sender: PeerKey::Member("nobody".into()),
        client_message_id: id.into(),
    }
}

/// Ops as a mesh may emit them: a delivery is of a message that is there.
fn draw_ops(draw: &mut Draw, image: &mut Image) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..=draw.below(5) {
        let more = draw_op(draw, image);
        more.iter().for_each(|op| image.apply(op));
        ops.extend(more);
    }
    ops
}

fn draw_op(draw: &mut Draw, image: &Image) -> Vec<Op> {
    match draw.below(8) {
        0 => vec![Op::MemberPut(MemberRow {
            id: draw.id("member", 4),
            pubkey: draw.pubkey(4),
            display_name: draw.text(),
            role: [MemberRole::Admin, MemberRole::Member][draw.below(2) as usize],
            joined_at: draw.wall(),
            revoked_at: draw.some(Draw::wall),
        })],
        1 => vec![Op::InvitePut(InviteRow {
            id: draw.id("invite", 4),
            uses_left: draw.some(|draw| draw.below(1 << 32) as u32),
            expires_at: draw.wall(),
            revoked: draw.coin(),
        })],
        2 => vec![Op::PeerPut(Box::new(draw_peer(draw)))],
        3 => vec![Op::PeerForget(draw.peer(4))],
        4 | 5 => {
            let seq = image.last_seq.0 + 1 + draw.below(3);
            let message = draw_message(draw, seq);
            let dedupe = DedupeRow {
                sender: message.sender.clone(),
                client_message_id: message.client_message_id.clone(),
                fingerprint: message.fingerprint,
                message_id: message.id.clone(),
                seq: message.seq,
                first_seen_at: message.created_at,
            };
            let mut ops = vec![
                Op::DeliveryPut {
                    seq: message.seq,
                    recipient: draw.peer(3),
                    claim: draw.some(draw_claim),
                },
                Op::MessagePut(Box::new(message)),
                Op::DedupePut(dedupe),
            ];
            ops.rotate_left(draw.below(3) as usize);
            ops
        }
        6 => {
            let settled: Vec<_> = image.receipts.keys().cloned().collect();
            let Some((recipient, seq)) = settled.get(draw.below(settled.len() as u64 + 1) as usize)
            else {
                return Vec::new();
            };
            let message = image.messages[seq].clone();
            vec![settle(draw, image, &message, recipient.clone())]
        }
        _ => {
            let owed: Vec<_> = image.deliveries.keys().cloned().collect();
            let Some((recipient, seq)) = owed.get(draw.below(owed.len() as u64 + 1) as usize)
            else {
                return Vec::new();
            };
            if draw.coin() {
                return vec![Op::DeliveryClaimed {
                    seq: *seq,
                    recipient: recipient.clone(),
                    claim: draw_claim(draw),
                }];
            }
            let message = image.messages[seq].clone();
            vec![settle(draw, image, &message, recipient.clone())]
        }
    }
}

/// As a mesh numbers receipts.
fn settle(draw: &mut Draw, image: &Image, of: &MessageRow, recipient: PeerKey) -> Op {
    let last = image.receipt_numbers.get(&of.sender).copied();
    Op::DeliverySettled(Box::new(ReceiptRow {
        sender: of.sender.clone(),
        n: last.unwrap_or(image.receipts_floor).next(),
        recipient,
        recipient_pubkey: draw.pubkey(3),
        seq: of.seq,
        message_id: of.id.clone(),
        client_message_id: of.client_message_id.clone(),
        rung: Rung::ALL[draw.below(4) as usize],
        reason: draw.some(Draw::text),
        at: draw.wall(),
    }))
}

fn draw_claim(draw: &mut Draw) -> ClaimRow {
    ClaimRow {
        id: ConnId(draw.below(1 << 40)),
        attempts: draw.below(9) as u32,
        claimed_at: draw.wall(),
        expires_at: draw.wall(),
    }
}

fn draw_message(draw: &mut Draw, seq: u64) -> MessageRow {
    MessageRow {
        seq: MessageSeq(seq),
        id: draw.id("message", 1 << 30),
        sender: draw.peer(3),
        sender_pubkey: draw.pubkey(3),
        sender_member: draw.id("member", 3),
        sender_name: draw.text(),
        target_spec: draw.pubkey(3).to_string(),
        priority: draw.priority(),
        nonce: draw.base64(),
        ciphertext: draw.base64(),
        client_message_id: draw.id::<ClientMessageId>("client", 12),
        fingerprint: draw.fingerprint(),
        reply_to: draw.some(|draw| draw.id("message", 9)),
        body_version: draw.some(|draw| draw.below(9) as u32),
        seal: draw.some(|_| "x1".into()),
        created_at: draw.wall(),
    }
}

fn draw_peer(draw: &mut Draw) -> PeerRow {
    PeerRow {
        key: draw.peer(4),
        role: [Role::Session, Role::Service, Role::ControlPlane][draw.below(3) as usize],
        member: draw.id("member", 4),
        pubkey: draw.pubkey(4),
        present: draw.coin(),
        joined_at: draw.wall(),
        last_seen: draw.wall(),
        registration: Registration {
            session_id: draw.some(|draw| draw.id("session", 4)),
            about: About {
                pid: draw.below(u64::MAX),
                cwd: draw.text(),
                display_name: draw.some(Draw::text),
                groups: vec![Group {
                    name: draw.text(),
                    role: draw.some(Draw::text),
                }],
                ..About::default()
            },
            status: [Status::Idle, Status::Working, Status::Dnd][draw.below(3) as usize],
            summary: draw.some(Draw::text),
            visible: draw.coin(),
            profile: draw.some(|draw| Profile {
                title: draw.some(Draw::text),
                ..Profile::default()
            }),
            capabilities: Capabilities::ours(),
            ..Registration::default()
        },
    }
}

fn draw_load(draw: &mut Draw, image: &Image) -> Load {
    let ids: Vec<MessageId> = image.messages.values().map(|row| row.id.clone()).collect();
    match draw.below(6) {
        0 => Load::Dedupe {
            sender: draw.peer(3),
            client_message_id: draw.id("client", 12),
        },
        1 => Load::Backlog {
            recipient: draw.peer(3),
            after: MessageSeq(draw.below(30)),
            limit: draw.below(5) as usize,
        },
        2 => Load::Receipts {
            sender: draw.peer(3),
            after: ReceiptNumber(draw.below(5)),
            limit: draw.below(5) as usize,
        },
        3 => Load::Deliveries {
            recipient: draw.peer(3),
            ids: ids.into_iter().filter(|_| draw.coin()).collect(),
        },
        4 => Load::Message {
            asker: draw.peer(3),
            name: MessageName::Own(draw.id("client", 12)),
        },
        _ => Load::Message {
            asker: draw.peer(3),
            name: MessageName::Prefix(match ids.get(draw.below(ids.len() as u64 + 1) as usize) {
                Some(id) => id.as_str()[..1 + draw.below(id.as_str().len() as u64) as usize].into(),
                None => "nothing".into(),
            }),
        },
    }
}

//! The mesh as its shell sees it: a store that commits when told, and frames by connection.

mod plain;
mod receipts;
mod suites;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::id::{MeshId, PubKey, Signature};
use crate::limits::{GRACE_AFTER_START, Limits};
use crate::link::VerifiedHello;
use crate::store::mesh::{Image, MemberRole, MemberRow};
use crate::store::{Owner, Stall, Term, Txn};
use crate::time::Wall;
use crate::wire::broker::{Ack, HelloAck, PeerState, PeersList, Push, Resumed};
use crate::wire::client::{About, ClientAck, Group, Offer, Resume, Send};
use crate::wire::feature::{Capabilities, Features};
use crate::wire::{
    Base64Body, BrokerFrame, ClientFrame, Priority, ProtocolVersion, Status, decode_broker,
};

mod hook;
mod moderation;
mod quiet;
mod roles;

struct Rig {
    mesh: Mesh,
    now: Now,
    image: Image,
    uncommitted: VecDeque<Txn<Op>>,
    loads: VecDeque<(LoadId, Load)>,
    inbox: BTreeMap<ConnId, Vec<BrokerFrame>>,
    closes: BTreeMap<ConnId, Close>,
    paused: BTreeMap<ConnId, bool>,
    responses: Vec<(RequestId, Response)>,
    /// Report what was sent as sent at once.
    instant: bool,
    unsent: BTreeMap<ConnId, u64>,
    /// Those who connect are on the broker's own host.
    local: bool,
    next_conn: u64,
    next_hello: u8,
    limits: Limits,
    term: u64,
}

const MEMBER: &str = "member-1";

impl Rig {
    fn new(limits: Limits) -> Self {
        let mut image = Image::default();
        for n in 1..=3 {
            image.apply(&Op::MemberPut(MemberRow {
                id: format!("member-{n}").into(),
                pubkey: PubKey([100 + n; 32]),
                display_name: format!("Member {n}"),
                role: if n == 3 {
                    MemberRole::Admin
                } else {
                    MemberRole::Member
                },
                joined_at: Wall(0),
                revoked_at: None,
            }));
        }
        let now = Now {
            mono: Mono(1_000_000_000),
            wall: Wall(1_800_000_000_000),
        };
        let mut rig = Self {
            mesh: Mesh::new(
                config(&limits),
                [0; 32],
                image.recover(Owner::default()),
                now,
            ),
            now,
            image,
            uncommitted: VecDeque::new(),
            loads: VecDeque::new(),
            inbox: BTreeMap::new(),
            closes: BTreeMap::new(),
            paused: BTreeMap::new(),
            responses: Vec::new(),
            instant: true,
            unsent: BTreeMap::new(),
            local: false,
            next_conn: 0,
            next_hello: 0,
            limits,
            term: 0,
        };
        rig.drain();
        rig
    }

    fn input(&mut self, input: Input) {
        self.mesh.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut sent: BTreeMap<ConnId, u64> = BTreeMap::new();
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Attached { .. } => {}
                Output::Send { conn, frame } => {
                    *sent.entry(conn).or_default() += frame.len() as u64;
                    let frame = decode_broker(&frame).expect("the mesh encodes what decodes");
                    self.inbox.entry(conn).or_default().push(frame);
                }
                Output::Close { conn, close } => {
                    self.closes.insert(conn, close);
                }
                Output::Pause { conn } => {
                    self.paused.insert(conn, true);
                }
                Output::Resume { conn } => {
                    self.paused.insert(conn, false);
                }
                Output::Persist(txn) => self.uncommitted.push_back(txn),
                Output::Load { load, what } => self.loads.push_back((load, what)),
                Output::Response { request, response } => self.responses.push((request, response)),
            }
        }
        for (conn, bytes) in sent {
            if self.instant {
                self.input(Input::Sent { conn, bytes });
            } else {
                *self.unsent.entry(conn).or_default() += bytes;
            }
        }
    }

    /// Commits all transactions and answers all look-ups, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut upto = None;
            while let Some(txn) = self.uncommitted.pop_front() {
                txn.ops.iter().for_each(|op| self.image.apply(op));
                upto = Some(txn.id);
            }
            if let Some(upto) = upto {
                self.input(Input::Store(store::Event::Persisted { upto }));
                continue;
            }
            let Some((load, what)) = self.loads.pop_front() else {
                return;
            };
            let loaded = self.image.load(&what);
            self.input(Input::Store(store::Event::Loaded { load, loaded }));
        }
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now.mono + by;
        while let Some(timeout) = self.mesh.poll_timeout().filter(|t| t.at <= until) {
            self.step_to(timeout.at.max(self.now.mono));
            self.mesh.handle_timeout(self.now);
            assert!(
                self.mesh
                    .poll_timeout()
                    .is_none_or(|next| next.at > self.now.mono)
            );
            self.drain();
            self.settle();
        }
        self.step_to(until);
    }

    fn step_to(&mut self, mono: Mono) {
        let by = mono.since(self.now.mono);
        self.now = Now {
            mono,
            wall: self.now.wall + by,
        };
    }

    fn connect(&mut self, who: u8) -> ConnId {
        self.connect_with(who, |_| {})
    }

    fn connect_with(&mut self, who: u8, change: impl FnOnce(&mut VerifiedHello)) -> ConnId {
        self.next_conn += 1;
        self.next_hello += 1;
        let conn = ConnId(self.next_conn);
        let mut hello = hello(who, self.now.wall, self.next_hello);
        change(&mut hello);
        self.input(Input::Attach {
            conn,
            hello: Box::new(hello),
            local: self.local,
        });
        conn
    }

    fn frame(&mut self, conn: ConnId, frame: ClientFrame) {
        self.input(Input::Frame { conn, frame });
    }

    fn send(&mut self, conn: ConnId, to: u8, id: &str) {
        self.frame(conn, send_to(to, id, |_| {}));
    }

    fn close(&mut self, conn: ConnId) {
        self.input(Input::Closed { conn });
    }

    fn ack(&mut self, conn: ConnId, push: &Push) {
        let ack = ClientAck {
            client_message_id: Some(push.client_message_id.clone()),
            broker_message_id: Some(push.message_id.clone()),
        };
        self.frame(conn, ClientFrame::ClientAck(ack));
    }

    fn take(&mut self, conn: ConnId) -> Vec<BrokerFrame> {
        self.inbox.remove(&conn).unwrap_or_default()
    }

    fn pushes(&mut self, conn: ConnId) -> Vec<Push> {
        let of = |frame| match frame {
            BrokerFrame::Push(push) => Some(*push),
            _ => None,
        };
        self.take(conn).into_iter().filter_map(of).collect()
    }

    fn push_ids(&mut self, conn: ConnId) -> Vec<String> {
        self.pushes(conn)
            .iter()
            .map(|push| push.client_message_id.as_str().into())
            .collect()
    }

    fn acks(&mut self, conn: ConnId) -> Vec<Ack> {
        let of = |frame| match frame {
            BrokerFrame::Ack(ack) => Some(*ack),
            _ => None,
        };
        self.take(conn).into_iter().filter_map(of).collect()
    }

    fn events(&mut self, conn: ConnId) -> Vec<(&'static str, u8)> {
        let of = |frame| match frame {
            BrokerFrame::Event(event) => Some((kind(event.kind), event.data.pubkey.0[0])),
            _ => None,
        };
        self.take(conn).into_iter().filter_map(of).collect()
    }

    fn hello_ack(&mut self, conn: ConnId) -> HelloAck {
        match self.take(conn).into_iter().next() {
            Some(BrokerFrame::HelloAck(ack)) => *ack,
            other => panic!("hello_ack comes first, not {other:?}"),
        }
    }

    fn peers(&mut self, conn: ConnId) -> PeersList {
        self.take(conn);
        self.frame(
            conn,
            ClientFrame::ListPeers {
                after: None,
                limit: None,
                req_id: None,
            },
        );
        match self.take(conn).into_iter().next() {
            Some(BrokerFrame::PeersList(list)) => list,
            other => panic!("a list, not {other:?}"),
        }
    }

    /// The broker is killed: what was not committed is lost; the next owner recovers the rest.
    fn restart(&mut self) {
        self.uncommitted.clear();
        self.loads.clear();
        self.inbox.clear();
        self.unsent.clear();
        self.term += 1;
        let owner = Owner {
            term: Term(self.term),
            last_txn: self.mesh.gate.durable(),
        };
        let recovered = self.image.recover(owner);
        self.mesh = Mesh::new(
            config(&self.limits),
            [self.term as u8; 32],
            recovered,
            self.now,
        );
        self.drain();
    }
}

fn config(limits: &Limits) -> Config {
    Config {
        mesh: MeshId::from("mesh"),
        owner_pubkey: PubKey([99; 32]),
        open: false,
        limits: limits.clone(),
        offered_instead: Features::default(),
    }
}

fn kind(kind: crate::wire::broker::EventKind) -> &'static str {
    use crate::wire::broker::EventKind::*;
    match kind {
        PeerJoined => "joined",
        PeerLeft => "left",
        PeerVisible => "visible",
        PeerHidden => "hidden",
        ProfileUpdated => "profile",
    }
}

/// Sessions 1 to 9 belong to the first member, 10 to 19 to the second, 20 to 29 to the third, an
/// admin.
fn hello(who: u8, wall: Wall, unique: u8) -> VerifiedHello {
    let pubkey = PubKey([who; 32]);
    VerifiedHello {
        mesh: "mesh".into(),
        key: PeerKey::Session(pubkey),
        role: Role::Session,
        member_pubkey: PubKey([101 + who / 10; 32]),
        member_id: None,
        pubkey,
        session_pubkey: None,
        attestation: None,
        session_id: format!("session-{who}").into(),
        about: About {
            display_name: Some(format!("peer {who}")),
            ..About::default()
        },
        offer: Offer {
            capabilities: Capabilities::ours(),
            ..Offer::default()
        },
        version: ProtocolVersion::SPOKEN,
        timestamp: wall,
        signature: Signature([unique; 64]),
    }
}

fn as_member(hello: &mut VerifiedHello) {
    hello.key = PeerKey::Member(MEMBER.into());
    hello.role = Role::ControlPlane;
    hello.pubkey = hello.member_pubkey;
}

fn send_to(to: u8, id: &str, change: impl FnOnce(&mut Send)) -> ClientFrame {
    let mut send = Send {
        id: Some(id.into()),
        client_message_id: Some(id.into()),
        request_fingerprint: None,
        target_spec: format!("{}", PubKey([to; 32])),
        priority: Priority::Next,
        nonce: Base64Body::encode(&[0; 24]),
        ciphertext: Base64Body::encode(b"sealed"),
        mentions: Vec::new(),
        reply_to_id: None,
        body_version: None,
        first: true,
        seal: Some("x1".into()),
    };
    change(&mut send);
    ClientFrame::Send(Box::new(send))
}

fn rig() -> Rig {
    Rig::new(Limits::default())
}

/// Two sessions of two members that know of each other.
fn pair() -> (Rig, ConnId, ConnId) {
    let mut rig = rig();
    let a = rig.connect(1);
    let b = rig.connect(11);
    rig.settle();
    rig.take(a);
    rig.take(b);
    (rig, a, b)
}

#[test]
fn a_join_is_told_once_it_is_durable_and_not_to_the_joiner() {
    let mut rig = rig();
    let a = rig.connect(1);
    rig.settle();
    let b = rig.connect(11);
    assert!(rig.events(a).is_empty(), "not durable yet");
    assert_eq!(rig.peers(a).peers.len(), 1, "nor in a list");
    rig.settle();
    assert_eq!(rig.events(a), [("joined", 11)]);
    assert!(rig.events(b).is_empty());
    assert_eq!(rig.peers(a).peers.len(), 2);
}

#[test]
fn silent_for_less_than_the_grace_nobody_is_told() {
    let (mut rig, a, b) = pair();
    rig.close(b);
    rig.advance(Duration::from_secs(60));
    let listed = rig.peers(a);
    assert_eq!(listed.peers[1].state, Some(PeerState::Grace));
    assert_eq!(listed.peers[1].away_ms, Some(60_000));
    let b = rig.connect(11);
    rig.settle();
    assert!(rig.events(a).is_empty());
    assert_eq!(rig.hello_ack(b).resumed, Some(Resumed::Fresh));
}

#[test]
fn beyond_the_grace_one_leave_and_then_one_join() {
    let (mut rig, a, b) = pair();
    rig.close(b);
    rig.advance(Duration::from_secs(150));
    assert_eq!(rig.events(a), [("left", 11)]);
    rig.connect(11);
    rig.settle();
    assert_eq!(rig.events(a), [("joined", 11)]);
}

#[test]
fn the_late_close_of_a_replaced_connection_changes_nothing() {
    let (mut rig, a, old) = pair();
    let new = rig.connect(11);
    assert_eq!(rig.closes[&old], Close::session_replaced());
    rig.close(old);
    rig.advance(Duration::from_secs(300));
    assert!(rig.events(a).is_empty());
    rig.send(a, 11, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(new), ["m1"]);
}

#[test]
fn nothing_that_a_replaced_connection_still_sends_is_honoured() {
    let (mut rig, _, old) = pair();
    rig.connect(11);
    rig.take(old);
    rig.send(old, 1, "m1");
    rig.frame(old, ClientFrame::Bye);
    rig.settle();
    assert!(rig.take(old).is_empty());
    assert!(rig.image.messages.is_empty());
    assert_eq!(rig.mesh.present_peers(), 2);
}

#[test]
fn a_resume_continues_where_the_old_connection_stopped() {
    let (mut rig, a, b) = pair();
    let epoch = rig.mesh.peers[&PeerKey::Session(PubKey([1; 32]))]
        .stream
        .as_ref()
        .unwrap()
        .epoch();
    rig.close(a);
    let c = rig.connect(12);
    rig.settle();
    rig.close(b);
    rig.advance(Duration::from_secs(50));
    rig.frame(c, ClientFrame::Bye);
    rig.settle();
    let again = rig.connect_with(1, |hello| {
        hello.offer.resume = Some(Resume { epoch, count: 1 });
    });
    let frames = rig.take(again);
    let BrokerFrame::HelloAck(ack) = &frames[0] else {
        panic!("{frames:?}")
    };
    assert_eq!(ack.resumed, Some(Resumed::Hit));
    assert_eq!(ack.stream.unwrap().count, 1);
    rig.inbox.insert(again, frames);
    assert_eq!(rig.events(again), [("joined", 12), ("left", 12)]);
}

#[test]
fn a_ring_that_was_overrun_is_a_miss() {
    let mut rig = Rig::new(Limits {
        ring_events: 1,
        ..Limits::default()
    });
    let a = rig.connect(1);
    rig.settle();
    let epoch = rig.hello_ack(a).stream.unwrap().epoch;
    rig.close(a);
    rig.connect(2);
    rig.connect(3);
    rig.settle();
    let resume = Some(Resume { epoch, count: 0 });
    let again = rig.connect_with(1, |hello| hello.offer.resume = resume);
    let ack = rig.hello_ack(again);
    assert_eq!(
        (ack.resumed, ack.stream.unwrap().count),
        (Some(Resumed::Miss), 2)
    );
}

#[test]
fn a_reattach_with_other_groups_is_one_profile_update_and_keeps_what_was_joined() {
    let (mut rig, a, b) = pair();
    let group = |name: &str| Group {
        name: name.into(),
        role: None,
    };
    rig.frame(
        b,
        ClientFrame::JoinGroup {
            name: "joined".into(),
            role: None,
            req_id: None,
        },
    );
    rig.settle();
    rig.take(a);
    rig.close(b);
    let b = rig.connect_with(11, |hello| hello.about.groups = vec![group("hello")]);
    rig.settle();
    assert_eq!(rig.events(a), [("profile", 11)]);
    let groups = rig.peers(a).peers[1].groups.clone();
    assert_eq!(groups, [group("hello"), group("joined")]);
    rig.close(b);
    rig.connect_with(11, |hello| hello.about.groups = vec![group("hello")]);
    rig.settle();
    assert!(rig.events(a).is_empty(), "the same again is nothing new");
}

#[test]
fn bye_ends_the_lease_at_once_and_what_is_owed_stays() {
    let (mut rig, a, b) = pair();
    rig.frame(b, ClientFrame::Bye);
    rig.settle();
    assert_eq!(rig.events(a), [("left", 11)]);
    assert_eq!(rig.closes[&b].code, Close::NORMAL);
    rig.send(a, 11, "m1");
    rig.settle();
    let b = rig.connect(11);
    rig.settle();
    assert_eq!(rig.push_ids(b), ["m1"]);
}

#[test]
fn the_same_hello_twice_is_refused() {
    let (mut rig, a, b) = pair();
    let replay = rig.connect_with(11, |hello| hello.signature = Signature([2; 64]));
    assert!(matches!(&rig.take(replay)[..], [BrokerFrame::Error(e)] if e.code == "replayed"));
    assert_eq!(rig.closes[&replay], Close::new(Close::POLICY, "replayed"));
    rig.send(a, 11, "m1");
    rig.settle();
    assert_eq!(
        rig.push_ids(b),
        ["m1"],
        "the connection that is there is not disturbed"
    );
}

#[test]
fn a_session_key_cannot_be_taken_over_by_another_member() {
    let (mut rig, _, b) = pair();
    let thief = rig.connect_with(11, |hello| hello.member_pubkey = PubKey([101; 32]));
    assert!(matches!(&rig.take(thief)[..], [BrokerFrame::Error(e)] if e.code == "unauthorized"));
    assert!(!rig.closes.contains_key(&b));
    let stranger = rig.connect_with(12, |hello| hello.member_pubkey = PubKey([7; 32]));
    assert!(matches!(&rig.take(stranger)[..], [BrokerFrame::Error(e)] if e.code == "unauthorized"));
}

#[test]
fn an_owner_that_was_stopped_throws_nobody_out() {
    let (mut rig, a, b) = pair();
    rig.close(b);
    rig.step_to(rig.now.mono + Duration::from_secs(600));
    rig.mesh.handle_timeout(rig.now);
    rig.drain();
    rig.settle();
    assert!(rig.events(a).is_empty());
    rig.advance(GRACE_AFTER_START - Duration::from_micros(1));
    assert!(rig.events(a).is_empty());
    rig.advance(Duration::from_micros(1));
    assert_eq!(rig.events(a), [("left", 11)]);
}

#[test]
fn after_a_restart_peers_return_silently() {
    let (mut rig, _, _) = pair();
    rig.restart();
    let a = rig.connect(1);
    rig.settle();
    rig.take(a);
    rig.advance(Duration::from_secs(89));
    rig.connect(11);
    rig.settle();
    assert!(rig.events(a).is_empty());
    assert_eq!(rig.peers(a).peers.len(), 2);
}

#[test]
fn an_ack_waits_for_its_transaction_and_the_push_too() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    assert!(rig.take(a).is_empty() && rig.take(b).is_empty());
    assert_eq!(
        rig.uncommitted.back().map(|txn| txn.ops.len()),
        Some(3),
        "all in one transaction"
    );
    rig.settle();
    let acks = rig.acks(a);
    assert!(acks[0].queued && !acks[0].duplicate);
    let pushes = rig.pushes(b);
    assert_eq!(pushes[0].message_id.as_str(), acks[0].message_id);
    assert_eq!(pushes[0].sender_pubkey, PubKey([1; 32]));
    assert_eq!(rig.image.deliveries.len(), 1, "pushed is not delivered");
    rig.ack(b, &pushes[0]);
    rig.settle();
    assert!(rig.image.deliveries.is_empty());
}

#[test]
fn the_same_id_again_is_a_duplicate_before_and_after_durability_and_after_a_restart() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    rig.send(a, 11, "m1");
    rig.settle();
    let acks = rig.acks(a);
    assert_eq!((acks[0].duplicate, acks[1].duplicate), (false, true));
    assert_eq!(acks[0].message_id, acks[1].message_id);
    rig.send(a, 11, "m1");
    assert!(rig.acks(a)[0].duplicate);
    assert_eq!(rig.pushes(b).len(), 1);
    let first = acks[0].message_id.clone();
    rig.restart();
    let a = rig.connect(1);
    rig.settle();
    rig.take(a);
    rig.frame(a, send_to(11, "m1", |send| send.first = false));
    rig.send(a, 11, "m2");
    assert!(rig.take(a).is_empty(), "what comes behind a look-up waits");
    rig.settle();
    let acks = rig.acks(a);
    assert!(acks[0].duplicate && acks[0].message_id == first);
    assert!(!acks[1].duplicate, "in order behind it");
    assert_eq!(rig.image.messages.len(), 2);
}

#[test]
fn another_fingerprint_under_the_same_id_is_refused_and_writes_nothing() {
    let (mut rig, a, _) = pair();
    rig.send(a, 11, "m1");
    rig.settle();
    rig.take(a);
    rig.frame(
        a,
        send_to(11, "m1", |send| {
            send.ciphertext = Base64Body::encode(b"other")
        }),
    );
    let ack = &rig.acks(a)[0];
    assert_eq!(ack.code.as_deref(), Some("idempotency_key_reused"));
    assert_eq!(ack.fingerprint_prefix.as_ref().map(String::len), Some(16));
    assert!(rig.uncommitted.is_empty());
}

#[test]
fn a_refused_send_consumes_no_id() {
    let (mut rig, a, _) = pair();
    for (target, code) in [
        ("*", "bad_request"),
        ("@g", "bad_request"),
        ("nobody", "bad_request"),
    ] {
        rig.frame(
            a,
            send_to(11, "m1", |send| send.target_spec = target.into()),
        );
        assert_eq!(rig.acks(a)[0].code.as_deref(), Some(code));
    }
    rig.send(a, 77, "m1");
    assert_eq!(rig.acks(a)[0].code.as_deref(), Some("target_not_found"));
    rig.send(a, 1, "m1");
    assert_eq!(
        rig.acks(a)[0].code.as_deref(),
        Some("bad_request"),
        "to itself"
    );
    let long = Base64Body::encode(&vec![0; 64 * 1024]);
    rig.frame(a, send_to(11, "m1", |send| send.ciphertext = long));
    assert_eq!(rig.acks(a)[0].code.as_deref(), Some("payload_too_large"));
    rig.send(a, 11, "m1");
    rig.settle();
    assert!(rig.acks(a)[0].queued);
}

#[test]
fn the_limiter_says_when_to_come_back_and_never_refuses_a_repeat() {
    let mut rig = Rig::new(Limits {
        sends_per_second: 1,
        sends_burst: 1,
        ..Limits::default()
    });
    let a = rig.connect(1);
    rig.connect(11);
    rig.settle();
    rig.take(a);
    rig.send(a, 11, "m1");
    rig.send(a, 11, "m2");
    rig.settle();
    let acks = rig.acks(a);
    assert_eq!(acks[0].code.as_deref(), Some("rate_limited"));
    assert_eq!(acks[0].retry_after_ms, Some(1_000));
    assert!(acks[1].queued, "the accept was answered when durable");
    rig.send(a, 11, "m1");
    assert!(rig.acks(a)[0].duplicate);
}

#[test]
fn a_recipient_that_is_owed_too_much_defers_the_sender() {
    let mut rig = Rig::new(Limits {
        owed_messages: 2,
        ..Limits::default()
    });
    let a = rig.connect(1);
    let b = rig.connect(11);
    rig.settle();
    rig.close(b);
    for id in ["m1", "m2", "m3"] {
        rig.send(a, 11, id);
    }
    rig.settle();
    let acks = rig.acks(a);
    let full: Vec<_> = acks.iter().filter_map(|ack| ack.code.clone()).collect();
    assert_eq!(full, ["recipient_full"]);
}

#[test]
fn a_message_to_a_peer_in_grace_is_delivered_once_on_reattach() {
    let (mut rig, a, b) = pair();
    rig.close(b);
    rig.send(a, 11, "m1");
    rig.settle();
    rig.advance(Duration::from_secs(40));
    let b = rig.connect(11);
    rig.settle();
    let pushes = rig.pushes(b);
    assert_eq!(pushes.len(), 1);
    rig.ack(b, &pushes[0]);
    rig.settle();
    rig.close(b);
    let b = rig.connect(11);
    rig.settle();
    assert!(rig.pushes(b).is_empty());
    assert!(rig.events(a).is_empty());
}

#[test]
fn an_expired_claim_is_pushed_again_without_anything_else_happening() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(b), ["m1"]);
    rig.advance(Duration::from_secs(30));
    let again = rig.pushes(b);
    assert_eq!((again.len(), again[0].attempt), (1, Some(2)));
    rig.advance(Duration::from_secs(59));
    assert!(rig.pushes(b).is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.pushes(b).len(), 1);
}

#[test]
fn a_claims_time_begins_when_its_push_left() {
    let (mut rig, a, b) = pair();
    rig.instant = false;
    rig.send(a, 11, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(b), ["m1"]);
    rig.advance(Duration::from_secs(300));
    assert!(rig.pushes(b).is_empty(), "it is still in the queue");
    let bytes = rig.unsent.remove(&b).unwrap();
    rig.input(Input::Sent { conn: b, bytes });
    rig.advance(Duration::from_secs(30));
    assert_eq!(rig.pushes(b).len(), 1);
}

#[test]
fn an_acknowledgement_settles_only_what_is_owed_to_the_one_who_sent_it() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    rig.settle();
    let pushes = rig.pushes(b);
    rig.ack(a, &pushes[0]);
    rig.settle();
    assert_eq!(rig.image.deliveries.len(), 1);
    rig.ack(b, &pushes[0]);
    rig.settle();
    assert!(rig.image.deliveries.is_empty());
}

#[test]
fn the_window_is_full_and_then_refilled_in_order() {
    let mut rig = Rig::new(Limits {
        window_messages: 2,
        owed_in_memory: 3,
        ..Limits::default()
    });
    let a = rig.connect(1);
    let b = rig.connect(11);
    rig.settle();
    let sent: Vec<String> = (0..9).map(|n| format!("m{n}")).collect();
    for id in &sent {
        rig.send(a, 11, id);
    }
    rig.settle();
    let mut got = Vec::new();
    loop {
        let pushes = rig.pushes(b);
        if pushes.is_empty() {
            break;
        }
        assert!(pushes.len() <= 2);
        for push in pushes {
            got.push(String::from(push.client_message_id.as_str()));
            rig.ack(b, &push);
        }
        rig.settle();
    }
    assert_eq!(got, sent, "also those that were paged in from the store");
    assert!(rig.image.deliveries.is_empty());
}

#[test]
fn deliveries_are_paced_by_what_is_queued_and_a_returning_peer_is_not_cut_off() {
    let (mut rig, a, b) = pair();
    rig.close(b);
    let body = Base64Body::encode(&vec![7; 48 * 1024 - 300]);
    for n in 0..256 {
        rig.frame(
            a,
            send_to(11, &format!("m{n}"), |send| send.ciphertext = body.clone()),
        );
    }
    rig.settle();
    rig.instant = false;
    let b = rig.connect(11);
    rig.settle();
    let mut got = Vec::new();
    while let Some(bytes) = rig.unsent.remove(&b) {
        assert!(bytes <= rig.limits.queued_bytes, "paced");
        for push in rig.pushes(b) {
            got.push(push.client_message_id.clone());
            rig.ack(b, &push);
        }
        rig.input(Input::Sent { conn: b, bytes });
        rig.settle();
    }
    assert_eq!(got.len(), 256);
    assert!(!rig.closes.contains_key(&b));
}

#[test]
fn a_consumer_that_stops_reading_is_cut_off_and_loses_nothing_durable() {
    let mut rig = Rig::new(Limits {
        queued_bytes: 2_000,
        ring_events: 4,
        ..Limits::default()
    });
    let a = rig.connect(1);
    let b = rig.connect(11);
    rig.settle();
    rig.instant = false;
    rig.send(a, 11, "m1");
    for n in 0..40 {
        let name = format!("g{n}");
        rig.frame(
            a,
            ClientFrame::JoinGroup {
                name: name.clone(),
                role: None,
                req_id: None,
            },
        );
        rig.frame(a, ClientFrame::LeaveGroup { name, req_id: None });
        rig.settle();
    }
    assert_eq!(rig.closes[&b].code, Close::SLOW_CONSUMER);
    rig.close(b);
    rig.instant = true;
    let b = rig.connect(11);
    rig.settle();
    assert_eq!(rig.push_ids(b), ["m1"]);
}

#[test]
fn status_holds_back_the_first_push_and_idle_delivers_at_once() {
    let (mut rig, a, b) = pair();
    rig.frame(
        b,
        ClientFrame::SetStatus {
            status: Status::Dnd,
            req_id: None,
        },
    );
    rig.send(a, 11, "next");
    rig.frame(a, send_to(11, "now", |send| send.priority = Priority::Now));
    rig.settle();
    assert_eq!(rig.push_ids(b), ["now"]);
    rig.frame(
        b,
        ClientFrame::SetStatus {
            status: Status::Idle,
            req_id: None,
        },
    );
    rig.settle();
    assert_eq!(rig.push_ids(b), ["next"]);
    rig.frame(
        b,
        ClientFrame::SetStatus {
            status: Status::Working,
            req_id: None,
        },
    );
    rig.advance(Duration::from_secs(30));
    assert_eq!(
        rig.push_ids(b),
        ["next", "now"],
        "what was pushed once is pushed again"
    );
}

#[test]
fn working_lapses_when_it_is_not_repeated() {
    let (mut rig, a, b) = pair();
    rig.frame(
        b,
        ClientFrame::SetStatus {
            status: Status::Working,
            req_id: None,
        },
    );
    rig.send(a, 11, "m1");
    rig.settle();
    rig.advance(Duration::from_secs(599));
    assert!(rig.pushes(b).is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.push_ids(b), ["m1"]);
}

#[test]
fn a_stalled_store_refuses_at_once_and_resends_what_was_emitted() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    rig.uncommitted.clear();
    rig.input(Input::Store(store::Event::Stalled(Stall::Unavailable)));
    rig.send(a, 11, "m2");
    let acks = rig.acks(a);
    assert_eq!(acks[0].code.as_deref(), Some("busy"));
    assert!(acks[0].retry_after_ms.is_some());
    assert!(!rig.mesh.is_ready());
    rig.advance(Duration::from_secs(1));
    assert!(rig.mesh.is_ready());
    assert!(rig.acks(a)[0].queued);
    assert_eq!(rig.push_ids(b), ["m1"]);
}

#[test]
fn an_accept_that_is_not_durable_in_time_is_unknown_and_stands() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    let held: Vec<_> = rig.uncommitted.drain(..).collect();
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.acks(a)[0].code.as_deref(), Some("outcome_unknown"));
    rig.uncommitted.extend(held);
    rig.settle();
    assert!(rig.acks(a).is_empty(), "it was answered");
    assert_eq!(rig.push_ids(b), ["m1"]);
    rig.send(a, 11, "m1");
    assert!(rig.acks(a)[0].duplicate);
}

#[test]
fn a_send_whose_look_up_met_a_stall_is_told_to_come_back() {
    let (mut rig, a, _) = pair();
    let again = || send_to(11, "m1", |send| send.first = false);
    rig.frame(a, again());
    rig.loads.clear();
    rig.input(Input::Store(store::Event::Stalled(Stall::Unavailable)));
    rig.frame(a, again());
    let acks = rig.acks(a);
    let codes: Vec<_> = acks.iter().filter_map(|ack| ack.code.as_deref()).collect();
    assert_eq!(
        codes,
        ["busy", "busy"],
        "and so is one that comes while it is away"
    );
    rig.advance(Duration::from_secs(1));
    rig.frame(a, again());
    rig.settle();
    assert!(rig.acks(a)[0].queued);
}

#[test]
fn a_look_up_that_begins_while_a_resend_is_under_way_is_asked_at_once() {
    let (mut rig, a, _) = pair();
    rig.send(a, 11, "m1");
    rig.uncommitted.clear();
    rig.input(Input::Store(store::Event::Stalled(Stall::Unavailable)));
    let retry = rig.mesh.poll_timeout().expect("the store is tried again");
    rig.step_to(retry.at);
    rig.mesh.handle_timeout(rig.now);
    rig.drain();
    rig.frame(a, send_to(11, "m1", |send| send.first = false));
    rig.frame(a, send_to(11, "m2", |send| send.first = false));
    assert_eq!(rig.loads.len(), 1);
    rig.settle();
    assert!(rig.acks(a).len() == 3);
}

#[test]
fn frames_behind_a_look_up_stop_the_reading_and_start_it_again() {
    let (mut rig, a, _) = pair();
    rig.frame(a, send_to(11, "m", |send| send.first = false));
    for n in 0..70 {
        rig.send(a, 11, &format!("m{n}"));
    }
    assert_eq!(rig.paused.get(&a), Some(&true));
    rig.settle();
    assert_eq!(rig.paused.get(&a), Some(&false));
    assert_eq!(rig.acks(a).len(), 71);
}

#[test]
fn a_members_mail_goes_to_its_newest_connection_and_then_to_the_next() {
    let mut rig = rig();
    let older = rig.connect_with(1, as_member);
    let newer = rig.connect_with(1, as_member);
    let b = rig.connect(11);
    rig.settle();
    assert!(!rig.closes.contains_key(&older), "many connections");
    assert!(rig.events(b).is_empty());
    rig.send(b, 101, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(newer), ["m1"]);
    rig.advance(Duration::from_secs(30));
    assert_eq!(rig.push_ids(older), ["m1"]);
}

#[test]
fn mail_to_a_member_that_never_connected_waits_for_it() {
    let mut rig = rig();
    let b = rig.connect(11);
    rig.settle();
    rig.send(b, 101, "m1");
    rig.settle();
    rig.restart();
    let plane = rig.connect_with(1, as_member);
    rig.settle();
    assert_eq!(rig.push_ids(plane), ["m1"]);
}

#[test]
fn a_hidden_peer_is_absent_to_others_but_not_to_its_own_member() {
    let (mut rig, a, b) = pair();
    let sibling = rig.connect(12);
    rig.settle();
    rig.take(a);
    rig.frame(
        b,
        ClientFrame::SetVisible {
            visible: false,
            id: None,
            req_id: None,
        },
    );
    rig.settle();
    assert_eq!(rig.events(a), [("hidden", 11)]);
    assert_eq!(rig.peers(a).peers.len(), 2);
    assert_eq!(rig.peers(sibling).peers.len(), 3);
}

#[test]
fn lists_come_in_pages() {
    let mut rig = rig();
    for who in 1..=5 {
        rig.connect(who);
    }
    rig.settle();
    let conn = ConnId(1);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        rig.take(conn);
        rig.frame(
            conn,
            ClientFrame::ListPeers {
                after,
                limit: Some(2),
                req_id: None,
            },
        );
        let Some(BrokerFrame::PeersList(page)) = rig.take(conn).into_iter().next() else {
            panic!("a page");
        };
        assert!(page.peers.len() <= 2);
        seen.extend(page.peers.iter().map(|peer| peer.pubkey.0[0]));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[test]
fn a_spurious_timeout_changes_nothing() {
    let (mut rig, a, b) = pair();
    rig.send(a, 11, "m1");
    rig.close(b);
    rig.settle();
    rig.take(a);
    let before = rig.mesh.poll_timeout();
    rig.mesh.handle_timeout(rig.now);
    assert!(rig.mesh.poll_output().is_none());
    assert_eq!(rig.mesh.poll_timeout(), before);
}

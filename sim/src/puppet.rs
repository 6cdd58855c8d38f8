//! A scripted client: speaks frames through a `ClientLink`, without a daemon. It redials, resumes,
//! acknowledges, takes snapshots, and misbehaves when the plan says so.

mod asking;
mod moderator;
mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bowline_core::crypto::{SealContext, Sealed, SecretKey};
use bowline_core::entropy::Entropy;
use bowline_core::id::{
    ClientMessageId, ConnId, Epoch, Fingerprint, MessageId, PubKey, Role, SessionId,
};
use bowline_core::link::{ClientLink, DialPlan, Down, SessionIdentity, client};
use bowline_core::machine::Machine;
use bowline_core::mark::Marks;
use bowline_core::store::host;
use bowline_core::wire::broker::{Ack, HelloAck, PeersList, Push, Resumed};
use bowline_core::wire::client::{
    About, ClientAck, Profile as PeerProfile, ReceiptsAfter, ReqId, Resume, Send,
};
use bowline_core::wire::feature::FeatureMismatch;
use bowline_core::wire::version::encode_client_in;
use bowline_core::wire::{
    Base64Body, BrokerFrame, ClientFrame, Close, Priority, ProtocolVersion, SendCode, SendCodeKind,
    Status, Suite, encode_client,
};
use bytes::Bytes;

use crate::age::{ClientAge, Requires};
use crate::cast::{self, Cast};
use crate::client_shell::{ClientShell, FromLink};
use crate::driven::Timing;
use crate::fault_mark::FaultMark;
use crate::kernel::{Kernel, NodeEvent, NodeId};
use crate::network::{End, Packet, Sock};
use crate::plan::{Action, Profile, StepId};
use crate::random::{Purpose, Stream};
use crate::record::{Record, Token};
use crate::store::{Shared, StoreFault};
use crate::world::{Node, NodeRole, machine_seed};

const WAKE_DIAL: u64 = 1;
const WAKE_ACKS: u64 = 2;
const WAKE_READ: u64 = 3;
const WAKE_RESEND: u64 = 4;
const WAKE_TAG: u64 = 5;
const WAKE_UNBAN: u64 = 6;
const WAKE_QUIET: u64 = 7;

/// Something to tell everybody, so that whoever miscounts notices it.
const TAGS_AFTER_HEALING_S: [u64; 3] = [1, 40, 80];
/// Of each message of a flood.
const FLOOD_BYTES: usize = 60;
/// After healing, what is not acknowledged is sent again this often.
const RESEND_EVERY_MS: u64 = 2_000;

pub struct Puppet {
    node: NodeId,
    index: usize,
    cast: Rc<Cast>,
    profile: Profile,
    /// Disks that it can read, for the keys on them.
    hosts: Vec<Shared<host::Image>>,
    process: Option<Process>,
    /// What it sent, kept as a file would be.
    sent: Vec<Outgoing>,
    /// What it was pushed and could open, once each, kept as an inbox would be.
    got: Vec<MessageId>,
    /// The last receipt that it has, kept likewise.
    receipts_after: u64,
    tags: u64,
    /// Targets that it wanted banned and has not taken back.
    bans: BTreeSet<String>,
    /// It wanted somebody put out.
    moderated: bool,
    /// How old it is; it is updated when all heals, where it has to be.
    age: ClientAge,
    healed: bool,
}

struct Process {
    shell: ClientShell,
    entropy: Entropy,
    draws: Stream,
    next_conn: u64,
    conns: BTreeMap<u64, Conn>,
    /// For sending only.
    quiet: BTreeMap<u64, quiet::Quiet>,
    resume: Option<Resume>,
    /// False between a `bye` and its coming back.
    wanted: bool,
    dial_due: bool,
    failures: u32,
    clock_offset_ms: i64,
    last_hello: Option<Bytes>,
    holds_acks: bool,
    held_acks: Vec<ClientAck>,
    /// Connections without a link, and what is said on them.
    raw: BTreeMap<u32, Vec<Bytes>>,
    resend_due: bool,
}

struct Conn {
    up: bool,
    version: ProtocolVersion,
    /// What it has seen of the stream on this connection.
    epoch: Option<Epoch>,
    count: u64,
    listed: BTreeSet<PubKey>,
}

struct Outgoing {
    send: Send,
    state: SendState,
    /// By the broker.
    message_id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SendState {
    /// Sent at least once; nothing is known.
    Unknown,
    Accepted,
    Refused,
}

impl Puppet {
    #[must_use]
    pub fn new(
        node: NodeId,
        index: usize,
        cast: Rc<Cast>,
        profile: Profile,
        hosts: Vec<Shared<host::Image>>,
    ) -> Self {
        Self {
            node,
            index,
            cast,
            age: profile.ages.puppet(index),
            profile,
            hosts,
            process: None,
            sent: Vec::new(),
            got: Vec::new(),
            receipts_after: 0,
            tags: 0,
            bans: BTreeSet::new(),
            moderated: false,
            healed: false,
        }
    }

    fn me(&self) -> &cast::Puppet {
        &self.cast.puppets[self.index]
    }

    fn dial(&mut self, k: &mut Kernel) {
        let plan = self.dial_plan();
        let key = Arc::clone(&self.me().key);
        let Some(process) = &mut self.process else {
            return;
        };
        process.next_conn += 1;
        let id = ConnId(process.next_conn);
        process.conns.insert(
            id.0,
            Conn {
                up: false,
                version: ProtocolVersion::V1,
                epoch: None,
                count: 0,
                listed: BTreeSet::new(),
            },
        );
        process
            .shell
            .dial(k, id, self.cast.index, key, Box::new(plan));
    }

    fn dial_plan(&self) -> DialPlan {
        let me = self.me();
        let member = &self.cast.members[self.profile.hosts + self.index];
        let process = self.process.as_ref();
        DialPlan {
            url: cast::BROKER_URL.into(),
            mesh: self.cast.mesh.clone(),
            member_id: member.id.clone(),
            member_secret: member.secret.clone(),
            session: (me.role != Role::ControlPlane).then(|| SessionIdentity {
                secret: me.secret.clone(),
                role: me.role,
            }),
            session_id: SessionId::from(format!("puppet-{}", self.index)),
            about: About {
                display_name: Some(format!("puppet-{}", self.index)),
                ..About::default()
            },
            resume: process.and_then(|process| process.resume),
            quiet: false,
            receipts: Some(ReceiptsAfter {
                after: self.receipts_after,
            }),
            terms: self.age.terms(),
            sealed: !self.profile.ages.open,
            clock_offset_ms: process.map_or(0, |process| process.clock_offset_ms),
        }
    }

    fn redial_in(&mut self, k: &mut Kernel, ms: u64) {
        let node = self.node;
        let Some(process) = &mut self.process else {
            return;
        };
        if !std::mem::replace(&mut process.dial_due, true) {
            k.tell_later(ms * 1_000, node, NodeEvent::Process(WAKE_DIAL));
        }
    }

    fn on_link(&mut self, k: &mut Kernel, conn: ConnId, said: FromLink) {
        if self.said_quietly(k, conn, &said) {
            return;
        }
        match said {
            FromLink::Up(ack) => self.up(k, conn, &ack),
            FromLink::Frame(frame) => self.frame(k, conn, frame),
            FromLink::Down(down) => self.down(k, conn, &down),
            FromLink::Sent(_) => {}
        }
    }

    fn up(&mut self, k: &mut Kernel, id: ConnId, ack: &HelloAck) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.failures = 0;
        if let Some(hello) = process.shell.hello_of(id) {
            process.last_hello = Some(hello);
        }
        let Some(conn) = process.conns.get_mut(&id.0) else {
            return;
        };
        conn.up = true;
        let version = ack.protocol_version.and_then(ProtocolVersion::of);
        conn.version = version.unwrap_or(ProtocolVersion::V1);
        if let Some(stream) = ack.stream {
            conn.epoch = Some(stream.epoch);
            conn.count = stream.count;
            if ack.resumed != Some(Resumed::Hit) {
                process.resume = Some(Resume {
                    epoch: stream.epoch,
                    count: stream.count,
                });
            }
        }
        if ack.resumed != Some(Resumed::Hit) {
            self.say(
                k,
                id,
                &ClientFrame::ListPeers {
                    after: None,
                    limit: None,
                    req_id: Some(ReqId("list".into())),
                },
            );
        }
        if self.healed {
            self.be_idle(k);
            self.resend(k);
            self.unban_all(k);
        }
    }

    /// Takes all mail.
    fn be_idle(&mut self, k: &mut Kernel) {
        self.say_status(k, Status::Idle);
    }

    fn say_status(&mut self, k: &mut Kernel, status: Status) {
        let req_id = None;
        self.say_now(k, &ClientFrame::SetStatus { status, req_id });
    }

    fn frame(&mut self, k: &mut Kernel, id: ConnId, frame: BrokerFrame) {
        self.moderated(k, &frame);
        match frame {
            BrokerFrame::Event(_) => self.event(id),
            BrokerFrame::Push(push) => self.push(k, id, &push),
            BrokerFrame::Ack(ack) => self.acked(&ack),
            BrokerFrame::PeersList(list) => self.listed(k, id, list),
            BrokerFrame::Receipt(receipt) => {
                self.receipts_after = self.receipts_after.max(receipt.n);
            }
            BrokerFrame::HelloAck(_)
            | BrokerFrame::Stream(_)
            | BrokerFrame::MessageStatusResult(_)
            | BrokerFrame::ExplainResult(_)
            | BrokerFrame::KickAck(_)
            | BrokerFrame::DisconnectAck(_)
            | BrokerFrame::BanAck(_)
            | BrokerFrame::UnbanAck(_)
            | BrokerFrame::ListBansResult(_)
            | BrokerFrame::Error(_)
            | BrokerFrame::Ok { .. }
            | BrokerFrame::Pong { .. }
            | BrokerFrame::Unknown => {}
        }
    }

    /// Of two connections both may tell the same event: its number says so.
    fn event(&mut self, id: ConnId) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(conn) = process.conns.get_mut(&id.0) else {
            return;
        };
        conn.count += 1;
        if let (Some(resume), Some(epoch)) = (&mut process.resume, conn.epoch)
            && resume.epoch == epoch
        {
            resume.count = resume.count.max(conn.count);
        }
    }

    fn push(&mut self, k: &mut Kernel, id: ConnId, push: &Push) {
        let body = self.open(push);
        if body.is_some() && !self.got.contains(&push.message_id) {
            self.got.push(push.message_id.clone());
        }
        let (node, key) = (self.node, Arc::clone(&self.me().key));
        k.record_in(
            self.cast.index,
            Record::PuppetGot {
                node,
                key,
                sender: push.sender_pubkey,
                id: push.message_id.clone(),
                body,
            },
        );
        k.gossip.push(push.message_id.clone());
        let ack = ClientAck {
            client_message_id: Some(push.client_message_id.clone()),
            broker_message_id: Some(push.message_id.clone()),
        };
        let Some(process) = &mut self.process else {
            return;
        };
        if process.holds_acks {
            process.held_acks.push(ack);
            return;
        }
        self.acknowledge(k, id, ack);
    }

    fn acknowledge(&mut self, k: &mut Kernel, conn: ConnId, ack: ClientAck) {
        if let Some(id) = ack.broker_message_id.clone() {
            let key = Arc::clone(&self.me().key);
            k.record_in(self.cast.index, Record::PuppetAcked { key, id });
        }
        self.say(k, conn, &ClientFrame::ClientAck(ack));
    }

    fn open(&self, push: &Push) -> Option<String> {
        let me = self.me();
        let context = SealContext {
            mesh: &push.mesh_id,
            sender: &push.sender_pubkey,
            recipient: &me.pubkey,
            client_message_id: &push.client_message_id,
            priority: push.priority,
            reply_to: push.reply_to_id.as_ref(),
        };
        let sealed = Sealed {
            nonce: push.nonce.decode().try_into().ok()?,
            ciphertext: push.ciphertext.decode(),
        };
        let crypto = &self.cast.crypto;
        let plain = match Suite::of_message(push.seal.as_deref())? {
            Suite::X1 => crypto.open_x1(&me.secret, &context, &sealed).ok()?,
            Suite::Box => {
                let body = crypto.open_box(&me.secret, &push.sender_pubkey, &sealed);
                return String::from_utf8(body.ok()?).ok();
            }
        };
        let json: serde_json::Value = serde_json::from_slice(&plain).ok()?;
        Some(json.get("body")?.as_str()?.to_owned())
    }

    fn acked(&mut self, ack: &Ack) {
        let outgoing = self
            .sent
            .iter_mut()
            .find(|outgoing| outgoing.send.id.is_some() && outgoing.send.id == ack.id);
        let Some(outgoing) = outgoing else {
            return;
        };
        if ack.queued {
            outgoing.state = SendState::Accepted;
            outgoing.message_id = Some(ack.message_id.clone());
            return;
        }
        let kind = ack
            .code
            .as_deref()
            .and_then(SendCode::parse)
            .map_or(SendCodeKind::Transient, SendCode::kind);
        if kind == SendCodeKind::Permanent && outgoing.state == SendState::Unknown {
            outgoing.state = SendState::Refused;
        }
    }

    fn listed(&mut self, k: &mut Kernel, id: ConnId, list: PeersList) {
        let node = self.node;
        let key = Arc::clone(&self.me().key);
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(conn) = process.conns.get_mut(&id.0) else {
            return;
        };
        conn.listed
            .extend(list.peers.iter().map(|peer| peer.pubkey));
        let Some(after) = list.next else {
            let present = std::mem::take(&mut conn.listed).into_iter().collect();
            k.record_in(
                self.cast.index,
                Record::Listed {
                    node,
                    conn: id,
                    key,
                    present,
                },
            );
            return;
        };
        let frame = ClientFrame::ListPeers {
            after: Some(after),
            limit: None,
            req_id: Some(ReqId("list".into())),
        };
        self.say(k, id, &frame);
    }

    fn down(&mut self, k: &mut Kernel, id: ConnId, down: &Down) {
        let now = k.clock(self.node);
        let Some(process) = &mut self.process else {
            return;
        };
        process.conns.remove(&id.0);
        let mut wait_ms = process.draws.magnitude(50, 400 << process.failures.min(4));
        process.failures += 1;
        match down {
            Down::Refused {
                broker_time: Some(broker),
                ..
            } => {
                process.clock_offset_ms =
                    i64::try_from(broker.0).unwrap_or(0) - i64::try_from(now.wall.0).unwrap_or(0);
            }
            Down::Closed(close) if close.code == Close::NORMAL => {
                wait_ms = process.draws.between(1_000, 20_000);
            }
            // It does without.
            Down::Closed(close) if FeatureMismatch::of_close(close).is_some() => {
                self.age.requires = Requires::Nothing;
            }
            Down::Refused { .. }
            | Down::DialFailed { .. }
            | Down::FeatureMismatch(_)
            | Down::Closed(_) => {}
        }
        if process.wanted && process.conns.is_empty() {
            self.redial_in(k, wait_ms);
        }
    }

    fn say(&mut self, k: &mut Kernel, id: ConnId, frame: &ClientFrame) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(conn) = process.conns.get(&id.0) else {
            return;
        };
        let text = encode_client_in(conn.version, frame);
        process.shell.send(k, id, text);
    }

    /// On its newest connection that is up.
    fn say_now(&mut self, k: &mut Kernel, frame: &ClientFrame) -> bool {
        let Some(id) = self.current() else {
            return false;
        };
        self.say(k, id, frame);
        true
    }

    fn current(&self) -> Option<ConnId> {
        let process = self.process.as_ref()?;
        let newest = process.conns.iter().rev().find(|(_, conn)| conn.up);
        newest.map(|(id, _)| ConnId(*id))
    }

    fn send(
        &mut self,
        k: &mut Kernel,
        id: StepId,
        to: usize,
        bytes: usize,
        priority: Priority,
        first: bool,
    ) {
        let token = Token {
            sender: self.profile.users() + self.index,
            recipient: to,
            nth: u64::from(id.0),
        };
        let Some(target) = self.address(k, to) else {
            return;
        };
        let Some(send) = self.seal(&token.body(bytes), id, &target, priority) else {
            return;
        };
        let send = Send { first, ..send };
        self.sent.push(Outgoing {
            send: Send {
                first: false,
                ..send.clone()
            },
            state: SendState::Unknown,
            message_id: None,
        });
        k.record_in(
            self.cast.index,
            Record::PuppetSent {
                key: Arc::clone(&self.me().key),
                id: format!("p{}", id.0),
                altered: None,
                fingerprint: fingerprint(id, false),
            },
        );
        self.say_now(k, &ClientFrame::Send(Box::new(send)));
        if self.healed {
            self.resend_later(k);
        }
    }

    /// Users first, then puppets, then one whom nobody knows, as nobody here knows a puppet of
    /// another mesh.
    fn address(&self, k: &Kernel, to: usize) -> Option<PubKey> {
        let users = self.profile.users();
        if to < users {
            return k.addresses.get(&to).copied();
        }
        let is_here = self.profile.mesh_of(to) == self.cast.index;
        let puppet = self.cast.puppets.get(to - users).filter(|_| is_here);
        Some(puppet.map_or(cast::STRANGER, |puppet| puppet.pubkey))
    }

    /// What was sealed for somebody else.
    fn forge(&mut self, k: &mut Kernel, id: StepId, user: usize) {
        let Some(target) = k.addresses.get(&user).copied() else {
            return;
        };
        let me = self.me().pubkey;
        let Some(send) = self.seal("not for you", id, &me, Priority::Now) else {
            return;
        };
        let send = Send {
            target_spec: target.to_string(),
            ..send
        };
        self.sent.push(Outgoing {
            send: send.clone(),
            state: SendState::Unknown,
            message_id: None,
        });
        self.say_now(k, &ClientFrame::Send(Box::new(send)));
    }

    /// A hello of its own or of a user whose key it stole, and more in the same breath.
    fn eager(&mut self, k: &mut Kernel, user: Option<usize>) {
        let plan = match user {
            None => Some(DialPlan {
                resume: None,
                ..self.dial_plan()
            }),
            Some(user) => self.stolen_plan(user),
        };
        let Some(plan) = plan else { return };
        let Some(hello) = self.hello(k, plan) else {
            return;
        };
        let list = ClientFrame::ListPeers {
            after: None,
            limit: None,
            req_id: Some(ReqId("eager".into())),
        };
        let sock = k.dial(self.node);
        if let Some(process) = &mut self.process {
            let texts = vec![hello, encode_client(&list), encode_client(&list)];
            process.raw.insert(sock.conn, texts);
        }
    }

    fn stolen_plan(&self, user: usize) -> Option<DialPlan> {
        if self.profile.mesh_of(user) != self.cast.index {
            return None;
        }
        let host = user / self.profile.sessions_per_host;
        let held = self.hosts.get(host)?.borrow();
        let id = SessionId::from(format!("session-{user}"));
        let row = held
            .image
            .sessions
            .values()
            .find(|row| row.id == id && row.ended_at.is_none())?;
        let member = self.cast.members.get(host)?;
        Some(DialPlan {
            member_id: member.id.clone(),
            member_secret: member.secret.clone(),
            session: Some(SessionIdentity {
                secret: row.secret.clone(),
                role: row.role,
            }),
            session_id: id,
            about: About {
                display_name: Some(row.name.clone()),
                ..About::default()
            },
            resume: None,
            receipts: None,
            clock_offset_ms: 0,
            ..self.dial_plan()
        })
    }

    fn seal(
        &mut self,
        body: &str,
        id: StepId,
        target: &PubKey,
        priority: Priority,
    ) -> Option<Send> {
        let secret = self.me().secret.clone();
        let own = ClientMessageId::from(format!("p{}", id.0));
        self.seal_as(&secret, own, body, fingerprint(id, false), target, priority)
    }

    fn seal_as(
        &mut self,
        secret: &SecretKey,
        client_message_id: ClientMessageId,
        body: &str,
        fingerprint: Fingerprint,
        target: &PubKey,
        priority: Priority,
    ) -> Option<Send> {
        let plain = serde_json::json!({"v": 1, "body": body}).to_string();
        let context = SealContext {
            mesh: &self.cast.mesh,
            sender: &self.cast.crypto.public_key(secret),
            recipient: target,
            client_message_id: &client_message_id,
            priority,
            reply_to: None,
        };
        let process = self.process.as_mut()?;
        let sealed =
            self.cast
                .crypto
                .seal_x1(&mut process.entropy, secret, &context, plain.as_bytes())?;
        Some(Send {
            id: Some(client_message_id.as_str().to_owned()),
            client_message_id: Some(client_message_id),
            request_fingerprint: Some(fingerprint),
            target_spec: target.to_string(),
            priority,
            nonce: Base64Body::encode(&sealed.nonce),
            ciphertext: Base64Body::encode(&sealed.ciphertext),
            mentions: Vec::new(),
            reply_to_id: None,
            body_version: None,
            first: false,
            seal: Some("x1".into()),
        })
    }

    fn repeat(&mut self, k: &mut Kernel, step: StepId, nth: usize, altered: bool) {
        if self.sent.is_empty() {
            return;
        }
        let at = nth % self.sent.len();
        let mut send = self.sent[at].send.clone();
        if altered {
            // Another answer is expected for it, so that it has another id of its own.
            send.id = Some(format!("x{}", step.0));
            send.request_fingerprint = Some(fingerprint(step, true));
            k.record_in(
                self.cast.index,
                Record::PuppetSent {
                    key: Arc::clone(&self.me().key),
                    id: format!("x{}", step.0),
                    altered: send.client_message_id.clone(),
                    fingerprint: fingerprint(step, true),
                },
            );
        }
        self.say_now(k, &ClientFrame::Send(Box::new(send)));
    }

    fn tag(&mut self, k: &mut Kernel) {
        let tag = self.tags + 1;
        let frame = ClientFrame::SetProfile {
            profile: PeerProfile {
                title: Some(format!("tag-{tag}")),
                ..PeerProfile::default()
            },
            id: Some(format!("t{tag}")),
            req_id: None,
        };
        if self.say_now(k, &frame) {
            self.tags = tag;
            k.record_in(
                self.cast.index,
                Record::Tagged {
                    key: Arc::clone(&self.me().key),
                    tag,
                },
            );
        }
    }

    fn bye(&mut self, k: &mut Kernel, back_after_ms: u64) {
        if !self.say_now(k, &ClientFrame::Bye) {
            return;
        }
        if let Some(process) = &mut self.process {
            process.wanted = false;
            process.resume = None;
        }
        k.tell_later(
            back_after_ms * 1_000,
            self.node,
            NodeEvent::Process(WAKE_DIAL),
        );
        if let Some(process) = &mut self.process {
            process.dial_due = true;
        }
    }

    fn replay_hello(&mut self, k: &mut Kernel) {
        let node = self.node;
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(hello) = process.last_hello.clone() else {
            return;
        };
        let sock = k.dial(node);
        process.raw.insert(sock.conn, vec![hello]);
    }

    fn garbage(&mut self, k: &mut Kernel, kind: usize) {
        let Some(id) = self.current() else { return };
        let Some(process) = &mut self.process else {
            return;
        };
        let texts: &[&'static [u8]] = match kind {
            0 => &[b"not json"],
            1 => &[b"{\"type\":\"no_such_frame\",\"_reqId\":\"r1\"}"],
            2 => &[b"{\"type\":\"send\",\"id\":\"g1\",\"priority\":\"now\"}"],
            3 => &[&b"[]"[..]; 25],
            _ => &[b"{\"type\":\"ping\",\"n\":7}", b"\xff\xfe", b"{}"],
        };
        for text in texts {
            process.shell.send(k, id, Bytes::from_static(text));
        }
    }

    /// Its first hello says a version that is none: nothing of a hello but what proves its speaker
    /// is signed.
    fn misspeak(&mut self, k: &mut Kernel) {
        let Some(hello) = self.hello(k, self.dial_plan()) else {
            return;
        };
        let mut json: serde_json::Value = serde_json::from_slice(&hello).unwrap_or_default();
        json["protocolVersion"] = serde_json::json!(0);
        let sock = k.dial(self.node);
        if let Some(process) = &mut self.process {
            let texts = vec![Bytes::from(json.to_string())];
            process.raw.insert(sock.conn, texts);
        }
    }

    /// What a link would say first.
    fn hello(&self, k: &Kernel, plan: DialPlan) -> Option<Bytes> {
        let crypto = Arc::clone(&self.cast.crypto);
        let mut link = ClientLink::new(k.clock(self.node), plan, crypto);
        link.handle_input(k.clock(self.node), client::Input::Connected);
        match link.poll_output() {
            Some(client::Output::Send(hello)) => Some(hello),
            _ => None,
        }
    }

    /// Comes back as what it is after its update.
    fn update(&mut self, k: &mut Kernel) {
        let updated = self.age.updated();
        if std::mem::replace(&mut self.age, updated) == updated {
            return;
        }
        let Some(process) = &mut self.process else {
            return;
        };
        k.fault_marks.hit(FaultMark::ClientUpdated);
        let ids: Vec<u64> = process.conns.keys().copied().collect();
        for id in ids {
            let close = Close::new(Close::GOING_AWAY, "updated");
            process.shell.hang_up(k, ConnId(id), close);
        }
    }

    fn resend(&mut self, k: &mut Kernel) {
        let unknown: Vec<Send> = self
            .sent
            .iter()
            .filter(|outgoing| outgoing.state == SendState::Unknown)
            .map(|outgoing| outgoing.send.clone())
            .collect();
        for send in unknown {
            self.say_now(k, &ClientFrame::Send(Box::new(send)));
        }
        self.resend_later(k);
    }

    fn resend_later(&mut self, k: &mut Kernel) {
        let node = self.node;
        let Some(process) = &mut self.process else {
            return;
        };
        if !std::mem::replace(&mut process.resend_due, true) {
            k.tell_later(
                RESEND_EVERY_MS * 1_000,
                node,
                NodeEvent::Process(WAKE_RESEND),
            );
        }
    }

    fn release_acks(&mut self, k: &mut Kernel) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.holds_acks = false;
        let held = std::mem::take(&mut process.held_acks);
        let Some(id) = self.current() else { return };
        for ack in held {
            self.acknowledge(k, id, ack);
        }
    }

    fn set_reading(&mut self, k: &mut Kernel, reading: bool) {
        let Some(process) = &mut self.process else {
            return;
        };
        let ids: Vec<u64> = process.conns.keys().copied().collect();
        for id in ids {
            process.shell.set_reading(k, ConnId(id), reading);
        }
    }

    fn wake(&mut self, k: &mut Kernel, what: u64) {
        match what {
            WAKE_DIAL => {
                let Some(process) = &mut self.process else {
                    return;
                };
                process.dial_due = false;
                process.wanted = true;
                if process.conns.is_empty() {
                    self.dial(k);
                }
            }
            WAKE_ACKS => self.release_acks(k),
            WAKE_READ => self.set_reading(k, true),
            WAKE_UNBAN => self.unban_all(k),
            WAKE_QUIET => self.hang_up_quiet(k),
            WAKE_TAG => {
                self.tag(k);
                self.unban_all(k);
                // Also over whatever an older connection has said meanwhile: a control plane may
                // have several, with no order between them.
                self.be_idle(k);
            }
            WAKE_RESEND => {
                if let Some(process) = &mut self.process {
                    process.resend_due = false;
                }
                let unknown = |outgoing: &Outgoing| outgoing.state == SendState::Unknown;
                if self.sent.iter().any(unknown) {
                    self.resend(k);
                }
            }
            _ => {}
        }
    }

    /// A connection without a link: true if the event was for one.
    fn raw(&mut self, k: &mut Kernel, event: &NodeEvent) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        match event {
            NodeEvent::Connected(sock) => {
                let Some(texts) = process.raw.get(&sock.conn).cloned() else {
                    return false;
                };
                for bytes in texts {
                    let counted = false;
                    k.write(*sock, Packet::Text { bytes, counted });
                }
                true
            }
            NodeEvent::ConnectFailed(sock) | NodeEvent::Closed { sock, .. } => {
                process.raw.remove(&sock.conn).is_some()
            }
            NodeEvent::Received { sock, .. } | NodeEvent::Handed { sock, .. } => {
                process.raw.contains_key(&sock.conn)
            }
            _ => false,
        }
    }
}

fn fingerprint(of: StepId, altered: bool) -> Fingerprint {
    let mut bytes = [u8::from(altered); 32];
    bytes[..4].copy_from_slice(&of.0.to_le_bytes());
    Fingerprint(bytes)
}

impl Node for Puppet {
    fn start(&mut self, k: &mut Kernel) {
        let timing = Timing {
            late_most_us: self.profile.timer_late_most_us,
            spurious_per_mille: self.profile.spurious_per_mille,
        };
        let life = k.incarnation(self.node);
        self.process = Some(Process {
            shell: ClientShell::new(
                self.node,
                Arc::clone(&self.cast.crypto),
                timing,
                self.profile.hop_most_us,
            ),
            entropy: Entropy::from_seed(machine_seed(&k.random, self.node, life)),
            draws: k
                .random
                .stream(Purpose::Client, (self.node as u64) << 32 | u64::from(life)),
            next_conn: 0,
            conns: BTreeMap::new(),
            quiet: BTreeMap::new(),
            resume: None,
            wanted: true,
            dial_due: false,
            failures: 0,
            clock_offset_ms: 0,
            last_hello: None,
            holds_acks: false,
            held_acks: Vec::new(),
            raw: BTreeMap::new(),
            resend_due: false,
        });
        if self.age.misspeaks {
            self.misspeak(k);
        }
        self.dial(k);
    }

    fn stop(&mut self, k: &mut Kernel) {
        if let Some(process) = self.process.take() {
            let mut marks = Marks::default();
            process.shell.marks(&mut marks);
            k.marks.add(&marks);
        }
    }

    fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn role(&self) -> NodeRole {
        NodeRole::Client
    }

    fn on(&mut self, k: &mut Kernel, event: NodeEvent) {
        if self.raw(k, &event) {
            return;
        }
        let Some(process) = &mut self.process else {
            return;
        };
        if process.shell.on(k, &event) {
            return;
        }
        match event {
            NodeEvent::Hop { queue, .. } => {
                if let Some((conn, said)) = process.shell.arrived(k, queue) {
                    self.on_link(k, conn, said);
                }
            }
            NodeEvent::Process(what) => self.wake(k, what),
            _ => {}
        }
    }

    fn act(&mut self, k: &mut Kernel, id: StepId, action: &Action) {
        match action {
            Action::PuppetSend {
                to,
                bytes,
                priority,
                first,
                ..
            } => self.send(k, id, *to, *bytes, *priority, *first),
            Action::PuppetRepeat { nth, altered, .. } => self.repeat(k, id, *nth, *altered),
            Action::PuppetSeen { .. } => self.say_seen(k),
            Action::PuppetAsk { nth, what, .. } => self.ask(k, *nth, *what),
            Action::PuppetTag { times, .. } => (0..*times).for_each(|_| self.tag(k)),
            Action::PuppetFlood { to, times, .. } => {
                k.fault_marks.hit(FaultMark::Flooded);
                for nth in 1..=*times {
                    // Steps are fewer than would fit below.
                    let id = StepId(id.0 | (nth as u32) << 16);
                    self.send(k, id, *to, FLOOD_BYTES, Priority::Next, true);
                }
            }
            Action::PuppetStatus { status, .. } => self.say_status(k, *status),
            Action::PuppetBye { back_after_ms, .. } => self.bye(k, *back_after_ms),
            Action::PuppetHoldAcks { for_ms, .. } => {
                if let Some(process) = &mut self.process {
                    process.holds_acks = true;
                    k.tell_later(for_ms * 1_000, self.node, NodeEvent::Process(WAKE_ACKS));
                }
            }
            Action::PuppetDeaf { for_ms, .. } => {
                self.set_reading(k, false);
                k.tell_later(for_ms * 1_000, self.node, NodeEvent::Process(WAKE_READ));
            }
            Action::PuppetReplayHello { .. } => self.replay_hello(k),
            Action::PuppetTwin { .. } => self.dial(k),
            Action::PuppetFalseAck { .. } => {
                let Some(message) = k.gossip.last().cloned() else {
                    return;
                };
                self.false_ack(k, message);
            }
            Action::PuppetGarbage { kind, .. } => self.garbage(k, *kind),
            Action::PuppetEager { user, .. } => self.eager(k, *user),
            Action::PuppetForge { user, .. } => self.forge(k, id, *user),
            Action::PuppetQuiet {
                to,
                stranger,
                twice,
                nosy,
                for_ms,
                ..
            } => {
                let wanted = quiet::Wanted {
                    to: *to,
                    stranger: *stranger,
                    twice: *twice,
                    nosy: *nosy,
                    for_ms: *for_ms,
                };
                self.be_quiet(k, id, &wanted);
            }
            Action::PuppetModerate {
                what, of, for_ms, ..
            } => self.moderate(k, id, *what, *of, *for_ms),
            _ => {}
        }
    }

    fn set_store_fault(&mut self, _: &mut Kernel, _: Option<StoreFault>) {}

    fn heal(&mut self, k: &mut Kernel) {
        self.healed = true;
        self.set_reading(k, true);
        if let Some(process) = &mut self.process {
            for conn in std::mem::take(&mut process.raw).into_keys() {
                let end = End::Dialer;
                k.close(Sock { conn, end }, Close::new(Close::NORMAL, "done"));
            }
        }
        for after_s in TAGS_AFTER_HEALING_S {
            k.tell_later(after_s * 1_000_000, self.node, NodeEvent::Process(WAKE_TAG));
        }
        self.release_acks(k);
        self.be_idle(k);
        self.resend(k);
        self.hang_up_quiet(k);
        self.moderation_heals(k);
        self.update(k);
        if let Some(process) = &mut self.process {
            let absent = process.conns.is_empty();
            process.wanted = true;
            if absent {
                self.redial_in(k, 100);
            }
        }
    }

    fn unmet(&self, _: &Kernel) -> Option<String> {
        let me = self.index;
        if self.current().is_none() {
            return Some(format!("puppet {me} is not connected"));
        }
        if let Some(target) = self.bans.first() {
            return Some(format!(
                "puppet {me} has not taken back its ban of {target}"
            ));
        }
        let unknown = self
            .sent
            .iter()
            .find(|outgoing| outgoing.state == SendState::Unknown)?;
        Some(format!(
            "puppet {me} has no answer to its send {:?}",
            unknown.send.id
        ))
    }

    fn marks(&self, into: &mut Marks) {
        if let Some(process) = &self.process {
            process.shell.marks(into);
        }
    }
}

impl Puppet {
    fn false_ack(&mut self, k: &mut Kernel, message: MessageId) {
        let frame = ClientFrame::ClientAck(ClientAck {
            client_message_id: None,
            broker_message_id: Some(message),
        });
        self.say_now(k, &frame);
    }
}

//! A host under a hand-driven clock, store and broker.

mod ending;
mod links;
mod messages;
mod moderation;
mod presence;
mod receipts;
mod receiving;
mod sealing;
mod seen;
mod sending;
mod sessions;
mod stalls;
mod streams;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::{Value, json};

use super::io::{Config, HttpCall, HttpOutcome, Input, LogLevel, Output, SseEvent};
use super::ipc::{Answer, Call, Request, SendRequest, SessionOpen, Subscribe, Token};
use super::sessions::token_hash;
use super::{Host, Why};
use crate::crypto::stand_in::StandIn;
use crate::crypto::{Crypto, SealContext, SecretKey};
use crate::entropy::Entropy;
use crate::id::{
    ClientMessageId, ConnId, Epoch, InboxSeq, LoadId, MemberId, MeshId, MessageId, PresenceId,
    PubKey, RequestId, SessionId, SubscriberId,
};
use crate::limits::Limits;
use crate::link::{DialPlan, Down};
use crate::machine::Machine;
use crate::mark::Mark;
use crate::store::host::{Image, Load, MeshRow, Op};
use crate::store::{Event, Owner, Stall, Term, Txn, TxnId};
use crate::time::{Mono, Now, Wall};
use crate::wire::broker::{Ack, HelloAck, MemberProfile, Push, Resumed, StreamAt};
use crate::wire::client::Resume;
use crate::wire::feature::{Features, Terms};
use crate::wire::receipt::{Receipt, Rung};
use crate::wire::{Base64Body, BrokerFrame, ClientFrame, Close, Priority, Send, decode_client};

const MACHINE_TOKEN: &str = "machine";
const EPOCH: Epoch = Epoch([7; 16]);

/// Where the store stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// Commits and answers at once.
    Prompt,
    /// Keeps transactions and questions until told.
    Held,
}

struct Bench {
    host: Host,
    now: Now,
    limits: Limits,
    image: Image,
    store: Store,
    uncommitted: VecDeque<Txn<Op>>,
    unanswered: VecDeque<(LoadId, Load)>,
    committed: TxnId,
    answers: BTreeMap<RequestId, Answer>,
    dials: VecDeque<(ConnId, DialPlan)>,
    /// Frames that left, in order, with the key of the identity whose hello the connection carried.
    frames: Vec<(ConnId, ClientFrame)>,
    hangups: Vec<(ConnId, Close)>,
    events: BTreeMap<SubscriberId, Vec<SseEvent>>,
    ended_streams: Vec<SubscriberId>,
    refused_streams: Vec<(SubscriberId, Answer)>,
    http: VecDeque<(RequestId, HttpCall)>,
    errors: Vec<String>,
    stopped: bool,
    /// Up connections, by the key that they speak for.
    up: BTreeMap<PubKey, ConnId>,
    last_request: u64,
}

struct OpenedSession {
    id: SessionId,
    token: String,
    pubkey: PubKey,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let mut image = Image::default();
        image.apply(&Op::MeshPut(Box::new(mesh_row("m1"))));
        Self::over(image, limits, TxnId(0), now_at(1_000))
    }

    fn over(image: Image, limits: Limits, last_txn: TxnId, now: Now) -> Self {
        let owner = Owner {
            term: Term(1),
            last_txn,
        };
        let config = Config {
            limits: limits.clone(),
            terms: Terms::default(),
            machine_token_sha256: token_hash(MACHINE_TOKEN),
            hostname: "testhost".into(),
            version: "0.0.0",
        };
        let seed = [u8::try_from(last_txn.0 % 251).unwrap(); 32];
        let host = Host::new(config, seed, Arc::new(StandIn), image.recover(owner), now);
        Self {
            host,
            now,
            limits,
            image,
            store: Store::Prompt,
            uncommitted: VecDeque::new(),
            unanswered: VecDeque::new(),
            committed: last_txn,
            answers: BTreeMap::new(),
            dials: VecDeque::new(),
            frames: Vec::new(),
            hangups: Vec::new(),
            events: BTreeMap::new(),
            ended_streams: Vec::new(),
            refused_streams: Vec::new(),
            http: VecDeque::new(),
            errors: Vec::new(),
            stopped: false,
            up: BTreeMap::new(),
            last_request: 0,
        }
    }

    /// Everything that was not committed is gone.
    fn crash(self) -> Self {
        let mut later = self.now;
        later.mono = later.mono + Duration::from_secs(1);
        later.wall = later.wall + Duration::from_secs(1);
        Self::over(self.image, self.limits, self.committed, later)
    }

    fn feed(&mut self, input: Input) {
        self.host.handle_input(self.now, input);
        self.pump();
    }

    /// Carries out outputs until nothing moves.
    fn pump(&mut self) {
        loop {
            while let Some(output) = self.host.poll_output() {
                self.carry_out(output);
            }
            if self.store == Store::Held || !self.store_step() {
                return;
            }
        }
    }

    fn store_step(&mut self) -> bool {
        if let Some(txn) = self.uncommitted.pop_front() {
            self.commit(txn);
            return true;
        }
        if let Some((load, what)) = self.unanswered.pop_front() {
            let loaded = self.image.load(&what);
            let event = Event::Loaded { load, loaded };
            self.host.handle_input(self.now, Input::Store(event));
            return true;
        }
        false
    }

    fn commit(&mut self, txn: Txn<Op>) {
        assert_eq!(txn.id, self.committed.next(), "ids are consecutive");
        txn.ops.iter().for_each(|op| self.image.apply(op));
        self.committed = txn.id;
        let event = Event::Persisted { upto: txn.id };
        self.host.handle_input(self.now, Input::Store(event));
    }

    /// The store catches up, and is prompt from here on.
    fn catch_up(&mut self) {
        self.store = Store::Prompt;
        self.pump();
        while self.store_step() {
            self.pump();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { conn, plan } => self.dials.push_back((conn, *plan)),
            Output::Send { conn, frame } => {
                let frame = decode_client(&frame).expect("a host sends good frames");
                self.frames.push((conn, frame));
            }
            Output::Hangup { conn, close } => {
                self.up.retain(|_, own| *own != conn);
                self.hangups.push((conn, close));
            }
            Output::Persist(txn) => self.uncommitted.push_back(txn),
            Output::Load { load, what } => self.unanswered.push_back((load, what)),
            Output::Answer { request, answer } => {
                let before = self.answers.insert(request, answer);
                assert!(before.is_none(), "a request is answered once");
            }
            Output::SubscribeRefused { subscriber, answer } => {
                self.refused_streams.push((subscriber, answer));
            }
            Output::Event { subscriber, event } => {
                self.events.entry(subscriber).or_default().push(event);
            }
            Output::EndEvents { subscriber } => self.ended_streams.push(subscriber),
            Output::Http { request, http } => self.http.push_back((request, http)),
            Output::Log { level, message } => {
                if level == LogLevel::Error {
                    self.errors.push(message);
                }
            }
            Output::Stopped => self.stopped = true,
        }
    }

    /// Runs deadlines one by one.
    fn advance(&mut self, by: Duration) {
        let end = self.now.mono + by;
        while let Some(next) = self.host.poll_timeout().filter(|next| next.at <= end) {
            self.move_to(next.at.max(self.now.mono));
            self.host.handle_timeout(self.now);
            self.pump();
            let due = self.host.poll_timeout().map(|next| next.at);
            assert!(
                due.is_none_or(|at| at > self.now.mono),
                "nothing is due after handle_timeout"
            );
        }
        self.move_to(end);
    }

    /// The host does not run.
    fn sleep(&mut self, by: Duration) {
        self.move_to(self.now.mono + by);
    }

    fn move_to(&mut self, at: Mono) {
        self.now.wall = self.now.wall + at.since(self.now.mono);
        self.now.mono = at;
    }

    /// Lets every wanted uplink dial and takes its hello; nothing is resumed.
    fn connect(&mut self) {
        self.advance(Duration::from_millis(300));
        while let Some((conn, plan)) = self.dials.pop_front() {
            self.take_hello(conn, &plan, Resumed::Fresh, 0);
        }
    }

    fn take_hello(&mut self, conn: ConnId, plan: &DialPlan, resumed: Resumed, count: u64) {
        let secret = plan.session.as_ref().map(|session| &session.secret);
        let key = StandIn.public_key(secret.unwrap_or(&plan.member_secret));
        self.up.insert(key, conn);
        let ack = hello_ack(resumed, count);
        self.feed(Input::Up {
            conn,
            ack: Box::new(ack),
        });
        self.feed_empty_snapshots(conn);
    }

    /// Answers what the host asks of presence with "nobody".
    fn feed_empty_snapshots(&mut self, conn: ConnId) {
        let asked: Vec<_> = self
            .frames
            .iter()
            .filter_map(|(on, frame)| match frame {
                ClientFrame::ListPeers { req_id, .. } if *on == conn => req_id.clone(),
                _ => None,
            })
            .collect();
        self.frames
            .retain(|(_, frame)| !matches!(frame, ClientFrame::ListPeers { .. }));
        for req_id in asked {
            let page = crate::wire::broker::PeersList {
                peers: Vec::new(),
                next: None,
                req_id: Some(req_id),
            };
            self.frame(conn, BrokerFrame::PeersList(page));
        }
    }

    fn frame(&mut self, conn: ConnId, frame: BrokerFrame) {
        self.feed(Input::Frame { conn, frame });
    }

    fn drop_conn(&mut self, conn: ConnId, close: Close) {
        self.up.retain(|_, own| *own != conn);
        let down = Down::Closed(close);
        self.feed(Input::Down { conn, down });
    }

    fn member_key(&self) -> PubKey {
        StandIn.public_key(&mesh_row("m1").member_secret)
    }

    fn conn_of(&self, key: &PubKey) -> ConnId {
        self.up[key]
    }

    fn call(&mut self, token: &str, request: Request) -> RequestId {
        let token = match token {
            "" => Token::Absent,
            token => Token::Bearer(token.into()),
        };
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.feed(Input::Ipc {
            request: id,
            call: Box::new(Call { token, request }),
        });
        id
    }

    /// A call that is answered by now.
    fn ask(&mut self, token: &str, request: Request) -> Answer {
        let id = self.call(token, request);
        self.answered(id).expect("answered at once")
    }

    fn answered(&mut self, id: RequestId) -> Option<Answer> {
        self.answers.remove(&id)
    }

    fn open(&mut self, name: &str) -> OpenedSession {
        let answer = self.ask("", Request::SessionOpen(session_open(name)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = |key: &str| answer.body[key].as_str().unwrap().to_string();
        OpenedSession {
            id: SessionId::from(text("session_id")),
            token: text("token"),
            pubkey: text("pubkey").parse().unwrap(),
        }
    }

    /// A session whose uplink is up.
    fn session(&mut self, name: &str) -> OpenedSession {
        let session = self.open(name);
        self.connect();
        session
    }

    fn send(&mut self, token: &str, to: &str, body: &str, id: Option<&str>) -> RequestId {
        self.call(token, send_request(to, body, id))
    }

    fn send_now(&mut self, token: &str, to: &str, body: &str, id: Option<&str>) -> Answer {
        self.ask(token, send_request(to, body, id))
    }

    /// The sends that left since this was last asked.
    fn take_sends(&mut self) -> Vec<(ConnId, Send)> {
        let (sends, rest) = core::mem::take(&mut self.frames)
            .into_iter()
            .partition(|(_, frame)| matches!(frame, ClientFrame::Send(_)));
        self.frames = rest;
        let sends: Vec<(ConnId, ClientFrame)> = sends;
        sends
            .into_iter()
            .filter_map(|(conn, frame)| match frame {
                ClientFrame::Send(send) => Some((conn, *send)),
                _ => None,
            })
            .collect()
    }

    fn ack(&mut self, conn: ConnId, send: &Send) {
        let ack = Ack {
            id: send.id.clone(),
            message_id: "broker-1".into(),
            queued: true,
            ..Ack::default()
        };
        self.frame(conn, BrokerFrame::Ack(Box::new(ack)));
    }

    fn refuse(&mut self, conn: ConnId, send: &Send, code: &str, retry_after_ms: Option<u64>) {
        let ack = Ack {
            id: send.id.clone(),
            queued: false,
            error: Some("later".into()),
            code: Some(code.into()),
            retry_after_ms,
            ..Ack::default()
        };
        self.frame(conn, BrokerFrame::Ack(Box::new(ack)));
    }

    /// A message from `sender` to `to`, sealed as a peer would.
    fn push(&mut self, to: &PubKey, sender: &SecretKey, id: &str, body: &str) -> MessageId {
        let conn = self.conn_of(to);
        let push = sealed_push(to, sender, id, body);
        let message = push.message_id.clone();
        self.frame(conn, BrokerFrame::Push(Box::new(push)));
        message
    }

    /// Receipt number `n` of a message of `to`, on its connection.
    fn receipt(&mut self, to: &PubKey, n: u64, id: &str, rung: Rung) {
        let receipt = receipt(n, id, rung);
        self.frame(self.conn_of(to), BrokerFrame::Receipt(receipt));
    }

    /// The frames of a kind that left since this was last asked.
    fn take_frames<T>(&mut self, pick: impl Fn(&ClientFrame) -> Option<T>) -> Vec<(ConnId, T)> {
        let mut taken = Vec::new();
        self.frames.retain(|(conn, frame)| match pick(frame) {
            Some(one) => {
                taken.push((*conn, one));
                false
            }
            None => true,
        });
        taken
    }

    /// Messages acknowledged to the broker since this was last asked.
    fn take_client_acks(&mut self) -> Vec<MessageId> {
        let (acks, rest) = core::mem::take(&mut self.frames)
            .into_iter()
            .partition(|(_, frame)| matches!(frame, ClientFrame::ClientAck(_)));
        self.frames = rest;
        let acks: Vec<(ConnId, ClientFrame)> = acks;
        acks.into_iter()
            .filter_map(|(_, frame)| match frame {
                ClientFrame::ClientAck(ack) => ack.broker_message_id,
                _ => None,
            })
            .collect()
    }

    fn listen(&mut self, token: &str, after: Option<u64>) -> SubscriberId {
        self.last_request += 1;
        let subscriber = SubscriberId(self.last_request);
        self.feed(Input::Subscribe {
            subscriber,
            subscribe: Box::new(Subscribe {
                token: match token {
                    "" => Token::Absent,
                    token => Token::Bearer(token.into()),
                },
                last_event_id: after.map(InboxSeq),
                all: false,
                mesh: None,
            }),
        });
        subscriber
    }

    /// Events since this was last asked, as name and data.
    fn take_events(&mut self, subscriber: SubscriberId) -> Vec<(&'static str, Value)> {
        let events = self.events.remove(&subscriber).unwrap_or_default();
        let read = |event: SseEvent| (event.event, serde_json::from_slice(&event.data).unwrap());
        events.into_iter().map(read).collect()
    }

    fn mark(&self, mark: Mark) -> u64 {
        self.host.marks().get(mark)
    }

    fn health(&mut self) -> Value {
        self.ask("", Request::Health).body
    }
}

fn now_at(seconds: u64) -> Now {
    Now {
        mono: Mono(seconds * 1_000_000),
        wall: Wall(1_700_000_000_000 + seconds * 1_000),
    }
}

fn mesh_row(id: &str) -> MeshRow {
    MeshRow {
        id: MeshId::from(id),
        slug: alloc::format!("{id}-slug"),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
        policy: "sealed".into(),
        display_name: "host".into(),
        member_id: MemberId::from("mem1"),
        member_secret: SecretKey::from_bytes([1; 32]),
        owner_pubkey: PubKey([9; 32]),
        owner_secret: None,
        mesh_root_key: "cm9vdA".into(),
        joined_at: Wall(0),
    }
}

fn hello_ack(resumed: Resumed, count: u64) -> HelloAck {
    HelloAck {
        presence_id: PresenceId::from("p"),
        member_display_name: "host".into(),
        member_profile: MemberProfile::default(),
        services: None,
        protocol_version: Some(1),
        features: Some(Features::of_mesh(&Limits::default(), false)),
        lease_ttl_ms: Some(90_000),
        stream: Some(StreamAt {
            epoch: EPOCH,
            count,
        }),
        resumed: Some(resumed),
    }
}

fn session_open(name: &str) -> SessionOpen {
    SessionOpen {
        session_id: None,
        mesh: None,
        display_name: name.into(),
        pid: None,
        cwd: None,
        role: None,
        groups: Vec::new(),
        take_over: false,
    }
}

fn send_request(to: &str, body: &str, id: Option<&str>) -> Request {
    Request::Send {
        send: SendRequest {
            to: to.into(),
            body: body.into(),
            priority: None,
            meta: None,
            reply_to_id: None,
            mesh: None,
        },
        id: id.map(ClientMessageId::from),
    }
}

fn peer(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn key_of(secret: &SecretKey) -> PubKey {
    StandIn.public_key(secret)
}

fn hex_of(secret: &SecretKey) -> String {
    key_of(secret).to_string()
}

fn sealed_push(to: &PubKey, sender: &SecretKey, id: &str, body: &str) -> Push {
    let sender_pubkey = key_of(sender);
    let (mesh, id) = (MeshId::from("m1"), ClientMessageId::from(id));
    let context = SealContext {
        mesh: &mesh,
        sender: &sender_pubkey,
        recipient: to,
        client_message_id: &id,
        priority: Priority::Next,
        reply_to: None,
    };
    let plain = json!({ "v": 1, "body": body }).to_string();
    let sealed = StandIn
        .seal_x1(
            &mut Entropy::from_seed([3; 32]),
            sender,
            &context,
            plain.as_bytes(),
        )
        .unwrap();
    Push {
        message_id: MessageId::from(alloc::format!("{sender_pubkey}-{id}")),
        mesh_id: mesh.clone(),
        sender_pubkey,
        sender_member_pubkey: None,
        sender_member_id: None,
        sender_name: "peer".into(),
        reply_to_id: None,
        priority: Priority::Next,
        nonce: Base64Body::encode(&sealed.nonce),
        ciphertext: Base64Body::encode(&sealed.ciphertext),
        created_at: "2026-01-01T00:00:00.000Z".into(),
        client_message_id: id.clone(),
        request_fingerprint: None,
        body_version: None,
        target_spec: None,
        seal: Some("x1".into()),
        attempt: None,
    }
}

fn receipt(n: u64, id: &str, rung: Rung) -> Receipt {
    Receipt {
        n,
        client_message_id: ClientMessageId::from(id),
        recipient: key_of(&peer(5)),
        rung,
        reason: None,
        at: alloc::format!("at {n}"),
    }
}

fn code(answer: &Answer) -> (u16, &str) {
    let code = answer.body["error"]["code"].as_str();
    (answer.status, code.unwrap_or_default())
}

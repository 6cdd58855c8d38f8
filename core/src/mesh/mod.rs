//! The broker's machine: one mesh.
//!
//! It is composed of parts that know nothing of one another: [`lease`] (who is here), [`stream`]
//! (what a peer is told), [`delivery`] (what a peer is owed), [`roster`] (who belongs), [`hellos`],
//! [`kicked`], [`limiter`], [`presence`] and [`crate::dedupe`]. A part returns facts; the files named after an
//! activity wire them: [`attaching`], [`quiet`], [`accepting`], [`delivering`], [`telling`],
//! [`joining`], [`moderation`].
//!
//! Invariants:
//! - **What promises durability leaves through the gate** ([`Promise`]): acks of accepts, pushes,
//!   responses, and telling others of a join or a leave. `hello_ack` promises nothing.
//! - **Reads never decide**, but for the dedupe look-up.
//! - **A connection that was replaced is not in `conns`**: nothing it still sends is honoured, and
//!   its late close changes nothing.

mod accepting;
mod attaching;
mod census;
mod conn;
mod delivering;
mod delivery;
mod durable;
mod expiring;
mod explaining;
mod hellos;
mod hook;
pub mod http;
mod io;
mod joining;
mod kicked;
mod lease;
mod limiter;
mod moderation;
mod peer;
mod presence;
mod quiet;
mod receipts;
mod roster;
mod settlements;
mod stream;
mod telling;
#[cfg(test)]
mod tests;
mod waiting;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

pub use census::Census;
pub use io::{Config, Input, Output, Request, Response, Whose};

use self::accepting::{PendingAck, PendingSend};
use self::conn::Conn;
use self::delivery::{Owed, Page};
use self::hellos::SeenHellos;
use self::kicked::Kicked;
use self::lease::Lease;
use self::limiter::{Bucket, Rate};
use self::peer::Peer;
use self::presence::Announcement;
use self::receipts::Numbers;
use self::roster::Roster;
use self::settlements::Settlements;
use self::stream::Stream;
use self::waiting::Greeting;
use crate::dedupe::Dedupe;
use crate::entropy::Entropy;
use crate::gate::{Durable, Gate};
use crate::id::{
    ClientMessageId, ConnId, Epoch, LoadId, MemberId, MessageSeq, PeerKey, PubKey, ReceiptNumber,
    RequestId, Role,
};
use crate::limits::{
    ACCEPT_DURABLE_WITHIN, FRAME_BYTES, HELD_FRAMES_BEHIND_LOOK_UP, HELLOS_WAITING, INPUTS_WAITING,
    KNOWN_ABSENT_PER_MESH, Limits, MEMBERS_PER_MESH, OWNER_LATE, PEERS_PER_MESH,
    SEEN_HELLOS_PER_MESH, SEEN_IDS_PER_FRAME, UNPERSISTED_TXNS,
};
use crate::machine::{Machine, Outbox, Timeout};
use crate::mark::{Mark, Marks};
use crate::store::ledger::Ledger;
use crate::store::mesh::{DedupeRow, Load, Loaded, Op, PeerRow, ReceiptRow, Recovered};
use crate::store::{self, Stall, TxnId};
use crate::time::{Mono, Now, Wall};
use crate::wire::client::ReqId;
use crate::wire::encode::encode_broker;
use crate::wire::{BrokerFrame, Close, SendCode};

pub struct Mesh {
    config: Config,
    entropy: Entropy,
    roster: Roster,
    hellos: SeenHellos,
    /// Every peer that may be written to, here or away.
    peers: BTreeMap<PeerKey, Peer>,
    /// Those whose lease stands.
    present: BTreeSet<PeerKey>,
    /// Those whose leaving is not durable yet, and so not told.
    leaving: BTreeSet<PeerKey>,
    /// The address of a session or service.
    by_pubkey: BTreeMap<PubKey, PeerKey>,
    members: BTreeMap<MemberId, MemberUse>,
    conns: BTreeMap<ConnId, Conn>,
    /// Those of `conns` that send only: of no lease, one a key.
    quiet: BTreeMap<PeerKey, ConnId>,
    /// Hellos that are answered late.
    waiting: BTreeMap<ConnId, Greeting>,
    kicked: Kicked,
    dedupe: Dedupe<(PeerKey, ClientMessageId), DedupeRow>,
    settlements: Settlements,
    /// Receipts of a sender that was forgotten were numbered up to here: nobody's begin below.
    receipts_floor: ReceiptNumber,
    /// The clock as of the input or time-out at hand.
    wall: Wall,
    last_seq: MessageSeq,
    /// Answers that wait for durability, by order of accept, and with it of their deadlines.
    acks: BTreeMap<u64, PendingAck>,
    next_ack: u64,
    loads: BTreeMap<LoadId, Waiting>,
    next_load: LoadId,
    /// Present peers with a cold backlog.
    paging: BTreeSet<PeerKey>,
    /// Connections to be cut off when the current input is done.
    slow: BTreeSet<ConnId>,
    /// Why the store stalled: it is full.
    store_full: bool,
    ledger: Ledger<Op>,
    gate: Gate<Promise>,
    timers: TimerQueue,
    out: Outbox<Output>,
    marks: Marks,
    stats: Stats,
}

type TimerQueue = crate::timers::TimerQueue<Why>;

/// What a deadline is for. Ties are carried out in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The grace of a peer without a connection ends.
    Grace(PeerKey),
    /// A hello that came at a bad moment is answered.
    Hello(ConnId),
    /// The earliest claim of a peer ends.
    Claim(PeerKey),
    /// `working` was not repeated.
    Working(PeerKey),
    /// The oldest message owed to a peer is owed no longer.
    Expiry(PeerKey),
    /// The earliest accept that is not durable is answered `outcome_unknown`.
    Accept,
    /// The store stalled: what is not durable is sent again.
    Store,
}

/// What waits for its transaction.
#[derive(Debug)]
enum Promise {
    /// An answer in `acks`, if its deadline did not come first.
    Ack(u64),
    /// What this recipient is owed may be pushed.
    Deliver(PeerKey),
    Announce(Box<Announcement>),
    /// Its sender may be told how far a delivery came.
    Receipt(Box<ReceiptRow>),
    /// What the peer registered stands.
    Reply {
        conn: ConnId,
        frame: BrokerFrame,
    },
    Respond {
        request: RequestId,
        response: Response,
    },
}

/// A read of the store under way.
#[derive(Debug)]
struct Waiting {
    what: Load,
    then: Continue,
    /// What was durable when it was asked for.
    durable: TxnId,
}

/// What a look-up is for.
#[derive(Debug)]
enum Continue {
    Send(Box<PendingSend>),
    Page(PeerKey, Page),
    Expire(PeerKey),
    Receipts {
        conn: ConnId,
        upto: ReceiptNumber,
    },
    Seen {
        conn: ConnId,
        req_id: Option<ReqId>,
    },
    Status {
        conn: ConnId,
        req_id: Option<ReqId>,
    },
    Explain {
        conn: ConnId,
        req_id: Option<ReqId>,
        /// Also what the id may be the beginning of.
        prefix: Option<String>,
    },
}

/// What a member uses of its limits.
#[derive(Debug, Default)]
struct MemberUse {
    present_sessions: usize,
    /// Quiet connections.
    quiet: usize,
    /// New session keys on this day.
    day: u64,
    new_keys: u32,
}

/// Counters for metrics. Gauges are read by getters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub accepts: u64,
    pub duplicates: u64,
    /// By code, in the order of [`SendCode::ALL`].
    pub refusals: [u64; SendCode::ALL.len()],
    pub pushes: u64,
    pub redeliveries: u64,
    pub acknowledgements: u64,
    /// Deliveries that their recipient said it has read.
    pub seen: u64,
    /// Deliveries that were not taken in time.
    pub expired: u64,
    pub joins: u64,
    pub leaves: u64,
    /// Leases that lost their last connection.
    pub graces: u64,
    pub reattaches: u64,
    /// Connections put out by a newer one of their peer.
    pub replacements: u64,
    pub resume_hits: u64,
    pub resume_misses: u64,
    /// Reads of the store that a client brought about and that come out of its budget.
    pub look_ups: u64,
    /// Told, and told again to a sender that was away.
    pub receipts: u64,
    pub claims: u64,
    pub claims_expired: u64,
    /// Refusals by the limiter of an id that was accepted before: none.
    pub limited_after_accept: u64,
    pub stalls: u64,
    /// Leases and quiet connections ended by `kick`.
    pub kicks: u64,
    /// Peers whose connections were closed by `disconnect`.
    pub disconnects: u64,
    pub bans: u64,
    pub unbans: u64,
    pub quiet_hellos: u64,
}

impl Mesh {
    /// The owner of this mesh since now. Peers that an earlier owner left present begin in grace.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], recovered: Recovered, now: Now) -> Self {
        let durable = recovered.owner.last_txn;
        let mut mesh = Self {
            entropy: Entropy::from_seed(seed),
            roster: Roster::recovered(&recovered.members, &recovered.invites),
            hellos: SeenHellos::default(),
            peers: BTreeMap::new(),
            present: BTreeSet::new(),
            leaving: BTreeSet::new(),
            by_pubkey: BTreeMap::new(),
            members: BTreeMap::new(),
            conns: BTreeMap::new(),
            quiet: BTreeMap::new(),
            waiting: BTreeMap::new(),
            kicked: Kicked::default(),
            dedupe: Dedupe::new(config.limits.dedupe_cache),
            settlements: Settlements::default(),
            receipts_floor: recovered.receipts_floor,
            wall: now.wall,
            last_seq: recovered.last_seq,
            acks: BTreeMap::new(),
            next_ack: 0,
            loads: BTreeMap::new(),
            next_load: LoadId(0),
            paging: BTreeSet::new(),
            slow: BTreeSet::new(),
            store_full: false,
            ledger: Ledger::new(durable),
            gate: Gate::new(durable),
            timers: TimerQueue::default(),
            out: Outbox::default(),
            marks: Marks::default(),
            stats: Stats::default(),
            config,
        };
        for row in recovered.peers {
            mesh.recover_peer(row, now);
        }
        for owed in recovered.owed {
            let peer = mesh.peer_entry(&owed.recipient, now.mono);
            peer.owed = Owed::recovered(owed.messages, owed.bytes, durable);
            mesh.expect_expiry(now, &owed.recipient, Some(owed.oldest));
        }
        for (sender, last) in recovered.receipts {
            mesh.peer_entry(&sender, now.mono).receipts = Numbers::recovered(last);
        }
        mesh
    }

    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Peers live or in grace.
    #[must_use]
    pub fn present_peers(&self) -> usize {
        self.present.len()
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// False while the store is away: new accepts are refused `busy`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ledger.is_stalled()
    }

    /// Everything that a remote side can grow: its name, its size, its limit.
    #[must_use]
    pub fn sizes(&self) -> Vec<(&'static str, u64, u64)> {
        let limits = &self.config.limits;
        let peers = || self.peers.values();
        let most = |sizes: &mut dyn Iterator<Item = usize>| sizes.max().unwrap_or(0) as u64;
        let rings = || peers().filter_map(|peer| peer.stream.as_ref());
        alloc::vec![
            (
                "present peers",
                self.present.len() as u64,
                PEERS_PER_MESH as u64
            ),
            (
                "peers",
                self.peers.len() as u64,
                (KNOWN_ABSENT_PER_MESH + MEMBERS_PER_MESH) as u64
            ),
            ("members", self.roster.len() as u64, MEMBERS_PER_MESH as u64),
            (
                "seen hellos",
                self.hellos.len() as u64,
                SEEN_HELLOS_PER_MESH as u64
            ),
            (
                "ring events",
                most(&mut rings().map(Stream::ring_events)),
                limits.ring_events as u64
            ),
            (
                "ring bytes",
                most(&mut rings().map(Stream::ring_bytes)),
                limits.ring_bytes as u64
            ),
            (
                "window",
                most(&mut peers().map(|p| p.owed.claimed())),
                limits.window_messages as u64
            ),
            (
                "warm messages",
                most(&mut peers().map(|p| p.owed.warm())),
                self.warm_most() as u64
            ),
            (
                "owed messages",
                most(&mut peers().map(|p| p.owed.messages())),
                limits.owed_messages as u64
            ),
            (
                "dedupe cache",
                self.dedupe.cached() as u64,
                limits.dedupe_cache as u64
            ),
            (
                "settlements",
                self.settlements.len() as u64,
                (4 * UNPERSISTED_TXNS * SEEN_IDS_PER_FRAME) as u64
            ),
            (
                "queued bytes",
                self.conns.values().map(Conn::queued).max().unwrap_or(0),
                limits.queued_bytes + FRAME_BYTES as u64,
            ),
            (
                "waiting hellos",
                self.waiting.len() as u64,
                HELLOS_WAITING as u64,
            ),
            (
                "held frames",
                most(&mut self.conns.values().map(Conn::held_frames)),
                (HELD_FRAMES_BEHIND_LOOK_UP + INPUTS_WAITING) as u64,
            ),
            (
                "kicked",
                self.kicked.len() as u64,
                (KNOWN_ABSENT_PER_MESH + MEMBERS_PER_MESH) as u64,
            ),
            (
                "unpersisted",
                self.ledger.unpersisted() as u64,
                4 * UNPERSISTED_TXNS as u64
            ),
        ]
    }

    fn recover_peer(&mut self, row: PeerRow, now: Now) {
        let key = row.key.clone();
        if matches!(key, PeerKey::Session(_)) {
            self.by_pubkey.insert(row.pubkey, key.clone());
        }
        let present = row.present;
        let (grace, epoch) = (self.config.limits.lease_grace, Epoch(self.entropy.bytes()));
        let working = row.registration.status == crate::wire::Status::Working;
        let counted = row.role != Role::ControlPlane;
        let member = row.member.clone();
        let peer = self.peer_entry(&key, now.mono);
        peer.row = Some(row);
        if !present {
            return;
        }
        peer.lease = Lease::recovered(now.mono, grace);
        peer.stream = Some(Stream::new(epoch));
        peer.announced = true;
        if let Lease::Grace { until, .. } = peer.lease {
            self.timers.set(Why::Grace(key.clone()), until);
        }
        if working {
            self.timers.set(
                Why::Working(key.clone()),
                now.mono + crate::limits::WORKING_LAPSES_AFTER,
            );
        }
        if counted {
            self.members.entry(member).or_default().present_sessions += 1;
        }
        self.present.insert(key);
        self.marks.hit(Mark::Recovered);
    }

    /// The peer, made absent and unknown where it was not there.
    fn peer_entry(&mut self, key: &PeerKey, now: Mono) -> &mut Peer {
        let (sends, look_ups) = (self.send_rate(), self.look_up_rate());
        let receipts = Numbers::recovered(self.receipts_floor);
        self.peers.entry(key.clone()).or_insert_with(|| Peer {
            row: None,
            lease: Lease::Gone,
            stream: None,
            owed: Owed::default(),
            delivers_on: None,
            passed_over: 0,
            sends: Bucket::full(now, sends),
            look_ups: Bucket::full(now, look_ups),
            replaced_at: None,
            heard_at: now,
            announced: false,
            stats: None,
            receipts,
        })
    }

    fn send_rate(&self) -> Rate {
        let limits = &self.config.limits;
        Rate {
            per_second: limits.sends_per_second,
            burst: limits.sends_burst,
        }
    }

    fn look_up_rate(&self) -> Rate {
        let limits = &self.config.limits;
        Rate {
            per_second: limits.look_ups_per_second,
            burst: limits.look_ups_burst,
        }
    }

    /// At least a window's worth, so that paging never starves the window.
    fn warm_most(&self) -> usize {
        self.config
            .limits
            .owed_in_memory
            .max(self.config.limits.window_messages)
    }

    /// Ends every `handle_*`: at most one transaction, emitted last.
    fn finish(&mut self) {
        if let Some(txn) = self.ledger.seal() {
            self.out.push(Output::Persist(txn));
        }
    }

    /// Lateness is noticed by whichever call comes first, before its input is looked at: the time
    /// in which the owner did not run counts against nobody. Claims simply expire.
    fn notice_lateness(&mut self, now: Now) {
        self.wall = now.wall;
        let Some(timeout) = self.timers.next() else {
            return;
        };
        if now.mono.since(timeout.at) <= OWNER_LATE {
            return;
        }
        self.marks.hit(Mark::OwnerStalled);
        let grace = self.config.limits.lease_grace;
        for key in &self.present {
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            if let Some(until) = peer.lease.owner_resumed(now.mono, grace) {
                self.timers.set(Why::Grace(key.clone()), until);
                self.marks.hit(Mark::LeaseGraceRestarted);
            }
        }
        for ack in self.acks.values_mut() {
            ack.deadline = now.mono + ACCEPT_DURABLE_WITHIN;
        }
        self.arm_accept();
    }

    fn on_store(&mut self, now: Now, event: store::Event<Loaded>) {
        match event {
            store::Event::Persisted { upto } => self.on_persisted(now, upto),
            store::Event::Stalled(stall) => {
                self.store_full = stall == Stall::Full;
                self.marks.hit(Mark::StalledEntered);
                self.stats.stalls += 1;
                let backoff = self.ledger.stall();
                self.timers.set(Why::Store, now.mono + backoff);
                self.look_ups_stalled(now);
            }
            store::Event::Loaded { load, loaded } => {
                let Some(waiting) = self.loads.remove(&load) else {
                    return;
                };
                match (waiting.then, loaded) {
                    (Continue::Send(send), Loaded::Dedupe(found)) => {
                        self.send_looked_up(now, *send, found)
                    }
                    (Continue::Page(key, page), Loaded::Backlog(messages)) => {
                        self.paged(&key, page, messages);
                    }
                    (Continue::Expire(key), Loaded::Backlog(oldest)) => {
                        self.expire(now, &key, oldest);
                    }
                    (Continue::Receipts { conn, upto }, Loaded::Receipts(rows)) => {
                        self.receipts_read(conn, upto, rows);
                    }
                    (Continue::Seen { conn, req_id }, Loaded::Deliveries(found)) => {
                        self.seen_looked_up(now, conn, req_id, found);
                    }
                    (Continue::Status { conn, req_id }, Loaded::Message(found)) => {
                        self.status_looked_up(now, conn, req_id, found);
                    }
                    (
                        Continue::Explain {
                            conn,
                            req_id,
                            prefix,
                        },
                        Loaded::Message(found),
                    ) => self.explain_looked_up(now, conn, req_id, prefix, found),
                    _ => debug_assert!(false, "a load is answered in kind"),
                }
                self.forget_settlements();
            }
        }
    }

    fn on_persisted(&mut self, now: Now, upto: TxnId) {
        if self.ledger.persisted(upto) {
            self.marks.hit(Mark::StalledLeft);
            self.timers.cancel(&Why::Store);
        }
        self.dedupe.persisted(upto);
        self.gate.persisted(upto);
        self.forget_settlements();
        self.release_durable(now);
        for key in self.paging.clone() {
            self.page(&key);
        }
    }

    fn release_durable(&mut self, now: Now) {
        while let Some(promise) = self.gate.release() {
            self.marks.hit(Mark::GateReleased);
            self.keep(now, promise);
        }
    }

    /// Makes good a promise whose transaction is durable.
    fn keep(&mut self, now: Now, promise: Durable<Promise>) {
        match promise.into_inner() {
            Promise::Ack(token) => match self.acks.remove(&token) {
                Some(ack) => {
                    self.answer(&ack);
                    self.arm_accept();
                }
                None => self.marks.hit(Mark::GateAbandoned),
            },
            Promise::Deliver(key) => self.deliver(&key),
            Promise::Announce(announcement) => self.announce_now(now, &announcement),
            Promise::Receipt(row) => self.tell_receipt(&row),
            Promise::Reply { conn, frame } => self.send(conn, &frame),
            Promise::Respond { request, response } => {
                self.out.push(Output::Response { request, response });
            }
        }
    }

    /// The store may be back: everything that is not durable, in order, and the look-ups.
    fn retry_store(&mut self) {
        for txn in self.ledger.resend() {
            self.marks.hit(Mark::TxnsResent);
            self.out.push(Output::Persist(txn));
        }
        let waiting: Vec<_> = self
            .loads
            .iter()
            .map(|(load, waiting)| (*load, waiting.what.clone()))
            .collect();
        for (load, what) in waiting {
            self.out.push(Output::Load { load, what });
        }
    }

    fn load(&mut self, what: Load, then: Continue) {
        let load = self.next_load;
        self.next_load = load.next();
        // While the store is away, `retry_store` will ask.
        if !self.ledger.is_away() {
            self.out.push(Output::Load {
                load,
                what: what.clone(),
            });
        }
        let waiting = Waiting {
            what,
            then,
            durable: self.gate.durable(),
        };
        self.loads.insert(load, waiting);
    }

    /// Reads are answered from what was durable when they were asked for, or later.
    fn forget_settlements(&mut self) {
        let oldest_read = self.loads.values().next().map(|waiting| waiting.durable);
        let durable = self.gate.durable();
        self.settlements
            .forget(oldest_read.map_or(durable, |read| read.min(durable)));
    }

    fn send(&mut self, conn: ConnId, frame: &BrokerFrame) {
        self.send_bytes(conn, encode_broker(frame));
    }

    fn send_bytes(&mut self, id: ConnId, frame: Bytes) {
        if let Some(conn) = self.conns.get_mut(&id) {
            let limits = &self.config.limits;
            hand_over(conn, frame, limits, &mut self.out, &mut self.slow);
        }
    }
}

impl Machine for Mesh {
    type Input = Input;
    type Output = Output;
    type Why = Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.out.assert_drained();
        self.notice_lateness(now);
        match input {
            Input::Attach { conn, hello, local } => {
                self.greeted(now, conn, Greeting { hello, local });
            }
            Input::Frame { conn, frame } => self.on_frame(now, conn, frame),
            Input::Closed { conn } => self.closed(now, conn),
            Input::Sent { conn, bytes } => self.on_sent(now, conn, bytes),
            Input::Store(event) => self.on_store(now, event),
            Input::Request { request, what } => self.on_request(now, request, what),
        }
        self.cut_slow_consumers(now);
        self.finish();
    }

    fn handle_timeout(&mut self, now: Now) {
        self.out.assert_drained();
        self.notice_lateness(now);
        while let Some((_, why)) = self.timers.pop_due(now.mono) {
            match why {
                Why::Grace(key) => self.grace_ended(now, &key),
                Why::Hello(conn) => self.waited(now, conn),
                Why::Claim(key) => self.claims_ended(now, &key),
                Why::Working(key) => self.working_lapsed(&key),
                Why::Expiry(key) => self.expiry_due(&key),
                Why::Accept => self.accepts_overdue(now),
                Why::Store => self.retry_store(),
            }
        }
        self.cut_slow_consumers(now);
        self.finish();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<Why>> {
        self.timers.next()
    }
}

/// Beyond the limit of what may be queued the consumer is too slow, and is cut off; it loses
/// nothing durable.
fn hand_over(
    conn: &mut Conn,
    frame: Bytes,
    limits: &Limits,
    out: &mut Outbox<Output>,
    slow: &mut BTreeSet<ConnId>,
) {
    conn.hand(frame.len());
    if conn.queued() > limits.queued_bytes + FRAME_BYTES as u64 {
        slow.insert(conn.id);
    }
    out.push(Output::Send {
        conn: conn.id,
        frame,
    });
}

/// Closes that this mesh decides on.
fn closed_by_bye() -> Close {
    Close::new(Close::NORMAL, "bye")
}

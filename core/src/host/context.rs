//! What every part of a host is lent for the time of one call: the clock, the ledger, the gate,
//! the timers. Parts share these; they do not share each other.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::answers;
use super::directory::Change;
use super::io::{Config, LogLevel, Output};
use super::ipc::Answer;
use crate::crypto::Crypto;
use crate::entropy::Entropy;
use crate::gate::Gate;
use crate::id::{
    ClientMessageId, LoadId, MemberId, MeshId, MessageId, OutboxSeq, PeerKey, PubKey, RequestId,
    SubscriberId,
};
use crate::limits::{ACCEPT_DURABLE_WITHIN, DISK_FREE_LEAST};
use crate::machine::Outbox as Outputs;
use crate::mark::{Mark, Marks};
use crate::store::host::{InboxRow, Load, Op, OutboxRow};
use crate::store::ledger::Ledger;
use crate::store::{Stall, TxnId};
use crate::time::{Now, Wall};
use crate::timers::TimerQueue;
use crate::wire::receipt::Receipt;

/// Whose mail and whose uplink: a member or one of its sessions, in one mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub mesh: MeshId,
    pub peer: PeerKey,
}

impl Identity {
    #[must_use]
    pub(super) fn member(mesh: &MeshId, member: &MemberId) -> Self {
        Self {
            mesh: mesh.clone(),
            peer: PeerKey::Member(member.clone()),
        }
    }

    #[must_use]
    pub(super) fn session(mesh: &MeshId, key: PubKey) -> Self {
        Self {
            mesh: mesh.clone(),
            peer: PeerKey::Session(key),
        }
    }
}

/// What a deadline of a host is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A stalled store is tried again.
    StoreRetry,
    /// A request has waited for its answer as long as it may.
    Answer(RequestId),
    /// An uplink is due to be dialled.
    Dial(Identity),
    /// A row went out and has no acknowledgement.
    Ack(OutboxSeq),
    /// A probe of an uplink has no answer.
    Probe(Identity),
    /// The head of a lane may go again.
    Row(OutboxSeq),
    /// `rate_limited` is over.
    SenderHold(Identity),
    /// `busy` or `storage_full` of a mesh is over.
    MeshHold(MeshId),
    /// The oldest outbox row reaches its max age.
    OutboxAge,
    /// A page of a mesh's peers has not come.
    Snapshot(MeshId),
    /// `seen` has no answer, or was not taken.
    Seen(Identity),
}

impl Why {
    /// For deadlines that run against somebody else, the full term: the time in which this host did
    /// not run counts against nobody.
    pub(super) fn term(&self) -> Option<Duration> {
        use crate::limits::{PONG_WITHIN, SEND_ACK_WITHIN, SNAPSHOT_PAGE_WITHIN};
        match self {
            Self::Ack(_) => Some(SEND_ACK_WITHIN),
            Self::Probe(_) => Some(PONG_WITHIN),
            Self::Snapshot(_) => Some(SNAPSHOT_PAGE_WITHIN),
            Self::Seen(_) => Some(SEND_ACK_WITHIN),
            Self::StoreRetry
            | Self::Answer(_)
            | Self::Dial(_)
            | Self::Row(_)
            | Self::SenderHold(_)
            | Self::MeshHold(_)
            | Self::OutboxAge => None,
        }
    }
}

/// What waits in the gate until its transaction is durable.
pub(super) enum Promise {
    Answer {
        request: RequestId,
        answer: Answer,
    },
    /// The row stands: it may go out.
    RowAccepted(OutboxSeq),
    /// The form of its fingerprint stands: it may go out.
    FormChosen(OutboxSeq),
    /// The message stands in the inbox: acknowledge it, and if it is new tell who listens.
    Received {
        recipient: Identity,
        message: MessageId,
        client_message_id: ClientMessageId,
        row: Option<Box<InboxRow>>,
    },
    Presence {
        mesh: MeshId,
        changes: Vec<Change>,
    },
    /// What `subscriber` sees first of its peers, as of the moment in which this was held.
    PeersSnapshot {
        subscriber: SubscriberId,
        data: bytes::Bytes,
    },
    SessionOpened {
        who: Identity,
        /// It may be connected under what it was called before.
        renew: bool,
    },
    SessionEnded(Identity),
    MeshJoined(MeshId),
    /// An outbox row came to its end here: its sender's streams are told.
    Settled(Box<Told>),
    /// A receipt of this sender stands on its ladder.
    Receipt {
        sender: Identity,
        receipt: Box<Receipt>,
    },
    /// This reader's broker is to be told what it read.
    SeenOwed(Identity),
    /// That its broker knows it is written.
    SeenTold(Identity),
}

/// How far a message came, as the streams of its sender are told.
pub(super) struct Told {
    pub(super) sender: Identity,
    pub(super) client_message_id: ClientMessageId,
    /// `accepted`, `dead`, `expired`, `aborted`, or a receipt's.
    pub(super) rung: &'static str,
    pub(super) recipient: PubKey,
    pub(super) broker_message_id: Option<MessageId>,
    pub(super) reason: Option<String>,
    /// ISO 8601.
    pub(super) at: String,
}

impl Told {
    pub(super) fn of(sender: Identity, receipt: Receipt) -> Self {
        Self {
            sender,
            client_message_id: receipt.client_message_id,
            rung: receipt.rung.as_str(),
            recipient: receipt.recipient,
            broker_message_id: None,
            reason: receipt.reason,
            at: receipt.at,
        }
    }
}

/// Who waits for a look-up.
pub(super) enum Waiter {
    Accept(Identity, ClientMessageId),
    Push {
        recipient: Identity,
        ticket: u64,
    },
    InboxPage {
        request: RequestId,
        limit: usize,
    },
    OutboxPage {
        request: RequestId,
        limit: usize,
    },
    OutboxOne {
        request: RequestId,
        mesh: Option<MeshId>,
    },
    Message {
        request: RequestId,
        name: crate::store::host::MessageName,
    },
    Seen(Box<SeenRequest>),
    /// A batch of what this reader's broker is to be told.
    SeenOwed(Identity),
    Backlog(SubscriberId),
}

/// A `seen` that works through the caller's rows, page by page.
pub(super) struct SeenRequest {
    pub(super) request: RequestId,
    pub(super) scope: crate::store::host::Scope,
    /// Still to be found, ascending.
    pub(super) ids: alloc::collections::VecDeque<crate::id::InboxSeq>,
    pub(super) found: usize,
}

pub(super) struct Context {
    pub(super) now: Now,
    pub(super) config: Config,
    pub(super) crypto: Arc<dyn Crypto>,
    pub(super) entropy: Entropy,
    pub(super) ledger: Ledger<Op>,
    pub(super) gate: Gate<Promise>,
    pub(super) timers: TimerQueue<Why>,
    pub(super) marks: Marks,
    pub(super) out: Outputs<Output>,
    /// Why the store took nothing, until it takes something again.
    pub(super) stall: Option<Stall>,
    /// Between a stall and its retry the store is asked nothing.
    store_is_away: bool,
    /// As the shell last saw it.
    pub(super) disk_free: Option<u64>,
    loads: BTreeMap<LoadId, (Load, Waiter)>,
    next_load: LoadId,
    open_requests: BTreeMap<RequestId, Overdue>,
}

/// What a request is answered that has waited too long.
enum Overdue {
    /// It may still be carried out.
    OutcomeUnknown(Option<ClientMessageId>),
    /// A page that the store did not give in time: nothing has happened.
    Busy,
}

impl Context {
    pub(super) fn new(
        config: Config,
        crypto: Arc<dyn Crypto>,
        seed: [u8; 32],
        durable: TxnId,
        now: Now,
    ) -> Self {
        Self {
            now,
            config,
            crypto,
            entropy: Entropy::from_seed(seed),
            ledger: Ledger::new(durable),
            gate: Gate::new(durable),
            timers: TimerQueue::default(),
            marks: Marks::default(),
            out: Outputs::default(),
            stall: None,
            store_is_away: false,
            disk_free: None,
            loads: BTreeMap::new(),
            next_load: LoadId(1),
            open_requests: BTreeMap::new(),
        }
    }

    pub(super) fn after(&mut self, why: Why, wait: Duration) {
        self.timers.set(why, self.now.mono + wait);
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    pub(super) fn log(&mut self, level: LogLevel, message: String) {
        self.out.push(Output::Log { level, message });
    }

    pub(super) fn persist(&mut self, op: Op) {
        let bytes = match &op {
            Op::OutboxPut(row) => row.weight(),
            Op::InboxPut(row) => row.weight(),
            _ => 512,
        };
        self.ledger.push(op, bytes);
    }

    /// Holds `promise` on what this call has written, and on all that was written before.
    pub(super) fn promise(&mut self, promise: Promise) {
        let txn = self.ledger.current();
        self.gate.hold(txn, promise);
    }

    /// Asks the store. Where it stalls, the question is asked again.
    pub(super) fn load(&mut self, what: Load, waiter: Waiter) {
        let load = self.next_load;
        self.next_load = load.next();
        if !self.store_is_away {
            self.out.push(Output::Load {
                load,
                what: what.clone(),
            });
        }
        self.loads.insert(load, (what, waiter));
    }

    pub(super) fn loaded(&mut self, load: LoadId) -> Option<Waiter> {
        self.loads.remove(&load).map(|(_, waiter)| waiter)
    }

    /// The store forgot all that it held, questions and transactions.
    pub(super) fn stalled(&mut self, stall: Stall) {
        self.mark(Mark::StalledEntered);
        self.stall = Some(stall);
        self.store_is_away = true;
        let wait = self.ledger.stall();
        self.after(Why::StoreRetry, wait);
    }

    pub(super) fn store_retry(&mut self) {
        self.store_is_away = false;
        for txn in self.ledger.resend() {
            self.mark(Mark::TxnsResent);
            self.out.push(Output::Persist(txn));
        }
        if !self.ledger.is_stalled() {
            self.stall = None;
        }
        for (load, (what, _)) in &self.loads {
            self.out.push(Output::Load {
                load: *load,
                what: what.clone(),
            });
        }
    }

    pub(super) fn persisted(&mut self, upto: TxnId) {
        self.gate.persisted(upto);
        if self.ledger.persisted(upto) {
            self.mark(Mark::StalledLeft);
        }
        self.stall = None;
    }

    pub(super) fn disk_is_low(&self) -> bool {
        self.disk_free.is_some_and(|free| free < DISK_FREE_LEAST)
    }

    pub(super) fn loads(&self) -> usize {
        self.loads.len()
    }

    /// From now on `request` is owed exactly one answer.
    pub(super) fn request_arrived(&mut self, request: RequestId) {
        self.open_requests.insert(request, Overdue::Busy);
        self.after(Why::Answer(request), ACCEPT_DURABLE_WITHIN);
    }

    /// What `request` asks for may happen even if it is not answered in time.
    pub(super) fn may_stand(&mut self, request: RequestId, id: Option<ClientMessageId>) {
        if let Some(overdue) = self.open_requests.get_mut(&request) {
            *overdue = Overdue::OutcomeUnknown(id);
        }
    }

    pub(super) fn open_requests(&self) -> usize {
        self.open_requests.len()
    }

    /// For what promises nothing, or what is durable already. False if it was answered before.
    pub(super) fn answer(&mut self, request: RequestId, answer: Answer) -> bool {
        let open = self.open_requests.remove(&request).is_some();
        if open {
            self.timers.cancel(&Why::Answer(request));
            self.out.push(Output::Answer { request, answer });
        }
        open
    }

    /// When what this call has written is durable.
    pub(super) fn answer_when_durable(
        &mut self,
        request: RequestId,
        id: Option<ClientMessageId>,
        answer: Answer,
    ) {
        let txn = self.ledger.current();
        self.answer_when(txn, request, id, answer);
    }

    pub(super) fn answer_when(
        &mut self,
        txn: TxnId,
        request: RequestId,
        id: Option<ClientMessageId>,
        answer: Answer,
    ) {
        self.may_stand(request, id);
        self.gate.hold(txn, Promise::Answer { request, answer });
    }

    pub(super) fn answer_overdue(&mut self, request: RequestId) {
        let answer = match self.open_requests.get(&request) {
            None => return,
            Some(Overdue::Busy) => answers::busy("the store does not answer; try again"),
            Some(Overdue::OutcomeUnknown(id)) => {
                let answer = answers::outcome_unknown(id.as_ref());
                self.mark(Mark::AcceptOutcomeUnknown);
                answer
            }
        };
        self.answer(request, answer);
    }

    /// The host ends: what is still open is told so.
    pub(super) fn answer_all(&mut self, answer: &Answer) {
        for request in self.open_requests.keys().copied().collect::<Vec<_>>() {
            self.answer(request, answer.clone());
        }
    }

    pub(super) fn new_ulid(&mut self) -> String {
        self.entropy.ulid(self.now.wall)
    }

    /// `wait` ± 50 %.
    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        let half = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half.saturating_add(self.entropy.below(2 * half.max(1))))
    }

    /// When this deadline is, on the clock of people.
    pub(super) fn wall_of(&self, why: &Why) -> Option<Wall> {
        let at = self.timers.get(why)?;
        Some(self.now.wall + at.since(self.now.mono))
    }

    /// The wait until a wall time; a step of the clock shortens or lengthens it.
    pub(super) fn until(&self, at: Wall) -> Duration {
        at.since(self.now.wall)
    }
}

/// Whose row this is.
pub(super) fn sender_of(row: &OutboxRow) -> Identity {
    Identity {
        mesh: row.mesh.clone(),
        peer: row.sender.clone(),
    }
}

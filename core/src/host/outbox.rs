//! The outbox: rows, lanes, when the next one goes, what an answer means for it.
//!
//! `pending → inflight → done | dead`. A lane is (sender, target, priority): one row of it is under
//! way at a time, and the next goes when that is settled, so that order holds within a lane (G8) and
//! no lane waits for another.
//!
//! **Waiting for an uplink and "not now" are not attempts.** An attempt is a time-out on a link that
//! proved to be alive, or a transient code that this version does not know.
//!
//! **`inflight` is written with the send, not before it.** A frame may thus leave before its mark is
//! durable, and it does no harm: a row that is recovered counts as having been on a wire whatever
//! its mark says, so it never says `first`, and the broker looks it up. An extra commit before each
//! send would buy nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::context::{Context, Identity, Promise, Told, Why, sender_of};
use super::ladder::{self, Waits};
use super::sealing::CannotSeal;
use crate::crypto::fingerprint::Form;
use crate::dedupe::{Dedupe, Seen};
use crate::id::{
    ClientMessageId, ConnId, Fingerprint, MeshId, MessageId, OutboxSeq, PubKey, SessionId,
};
use crate::limits::{
    BUSY_RETRY_AFTER, DEFERRAL_MOST, DRAIN_ATTEMPTS, DRAIN_BACKOFF_FIRST, DRAIN_BACKOFF_MOST,
    SEND_ACK_WITHIN,
};
use crate::mark::Mark;
use crate::store::TxnId;
use crate::store::host::{Op, OutboxRow, OutboxState, OutboxStatus};
use crate::time::Wall;
use crate::wire::broker::Ack;
use crate::wire::{Priority, SendCode, SendCodeKind};

/// The dead are told of this late at most, where a clock was set back or a row was under way.
const AGE_CHECK_AT_LEAST: Duration = Duration::from_secs(30);

type Id = (Identity, ClientMessageId);

pub(super) struct Outbox {
    last: OutboxSeq,
    bytes: u64,
    /// All that is not settled.
    rows: BTreeMap<OutboxSeq, Entry>,
    by_id: BTreeMap<Id, OutboxSeq>,
    /// What is settled, as far as it is remembered here; the store knows all.
    settled: Dedupe<Id, Settled>,
    senders: BTreeMap<Identity, Sender>,
    held_meshes: BTreeSet<MeshId>,
    ages: BTreeSet<(Wall, OutboxSeq)>,
}

struct Entry {
    row: OutboxRow,
    accepted_in: TxnId,
    /// Minted here in this run: nobody else can have used its id.
    may_be_first: bool,
    deferrals: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its accept is not durable.
    Accepting,
    /// Behind others of its lane.
    Queued,
    /// Head of its lane, may go.
    Ready,
    /// Head of its lane, waits until its form of fingerprint is durable.
    Forming,
    /// Head of its lane, waits for its own timer.
    Resting,
    InFlight(ConnId),
    /// Under way for too long: the link is being probed.
    Overdue(ConnId),
}

#[derive(Default)]
struct Sender {
    lanes: BTreeMap<(PubKey, Priority), VecDeque<OutboxSeq>>,
    ready: BTreeSet<OutboxSeq>,
    under_way: BTreeSet<OutboxSeq>,
    /// `rate_limited`.
    held: bool,
    rows: usize,
}

/// What the accept table asks of a row, whichever way it was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) status: OutboxStatus,
    pub(super) form_1: Fingerprint,
    pub(super) to: String,
    pub(super) target: PubKey,
    pub(super) broker_message_id: Option<MessageId>,
    pub(super) reason: Option<String>,
}

impl Settled {
    pub(super) fn of(row: &OutboxRow) -> Self {
        Self {
            status: row.state.status,
            form_1: row.form_1,
            to: row.to.clone(),
            target: row.target,
            broker_message_id: row.state.broker_message_id.clone(),
            reason: row.state.last_error.clone(),
        }
    }
}

/// What is known of an id without asking the store.
pub(super) enum Found<'a> {
    /// Not settled; its accept is durable once this transaction is.
    Open(&'a OutboxRow, TxnId),
    /// Known to all, or once this transaction is durable.
    Settled(&'a Settled, Option<TxnId>),
    Unknown,
}

/// A send that passed every check and is to become a row.
pub(super) struct Accepted {
    pub(super) sender: Identity,
    pub(super) session: Option<SessionId>,
    pub(super) id: ClientMessageId,
    pub(super) id_is_ours: bool,
    pub(super) to: String,
    pub(super) target: PubKey,
    pub(super) priority: Priority,
    pub(super) reply_to: Option<MessageId>,
    pub(super) meta: String,
    pub(super) body: String,
    pub(super) form_1: Fingerprint,
    pub(super) form_2: Fingerprint,
}

impl Outbox {
    /// `rows`: recovered, in order of `seq`. They are due as soon as their uplinks are up, which
    /// the start spreads.
    pub(super) fn recover(
        ctx: &mut Context,
        last: OutboxSeq,
        bytes: u64,
        rows: Vec<OutboxRow>,
    ) -> Self {
        let mut outbox = Self {
            last,
            bytes,
            rows: BTreeMap::new(),
            by_id: BTreeMap::new(),
            settled: Dedupe::new(ctx.config.limits.dedupe_cache),
            senders: BTreeMap::new(),
            held_meshes: BTreeSet::new(),
            ages: BTreeSet::new(),
        };
        let durable = ctx.ledger.last();
        for mut row in rows {
            if row.state.status == OutboxStatus::Inflight {
                ctx.mark(Mark::InflightRecovered);
            }
            row.state.status = OutboxStatus::Pending;
            row.state.on_wire = true;
            let seq = row.seq;
            outbox.last = outbox.last.max(seq);
            outbox.put(ctx, row, durable, false);
            outbox.accepted(seq);
        }
        outbox.arm_age(ctx);
        outbox
    }

    pub(super) fn find(&self, sender: &Identity, id: &ClientMessageId) -> Found<'_> {
        let key = (sender.clone(), id.clone());
        if let Some(entry) = self.by_id.get(&key).and_then(|seq| self.rows.get(seq)) {
            return Found::Open(&entry.row, entry.accepted_in);
        }
        match self.settled.seen(&key) {
            Seen::Fresh(settled, txn) => Found::Settled(settled, Some(txn)),
            Seen::Durable(settled) => Found::Settled(settled, None),
            Seen::Unknown => Found::Unknown,
        }
    }

    /// A settled row that the store told of.
    pub(super) fn remember(&mut self, row: &OutboxRow) {
        let key = (sender_of(row), row.client_message_id.clone());
        self.settled.remember(key, Settled::of(row));
    }

    /// A new row; it goes out when its promise is released.
    pub(super) fn accept(&mut self, ctx: &mut Context, accepted: Accepted) -> OutboxSeq {
        ctx.mark(Mark::SendAccepted);
        self.last = self.last.next();
        let seq = self.last;
        let row = OutboxRow {
            seq,
            mesh: accepted.sender.mesh,
            sender: accepted.sender.peer,
            session: accepted.session,
            client_message_id: accepted.id,
            form_1: accepted.form_1,
            form_2: accepted.form_2,
            to: accepted.to,
            target: accepted.target,
            priority: accepted.priority,
            reply_to: accepted.reply_to,
            meta: accepted.meta,
            body: accepted.body,
            accepted_at: ctx.now.wall,
            state: OutboxState {
                status: OutboxStatus::Pending,
                attempts: 0,
                on_wire: false,
                form: None,
                next_attempt_at: None,
                last_error: None,
                broker_message_id: None,
                settled_at: None,
            },
            rungs: Vec::new(),
        };
        self.bytes += row.weight() as u64;
        ctx.persist(Op::OutboxPut(Box::new(row.clone())));
        let txn = ctx.ledger.current();
        self.put(ctx, row, txn, accepted.id_is_ours);
        self.arm_age(ctx);
        ctx.promise(Promise::RowAccepted(seq));
        seq
    }

    /// The row's accept is durable: it takes its place in its lane. Whose it is.
    pub(super) fn accepted(&mut self, seq: OutboxSeq) -> Option<Identity> {
        let entry = self.rows.get_mut(&seq)?;
        let who = sender_of(&entry.row);
        let sender = self.senders.entry(who.clone()).or_default();
        let lane = sender.lanes.entry(lane_of(&entry.row)).or_default();
        lane.push_back(seq);
        entry.place = Place::Queued;
        if lane.front() == Some(&seq) {
            entry.place = Place::Ready;
            sender.ready.insert(seq);
        }
        Some(who)
    }

    /// The row that may go now: the oldest first, so that what was under way when a connection was
    /// lost goes before what was not.
    pub(super) fn next(&mut self, ctx: &mut Context, who: &Identity) -> Option<OutboxSeq> {
        if self.held_meshes.contains(&who.mesh) {
            return None;
        }
        loop {
            let sender = self.senders.get(who).filter(|sender| !sender.held)?;
            let seq = *sender.ready.first()?;
            let row = &self.rows.get(&seq)?.row;
            if expires_at(ctx, row) > ctx.now.wall {
                return Some(seq);
            }
            self.settle(ctx, seq, OutboxStatus::Dead, Some("expired".into()), None);
        }
    }

    pub(super) fn row(&self, seq: OutboxSeq) -> Option<&OutboxRow> {
        self.rows.get(&seq).map(|entry| &entry.row)
    }

    /// Whether the row's next send may say `first`.
    pub(super) fn is_first(&self, seq: OutboxSeq) -> bool {
        self.rows
            .get(&seq)
            .is_some_and(|entry| entry.may_be_first && !entry.row.state.on_wire)
    }

    /// How the row's fingerprint is said, chosen at its first time on a wire, by what the broker
    /// there knows. False: it may not leave yet.
    ///
    /// Form 1 is durable before it leaves, so that what is recovered without a form left in form 2
    /// or not at all.
    pub(super) fn choose_form(&mut self, ctx: &mut Context, seq: OutboxSeq, offered: Form) -> bool {
        let Some(entry) = self.rows.get_mut(&seq) else {
            return false;
        };
        let state = &mut entry.row.state;
        match state.form {
            Some(form) => {
                if form != offered {
                    ctx.mark(Mark::FingerprintFormKept);
                }
                return true;
            }
            None if offered == Form::Two || state.on_wire => return true,
            None => state.form = Some(Form::One),
        }
        ctx.mark(Mark::FingerprintForm1);
        entry.place = Place::Forming;
        persist_state(ctx, &entry.row);
        let who = sender_of(&entry.row);
        if let Some(sender) = self.senders.get_mut(&who) {
            sender.ready.remove(&seq);
        }
        ctx.promise(Promise::FormChosen(seq));
        false
    }

    /// The choice of form 1 is durable. Whose row may go.
    pub(super) fn form_chosen(&mut self, ctx: &mut Context, seq: OutboxSeq) -> Option<Identity> {
        let entry = self.rows.get(&seq)?;
        if entry.place != Place::Forming {
            return None;
        }
        let who = sender_of(&entry.row);
        self.ready_again(ctx, seq);
        Some(who)
    }

    pub(super) fn sent(&mut self, ctx: &mut Context, seq: OutboxSeq, conn: ConnId) {
        let Some(entry) = self.rows.get_mut(&seq) else {
            return;
        };
        if !entry.row.state.on_wire {
            ctx.mark(Mark::DrainStarted);
        }
        entry.place = Place::InFlight(conn);
        let written = entry.row.state.clone();
        entry.row.state.status = OutboxStatus::Inflight;
        entry.row.state.on_wire = true;
        entry.row.state.form.get_or_insert(Form::Two);
        entry.row.state.next_attempt_at = None;
        if written != entry.row.state {
            persist_state(ctx, &entry.row);
        }
        let who = sender_of(&entry.row);
        if let Some(sender) = self.senders.get_mut(&who) {
            sender.ready.remove(&seq);
            sender.under_way.insert(seq);
        }
        ctx.after(Why::Ack(seq), SEND_ACK_WITHIN);
    }

    /// It cannot be sealed for its recipient; no later try could.
    pub(super) fn cannot_seal(&mut self, ctx: &mut Context, seq: OutboxSeq, why: CannotSeal) {
        let reason = Some(why.as_str().into());
        self.settle(ctx, seq, OutboxStatus::Dead, reason, None);
    }

    /// An `ack` that came on `conn`, the current connection of `who`.
    pub(super) fn acked(&mut self, ctx: &mut Context, who: &Identity, conn: ConnId, ack: &Ack) {
        let Some(seq) = ack.id.as_deref().and_then(seq_of) else {
            return;
        };
        let Some(entry) = self.rows.get(&seq) else {
            return;
        };
        if sender_of(&entry.row) != *who || !entry.row.state.on_wire {
            return;
        }
        if ack.queued {
            // Whichever of its sends this answers, the message is the same one.
            ctx.mark(if ack.duplicate {
                Mark::DrainDuplicate
            } else {
                Mark::DrainAcked
            });
            let id = (!ack.message_id.is_empty()).then(|| MessageId::from(ack.message_id.as_str()));
            self.settle(ctx, seq, OutboxStatus::Done, None, id);
            return;
        }
        let on_this = [Place::InFlight(conn), Place::Overdue(conn)];
        if on_this.contains(&entry.place) {
            self.refused(ctx, seq, who, ack);
        }
    }

    /// No acknowledgement in time. Whose link is to be probed.
    pub(super) fn ack_overdue(&mut self, ctx: &mut Context, seq: OutboxSeq) -> Option<Identity> {
        let entry = self.rows.get_mut(&seq)?;
        let Place::InFlight(conn) = entry.place else {
            return None;
        };
        ctx.mark(Mark::DrainTimedOut);
        entry.place = Place::Overdue(conn);
        Some(sender_of(&entry.row))
    }

    /// The link is alive, and yet no acknowledgement: that is an attempt.
    pub(super) fn probe_answered(&mut self, ctx: &mut Context, who: &Identity) {
        for seq in self.under_way(who) {
            let overdue = self
                .rows
                .get(&seq)
                .is_some_and(|entry| matches!(entry.place, Place::Overdue(_)));
            if overdue {
                self.attempt_failed(ctx, seq, "no_ack");
            }
        }
    }

    /// The connection is gone: what was under way is pending again, and that is no attempt.
    pub(super) fn link_lost(&mut self, ctx: &mut Context, who: &Identity) {
        for seq in self.under_way(who) {
            self.ready_again(ctx, seq);
        }
    }

    /// `Why::Row` is due. Whose row may go.
    pub(super) fn rested(&mut self, ctx: &mut Context, seq: OutboxSeq) -> Option<Identity> {
        let entry = self.rows.get(&seq)?;
        if entry.place != Place::Resting {
            return None;
        }
        let who = sender_of(&entry.row);
        self.ready_again(ctx, seq);
        Some(who)
    }

    pub(super) fn release_sender(&mut self, who: &Identity) {
        if let Some(sender) = self.senders.get_mut(who) {
            sender.held = false;
            if sender.rows == 0 {
                self.senders.remove(who);
            }
        }
    }

    pub(super) fn release_mesh(&mut self, mesh: &MeshId) {
        self.held_meshes.remove(mesh);
    }

    /// `Why::OutboxAge` is due. Whose rows have ended, each once.
    pub(super) fn expire(&mut self, ctx: &mut Context) -> BTreeSet<Identity> {
        let mut whose = BTreeSet::new();
        let due: Vec<OutboxSeq> = self
            .ages
            .iter()
            .take_while(|(at, _)| *at <= ctx.now.wall)
            .map(|(_, seq)| *seq)
            .collect();
        for seq in due {
            let Some(entry) = self.rows.get(&seq) else {
                continue;
            };
            // Under way it may yet be accepted; whatever brings it back looks at its age again.
            if matches!(
                entry.place,
                Place::InFlight(_) | Place::Overdue(_) | Place::Accepting
            ) {
                continue;
            }
            whose.insert(sender_of(&entry.row));
            self.settle(ctx, seq, OutboxStatus::Dead, Some("expired".into()), None);
        }
        self.arm_age(ctx);
        whose
    }

    pub(super) fn persisted(&mut self, upto: TxnId) {
        self.settled.persisted(upto);
    }

    /// Rows of this sender that are not settled.
    pub(super) fn rows_of(&self, who: &Identity) -> usize {
        self.senders.get(who).map_or(0, |sender| sender.rows)
    }

    /// As a restart would find it: what is under way is pending, and may have been on a wire.
    pub(super) fn durable(&self) -> String {
        let mut text = alloc::format!("outbox: last {}, {} bytes\n", self.last, self.bytes);
        for (seq, entry) in &self.rows {
            let row = &entry.row;
            text += &alloc::format!(
                "{seq} {:?} {} {} attempts {} form {:?}\n",
                row.sender,
                row.client_message_id,
                row.target,
                row.state.attempts,
                row.state.form
            );
        }
        text
    }

    /// What a row that is not settled waits for, its uplink apart.
    pub(super) fn waits(&self, ctx: &Context, seq: OutboxSeq) -> Option<Waits> {
        let entry = self.rows.get(&seq)?;
        let row = &entry.row;
        let sender = self.senders.get(&sender_of(row));
        match entry.place {
            Place::Accepting | Place::Forming => return Some(Waits::Disk),
            Place::InFlight(_) | Place::Overdue(_) => return Some(Waits::Acknowledgement),
            Place::Queued => {
                let lane = sender.and_then(|sender| sender.lanes.get(&lane_of(row)));
                let behind = lane.and_then(|lane| lane.iter().position(|queued| *queued == seq));
                return Some(Waits::Turn {
                    behind: behind.unwrap_or_default(),
                });
            }
            Place::Ready | Place::Resting => {}
        }
        let error = row.state.last_error.as_deref();
        let code = error.and_then(SendCode::parse);
        let deferral = |why: &Why, otherwise: SendCode| Waits::Deferral {
            code: code.unwrap_or(otherwise).as_str(),
            until: ctx.wall_of(why),
        };
        Some(if entry.place == Place::Resting {
            let why = Why::Row(seq);
            match code.filter(|code| code.kind() == SendCodeKind::Deferral) {
                Some(code) => deferral(&why, code),
                None => Waits::Retry {
                    until: ctx.wall_of(&why),
                },
            }
        } else if self.held_meshes.contains(&row.mesh) {
            deferral(&Why::MeshHold(row.mesh.clone()), SendCode::Busy)
        } else if sender.is_some_and(|sender| sender.held) {
            deferral(&Why::SenderHold(sender_of(row)), SendCode::RateLimited)
        } else {
            Waits::Connection
        })
    }

    /// As of now, ahead of the store.
    pub(super) fn state_of(&self, seq: OutboxSeq) -> Option<&OutboxState> {
        self.rows.get(&seq).map(|entry| &entry.row.state)
    }

    pub(super) fn depth(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.senders.values().map(|s| s.under_way.len()).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn remembered(&self) -> usize {
        self.settled.fresh() + self.settled.cached()
    }

    pub(super) fn oldest_accepted_at(&self) -> Option<Wall> {
        self.rows
            .first_key_value()
            .map(|(_, entry)| entry.row.accepted_at)
    }

    fn put(&mut self, ctx: &Context, row: OutboxRow, accepted_in: TxnId, may_be_first: bool) {
        let (seq, who) = (row.seq, sender_of(&row));
        self.ages.insert((expires_at(ctx, &row), seq));
        self.by_id
            .insert((who.clone(), row.client_message_id.clone()), seq);
        self.senders.entry(who).or_default().rows += 1;
        let entry = Entry {
            row,
            accepted_in,
            may_be_first,
            deferrals: 0,
            place: Place::Accepting,
        };
        self.rows.insert(seq, entry);
    }

    fn under_way(&self, who: &Identity) -> Vec<OutboxSeq> {
        self.senders
            .get(who)
            .map(|sender| sender.under_way.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Refused with a code: classified by it, never by the text.
    fn refused(&mut self, ctx: &mut Context, seq: OutboxSeq, who: &Identity, ack: &Ack) {
        let text = ack.code.as_deref().unwrap_or("unknown");
        let code = SendCode::parse(text);
        match code.map_or(SendCodeKind::Transient, SendCode::kind) {
            SendCodeKind::Permanent => {
                self.settle(ctx, seq, OutboxStatus::Dead, Some(text.into()), None);
            }
            SendCodeKind::Transient => {
                let mut text = String::from(text);
                crate::wire::decode::cut(&mut text, crate::limits::NAME_BYTES);
                self.attempt_failed(ctx, seq, &text);
            }
            SendCodeKind::Deferral => {
                ctx.mark(Mark::DrainDeferred);
                self.deferred(ctx, seq, who, code, ack.retry_after_ms);
            }
        }
    }

    /// Not now: not an attempt. It ends only by the row's max age.
    fn deferred(
        &mut self,
        ctx: &mut Context,
        seq: OutboxSeq,
        who: &Identity,
        code: Option<SendCode>,
        retry_after_ms: Option<u64>,
    ) {
        let Some(entry) = self.rows.get_mut(&seq) else {
            return;
        };
        let asked = retry_after_ms.map(|ms| Duration::from_millis(ms).min(DEFERRAL_MOST));
        let own = backoff(entry.deferrals);
        entry.deferrals = entry.deferrals.saturating_add(1);
        let reason = code.map(|code| String::from(code.as_str()));
        if entry.row.state.last_error != reason {
            entry.row.state.last_error = reason;
            entry.row.state.status = OutboxStatus::Pending;
            persist_state(ctx, &entry.row);
        }
        match code {
            Some(SendCode::RateLimited) => {
                let wait = asked.unwrap_or(BUSY_RETRY_AFTER);
                self.ready_again(ctx, seq);
                if let Some(sender) = self.senders.get_mut(who) {
                    sender.held = true;
                }
                ctx.after(Why::SenderHold(who.clone()), wait);
            }
            Some(SendCode::Busy | SendCode::StorageFull) => {
                let wait = asked.unwrap_or(own.max(BUSY_RETRY_AFTER));
                let wait = ctx.jittered(wait).max(asked.unwrap_or_default());
                self.ready_again(ctx, seq);
                self.held_meshes.insert(who.mesh.clone());
                ctx.after(Why::MeshHold(who.mesh.clone()), wait);
            }
            _ => {
                let wait = ctx.jittered(own).max(asked.unwrap_or_default());
                self.rest(ctx, seq, wait);
            }
        }
    }

    fn attempt_failed(&mut self, ctx: &mut Context, seq: OutboxSeq, error: &str) {
        let Some(entry) = self.rows.get_mut(&seq) else {
            return;
        };
        let state = &mut entry.row.state;
        state.attempts += 1;
        state.last_error = Some(error.into());
        if state.attempts >= DRAIN_ATTEMPTS {
            let reason = Some(alloc::format!("gave_up: {error}"));
            self.settle(ctx, seq, OutboxStatus::Dead, reason, None);
            return;
        }
        ctx.mark(Mark::DrainRetried);
        let wait = ctx.jittered(backoff(state.attempts - 1));
        state.status = OutboxStatus::Pending;
        state.next_attempt_at = Some(ctx.now.wall + wait);
        persist_state(ctx, &entry.row);
        self.rest(ctx, seq, wait);
    }

    fn rest(&mut self, ctx: &mut Context, seq: OutboxSeq, wait: Duration) {
        self.off_the_wire(ctx, seq, Place::Resting);
        ctx.after(Why::Row(seq), wait);
    }

    fn ready_again(&mut self, ctx: &mut Context, seq: OutboxSeq) {
        self.off_the_wire(ctx, seq, Place::Ready);
    }

    /// A head that is not under way (any more).
    fn off_the_wire(&mut self, ctx: &mut Context, seq: OutboxSeq, place: Place) {
        let Some(entry) = self.rows.get_mut(&seq) else {
            return;
        };
        entry.place = place;
        entry.row.state.status = OutboxStatus::Pending;
        ctx.timers.cancel(&Why::Ack(seq));
        let Some(sender) = self.senders.get_mut(&sender_of(&entry.row)) else {
            return;
        };
        sender.under_way.remove(&seq);
        if place == Place::Ready {
            sender.ready.insert(seq);
        }
    }

    /// The end of a row. The next of its lane may go.
    fn settle(
        &mut self,
        ctx: &mut Context,
        seq: OutboxSeq,
        status: OutboxStatus,
        error: Option<String>,
        broker_message_id: Option<MessageId>,
    ) {
        let Some(mut entry) = self.rows.remove(&seq) else {
            return;
        };
        if status == OutboxStatus::Dead {
            ctx.mark(Mark::DrainDead);
        }
        ctx.timers.cancel(&Why::Ack(seq));
        ctx.timers.cancel(&Why::Row(seq));
        let state = &mut entry.row.state;
        state.status = status;
        state.last_error = error;
        state.broker_message_id = broker_message_id;
        state.next_attempt_at = None;
        state.settled_at = Some(ctx.now.wall);
        persist_state(ctx, &entry.row);
        let who = sender_of(&entry.row);
        ctx.promise(Promise::Settled(Box::new(told(&entry.row))));
        let id = (who.clone(), entry.row.client_message_id.clone());
        self.by_id.remove(&id);
        let txn = ctx.ledger.current();
        self.settled.insert(id, Settled::of(&entry.row), txn);
        self.ages.remove(&(expires_at(ctx, &entry.row), seq));
        let Some(sender) = self.senders.get_mut(&who) else {
            return;
        };
        sender.rows -= 1;
        sender.ready.remove(&seq);
        sender.under_way.remove(&seq);
        let key = lane_of(&entry.row);
        if let Some(lane) = sender.lanes.get_mut(&key) {
            let was_head = lane.front() == Some(&seq);
            if was_head {
                lane.pop_front();
            } else {
                lane.retain(|queued| *queued != seq);
            }
            match lane.front().copied() {
                None => {
                    sender.lanes.remove(&key);
                }
                Some(next) if was_head => {
                    sender.ready.insert(next);
                    if let Some(entry) = self.rows.get_mut(&next) {
                        entry.place = Place::Ready;
                    }
                }
                Some(_) => {}
            }
        }
        if sender.rows == 0 && !sender.held {
            self.senders.remove(&who);
        }
    }

    /// One deadline for the oldest row.
    fn arm_age(&self, ctx: &mut Context) {
        let Some((at, _)) = self.ages.first() else {
            ctx.timers.cancel(&Why::OutboxAge);
            return;
        };
        let wait = ctx.until(*at).max(AGE_CHECK_AT_LEAST);
        ctx.after(Why::OutboxAge, wait);
    }
}

fn lane_of(row: &OutboxRow) -> (PubKey, Priority) {
    (row.target, row.priority)
}

fn expires_at(ctx: &Context, row: &OutboxRow) -> Wall {
    row.accepted_at + ctx.config.limits.outbox_max_age()
}

/// That a row came to its end.
fn told(row: &OutboxRow) -> Told {
    Told {
        sender: sender_of(row),
        client_message_id: row.client_message_id.clone(),
        rung: ladder::end_of(&row.state).unwrap_or("queued"),
        recipient: row.target,
        broker_message_id: row.state.broker_message_id.clone(),
        reason: row.state.last_error.clone(),
        at: row
            .state
            .settled_at
            .unwrap_or_default()
            .iso8601()
            .to_string(),
    }
}

fn persist_state(ctx: &mut Context, row: &OutboxRow) {
    ctx.persist(Op::OutboxState {
        seq: row.seq,
        state: row.state.clone(),
    });
}

/// min(30 s, 500 ms · 2^n).
fn backoff(n: u32) -> Duration {
    DRAIN_BACKOFF_MOST.min(DRAIN_BACKOFF_FIRST * 2u32.saturating_pow(n.min(16)))
}

/// What a `send` carries as its `id`, and its `ack` gives back.
pub(super) fn wire_id(seq: OutboxSeq) -> String {
    alloc::format!("o{seq}")
}

fn seq_of(wire_id: &str) -> Option<OutboxSeq> {
    wire_id.strip_prefix('o')?.parse().ok().map(OutboxSeq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_most() {
        let ms: Vec<u128> = (0..8).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(
            ms,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
        assert_eq!(backoff(u32::MAX), DRAIN_BACKOFF_MOST);
    }

    #[test]
    fn what_travels_as_an_id_comes_back() {
        assert_eq!(seq_of(&wire_id(OutboxSeq(17))), Some(OutboxSeq(17)));
        for other in ["17", "o", "o-1", "x17", ""] {
            assert_eq!(seq_of(other), None, "{other}");
        }
    }
}

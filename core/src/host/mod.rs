//! The daemon's machine: one host, its meshes, its sessions.
//!
//! | part | its subject |
//! |---|---|
//! | [`meshes`], [`sessions`] | whom this host speaks for: names, keys, tokens |
//! | [`uplink`] | one connection for each of these identities, and when to dial it |
//! | [`unsuited`] | a broker with which this daemon cannot go on |
//! | [`accept`], [`outbox`] | from a send to its end |
//! | [`receipts`], [`explains`], [`ladder`] | what became of it afterwards, and why |
//! | [`inbox`], [`seen`] | from a push to its acknowledgement, and to its being read |
//! | [`directory`], [`peers`] | who is known, who is here, what a name means |
//! | [`events`] | who listens |
//! | [`joining`] | making and joining meshes |
//! | [`moderation`] | what an admin asks of its mesh |
//! | [`ipc`], [`answers`] | requests and answers |
//!
//! A part returns facts; what they mean to another part is decided here, in [`calls`] for what comes
//! over the IPC and in [`links`] for what comes from brokers. No part calls another.
//!
//! **What a session sends leaves over that session's uplink, or waits for it.** There is no other way
//! out: [`uplink::Uplinks::send`] takes the identity, not a connection (G10).

mod accept;
mod answers;
mod calls;
mod context;
mod directory;
mod durable;
mod envelope;
mod events;
mod explains;
mod inbox;
pub mod io;
pub mod ipc;
mod joining;
mod ladder;
mod links;
mod meshes;
mod moderation;
mod outbox;
mod peers;
mod receipts;
mod recover;
mod sealing;
mod seen;
mod sessions;
mod status;
mod under_way;
mod unsuited;
mod uplink;

#[cfg(test)]
mod tests;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

pub use context::{Identity, Why};
pub use status::Sizes;

use accept::Lookups;
use context::{Context, Promise, Told, Waiter};
use directory::Directory;
use events::Events;
use explains::Explains;
use inbox::Inbox;
use io::{Input, LogLevel, Output};
use joining::Joining;
use meshes::Meshes;
use moderation::Asked;
use outbox::Outbox;
use peers::Listings;
use receipts::Receipts;
use seen::SeenMail;
use sessions::Sessions;
use uplink::Uplinks;

use crate::id::RequestId;
use crate::limits::OWNER_LATE;
use crate::machine::{Machine, Timeout};
use crate::mark::{Mark, Marks};
use crate::store;
use crate::store::host::Loaded;
use crate::time::Now;
use crate::wire::ClientFrame;
use crate::wire::client::ClientAck;

/// See the module. Not `Debug`: it holds keys.
pub struct Host {
    ctx: Context,
    meshes: Meshes,
    sessions: Sessions,
    uplinks: Uplinks,
    lookups: Lookups,
    outbox: Outbox,
    receipts: Receipts,
    explains: Explains,
    inbox: Inbox,
    seen: SeenMail,
    directory: Directory,
    listings: Listings,
    asked: Asked,
    events: Events,
    joining: Joining,
    /// Whose outbox may move; carried out at the end of the call.
    stirred: BTreeSet<Identity>,
    /// Ended sessions that keep their uplink until their rows are settled. They are present to the
    /// mesh meanwhile: a quiet hello, which is not, does not exist yet.
    leaving: BTreeSet<Identity>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Connections close, transactions end.
    Stopping,
    Stopped,
}

impl Machine for Host {
    type Input = Input;
    type Output = Output;
    type Why = Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.begin(now);
        match input {
            Input::Up { conn, ack } => self.up(conn, &ack),
            Input::Frame { conn, frame } => self.frame(conn, frame),
            Input::Down { conn, down } => self.down(conn, &down),
            Input::Sent { conn, bytes } => {
                if let Some(who) = self.uplinks.sent(&mut self.ctx, conn, bytes) {
                    self.stirred.insert(who);
                }
            }
            Input::Store(event) => self.store(event),
            Input::Ipc { request, call } => self.call(request, *call),
            Input::Subscribe {
                subscriber,
                subscribe,
            } => self.subscribe(subscriber, *subscribe),
            Input::SubscriberSent { subscriber, events } => {
                let next = self.events.sent(subscriber, events);
                self.next_events(subscriber, next);
            }
            Input::Unsubscribed { subscriber } => self.events.unsubscribed(subscriber),
            Input::HttpDone { request, outcome } => self.http_done(request, outcome),
            Input::ProcessGone { pid } => {
                for key in self.sessions.of_process(pid) {
                    self.end_session(&key);
                }
            }
            Input::DiskFree { bytes } => self.disk_free(bytes),
            Input::Stop => self.stop(),
        }
        self.finish();
    }

    fn handle_timeout(&mut self, now: Now) {
        self.begin(now);
        while let Some((_, why)) = self.ctx.timers.pop_due(now.mono) {
            self.due(why);
        }
        self.finish();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.ctx.out.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<Why>> {
        self.ctx.timers.next()
    }
}

impl Host {
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.ctx.marks
    }

    /// Outbox rows that are not settled.
    #[must_use]
    pub fn outbox_depth(&self) -> usize {
        self.outbox.depth()
    }

    /// Processes whose end the shell is to report as `ProcessGone`.
    #[must_use]
    pub fn watched_pids(&self) -> BTreeSet<u32> {
        self.sessions
            .live()
            .filter_map(|session| session.row.pid)
            .collect()
    }

    /// The time in which this host did not run (a stop, a suspend) counts against nobody: what runs
    /// against others starts anew.
    fn begin(&mut self, now: Now) {
        self.ctx.out.assert_drained();
        let was_due = self.ctx.timers.next().map(|next| next.at);
        self.ctx.now = now;
        if was_due.is_none_or(|at| now.mono.since(at) <= OWNER_LATE) {
            return;
        }
        self.ctx.mark(Mark::OwnerStalled);
        let anew: Vec<Why> = self
            .ctx
            .timers
            .iter()
            .filter(|(why, _)| why.term().is_some())
            .map(|(why, _)| why.clone())
            .collect();
        for why in anew {
            if let Some(term) = why.term() {
                self.ctx.after(why, term);
            }
        }
    }

    fn due(&mut self, why: Why) {
        match why {
            Why::StoreRetry => self.ctx.store_retry(),
            Why::Answer(request) => self.answer_due(request),
            Why::Dial(who) => self.dial(&who),
            Why::Ack(seq) => {
                if let Some(who) = self.outbox.ack_overdue(&mut self.ctx, seq) {
                    self.uplinks.probe(&mut self.ctx, &who);
                }
            }
            Why::Probe(who) => self.probe_overdue(&who),
            Why::Row(seq) => {
                let who = self.outbox.rested(&mut self.ctx, seq);
                self.stirred.extend(who);
            }
            Why::SenderHold(who) => {
                self.outbox.release_sender(&who);
                self.stirred.insert(who);
            }
            Why::MeshHold(mesh) => {
                self.outbox.release_mesh(&mesh);
                let all = self.uplinks.identities().filter(|who| who.mesh == mesh);
                self.stirred.extend(all.cloned());
            }
            Why::OutboxAge => {
                let whose = self.outbox.expire(&mut self.ctx);
                self.stirred.extend(whose);
            }
            Why::Snapshot(mesh) => self.ask_snapshot_again(&mesh),
            Why::Seen(who) => {
                self.seen.overdue(&who);
                self.stirred.insert(who);
            }
        }
    }

    /// What is known without the one who was asked, else that there is no answer.
    fn answer_due(&mut self, request: RequestId) {
        if let Some((request, listing)) = self.listings.end(request) {
            return self.answer_stale_peers(request, &listing);
        }
        if let Some((request, row)) = self.explains.end(request) {
            return self.explain_unanswered(request, &row);
        }
        if let Some((request, ask)) = self.asked.end(request) {
            return self.moderation_unanswered(request, &ask);
        }
        self.ctx.answer_overdue(request);
    }

    fn store(&mut self, event: store::Event<Loaded>) {
        match event {
            store::Event::Persisted { upto } => {
                self.ctx.persisted(upto);
                self.outbox.persisted(upto);
                self.inbox.persisted(upto);
                self.make_up();
            }
            store::Event::Stalled(stall) => self.ctx.stalled(stall),
            store::Event::Loaded { load, loaded } => {
                if let Some(waiter) = self.ctx.loaded(load) {
                    self.loaded(waiter, loaded);
                }
            }
        }
    }

    fn loaded(&mut self, waiter: Waiter, loaded: Loaded) {
        match (waiter, loaded) {
            (Waiter::Accept(sender, id), Loaded::OutboxDedupe(row)) => {
                self.looked_up(&sender, &id, row.as_deref());
            }
            (Waiter::Push { recipient, ticket }, Loaded::InboxDedupe(in_store)) => {
                self.push_looked_up(&recipient, ticket, in_store);
            }
            (Waiter::InboxPage { request, limit }, Loaded::Inbox(rows)) => {
                self.answer_inbox(request, &rows, limit);
            }
            (Waiter::Seen(seen), Loaded::Inbox(rows)) => self.seen_page(*seen, &rows),
            (Waiter::Backlog(subscriber), Loaded::Inbox(rows)) => {
                self.backlog_page(subscriber, &rows);
            }
            (Waiter::OutboxPage { request, limit }, Loaded::Outbox(rows)) => {
                self.answer_outbox(request, &rows, limit);
            }
            (Waiter::OutboxOne { request, mesh }, Loaded::Outbox(rows)) => {
                self.answer_outbox_row(request, mesh.as_ref(), &rows);
            }
            (Waiter::Message { request, name }, Loaded::Message { sent, received }) => {
                self.message_found(request, &name, sent, received);
            }
            (Waiter::SeenOwed(who), Loaded::SeenOwed(rows)) => self.tell_seen(&who, rows),
            (_, _) => self.ctx.log(
                LogLevel::Error,
                "the store driver answered another question than it was asked".into(),
            ),
        }
    }

    /// A promise whose transaction is durable.
    fn keep(&mut self, promise: Promise) {
        self.ctx.mark(Mark::GateReleased);
        match promise {
            Promise::Answer { request, answer } => {
                if !self.ctx.answer(request, answer) {
                    self.ctx.mark(Mark::GateAbandoned);
                }
            }
            Promise::RowAccepted(seq) => {
                let who = self.outbox.accepted(seq);
                self.stirred.extend(who);
            }
            Promise::FormChosen(seq) => {
                let who = self.outbox.form_chosen(&mut self.ctx, seq);
                self.stirred.extend(who);
            }
            Promise::Received {
                recipient,
                message,
                client_message_id,
                row,
            } => {
                // Over the connection it came on, or its successor; without one it is pushed again.
                let ack = ClientFrame::ClientAck(ClientAck {
                    client_message_id: Some(client_message_id),
                    broker_message_id: Some(message),
                });
                self.uplinks.send(&mut self.ctx, &recipient, &ack);
                if let Some(row) = row {
                    self.tell_mail(&row);
                }
            }
            Promise::Presence { mesh, changes } => self.tell_presence(&mesh, &changes),
            Promise::PeersSnapshot { subscriber, data } => {
                self.events.peers(&mut self.ctx, subscriber, data);
            }
            Promise::SessionOpened { who, renew } => self.session_opened(&who, renew),
            Promise::SessionEnded(who) => {
                if self
                    .sessions
                    .by_identity(&who)
                    .is_some_and(|s| !s.is_live())
                {
                    self.leaving.insert(who.clone());
                    self.stirred.insert(who);
                }
            }
            Promise::MeshJoined(mesh) => self.mesh_joined(&mesh),
            Promise::Settled(told) => self.tell_sender(&told),
            Promise::Receipt { sender, receipt } => {
                self.receipts.durable(&sender, receipt.n);
                self.tell_sender(&Told::of(sender, *receipt));
            }
            Promise::SeenOwed(who) => {
                self.seen.read(&who);
                self.stirred.insert(who);
            }
            Promise::SeenTold(who) => {
                self.seen.struck_off(&who);
                self.stirred.insert(who);
            }
        }
    }

    /// The end of every call: what is durable is told, what may move moves, what was written becomes
    /// one transaction.
    fn finish(&mut self) {
        while let Some(promise) = self.ctx.gate.release() {
            self.keep(promise.into_inner());
        }
        while let Some(who) = self.stirred.pop_first() {
            self.drain(&who);
            if self.uplinks.takes_receipts(&who) {
                self.seen.go_on(&mut self.ctx, &who);
            }
            self.leave_if_done(&who);
        }
        if let Some(txn) = self.ctx.ledger.seal() {
            self.ctx.out.push(Output::Persist(txn));
        }
        self.stop_if_done();
    }

    fn stop(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping;
        self.uplinks.go_away(&mut self.ctx);
        self.events.end_all(&mut self.ctx);
        for who in self.uplinks.identities().cloned().collect::<Vec<_>>() {
            self.lost(&who);
        }
    }

    fn stop_if_done(&mut self) {
        let done = self.ctx.ledger.unpersisted() == 0 && self.uplinks.undone() == 0;
        if self.phase != Phase::Stopping || !done {
            return;
        }
        self.phase = Phase::Stopped;
        self.ctx.answer_all(&answers::stopping());
        self.ctx.out.push(Output::Stopped);
    }
}

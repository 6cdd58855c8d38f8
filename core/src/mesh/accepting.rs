//! Accepting a `send`, in four phases; what one refuses, those before it have left nothing of.
//!
//! - **B0, known?** An id that was accepted answers the same again, whatever else holds by now and
//!   without touching the budget of sends; what memory does not know is looked up, from a budget of
//!   its own.
//! - **B1, well-formed and affordable?** Shape, size, the store's state, and a token of the sender's.
//! - **B2, may it go there?** The target exists, takes mail, and has room. A refusal gives the
//!   token back: an id costs one token, however often it is sent.
//! - **B3, accept.** Dedupe record, message and delivery in one transaction.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::{Continue, Mesh, Output, Promise, Waiting, Why};
use crate::dedupe::Seen;
use crate::id::{ClientMessageId, ConnId, Fingerprint, LoadId, MemberId, PeerKey, PubKey};
use crate::limits::{
    ACCEPT_DURABLE_WITHIN, BUSY_RETRY_AFTER, KNOWN_ABSENT_FOR, RECIPIENT_FULL_RETRY_AFTER,
    STORAGE_FULL_RETRY_AFTER,
};
use crate::mark::Mark;
use crate::store::TxnId;
use crate::store::mesh::{DedupeRow, Load, MessageRow, Op};
use crate::time::{Mono, Now};
use crate::wire::audience::Audience;
use crate::wire::broker::Ack;
use crate::wire::plain::refusal_text;
use crate::wire::{BrokerFrame, Send, SendCode, Suite, Target};
use core::time::Duration;

/// A `send` whose id is being looked up.
#[derive(Debug)]
pub(super) struct PendingSend {
    pub(super) conn: ConnId,
    send: Box<Send>,
    checked: Checked,
}

/// An answer that waits for durability, until its deadline.
#[derive(Debug)]
pub(super) struct PendingAck {
    conn: ConnId,
    ack: Ack,
    pub(super) deadline: Mono,
}

/// Whose `send` it is, and what it is a repeat of.
#[derive(Clone, Debug)]
struct Checked {
    sender: PeerKey,
    fingerprint: Fingerprint,
}

/// A token was taken for it: it is spent by an accept or given back.
#[must_use]
#[derive(Debug)]
struct Charged {
    target: PubKey,
    suite: Suite,
}

/// Why it is refused.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    code: SendCode,
    detail: &'static str,
    retry_after: Option<Duration>,
}

impl Mesh {
    pub(super) fn on_send(&mut self, now: Now, id: ConnId, send: Box<Send>) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let checked = Checked {
            sender: conn.peer.clone(),
            fingerprint: send
                .request_fingerprint
                .unwrap_or_else(|| fingerprint_of(&send)),
        };
        let Some(client_message_id) = send.client_message_id.clone() else {
            return self.accept(now, id, &send, checked);
        };
        let key = (checked.sender.clone(), client_message_id.clone());
        match self.dedupe.seen(&key) {
            Seen::Fresh(row, txn) => {
                let row = row.clone();
                self.marks.hit(Mark::DedupeHitFresh);
                self.repeat(now, id, &send, &checked, &row, txn);
            }
            Seen::Durable(row) => {
                let row = row.clone();
                self.marks.hit(Mark::DedupeHitDurable);
                self.repeat(now, id, &send, &checked, &row, TxnId(0));
            }
            Seen::Unknown if send.first && self.is_newest(id, &checked.sender) => {
                self.marks.hit(Mark::DedupeMissFirst);
                self.accept(now, id, &send, checked);
            }
            Seen::Unknown => self.look_up(now, id, send, checked, client_message_id),
        }
    }

    /// The look-up was answered. If the connection is gone, nothing was accepted.
    pub(super) fn send_looked_up(
        &mut self,
        now: Now,
        pending: PendingSend,
        found: Option<DedupeRow>,
    ) {
        let PendingSend {
            conn: id,
            send,
            checked,
        } = pending;
        if !self.conns.contains_key(&id) {
            return;
        }
        match found {
            Some(row) => {
                self.marks.hit(Mark::DedupeLookedUpFound);
                let key = (row.sender.clone(), row.client_message_id.clone());
                self.dedupe.remember(key, row.clone());
                self.repeat(now, id, &send, &checked, &row, TxnId(0));
            }
            None => {
                self.marks.hit(Mark::DedupeLookedUpAbsent);
                self.on_absent(now, id, &send, checked);
            }
        }
        self.release_held(now, id);
    }

    /// The store is away: whoever waits for a look-up is told to come back, instead of never.
    pub(super) fn look_ups_stalled(&mut self, now: Now) {
        let of_send = |(load, waiting): (&LoadId, &Waiting)| {
            matches!(waiting.then, Continue::Send(_)).then_some(*load)
        };
        let stalled: Vec<LoadId> = self.loads.iter().filter_map(of_send).collect();
        for load in stalled {
            let Some(Continue::Send(pending)) = self.loads.remove(&load).map(|it| it.then) else {
                continue;
            };
            self.marks.hit(Mark::LookUpStalled);
            let refusal = self.store_refuses();
            self.refuse(pending.conn, &pending.send, refusal);
            self.release_held(now, pending.conn);
        }
    }

    /// Answers that were not durable in time: `outcome_unknown`, and the accept stands.
    pub(super) fn accepts_overdue(&mut self, now: Now) {
        while let Some(entry) = self.acks.first_entry() {
            if entry.get().deadline > now.mono {
                break;
            }
            let PendingAck { conn, ack, .. } = entry.remove();
            self.marks.hit(Mark::AcceptOutcomeUnknown);
            self.stats.refusals[SendCode::OutcomeUnknown as usize] += 1;
            let refusal = Refusal {
                code: SendCode::OutcomeUnknown,
                detail: "not durable yet: ask again with the same id",
                retry_after: Some(BUSY_RETRY_AFTER),
            };
            self.send(conn, &BrokerFrame::Ack(Box::new(refused(ack.id, refusal))));
        }
        self.arm_accept();
    }

    pub(super) fn arm_accept(&mut self) {
        match self.acks.values().next() {
            Some(ack) => self.timers.set(Why::Accept, ack.deadline),
            None => {
                self.timers.cancel(&Why::Accept);
            }
        }
    }

    /// Only called with what left the gate.
    pub(super) fn answer(&mut self, ack: &PendingAck) {
        self.send(ack.conn, &BrokerFrame::Ack(Box::new(ack.ack.clone())));
    }

    /// An id that was accepted before answers the same again, without touching any budget.
    fn repeat(
        &mut self,
        now: Now,
        id: ConnId,
        send: &Send,
        checked: &Checked,
        row: &DedupeRow,
        txn: TxnId,
    ) {
        if row.fingerprint != checked.fingerprint {
            self.marks.hit(Mark::FingerprintConflict);
            let mut ack = refused(
                send.id.clone(),
                permanent(
                    SendCode::IdempotencyKeyReused,
                    "this id was accepted with other content",
                ),
            );
            ack.fingerprint_prefix = Some(row.fingerprint.to_string()[..16].into());
            self.stats.refusals[SendCode::IdempotencyKeyReused as usize] += 1;
            return self.send(id, &BrokerFrame::Ack(Box::new(ack)));
        }
        self.stats.duplicates += 1;
        let ack = Ack {
            id: send.id.clone(),
            message_id: row.message_id.to_string(),
            queued: true,
            duplicate: true,
            first_seen_at: Some(row.first_seen_at.iso8601().to_string()),
            history_available: Some(true),
            ..Ack::default()
        };
        self.promise_ack(now, id, ack, txn);
    }

    fn look_up(
        &mut self,
        now: Now,
        id: ConnId,
        send: Box<Send>,
        checked: Checked,
        client_message_id: ClientMessageId,
    ) {
        // It would wait for the store for longer than its sender waits for an answer.
        if self.ledger.is_away() {
            let refusal = self.store_refuses();
            return self.refuse(id, &send, refusal);
        }
        let rate = self.look_up_rate();
        if let Err(wait) = self
            .peer_entry(&checked.sender, now.mono)
            .look_ups
            .take(now.mono, rate)
        {
            let refusal = Refusal {
                code: SendCode::Busy,
                detail: "too many look-ups of earlier ids",
                retry_after: Some(wait),
            };
            return self.refuse(id, &send, refusal);
        }
        self.stats.look_ups += 1;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.begin_holding();
        }
        let load = Load::Dedupe {
            sender: checked.sender.clone(),
            client_message_id,
        };
        self.load(
            load,
            Continue::Send(Box::new(PendingSend {
                conn: id,
                send,
                checked,
            })),
        );
    }

    /// The store does not hold the id. Memory may by now: another connection of the same peer sent
    /// it while this look-up was under way.
    fn on_absent(&mut self, now: Now, id: ConnId, send: &Send, checked: Checked) {
        let client_message_id = send.client_message_id.clone().unwrap_or_else(|| "".into());
        match self
            .dedupe
            .seen(&(checked.sender.clone(), client_message_id))
        {
            Seen::Fresh(row, txn) => {
                let row = row.clone();
                self.repeat(now, id, send, &checked, &row, txn);
            }
            Seen::Durable(row) => {
                let row = row.clone();
                self.repeat(now, id, send, &checked, &row, TxnId(0));
            }
            Seen::Unknown => self.accept(now, id, send, checked),
        }
    }

    fn release_held(&mut self, now: Now, id: ConnId) {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            let Some(frame) = conn.next_held() else { break };
            if self.handle_frame(now, id, frame) == super::telling::Then::LookUpPending {
                return;
            }
        }
        if self
            .conns
            .get_mut(&id)
            .is_some_and(super::conn::Conn::end_holding)
        {
            self.out.push(Output::Resume { conn: id });
        }
    }

    /// B1 to B3.
    fn accept(&mut self, now: Now, id: ConnId, send: &Send, checked: Checked) {
        let charged = match self.charge(now, send, &checked) {
            Ok(charged) => charged,
            Err(refusal) => return self.refuse(id, send, refusal),
        };
        match self.route(now, &charged) {
            Ok(recipient) => self.commit(now, id, send, checked, &recipient),
            Err(refusal) => {
                let audience = (refusal.code == SendCode::AudienceChanged)
                    .then(|| self.audience_of(&charged.target))
                    .flatten();
                self.give_back(now, &checked.sender, charged);
                self.refuse_with(id, send, refusal, audience);
            }
        }
    }

    /// B1. The token is taken last: what is refused before has cost nothing.
    fn charge(&mut self, now: Now, send: &Send, checked: &Checked) -> Result<Charged, Refusal> {
        let (target, suite) = self.well_formed(send, &checked.sender)?;
        if self.ledger.is_busy() {
            return Err(self.store_refuses());
        }
        let rate = self.send_rate();
        let sender = self.peer_entry(&checked.sender, now.mono);
        if let Err(wait) = sender.sends.take(now.mono, rate) {
            self.marks.hit(Mark::RateLimited);
            self.stats.limited_after_accept += u64::from(self.is_known(send, checked));
            return Err(deferral(SendCode::RateLimited, "too many sends", wait));
        }
        Ok(Charged { target, suite })
    }

    fn give_back(&mut self, now: Now, sender: &PeerKey, _: Charged) {
        self.marks.hit(Mark::LimiterGaveBack);
        let rate = self.send_rate();
        self.peer_entry(sender, now.mono).sends.give_back(rate);
    }

    fn well_formed(&self, send: &Send, sender: &PeerKey) -> Result<(PubKey, Suite), Refusal> {
        let target = match Target::parse(&send.target_spec) {
            Ok(Target::Key(key)) => key,
            Ok(_) => return Err(bad_request("only a single key can be written to")),
            Err(_) => return Err(bad_request("the target is not 64 hex characters")),
        };
        if send.ciphertext.len() > self.config.limits.inline_bytes {
            return Err(permanent(
                SendCode::PayloadTooLarge,
                "the ciphertext is longer than inline_bytes",
            ));
        }
        let suite = Suite::of_message(send.seal.as_deref())
            .ok_or(bad_request("the seal is of an unknown suite"))?;
        if *sender == PeerKey::Session(target) {
            return Err(bad_request("the target is the sender itself"));
        }
        Ok((target, suite))
    }

    fn store_refuses(&mut self) -> Refusal {
        if self.ledger.is_stalled() && self.store_full {
            self.marks.hit(Mark::StorageFull);
            let wait = STORAGE_FULL_RETRY_AFTER;
            return deferral(SendCode::StorageFull, "the broker's disk is full", wait);
        }
        self.marks.hit(Mark::AcceptBusy);
        deferral(SendCode::Busy, "the store is behind", BUSY_RETRY_AFTER)
    }

    /// B0 let nothing through that was accepted: what this counts is a defect.
    fn is_known(&self, send: &Send, checked: &Checked) -> bool {
        send.client_message_id.as_ref().is_some_and(|own| {
            let key = (checked.sender.clone(), own.clone());
            self.dedupe.seen(&key) != Seen::Unknown
        })
    }

    /// B2.
    fn route(&mut self, now: Now, charged: &Charged) -> Result<PeerKey, Refusal> {
        let Some(recipient) = self.recipient(now, &charged.target) else {
            self.marks.hit(Mark::TargetUnknown);
            return Err(permanent(
                SendCode::TargetNotFound,
                "no such peer in this mesh",
            ));
        };
        if self.is_banned(&recipient) {
            self.marks.hit(Mark::MailToBanned);
            return Err(permanent(SendCode::Forbidden, "the recipient is banned"));
        }
        // A box may go to everybody: whoever opens nothing else sends nothing else either.
        if charged.suite != Suite::Box && !self.opened_by(&recipient).contains(&charged.suite) {
            self.marks.hit(Mark::SuiteRefused);
            return Err(deferral(
                SendCode::AudienceChanged,
                "the recipient opens another suite",
                Duration::ZERO,
            ));
        }
        let limits = &self.config.limits;
        let (most_messages, most_bytes) = (limits.owed_messages, limits.owed_bytes);
        let owed = &self.peer_entry(&recipient, now.mono).owed;
        if owed.messages() >= most_messages || owed.bytes() >= most_bytes {
            self.marks.hit(Mark::RecipientFull);
            return Err(deferral(
                SendCode::RecipientFull,
                "the recipient is owed too much",
                RECIPIENT_FULL_RETRY_AFTER,
            ));
        }
        Ok(recipient)
    }

    /// What opens its mail, as far as its last hello said.
    fn opened_by(&self, recipient: &PeerKey) -> Vec<Suite> {
        let row = self.peers.get(recipient).and_then(|peer| peer.row.as_ref());
        row.map_or(Suite::ALL.to_vec(), |row| {
            Suite::opened_by(&row.registration.capabilities)
        })
    }

    fn audience_of(&self, target: &PubKey) -> Option<Audience> {
        let member = || Some(PeerKey::Member(self.roster.by_pubkey(target)?.id.clone()));
        let recipient = self.by_pubkey.get(target).cloned().or_else(member)?;
        Some(Audience::of_one(*target, &self.opened_by(&recipient)))
    }

    /// One exists if it held a lease within 30 days or is a member; who is away is queued for.
    fn recipient(&self, now: Now, target: &PubKey) -> Option<PeerKey> {
        if let Some(key) = self.by_pubkey.get(target) {
            let row = self.peers.get(key)?.row.as_ref()?;
            let known = row.present || now.wall.since(row.last_seen) <= KNOWN_ABSENT_FOR;
            return known.then(|| key.clone());
        }
        let member = self.roster.by_pubkey(target)?;
        Some(PeerKey::Member(member.id.clone()))
    }

    /// B3.
    fn commit(&mut self, now: Now, id: ConnId, send: &Send, checked: Checked, recipient: &PeerKey) {
        let Some((sender_pubkey, sender_member, sender_name)) = self.signature_of(id) else {
            return;
        };
        self.marks.hit(Mark::Accepted);
        self.stats.accepts += 1;
        let seq = self.last_seq.next();
        self.last_seq = seq;
        let message_id: crate::id::MessageId = self.entropy.ulid(now.wall).into();
        let message = Arc::new(MessageRow {
            seq,
            id: message_id.clone(),
            sender: checked.sender.clone(),
            sender_pubkey,
            sender_member,
            sender_name,
            target_spec: send.target_spec.to_ascii_lowercase(),
            priority: send.priority,
            nonce: send.nonce.clone(),
            ciphertext: send.ciphertext.clone(),
            client_message_id: send
                .client_message_id
                .clone()
                .unwrap_or_else(|| message_id.as_str().into()),
            fingerprint: checked.fingerprint,
            reply_to: send.reply_to_id.clone(),
            body_version: send.body_version,
            seal: send.seal.clone(),
            created_at: now.wall,
        });
        let weight = message.weight();
        self.ledger
            .push(Op::MessagePut(Box::new((*message).clone())), weight);
        let claim = self.foretell(recipient, &message);
        self.ledger.push(
            Op::DeliveryPut {
                seq,
                recipient: recipient.clone(),
                claim,
            },
            128,
        );
        let txn = self.ledger.current();
        if let Some(client_message_id) = send.client_message_id.clone() {
            let row = DedupeRow {
                sender: checked.sender.clone(),
                client_message_id: client_message_id.clone(),
                fingerprint: checked.fingerprint,
                message_id: message_id.clone(),
                seq,
                first_seen_at: now.wall,
            };
            self.ledger.push(Op::DedupePut(row.clone()), 256);
            self.dedupe
                .insert((checked.sender, client_message_id), row, txn);
        }
        let most_warm = self.warm_most();
        let peer = self.peer_entry(recipient, now.mono);
        let present = peer.lease.is_present();
        let foretold = claim.map(|claim| claim.id);
        peer.owed.accept(message, txn, present, most_warm, foretold);
        if present && peer.owed.is_cold() {
            self.paging.insert(recipient.clone());
        }
        if self.timers.get(&Why::Expiry(recipient.clone())).is_none() {
            self.expect_expiry(now, recipient, Some(now.wall));
        }
        let ack = Ack {
            id: send.id.clone(),
            message_id: message_id.to_string(),
            queued: true,
            ..Ack::default()
        };
        self.promise_ack(now, id, ack, txn);
        self.gate.hold(txn, Promise::Deliver(recipient.clone()));
    }

    fn promise_ack(&mut self, now: Now, conn: ConnId, ack: Ack, txn: TxnId) {
        let token = self.next_ack;
        self.next_ack += 1;
        let deadline = now.mono + ACCEPT_DURABLE_WITHIN;
        self.acks.insert(
            token,
            PendingAck {
                conn,
                ack,
                deadline,
            },
        );
        match self.gate.pass(txn, Promise::Ack(token)) {
            Ok(durable) => self.keep(now, durable),
            Err(promise) => {
                self.gate.hold(txn, promise);
                self.arm_accept();
            }
        }
    }

    fn refuse(&mut self, id: ConnId, send: &Send, refusal: Refusal) {
        self.refuse_with(id, send, refusal, None);
    }

    /// `audience`: whom to seal for.
    fn refuse_with(
        &mut self,
        id: ConnId,
        send: &Send,
        refusal: Refusal,
        audience: Option<Audience>,
    ) {
        self.stats.refusals[refusal.code as usize] += 1;
        let ack = Ack {
            audience,
            ..refused(send.id.clone(), refusal)
        };
        self.send(id, &BrokerFrame::Ack(Box::new(ack)));
    }

    /// `first` counts on a peer's newest connection only.
    fn is_newest(&self, id: ConnId, sender: &PeerKey) -> bool {
        self.peers
            .get(sender)
            .is_some_and(|peer| peer.lease.connections().last() == Some(&id))
    }

    /// As whom the connection sends: the key whose secret may have sealed it, its member, its name.
    fn signature_of(&self, id: ConnId) -> Option<(PubKey, MemberId, String)> {
        let conn = self.conns.get(&id)?;
        if let Some(quiet) = &conn.quiet {
            let pubkey = conn.session_pubkey.unwrap_or(quiet.pubkey);
            return Some((pubkey, quiet.member.clone(), quiet.name.clone()));
        }
        let row = self.peers.get(&conn.peer)?.row.as_ref()?;
        let pubkey = conn.session_pubkey.unwrap_or(row.pubkey);
        Some((
            pubkey,
            row.member.clone(),
            super::presence::display_name(row),
        ))
    }
}

/// A send without a fingerprint gets one from its own bytes.
fn fingerprint_of(send: &Send) -> Fingerprint {
    let mut hash = Sha256::new();
    let reply_to = send.reply_to_id.as_ref().map_or("", |id| id.as_str());
    for field in [
        send.target_spec.as_str(),
        send.priority.as_str(),
        reply_to,
        send.nonce.as_str(),
        send.ciphertext.as_str(),
    ] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    Fingerprint(hash.finalize().into())
}

fn refused(id: Option<String>, refusal: Refusal) -> Ack {
    Ack {
        id,
        message_id: String::new(),
        queued: false,
        error: Some(refusal_text(refusal.code, refusal.detail)),
        code: Some(refusal.code.as_str().into()),
        retry_after_ms: refusal
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
        ..Ack::default()
    }
}

fn bad_request(detail: &'static str) -> Refusal {
    permanent(SendCode::BadRequest, detail)
}

fn permanent(code: SendCode, detail: &'static str) -> Refusal {
    Refusal {
        code,
        detail,
        retry_after: None,
    }
}

fn deferral(code: SendCode, detail: &'static str, wait: Duration) -> Refusal {
    Refusal {
        code,
        detail,
        retry_after: Some(wait),
    }
}

//! Pushes, acknowledgements, claims, and paging a cold backlog in.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::conn::Conn;
use super::delivery::{Next, Page, Takes, claim_term};
use super::{Continue, Mesh, Why};
use crate::id::{ConnId, PeerKey};
use crate::mark::Mark;
use crate::store::mesh::{ClaimRow, Load, MessageRow, Op};
use crate::time::Now;
use crate::wire::broker::Push;
use crate::wire::client::ClientAck;
use crate::wire::encode::encode_broker;
use crate::wire::receipt::Rung;
use crate::wire::{BrokerFrame, Status, plain};

impl Mesh {
    /// Pushes what a recipient is owed, as far as its connection, its window and its status let it.
    pub(super) fn deliver(&mut self, key: &PeerKey) {
        self.redirect(key);
        self.rewind(key);
        while self.push_next(key) {}
        self.arm_claim(key);
        self.page(key);
    }

    /// Bytes left the connection: claims of pushes that are out begin, and there is room.
    pub(super) fn on_sent(&mut self, now: Now, id: ConnId, bytes: u64) {
        let claim = self.config.limits.claim;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.sent(bytes);
        let key = conn.peer.clone();
        if let Some(peer) = self.peers.get_mut(&key) {
            while let Some(seq) = conn.next_push_left() {
                peer.owed.left(seq, id, now.mono, claim);
            }
        }
        self.pump_stream(now, id);
        self.pump_receipts(id);
        self.deliver(&key);
    }

    /// Settles the acknowledging peer's own delivery, never another's. No reply.
    pub(super) fn on_client_ack(&mut self, now: Now, id: ConnId, ack: &ClientAck) {
        let Some(key) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        let txn = self.ledger.current_with_op();
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let message_id = ack.broker_message_id.clone().or_else(|| {
            ack.client_message_id
                .as_ref()
                .and_then(|own| peer.owed.pushed_with_client_id(id, own))
        });
        let claimed = peer.owed.claimed();
        let Some(message) = message_id.and_then(|message| peer.owed.settle(&message, txn)) else {
            self.marks.hit(Mark::AckIgnored);
            return;
        };
        if peer.owed.claimed() == claimed {
            self.marks.hit(Mark::AckedUnclaimed);
        }
        self.stats.acknowledgements += 1;
        self.settle(now, &key, &message.head(), Rung::Delivered, None);
        self.deliver(&key);
    }

    pub(super) fn claims_ended(&mut self, now: Now, key: &PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let ended = peer.owed.expire_claims(now.mono);
        self.stats.claims_expired += ended as u64;
        for _ in 0..ended {
            self.marks.hit(Mark::ClaimExpired);
        }
        if ended > 0 {
            peer.passed_over += 1;
        }
        self.deliver(key);
    }

    /// One timer per peer: its earliest claim.
    pub(super) fn arm_claim(&mut self, key: &PeerKey) {
        match self.peers.get(key).and_then(|peer| peer.owed.claim_ends()) {
            Some(at) => self.timers.set(Why::Claim(key.clone()), at),
            None => {
                self.timers.cancel(&Why::Claim(key.clone()));
            }
        }
    }

    /// Asks for the next page of a cold backlog, if the peer is here and memory has room.
    pub(super) fn page(&mut self, key: &PeerKey) {
        if !self.paging.contains(key) {
            return;
        }
        let (durable, most) = (self.gate.durable(), self.warm_most());
        let takes = self.takes(key);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if !peer.owed.is_cold() {
            self.paging.remove(key);
            return;
        }
        if peer.owed.pass_over(takes, most) > 0 {
            self.marks.hit(Mark::BacklogPassedOver);
        }
        let Some(page) = peer.owed.page(durable, most) else {
            return;
        };
        let load = Load::Backlog {
            recipient: key.clone(),
            after: page.after,
            limit: page.limit,
        };
        self.load(load, Continue::Page(key.clone(), page));
    }

    pub(super) fn paged(&mut self, key: &PeerKey, page: Page, messages: Vec<MessageRow>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if !messages.is_empty() {
            self.marks.hit(Mark::BacklogPaged);
        }
        peer.owed.paged(page, messages);
        self.deliver(key);
    }

    fn push_next(&mut self, key: &PeerKey) -> bool {
        let Some(peer) = self.peers.get(key) else {
            return false;
        };
        let Some(id) = peer.delivers_on.filter(|id| self.conns.contains_key(id)) else {
            return false;
        };
        let takes = self.takes(key);
        let window = self.config.limits.window_messages;
        let (wall, kept_for) = (self.wall, self.config.limits.undelivered_for);
        let mut held_by_status = false;
        let next = peer
            .owed
            .next(self.gate.durable(), window, |message, attempts| {
                held_by_status |= !takes.status_lets(message.priority, attempts);
                takes.lets(message, attempts) && wall < message.created_at + kept_for
            });
        if held_by_status {
            self.marks.hit(Mark::HeldByStatus);
        }
        let Some(next) = next else {
            if peer.owed.claimed() >= window {
                self.marks.hit(Mark::WindowFull);
            }
            return false;
        };
        self.push(key, id, &next)
    }

    /// A backlog that was passed over is read again when more of it may be taken.
    fn rewind(&mut self, key: &PeerKey) {
        let takes = self.takes(key);
        let newest = self.ledger.current();
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.delivers_on.is_some() && peer.owed.rewind(takes, newest) {
            self.paging.insert(key.clone());
        }
    }

    pub(super) fn takes(&self, key: &PeerKey) -> Takes {
        let peer = self.peers.get(key);
        let conn = peer.and_then(|peer| self.conns.get(&peer.delivers_on?));
        Takes {
            status: peer
                .and_then(|peer| peer.row.as_ref())
                .map_or(Status::Idle, |row| row.registration.status),
            opens_x1: conn.is_some_and(|conn| conn.seal_x1),
        }
    }

    /// Deliveries go over one connection at a time. Where that is another than before, it counts
    /// as a reattach: what is not acknowledged goes out again there, oldest first.
    fn redirect(&mut self, key: &PeerKey) {
        let target = self.delivery_connection(key);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.delivers_on == target {
            return;
        }
        if let Some(old) = core::mem::replace(&mut peer.delivers_on, target) {
            peer.owed.release(old);
        }
    }

    /// A session has one. A member's mail goes to its newest connection without a session of its
    /// own, else to its newest; when a claim expires there, to the next newest.
    fn delivery_connection(&self, key: &PeerKey) -> Option<ConnId> {
        let candidates = self.delivery_candidates(key);
        let passed_over = self.peers.get(key)?.passed_over;
        let index = passed_over.checked_rem(candidates.len())?;
        candidates.get(index).copied()
    }

    /// Newest first.
    fn delivery_candidates(&self, key: &PeerKey) -> Vec<ConnId> {
        let Some(peer) = self.peers.get(key) else {
            return Vec::new();
        };
        let able = |which: fn(&Conn) -> bool| -> Vec<ConnId> {
            let newest_first = peer.lease.connections().iter().rev();
            newest_first
                .filter_map(|id| self.conns.get(id))
                .filter(|conn| which(conn))
                .map(|conn| conn.id)
                .collect()
        };
        let preferred = able(|conn| conn.session_pubkey.is_none());
        if preferred.is_empty() {
            able(|_| true)
        } else {
            preferred
        }
    }

    /// False where the connection has to drain first.
    fn push(&mut self, key: &PeerKey, id: ConnId, next: &Next) -> bool {
        let half = self.config.limits.queued_bytes / 2;
        let Some(conn) = self.conns.get(&id) else {
            return false;
        };
        if conn.queued() > half {
            self.marks.hit(Mark::DeliveryPaced);
            return false;
        }
        let message = &next.message;
        let member = self.roster.member(&message.sender_member);
        let push = Push {
            message_id: message.id.clone(),
            mesh_id: self.config.mesh.clone(),
            sender_pubkey: message.sender_pubkey,
            sender_member_pubkey: member.map(|member| member.pubkey),
            sender_member_id: Some(message.sender_member.clone()),
            sender_name: message.sender_name.clone(),
            reply_to_id: message.reply_to.clone(),
            priority: message.priority,
            nonce: message.nonce.clone(),
            ciphertext: message.ciphertext.clone(),
            created_at: message.created_at.iso8601().to_string(),
            client_message_id: message.client_message_id.clone(),
            request_fingerprint: Some(message.fingerprint),
            body_version: message.body_version,
            target_spec: Some(message.target_spec.clone()),
            seal: message.seal.clone(),
            attempt: (next.attempt > 1).then_some(next.attempt),
        };
        let push = if conn.features {
            push
        } else {
            plain::bare(push)
        };
        let seq = message.seq;
        self.stats.pushes += 1;
        if next.attempt > 1 {
            self.stats.redeliveries += 1;
            self.marks.hit(Mark::PushedAgain);
        } else {
            self.marks.hit(Mark::Pushed);
        }
        self.send_bytes(id, encode_broker(&BrokerFrame::Push(Box::new(push))));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pushed(seq);
        }
        self.stats.claims += 1;
        let is_told = self
            .peers
            .get_mut(key)
            .is_some_and(|peer| peer.owed.claim(seq, id));
        if is_told {
            let op = Op::DeliveryClaimed {
                seq,
                recipient: key.clone(),
                claim: self.claim_row(id, next.attempt),
            };
            self.ledger.push(op, 128);
        }
        true
    }

    /// What the row of a message accepted now says of its first push, where nothing is before it.
    pub(super) fn foretell(&self, key: &PeerKey, message: &MessageRow) -> Option<ClaimRow> {
        let limits = &self.config.limits;
        let peer = self.peers.get(key)?;
        let conn = self.conns.get(&peer.delivers_on?)?;
        let goes_out = peer.owed.is_next(limits.window_messages)
            && conn.queued() <= limits.queued_bytes / 2
            && self.takes(key).lets(message, 0);
        goes_out.then(|| self.claim_row(conn.id, 1))
    }

    fn claim_row(&self, id: ConnId, attempts: u32) -> ClaimRow {
        ClaimRow {
            id,
            attempts,
            claimed_at: self.wall,
            expires_at: self.wall + claim_term(attempts, self.config.limits.claim),
        }
    }
}

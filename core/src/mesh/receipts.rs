//! Receipts: how far each delivery came, numbered for its sender, and what was seen.
//!
//! A number is given when a delivery is settled and told when that is durable. What a sender
//! missed is read from the store, from the number that it has: a delivery keeps its highest rung
//! and the last number given for it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::settlements::rung;
use super::{Continue, Mesh, Promise};
use crate::id::{ConnId, MessageId, PeerKey, PubKey, ReceiptNumber};
use crate::mark::Mark;
use crate::store::mesh::{Head, Load, Op, ReceiptRow, Standing};
use crate::time::Now;
use crate::wire::client::ReqId;
use crate::wire::receipt::{Receipt, Rung, Seen};
use crate::wire::{BrokerFrame, Code};

/// Receipts that are read at once.
const RECEIPTS_PAGE: usize = 64;

/// The numbers of one sender's receipts.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub last: ReceiptNumber,
    /// Up to here they may be told.
    pub durable: ReceiptNumber,
}

impl Numbers {
    #[must_use]
    pub fn recovered(last: ReceiptNumber) -> Self {
        Self {
            last,
            durable: last,
        }
    }
}

/// How far a connection was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldUpto {
    pub n: ReceiptNumber,
    pub loading: bool,
}

impl Mesh {
    /// The delivery came to `rung`: its sender will be told.
    pub(super) fn settle(
        &mut self,
        now: Now,
        recipient: &PeerKey,
        head: &Head,
        rung: Rung,
        reason: Option<String>,
    ) {
        let numbers = &mut self.peer_entry(&head.sender, now.mono).receipts;
        numbers.last = numbers.last.next();
        let row = ReceiptRow {
            sender: head.sender.clone(),
            n: numbers.last,
            recipient: recipient.clone(),
            recipient_pubkey: self.pubkey_of(recipient),
            seq: head.seq,
            message_id: head.id.clone(),
            client_message_id: head.client_message_id.clone(),
            rung,
            reason,
            at: now.wall,
        };
        self.marks.hit(match rung {
            Rung::Delivered => Mark::SettledDelivered,
            Rung::Seen => Mark::SettledSeen,
            Rung::Expired | Rung::Dead => Mark::SettledExpired,
        });
        match rung {
            Rung::Delivered => {}
            Rung::Seen => self.stats.seen += 1,
            Rung::Expired | Rung::Dead => self.stats.expired += 1,
        }
        self.ledger
            .push(Op::DeliverySettled(Box::new(row.clone())), 256);
        let txn = self.ledger.current();
        self.settlements.insert(row.clone(), txn);
        self.gate.hold(txn, Promise::Receipt(Box::new(row)));
        self.expect_expiry(now, recipient, None);
    }

    /// Only called with what left the gate.
    pub(super) fn tell_receipt(&mut self, row: &ReceiptRow) {
        let Some(peer) = self.peers.get_mut(&row.sender) else {
            return;
        };
        let before = core::mem::replace(&mut peer.receipts.durable, row.n);
        let quiet = self.quiet.get(&row.sender).copied();
        let of_lease = peer.lease.connections().to_vec();
        for id in of_lease.into_iter().chain(quiet) {
            self.tell_on(id, before, row);
        }
    }

    fn tell_on(&mut self, id: ConnId, before: ReceiptNumber, row: &ReceiptRow) {
        let half = self.config.limits.queued_bytes / 2;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let has_room = conn.queued() <= half;
        let Some(told) = conn.receipts.as_mut() else {
            return;
        };
        // One that lags reads what it lacks, this one with it.
        if told.loading || told.n < before || told.n >= row.n || !has_room {
            return;
        }
        told.n = row.n;
        self.stats.receipts += 1;
        self.marks.hit(Mark::ReceiptTold);
        self.send(id, &BrokerFrame::Receipt(receipt(row)));
    }

    /// Reads what a connection lacks, if it has room.
    pub(super) fn pump_receipts(&mut self, id: ConnId) {
        let half = self.config.limits.queued_bytes / 2;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let Some(peer) = self.peers.get(&conn.peer) else {
            return;
        };
        let has_room = conn.queued() <= half;
        let Some(told) = conn.receipts.as_mut() else {
            return;
        };
        if told.loading || told.n >= peer.receipts.durable || !has_room {
            return;
        }
        told.loading = true;
        let load = Load::Receipts {
            sender: conn.peer.clone(),
            after: told.n,
            limit: RECEIPTS_PAGE,
        };
        let upto = peer.receipts.durable;
        self.load(load, Continue::Receipts { conn: id, upto });
    }

    /// `upto`: what was durable when they were asked for.
    pub(super) fn receipts_read(&mut self, id: ConnId, upto: ReceiptNumber, rows: Vec<ReceiptRow>) {
        let Some(told) = self
            .conns
            .get_mut(&id)
            .and_then(|conn| conn.receipts.as_mut())
        else {
            return;
        };
        told.loading = false;
        let last = rows.last().map_or(told.n, |row| row.n);
        told.n = if rows.len() < RECEIPTS_PAGE {
            last.max(upto)
        } else {
            last
        };
        for row in rows {
            self.stats.receipts += 1;
            self.marks.hit(Mark::ReceiptReplayed);
            self.send(id, &BrokerFrame::Receipt(receipt(&row)));
        }
        self.pump_receipts(id);
    }

    pub(super) fn on_seen(&mut self, now: Now, id: ConnId, seen: Seen) {
        let Some(recipient) = self.may_look_up(now, id, seen.req_id.as_ref()) else {
            return;
        };
        let load = Load::Deliveries {
            recipient,
            ids: seen.ids.into_iter().map(MessageId::from).collect(),
        };
        let req_id = seen.req_id;
        self.load(load, Continue::Seen { conn: id, req_id });
    }

    /// What it says that it has seen, it has: a delivery whose acknowledgement was lost is settled
    /// with it, and one that had expired was not too late after all.
    pub(super) fn seen_looked_up(
        &mut self,
        now: Now,
        id: ConnId,
        req_id: Option<ReqId>,
        found: Vec<(Head, Standing)>,
    ) {
        let Some(recipient) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        for (head, read) in found {
            let standing = self.settlements.standing(&recipient, head.seq, read);
            let was = rung(&standing);
            if was == Some(Rung::Seen) {
                self.marks.hit(Mark::SeenAgain);
                continue;
            }
            if was.is_none() {
                self.take_from_owed(&recipient, &head);
            }
            self.settle(now, &recipient, &head, Rung::Seen, None);
        }
        self.reply_ok(now, id, req_id);
        self.deliver(&recipient);
    }

    /// An owed delivery is about to be settled, wherever it is held.
    pub(super) fn take_from_owed(&mut self, recipient: &PeerKey, head: &Head) {
        let txn = self.ledger.current_with_op();
        let Some(peer) = self.peers.get_mut(recipient) else {
            return;
        };
        if peer.owed.settle(&head.id, txn).is_none() {
            peer.owed.settle_cold(head.seq, head.weight, txn);
        }
    }

    /// Who asks for a read of the store, if its budget and the store let it; else it is told why
    /// not.
    pub(super) fn may_look_up(
        &mut self,
        now: Now,
        id: ConnId,
        req_id: Option<&ReqId>,
    ) -> Option<PeerKey> {
        let key = self.conns.get(&id)?.peer.clone();
        if self.ledger.is_busy() {
            let message = String::from("the store is behind: ask again later");
            self.refuse_frame(id, Code::Busy, message, req_id.cloned());
            return None;
        }
        let rate = self.look_up_rate();
        let taken = self
            .peer_entry(&key, now.mono)
            .look_ups
            .take(now.mono, rate);
        if taken.is_err() {
            let message = String::from("too many questions at once");
            self.refuse_frame(id, Code::RateLimited, message, req_id.cloned());
            return None;
        }
        self.stats.look_ups += 1;
        Some(key)
    }

    /// The key by which others address a peer: a session's own, or its member's.
    pub(super) fn pubkey_of(&self, key: &PeerKey) -> PubKey {
        match key {
            PeerKey::Session(pubkey) => *pubkey,
            PeerKey::Member(id) => self
                .roster
                .member(id)
                .map_or(PubKey([0; 32]), |member| member.pubkey),
        }
    }
}

fn receipt(row: &ReceiptRow) -> Receipt {
    Receipt {
        n: row.n.0,
        client_message_id: row.client_message_id.clone(),
        recipient: row.recipient_pubkey,
        rung: row.rung,
        reason: row.reason.clone(),
        at: row.at.iso8601().to_string(),
    }
}

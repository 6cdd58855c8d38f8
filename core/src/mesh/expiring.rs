//! Retention: what its recipient did not take in time is settled as expired, and its sender told.
//!
//! One timer a recipient, for the oldest that it is owed. What is overdue is not pushed any more;
//! what is under way when its time comes is left to its claim, because it may have arrived.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Continue, Mesh, Why};
use crate::id::{MessageSeq, PeerKey};
use crate::mark::Mark;
use crate::store::mesh::{Load, MessageRow};
use crate::time::{Now, Wall};
use crate::wire::receipt::Rung;

/// Of one recipient, looked at together.
const EXPIRING_AT_ONCE: usize = 16;

impl Mesh {
    /// When it is not owed any more.
    pub(super) fn expires_at(&self, accepted_at: Wall) -> Wall {
        accepted_at + self.config.limits.undelivered_for
    }

    pub(super) fn has_expired(&self, accepted_at: Wall) -> bool {
        self.wall >= self.expires_at(accepted_at)
    }

    /// Keeps the timer true to what is owed. `oldest`: the first that is, where that is known; a
    /// timer that stands is early at worst.
    pub(super) fn expect_expiry(&mut self, now: Now, recipient: &PeerKey, oldest: Option<Wall>) {
        let owes = self
            .peers
            .get(recipient)
            .is_some_and(|peer| peer.owed.messages() > 0);
        let why = Why::Expiry(recipient.clone());
        if !owes {
            self.timers.cancel(&why);
            return;
        }
        if let Some(oldest) = oldest {
            let left = self.expires_at(oldest).since(now.wall);
            self.timers.set(why, now.mono + left);
        }
    }

    pub(super) fn expiry_due(&mut self, recipient: &PeerKey) {
        self.read_oldest(recipient, MessageSeq(0));
    }

    fn read_oldest(&mut self, recipient: &PeerKey, after: MessageSeq) {
        let load = Load::Backlog {
            recipient: recipient.clone(),
            after,
            limit: EXPIRING_AT_ONCE,
        };
        self.load(load, Continue::Expire(recipient.clone()));
    }

    /// The oldest that the store says are owed.
    pub(super) fn expire(&mut self, now: Now, recipient: &PeerKey, oldest: Vec<MessageRow>) {
        let more_after = (oldest.len() == EXPIRING_AT_ONCE)
            .then(|| oldest.last().map(|row| row.seq))
            .flatten();
        let mut under_way = false;
        let mut next = None;
        for row in oldest {
            if self.settlements.is_settled(recipient, row.seq) {
                continue;
            }
            if !self.has_expired(row.created_at) {
                next = Some(row.created_at);
                break;
            }
            let peer = self.peers.get(recipient);
            let known = peer.and_then(|peer| peer.owed.known(row.seq));
            if known.is_some_and(|known| known.claimed) {
                self.marks.hit(Mark::ExpiryLeftToClaim);
                under_way = true;
                continue;
            }
            let head = row.head();
            self.take_from_owed(recipient, &head);
            let reason = String::from("not acknowledged within retention");
            self.settle(now, recipient, &head, Rung::Expired, Some(reason));
        }
        match (next, more_after) {
            (Some(oldest), _) if !under_way => self.expect_expiry(now, recipient, Some(oldest)),
            (None, Some(after)) if !under_way => self.read_oldest(recipient, after),
            _ => self.look_again(now, recipient),
        }
        self.deliver(recipient);
    }

    /// When what is under way will have arrived or not, and what was accepted meanwhile is durable.
    fn look_again(&mut self, now: Now, recipient: &PeerKey) {
        let at = now.mono + self.config.limits.claim;
        self.timers.set(Why::Expiry(recipient.clone()), at);
        self.expect_expiry(now, recipient, None);
    }
}

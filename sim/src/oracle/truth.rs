//! What really happened to a peer, from the broker's doorstep: when it was last heard, how long it
//! was silent, and whether that silence may or must have cost it its lease.
//!
//! All in true time, so that every bound leaves room for clocks that run 1 % fast or slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{ConnId, PeerKey, PubKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::ClientFrame;

use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

/// 90 s on a clock that runs fast, less what a hop takes.
const MAY_LEAVE_AFTER_US: u64 = 88_000_000;
/// A pause longer than this is noticed as one by whoever was in grace: 90 s, 5 s, and drift.
const SURELY_NOTICED_US: u64 = 97_000_000;
/// Silence is noticed after 35 s, 45 s where a ping cannot leave; then 90 s; and drift, slow timers,
/// a slow store.
const MUST_LEAVE_AFTER_US: u64 = 165_000_000;

#[derive(Default)]
pub struct Truth {
    owner: Owner,
    peers: BTreeMap<Arc<PeerKey>, Peer>,
    /// The key of the member behind them, as their hellos said.
    members: BTreeMap<Arc<PeerKey>, PubKey>,
    /// Who asked for a kick that is not answered.
    kicking: BTreeSet<Arc<PeerKey>>,
}

#[derive(Default)]
struct Owner {
    node: NodeId,
    started: Moment,
    running: bool,
    paused_since: Option<Moment>,
    /// The end of the last pause that nobody in grace can have missed.
    surely_stalled: Option<Moment>,
    /// The end of the last pause of any length.
    continued: Option<Moment>,
    store_well_since: Moment,
    store_faulty: bool,
}

#[derive(Default)]
struct Peer {
    conns: BTreeSet<(usize, ConnId)>,
    last_heard: Moment,
    /// The silence that is going on may have ended the lease.
    may: bool,
    /// The lease has ended since it was last heard: it cannot end again.
    ended: bool,
    /// Silences and `bye`s that may have ended the lease, and are not used up by a leave.
    may_leave: u32,
}

impl Truth {
    pub fn see(&mut self, at: Moment, record: &Record) {
        match record {
            Record::OwnerStarted { node } => {
                self.kicking.clear();
                self.weigh_all(at);
                self.owner.node = *node;
                self.owner.started = at;
                self.owner.running = true;
                self.owner.paused_since = None;
                self.owner.surely_stalled = None;
                self.owner.continued = None;
                self.peers.values_mut().for_each(|peer| peer.conns.clear());
            }
            // A former owner, which another has taken the mesh from, decides nothing.
            Record::OwnerStopped { node }
            | Record::OwnerPaused { node }
            | Record::OwnerContinued { node }
                if *node != self.owner.node => {}
            Record::OwnerStopped { .. } => {
                self.weigh_all(at);
                self.owner.running = false;
            }
            Record::OwnerPaused { .. } => {
                self.weigh_all(at);
                self.owner.paused_since = Some(at);
            }
            Record::OwnerContinued { .. } => {
                if let Some(since) = self.owner.paused_since.take() {
                    self.owner.continued = Some(at);
                    if at.since_us(since) > SURELY_NOTICED_US {
                        self.owner.surely_stalled = Some(at);
                    }
                }
            }
            Record::StoreFault { broken } => {
                self.owner.store_faulty = *broken;
                self.owner.store_well_since = at;
            }
            Record::Attached {
                node,
                conn,
                peer,
                hello,
            } if *node == self.owner.node => {
                self.members.insert(Arc::clone(peer), hello.member_pubkey);
                self.weigh(at, peer);
                let many = matches!(**peer, PeerKey::Member(_));
                let entry = self.peers.entry(Arc::clone(peer)).or_default();
                if !many {
                    entry.conns.clear();
                }
                entry.conns.insert((*node, *conn));
                entry.last_heard = at;
                entry.ended = false;
                if std::mem::take(&mut entry.may) {
                    entry.may_leave += 1;
                }
            }
            Record::Heard { node, conn, peer } => {
                // On a connection that was replaced nothing counts.
                let here = self.peers.get(peer);
                if !here.is_some_and(|entry| entry.conns.contains(&(*node, *conn))) {
                    return;
                }
                // A silent connection that is still open: nobody in grace is heard.
                if let Some(entry) = self.peers.get_mut(peer) {
                    entry.last_heard = at;
                }
            }
            Record::Bye { node, peer, .. } if *node == self.owner.node => {
                self.end(peer);
            }
            Record::Moderation { node, peer, frame } if *node == self.owner.node => {
                if matches!(**frame, ClientFrame::Kick { .. }) {
                    self.kicking.insert(Arc::clone(peer));
                }
            }
            Record::Sent {
                node, peer, frame, ..
            } if *node == self.owner.node && answers_a_kick(frame) => {
                self.kicking.remove(peer);
            }
            Record::MeshCommitted { ops, .. } => ops.iter().for_each(|op| self.banned(op)),
            _ => {}
        }
    }

    /// A leave became durable: was there a silence for it? Uses it up.
    pub fn leave(&mut self, at: Moment, peer: &PeerKey) -> bool {
        self.weigh(at, peer);
        let Some(entry) = self.peers.get_mut(peer) else {
            // It was there before the world began.
            return true;
        };
        if entry.may_leave > 0 {
            entry.may_leave -= 1;
            return true;
        }
        entry.ended |= entry.may;
        if std::mem::take(&mut entry.may) {
            return true;
        }
        // Whom a kick reaches it says afterwards, and whether that is right others judge.
        let is_kicked = !self.kicking.is_empty();
        // It may have come back before its leave was durable.
        entry.ended |= is_kicked && entry.conns.is_empty();
        is_kicked
    }

    /// It has been silent for so long that its lease must have ended, and that its end is durable.
    #[must_use]
    pub fn must_be_gone(&self, at: Moment, peer: &PeerKey) -> bool {
        let Some(entry) = self.peers.get(peer) else {
            return false;
        };
        let owner = &self.owner;
        let since = entry
            .last_heard
            .max(owner.started)
            .max(owner.continued.unwrap_or_default())
            .max(owner.store_well_since);
        owner.running
            && owner.paused_since.is_none()
            && !owner.store_faulty
            && at.since_us(since) > MUST_LEAVE_AFTER_US
    }

    #[must_use]
    pub fn silent_us(&self, at: Moment, peer: &PeerKey) -> Option<u64> {
        Some(at.since_us(self.peers.get(peer)?.last_heard))
    }

    #[must_use]
    pub fn owner_started(&self) -> Moment {
        self.owner.started
    }

    /// Its lease ends at once, whatever it was: `bye`, kick or ban.
    fn end(&mut self, peer: &Arc<PeerKey>) {
        let entry = self.peers.entry(Arc::clone(peer)).or_default();
        entry.may_leave += u32::from(!std::mem::replace(&mut entry.ended, true));
        entry.may = false;
        entry.conns.clear();
    }

    /// Of the member and of all its sessions, in the same transaction.
    fn banned(&mut self, op: &Op) {
        let Op::MemberPut(row) = op else { return };
        if row.revoked_at.is_none() {
            return;
        }
        let theirs = self.members.iter().filter(|(_, key)| **key == row.pubkey);
        let theirs: Vec<Arc<PeerKey>> = theirs.map(|(peer, _)| Arc::clone(peer)).collect();
        for peer in theirs {
            self.end(&peer);
        }
    }

    fn weigh_all(&mut self, at: Moment) {
        let keys: Vec<Arc<PeerKey>> = self.peers.keys().cloned().collect();
        for key in keys {
            self.weigh(at, &key);
        }
    }

    /// Would a leave be right at this moment? Judged before anything changes that bears on it.
    fn weigh(&mut self, at: Moment, peer: &PeerKey) {
        let owner = &self.owner;
        if !owner.running {
            return;
        }
        let begins = [Some(owner.started), owner.surely_stalled];
        let long_enough = begins
            .into_iter()
            .flatten()
            .all(|begin| at.since_us(begin) >= MAY_LEAVE_AFTER_US);
        if let Some(entry) = self.peers.get_mut(peer) {
            let silent = at.since_us(entry.last_heard) >= MAY_LEAVE_AFTER_US;
            entry.may |= long_enough && silent && !entry.ended;
        }
    }
}

/// When the leaves that it made are durable.
fn answers_a_kick(frame: &[u8]) -> bool {
    [&b"{\"type\":\"kick_ack\""[..], b"{\"type\":\"error\""]
        .iter()
        .any(|begin| frame.starts_with(begin))
}

//! G7: a push that is not acknowledged within its claim is pushed again, without anything else
//! having to happen; and a delivery is settled only by the one it is owed to. As long as a claim
//! lasts, its connection has the push and gets it no second time.
//!
//! Lateness is judged where nothing stands in the way: the recipient has the push, its connection stayed, the
//! owner ran, and nothing is queued to anybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_core::id::{ConnId, MessageId, PeerKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::ledger::Ledger;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

/// A claim of 30 s, doubled at each further push up to 5 min, on a clock that runs slow, and what
/// slow timers and hops add.
fn claim_us(pushes: u32) -> u64 {
    let seconds = [30, 60, 120, 240, 300][(pushes.max(1) as usize - 1).min(4)];
    seconds * 1_000_000 * 102 / 100 + 8_000_000
}

/// The shortest claim, on a clock that runs fast.
const CLAIM_LEAST_US: u64 = 29_000_000;

#[derive(Default)]
pub struct Claims {
    ledger: Ledger,
    accepted: BTreeMap<MessageId, Moment>,
    unacknowledged: BTreeMap<(Arc<PeerKey>, MessageId), Push>,
    owner: NodeId,
    owner_runs: bool,
}

struct Push {
    conn: ConnId,
    pushes: u32,
    /// For the last time.
    pushed: Moment,
    /// The recipient has it since.
    received: Option<Moment>,
}

impl Oracle for Claims {
    fn name(&self) -> &'static str {
        "g7_claims"
    }

    fn see(&mut self, at: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::OwnerStarted { node } => {
                self.owner = *node;
                self.owner_runs = true;
                self.unacknowledged.clear();
            }
            Record::OwnerContinued { node } if *node == self.owner => {
                self.owner_runs = true;
                self.unacknowledged.clear();
            }
            Record::OwnerStopped { node } | Record::OwnerPaused { node } if *node == self.owner => {
                self.owner_runs = false;
                self.unacknowledged.clear();
            }
            // A former owner, which another has taken the mesh from, promises nothing.
            Record::Sent { node, .. } | Record::Sizes { node, .. } if *node != self.owner => {}
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    self.ledger.apply(op);
                    if let Op::MessagePut(row) = op {
                        self.accepted.insert(row.id.clone(), at);
                    }
                    if let Op::DeliverySettled(row) = op {
                        let key = (Arc::new(row.recipient.clone()), row.message_id.clone());
                        self.unacknowledged.remove(&key);
                    }
                }
            }
            Record::Attached { peer, .. } | Record::Detached { peer, .. } => {
                self.unacknowledged.retain(|(own, _), _| own != peer);
            }
            Record::Sent {
                conn, peer, frame, ..
            } => return self.sent(at, *conn, peer, frame),
            Record::PuppetGot { key, id, .. } => {
                let of = (Arc::clone(key), id.clone());
                if let Some(push) = self.unacknowledged.get_mut(&of) {
                    push.received.get_or_insert(at);
                }
            }
            Record::PuppetAcked { key, id } => {
                self.unacknowledged.remove(&(Arc::clone(key), id.clone()));
            }
            Record::Sizes { sizes, .. } => return self.overdue(at, sizes, view),
            _ => {}
        }
        Ok(())
    }
}

impl Claims {
    fn sent(
        &mut self,
        at: Moment,
        conn: ConnId,
        peer: &Arc<PeerKey>,
        frame: &[u8],
    ) -> Result<(), String> {
        if !frame.starts_with(b"{\"type\":\"push\"") {
            return Ok(());
        }
        let Ok(BrokerFrame::Push(push)) = decode_broker(frame) else {
            return Ok(());
        };
        let this = Push {
            conn,
            pushes: push.attempt.unwrap_or(1),
            pushed: at,
            received: None,
        };
        let of = (Arc::clone(peer), push.message_id);
        let Some(last) = self.unacknowledged.get_mut(&of) else {
            self.unacknowledged.insert(of, this);
            return Ok(());
        };
        if last.conn == conn && at.since_us(last.pushed) < CLAIM_LEAST_US {
            return Err(format!(
                "{peer} is pushed {:?} at {:.1} s and again on the same connection, within its claim",
                of.1,
                last.pushed.seconds()
            ));
        }
        let pushes = last.pushes + 1;
        *last = Push { pushes, ..this };
        Ok(())
    }

    /// It is not owed for long any more, or no longer, by the broker's own clock.
    fn may_have_expired(&self, at: Moment, message: &MessageId, view: &View) -> bool {
        let accepted = self.accepted.get(message).copied().unwrap_or_default();
        super::retention_may_be_over(at, accepted, view)
    }

    fn overdue(
        &self,
        at: Moment,
        sizes: &[(&'static str, u64, u64)],
        view: &View,
    ) -> Result<(), String> {
        let queued = sizes
            .iter()
            .any(|(name, size, _)| *name == "queued bytes" && *size > 0);
        if queued || !self.owner_runs {
            return Ok(());
        }
        for ((peer, message), push) in &self.unacknowledged {
            if self.may_have_expired(at, message, view) {
                continue;
            }
            let Some(received) = push.received else {
                continue;
            };
            if at.since_us(received) > claim_us(push.pushes) {
                return Err(format!(
                    "{peer} has {message:?} since {:.1} s, unacknowledged, and it was not pushed again (push {})",
                    received.seconds(),
                    push.pushes
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn an_expired_claim_that_is_forgotten_is_found() {
        let base = |later: u64, again: bool| {
            let mut history = vec![
                (s(0), Record::OwnerStarted { node: 0 }),
                (s(1), testing::sent(2, 1, &testing::push_frame(1, None))),
                (
                    s(2),
                    Record::PuppetGot {
                        node: 2,
                        key: testing::key(2),
                        sender: testing::pubkey(1),
                        id: testing::message_id(1),
                        body: None,
                    },
                ),
            ];
            if again {
                history.push((s(33), testing::sent(2, 1, &testing::push_frame(1, Some(2)))));
            }
            history.push((
                s(later),
                Record::Sizes {
                    node: 0,
                    sizes: Vec::new(),
                },
            ));
            testing::judge(&mut Claims::default(), &history)
        };
        assert!(base(31, false).is_ok());
        assert!(base(60, false).is_err());
        assert!(base(60, true).is_ok());
    }

    #[test]
    fn a_second_push_within_the_claim_is_found() {
        let again = |later: u64, between: Option<Record>| {
            let push = |attempt| testing::sent(2, 1, &testing::push_frame(1, attempt));
            let mut history = vec![(s(0), Record::OwnerStarted { node: 0 }), (s(1), push(None))];
            history.extend(between.map(|record| (s(2), record)));
            history.push((s(later), push(Some(2))));
            testing::judge(&mut Claims::default(), &history)
        };
        let restarted = Record::OwnerStarted { node: 0 };
        assert!(again(3, None).is_err());
        assert!(again(31, None).is_ok());
        assert!(again(3, Some(restarted)).is_ok());
    }
}

//! What is owed to a peer that is here, with nothing of its own under way, is pushed: nothing else
//! has to happen first. A claim on a dead socket, or a window that is not filled again, would make
//! a message wait for nothing.
//!
//! Judged for messages that no status holds back, where the store is well and nothing is queued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{ConnId, MessageId, MessageSeq, PeerKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::feature::SEAL_X1;
use bowline_core::wire::{BrokerFrame, Priority, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

/// What look-ups of a cold backlog, hops and late timers add up to.
const WITHIN_US: u64 = 20_000_000;
/// A store that was ill is well again; its backlog of transactions is through.
const RECOVERED_AFTER_US: u64 = 60_000_000;
/// A store that is as slow as this by nature is not judged.
const COMMIT_MOST_US: u64 = 300_000;

#[derive(Default)]
pub struct OwedIsPushed {
    owed: BTreeMap<PeerKey, BTreeMap<MessageSeq, (MessageId, Moment)>>,
    now: BTreeMap<MessageSeq, MessageId>,
    here: BTreeMap<Arc<PeerKey>, Here>,
    owner: NodeId,
    owner_runs: bool,
    store_is_ill: bool,
    calm_since: Moment,
}

struct Here {
    conns: BTreeSet<ConnId>,
    /// Pushed and not settled, on which connection.
    under_way: BTreeMap<MessageId, ConnId>,
    /// Its newest connection takes what is sealed today.
    opens: bool,
    /// Since when nothing of it changed.
    since: Moment,
}

impl Oracle for OwedIsPushed {
    fn name(&self) -> &'static str {
        "owed_is_pushed"
    }

    fn see(&mut self, at: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::OwnerStarted { node } => {
                self.owner = *node;
                self.owner_runs = true;
                self.here.clear();
                self.calm_since = at;
            }
            Record::OwnerContinued { node } if *node == self.owner => {
                self.owner_runs = true;
                self.calm_since = at;
            }
            Record::OwnerStopped { node } | Record::OwnerPaused { node } if *node == self.owner => {
                self.owner_runs = false;
            }
            Record::StoreFault { broken } => {
                self.store_is_ill = *broken;
                self.calm_since = Moment(at.0 + RECOVERED_AFTER_US);
            }
            Record::MeshCommitted { ops, .. } => ops.iter().for_each(|op| self.committed(at, op)),
            Record::Attached {
                node,
                conn,
                peer,
                hello,
            } if *node == self.owner => {
                let here = self.here.entry(Arc::clone(peer)).or_insert(Here {
                    conns: BTreeSet::new(),
                    under_way: BTreeMap::new(),
                    opens: false,
                    since: at,
                });
                here.opens = hello.offer.capabilities.has(SEAL_X1);
                here.conns.insert(*conn);
                here.since = at;
            }
            Record::Detached { conn, peer, .. } | Record::Bye { conn, peer, .. } => {
                self.gone(at, peer, *conn);
            }
            Record::Sent {
                node,
                conn,
                peer,
                frame,
                ..
            } if *node == self.owner => self.sent(at, *conn, peer, frame),
            Record::Sizes { node, sizes } if *node == self.owner => {
                return self.judge(at, sizes, view);
            }
            _ => {}
        }
        Ok(())
    }
}

impl OwedIsPushed {
    fn committed(&mut self, at: Moment, op: &Op) {
        match op {
            Op::MessagePut(row) if row.priority == Priority::Now => {
                self.now.insert(row.seq, row.id.clone());
            }
            Op::DeliveryPut { seq, recipient, .. } => {
                if let Some(id) = self.now.get(seq) {
                    let owed = self.owed.entry(recipient.clone()).or_default();
                    owed.insert(*seq, (id.clone(), at));
                }
            }
            Op::DeliverySettled(row) => {
                let (seq, recipient) = (&row.seq, &row.recipient);
                let id = self
                    .owed
                    .get_mut(recipient)
                    .and_then(|owed| owed.remove(seq));
                if let Some(here) = self.here.get_mut(recipient) {
                    here.since = at;
                    if let Some((id, _)) = id {
                        here.under_way.remove(&id);
                    }
                }
            }
            _ => {}
        }
    }

    fn gone(&mut self, at: Moment, peer: &Arc<PeerKey>, conn: ConnId) {
        let Some(here) = self.here.get_mut(peer) else {
            return;
        };
        here.conns.remove(&conn);
        here.under_way.retain(|_, on| *on != conn);
        here.since = at;
        if here.conns.is_empty() {
            self.here.remove(peer);
        }
    }

    fn sent(&mut self, at: Moment, conn: ConnId, peer: &Arc<PeerKey>, frame: &[u8]) {
        if !frame.starts_with(b"{\"type\":\"push\"") {
            return;
        }
        let (Ok(BrokerFrame::Push(push)), Some(here)) =
            (decode_broker(frame), self.here.get_mut(peer))
        else {
            return;
        };
        here.under_way.insert(push.message_id, conn);
        here.since = at;
    }

    fn judge(
        &self,
        at: Moment,
        sizes: &[(&'static str, u64, u64)],
        view: &View,
    ) -> Result<(), String> {
        let queued = sizes
            .iter()
            .any(|(name, size, _)| *name == "queued bytes" && *size > 0);
        let slow = view.profile.broker_store.commit_most_us > COMMIT_MOST_US;
        if queued || slow || !self.owner_runs || self.store_is_ill {
            return Ok(());
        }
        for (peer, here) in &self.here {
            let Some(owed) = self.owed.get(&**peer).filter(|owed| !owed.is_empty()) else {
                continue;
            };
            if !here.under_way.is_empty() || !here.opens {
                continue;
            }
            for (seq, (_, owed_since)) in owed {
                if super::retention_may_be_over(at, *owed_since, view) {
                    continue;
                }
                let calm = here.since.max(*owed_since).max(self.calm_since);
                if at > calm && at.since_us(calm) > WITHIN_US {
                    return Err(format!(
                        "{peer} is here, nothing is under way to it, and message {} is owed to it \
                         since {:.1} s",
                        seq.0,
                        owed_since.seconds()
                    ));
                }
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
    fn a_message_that_waits_for_nothing_is_found() {
        let history = |pushed: bool| {
            let mut ops = testing::accept(1, 1, 2, "a");
            for op in &mut ops {
                if let Op::MessagePut(row) = op {
                    row.priority = Priority::Now;
                }
            }
            let mut history = vec![
                (s(0), Record::OwnerStarted { node: 0 }),
                (s(1), testing::attached(2, 1)),
                (s(2), testing::committed(ops)),
            ];
            if pushed {
                history.push((s(3), testing::sent(2, 1, &testing::push_frame(1, None))));
            }
            history.push((
                s(40),
                Record::Sizes {
                    node: 0,
                    sizes: Vec::new(),
                },
            ));
            history
        };
        assert!(testing::judge(&mut OwedIsPushed::default(), &history(true)).is_ok());
        assert!(testing::judge(&mut OwedIsPushed::default(), &history(false)).is_err());
    }
}

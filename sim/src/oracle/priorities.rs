//! Status gates priorities: what is not urgent is not pushed for the first time to a peer that does
//! not want to be disturbed. What was pushed once is pushed again whatever the status.
//!
//! Judged from when the last status that the mesh was told is durable until it is told another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::PeerKey;
use bowline_core::store::mesh::{Op, PeerRow};
use bowline_core::wire::{BrokerFrame, Priority, Status, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct Priorities {
    heard: BTreeMap<Arc<PeerKey>, Status>,
    durable: BTreeMap<PeerKey, Status>,
    /// `dnd` became durable, and nothing else was heard since.
    undisturbed: BTreeSet<PeerKey>,
}

impl Oracle for Priorities {
    fn name(&self) -> &'static str {
        "priorities"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            // Perhaps of a new lease, whose status is another.
            Record::Attached { peer, .. } => {
                self.heard.remove(peer);
                self.undisturbed.remove(&**peer);
            }
            Record::StatusHeard { peer, status } => {
                self.heard.insert(Arc::clone(peer), *status);
                if *status != Status::Dnd {
                    self.undisturbed.remove(&**peer);
                }
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::PeerPut(row) = op {
                        self.registered(row);
                    }
                }
            }
            Record::Sent { peer, frame, .. } if frame.starts_with(b"{\"type\":\"push\"") => {
                let Ok(BrokerFrame::Push(push)) = decode_broker(frame) else {
                    return Ok(());
                };
                let first = push.attempt.is_none_or(|attempt| attempt == 1);
                if first && push.priority != Priority::Now && self.undisturbed.contains(&**peer) {
                    return Err(format!(
                        "{peer} does not want to be disturbed and is pushed {:?}, which is {:?}",
                        push.message_id, push.priority
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Priorities {
    fn registered(&mut self, row: &PeerRow) {
        let status = row.registration.status;
        let was = self.durable.insert(row.key.clone(), status);
        if status != Status::Dnd {
            self.undisturbed.remove(&row.key);
            return;
        }
        // A row may also be written for another reason, while what was heard waits its turn.
        if was != Some(status) && self.heard.get(&row.key) == Some(&status) {
            self.undisturbed.insert(row.key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_disturbance_is_found() {
        let said = |status| Record::StatusHeard {
            peer: testing::key(2),
            status,
        };
        let durable = || {
            let mut row = testing::peer_row(2, true);
            row.registration.status = Status::Dnd;
            testing::committed(vec![Op::PeerPut(Box::new(row))])
        };
        let push = |attempt| {
            let BrokerFrame::Push(mut push) = testing::push_frame(1, attempt) else {
                unreachable!("a push")
            };
            push.priority = Priority::Low;
            testing::sent(2, 1, &BrokerFrame::Push(push))
        };
        let judge = |history: Vec<Record>| {
            let history: Vec<_> = history.into_iter().map(|record| (s(1), record)).collect();
            testing::judge(&mut Priorities::default(), &history)
        };
        let undisturbed = || vec![said(Status::Dnd), durable()];
        assert!(judge([undisturbed(), vec![push(None)]].concat()).is_err());
        assert!(judge([undisturbed(), vec![push(Some(2))]].concat()).is_ok());
        assert!(judge([undisturbed(), vec![said(Status::Idle), push(None)]].concat()).is_ok());
    }
}

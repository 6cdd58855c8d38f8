//! G8: a recipient has the messages of one sender and one priority in the order in which they were
//! accepted: by the sender's daemon for an inbox, by the broker for a puppet's first pushes.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{ClientMessageId, MessageId, MessageSeq, OutboxSeq, PeerKey, PubKey};
use bowline_core::store::host;
use bowline_core::wire::Priority;

use super::ledger::Ledger;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct Order {
    ledger: Ledger,
    got: BTreeSet<(PeerKey, MessageId)>,
    /// The latest of each lane: recipient, sender, priority.
    pushed: BTreeMap<(PeerKey, PubKey, Priority), MessageSeq>,
    /// Per host and sender's row.
    accepted: BTreeMap<(PeerKey, ClientMessageId), OutboxSeq>,
    inboxes: BTreeMap<(PeerKey, PubKey, Priority), OutboxSeq>,
}

impl Oracle for Order {
    fn name(&self) -> &'static str {
        "g8_order"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                ops.iter().for_each(|op| self.ledger.apply(op));
                Ok(())
            }
            Record::PuppetGot { key, id, .. } => self.pushed(key, id),
            Record::HostCommitted { ops, .. } => {
                ops.iter().try_for_each(|op| self.host_committed(op))
            }
            _ => Ok(()),
        }
    }
}

impl Order {
    fn pushed(&mut self, key: &PeerKey, id: &MessageId) -> Result<(), String> {
        // Told again is told again: only the first time has an order.
        if !self.got.insert((key.clone(), id.clone())) {
            return Ok(());
        }
        let Some((seq, message)) = self
            .ledger
            .by_id
            .get(id)
            .and_then(|seq| Some((*seq, self.ledger.messages.get(seq)?)))
        else {
            return Ok(());
        };
        let lane = (key.clone(), message.sender_pubkey, message.priority);
        match self.pushed.insert(lane, seq) {
            Some(before) if before > seq => Err(format!(
                "{key} got message {} after message {} of the same sender and priority",
                seq.0, before.0
            )),
            _ => Ok(()),
        }
    }

    fn host_committed(&mut self, op: &host::Op) -> Result<(), String> {
        match op {
            host::Op::OutboxPut(row) => {
                let key = (row.sender.clone(), row.client_message_id.clone());
                self.accepted.insert(key, row.seq);
                Ok(())
            }
            host::Op::InboxPut(row) => {
                let sender = PeerKey::Session(row.sender);
                let key = (sender, row.client_message_id.clone());
                let Some(seq) = self.accepted.get(&key).copied() else {
                    return Ok(());
                };
                let lane = (row.recipient.clone(), row.sender, row.priority);
                match self.inboxes.insert(lane, seq) {
                    Some(before) if before > seq => Err(format!(
                        "{}'s inbox got outbox row {} of {:?} after row {}",
                        row.recipient, seq.0, row.sender, before.0
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn messages_out_of_order_are_found_and_repeats_are_not() {
        let got = |seq: u64| Record::PuppetGot {
            node: 2,
            key: testing::key(2),
            sender: testing::pubkey(1),
            id: testing::message_id(seq),
            body: None,
        };
        let judge = |order: &[u64]| {
            let mut history = vec![
                (s(1), testing::committed(testing::accept(1, 1, 2, "a"))),
                (s(1), testing::committed(testing::accept(2, 1, 2, "b"))),
            ];
            history.extend(order.iter().map(|seq| (s(2), got(*seq))));
            testing::judge(&mut Order::default(), &history)
        };
        assert!(judge(&[1, 2, 1, 2]).is_ok());
        assert!(judge(&[2, 1]).is_err());
    }
}

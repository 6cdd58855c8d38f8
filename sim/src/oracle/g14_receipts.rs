//! G14: receipts. Each is durable before it is told, numbered upwards for its sender and never
//! twice with one number, of a higher rung than the one before; a connection is told each once, in
//! order, and none is left out; `seen` is said of what its recipient said that it saw; in the end
//! every sender has been told everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{ConnId, InboxSeq, MessageId, MessageSeq, PeerKey, ReceiptNumber};
use bowline_core::store::host;
use bowline_core::store::mesh::{Op, ReceiptRow};
use bowline_core::wire::receipt::{Receipt, Rung};
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct Receipts {
    /// Every receipt that ever became durable.
    rows: BTreeMap<PeerKey, BTreeMap<ReceiptNumber, ReceiptRow>>,
    /// Those that stand: the last of each delivery.
    standing: BTreeMap<PeerKey, BTreeMap<ReceiptNumber, MessageSeq>>,
    of_delivery: BTreeMap<(PeerKey, MessageSeq), (ReceiptNumber, Rung)>,
    /// How far each connection was told; `None`: it did not say, and is told what comes.
    told: BTreeMap<ConnId, Option<ReceiptNumber>>,
    reached: BTreeMap<Arc<PeerKey>, ReceiptNumber>,
    seen: BTreeSet<(PeerKey, MessageId)>,
    inboxes: BTreeMap<(NodeId, InboxSeq), (PeerKey, MessageId)>,
}

impl Oracle for Receipts {
    fn name(&self) -> &'static str {
        "g14_receipts"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::OwnerStarted { .. } => self.told.clear(),
            Record::Attached { conn, hello, .. } => {
                let after = hello.offer.receipts.map(|has| ReceiptNumber(has.after));
                self.told.insert(*conn, after);
            }
            Record::PuppetSaw { key, ids } => {
                let all = ids.iter().map(|id| ((**key).clone(), id.clone()));
                self.seen.extend(all);
            }
            Record::HostCommitted { node, ops, .. } => {
                for op in ops {
                    self.host_committed(*node, op);
                }
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::DeliverySettled(row) = op {
                        self.settled(row)?;
                    }
                }
            }
            Record::Sent {
                conn, peer, frame, ..
            } if frame.starts_with(b"{\"type\":\"receipt\"") => {
                if let Ok(BrokerFrame::Receipt(receipt)) = decode_broker(frame) {
                    return self.tell(*conn, peer, &receipt);
                }
            }
            Record::Frame { key, frame, .. } => {
                if let BrokerFrame::Receipt(receipt) = &**frame {
                    let reached = self.reached.entry(Arc::clone(key)).or_default();
                    *reached = ReceiptNumber(receipt.n).max(*reached);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn unmet(&self, _: Moment, view: &View) -> Option<String> {
        view.puppets().find_map(|puppet| {
            let last = self.standing.get(&*puppet.key)?.keys().next_back()?;
            let reached = self.reached.get(&puppet.key).copied().unwrap_or_default();
            (reached < *last).then(|| {
                format!(
                    "{} was told its receipts up to {reached}, and {last} is durable",
                    puppet.key
                )
            })
        })
    }
}

impl Receipts {
    fn host_committed(&mut self, node: NodeId, op: &host::Op) {
        match op {
            host::Op::InboxPut(row) => {
                let of = (row.recipient.clone(), row.message_id.clone());
                self.inboxes.insert((node, row.seq), of);
            }
            host::Op::InboxSeen { seq, .. } => {
                self.seen.extend(self.inboxes.get(&(node, *seq)).cloned());
            }
            _ => {}
        }
    }

    fn settled(&mut self, row: &ReceiptRow) -> Result<(), String> {
        let delivery = (row.recipient.clone(), row.seq);
        let rows = self.rows.entry(row.sender.clone()).or_default();
        if let Some((last, _)) = rows.last_key_value().filter(|(last, _)| **last >= row.n) {
            return Err(format!(
                "a receipt of {} is numbered {} after {last}",
                row.sender, row.n
            ));
        }
        if row.rung == Rung::Seen
            && !self
                .seen
                .contains(&(row.recipient.clone(), row.message_id.clone()))
        {
            return Err(format!(
                "{:?} counts as seen, and {} did not say so",
                row.message_id, row.recipient
            ));
        }
        rows.insert(row.n, row.clone());
        let standing = self.standing.entry(row.sender.clone()).or_default();
        if let Some((n, rung)) = self.of_delivery.get(&delivery) {
            if *rung >= row.rung {
                return Err(format!(
                    "{:?} was {rung:?} for {} and is {:?}",
                    row.message_id, row.recipient, row.rung
                ));
            }
            standing.remove(n);
        }
        standing.insert(row.n, row.seq);
        self.of_delivery.insert(delivery, (row.n, row.rung));
        Ok(())
    }

    fn tell(&mut self, conn: ConnId, peer: &PeerKey, receipt: &Receipt) -> Result<(), String> {
        let n = ReceiptNumber(receipt.n);
        let row = self.rows.get(peer).and_then(|rows| rows.get(&n));
        let is_so = row.is_some_and(|row| {
            row.rung == receipt.rung
                && row.client_message_id == receipt.client_message_id
                && row.recipient_pubkey == receipt.recipient
        });
        if !is_so {
            return Err(format!(
                "{peer} is told receipt {n}, {:?}, and the store does not say so: {row:?}",
                receipt.rung
            ));
        }
        let Some(before) = self.told.insert(conn, Some(n)).flatten() else {
            return Ok(());
        };
        if before >= n {
            return Err(format!("{peer} is told receipt {n} after {before}"));
        }
        let standing = self.standing.get(peer);
        let left_out = standing.and_then(|all| all.range(before.next()..n).next());
        left_out.map_or(Ok(()), |(missing, _)| {
            Err(format!(
                "{peer} is told receipt {n} after {before}, without {missing}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    fn judge(history: Vec<Record>) -> Result<(), String> {
        let mut receipts = Receipts::default();
        receipts.told.insert(ConnId(1), Some(ReceiptNumber(0)));
        let history: Vec<_> = history.into_iter().map(|record| (s(1), record)).collect();
        testing::judge(&mut receipts, &history)
    }

    fn told(n: u64, rung: Rung) -> Record {
        testing::sent(
            1,
            1,
            &BrokerFrame::Receipt(Receipt {
                n,
                client_message_id: "a".into(),
                recipient: testing::pubkey(2),
                rung,
                reason: None,
                at: String::new(),
            }),
        )
    }

    fn saw(seq: u64) -> Record {
        Record::PuppetSaw {
            key: testing::key(2),
            ids: vec![testing::message_id(seq)],
        }
    }

    #[test]
    fn a_receipt_before_it_is_durable_or_of_another_rung_is_found() {
        let delivered = || testing::settled(1, 2, 1, Rung::Delivered);
        assert!(judge(vec![delivered(), told(1, Rung::Delivered)]).is_ok());
        assert!(judge(vec![told(1, Rung::Delivered), delivered()]).is_err());
        assert!(judge(vec![delivered(), told(1, Rung::Seen)]).is_err());
    }

    #[test]
    fn a_receipt_told_twice_or_left_out_is_found() {
        let first = || testing::settled(1, 2, 1, Rung::Delivered);
        let second = || testing::settled(2, 2, 2, Rung::Delivered);
        let one = || told(1, Rung::Delivered);
        let two = || told(2, Rung::Delivered);
        assert!(judge(vec![first(), second(), one(), two()]).is_ok());
        assert!(judge(vec![first(), second(), two()]).is_err());
        assert!(judge(vec![first(), one(), one()]).is_err());
    }

    #[test]
    fn a_number_that_is_used_again_is_found() {
        let first = testing::settled(1, 2, 1, Rung::Delivered);
        let again = testing::settled(2, 2, 1, Rung::Delivered);
        assert!(judge(vec![first, again]).is_err());
    }

    #[test]
    fn seen_without_anybody_looking_and_a_rung_that_sinks_are_found() {
        let delivered = |n| testing::settled(1, 2, n, Rung::Delivered);
        let seen = |n| testing::settled(1, 2, n, Rung::Seen);
        assert!(judge(vec![delivered(1), saw(1), seen(2)]).is_ok());
        assert!(judge(vec![delivered(1), seen(2)]).is_err());
        assert!(judge(vec![saw(1), seen(1), delivered(2)]).is_err());
    }

    #[test]
    fn what_a_lower_rung_was_told_with_may_be_skipped() {
        let history = vec![
            testing::settled(1, 2, 1, Rung::Delivered),
            saw(1),
            testing::settled(1, 2, 2, Rung::Seen),
            told(2, Rung::Seen),
        ];
        assert!(judge(history).is_ok());
    }
}

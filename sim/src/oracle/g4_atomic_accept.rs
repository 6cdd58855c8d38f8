//! G4: dedupe record, message and deliveries become durable together or not at all.

use std::collections::BTreeSet;

use bowline_core::id::MessageSeq;
use bowline_core::store::mesh::Op;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct AtomicAccept;

impl Oracle for AtomicAccept {
    fn name(&self) -> &'static str {
        "g4_atomic_accept"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        let Record::MeshCommitted { txn, ops, .. } = record else {
            return Ok(());
        };
        let seqs = |of: fn(&Op) -> Option<MessageSeq>| -> BTreeSet<MessageSeq> {
            ops.iter().filter_map(of).collect()
        };
        let messages = seqs(|op| match op {
            Op::MessagePut(row) => Some(row.seq),
            _ => None,
        });
        let dedupes = seqs(|op| match op {
            Op::DedupePut(row) => Some(row.seq),
            _ => None,
        });
        let deliveries = seqs(|op| match op {
            Op::DeliveryPut { seq, .. } => Some(*seq),
            _ => None,
        });
        if messages == dedupes && messages == deliveries {
            return Ok(());
        }
        Err(format!(
            "transaction {} holds messages {messages:?}, dedupe records {dedupes:?} and deliveries {deliveries:?}",
            txn.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_part_of_an_accept_is_found() {
        let whole = testing::accept(1, 1, 2, "a");
        for missing in 0..whole.len() {
            let mut part = whole.clone();
            part.remove(missing);
            let history = [(s(1), testing::committed(part))];
            assert!(testing::judge(&mut AtomicAccept, &history).is_err());
        }
        let history = [(s(1), testing::committed(whole))];
        assert!(testing::judge(&mut AtomicAccept, &history).is_ok());
    }
}

//! Deliveries that were settled and that a read of the store may not show so yet.
//!
//! A read shows what was durable when it was made, and no reader knows when exactly that was. So a
//! settlement is kept until it is durable and every read is answered that was asked for before.

use alloc::collections::{BTreeMap, VecDeque};

use crate::id::{MessageSeq, PeerKey};
use crate::store::TxnId;
use crate::store::mesh::{ReceiptRow, Standing};
use crate::wire::receipt::Rung;

#[derive(Debug, Default)]
pub struct Settlements {
    fresh: BTreeMap<(PeerKey, MessageSeq), (ReceiptRow, TxnId)>,
    order: VecDeque<(TxnId, PeerKey, MessageSeq)>,
}

impl Settlements {
    /// `txn` is not older than any before.
    pub fn insert(&mut self, row: ReceiptRow, txn: TxnId) {
        self.order.push_back((txn, row.recipient.clone(), row.seq));
        self.fresh
            .insert((row.recipient.clone(), row.seq), (row, txn));
    }

    /// Every read that is still to be answered was asked for when `upto` was durable.
    pub fn forget(&mut self, upto: TxnId) {
        while self.order.front().is_some_and(|(txn, ..)| *txn <= upto) {
            let Some((txn, recipient, seq)) = self.order.pop_front() else {
                return;
            };
            let key = (recipient, seq);
            if self.fresh.get(&key).is_some_and(|(_, last)| *last == txn) {
                self.fresh.remove(&key);
            }
        }
    }

    /// What a read says, brought up to date.
    #[must_use]
    pub fn standing(&self, recipient: &PeerKey, seq: MessageSeq, read: Standing) -> Standing {
        match self.fresh.get(&(recipient.clone(), seq)) {
            Some((row, _)) => Standing::Settled(row.clone()),
            None => read,
        }
    }

    #[must_use]
    pub fn is_settled(&self, recipient: &PeerKey, seq: MessageSeq) -> bool {
        self.fresh.contains_key(&(recipient.clone(), seq))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }
}

/// How far a delivery came; `None`: it is owed.
#[must_use]
pub fn rung(standing: &Standing) -> Option<Rung> {
    match standing {
        Standing::Owed(_) => None,
        Standing::Settled(row) => Some(row.rung),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PubKey, ReceiptNumber};
    use crate::time::Wall;

    fn row(seq: u64, rung: Rung) -> ReceiptRow {
        let key = PeerKey::Session(PubKey([1; 32]));
        ReceiptRow {
            sender: key.clone(),
            n: ReceiptNumber(seq),
            recipient: key,
            recipient_pubkey: PubKey([1; 32]),
            seq: MessageSeq(seq),
            message_id: "m".into(),
            client_message_id: "c".into(),
            rung,
            reason: None,
            at: Wall(0),
        }
    }

    #[test]
    fn what_was_settled_again_is_kept_for_the_later_one() {
        let mut settlements = Settlements::default();
        let recipient = row(1, Rung::Seen).recipient;
        settlements.insert(row(1, Rung::Delivered), TxnId(1));
        settlements.insert(row(1, Rung::Seen), TxnId(2));
        settlements.forget(TxnId(1));
        let read = settlements.standing(&recipient, MessageSeq(1), Standing::Owed(None));
        assert_eq!(rung(&read), Some(Rung::Seen));
        settlements.forget(TxnId(2));
        assert!(!settlements.is_settled(&recipient, MessageSeq(1)));
        assert_eq!(settlements.len(), 0);
    }
}

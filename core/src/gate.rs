//! Whatever promises durability waits here until its transaction is durable.

use alloc::collections::VecDeque;

use crate::store::TxnId;

/// A promise that may now be made. Only a [`Gate`] makes one, so a function that takes
/// `Durable<T>` cannot be called too early.
#[derive(Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Promises in the order of their transactions.
#[derive(Debug)]
pub struct Gate<T> {
    waiting: VecDeque<(TxnId, T)>,
    durable: TxnId,
}

impl<T> Gate<T> {
    /// `durable`: the last transaction that the store holds already.
    #[must_use]
    pub fn new(durable: TxnId) -> Self {
        Self {
            waiting: VecDeque::new(),
            durable,
        }
    }

    /// Holds `promise` until `txn` is durable. Order is kept: a promise on an older transaction
    /// that comes behind one on a newer waits for the newer.
    pub fn hold(&mut self, txn: TxnId, promise: T) {
        let txn = self.waiting.back().map_or(txn, |(last, _)| txn.max(*last));
        self.waiting.push_back((txn, promise));
    }

    /// A promise on what is durable already need not wait behind the others.
    ///
    /// # Errors
    /// The promise back, if `txn` is not durable.
    pub fn pass(&self, txn: TxnId, promise: T) -> Result<Durable<T>, T> {
        if txn <= self.durable {
            Ok(Durable(promise))
        } else {
            Err(promise)
        }
    }

    /// Raises the watermark; a lower one than before changes nothing.
    pub fn persisted(&mut self, upto: TxnId) {
        self.durable = self.durable.max(upto);
    }

    /// The next promise that may be made.
    pub fn release(&mut self) -> Option<Durable<T>> {
        let (txn, _) = self.waiting.front()?;
        if *txn > self.durable {
            return None;
        }
        self.waiting
            .pop_front()
            .map(|(_, promise)| Durable(promise))
    }

    #[must_use]
    pub fn durable(&self) -> TxnId {
        self.durable
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_its_transaction_and_order_is_kept() {
        let mut gate = Gate::new(TxnId(4));
        gate.hold(TxnId(6), 'b');
        gate.hold(TxnId(5), 'c');
        gate.hold(TxnId(7), 'd');
        assert!(gate.release().is_none());
        gate.persisted(TxnId(5));
        assert!(gate.release().is_none());
        gate.persisted(TxnId(6));
        assert_eq!(gate.release().map(Durable::into_inner), Some('b'));
        assert_eq!(gate.release().map(Durable::into_inner), Some('c'));
        assert!(gate.release().is_none());
        gate.persisted(TxnId(3));
        assert_eq!(gate.durable(), TxnId(6));
    }
}

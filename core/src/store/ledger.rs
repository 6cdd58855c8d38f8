//! The transactions of one machine, from emitted to durable: what is owed to the store.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Txn, TxnId};
use crate::limits::{STORE_RETRY_FIRST, STORE_RETRY_MOST, UNPERSISTED_BYTES, UNPERSISTED_TXNS};
use core::time::Duration;

/// Collects the ops of one `handle_*` into at most one transaction, keeps what is not durable
/// yet, and hands it out again after a stall.
#[derive(Debug)]
pub struct Ledger<Op> {
    last: TxnId,
    ops: Vec<Op>,
    op_bytes: usize,
    unpersisted: VecDeque<(Txn<Op>, usize)>,
    unpersisted_bytes: usize,
    stalls_in_a_row: u32,
    stalled: bool,
}

impl<Op> Ledger<Op> {
    #[must_use]
    pub fn new(last: TxnId) -> Self {
        Self {
            last,
            ops: Vec::new(),
            op_bytes: 0,
            unpersisted: VecDeque::new(),
            unpersisted_bytes: 0,
            stalls_in_a_row: 0,
            stalled: false,
        }
    }

    /// `bytes`: roughly what the op holds in memory.
    pub fn push(&mut self, op: Op, bytes: usize) {
        self.ops.push(op);
        self.op_bytes += bytes;
    }

    /// The transaction to which an op pushed now belongs; a promise that rests on nothing new
    /// rests on the last one emitted.
    #[must_use]
    pub fn current(&self) -> TxnId {
        if self.ops.is_empty() {
            self.last
        } else {
            self.last.next()
        }
    }

    /// The transaction to which the next op will belong.
    #[must_use]
    pub fn current_with_op(&self) -> TxnId {
        self.last.next()
    }

    /// Ends a `handle_*`: the transaction to emit, if there were ops. While stalled it is kept and
    /// goes out with the others.
    pub fn seal(&mut self) -> Option<Txn<Op>> {
        if self.ops.is_empty() {
            return None;
        }
        self.last = self.last.next();
        let txn = Txn {
            id: self.last,
            ops: Arc::new(core::mem::take(&mut self.ops)),
        };
        let bytes = core::mem::take(&mut self.op_bytes);
        self.unpersisted_bytes += bytes;
        self.unpersisted.push_back((txn.share(), bytes));
        (!self.stalled).then_some(txn)
    }

    /// True if this leaves a stall.
    pub fn persisted(&mut self, upto: TxnId) -> bool {
        while let Some((txn, bytes)) = self.unpersisted.front() {
            if txn.id > upto {
                break;
            }
            self.unpersisted_bytes -= bytes;
            self.unpersisted.pop_front();
        }
        self.stalled = false;
        core::mem::take(&mut self.stalls_in_a_row) > 0
    }

    /// The driver forgot everything. Returns how long to wait before [`Self::resend`].
    pub fn stall(&mut self) -> Duration {
        self.stalled = true;
        let backoff = STORE_RETRY_FIRST * 2u32.saturating_pow(self.stalls_in_a_row.min(16));
        self.stalls_in_a_row += 1;
        backoff.min(STORE_RETRY_MOST)
    }

    /// All that is not durable, in order. Where that is nothing (a look-up met the stall), the
    /// store counts as back: the next look-up tries it.
    pub fn resend(&mut self) -> Vec<Txn<Op>> {
        self.stalled = false;
        if self.unpersisted.is_empty() {
            self.stalls_in_a_row = 0;
        }
        self.unpersisted
            .iter()
            .map(|(txn, _)| txn.share())
            .collect()
    }

    /// New accepts are refused: the store is away, or behind by as much as we keep.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.stalls_in_a_row > 0
            || self.unpersisted.len() >= UNPERSISTED_TXNS
            || self.unpersisted_bytes >= UNPERSISTED_BYTES
    }

    /// Between a stall and [`Self::resend`] the driver would only forget what it is asked.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.stalled
    }

    /// Since a stall nothing became durable.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalls_in_a_row > 0
    }

    #[must_use]
    pub fn unpersisted(&self) -> usize {
        self.unpersisted.len()
    }

    /// The last transaction emitted.
    #[must_use]
    pub fn last(&self) -> TxnId {
        self.last
    }
}

impl<Op> Txn<Op> {
    /// The same transaction; the ops are not copied.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            id: self.id,
            ops: Arc::clone(&self.ops),
        }
    }
}

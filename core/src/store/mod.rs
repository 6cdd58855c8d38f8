//! The storage vocabulary: what a machine asks a store driver to remember, and what it hears back.
//!
//! Memory decides, the store remembers. Each `handle_*` of a machine emits at most one [`Txn`];
//! ids are consecutive. Committing `a..=b` is one database transaction that begins by moving the
//! owner row's `last_txn` from `a - 1` to `b` under its term:
//!
//! - one row moved: apply, commit, [`Event::Persisted`] `b`;
//! - none, and the row has another term: the driver halts the process (fenced);
//! - none, and `last_txn = m ≥ a`: an earlier commit went through unheard; `Persisted { m }`, and
//!   go on with `m + 1..=b`;
//! - none, and `m < a − 1`, or any constraint violation, corruption or failed fsync: halt (broken).
//!
//! Any other error is [`Event::Stalled`]: the driver forgets all that it holds and the machine sends
//! again from its first undurable transaction after its own backoff. An emitted transaction is
//! never withdrawn.

pub mod host;
pub mod ledger;
pub mod mesh;
pub mod registry;

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::LoadId;

/// Consecutive within one owner, across restarts; 0 before the first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TxnId(pub u64);

impl TxnId {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Raised by one at every start of an owner.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

/// Becomes durable together or not at all. Shared, because the machine keeps it until it is durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Txn<Op> {
    pub id: TxnId,
    pub ops: Arc<Vec<Op>>,
}

/// What a driver tells a machine. `Fenced` and `Broken` are absent: they halt the process.
#[derive(Clone, Debug)]
pub enum Event<Loaded> {
    /// Everything up to and including `upto` is durable.
    Persisted { upto: TxnId },
    /// The driver forgot all that it held.
    Stalled(Stall),
    /// The answer to a `Load`. A load that met a stall is answered `Stalled` and forgotten too.
    Loaded { load: LoadId, loaded: Loaded },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stall {
    Full,
    Unavailable,
}

/// What an owner finds at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// This start's term, already raised.
    pub term: Term,
    pub last_txn: TxnId,
}

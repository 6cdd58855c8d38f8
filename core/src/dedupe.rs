//! The dedupe look-up: one part used three times (broker accept, IPC accept, inbox).
//!
//! The map holds what is not yet durable and the latest durable entries as a cache. A hit decides.
//! A miss decides nothing: whether it is new or looked up in the store is the machine's choice.

use alloc::collections::{BTreeMap, VecDeque};

use crate::store::TxnId;

#[derive(Debug)]
pub struct Dedupe<K, V> {
    fresh: BTreeMap<K, (V, TxnId)>,
    /// Keys of `fresh` in order of their transactions.
    fresh_order: VecDeque<(TxnId, K)>,
    cache: BTreeMap<K, V>,
    cache_order: VecDeque<K>,
    cache_most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a, V> {
    /// Accepted, durable once this transaction is.
    Fresh(&'a V, TxnId),
    Durable(&'a V),
    Unknown,
}

impl<K: Ord + Clone, V> Dedupe<K, V> {
    #[must_use]
    pub fn new(cache_most: usize) -> Self {
        Self {
            fresh: BTreeMap::new(),
            fresh_order: VecDeque::new(),
            cache: BTreeMap::new(),
            cache_order: VecDeque::new(),
            cache_most,
        }
    }

    #[must_use]
    pub fn seen(&self, key: &K) -> Seen<'_, V> {
        if let Some((value, txn)) = self.fresh.get(key) {
            return Seen::Fresh(value, *txn);
        }
        self.cache.get(key).map_or(Seen::Unknown, Seen::Durable)
    }

    /// An entry accepted now; `txn` is not older than any inserted before.
    pub fn insert(&mut self, key: K, value: V, txn: TxnId) {
        self.fresh_order.push_back((txn, key.clone()));
        self.fresh.insert(key, (value, txn));
    }

    /// An entry that a look-up found.
    pub fn remember(&mut self, key: K, value: V) {
        if self.cache.insert(key.clone(), value).is_none() {
            self.cache_order.push_back(key);
        }
        while self.cache.len() > self.cache_most {
            let Some(oldest) = self.cache_order.pop_front() else {
                return;
            };
            self.cache.remove(&oldest);
        }
    }

    /// Entries up to `upto` are durable: they move to the cache.
    pub fn persisted(&mut self, upto: TxnId) {
        while self
            .fresh_order
            .front()
            .is_some_and(|(txn, _)| *txn <= upto)
        {
            let Some((_, key)) = self.fresh_order.pop_front() else {
                return;
            };
            if let Some((value, _)) = self.fresh.remove(&key) {
                self.remember(key, value);
            }
        }
    }

    /// Entries not yet durable: bounded by the unpersisted transactions.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Durable entries kept: at most what was given at construction.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        /// The cache may forget, but what is not durable is never forgotten, and nothing is invented.
        #[test]
        fn fresh_entries_are_never_forgotten(steps in prop::collection::vec((0u8..32, any::<bool>()), 0..200)) {
            let mut dedupe = Dedupe::new(3);
            let mut accepted: Vec<(u8, TxnId)> = Vec::new();
            let (mut last, mut durable) = (TxnId(0), TxnId(0));
            for (key, accept) in steps {
                if accept {
                    if !accepted.iter().any(|(k, _)| *k == key) {
                        last = last.next();
                        dedupe.insert(key, last, last);
                        accepted.push((key, last));
                    }
                } else if durable < last {
                    durable = durable.next();
                    dedupe.persisted(durable);
                }
                for key in 0..32 {
                    let truth = accepted.iter().find(|(k, _)| *k == key).map(|(_, t)| *t);
                    match dedupe.seen(&key) {
                        Seen::Fresh(v, txn) => {
                            prop_assert_eq!(Some(*v), truth);
                            prop_assert_eq!(*v, txn);
                            prop_assert!(txn > durable);
                        }
                        Seen::Durable(v) => {
                            prop_assert_eq!(Some(*v), truth);
                            prop_assert!(*v <= durable);
                        }
                        Seen::Unknown => prop_assert!(truth.is_none_or(|t| t <= durable)),
                    }
                }
                prop_assert!(dedupe.cached() <= 3);
            }
        }
    }
}

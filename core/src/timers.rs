//! The one home of deadlines: a deadline that is not in here does not exist.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::machine::Timeout;
use crate::time::Mono;

/// One deadline per key. Setting replaces, cancelling removes.
#[derive(Clone, Debug)]
pub struct TimerQueue<K> {
    by_key: BTreeMap<K, Mono>,
    by_time: BTreeSet<(Mono, K)>,
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> TimerQueue<K> {
    pub fn set(&mut self, key: K, at: Mono) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    pub fn cancel(&mut self, key: &K) -> Option<Mono> {
        let at = self.by_key.remove(key)?;
        self.by_time.remove(&(at, key.clone()));
        Some(at)
    }

    #[must_use]
    pub fn get(&self, key: &K) -> Option<Mono> {
        self.by_key.get(key).copied()
    }

    /// Takes out one deadline that is due at `now`: earliest first, ties by key.
    pub fn pop_due(&mut self, now: Mono) -> Option<(Mono, K)> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (at, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some((at, key))
    }

    #[must_use]
    pub fn next(&self) -> Option<Timeout<K>> {
        self.by_time.first().map(|(at, why)| Timeout {
            at: *at,
            why: why.clone(),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, Mono)> {
        self.by_key.iter().map(|(key, at)| (key, *at))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u64),
        Cancel(u8),
        PopDue(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..8, 0u64..32).prop_map(|(k, at)| Step::Set(k, at)),
            (0u8..8).prop_map(Step::Cancel),
            (0u64..32).prop_map(Step::PopDue),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_scanned_for_its_minimum(steps in prop::collection::vec(step(), 0..64)) {
            let mut queue = TimerQueue::default();
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(k, at) => {
                        queue.set(k, Mono(at));
                        model.insert(k, at);
                    }
                    Step::Cancel(k) => {
                        prop_assert_eq!(queue.cancel(&k).map(|m| m.0), model.remove(&k));
                    }
                    Step::PopDue(now) => {
                        let due = model.iter().map(|(k, at)| (*at, *k)).filter(|(at, _)| *at <= now).min();
                        if let Some((_, k)) = due {
                            model.remove(&k);
                        }
                        prop_assert_eq!(queue.pop_due(Mono(now)).map(|(at, k)| (at.0, k)), due);
                    }
                }
                let first = model.iter().map(|(k, at)| (*at, *k)).min();
                prop_assert_eq!(queue.next().map(|t| (t.at.0, t.why)), first);
                prop_assert_eq!(queue.len(), model.len());
                let all: Vec<_> = queue.iter().map(|(k, at)| (*k, at.0)).collect();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}

//! Hellos that were taken: the same one twice is a replay.

use alloc::collections::{BTreeSet, VecDeque};

use crate::id::Signature;
use crate::limits::{SEEN_HELLO_FOR, SEEN_HELLOS_PER_MESH};
use crate::time::{Mono, Wall};

#[derive(Debug, Default)]
pub struct SeenHellos {
    seen: BTreeSet<Signature>,
    /// In order of arrival.
    order: VecDeque<(Mono, Wall, Signature)>,
    /// Hellos stamped at or before this may have been forgotten: they are refused.
    floor: Option<Wall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    New,
    Replayed,
    /// Too old to know.
    TooOld,
}

impl SeenHellos {
    /// Remembers the hello if it is new.
    pub fn take(&mut self, now: Mono, timestamp: Wall, signature: Signature) -> Verdict {
        self.forget(now);
        if self.seen.contains(&signature) {
            return Verdict::Replayed;
        }
        if self.floor.is_some_and(|floor| timestamp <= floor) {
            return Verdict::TooOld;
        }
        self.seen.insert(signature);
        self.order.push_back((now, timestamp, signature));
        Verdict::New
    }

    fn forget(&mut self, now: Mono) {
        while let Some((at, timestamp, signature)) = self.order.front() {
            if self.order.len() < SEEN_HELLOS_PER_MESH && now.since(*at) < SEEN_HELLO_FOR {
                return;
            }
            self.floor = self.floor.max(Some(*timestamp));
            self.seen.remove(signature);
            self.order.pop_front();
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_taken_once_even_after_it_was_forgotten() {
        let mut hellos = SeenHellos::default();
        let signature = Signature([1; 64]);
        assert_eq!(hellos.take(Mono(0), Wall(1_000), signature), Verdict::New);
        assert_eq!(
            hellos.take(Mono(1), Wall(1_000), signature),
            Verdict::Replayed
        );
        let later = Mono(0) + SEEN_HELLO_FOR;
        assert_eq!(hellos.take(later, Wall(1_000), signature), Verdict::TooOld);
        assert_eq!(hellos.len(), 0);
        assert_eq!(
            hellos.take(later, Wall(1_001), Signature([2; 64])),
            Verdict::New
        );
    }
}

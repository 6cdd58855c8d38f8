//! Peers that were kicked while nobody was there to be told: the next hello is.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::id::PeerKey;
use crate::time::Mono;

#[derive(Debug, Default)]
pub struct Kicked {
    /// Until when.
    until: BTreeMap<PeerKey, Mono>,
}

impl Kicked {
    pub fn remember(&mut self, key: PeerKey, now: Mono, term: Duration) {
        self.until.retain(|_, until| *until > now);
        self.until.insert(key, now + term);
    }

    /// True for the first hello of one that was kicked a term ago at most.
    pub fn take(&mut self, key: &PeerKey, now: Mono) -> bool {
        self.until.remove(key).is_some_and(|until| until > now)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PubKey;

    #[test]
    fn one_hello_within_the_term_is_told() {
        let term = Duration::from_secs(90);
        let key = |n| PeerKey::Session(PubKey([n; 32]));
        let mut kicked = Kicked::default();
        kicked.remember(key(1), Mono(0), term);
        kicked.remember(key(2), Mono(0), term);
        assert!(!kicked.take(&key(3), Mono(1)));
        assert!(kicked.take(&key(1), Mono(1)));
        assert!(!kicked.take(&key(1), Mono(2)), "the second is not");
        assert!(!kicked.take(&key(2), Mono(0) + term));
        kicked.remember(key(1), Mono(0), term);
        kicked.remember(key(2), Mono(0) + term, term);
        assert_eq!(kicked.len(), 1, "what is over is forgotten");
    }
}

//! Randomness from a seed given at construction. There is no other.

use alloc::string::String;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::time::Wall;

/// A ChaCha20 generator. Not `Clone`: two machines must never draw the same nonce.
pub struct Entropy(ChaCha20Rng);

impl Entropy {
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`; 0 for a bound of 0. The bias of the multiplication is below 2⁻³².
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A ULID: 48 bits of `wall`, 80 random bits, 26 characters of Crockford's base32.
    /// Lower case, so that one spelling serves ids and topic names alike.
    pub fn ulid(&mut self, wall: Wall) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let random = u128::from_be_bytes(self.bytes());
        let bits = (u128::from(wall.0) << 80) | (random >> 48);
        (0..26)
            .rev()
            .map(|i| char::from(ALPHABET[(bits >> (5 * i)) as usize & 31]))
            .collect()
    }
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulids_are_ordered_by_time_and_distinct_within_it() {
        let mut entropy = Entropy::from_seed([7; 32]);
        let a = entropy.ulid(Wall(1_000));
        let b = entropy.ulid(Wall(1_000));
        let c = entropy.ulid(Wall(2_000));
        assert_eq!(a.len(), 26);
        assert_ne!(a, b);
        assert!(a < c && b < c);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let draw = || Entropy::from_seed([1; 32]).bytes::<40>();
        assert_eq!(draw(), draw());
    }

    #[test]
    fn below_stays_below() {
        let mut entropy = Entropy::from_seed([2; 32]);
        assert_eq!(entropy.below(0), 0);
        assert!((0..1000).all(|_| entropy.below(3) < 3));
    }
}

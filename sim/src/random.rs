//! Randomness that is keyed, not drawn in sequence.
//!
//! A draw is a function of (seed, purpose, entity, counter). Taking one action out of a plan
//! therefore leaves every draw that has nothing to do with it as it was, which is what makes
//! shrinking work.

/// What a draw is for. Two purposes never share a draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Purpose {
    Profile = 1,
    Plan,
    TieBreak,
    MachineSeed,
    Key,
    ClockRate,
    ClockBoot,
    Latency,
    Hop,
    TimerLate,
    Spurious,
    Handed,
    Dial,
    Reset,
    Commit,
    Load,
    CrashPrefix,
    Ipc,
    Client,
    Action,
}

#[derive(Clone, Copy, Debug)]
pub struct Random {
    seed: u64,
}

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    #[must_use]
    pub fn draw(&self, purpose: Purpose, entity: u64, counter: u64) -> u64 {
        let mut word = mix(self.seed ^ 0x5bd1_e995_9d1b_54a5);
        word = mix(word ^ (purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = mix(word ^ entity);
        mix(word ^ counter.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// A stream of draws for one purpose and entity.
    #[must_use]
    pub fn stream(&self, purpose: Purpose, entity: u64) -> Stream {
        Stream {
            random: *self,
            purpose,
            entity,
            counter: 0,
        }
    }

    #[must_use]
    pub fn bytes32(&self, purpose: Purpose, entity: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (counter, chunk) in bytes.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&self.draw(purpose, entity, counter as u64).to_le_bytes());
        }
        bytes
    }
}

/// Draws of one purpose and entity, one after the other.
#[derive(Clone, Debug)]
pub struct Stream {
    random: Random,
    purpose: Purpose,
    entity: u64,
    counter: u64,
}

impl Stream {
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        self.random.draw(self.purpose, self.entity, self.counter)
    }

    /// Uniform in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Spread over the orders of magnitude between `low` and `high`: mostly small, sometimes large.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let span = (high.max(1) as f64 / low.max(1) as f64).log2();
        let exponent = self.below(1 << 20) as f64 / f64::from(1 << 20) * span;
        ((low.max(1) as f64 * exponent.exp2()) as u64).clamp(low, high)
    }
}

/// Names an entity by its parts, for the `entity` of a draw.
#[must_use]
pub fn entity(parts: &[u64]) -> u64 {
    parts.iter().fold(0x1234_5678_9abc_def1, |acc, part| {
        mix(acc ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd))
    })
}

/// SplitMix64's finaliser.
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_each_part_of_its_key_and_on_nothing_else() {
        let random = Random::new(7);
        let base = random.draw(Purpose::Latency, 1, 1);
        assert_eq!(base, Random::new(7).draw(Purpose::Latency, 1, 1));
        assert_ne!(base, random.draw(Purpose::Hop, 1, 1));
        assert_ne!(base, random.draw(Purpose::Latency, 2, 1));
        assert_ne!(base, random.draw(Purpose::Latency, 1, 2));
        assert_ne!(base, Random::new(8).draw(Purpose::Latency, 1, 1));
    }

    #[test]
    fn ranges_hold_their_ends() {
        let mut stream = Random::new(1).stream(Purpose::Plan, 0);
        let drawn: Vec<u64> = (0..400).map(|_| stream.between(3, 5)).collect();
        assert!((3..=5).all(|n| drawn.contains(&n)));
        assert!(drawn.iter().all(|n| (3..=5).contains(n)));
        assert!((0..400).all(|_| (10..=5_000).contains(&stream.magnitude(10, 5_000))));
    }
}

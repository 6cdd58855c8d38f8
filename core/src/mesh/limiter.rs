//! Token buckets.

use core::time::Duration;

use crate::time::Mono;

/// Refills steadily up to its burst; starts full.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Millionths of a token.
    micro_tokens: u64,
    at: Mono,
}

/// Tokens a second, and the most that can be saved up.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Bucket {
    #[must_use]
    pub fn full(now: Mono, rate: Rate) -> Self {
        Self {
            micro_tokens: u64::from(rate.burst) * 1_000_000,
            at: now,
        }
    }

    /// # Errors
    /// How long until there is a token.
    pub fn take(&mut self, now: Mono, rate: Rate) -> Result<(), Duration> {
        let earned = now
            .since(self.at)
            .as_micros()
            .saturating_mul(u128::from(rate.per_second));
        let full = u64::from(rate.burst) * 1_000_000;
        self.micro_tokens = self
            .micro_tokens
            .saturating_add(u64::try_from(earned).unwrap_or(u64::MAX))
            .min(full);
        self.at = self.at.max(now);
        if let Some(left) = self.micro_tokens.checked_sub(1_000_000) {
            self.micro_tokens = left;
            return Ok(());
        }
        let missing = 1_000_000 - self.micro_tokens;
        Err(Duration::from_micros(
            missing.div_ceil(u64::from(rate.per_second.max(1))),
        ))
    }

    /// A token that was taken for nothing.
    pub fn give_back(&mut self, rate: Rate) {
        let full = u64::from(rate.burst) * 1_000_000;
        self.micro_tokens = (self.micro_tokens + 1_000_000).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn a_refusal_says_when_to_come_back_and_keeps_its_word() {
        let mut bucket = Bucket::full(Mono(0), RATE);
        for _ in 0..3 {
            assert_eq!(bucket.take(Mono(0), RATE), Ok(()));
        }
        let wait = bucket.take(Mono(0), RATE).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(
            bucket
                .take(Mono(0) + wait - Duration::from_micros(1), RATE)
                .is_err()
        );
        assert_eq!(bucket.take(Mono(0) + wait, RATE), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(gaps in prop::collection::vec(0u64..400_000, 0..100)) {
            let mut bucket = Bucket::full(Mono(0), RATE);
            let (mut now, mut taken) = (Mono(0), 0u64);
            for gap in gaps {
                now = now + Duration::from_micros(gap);
                taken += u64::from(bucket.take(now, RATE).is_ok());
                prop_assert!(taken * 1_000_000 <= 3_000_000 + now.0 * 10);
            }
        }
    }
}

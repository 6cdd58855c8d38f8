//! When to dial again: 1, 2, 4, 8, 16, 30 s with full jitter.

use core::time::Duration;

use crate::entropy::Entropy;
use crate::limits::{REDIAL_FIRST, REDIAL_MOST, REDIAL_RESET_AFTER};
use crate::time::Mono;

/// One uplink's schedule. A part: it holds no deadline of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    up_since: Option<Mono>,
}

impl Backoff {
    /// The hello was taken.
    pub fn up(&mut self, now: Mono) {
        self.up_since = Some(now);
    }

    /// The connection went or never came: how long to wait before the next dial. One that held
    /// long enough starts the schedule anew.
    pub fn down(&mut self, now: Mono, entropy: &mut Entropy) -> Duration {
        if let Some(since) = self.up_since.take()
            && now.since(since) >= REDIAL_RESET_AFTER
        {
            self.failures = 0;
        }
        let most = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(entropy.below(micros))
    }

    /// The schedule starts anew: a person asked, or the network changed.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest that the next wait can be.
    fn ceiling(&self) -> Duration {
        REDIAL_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(REDIAL_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn fail(backoff: &mut Backoff, times: u32, entropy: &mut Entropy) {
        for _ in 0..times {
            backoff.down(Mono::ZERO, entropy);
        }
    }

    fn seconds(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn ceilings_double_up_to_half_a_minute() {
        let mut entropy = Entropy::from_seed([1; 32]);
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..8)
            .map(|_| {
                let ceiling = backoff.ceiling();
                assert!(backoff.down(Mono::ZERO, &mut entropy) < ceiling);
                ceiling.as_secs()
            })
            .collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn jitter_is_full() {
        let mut entropy = Entropy::from_seed([2; 32]);
        let mut backoff = Backoff::default();
        fail(&mut backoff, 10, &mut entropy);
        let waits: Vec<Duration> = (0..1_000)
            .map(|_| backoff.down(Mono::ZERO, &mut entropy))
            .collect();
        let within = |from: u64, to: u64| {
            waits
                .iter()
                .filter(|wait| (from..to).contains(&wait.as_secs()))
                .count()
        };
        for third in 0..3 {
            let count = within(10 * third, 10 * (third + 1));
            assert!((250..420).contains(&count), "third {third}: {count}");
        }
    }

    #[test]
    fn only_a_connection_that_held_starts_the_schedule_anew() {
        let mut entropy = Entropy::from_seed([3; 32]);
        let mut backoff = Backoff::default();
        fail(&mut backoff, 6, &mut entropy);

        backoff.up(seconds(100));
        backoff.down(seconds(159), &mut entropy);
        assert_eq!(backoff.ceiling(), REDIAL_MOST, "it held for 59 s");

        backoff.up(seconds(200));
        backoff.down(seconds(260), &mut entropy);
        assert_eq!(
            backoff.ceiling(),
            Duration::from_secs(2),
            "it held for 60 s"
        );
    }
}

//! The clock pair of one host: a monotonic clock with a rate of its own, and a wall clock that steps.

use bowline_core::time::{Mono, Now, Wall};

/// True time of the world in µs. Nobody inside the world can read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    #[must_use]
    pub fn plus_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        self.plus_us(ms.saturating_mul(1_000))
    }

    /// µs since `earlier`, 0 if that is later.
    #[must_use]
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// What every wall clock would say at the beginning of the world, were it right.
pub const WALL_AT_START_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Debug)]
pub struct Clock {
    boot_us: u64,
    /// Parts per million by which it runs fast.
    rate_ppm: i64,
    wall_offset_ms: i64,
}

impl Clock {
    #[must_use]
    pub fn new(boot_us: u64, rate_ppm: i64) -> Self {
        assert!(rate_ppm.abs() < 1_000_000);
        Self {
            boot_us,
            rate_ppm,
            wall_offset_ms: 0,
        }
    }

    /// The wall clock is set by this much.
    pub fn step_wall(&mut self, ms: i64) {
        self.wall_offset_ms += ms;
    }

    /// Somebody sets the wall clock right.
    pub fn right_wall(&mut self) {
        self.wall_offset_ms = 0;
    }

    #[must_use]
    pub fn read(&self, at: Moment) -> Now {
        let ran = self.ran_us(at);
        Now {
            mono: Mono(self.boot_us + ran),
            wall: Wall(
                (WALL_AT_START_MS + at.0 / 1_000).saturating_add_signed(self.wall_offset_ms),
            ),
        }
    }

    /// The first moment at which this clock has reached `mono`.
    #[must_use]
    pub fn moment_of(&self, mono: Mono) -> Moment {
        let ran = u128::from(mono.0.saturating_sub(self.boot_us));
        let per_million = (1_000_000 + self.rate_ppm) as u128;
        let at = (ran * 1_000_000).div_ceil(per_million);
        Moment(u64::try_from(at).unwrap_or(u64::MAX))
    }

    fn ran_us(&self, at: Moment) -> u64 {
        let per_million = (1_000_000 + self.rate_ppm) as u128;
        (u128::from(at.0) * per_million / 1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_deadline_is_due_at_its_moment_and_not_before(
            boot in 0u64..1 << 40, ppm in -10_000i64..10_000, wanted in 0u64..1 << 40,
        ) {
            let clock = Clock::new(boot, ppm);
            let mono = Mono(boot + wanted);
            let at = clock.moment_of(mono);
            prop_assert!(clock.read(at).mono >= mono);
            prop_assert!(at.0 == 0 || clock.read(Moment(at.0 - 1)).mono < mono);
        }
    }

    #[test]
    fn the_wall_steps_and_the_monotonic_clock_does_not() {
        let mut clock = Clock::new(5, 0);
        let before = clock.read(Moment(10));
        clock.step_wall(-90_000);
        let after = clock.read(Moment(10));
        assert_eq!(before.mono, after.mono);
        assert_eq!(before.wall.0 - after.wall.0, 90_000);
        clock.right_wall();
        assert_eq!(clock.read(Moment(10)).wall, before.wall);
    }
}

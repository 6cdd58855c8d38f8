//! The two clocks of a host, read together.

use std::time::{SystemTime, UNIX_EPOCH};

use bowline_core::time::{Mono, Now, Wall};

/// Where `now` comes from. The simulator's world and turmoil bring their own.
pub trait Clock: Clone + Send + Sync + 'static {
    fn now(&self) -> Now;
}

/// The operating system's clocks. `mono` goes on while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            mono: boot_time(),
            wall: unix_time(),
        }
    }
}

/// Follows tokio's clock, so that a paused runtime moves it; `wall` is fixed to it at the start.
/// For tests and turmoil: it does not count suspend.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeClock {
    start: tokio::time::Instant,
    wall_at_start: Wall,
}

impl RuntimeClock {
    #[must_use]
    pub fn starting_at(wall: Wall) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            wall_at_start: wall,
        }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        // The first reading is not zero: a machine may subtract from it.
        let base = Mono(1_000_000_000);
        Now {
            mono: base + elapsed,
            wall: self.wall_at_start + elapsed,
        }
    }
}

fn boot_time() -> Mono {
    // Linux stops CLOCK_MONOTONIC during suspend; the other systems that we run on do not.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ID: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ID: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

    let now = rustix::time::clock_gettime(ID);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec / 1_000).unwrap_or(0);
    Mono(seconds * 1_000_000 + micros)
}

/// A clock set before 1970 reads as 1970: hellos are refused for skew, which says what is wrong.
fn unix_time() -> Wall {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_jumps_back_and_wall_is_this_century() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second.mono >= first.mono);
        assert!(first.mono > Mono::ZERO);
        assert!(first.wall > Wall(1_600_000_000_000));
    }
}

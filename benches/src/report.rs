//! Ratios against a floor measured in the same run: they survive a change of machine better than
//! nanoseconds do.

use std::time::{Duration, Instant};

/// The median of `rounds` runs of `once`, which returns what it wants counted.
pub fn median(rounds: usize, mut once: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..rounds.max(1)).map(|_| once()).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let made = work();
    (start.elapsed(), made)
}

/// How many times `floor` fits into `measured`.
#[must_use]
pub fn ratio(measured: Duration, floor: Duration) -> f64 {
    measured.as_secs_f64() / floor.as_secs_f64().max(1e-9)
}

//! Many seeds on several threads, and what they add up to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_core::mark::{Mark, Marks};
use serde::Serialize;

use crate::fault_mark::{FaultMark, FaultMarks};
use crate::plan::Plan;
use crate::stage::{self, Planted};
use crate::world::Violation;

/// From so many seeds on, a mark that was not hit is a failure of the simulator.
pub const SEEDS_THAT_HIT_ALL: u64 = 2_000;

/// What a sweep ends with.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub seeds: u64,
    pub steps: u64,
    pub virtual_hours: f64,
    pub violations: u64,
    pub marks_hit: usize,
    pub marks_total: usize,
    pub seconds: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Swept {
    pub seeds: u64,
    pub steps: u64,
    pub virtual_ms: u64,
    pub failures: Vec<(u64, Violation)>,
    pub marks: Marks,
    pub fault_marks: FaultMarks,
    pub took: Duration,
}

/// Runs the seeds `from..from + seeds`. `progress` is told how many are done, and how many failed.
pub fn sweep(
    from: u64,
    seeds: u64,
    jobs: usize,
    planted: Planted,
    progress: &(dyn Fn(u64, usize) + Sync),
) -> Swept {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Swept::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= seeds {
                        return;
                    }
                    let seed = from + nth;
                    let outcome = stage::run(&Plan::of_seed(seed), false, planted);
                    let mut total = total
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    total.seeds += 1;
                    total.steps += outcome.events;
                    total.virtual_ms += outcome.virtual_ms;
                    total.marks.add(&outcome.marks);
                    total.fault_marks.add(&outcome.fault_marks);
                    total
                        .failures
                        .extend(outcome.violation.map(|violation| (seed, violation)));
                    progress(total.seeds, total.failures.len());
                }
            });
        }
    });
    let mut swept = total
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    swept.failures.sort_by_key(|(seed, _)| *seed);
    swept.took = began.elapsed();
    swept
}

impl Swept {
    /// Marks of core and of the simulator that no seed hit.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        let core = Mark::ALL.iter().filter(|mark| self.marks.get(**mark) == 0);
        let faults = FaultMark::ALL
            .iter()
            .filter(|mark| self.fault_marks.get(**mark) == 0);
        core.map(|mark| mark.name())
            .chain(faults.map(|mark| mark.name()))
            .collect()
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        let total = Mark::ALL.len() + FaultMark::ALL.len();
        Summary {
            seeds: self.seeds,
            steps: self.steps,
            virtual_hours: (self.virtual_ms as f64 / 3_600_000.0 * 10.0).round() / 10.0,
            violations: self.failures.len() as u64,
            marks_hit: total - self.missed().len(),
            marks_total: total,
            seconds: (self.took.as_secs_f64() * 10.0).round() / 10.0,
        }
    }

    /// Nothing was found, and what had to be reached was reached.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && (self.seeds < SEEDS_THAT_HIT_ALL || self.missed().is_empty())
    }
}

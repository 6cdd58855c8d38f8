//! Many seeds on several threads, and what they add up to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_core::mark::{Mark, Marks};
use serde::{Deserialize, Serialize};

use crate::fault_mark::{FaultMark, FaultMarks};
use crate::histogram::Histogram;
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

/// What is kept of a full sweep: the same on every machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub from: u64,
    pub seeds: u64,
    pub steps: u64,
    pub virtual_hours: f64,
    pub violations: u64,
    pub marks_hit: usize,
    pub marks_total: usize,
    /// What the seeds did, in % of them.
    pub did: BTreeMap<String, u64>,
}

impl Kept {
    /// # Errors
    /// If the file cannot be read, or is something else.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is nothing that a sweep left", file.display()))
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Swept {
    pub seeds: u64,
    pub steps: u64,
    pub virtual_ms: u64,
    pub failures: Vec<(u64, Violation)>,
    pub marks: Marks,
    pub fault_marks: FaultMarks,
    pub histogram: Histogram,
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
    let total = Mutex::new(Swept::default());
    in_parallel(jobs, from, seeds, |seed| {
        let plan = Plan::of_seed(seed);
        let outcome = stage::run(&plan, false, planted);
        let mut total = total
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        total.seeds += 1;
        total.steps += outcome.events;
        total.virtual_ms += outcome.virtual_ms;
        total.marks.add(&outcome.marks);
        total.fault_marks.add(&outcome.fault_marks);
        total.histogram.add(&plan.profile, &outcome);
        total
            .failures
            .extend(outcome.violation.map(|violation| (seed, violation)));
        progress(total.seeds, total.failures.len());
        false
    });
    let mut swept = total
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    swept.failures.sort_by_key(|(seed, _)| *seed);
    swept.took = began.elapsed();
    swept
}

/// What a hunt came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Hunted {
    /// The first seed in which the oracle found something. However many jobs there are, it is the
    /// same one.
    pub seed: Option<u64>,
    /// In how many seeds before that one other oracles found something instead.
    pub others: BTreeMap<String, u64>,
    pub out_of_time: bool,
}

/// Runs up to `seeds` seeds until `oracle` finds something, whatever other oracles find; not for
/// longer than `within`, because what is hunted may be slow beyond measure.
#[must_use]
pub fn hunt(from: u64, seeds: u64, jobs: usize, oracle: &str, within: Duration) -> Hunted {
    let began = Instant::now();
    let hunted = Mutex::new(Hunted::default());
    in_parallel(jobs, from, seeds, |seed| {
        let outcome = stage::run(&Plan::of_seed(seed), false, Planted::Nothing);
        let found = outcome.violation.map(|violation| violation.oracle);
        let mut hunted = hunted
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        hunted.out_of_time |= began.elapsed() > within;
        match found {
            Some(found) if found == oracle => {
                hunted.seed = Some(hunted.seed.map_or(seed, |before| before.min(seed)));
            }
            Some(other) => *hunted.others.entry(other).or_default() += 1,
            None => {}
        }
        hunted.seed.is_some() || hunted.out_of_time
    });
    hunted
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Hands out seeds in order, until `run` says that it is enough: all below that one are run too.
fn in_parallel(jobs: usize, from: u64, seeds: u64, run: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= seeds {
                        return;
                    }
                    if run(from + nth) {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
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

    /// `from`: its first seed.
    #[must_use]
    pub fn kept(&self, from: u64) -> Kept {
        let summary = self.summary();
        Kept {
            from,
            seeds: summary.seeds,
            steps: summary.steps,
            virtual_hours: summary.virtual_hours,
            violations: summary.violations,
            marks_hit: summary.marks_hit,
            marks_total: summary.marks_total,
            did: self.histogram.percentages(),
        }
    }

    /// Nothing was found, and what had to be reached was reached.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && (self.seeds < SEEDS_THAT_HIT_ALL || self.missed().is_empty())
    }
}

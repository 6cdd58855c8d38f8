//! Takes a failing plan apart, until nothing can be left out without losing the failure.

use crate::plan::Plan;
use crate::stage::{self, Planted};
use crate::world::Violation;

/// The smallest plan found that still fails in the same oracle, in at most `runs_most` runs.
#[must_use]
pub fn shrink(plan: &Plan, found: &Violation, planted: Planted, runs_most: usize) -> Plan {
    let mut runs = 0;
    let mut fails = |candidate: &Plan| {
        runs += 1;
        let outcome = stage::run(candidate, false, planted);
        let same = outcome
            .violation
            .is_some_and(|violation| violation.oracle == found.oracle);
        (same, runs >= runs_most)
    };
    let mut best = plan.clone();
    // What comes after the failure has nothing to do with it, but for a failure to converge.
    let mut cut = best.clone();
    cut.steps.retain(|step| step.at_ms <= found.at_ms);
    if cut.steps.len() < best.steps.len() && fails(&cut).0 {
        best = cut;
    }
    let mut size = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut removed_any = false;
        while from < best.steps.len() {
            let mut candidate = best.clone();
            let to = (from + size).min(candidate.steps.len());
            candidate.steps.drain(from..to);
            let (same, out_of_runs) = fails(&candidate);
            if same {
                best = candidate;
                removed_any = true;
            } else {
                from += size;
            }
            if out_of_runs {
                return best;
            }
        }
        if size == 1 && !removed_any {
            return best;
        }
        size = (size / 2).max(1);
    }
}

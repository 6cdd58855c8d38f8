//! A simulator that does not find a planted bug is not to be believed.

use sim::plan::Plan;
use sim::stage::{self, Planted};

const SEEDS: u64 = 200;

pub(crate) fn run() -> bool {
    for seed in 0..SEEDS {
        let outcome = stage::run(&Plan::of_seed(seed), false, Planted::DroppedDelivery);
        if let Some(violation) = outcome.violation {
            println!(
                "the planted bug was found at seed {seed} by {}: {}",
                violation.oracle, violation.what
            );
            return true;
        }
    }
    println!("{SEEDS} seeds did not find the planted bug");
    false
}

//! How much is simulated in a second of one core, the world and its oracles included.

use std::time::Instant;

use sim::stage::Planted;
use sim::sweep::sweep;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 200)]
    seeds: u64,
}

pub(crate) fn run(args: &Args) -> bool {
    let began = Instant::now();
    let swept = sweep(0, args.seeds, 1, Planted::Nothing, &|_, _| {});
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:.0} steps/s, {:.0} virtual seconds/s, {:.1} seeds/s, {:.2} ms a seed, on one core",
        swept.steps as f64 / seconds,
        swept.virtual_ms as f64 / 1e3 / seconds,
        args.seeds as f64 / seconds,
        seconds * 1e3 / args.seeds as f64,
    );
    swept.failures.is_empty()
}

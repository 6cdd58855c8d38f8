//! Many seeds, what they found and what they reached.

use std::path::PathBuf;

use sim::stage::Planted;
use sim::sweep::{SEEDS_THAT_HIT_ALL, sweep};

use super::report;

/// Failures of one sweep that are shrunk and written down.
const WRITTEN_MOST: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Nothing on stdout but the JSON
    #[arg(long)]
    json: bool,
    /// Keep what a good sweep came to in this file; `docs/sweep.json` is that of the last full one
    #[arg(long)]
    record: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let (from, seeds) = (args.from, args.seeds);
    let every = (seeds / 20).max(1);
    let progress = |done: u64, failed: usize| {
        if done.is_multiple_of(every) {
            eprintln!("{done} of {seeds} seeds, {failed} failed");
        }
    };
    let swept = sweep(from, seeds, args.jobs, Planted::Nothing, &progress);
    for (nth, (seed, violation)) in swept.failures.iter().enumerate() {
        if nth < WRITTEN_MOST {
            let files = report::write_failure(*seed, violation)?;
            eprintln!("{files}");
        }
        eprintln!("seed {seed}: {}", report::describe(violation));
        eprintln!("    cargo run --profile sim -p sim -- replay --seed {seed}");
    }
    eprint!("{}", swept.histogram.table());
    let missed = swept.missed();
    if !missed.is_empty() {
        let weight = if seeds >= SEEDS_THAT_HIT_ALL {
            "FAILED"
        } else {
            "note"
        };
        eprintln!("{weight}: no seed reached {}", missed.join(", "));
    }
    if !args.json {
        println!("{seeds} seeds from {from}, {} failed", swept.failures.len());
    }
    println!("{}", serde_json::to_string(&swept.summary())?);
    if let Some(file) = &args.record {
        if swept.is_good() {
            swept.kept(from).write(file)?;
        } else {
            eprintln!("{} is left as it is: this sweep failed", file.display());
        }
    }
    Ok(swept.is_good())
}

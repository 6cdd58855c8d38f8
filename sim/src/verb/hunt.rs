//! Seeds until one oracle finds something; what a mutant is asked.

use std::time::Duration;

use sim::sweep::hunt;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    oracle: String,
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[arg(long)]
    seeds: u64,
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// No seed is begun after so many seconds
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// Exits 0 also if nothing is found: that is the answer.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let within = Duration::from_secs(args.seconds);
    let hunted = hunt(args.from, args.seeds, args.jobs, &args.oracle, within);
    println!("{}", serde_json::to_string(&hunted)?);
    Ok(true)
}

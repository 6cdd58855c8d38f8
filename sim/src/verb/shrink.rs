//! A failing plan, as small as it can be.

use std::path::PathBuf;

use anyhow::bail;

use sim::plan::Plan;
use sim::shrink::shrink;
use sim::stage::{self, Planted};

use super::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    #[arg(long, conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// Where to write the smaller plan; standard output if left out
    #[arg(long)]
    out: Option<PathBuf>,
    /// Runs that may be spent
    #[arg(long, default_value_t = 2_000)]
    runs: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let plan = match (args.seed, &args.plan) {
        (Some(seed), _) => Plan::of_seed(seed),
        (None, Some(file)) => report::read_plan(file)?,
        (None, None) => bail!("say --seed or --plan"),
    };
    let Some(violation) = stage::run(&plan, false, Planted::Nothing).violation else {
        bail!("the plan does not fail: there is nothing to keep while it gets smaller");
    };
    eprintln!("{}", report::describe(&violation));
    let small = shrink(&plan, &violation, Planted::Nothing, args.runs);
    eprintln!(
        "{} steps of {} are left",
        small.steps.len(),
        plan.steps.len()
    );
    let json = serde_json::to_string_pretty(&small)?;
    match &args.out {
        Some(file) => report::write(file, &json)?,
        None => println!("{json}"),
    }
    Ok(true)
}

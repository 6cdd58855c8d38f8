//! One run, and what happened in it.

use std::path::PathBuf;

use anyhow::bail;

use sim::plan::Plan;
use sim::stage::{self, Planted};
use sim::timeline;

use super::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    #[arg(long, conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// Say the trace's hash and nothing else
    #[arg(long)]
    hash: bool,
    /// Write the run as a page of its own to this file
    #[arg(long)]
    html: Option<PathBuf>,
    /// Plant the bug of `canary`, to see what a failure looks like
    #[arg(long)]
    planted: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let plan = match (args.seed, &args.plan) {
        (Some(seed), _) => Plan::of_seed(seed),
        (None, Some(file)) => report::read_plan(file)?,
        (None, None) => bail!("say --seed or --plan"),
    };
    let planted = if args.planted {
        Planted::DroppedDelivery
    } else {
        Planted::Nothing
    };
    if args.hash {
        println!("{:016x}", stage::run(&plan, false, planted).hash);
        return Ok(true);
    }
    let outcome = match &args.html {
        Some(file) => {
            let outcome = stage::run_recorded(&plan, planted);
            report::write(file, &timeline::page(&plan, &outcome))?;
            outcome
        }
        None => stage::run(&plan, true, planted),
    };
    print!("{}", report::in_words(&plan, &outcome));
    Ok(outcome.violation.is_none())
}

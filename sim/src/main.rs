//! `sim`: deterministic simulation of Bowline.
//!
//! Exit codes: 0 as it should be, 1 a violation was found (`canary`: was not found), 2 usage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use sim::panics;
use sim::plan::Plan;
use sim::shrink::shrink;
use sim::stage::{self, Planted};
use sim::sweep::{SEEDS_THAT_HIT_ALL, sweep};
use sim::world::{Outcome, Violation};

const META_SEEDS: std::ops::Range<u64> = 0..8;
const CANARY_SEEDS: u64 = 200;
const SHRINK_RUNS: usize = 400;
/// Failures of one sweep that are shrunk and written down.
const WRITTEN_MOST: usize = 3;
const WRITTEN_TO: &str = "target/sim";

#[derive(Parser)]
#[command(about = "Deterministic simulation of Bowline: the shipped core under faults")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Is the simulator deterministic? The same plan twice here, and in another process
    Meta,
    /// Is a planted bug found? Exits 0 if it is
    Canary,
    /// Run many seeds; ends with one line of JSON
    Sweep {
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
    },
    /// Run one seed, or a plan from a file, and show what happened
    Replay {
        #[arg(long, required_unless_present = "plan")]
        seed: Option<u64>,
        #[arg(long, conflicts_with = "seed")]
        plan: Option<PathBuf>,
        /// Say the trace's hash and nothing else
        #[arg(long)]
        hash: bool,
    },
    /// How fast is it?
    Bench {
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    panics::keep_quiet();
    let done = match Cli::parse().verb {
        Verb::Meta => meta(),
        Verb::Canary => canary(),
        Verb::Sweep {
            seeds,
            from,
            jobs,
            json,
        } => run_sweep(from, seeds, jobs, json),
        Verb::Replay { seed, plan, hash } => replay(seed, plan.as_deref(), hash),
        Verb::Bench { seeds } => bench(seeds),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn meta() -> anyhow::Result<bool> {
    let own = std::env::current_exe().context("where am I?")?;
    for seed in META_SEEDS {
        let plan = Plan::of_seed(seed);
        let here = stage::run(&plan, false, Planted::Nothing).hash;
        let again = stage::run(&plan, true, Planted::Nothing).hash;
        let output = Command::new(&own)
            .args(["replay", "--hash", "--seed", &seed.to_string()])
            .output()
            .context("cannot run another process of mine")?;
        let there = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if here != again || there != format!("{here:016x}") {
            println!("seed {seed}: {here:016x}, again {again:016x}, elsewhere {there}");
            return Ok(false);
        }
    }
    println!("deterministic: {} seeds, three times each", META_SEEDS.end);
    Ok(true)
}

fn canary() -> anyhow::Result<bool> {
    for seed in 0..CANARY_SEEDS {
        let outcome = stage::run(&Plan::of_seed(seed), false, Planted::DroppedDelivery);
        if let Some(violation) = outcome.violation {
            println!(
                "the planted bug was found at seed {seed} by {}: {}",
                violation.oracle, violation.what
            );
            return Ok(true);
        }
    }
    println!("{CANARY_SEEDS} seeds did not find the planted bug");
    Ok(false)
}

fn run_sweep(from: u64, seeds: u64, jobs: usize, json: bool) -> anyhow::Result<bool> {
    let every = (seeds / 20).max(1);
    let progress = |done: u64, failed: usize| {
        if done.is_multiple_of(every) {
            eprintln!("{done} of {seeds} seeds, {failed} failed");
        }
    };
    let swept = sweep(from, seeds, jobs, Planted::Nothing, &progress);
    for (nth, (seed, violation)) in swept.failures.iter().enumerate() {
        if nth < WRITTEN_MOST {
            let files = write_failure(*seed, violation)?;
            eprintln!("{files}");
        }
        eprintln!("seed {seed}: {}", describe(violation));
        eprintln!("    cargo run --profile sim -p sim -- replay --seed {seed}");
    }
    let missed = swept.missed();
    if !missed.is_empty() {
        let weight = if seeds >= SEEDS_THAT_HIT_ALL {
            "FAILED"
        } else {
            "note"
        };
        eprintln!("{weight}: no seed reached {}", missed.join(", "));
    }
    if !json {
        println!("{seeds} seeds from {from}, {} failed", swept.failures.len());
    }
    println!("{}", serde_json::to_string(&swept.summary())?);
    Ok(swept.is_good())
}

fn replay(seed: Option<u64>, file: Option<&Path>, hash: bool) -> anyhow::Result<bool> {
    let plan = match (seed, file) {
        (Some(seed), _) => Plan::of_seed(seed),
        (None, Some(file)) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a plan", file.display()))?
        }
        (None, None) => bail!("say --seed or --plan"),
    };
    let outcome = stage::run(&plan, !hash, Planted::Nothing);
    if hash {
        println!("{:016x}", outcome.hash);
        return Ok(true);
    }
    print!("{}", timeline(&plan, &outcome));
    Ok(outcome.violation.is_none())
}

fn bench(seeds: u64) -> anyhow::Result<bool> {
    let began = Instant::now();
    let swept = sweep(0, seeds, 1, Planted::Nothing, &|_, _| {});
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:.1} seeds/s, {:.0} events/s, {:.2} ms a seed, {:.0} times real time",
        seeds as f64 / seconds,
        swept.steps as f64 / seconds,
        seconds * 1e3 / seeds as f64,
        swept.virtual_ms as f64 / 1e3 / seconds
    );
    Ok(true)
}

/// Shrinks, and writes plan and timeline. Returns where.
fn write_failure(seed: u64, violation: &Violation) -> anyhow::Result<String> {
    let small = shrink(
        &Plan::of_seed(seed),
        violation,
        Planted::Nothing,
        SHRINK_RUNS,
    );
    let outcome = stage::run(&small, true, Planted::Nothing);
    fs::create_dir_all(WRITTEN_TO).with_context(|| format!("cannot make {WRITTEN_TO}"))?;
    let plan = format!("{WRITTEN_TO}/{seed}.plan.json");
    let shown = format!("{WRITTEN_TO}/{seed}.timeline.txt");
    fs::write(&plan, serde_json::to_string_pretty(&small)?)
        .with_context(|| format!("cannot write {plan}"))?;
    fs::write(&shown, timeline(&small, &outcome))
        .with_context(|| format!("cannot write {shown}"))?;
    Ok(format!(
        "seed {seed}, shrunken to {} steps: {plan}, {shown}",
        small.steps.len()
    ))
}

fn timeline(plan: &Plan, outcome: &Outcome) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let _ = writeln!(text, "{:#?}", plan.profile);
    for step in &plan.steps {
        let at = step.at_ms as f64 / 1e3;
        let _ = writeln!(text, "{at:>10.3} #{} {:?}", step.id.0, step.action);
    }
    for line in &outcome.last {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "{} events, {:.1} s of virtual time, hash {:016x}",
        outcome.events,
        outcome.virtual_ms as f64 / 1e3,
        outcome.hash
    );
    let end = outcome
        .violation
        .as_ref()
        .map_or_else(|| "nothing wrong".to_owned(), describe);
    let _ = writeln!(text, "{end}");
    text
}

fn describe(violation: &Violation) -> String {
    format!(
        "{} at {:.3} s: {}",
        violation.oracle,
        violation.at_ms as f64 / 1e3,
        violation.what
    )
}

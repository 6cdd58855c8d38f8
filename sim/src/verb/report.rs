//! What is said and written of a run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use sim::plan::Plan;
use sim::shrink::shrink;
use sim::stage::{self, Planted};
use sim::timeline;
use sim::world::{Outcome, Violation};

const SHRINK_RUNS: usize = 400;
const WRITTEN_TO: &str = "target/sim";

/// Shrinks, and writes plan and timeline. Returns where.
pub(super) fn write_failure(seed: u64, violation: &Violation) -> anyhow::Result<String> {
    let small = shrink(
        &Plan::of_seed(seed),
        violation,
        Planted::Nothing,
        SHRINK_RUNS,
    );
    let outcome = stage::run_recorded(&small, Planted::Nothing);
    fs::create_dir_all(WRITTEN_TO).with_context(|| format!("cannot make {WRITTEN_TO}"))?;
    let plan = format!("{WRITTEN_TO}/{seed}.plan.json");
    let text = format!("{WRITTEN_TO}/{seed}.timeline.txt");
    let page = format!("{WRITTEN_TO}/{seed}.timeline.html");
    write(&plan, &serde_json::to_string_pretty(&small)?)?;
    write(&text, &in_words(&small, &outcome))?;
    write(&page, &timeline::page(&small, &outcome))?;
    Ok(format!(
        "seed {seed}, shrunken to {} steps: {plan}, {text}, {page}",
        small.steps.len()
    ))
}

pub(super) fn write(file: impl AsRef<Path>, content: &str) -> anyhow::Result<()> {
    let file = file.as_ref();
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

/// Profile, steps, the last events, and the end.
pub(super) fn in_words(plan: &Plan, outcome: &Outcome) -> String {
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

pub(super) fn describe(violation: &Violation) -> String {
    format!(
        "{} at {:.3} s: {}",
        violation.oracle,
        violation.at_ms as f64 / 1e3,
        violation.what
    )
}

pub(super) fn read_plan(file: &Path) -> anyhow::Result<Plan> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a plan", file.display()))
}

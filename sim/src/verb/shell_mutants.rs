//! Applies each mutant of a shell to a copy of the tree, and plays the scenario that has to notice.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use sim::mutant::{self, Mutant};

use super::mutants::{PATCHES, Scratch, said};

/// Under the patches of core.
const SHELLS: &str = "shells";

pub(super) fn run(root: &Path, names: &[String], as_json: bool) -> anyhow::Result<bool> {
    let mut mutants = mutant::of_shells(&root.join(PATCHES).join(SHELLS))?;
    for name in names {
        ensure!(
            mutants.iter().any(|mutant| mutant.name == *name),
            "there is no {PATCHES}/{SHELLS}/{name}.patch"
        );
    }
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    let scratch = Scratch::copy(root)?;
    let mut survived = 0;
    let mut told = Vec::new();
    for (nth, mutant) in mutants.iter().enumerate() {
        let began = Instant::now();
        eprint!("{:>3} of {}  {:<36} ", nth + 1, mutants.len(), mutant.name);
        let noticed = scratch.with(mutant, || notices(&scratch, mutant))??;
        let outcome = if noticed { "noticed by" } else { "SURVIVED" };
        let seconds = began.elapsed().as_secs();
        eprintln!("{outcome} {} ({seconds} s)", mutant.found_by);
        survived += usize::from(!noticed);
        told.push(json!({
            "name": mutant.name,
            "scenario": mutant.found_by,
            "noticed": noticed,
        }));
    }
    if as_json {
        println!("{}", json!({ "shells": told }));
    } else {
        println!("{} mutants of shells, {survived} survived", mutants.len());
    }
    Ok(survived == 0)
}

/// A scenario that passes has noticed nothing.
fn notices(scratch: &Scratch, mutant: &Mutant) -> anyhow::Result<bool> {
    let test = ["test", "--quiet", "-p", "sim", "--test", "turmoil"];
    said(
        scratch.cargo(&test).arg("--no-run"),
        &format!("compile the mutant {}", mutant.name),
    )?;
    let played = scratch
        .cargo(&test)
        .args(["--", "--exact", &mutant.found_by])
        .output()?;
    let text = String::from_utf8_lossy(&played.stdout);
    ensure!(
        text.contains("running 1 test"),
        "{} names {}, which is no scenario",
        mutant.name,
        mutant.found_by
    );
    Ok(!played.status.success())
}

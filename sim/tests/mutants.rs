//! Every mutant can still be applied, and was found by the oracle that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sim::mutant::{self, CHANGED_LINES_MOST, Kill, Mutant, SEEDS_MOST};
use sim::oracle;

const MUTANTS_LEAST: usize = 30;

#[test]
fn every_mutant_is_small_says_what_it_does_and_names_an_oracle() {
    let oracles = oracle::names();
    let mutants = mutants();
    assert!(mutants.len() >= MUTANTS_LEAST, "{}", mutants.len());
    for mutant in mutants {
        let name = &mutant.name;
        assert!(
            (1..=CHANGED_LINES_MOST).contains(&mutant.changed_lines),
            "{name} changes {} lines",
            mutant.changed_lines
        );
        assert!(
            oracles.contains(&mutant.found_by.as_str()),
            "{name} names {}, which is no oracle",
            mutant.found_by
        );
    }
}

#[test]
fn every_mutant_applies() {
    for mutant in mutants().into_iter().chain(slips_of_shells()) {
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(&mutant.patch)
            .current_dir(root())
            .output()
            .expect("git runs");
        assert!(
            output.status.success(),
            "{} does not apply: make the same slip in today's code, and write it anew with \
             `git diff`\n{}",
            mutant.patch.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_mutant_was_found_by_its_oracle() {
    let text = fs::read_to_string(root().join("sim/mutants/killed.json"))
        .expect("`sim mutants --record` writes it");
    let kills: Vec<Kill> = serde_json::from_str(&text).expect("a list of kills");
    let found: BTreeSet<(String, String)> = kills
        .iter()
        .filter(|kill| kill.seed < SEEDS_MOST)
        .map(|kill| (kill.name.clone(), kill.oracle.clone()))
        .collect();
    let named: BTreeSet<(String, String)> = mutants()
        .into_iter()
        .map(|mutant| (mutant.name, mutant.found_by))
        .collect();
    assert_eq!(found, named, "run `sim mutants --record`");
}

/// An oracle that no mutant is found by may be one that finds nothing.
#[test]
fn every_oracle_finds_a_mutant() {
    let named: BTreeSet<String> = mutants()
        .into_iter()
        .map(|mutant| mutant.found_by)
        .collect();
    for oracle in oracle::names() {
        assert!(named.contains(oracle), "no mutant is for {oracle}");
    }
}

/// Each scenario in turmoil's network notices a slip of a shell.
#[test]
fn every_scenario_finds_a_slip_of_a_shell() {
    let folder = root().join("sim/tests/turmoil");
    let mut scenarios = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the scenarios").flatten() {
        let file = entry.path().file_stem().expect("a name").to_owned();
        // Its test is of itself.
        if file == "frames" {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("a file of text");
        let tests = text.split("#[test]\nfn ").skip(1);
        let names = tests.filter_map(|test| test.split('(').next());
        scenarios.extend(names.map(|name| format!("{}::{name}", file.display())));
    }
    let slips = slips_of_shells().into_iter();
    let noticed: BTreeSet<String> = slips.map(|mutant| mutant.found_by).collect();
    assert_eq!(scenarios, noticed);
}

fn mutants() -> Vec<Mutant> {
    mutant::of_core(&root().join("sim/mutants")).expect("the mutants can be read")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is a folder of the workspace")
        .to_owned()
}

fn slips_of_shells() -> Vec<Mutant> {
    mutant::of_shells(&root().join("sim/mutants/shells")).expect("the mutants can be read")
}

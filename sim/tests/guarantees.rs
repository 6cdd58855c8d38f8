//! `docs/GUARANTEES.md` says what is so: every oracle, test and mutant that it names is there, and
//! none is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sim::mutant::{self, Kill};
use sim::sweep::{Kept, SEEDS_THAT_HIT_ALL};
use sim::{guarantee, oracle};

#[test]
fn the_page_says_what_it_is_made_of() {
    let mutants = mutant::of_core(&root().join("sim/mutants")).expect("the mutants can be read");
    let kills: Vec<Kill> =
        serde_json::from_str(&read("sim/mutants/killed.json")).expect("a list of kills");
    let expected = guarantee::page(&mutants, &kills, &kept());
    assert!(
        read("docs/GUARANTEES.md") == expected,
        "docs/GUARANTEES.md is of another day: run \
         `cargo run --profile sim -p sim -- guarantees`"
    );
    for mutant in &mutants {
        assert!(
            expected.contains(&format!("[{}]", mutant.name)),
            "{} is for {}, which judges no guarantee",
            mutant.name,
            mutant.found_by
        );
    }
}

#[test]
fn every_oracle_judges_one_guarantee_and_has_its_file() {
    let mut judged: BTreeMap<&str, usize> = BTreeMap::new();
    for oracle in guarantee::ALL.iter().flat_map(|it| it.oracles) {
        *judged.entry(oracle).or_default() += 1;
    }
    let once: BTreeMap<&str, usize> = oracle::names().into_iter().map(|name| (name, 1)).collect();
    assert_eq!(judged, once);
    for oracle in oracle::names() {
        let source = read(&guarantee::oracle_file(oracle));
        assert!(source.contains(&format!("\"{oracle}\"")), "{oracle}");
    }
}

/// An oracle that is written and not listed judges nothing.
#[test]
fn every_file_with_an_oracle_is_listed() {
    let names: BTreeSet<&str> = oracle::names().into_iter().collect();
    let folder = root().join("sim/src/oracle");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("oracles have a folder") {
        let path = entry.expect("a folder can be read").path();
        let source = fs::read_to_string(&path).expect("sources can be read");
        if source.contains("impl Oracle for ") {
            let stem = path.file_stem().expect("a file has a name");
            assert!(names.contains(&*stem.to_string_lossy()), "{stem:?}");
            seen += 1;
        }
    }
    assert_eq!(seen + oracle::OF_THE_WORLD.len(), names.len());
}

#[test]
fn every_guarantee_has_tests_and_they_exist() {
    for guarantee in guarantee::ALL {
        assert!(!guarantee.tests.is_empty(), "{}", guarantee.name);
        for tests in guarantee.tests {
            let source = read(tests.file);
            for name in tests.names {
                assert!(is_a_test(&source, name), "no test {name} in {}", tests.file);
            }
        }
    }
}

#[test]
fn only_a_function_that_is_marked_is_a_test() {
    assert!(is_a_test("    #[test]\n    fn a() {}", "a"));
    assert!(is_a_test("#[test]\nfn a(\n  x: u8,\n) {}", "a"));
    assert!(is_a_test("#[tokio::test]\nasync fn a() {}", "a"));
    assert!(!is_a_test("fn a() {}", "a"));
    assert!(!is_a_test("#[test]\nfn ab() {}", "a"));
    assert!(!is_a_test("#[test]\n#[ignore]\nfn a() {}", "a"));
}

#[test]
fn the_sweep_that_was_kept_found_and_missed_nothing() {
    let kept = kept();
    assert!(kept.seeds >= SEEDS_THAT_HIT_ALL, "{}", kept.seeds);
    assert_eq!(kept.violations, 0);
    assert_eq!(kept.marks_hit, kept.marks_total);
}

/// A function of that name, with the attribute on the line before it.
fn is_a_test(source: &str, name: &str) -> bool {
    let start = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| {
        let function = pair[1].strip_prefix("async ").unwrap_or(pair[1]);
        let is_marked = pair[0] == "#[test]" || pair[0].starts_with("#[tokio::test");
        is_marked && function.starts_with(&start)
    })
}

fn kept() -> Kept {
    Kept::read(&root().join("docs/sweep.json")).expect("`sim sweep --record` writes it")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is a folder of the workspace")
        .to_owned()
}

//! Plans that failed once run first, and the simulator proves itself before it is believed.

use std::fs;
use std::path::Path;
use std::process::Command;

use sim::fault_mark::FaultMark;
use sim::histogram::{CRASHED_IN_FLIGHT_LEAST_PERCENT, OUTAGE_NEAR_GRACE_LEAST_PERCENT};
use sim::plan::Plan;
use sim::stage::{self, Planted};
use sim::sweep;

#[test]
fn plans_that_failed_once_do_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut plans: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("and can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    plans.sort();
    assert!(!plans.is_empty());
    for path in plans {
        let text = fs::read_to_string(&path).expect("a plan can be read");
        let plan: Plan = serde_json::from_str(&text).expect("a plan in the corpus is a plan");
        let outcome = stage::run(&plan, false, Planted::Nothing);
        assert_eq!(outcome.violation, None, "{}", path.display());
    }
}

#[test]
fn seeds_find_nothing() {
    let swept = sweep::sweep(0, 300, 2, Planted::Nothing, &|_, _| {});
    let failures: Vec<_> = swept
        .failures
        .iter()
        .map(|(seed, violation)| {
            format!("cargo run --profile sim -p sim -- replay --seed {seed}   {violation:?}")
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // The worst moments are not left to chance.
    let percent = |mark| swept.histogram.percent(mark);
    let table = swept.histogram.table();
    let crashed = percent(FaultMark::CrashWithTransactionsInFlight);
    assert!(crashed >= CRASHED_IN_FLIGHT_LEAST_PERCENT, "{table}");
    let outage = percent(FaultMark::OutageNearGrace);
    assert!(outage >= OUTAGE_NEAR_GRACE_LEAST_PERCENT, "{table}");
}

#[test]
fn a_plan_is_the_same_run_here_again_and_elsewhere() {
    assert!(verb("meta"), "sim meta");
}

#[test]
fn a_planted_bug_is_found() {
    assert!(verb("canary"), "sim canary");
}

fn verb(name: &str) -> bool {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg(name)
        .status()
        .expect("the simulator runs")
        .success()
}

//! Replays the fuzzer's plans on stable Rust.

use std::fs;
use std::path::Path;

use sim::plan::Plan;
use sim::stage::{self, Planted};

#[test]
fn no_plan_in_the_corpus_breaks_a_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/plan");
    let mut plans = 0;
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("and can be read").path();
        let bytes = fs::read(&path).expect("a file");
        let outcome = stage::run(&Plan::of_bytes(&bytes), false, Planted::Nothing);
        assert_eq!(outcome.violation, None, "{}", path.display());
        plans += 1;
    }
    assert!(plans > 5, "{plans} plans");
}

#[test]
fn whatever_the_bytes_there_is_a_plan_that_survives_its_file() {
    for length in 0..60 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 37 + length) as u8).collect();
        let plan = Plan::of_bytes(&bytes);
        assert!(plan.steps.len() <= bytes.len() / 7);
        let json = serde_json::to_string(&plan).expect("plans serialise");
        let read: Plan = serde_json::from_str(&json).expect("plans deserialise");
        assert_eq!(serde_json::to_string(&read).expect("again"), json);
    }
}

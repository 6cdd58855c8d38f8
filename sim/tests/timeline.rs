//! The page of a run draws what happened in it, and marks what was violated.

use serde_json::Value;
use sim::plan::Plan;
use sim::stage::{self, Planted};
use sim::timeline;

#[test]
fn a_failure_is_marked_and_every_lane_is_drawn() {
    let plan = Plan::of_seed(7);
    let outcome = stage::run_recorded(&plan, Planted::DroppedDelivery);
    let violation = outcome.violation.clone().expect("the planted bug is found");
    let page = timeline::page(&plan, &outcome);
    let data = data(&page);
    assert_eq!(data["violation"]["oracle"], violation.oracle.as_str());
    assert_eq!(data["violation"]["at_ms"], violation.at_ms);
    assert!(!rows(&data["violation"]["last"]).is_empty());
    let names: Vec<&str> = rows(&data["lanes"])
        .iter()
        .filter_map(|lane| lane["name"].as_str())
        .collect();
    let profile = &plan.profile;
    let hosts = (0..profile.hosts).map(|host| format!("host {host}"));
    let puppets = (0..profile.puppets).map(|puppet| format!("puppet {puppet}"));
    for lane in hosts.chain(puppets).chain(["broker 0".to_owned()]) {
        assert!(names.contains(&lane.as_str()), "no {lane} in {names:?}");
    }
    let kinds = kinds(&data);
    for kind in ["up", "dialling", "live", "owed"] {
        assert!(kinds.contains(&kind.to_owned()), "no {kind} in {kinds:?}");
    }
}

#[test]
fn everything_lies_within_the_run() {
    for seed in [3, 14] {
        let plan = Plan::of_seed(seed);
        let outcome = stage::run_recorded(&plan, Planted::Nothing);
        let data = data(&timeline::page(&plan, &outcome));
        assert!(data["violation"].is_null());
        let end = data["end_ms"].as_f64().expect("a number") + 1.0;
        for row in rows(&data["lanes"])
            .iter()
            .flat_map(|lane| rows(&lane["rows"]))
        {
            for span in rows(&row["spans"]) {
                let (from, to) = (span["from_ms"].as_f64(), span["to_ms"].as_f64());
                assert!(from <= to && to <= Some(end), "{span} in {}", row["name"]);
            }
        }
    }
}

/// The data as a browser reads it. What a body could contain must not end the script early.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("const run = ").expect("the data is there");
    let (json, _) = rest.split_once(";\nconst ").expect("and ends");
    assert!(!json.contains("</"), "the script would end here");
    assert!(
        !page.contains("http://") || page.matches("http://").count() == 1,
        "nothing is fetched"
    );
    serde_json::from_str(json).expect("the data is JSON")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn kinds(data: &Value) -> Vec<String> {
    rows(&data["lanes"])
        .iter()
        .flat_map(|lane| rows(&lane["rows"]))
        .flat_map(|row| rows(&row["spans"]))
        .filter_map(|span| span["kind"].as_str().map(str::to_owned))
        .collect()
}

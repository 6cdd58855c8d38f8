#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let plan = sim::plan::Plan::of_bytes(bytes);
    let outcome = sim::stage::run(&plan, false, sim::stage::Planted::Nothing);
    assert_eq!(
        outcome.violation,
        None,
        "{}",
        serde_json::to_string(&plan).expect("plans are data")
    );
});

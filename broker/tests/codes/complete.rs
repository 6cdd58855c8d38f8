//! No code is without its test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bowline_core::wire::{Close, Code, HelloCode, SendCode};

/// Those that no broker sends yet: they come with messages to many, and `loop` with chains.
const NOT_SENT: [SendCode; 4] = [
    SendCode::AudienceChanged,
    SendCode::AudienceTooLarge,
    SendCode::Unsealed,
    SendCode::Loop,
];

/// Closes that the broker decides on, with what their reason begins with. 1006 never travels, 1011
/// is a heartbeat that nobody answered, and 1012 and 1013 are taken from a broker and never sent by
/// this one.
const CLOSES: [(u16, &str); 10] = [
    (Close::NORMAL, "session_replaced"),
    (Close::GOING_AWAY, ""),
    (Close::POLICY, "malformed"),
    (Close::TOO_BIG, "frame_too_large"),
    (Close::KICKED, "kicked"),
    (Close::BANNED, "banned"),
    (Close::SLOW_CONSUMER, "slow_consumer"),
    (Close::FEATURE_UNAVAILABLE, "feature_unavailable"),
    (Close::FEATURE_PARAM_INVALID, "feature_param_invalid"),
    (
        Close::FEATURE_PARAM_BELOW_FLOOR,
        "feature_param_below_floor",
    ),
];

#[test]
fn every_code_has_a_test_that_is_named_after_it() {
    let sends = SendCode::ALL.into_iter();
    let sends = sends.filter(|code| !NOT_SENT.contains(code));
    let mut expected: Vec<String> = sends
        .map(|code| format!("send_code_{}", code.as_str()))
        .collect();
    let hellos = HelloCode::ALL.iter();
    expected.extend(hellos.map(|code| format!("hello_code_{}", code.as_str())));
    let frames = Code::ALL.iter();
    expected.extend(frames.map(|code| format!("frame_code_{}", code.as_str())));
    expected.extend(CLOSES.iter().map(|(code, reason)| {
        let name = format!("close_{code}_{reason}");
        name.trim_end_matches('_').to_owned()
    }));

    let mut tests = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"),
        &mut tests,
    );
    let has_test = |name: &String| {
        let of_code = |test: &String| {
            let rest = test.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        tests.iter().any(of_code)
    };
    let missing: Vec<_> = expected.iter().filter(|name| !has_test(name)).collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
    assert_eq!(expected.len(), 10 + 13 + 10 + 10);
}

/// The names of the tests in a folder of sources.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("sources can be read") {
        let path = entry.expect("sources can be read").path();
        if path.is_dir() {
            collect(&path, tests);
            continue;
        }
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).expect("sources can be read");
        let named = source.split("#[tokio::test]\nasync fn ").skip(1);
        tests.extend(named.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
    }
}

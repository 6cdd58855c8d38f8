//! `docs/ARCHITECTURE.md` agrees with the code: what it names is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a path that the document shortens may begin.
const ROOTS: [&str; 3] = ["", "core/src", "core/src/mesh"];

#[test]
fn files_that_the_architecture_names_exist() {
    let named: Vec<String> = spans(&architecture())
        .filter(|span| span.ends_with(".rs") && !span.contains(' '))
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&String> = named.iter().filter(|path| find(path).is_none()).collect();
    assert!(missing.is_empty(), "no such file: {missing:?}");
}

/// The rows `| 5 | where | functions | what is decided |`.
#[test]
fn the_life_of_a_message_names_functions_where_they_are() {
    let text = architecture();
    let mut steps = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, number, place, functions, ..] = cells[..] else {
            continue;
        };
        if number.parse::<u32>().is_err() {
            continue;
        }
        steps += 1;
        let path = spans(place).next().expect("each step has a file");
        let file = find(path).unwrap_or_else(|| panic!("step {number}: no file {path}"));
        let source = fs::read_to_string(file).expect("sources can be read");
        for function in spans(functions) {
            let name = function.rsplit("::").next().unwrap_or(function);
            // A promise is named by its variant, everything else by its function.
            let starts = if name.starts_with(char::is_uppercase) {
                [format!("{name}("), format!("{name} {{")]
            } else {
                [format!("fn {name}("), format!("fn {name}<")]
            };
            let is_there = starts.iter().any(|start| source.contains(start));
            assert!(is_there, "step {number}: no {function} in {path}");
        }
    }
    assert!(steps > 20, "{steps} steps");
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the document can be read")
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn find(path: &str) -> Option<PathBuf> {
    ROOTS
        .iter()
        .map(|start| root().join(start).join(path))
        .find(|file| file.is_file())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("core is a folder of the workspace")
        .to_owned()
}

//! RFC 8785: the test data of its author, its own tables, and what has no canonical form. The files
//! are there for other languages too: `core/tests/jcs/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use bowline_core::crypto::jcs::{JcsError, canonical, canonical_json};
use serde::Deserialize;
use serde_json::{Number, Value};

#[test]
fn the_reference_test_data_comes_out_byte_for_byte() {
    let mut names: Vec<_> = fs::read_dir(folder().join("input"))
        .expect("the inputs")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    names.sort();
    assert_eq!(names.len(), 7, "{names:?}");
    for name in names {
        let input = read(&folder().join("input").join(&name));
        let output = read(&folder().join("output").join(&name));
        assert_eq!(canonical_json(&input).as_ref(), Ok(&output), "{name:?}");
        // And is its own canonical form.
        assert_eq!(canonical_json(&output).as_ref(), Ok(&output), "{name:?}");
    }
}

#[derive(Deserialize)]
struct Double {
    ieee754: String,
    canonical: Option<String>,
}

#[test]
fn numbers_are_written_as_the_table_says_and_what_is_none_is_refused() {
    let table: Vec<Double> = list("numbers.json");
    let mut refused = 0;
    for Double {
        ieee754,
        canonical: expected,
    } in &table
    {
        let bits = u64::from_str_radix(ieee754, 16).expect("hex");
        let number = Number::from_f64(f64::from_bits(bits));
        let written = number.map(|number| canonical(&Value::Number(number)));
        assert_eq!(&written, expected, "{ieee754}");
        let Some(text) = expected else {
            refused += 1;
            continue;
        };
        assert_eq!(canonical_json(text).as_ref(), Ok(text));
        // Minus zero is the one that does not come back.
        let read: f64 = text.parse().expect("a number");
        assert!(read.to_bits() == bits || read == 0.0, "{ieee754}");
    }
    assert_eq!((table.len(), refused), (27, 3));
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    input: String,
    why: String,
}

#[test]
fn what_has_no_canonical_form_is_refused_for_what_it_is() {
    let table: Vec<Refused> = list("refused.json");
    assert!(table.len() > 20, "{}", table.len());
    for Refused { name, input, why } in table {
        let expected = match &*why {
            "duplicate_key" => JcsError::DuplicateKey,
            "malformed" => JcsError::Malformed,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(canonical_json(&input), Err(expected), "{name}");
    }
}

fn list<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    serde_json::from_str(&read(&folder().join(name))).expect("a list")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jcs")
}

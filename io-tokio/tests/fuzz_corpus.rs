//! Replays what the fuzzer found to be worth keeping, as far as databases are in it, on stable Rust.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/checks/stored_frame.rs"]
mod stored_frame;
#[path = "../../fuzz/checks/stored_row.rs"]
mod stored_row;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let entries = fs::read_dir(folder.join(target)).expect("the corpus is there");
    entries
        .map(|entry| entry.expect("and can be read").path())
        .collect()
}

#[test]
fn no_damaged_row_in_the_corpus_breaks_a_start() {
    let (mut files, mut refused) = (0, 0);
    for path in corpus("stored_row") {
        println!("{}", path.display());
        let begins = stored_row::stored_row(&fs::read(&path).expect("a file"));
        let is_whole = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("whole_"));
        assert!(begins || !is_whole, "{} is not damaged", path.display());
        files += 1;
        refused += usize::from(!begins);
    }
    assert!(
        files > 10 && refused > 10,
        "{refused} of {files} were refused"
    );
}

#[test]
fn what_decodes_in_the_corpus_can_be_stored() {
    let mut remembered = 0;
    for path in corpus("wire_decode") {
        println!("{}", path.display());
        let bytes = fs::read(&path).expect("a file");
        remembered += usize::from(stored_frame::stored_frame(&bytes));
    }
    assert!(remembered > 10, "{remembered} were remembered");
}

//! Replays the fuzzer's damaged databases on stable Rust.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/checks/stored_row.rs"]
mod check;

#[test]
fn no_damaged_row_in_the_corpus_breaks_a_start() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/stored_row");
    let (mut files, mut refused) = (0, 0);
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("and can be read").path();
        println!("{}", path.display());
        let begins = check::stored_row(&fs::read(&path).expect("a file"));
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

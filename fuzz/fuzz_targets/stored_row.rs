#![no_main]

#[path = "../checks/stored_row.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Beginning and refusing are both good answers.
    let _begins = check::stored_row(bytes);
});

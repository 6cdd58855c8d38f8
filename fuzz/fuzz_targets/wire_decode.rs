#![no_main]

#[path = "../checks/wire_decode.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::wire_decode(bytes));

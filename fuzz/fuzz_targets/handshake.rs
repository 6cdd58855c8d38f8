#![no_main]

#[path = "../checks/handshake.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::handshake(bytes));

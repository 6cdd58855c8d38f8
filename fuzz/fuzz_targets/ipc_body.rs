#![no_main]

#[path = "../checks/ipc_body.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::ipc_body(bytes));

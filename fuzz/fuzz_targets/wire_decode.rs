#![no_main]

#[path = "../checks/stored_frame.rs"]
mod stored_frame;
#[path = "../checks/wire_decode.rs"]
mod wire_decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wire_decode::wire_decode(bytes);
    stored_frame::stored_frame(bytes);
});

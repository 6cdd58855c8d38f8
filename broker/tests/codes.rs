//! Every code that the broker says has a test named after it, against a broker over real sockets.

#[path = "codes/closes.rs"]
mod closes;
#[path = "codes/complete.rs"]
mod complete;
#[path = "codes/frames.rs"]
mod frames;
#[path = "wire/harness.rs"]
mod harness;
#[path = "codes/hellos.rs"]
mod hellos;
#[path = "codes/scene.rs"]
mod scene;
#[path = "codes/sends.rs"]
mod sends;

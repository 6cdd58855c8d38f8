//! Bowline's logic. Every decision is made here, from an explicit `now`, an input and the state;
//! see `docs/ARCHITECTURE.md`.
//!
//! **No clocks, sockets, threads, ambient randomness or hash maps live in this crate.**
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod crypto;
pub mod dedupe;
pub mod entropy;
pub mod gate;
pub mod host;
pub mod id;
pub mod limits;
pub mod link;
pub mod machine;
pub mod mark;
pub mod mesh;
pub mod registry;
pub mod store;
pub mod time;
pub mod timers;
pub mod wire;

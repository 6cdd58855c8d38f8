//! The per-host daemon and its command line.

pub mod cli;
pub mod client;
pub mod home;
pub mod process;
mod quickstart;
pub mod stage;

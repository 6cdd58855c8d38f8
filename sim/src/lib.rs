//! Deterministic simulation of Bowline: the shipped machines of `bowline-core` in a world whose
//! clocks, network, stores and processes fail, judged by oracles, from a seed or a plan that
//! anyone can replay.
//!
//! A run is a [`plan::Plan`]; [`stage::run`] carries it out.

pub mod age;
pub mod broker;
pub mod cast;
pub mod client_shell;
pub mod clock;
pub mod driven;
pub mod fault_mark;
pub mod guarantee;
pub mod histogram;
pub mod host;
pub mod kernel;
pub mod mutant;
pub mod network;
pub mod oracle;
pub mod panics;
pub mod plan;
pub mod puppet;
pub mod random;
pub mod record;
pub mod shrink;
pub mod stage;
pub mod store;
mod swarm;
pub mod sweep;
pub mod tape;
pub mod timeline;
pub mod trace;
pub mod user;
pub mod world;

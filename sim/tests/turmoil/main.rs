//! The shells of production in turmoil's network: the broker's and the daemon's processes, with
//! their HTTP, their WebSockets and their drive loops, over the simulator's store. What is decided
//! is core's and is attacked elsewhere; here it is the shells that are.
//!
//! Each scenario has a slip of a shell in `sim/mutants/shells/` that it has to notice.

mod frames;
mod half_open;
mod ipc;
mod power;
mod pressure;
mod relay;
mod sockets;
mod stage;
mod stores;
mod user;

//! What the benchmarks share: a mesh full of live peers, and an allocator that counts.
//!
//! The mesh is driven through its public face only: inputs in, outputs drained, no shell.

pub mod counting;
pub mod report;
pub mod room;

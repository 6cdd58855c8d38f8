//! What `sim` can be told to do. Each verb answers whether all was as it should be.

pub(crate) mod bench;
pub(crate) mod canary;
pub(crate) mod guarantees;
pub(crate) mod hunt;
pub(crate) mod meta;
pub(crate) mod mutants;
pub(crate) mod replay;
pub(crate) mod shrink;
#[cfg(feature = "soak")]
pub(crate) mod soak;
pub(crate) mod sweep;

mod report;
mod shell_mutants;

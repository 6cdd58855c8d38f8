//! Store drivers: they commit what a machine emits and read what it asks for.
//!
//! The rules of the owner row, the watermark and of stalls are in [`bowline_core::store`]; a driver
//! has none of its own. The SQLite driver is one writer thread for one database file:
//!
//! ```text
//! machine ──Persist──▶ Handle ──▶ tray ──▶ desk ──┐ group commit: one database transaction, each
//! machine ──Persist──▶ Handle ──▶ tray ──▶ desk ──┴─▶ owner behind its own row and savepoint
//!    ▲                                     │
//!    └───────────── events ────────────────┘ Persisted · Stalled · Loaded
//! ```

mod broker;
mod columns;
mod daemon;
mod desk;
mod driver;
mod fault;
mod file;
mod hold;
mod lock;
mod migrate;
#[cfg(test)]
mod tests;

pub use broker::{BROKER_DATABASE, BROKER_LOCK, BrokerDatabase, MeshRows, RegistryRows};
pub use daemon::{DAEMON_DATABASE, DAEMON_LOCK, DaemonDatabase, HostRows};
pub use desk::Rows;
pub use driver::{Handle, OpenOwnerError};
pub use fault::Halt;
pub use file::OpenError;
pub use lock::{DirLock, LockError};
pub use migrate::MigrateError;

use bowline_core::id::LoadId;
use bowline_core::store::Txn;

/// The driver behind a machine. Neither call waits; what comes of it arrives as
/// [`bowline_core::store::Event`]s through the callback given at the opening.
pub trait Store<Op, Load>: Send + 'static {
    fn persist(&mut self, txn: Txn<Op>);
    fn load(&mut self, load: LoadId, what: Load);
}

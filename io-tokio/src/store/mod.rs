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

use std::convert::Infallible;
use std::future::Future;
use std::io;

use bowline_core::id::{LoadId, MeshId};
use bowline_core::store::{Event, Txn, host, mesh, registry};

/// The driver behind a machine. Neither call waits; what comes of it arrives as
/// [`bowline_core::store::Event`]s through the callback given at the opening.
pub trait Store<Op, Load>: Send + 'static {
    fn persist(&mut self, txn: Txn<Op>);
    fn load(&mut self, load: LoadId, what: Load);
}

/// What a broker remembers: an owner for the registry, and one for each mesh. Opening one takes it
/// over: its term is raised by one, durably, and whoever had it before is fenced. `events` are for
/// its machine, and must not block.
pub trait BrokerStores: Send + Sync + 'static {
    type Mesh: Store<mesh::Op, mesh::Load>;
    type Registry: Store<registry::Op, Infallible>;

    /// # Errors
    /// If the database does not take it, or the store has halted.
    fn open_mesh(
        &self,
        mesh: &MeshId,
        events: impl FnMut(Event<mesh::Loaded>) + Send + 'static,
    ) -> impl Future<Output = Result<(Self::Mesh, mesh::Recovered), OpenOwnerError>> + Send;

    /// # Errors
    /// As [`Self::open_mesh`].
    fn open_registry(
        &self,
        events: impl FnMut(Event<registry::Loaded>) + Send + 'static,
    ) -> impl Future<Output = Result<(Self::Registry, registry::Recovered), OpenOwnerError>> + Send;

    /// Commits what waits and lets go.
    ///
    /// # Errors
    /// If it did not come to its end.
    fn finish(self) -> impl Future<Output = io::Result<()>> + Send;
}

/// What a daemon remembers: one owner. See [`BrokerStores`].
pub trait HostStores: Send + Sync + 'static {
    type Host: Store<host::Op, host::Load>;

    /// # Errors
    /// As [`BrokerStores::open_mesh`].
    fn open_host(
        &self,
        events: impl FnMut(Event<host::Loaded>) + Send + 'static,
    ) -> impl Future<Output = Result<(Self::Host, host::Recovered), OpenOwnerError>> + Send;

    /// Commits what waits and lets go.
    ///
    /// # Errors
    /// If it did not come to its end.
    fn finish(self) -> impl Future<Output = io::Result<()>> + Send;
}

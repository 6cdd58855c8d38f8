//! A process's hold on a data directory: the lock, the database file in it, and the driver over it.

use std::io;
use std::path::Path;

use bowline_core::time::Wall;

use super::driver::Driver;
use super::fault::Halt;
use super::file::{self, Kind, OpenError};
use super::lock::DirLock;

/// Dropping it commits what waits, and blocks meanwhile.
pub(super) struct Hold {
    pub(super) driver: Driver,
    /// Let go after the driver.
    _lock: DirLock,
}

impl Hold {
    /// Locks `dir`, and opens, checks and migrates the database in it. Blocks: for the start.
    pub(super) fn take(
        dir: &Path,
        kind: &Kind,
        now: Wall,
        on_halt: impl FnOnce(Halt) + Send + 'static,
    ) -> Result<Self, OpenError> {
        file::private_dir(dir)?;
        let lock = DirLock::take(dir, kind.lock)?;
        let path = dir.join(kind.file);
        let db = file::open(&path, kind, now)?;
        let driver = Driver::start(db, on_halt).map_err(|error| OpenError::Io { path, error })?;
        Ok(Self {
            driver,
            _lock: lock,
        })
    }

    /// As dropping it, for whoever must not block.
    pub(super) async fn finish(self) -> io::Result<()> {
        tokio::task::spawn_blocking(|| drop(self))
            .await
            .map_err(io::Error::other)
    }
}

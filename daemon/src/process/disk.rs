//! How much room the database's file system has.

use std::io;
use std::path::Path;
use std::time::Duration;

/// How often the host is told.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Bytes that this user may still write.
///
/// # Errors
/// If the file system cannot be asked.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_some_room() {
        assert!(super::free_bytes(&std::env::temp_dir()).unwrap() > 0);
    }
}

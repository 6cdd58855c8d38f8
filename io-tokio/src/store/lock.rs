//! One process holds a directory: an operating-system lock, which dies with its process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "{} is in use by {}: stop that one first, or give this one a directory of its own",
        .dir.display(), holder.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
    )]
    Held { dir: PathBuf, holder: Option<u32> },
    #[error("cannot lock {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl DirLock {
    /// Takes `name` in `dir`. The process id in the file is for people; it decides nothing.
    ///
    /// # Errors
    /// `Held` if another process has it.
    pub fn take(dir: &Path, name: &str) -> Result<Self, LockError> {
        let path = dir.join(name);
        let failed = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    holder: read_pid(&mut file),
                });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let first = DirLock::take(dir.path(), "x.lock");
        assert!(first.is_ok());
        match DirLock::take(dir.path(), "x.lock") {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(DirLock::take(dir.path(), "x.lock").is_ok());
        Ok(())
    }
}

//! The daemon's log: JSON lines in a file that is rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// A file is set aside when it has grown to this.
const ROTATED_AT_BYTES: u64 = 10 * 1024 * 1024;
/// Files set aside: `daemon.log.1` is the latest.
const KEPT: u32 = 4;

pub struct LogFile(Mutex<State>);

struct State {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotated_at: u64,
}

impl LogFile {
    /// # Errors
    /// If the file cannot be opened for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::rotating_at(path, ROTATED_AT_BYTES)
    }

    fn rotating_at(path: &Path, rotated_at: u64) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self(Mutex::new(State {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            rotated_at,
        })))
    }
}

impl<'w> MakeWriter<'w> for LogFile {
    type Writer = LineWriter<'w>;

    fn make_writer(&'w self) -> LineWriter<'w> {
        LineWriter(&self.0)
    }
}

/// Writes whole events: tracing hands over one at a time.
pub struct LineWriter<'w>(&'w Mutex<State>);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes >= state.rotated_at {
            state.rotate()?;
        }
        let written = state.file.write(line)?;
        state.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .file
            .flush()
    }
}

impl State {
    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..KEPT).rev() {
            move_aside(&aside(&self.path, n), &aside(&self.path, n + 1))?;
        }
        move_aside(&self.path, &aside(&self.path, 1))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn aside(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn move_aside(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_only_so_many_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("daemon.log");
        let log = LogFile::rotating_at(&path, 4).unwrap();
        for n in 0..8 {
            log.make_writer()
                .write_all(format!("line {n}\n").as_bytes())
                .unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 7\n");
        assert_eq!(fs::read_to_string(aside(&path, 1)).unwrap(), "line 6\n");
        assert!(aside(&path, KEPT).exists());
        assert!(!aside(&path, KEPT + 1).exists());
    }
}

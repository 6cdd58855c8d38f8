//! A small file system of its own, which can be filled and emptied again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Room for what a broker keeps of an hour's mail, and little enough to be full in no time.
const MEBIBYTES: usize = 128;
static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];

/// Unmounted when it is dropped.
pub(super) struct Disk {
    path: PathBuf,
    is_mounted: bool,
    tmpfs: String,
}

impl Disk {
    /// Where nothing may be mounted it is a directory like any other, and is never filled.
    pub(super) fn mount(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={MEBIBYTES}m"), "soak"])
            .arg(path)
            .output();
        let refused = match mounted {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        Ok(Self {
            path: path.to_owned(),
            is_mounted: refused.is_none(),
            tmpfs: match refused {
                None => format!("{MEBIBYTES} MiB"),
                Some(why) => format!("not mounted: {why}"),
            },
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size, or why there is none.
    pub(super) fn tmpfs(&self) -> &str {
        &self.tmpfs
    }

    pub(super) fn can_be_filled(&self) -> bool {
        self.is_mounted
    }

    /// Leaves no room for another byte.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        let mut size = BLOCK.len();
        while size > 0 {
            match ballast.write(&BLOCK[..size]) {
                Ok(written) if written == size => {}
                Ok(_) => size /= 2,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn empty(&self) -> io::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.is_mounted {
            return;
        }
        // Lazily: the processes on it were killed, and may not be gone yet.
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("sim: {} is still mounted: unmount it", self.path.display());
        }
    }
}

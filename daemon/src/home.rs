//! The daemon's directory: where it is, what is in it, who may read it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bowline_broker::exit::{Exit, Failure};

/// The longest path that a Unix socket can have, in bytes, without its terminating zero.
const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// `$BOWLINE_HOME`, else the platform's data directory. Mode 0700.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// # Errors
    /// If neither `$BOWLINE_HOME` nor `$HOME` says where it would be.
    pub fn find() -> Result<Self, Failure> {
        if let Some(dir) = env::var_os("BOWLINE_HOME").filter(|dir| !dir.is_empty()) {
            return Self::at(Path::new(&dir));
        }
        let data = platform_data_dir().ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "no_home",
                "neither BOWLINE_HOME nor HOME is set",
            )
            .next("set BOWLINE_HOME to the directory that the daemon may use")
        })?;
        Self::at(&data.join("bowline"))
    }

    /// # Errors
    /// If the socket's path would be longer than the system allows.
    pub fn at(dir: &Path) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir)?;
        let home = Self { dir };
        let bytes = home.socket().as_os_str().len();
        if bytes > SOCKET_PATH_BYTES {
            return Err(Failure::new(
                Exit::Usage,
                "home_path_too_long",
                format!(
                    "{} is {bytes} bytes long, a socket's path may have {SOCKET_PATH_BYTES}",
                    home.socket().display()
                ),
            )
            .next("set BOWLINE_HOME to a shorter path"));
        }
        Ok(home)
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("daemon.sock")
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("daemon.db")
    }

    /// An operating-system lock, not a pid file; the pid in it is for people and for `down`.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("daemon.lock")
    }

    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log").join("daemon.log")
    }

    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.dir.join("sessions")
    }

    /// Creates the directories, and takes other users' access away where somebody gave it.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn prepare(&self) -> io::Result<()> {
        for dir in [&self.dir, &self.dir.join("log"), &self.sessions()] {
            private_dir(dir)?;
        }
        Ok(())
    }

    /// The machine token: made once, from the system's randomness.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn machine_token(&self, fresh: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
        match fs::read_to_string(self.token()) {
            Ok(token) if !token.trim().is_empty() => {
                only_for_us(&self.token(), 0o600)?;
                return Ok(token.trim().to_owned());
            }
            Ok(_) => fs::remove_file(self.token())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let token = fresh()?;
        let mut file = create_private(&self.token())?;
        file.write_all(token.as_bytes())?;
        file.sync_all()?;
        Ok(token)
    }
}

/// A file that is 0600 from the moment it is there.
///
/// # Errors
/// If it exists already, or the file system refuses.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    only_for_us(dir, 0o700)
}

fn only_for_us(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode() & 0o777;
    if found & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), found = format!("{found:o}"), repaired = format!("{mode:o}"), "others had access");
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn platform_data_dir() -> Option<PathBuf> {
    let dir = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    if cfg!(target_os = "macos") {
        return dir("HOME").map(|home| home.join("Library/Application Support"));
    }
    dir("XDG_DATA_HOME").or_else(|| dir("HOME").map(|home| home.join(".local/share")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directories_and_secrets_are_ours_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(&temp.path().join("h")).unwrap();
        home.prepare().unwrap();
        assert_eq!(mode(home.dir()), 0o700);
        assert_eq!(mode(&home.sessions()), 0o700);
        let token = home.machine_token(|| Ok("first".into())).unwrap();
        assert_eq!(token, "first");
        assert_eq!(mode(&home.token()), 0o600);
        let again = home.machine_token(|| Ok("second".into())).unwrap();
        assert_eq!(again, "first");
    }

    #[test]
    fn access_of_others_is_taken_away() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(&temp.path().join("h")).unwrap();
        fs::create_dir(home.dir()).unwrap();
        fs::set_permissions(home.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        home.prepare().unwrap();
        assert_eq!(mode(home.dir()), 0o700);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_way_out() {
        let failure = Home::at(&Path::new("/tmp").join("x".repeat(120))).unwrap_err();
        assert_eq!(failure.code, "home_path_too_long");
        assert!(failure.next.unwrap().contains("BOWLINE_HOME"));
    }
}

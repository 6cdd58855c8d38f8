//! A database file: created for its owner's eyes, recognised, checked and brought up to date.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_core::time::Wall;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::lock::LockError;
use super::migrate::{MigrateError, Migration, migrate};

/// What tells one kind of database from another.
pub(super) struct Kind {
    /// Names in the data directory.
    pub(super) file: &'static str,
    pub(super) lock: &'static str,
    /// `PRAGMA application_id`.
    pub(super) application_id: i32,
    pub(super) migrations: &'static [Migration],
}

/// Why a database was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot open {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("cannot open {}: {error}", .path.display())]
    Sql {
        path: PathBuf,
        error: rusqlite::Error,
    },
    #[error(
        "{} belongs to another program: it is left alone. Name another directory, or move the file \
         away",
        .path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{path} is damaged ({detail}). It is left as it is. To save what can be read:\n  \
         sqlite3 {path} .recover | sqlite3 {path}.recovered\n\
         then move {path} away together with its -wal and -shm files, rename {path}.recovered to \
         {path}, and start again",
        path = .path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error("cannot use {}: {error}", .path.display())]
    Schema { path: PathBuf, error: MigrateError },
}

/// Another program may read our database with the sqlite3 shell; a writer among them may hold us up
/// for this long before the store counts as away.
const BUSY_WITHIN: Duration = Duration::from_secs(2);
const STATEMENTS_CACHED: usize = 64;

/// The directory of a database: made 0700, or narrowed to it.
pub(super) fn private_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io {
        path: dir.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let mode = std::fs::metadata(dir).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            dir = %dir.display(), mode = format!("{mode:o}"),
            "others could look into the data directory: it is now for its owner alone"
        );
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn open(path: &Path, kind: &Kind, now: Wall) -> Result<Connection, OpenError> {
    // SQLite gives its -wal and -shm files the mode of the main file.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| OpenError::Io {
            path: path.to_owned(),
            error,
        })?;
    let failed = |error| describe(path, error);
    let mut db = connect(path).map_err(failed)?;
    let is_new = recognise(&db, kind).map_err(failed)?;
    match is_new {
        Recognised::Foreign => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        Recognised::Ours => check(&db, path)?,
        Recognised::New => {}
    }
    configure(&db, kind).map_err(failed)?;
    migrate(&mut db, kind.migrations, now).map_err(|error| OpenError::Schema {
        path: path.to_owned(),
        error,
    })?;
    Ok(db)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_WITHIN)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(db)
}

enum Recognised {
    New,
    Ours,
    Foreign,
}

fn recognise(db: &Connection, kind: &Kind) -> rusqlite::Result<Recognised> {
    let id: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id == kind.application_id {
        return Ok(Recognised::Ours);
    }
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(if id == 0 && tables == 0 {
        Recognised::New
    } else {
        Recognised::Foreign
    })
}

fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| describe(path, error))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_owned(),
        detail: verdict,
    })
}

fn configure(db: &Connection, kind: &Kind) -> rusqlite::Result<()> {
    db.pragma_update(None, "application_id", kind.application_id)?;
    // An answer other than `wal` (a file system without shared memory) is as durable, only slower.
    let _mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // FULL: a commit that was answered survives a power cut.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "trusted_schema", false)
}

fn describe(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
            path,
            detail: error.to_string(),
        },
        _ => OpenError::Sql { path, error },
    }
}

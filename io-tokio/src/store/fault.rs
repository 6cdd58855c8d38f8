//! What an error of SQLite means for the owner of the data.

use bowline_core::store::{Stall, Term};
use rusqlite::{ErrorCode, ffi};

/// Why the writer could not go on with a batch.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was written, or nobody can tell; it may be tried again.
    Stall {
        stall: Stall,
        detail: String,
    },
    Halt(Halt),
}

/// Why the process has to end: its memory and its store have parted. The next start recovers the
/// durable prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "{owner} was taken over by another process (its term is {found}, ours {ours}); \
         this one stops", found = found.0, ours = ours.0
    )]
    Fenced {
        owner: String,
        ours: Term,
        found: Term,
    },
    #[error("the database of {owner} cannot be trusted any more: {detail}")]
    Broken { owner: String, detail: String },
}

impl Fault {
    pub(super) fn broken(owner: &str, detail: impl Into<String>) -> Self {
        Self::Halt(Halt::Broken {
            owner: owner.to_owned(),
            detail: detail.into(),
        })
    }

    pub(super) fn of(owner: &str, error: &rusqlite::Error) -> Self {
        match stall_of(error) {
            Some(stall) => Self::Stall {
                stall,
                detail: error.to_string(),
            },
            None => Self::broken(owner, error.to_string()),
        }
    }
}

/// `None`: a constraint violation, corruption, a failed fsync, or a mistake of ours. After a failed
/// fsync nobody knows what is on the disk, and asking again does not tell.
fn stall_of(error: &rusqlite::Error) -> Option<Stall> {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return None;
    };
    match failure.code {
        ErrorCode::DiskFull => Some(Stall::Full),
        ErrorCode::SystemIoFailure => match failure.extended_code {
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC | ffi::SQLITE_IOERR_CORRUPTFS => {
                None
            }
            _ => Some(Stall::Unavailable),
        },
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::CannotOpen
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationInterrupted
        | ErrorCode::OutOfMemory
        | ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly => Some(Stall::Unavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    #[test]
    fn what_may_pass_stalls_and_what_cannot_be_trusted_halts() {
        assert_eq!(stall_of(&failure(ffi::SQLITE_FULL)), Some(Stall::Full));
        assert_eq!(
            stall_of(&failure(ffi::SQLITE_BUSY)),
            Some(Stall::Unavailable)
        );
        assert_eq!(
            stall_of(&failure(ffi::SQLITE_IOERR_WRITE)),
            Some(Stall::Unavailable)
        );
        for fatal in [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_CONSTRAINT_UNIQUE,
            ffi::SQLITE_ERROR,
        ] {
            assert_eq!(stall_of(&failure(fatal)), None, "{fatal}");
        }
    }
}

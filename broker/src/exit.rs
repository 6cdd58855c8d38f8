//! How the programs end: one table of exit codes for `bowline` and `bowline-broker`, and the one
//! shape in which a failure is told to a person or a program.

use std::fmt;
use std::process::ExitCode;

use bowline_io::store::{LockError, OpenError};
use serde_json::{Value, json};

/// Shown under `--help` of both programs.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  no daemon is running
  4  refused: not permitted, or this host may not use these keys
  5  not found: no such mesh, peer, session, message or session file
  6  in use: the id, the session, the data directory, the port or the socket is taken
  7  not now: busy, out of space, or the outcome is unknown; try again
  8  the database is damaged, foreign or of a newer version
  9  halted: the store failed or was taken over; a restart recovers all that was durable
  10  the message that was waited for is dead, expired or aborted
  11  the message that was waited for did not come so far in the time given
`session run` ends with the exit code of its command, or with 128 plus the signal that ended it.";

/// See [`EXIT_CODES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NoDaemon = 3,
    Refused = 4,
    NotFound = 5,
    InUse = 6,
    NotNow = 7,
    BadDatabase = 8,
    Halted = 9,
    Ended = 10,
    TimedOut = 11,
}

impl Exit {
    /// What an HTTP answer of this status means to the one who asked.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Refused,
            404 | 422 => Self::NotFound,
            409 => Self::InUse,
            429 | 503 | 507 => Self::NotNow,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What happened, a code, and what to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub exit: Exit,
    /// For programs; never changes its spelling.
    pub code: String,
    pub message: String,
    pub next: Option<String>,
    /// What else an answer said: near names, a reason, an id.
    pub details: serde_json::Map<String, Value>,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            next: None,
            details: serde_json::Map::new(),
        }
    }

    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The one object that `--json` prints.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut error = self.details.clone();
        error.insert("code".into(), json!(self.code));
        error.insert("message".into(), json!(self.message));
        if let Some(next) = &self.next {
            error.insert("next".into(), json!(next));
        }
        json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match &self.next {
            Some(next) => write!(f, "\n  {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, "io_error", error.to_string())
    }
}

impl From<OpenError> for Failure {
    /// The message of a database that cannot be used says what to do about it.
    fn from(error: OpenError) -> Self {
        let (exit, code) = match &error {
            OpenError::Lock(LockError::Held { .. }) => (Exit::InUse, "data_in_use"),
            OpenError::Lock(LockError::Io { .. }) | OpenError::Io { .. } => {
                (Exit::Failed, "data_unusable")
            }
            OpenError::Sql { .. } => (Exit::BadDatabase, "database_unusable"),
            OpenError::Foreign { .. } => (Exit::BadDatabase, "database_foreign"),
            OpenError::Damaged { .. } => (Exit::BadDatabase, "database_damaged"),
            OpenError::Schema { .. } => (Exit::BadDatabase, "database_schema"),
        };
        Self::new(exit, code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_stands_in_the_table() {
        for exit in [
            Exit::Failed,
            Exit::Usage,
            Exit::NoDaemon,
            Exit::Refused,
            Exit::NotFound,
            Exit::InUse,
            Exit::NotNow,
            Exit::BadDatabase,
            Exit::Halted,
            Exit::Ended,
            Exit::TimedOut,
        ] {
            let line = format!("\n  {}  ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?} is not documented");
        }
    }

    #[test]
    fn a_failure_says_what_happened_a_code_and_what_to_do() {
        let failure = Failure::new(Exit::NoDaemon, "no_daemon", "no daemon is running")
            .next("start one with `bowline up`");
        assert_eq!(
            failure.to_string(),
            "no daemon is running (no_daemon)\n  start one with `bowline up`"
        );
        assert_eq!(failure.to_json()["error"]["code"], "no_daemon");
    }
}

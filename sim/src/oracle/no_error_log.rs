//! No machine ever logs an error, whatever the world does to it.

use bowline_core::host::io::LogLevel;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct NoErrorLog;

impl Oracle for NoErrorLog {
    fn name(&self) -> &'static str {
        "no_error_log"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::Log {
                node,
                level: LogLevel::Error,
                message,
            } => Err(format!("node {node} logged an error: {message}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn an_error_is_found() {
        let log = |level| {
            let message = "m".into();
            let node = 2;
            let record = Record::Log {
                node,
                level,
                message,
            };
            testing::judge(&mut NoErrorLog, &[(s(1), record)])
        };
        assert!(log(LogLevel::Warn).is_ok());
        assert!(log(LogLevel::Error).is_err());
    }
}

//! A healed, idle world sends only heartbeats and writes nothing.

use super::{Oracle, Phase, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct IdleQuiet {
    quiet: bool,
}

impl Oracle for IdleQuiet {
    fn name(&self) -> &'static str {
        "idle_quiet"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        if !self.quiet {
            return Ok(());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(120).collect();
        let what: String = match record {
            Record::Reached { bytes } => text(bytes),
            Record::Sent { frame, .. } => text(frame),
            Record::MeshCommitted { .. } => "a transaction of the mesh".into(),
            Record::HostCommitted { .. } => "a transaction of a host".into(),
            Record::Dialled { .. } => "a dial".into(),
            Record::Told { event, .. } => format!("event {}", event.event),
            _ => return Ok(()),
        };
        Err(format!("nobody does anything, and yet: {what}"))
    }

    fn phase(&mut self, _: Moment, phase: Phase) {
        self.quiet = phase == Phase::Quiet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_frame_in_a_quiet_world_is_found() {
        let sent = [(s(1), testing::sent(1, 1, &testing::ack_frame("a", None)))];
        let mut oracle = IdleQuiet::default();
        assert!(testing::judge(&mut oracle, &sent).is_ok());
        oracle.phase(Moment(0), Phase::Quiet);
        assert!(testing::judge(&mut oracle, &sent).is_err());
        assert!(testing::judge(&mut oracle, &[(s(2), testing::heard(1, 1))]).is_ok());
    }
}

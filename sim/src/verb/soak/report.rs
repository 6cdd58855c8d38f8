//! What was done, and what became of the messages.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

#[derive(Serialize, Clone, Debug)]
pub(super) struct Report {
    /// That a daemon said it had accepted.
    pub(super) messages: usize,
    pub(super) delivered: usize,
    pub(super) lost: usize,
    pub(super) duplicates: usize,
    pub(super) out_of_order: usize,
    /// Nobody was away for as long as the grace, so each is wrong.
    pub(super) wrong_leaves: usize,
    /// Processes that ended by themselves, or not in good order when they were stopped.
    pub(super) died_unasked: usize,
    #[serde(flatten)]
    pub(super) streams: Streams,
    #[serde(flatten)]
    pub(super) faults: Faults,
    /// The size of the disk that was filled, or why there was none.
    pub(super) tmpfs: String,
    pub(super) seconds: u64,
}

/// What event streams told, against what inboxes hold.
#[derive(Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Streams {
    /// In the inbox, and never told.
    pub(super) events_missed: usize,
    /// Told again, out of order, or never in the inbox.
    pub(super) events_wrong: usize,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Faults {
    pub(super) broker_kills: usize,
    pub(super) daemon_kills: usize,
    pub(super) cuts: usize,
    pub(super) stalls: usize,
    pub(super) half_closes: usize,
    pub(super) disk_fulls: usize,
}

impl Report {
    pub(super) fn holds(&self) -> bool {
        self.messages > 0
            && self.delivered == self.messages
            && self.lost + self.duplicates + self.out_of_order + self.wrong_leaves == 0
            && self.died_unasked == 0
            && self.streams == Streams::default()
    }
}

impl Streams {
    /// Both by numbers of the inbox; `inbox` in its order.
    pub(super) fn of(inbox: &[u64], told: &[u64]) -> Self {
        let there: BTreeSet<&u64> = inbox.iter().collect();
        let heard: BTreeSet<&u64> = told.iter().collect();
        let backwards = told.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        Self {
            events_missed: there.difference(&heard).count(),
            events_wrong: backwards + heard.difference(&there).count(),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            events_missed: self.events_missed + other.events_missed,
            events_wrong: self.events_wrong + other.events_wrong,
        }
    }
}

impl Faults {
    pub(super) fn kills(&self) -> usize {
        self.broker_kills + self.daemon_kills
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            broker_kills: self.broker_kills + other.broker_kills,
            daemon_kills: self.daemon_kills + other.daemon_kills,
            cuts: self.cuts + other.cuts,
            stalls: self.stalls + other.stalls,
            half_closes: self.half_closes + other.half_closes,
            disk_fulls: self.disk_fulls + other.disk_fulls,
        }
    }
}

impl Serialize for Faults {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;

        let counts = [
            ("kills", self.kills()),
            ("broker_kills", self.broker_kills),
            ("daemon_kills", self.daemon_kills),
            ("cuts", self.cuts),
            ("stalls", self.stalls),
            ("half_closes", self.half_closes),
            ("disk_fulls", self.disk_fulls),
        ];
        let mut map = to.serialize_map(Some(counts.len()))?;
        for (name, count) in counts {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds() {
            "It held."
        } else {
            "It did NOT hold."
        };
        let (faults, streams) = (&self.faults, &self.streams);
        writeln!(
            f,
            "{verdict} {} messages: {} delivered, {} lost, {} doubled, {} out of order",
            self.messages, self.delivered, self.lost, self.duplicates, self.out_of_order
        )?;
        writeln!(
            f,
            "event streams: {} missed, {} wrong; leaves that should not have been: {}; \
             processes that died unasked: {}",
            streams.events_missed, streams.events_wrong, self.wrong_leaves, self.died_unasked
        )?;
        write!(
            f,
            "through {} kills of the broker and {} of daemons, {} cuts, {} stalls, {} half-closes, \
             {} full disks (tmpfs: {}), in {} s",
            faults.broker_kills,
            faults.daemon_kills,
            faults.cuts,
            faults.stalls,
            faults.half_closes,
            faults.disk_fulls,
            self.tmpfs,
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_held_to_its_inbox() {
        let streams = |told: &[u64]| {
            let Streams {
                events_missed,
                events_wrong,
            } = Streams::of(&[3, 5, 9], told);
            (events_missed, events_wrong)
        };
        assert_eq!(streams(&[3, 5, 9]), (0, 0));
        assert_eq!(streams(&[3, 9]), (1, 0), "missed");
        assert_eq!(streams(&[3, 3, 5, 9]), (0, 1), "twice");
        assert_eq!(streams(&[5, 3, 9]), (0, 1), "out of order");
        assert_eq!(streams(&[3, 5, 7, 9]), (0, 1), "of nobody's mail");
    }

    #[test]
    fn one_thing_wrong_is_enough() {
        let held = Report {
            messages: 2,
            delivered: 2,
            lost: 0,
            duplicates: 0,
            out_of_order: 0,
            wrong_leaves: 0,
            died_unasked: 0,
            streams: Streams::default(),
            faults: Faults::default(),
            tmpfs: "128 MiB".into(),
            seconds: 1,
        };
        assert!(held.holds());
        let broken: [fn(&mut Report); 9] = [
            |it| it.delivered = 1,
            |it| it.lost = 1,
            |it| it.duplicates = 1,
            |it| it.out_of_order = 1,
            |it| it.wrong_leaves = 1,
            |it| it.died_unasked = 1,
            |it| it.streams.events_missed = 1,
            |it| it.streams.events_wrong = 1,
            |it| (it.messages, it.delivered) = (0, 0),
        ];
        for broke in broken {
            let mut report = held.clone();
            broke(&mut report);
            assert!(!report.holds(), "{report:?}");
        }
        let json = serde_json::to_value(&held).unwrap();
        assert_eq!(json["kills"], 0);
        assert_eq!(json["events_missed"], 0);
        assert_eq!(json["died_unasked"], 0);
    }
}

//! What the seeds of a sweep really did: a fault that exists in the plans and never comes about
//! tests nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::fault_mark::FaultMark;
use crate::plan::Profile;
use crate::world::Outcome;

/// A node dies with something to lose in at least so many of a hundred seeds.
pub const CRASHED_IN_FLIGHT_LEAST_PERCENT: u64 = 30;
/// An outage lasts about as long as the grace in at least so many of a hundred seeds.
pub const OUTAGE_NEAR_GRACE_LEAST_PERCENT: u64 = 20;

/// In how many seeds each thing was so.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    seeds: u64,
    faults: Vec<u64>,
    hosts: [u64; 4],
    sessions: [u64; 7],
    puppets: [u64; 4],
    tiny_limits: u64,
    real_crypto: u64,
}

impl Histogram {
    pub fn add(&mut self, profile: &Profile, outcome: &Outcome) {
        self.seeds += 1;
        self.faults.resize(FaultMark::ALL.len(), 0);
        for (seeds, mark) in self.faults.iter_mut().zip(FaultMark::ALL) {
            *seeds += u64::from(outcome.fault_marks.get(*mark) > 0);
        }
        count(&mut self.hosts, profile.hosts);
        count(&mut self.sessions, profile.users());
        count(&mut self.puppets, profile.puppets);
        self.tiny_limits += u64::from(profile.tiny_limits);
        self.real_crypto += u64::from(profile.real_crypto);
    }

    /// Of a hundred seeds.
    #[must_use]
    pub fn percent(&self, mark: FaultMark) -> u64 {
        let at = FaultMark::ALL.iter().position(|own| *own == mark);
        let seeds = at.and_then(|at| self.faults.get(at)).copied();
        self.percent_of(seeds.unwrap_or(0))
    }

    /// By fault, in % of the seeds.
    #[must_use]
    pub fn percentages(&self) -> BTreeMap<String, u64> {
        FaultMark::ALL
            .iter()
            .map(|mark| (mark.name().to_owned(), self.percent(*mark)))
            .collect()
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("what the seeds did, in % of them\n");
        let mut line = |name: &str, seeds: u64| {
            let percent = self.percent_of(seeds);
            let bar = "#".repeat(percent as usize / 2);
            let _ = writeln!(text, "{name:<32} {percent:>3} {bar}");
        };
        for (mark, seeds) in FaultMark::ALL.iter().zip(&self.faults) {
            line(mark.name(), *seeds);
        }
        line("tiny limits", self.tiny_limits);
        line("real cryptography", self.real_crypto);
        let of = |what: &str, counts: &[u64]| {
            let own = counts.iter().enumerate().filter(|(_, seeds)| **seeds > 0);
            let shares = own.map(|(n, seeds)| format!("{n}: {} %", self.percent_of(*seeds)));
            format!("{what} {}\n", shares.collect::<Vec<_>>().join(", "))
        };
        text.push_str(&of("hosts", &self.hosts));
        text.push_str(&of("sessions", &self.sessions));
        text.push_str(&of("puppets", &self.puppets));
        text
    }

    fn percent_of(&self, seeds: u64) -> u64 {
        (seeds * 100).checked_div(self.seeds).unwrap_or(0)
    }
}

fn count(counts: &mut [u64], n: usize) {
    let last = counts.len() - 1;
    counts[n.min(last)] += 1;
}

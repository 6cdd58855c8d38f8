//! What Prometheus is told. Counting is the shell's; what is counted, the machine's.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bowline_core::id::LoadId;
use bowline_core::machine::{Machine, Timeout};
use bowline_core::mesh::{Mesh, Output, Stats};
use bowline_core::store::mesh::{Load, Loaded, Op};
use bowline_core::store::{Event, Txn, TxnId};
use bowline_core::time::{Mono, Now};
use bowline_core::wire::SendCode;
use bowline_io::store::Store;

use crate::meshes::MeshHandle;

/// A mesh, observed: after each input its numbers are put where `/metrics` finds them.
pub(crate) struct Observed {
    mesh: Mesh,
    gauges: Arc<Gauges>,
    /// When those in grace were last counted: it takes a look at every peer.
    counted_at: Option<Mono>,
    now: Mono,
}

/// The numbers of one mesh as of its last input.
#[derive(Default)]
pub(crate) struct Gauges(Mutex<Reading>);

#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) stats: Stats,
    pub(crate) present: usize,
    pub(crate) in_grace: usize,
    pub(crate) connections: usize,
    pub(crate) quiet: usize,
    pub(crate) ready: bool,
}

const GRACE_COUNTED_EVERY: Duration = Duration::from_secs(1);

impl Observed {
    pub(crate) fn new(mesh: Mesh, gauges: Arc<Gauges>) -> Self {
        let mut observed = Self {
            mesh,
            gauges,
            counted_at: None,
            now: Mono::ZERO,
        };
        observed.publish();
        observed
    }

    fn publish(&mut self) {
        let mut reading = self.gauges.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.stats = *self.mesh.stats();
        reading.present = self.mesh.present_peers();
        reading.connections = self.mesh.connections();
        reading.quiet = self.mesh.quiet_connections();
        reading.ready = self.mesh.is_ready();
        let stale = self
            .counted_at
            .is_none_or(|at| self.now.since(at) >= GRACE_COUNTED_EVERY);
        if stale {
            reading.in_grace = self.mesh.peers_in_grace();
            self.counted_at = Some(self.now);
        }
    }
}

impl Machine for Observed {
    type Input = <Mesh as Machine>::Input;
    type Output = Output;
    type Why = <Mesh as Machine>::Why;

    fn handle_input(&mut self, now: Now, input: Self::Input) {
        self.now = now.mono;
        self.mesh.handle_input(now, input);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now.mono;
        self.mesh.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.mesh.poll_output();
        if output.is_none() {
            self.publish();
        }
        output
    }

    fn poll_timeout(&self) -> Option<Timeout<Self::Why>> {
        self.mesh.poll_timeout()
    }
}

impl Gauges {
    pub(crate) fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long commits take, from the emission of a transaction to its being durable, and how many
/// transactions became durable together.
#[derive(Default)]
pub(crate) struct Commits {
    latency: Histogram,
    batch: Histogram,
}

/// A store whose commits are timed.
pub(crate) struct Timed {
    emitted: Emitted,
}

pub(crate) struct TimedStore<S> {
    store: S,
    emitted: Emitted,
}

/// What was emitted and is not durable yet, oldest first.
type Emitted = Arc<Mutex<VecDeque<(TxnId, Instant)>>>;

impl Timed {
    /// The second is to be shown every event of the store.
    pub(crate) fn watch(commits: Arc<Commits>) -> (Self, impl FnMut(&Event<Loaded>) + Send) {
        let emitted = Emitted::default();
        let timed = Self {
            emitted: Arc::clone(&emitted),
        };
        let on_event = move |event: &Event<Loaded>| {
            let Event::Persisted { upto } = event else {
                return;
            };
            let mut emitted = emitted.lock().unwrap_or_else(PoisonError::into_inner);
            let durable = emitted.partition_point(|(id, _)| id <= upto);
            if let Some((_, oldest)) = emitted.front().filter(|_| durable > 0) {
                commits.observe(oldest.elapsed(), durable as u64);
            }
            emitted.drain(..durable);
        };
        (timed, on_event)
    }

    pub(crate) fn around<S>(self, store: S) -> TimedStore<S> {
        TimedStore {
            store,
            emitted: self.emitted,
        }
    }
}

impl<S: Store<Op, Load>> Store<Op, Load> for TimedStore<S> {
    fn persist(&mut self, txn: Txn<Op>) {
        let mut emitted = self.emitted.lock().unwrap_or_else(PoisonError::into_inner);
        // What is sent again after a stall has been waiting since its first time.
        if emitted.back().is_none_or(|(last, _)| *last < txn.id) {
            emitted.push_back((txn.id, Instant::now()));
        }
        drop(emitted);
        self.store.persist(txn);
    }

    fn load(&mut self, load: LoadId, what: Load) {
        self.store.load(load, what);
    }
}

/// Upper bounds of the buckets: microseconds of latency, transactions of a batch.
const BUCKETS: [u64; 12] = [
    1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304,
];

#[derive(Default)]
struct Histogram {
    /// Not cumulative; the last is for what exceeds every bound.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

impl Commits {
    pub(crate) fn observe(&self, latency: Duration, transactions: u64) {
        self.latency
            .observe(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.batch.observe(transactions);
    }
}

impl Histogram {
    fn observe(&self, value: u64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// `unit`: what a bound is divided by, so that latencies are told in seconds.
    fn write(&self, text: &mut String, name: &str, help: &str, unit: f64) -> fmt::Result {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram")?;
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(BUCKETS) {
            total += count.load(Ordering::Relaxed);
            writeln!(
                text,
                "{name}_bucket{{le=\"{}\"}} {total}",
                bound as f64 / unit
            )?;
        }
        total += self.counts[BUCKETS.len()].load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed) as f64 / unit;
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}")?;
        writeln!(text, "{name}_sum {sum}\n{name}_count {total}")
    }
}

/// The text format of Prometheus, version 0.0.4.
pub(crate) fn render(meshes: &[Arc<MeshHandle>], connections: usize, commits: &Commits) -> String {
    let readings: Vec<_> = meshes
        .iter()
        .map(|mesh| (mesh.slug.as_str(), mesh.gauges.read()))
        .collect();
    let mut text = String::new();
    write_all(&mut text, &readings, connections, commits).expect("a string takes everything");
    text
}

fn write_all(
    text: &mut String,
    meshes: &[(&str, Reading)],
    connections: usize,
    commits: &Commits,
) -> fmt::Result {
    writeln!(
        text,
        "# HELP bowline_broker_connections Open WebSocket connections, attached or not.\n\
         # TYPE bowline_broker_connections gauge\n\
         bowline_broker_connections {connections}"
    )?;
    let leases = "bowline_broker_leases";
    writeln!(
        text,
        "# HELP {leases} Peers whose lease stands.\n# TYPE {leases} gauge"
    )?;
    for (slug, reading) in meshes {
        let live = reading.present.saturating_sub(reading.in_grace);
        writeln!(text, "{leases}{{mesh=\"{slug}\",state=\"live\"}} {live}")?;
        let grace = reading.in_grace;
        writeln!(text, "{leases}{{mesh=\"{slug}\",state=\"grace\"}} {grace}")?;
    }
    for (name, kind, help, value) in FAMILIES {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (slug, reading) in meshes {
            writeln!(text, "{name}{{mesh=\"{slug}\"}} {}", value(reading))?;
        }
    }
    let refusals = "bowline_broker_refusals_total";
    writeln!(
        text,
        "# HELP {refusals} Sends refused, by code.\n# TYPE {refusals} counter"
    )?;
    for (slug, reading) in meshes {
        for (code, count) in SendCode::ALL.iter().zip(reading.stats.refusals) {
            let code = code.as_str();
            writeln!(
                text,
                "{refusals}{{mesh=\"{slug}\",code=\"{code}\"}} {count}"
            )?;
        }
    }
    commits.latency.write(
        text,
        "bowline_broker_commit_seconds",
        "From a transaction's emission to its being durable.",
        1e6,
    )?;
    commits.batch.write(
        text,
        "bowline_broker_commit_transactions",
        "Transactions that became durable together.",
        1.0,
    )
}

type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Reading) -> u64,
);

const FAMILIES: [Family; 20] = [
    (
        "bowline_broker_mesh_connections",
        "gauge",
        "Connections attached to the mesh.",
        |r| r.connections as u64,
    ),
    (
        "bowline_broker_ready",
        "gauge",
        "1 while the store takes writes.",
        |r| u64::from(r.ready),
    ),
    (
        "bowline_broker_accepts_total",
        "counter",
        "Messages accepted.",
        |r| r.stats.accepts,
    ),
    (
        "bowline_broker_duplicates_total",
        "counter",
        "Sends that had been accepted before.",
        |r| r.stats.duplicates,
    ),
    (
        "bowline_broker_deliveries_total",
        "counter",
        "Pushes sent, repeats included.",
        |r| r.stats.pushes,
    ),
    (
        "bowline_broker_redeliveries_total",
        "counter",
        "Pushes sent again.",
        |r| r.stats.redeliveries,
    ),
    (
        "bowline_broker_acknowledgements_total",
        "counter",
        "Deliveries settled by their recipient.",
        |r| r.stats.acknowledgements,
    ),
    (
        "bowline_broker_joins_total",
        "counter",
        "Leases begun.",
        |r| r.stats.joins,
    ),
    (
        "bowline_broker_leaves_total",
        "counter",
        "Leases ended.",
        |r| r.stats.leaves,
    ),
    (
        "bowline_broker_reattaches_total",
        "counter",
        "Returns within a lease.",
        |r| r.stats.reattaches,
    ),
    (
        "bowline_broker_resume_hits_total",
        "counter",
        "Returns that got the live events they missed.",
        |r| r.stats.resume_hits,
    ),
    (
        "bowline_broker_resume_misses_total",
        "counter",
        "Returns that had to take a snapshot.",
        |r| r.stats.resume_misses,
    ),
    (
        "bowline_broker_look_ups_total",
        "counter",
        "Dedupe look-ups in the store.",
        |r| r.stats.look_ups,
    ),
    (
        "bowline_broker_store_stalls_total",
        "counter",
        "Times that the store would not take a write.",
        |r| r.stats.stalls,
    ),
    (
        "bowline_broker_kicks_total",
        "counter",
        "Peers put out by a kick.",
        |r| r.stats.kicks,
    ),
    (
        "bowline_broker_disconnects_total",
        "counter",
        "Peers whose connections an admin had closed.",
        |r| r.stats.disconnects,
    ),
    (
        "bowline_broker_bans_total",
        "counter",
        "Members banned.",
        |r| r.stats.bans,
    ),
    (
        "bowline_broker_unbans_total",
        "counter",
        "Bans taken back.",
        |r| r.stats.unbans,
    ),
    (
        "bowline_broker_quiet_hellos_total",
        "counter",
        "Hellos of connections for sending only.",
        |r| r.stats.quiet_hellos,
    ),
    (
        "bowline_broker_quiet_connections",
        "gauge",
        "Connections for sending only.",
        |r| r.quiet as u64,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_help_and_type_and_each_mesh_its_line() {
        let mut reading = Reading {
            present: 3,
            in_grace: 1,
            ..Reading::default()
        };
        reading.stats.accepts = 7;
        let commits = Commits::default();
        commits.observe(Duration::from_micros(50), 3);
        let mut text = String::new();
        write_all(&mut text, &[("team", reading)], 5, &commits).unwrap();
        assert!(text.contains("bowline_broker_leases{mesh=\"team\",state=\"live\"} 2\n"));
        assert!(text.contains("bowline_broker_leases{mesh=\"team\",state=\"grace\"} 1\n"));
        assert!(text.contains("bowline_broker_accepts_total{mesh=\"team\"} 7\n"));
        assert!(text.contains("bowline_broker_refusals_total{mesh=\"team\",code=\"busy\"} 0\n"));
        assert!(text.contains("bowline_broker_commit_seconds_bucket{le=\"0.000064\"} 1\n"));
        assert!(text.contains("bowline_broker_commit_transactions_count 1\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = name
                .trim_end_matches("_bucket")
                .trim_end_matches("_sum")
                .trim_end_matches("_count");
            assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
        }
    }
}

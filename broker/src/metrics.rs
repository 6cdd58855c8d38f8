//! What Prometheus is told. Counting is the shell's; what is counted, the machine's.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bowline_core::id::LoadId;
use bowline_core::machine::{Machine, Timeout};
use bowline_core::mesh::{Census, Mesh, Output, Stats};
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
    census: Census,
    census_at: Mono,
    /// Something happened since the census was taken.
    is_stale: bool,
    now: Mono,
}

/// The numbers of one mesh as of its last input.
#[derive(Default)]
pub(crate) struct Gauges(Mutex<Reading>);

#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) stats: Stats,
    pub(crate) census: Census,
    pub(crate) present: usize,
    pub(crate) connections: usize,
    pub(crate) quiet: usize,
    pub(crate) unpersisted: usize,
    pub(crate) ready: bool,
}

/// A census takes a look at every peer: no more often than this, and no later after a change.
const CENSUS_EVERY: Duration = Duration::from_secs(1);

impl Observed {
    pub(crate) fn new(mesh: Mesh, gauges: Arc<Gauges>) -> Self {
        let mut observed = Self {
            census: mesh.census(),
            mesh,
            gauges,
            census_at: Mono::ZERO,
            is_stale: false,
            now: Mono::ZERO,
        };
        observed.publish();
        observed
    }

    fn publish(&mut self) {
        if self.is_stale && self.now >= self.census_due() {
            self.census = self.mesh.census();
            self.census_at = self.now;
            self.is_stale = false;
        }
        let mut reading = self.gauges.0.lock().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading {
            stats: *self.mesh.stats(),
            census: self.census,
            present: self.mesh.present_peers(),
            connections: self.mesh.connections(),
            quiet: self.mesh.quiet_connections(),
            unpersisted: self.mesh.unpersisted(),
            ready: self.mesh.is_ready(),
        };
    }

    fn census_due(&self) -> Mono {
        self.census_at + CENSUS_EVERY
    }
}

impl Machine for Observed {
    type Input = <Mesh as Machine>::Input;
    type Output = Output;
    /// `None`: a census is due.
    type Why = Option<<Mesh as Machine>::Why>;

    fn handle_input(&mut self, now: Now, input: Self::Input) {
        self.now = now.mono;
        self.is_stale = true;
        self.mesh.handle_input(now, input);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now.mono;
        let of_mesh = self.mesh.poll_timeout();
        if of_mesh.is_some_and(|timeout| timeout.at <= now.mono) {
            self.is_stale = true;
            self.mesh.handle_timeout(now);
        }
        // A census that is due is taken when the outputs are drained.
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.mesh.poll_output();
        if output.is_none() {
            self.publish();
        }
        output
    }

    fn poll_timeout(&self) -> Option<Timeout<Self::Why>> {
        let of_mesh = self.mesh.poll_timeout().map(|timeout| Timeout {
            at: timeout.at,
            why: Some(timeout.why),
        });
        let census = self.is_stale.then(|| Timeout {
            at: self.census_due(),
            why: None,
        });
        of_mesh
            .into_iter()
            .chain(census)
            .min_by_key(|timeout| timeout.at)
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

/// One mesh as `/metrics` shows it.
struct Shown<'a> {
    slug: &'a str,
    reading: Reading,
    inputs_waiting: usize,
}

/// The text format of Prometheus, version 0.0.4.
pub(crate) fn render(meshes: &[Arc<MeshHandle>], connections: usize, commits: &Commits) -> String {
    let shown: Vec<_> = meshes
        .iter()
        .map(|mesh| Shown {
            slug: mesh.slug.as_str(),
            reading: mesh.gauges.read(),
            inputs_waiting: mesh.inputs_waiting(),
        })
        .collect();
    let mut text = String::new();
    write_all(&mut text, &shown, connections, commits).expect("a string takes everything");
    text
}

fn write_all(
    text: &mut String,
    meshes: &[Shown<'_>],
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
    for Shown { slug, reading, .. } in meshes {
        let grace = reading.census.in_grace;
        let live = reading.present.saturating_sub(grace);
        writeln!(text, "{leases}{{mesh=\"{slug}\",state=\"live\"}} {live}")?;
        writeln!(text, "{leases}{{mesh=\"{slug}\",state=\"grace\"}} {grace}")?;
    }
    let transitions = "bowline_broker_lease_transitions_total";
    writeln!(
        text,
        "# HELP {transitions} What became of leases.\n# TYPE {transitions} counter"
    )?;
    for Shown { slug, reading, .. } in meshes {
        let stats = &reading.stats;
        for (to, count) in [
            ("joined", stats.joins),
            ("grace", stats.graces),
            ("reattached", stats.reattaches),
            ("left", stats.leaves),
        ] {
            writeln!(text, "{transitions}{{mesh=\"{slug}\",to=\"{to}\"}} {count}")?;
        }
    }
    for (name, kind, help, value) in FAMILIES {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for shown in meshes {
            let slug = shown.slug;
            writeln!(text, "{name}{{mesh=\"{slug}\"}} {}", value(shown))?;
        }
    }
    let refusals = "bowline_broker_refusals_total";
    writeln!(
        text,
        "# HELP {refusals} Sends refused by the mesh, by code.\n# TYPE {refusals} counter"
    )?;
    for Shown { slug, reading, .. } in meshes {
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
    fn(&Shown<'_>) -> u64,
);

const FAMILIES: [Family; 29] = [
    (
        "bowline_broker_mesh_connections",
        "gauge",
        "Connections attached to the mesh.",
        |m| m.reading.connections as u64,
    ),
    (
        "bowline_broker_quiet_connections",
        "gauge",
        "Connections for sending only.",
        |m| m.reading.quiet as u64,
    ),
    (
        "bowline_broker_ready",
        "gauge",
        "1 while the store takes writes.",
        |m| u64::from(m.reading.ready),
    ),
    (
        "bowline_broker_accepts_total",
        "counter",
        "Messages accepted.",
        |m| m.reading.stats.accepts,
    ),
    (
        "bowline_broker_duplicates_total",
        "counter",
        "Sends that had been accepted before.",
        |m| m.reading.stats.duplicates,
    ),
    (
        "bowline_broker_limited_after_accept_total",
        "counter",
        "Refusals by the limiter of ids that had been accepted. Always 0.",
        |m| m.reading.stats.limited_after_accept,
    ),
    (
        "bowline_broker_deliveries_total",
        "counter",
        "Pushes sent, repeats included.",
        |m| m.reading.stats.pushes,
    ),
    (
        "bowline_broker_redeliveries_total",
        "counter",
        "Pushes sent again.",
        |m| m.reading.stats.redeliveries,
    ),
    (
        "bowline_broker_claims_total",
        "counter",
        "Deliveries claimed by a connection.",
        |m| m.reading.stats.claims,
    ),
    (
        "bowline_broker_claims_expired_total",
        "counter",
        "Claims that ended without an acknowledgement.",
        |m| m.reading.stats.claims_expired,
    ),
    (
        "bowline_broker_acknowledgements_total",
        "counter",
        "Deliveries settled by their recipient.",
        |m| m.reading.stats.acknowledgements,
    ),
    (
        "bowline_broker_seen_total",
        "counter",
        "Deliveries that their recipient has read.",
        |m| m.reading.stats.seen,
    ),
    (
        "bowline_broker_expired_total",
        "counter",
        "Deliveries that were not taken in time.",
        |m| m.reading.stats.expired,
    ),
    (
        "bowline_broker_receipts_total",
        "counter",
        "Receipts sent, repeats included.",
        |m| m.reading.stats.receipts,
    ),
    (
        "bowline_broker_replacements_total",
        "counter",
        "Connections put out by a newer one of their peer.",
        |m| m.reading.stats.replacements,
    ),
    (
        "bowline_broker_resume_hits_total",
        "counter",
        "Returns that got the live events they missed.",
        |m| m.reading.stats.resume_hits,
    ),
    (
        "bowline_broker_resume_misses_total",
        "counter",
        "Returns that had to take a snapshot.",
        |m| m.reading.stats.resume_misses,
    ),
    (
        "bowline_broker_look_ups_total",
        "counter",
        "Reads of the store that clients brought about.",
        |m| m.reading.stats.look_ups,
    ),
    (
        "bowline_broker_store_stalls_total",
        "counter",
        "Times that the store would not take a write.",
        |m| m.reading.stats.stalls,
    ),
    (
        "bowline_broker_kicks_total",
        "counter",
        "Peers put out by a kick.",
        |m| m.reading.stats.kicks,
    ),
    (
        "bowline_broker_disconnects_total",
        "counter",
        "Peers whose connections an admin had closed.",
        |m| m.reading.stats.disconnects,
    ),
    (
        "bowline_broker_bans_total",
        "counter",
        "Members banned.",
        |m| m.reading.stats.bans,
    ),
    (
        "bowline_broker_unbans_total",
        "counter",
        "Bans taken back.",
        |m| m.reading.stats.unbans,
    ),
    (
        "bowline_broker_quiet_hellos_total",
        "counter",
        "Hellos of connections for sending only.",
        |m| m.reading.stats.quiet_hellos,
    ),
    (
        "bowline_broker_inputs_waiting",
        "gauge",
        "Frames and hellos that the mesh has not come to.",
        |m| m.inputs_waiting as u64,
    ),
    (
        "bowline_broker_transactions_waiting",
        "gauge",
        "Transactions that are not durable yet.",
        |m| m.reading.unpersisted as u64,
    ),
    (
        "bowline_broker_owed_messages",
        "gauge",
        "Accepted and not settled.",
        |m| m.reading.census.owed_messages,
    ),
    (
        "bowline_broker_owed_bytes",
        "gauge",
        "Bytes of what is owed.",
        |m| m.reading.census.owed_bytes,
    ),
    (
        "bowline_broker_queued_bytes",
        "gauge",
        "Handed to connections, and not on their way yet.",
        |m| m.reading.census.queued_bytes,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_help_and_type_and_each_mesh_its_line() {
        let mut reading = Reading {
            present: 3,
            ..Reading::default()
        };
        reading.census.in_grace = 1;
        reading.stats.accepts = 7;
        let commits = Commits::default();
        commits.observe(Duration::from_micros(50), 3);
        let mut text = String::new();
        let shown = Shown {
            slug: "team",
            reading,
            inputs_waiting: 4,
        };
        write_all(&mut text, &[shown], 5, &commits).unwrap();
        assert!(text.contains("bowline_broker_leases{mesh=\"team\",state=\"live\"} 2\n"));
        assert!(text.contains("bowline_broker_leases{mesh=\"team\",state=\"grace\"} 1\n"));
        assert!(text.contains("bowline_broker_accepts_total{mesh=\"team\"} 7\n"));
        assert!(text.contains("bowline_broker_inputs_waiting{mesh=\"team\"} 4\n"));
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

//! What a host says of itself: version, health, metrics, and how large its structures are.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use serde_json::{Value, json};

use super::ipc::Answer;
use super::unsuited::Unsuited;
use super::{Host, answers};
use crate::id::PeerKey;
use crate::mark::Mark;
use crate::store::Stall;

/// How much is held of what others can make grow; each has its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub sessions: usize,
    pub outbox_rows: usize,
    /// `limits.dedupe_cache` durable entries, and those of unpersisted transactions.
    pub outbox_remembered: usize,
    pub inbox_remembered: usize,
    /// [`crate::limits::HELD_PUSHES`] an identity.
    pub held_pushes: usize,
    /// Of the largest mesh: [`crate::limits::DIRECTORY_PEERS`].
    pub directory_peers: usize,
    /// [`crate::limits::EVENT_STREAMS`].
    pub subscribers: usize,
    /// Of the furthest behind: [`crate::limits::SUBSCRIBER_EVENTS`] handed out, as many held.
    pub subscriber_behind: usize,
    pub open_requests: usize,
    pub look_ups: usize,
    pub waiting_sends: usize,
    pub unpersisted_txns: usize,
    pub gate: usize,
    pub timers: usize,
    pub joining: usize,
    pub listings: usize,
    pub explains: usize,
    /// Questions of admins that a broker has not answered: each is an open request.
    pub asked: usize,
}

impl Host {
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            sessions: self.sessions.len(),
            outbox_rows: self.outbox.depth(),
            outbox_remembered: self.outbox.remembered(),
            inbox_remembered: self.inbox.remembered(),
            held_pushes: self.inbox.held(),
            directory_peers: self.directory.len(),
            subscribers: self.events.len(),
            subscriber_behind: self.events.behind(),
            open_requests: self.ctx.open_requests(),
            look_ups: self.ctx.loads(),
            waiting_sends: self.lookups.len(),
            unpersisted_txns: self.ctx.ledger.unpersisted(),
            gate: self.ctx.gate.len(),
            timers: self.ctx.timers.len(),
            joining: self.joining.len(),
            listings: self.listings.len(),
            explains: self.explains.len(),
            asked: self.asked.len(),
        }
    }

    pub(super) fn version(&self) -> Answer {
        answers::ok(json!({
            "name": "bowline",
            "version": self.ctx.config.version,
            "ipc": "v1",
            "features": [
                "send", "inbox", "outbox", "messages", "peers", "events", "sessions", "meshes",
            ],
        }))
    }

    pub(super) fn health(&self) -> Answer {
        let uplinks: Vec<Value> = self
            .uplinks
            .shown()
            .map(|shown| {
                let who = shown.identity;
                let session = self.sessions.by_identity(who);
                let (kind, name) = match (&who.peer, session) {
                    (PeerKey::Member(_), _) => (
                        "control-plane",
                        self.meshes
                            .get(&who.mesh)
                            .map(|mesh| mesh.row.display_name.clone()),
                    ),
                    (PeerKey::Session(_), session) => {
                        ("session", session.map(|session| session.row.name.clone()))
                    }
                };
                json!({
                    "mesh": self.meshes.slug(&who.mesh),
                    "mesh_id": who.mesh,
                    "kind": kind,
                    "session": session.map(|session| session.row.id.clone()),
                    "name": name,
                    "state": shown.state,
                    "reason": (!shown.reason.is_empty()).then_some(shown.reason),
                    "mismatch": shown.unsuited.map(Unsuited::to_json),
                    "next": shown.unsuited.map(Unsuited::next),
                    "since": shown.since.iso8601().to_string(),
                })
            })
            .collect();
        let stopped = self.uplinks.shown().any(|shown| shown.state == "stopped");
        let store = match self.ctx.stall {
            None => "ok",
            Some(Stall::Full) => "full",
            Some(Stall::Unavailable) => "unavailable",
        };
        answers::ok(json!({
            "ok": !stopped && self.ctx.stall.is_none(),
            "version": self.ctx.config.version,
            "store": {
                "state": store,
                "unpersisted": self.ctx.ledger.unpersisted(),
                "disk_free": self.ctx.disk_free,
                "outbox_bytes": self.outbox.bytes(),
                "inbox_bytes": self.inbox.bytes(),
            },
            "outbox": { "open": self.outbox.depth(), "inflight": self.outbox.in_flight() },
            "meshes": self.meshes.len(),
            "sessions": self.sessions.live().count(),
            "uplinks": uplinks,
        }))
    }

    /// Prometheus' text format. The shell takes it out of `text`.
    pub(super) fn metrics(&self) -> Answer {
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, kind: &str, samples: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP bowline_daemon_{name} {help}");
            let _ = writeln!(text, "# TYPE bowline_daemon_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "bowline_daemon_{name}{labels} {value}");
            }
        };
        let one = |value: u64| alloc::vec![(String::new(), value)];
        let marked = |mark: Mark| self.ctx.marks.get(mark);
        let count = |state: &str| {
            let alike = self.uplinks.shown().filter(|shown| shown.state == state);
            alike.count() as u64
        };
        let by_state: Vec<(String, u64)> = ["up", "dialing", "waiting", "stopped"]
            .map(|state| (alloc::format!("{{state=\"{state}\"}}"), count(state)))
            .to_vec();
        gauge("uplinks", "Uplinks by state.", "gauge", &by_state);
        let in_flight = self.outbox.in_flight() as u64;
        let pending = self.outbox.depth() as u64 - in_flight;
        let depth = [("pending", pending), ("inflight", in_flight)]
            .map(|(status, rows)| (alloc::format!("{{status=\"{status}\"}}"), rows));
        gauge("outbox_rows", "Rows not settled.", "gauge", &depth);
        let age = self
            .outbox
            .oldest_accepted_at()
            .map_or(0, |at| self.ctx.now.wall.since(at).as_secs());
        let help = "Age of the oldest row not settled.";
        gauge("outbox_age_seconds", help, "gauge", &one(age));
        for (name, help, mark) in [
            ("sends_total", "Sends accepted.", Mark::SendAccepted),
            (
                "send_repeats_total",
                "Sends that were known.",
                Mark::SendDuplicate,
            ),
            (
                "delivered_total",
                "Rows taken by a broker.",
                Mark::DrainAcked,
            ),
            ("dead_total", "Rows given up.", Mark::DrainDead),
            (
                "deferred_total",
                "Refusals that say: later.",
                Mark::DrainDeferred,
            ),
            (
                "received_total",
                "Messages into the inbox.",
                Mark::InboxInserted,
            ),
            (
                "undecryptable_total",
                "Messages that do not open.",
                Mark::InboxUndecryptable,
            ),
            ("uplink_up_total", "Hellos taken.", Mark::UplinkUp),
            ("uplink_down_total", "Connections lost.", Mark::UplinkDown),
            (
                "stalls_total",
                "The store took nothing.",
                Mark::StalledEntered,
            ),
        ] {
            gauge(name, help, "counter", &one(marked(mark)));
        }
        let repeats = marked(Mark::InboxDuplicateFresh) + marked(Mark::InboxDuplicateDurable);
        let help = "Pushes that were in the inbox.";
        gauge("receive_repeats_total", help, "counter", &one(repeats));
        answers::ok(json!({ "text": text }))
    }
}

//! A run as a picture: a page of its own, with a lane for each host, puppet and broker, in which
//! processes, connections, leases, deliveries and faults lie over virtual time, and what was
//! violated is marked.

use std::collections::BTreeMap;

use bowline_core::id::PeerKey;
use bowline_core::store::mesh::Op;
use bowline_core::wire::BrokerFrame;
use serde::Serialize;

use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::plan::{Action, Outage, Place, Plan};
use crate::record::Record;
use crate::stage::FIRST_CLIENT;
use crate::world::Outcome;

/// The page. `DATA` in it becomes the run.
const PAGE: &str = include_str!("timeline.html");
const DATA: &str = "/*DATA*/null";
/// A longer detail is cut: a page has to open.
const DETAIL_CHARS: usize = 700;
/// Of the lines before the end, those that the violation shows.
const LAST_LINES: usize = 120;

#[derive(Serialize)]
struct Timeline {
    title: String,
    command: String,
    profile: String,
    healed_ms: u64,
    end_ms: u64,
    violation: Option<Found>,
    lanes: Vec<Lane>,
}

#[derive(Serialize)]
struct Found {
    oracle: String,
    what: String,
    at_ms: u64,
    last: Vec<String>,
}

#[derive(Serialize)]
struct Lane {
    name: String,
    rows: Vec<Row>,
}

#[derive(Default, Serialize)]
struct Row {
    name: String,
    spans: Vec<Span>,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Span {
    kind: &'static str,
    from_ms: f64,
    to_ms: f64,
    detail: String,
}

#[derive(Serialize)]
struct Point {
    kind: &'static str,
    at_ms: f64,
    detail: String,
}

/// The page of a run that kept its records and its last lines.
#[must_use]
pub fn page(plan: &Plan, outcome: &Outcome) -> String {
    let mut drawing = Drawing::new(plan, outcome);
    for step in &plan.steps {
        drawing.fault(step.at_ms as f64, &step.action);
    }
    for (at, record) in &outcome.records {
        drawing.record(ms(*at), record);
    }
    let json = serde_json::to_string(&drawing.finish()).expect("a timeline is plain data");
    // In a script, only this sequence could end the data early.
    PAGE.replace(DATA, &json.replace("</", "<\\/"))
}

struct Drawing<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    end_ms: f64,
    /// Rows by lane and name, in order of their first appearance.
    lanes: Vec<(String, Vec<Row>)>,
    open: BTreeMap<Open, (usize, usize, f64, &'static str, String)>,
    names: BTreeMap<PeerKey, String>,
}

/// What is begun and not ended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Process(NodeId),
    Pause(NodeId),
    Connection(NodeId, u64),
    Lease(PeerKey),
    Delivery(u64, PeerKey),
    Store,
}

const DELIVERIES_DRAWN_SIDE_BY_SIDE: usize = 12;

impl<'a> Drawing<'a> {
    fn new(plan: &'a Plan, outcome: &'a Outcome) -> Self {
        let profile = &plan.profile;
        let mut lanes: Vec<(String, Vec<Row>)> = (0..FIRST_CLIENT)
            .map(|broker| (format!("broker {broker}"), Vec::new()))
            .collect();
        lanes.extend((0..profile.hosts).map(|host| (format!("host {host}"), Vec::new())));
        lanes.extend((0..profile.puppets).map(|puppet| (format!("puppet {puppet}"), Vec::new())));
        lanes.push(("mesh: leases".into(), Vec::new()));
        lanes.push(("mesh: deliveries".into(), Vec::new()));
        Self {
            plan,
            outcome,
            end_ms: outcome.virtual_ms as f64,
            lanes,
            open: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn leases(&self) -> usize {
        self.lanes.len() - 2
    }

    fn deliveries(&self) -> usize {
        self.lanes.len() - 1
    }

    fn fault(&mut self, at: f64, action: &Action) {
        let detail = format!("{action:?}");
        let client = |client: &usize| FIRST_CLIENT + client;
        let (lane, kind, for_ms) = match action {
            Action::Cut { client: at, .. } => (client(at), "cut", 0),
            Action::Outage {
                client: at,
                outage,
                for_ms,
                ..
            } => {
                let kind = match outage {
                    Outage::Stall => "stall",
                    Outage::Blackhole | Outage::Refuse => "outage",
                };
                (client(at), kind, *for_ms)
            }
            Action::Dials {
                client: at, for_ms, ..
            } => (client(at), "outage", *for_ms),
            Action::Crash { place, .. } | Action::CrashInFlight { place, .. } => {
                (lane_of(*place), "crash", 0)
            }
            Action::Pause { place, for_ms } => (lane_of(*place), "pause", *for_ms),
            Action::TakeOver => (0, "crash", 0),
            Action::WallStep { place, .. } => (lane_of(*place), "clock", 0),
            Action::Store { place, for_ms, .. } => (lane_of(*place), "store", *for_ms),
            _ => return,
        };
        if lane >= self.leases() || at > self.end_ms {
            return;
        }
        let row = self.row(lane, "faults");
        if for_ms == 0 {
            return self.point(lane, row, kind, at, detail);
        }
        let to = (at + for_ms as f64)
            .min(self.plan.profile.safety_ms as f64)
            .min(self.end_ms);
        self.span(lane, row, kind, at, to, detail);
    }

    fn record(&mut self, at: f64, record: &Record) {
        match record {
            Record::OwnerStarted { node } | Record::HostStarted { node } => {
                self.begin(Open::Process(*node), *node, "process", at, "up", record);
            }
            Record::OwnerStopped { node } | Record::HostStopped { node } => {
                self.end(&Open::Pause(*node), at);
                self.end(&Open::Process(*node), at);
                self.end_connections(*node, at);
            }
            Record::OwnerPaused { node } => {
                self.begin(Open::Pause(*node), *node, "process", at, "pause", record);
            }
            Record::OwnerContinued { node } => self.end(&Open::Pause(*node), at),
            Record::StoreFault { broken: true } => {
                self.begin(Open::Store, 0, "store", at, "store", record);
            }
            Record::StoreFault { broken: false } => self.end(&Open::Store, at),
            Record::Dialled {
                node, conn, key, ..
            } => {
                let row = self.name(*node, key);
                let open = Open::Connection(*node, conn.0);
                self.begin(open, *node, &row, at, "dialling", record);
            }
            Record::Up {
                node, conn, key, ..
            } => {
                let row = self.name(*node, key);
                let open = Open::Connection(*node, conn.0);
                self.end(&open, at);
                self.begin(open, *node, &row, at, "up", record);
            }
            Record::Down { node, conn, .. } => self.end(&Open::Connection(*node, conn.0), at),
            Record::Attached { peer, .. } => self.lease(peer, at, "live", record),
            Record::Detached { peer, .. } => self.lease(peer, at, "grace", record),
            Record::Bye { peer, .. } => self.end(&Open::Lease((**peer).clone()), at),
            Record::MeshCommitted { ops, .. } => self.committed(at, ops, record),
            Record::Frame {
                node, key, frame, ..
            } => {
                if let BrokerFrame::Push(push) = &**frame {
                    let row = self.name(*node, key);
                    let row = self.row(*node, &row);
                    let detail = format!("push {} from {}", push.message_id, push.sender_pubkey);
                    self.point(*node, row, "push", at, detail);
                }
            }
            Record::Log { node, .. } => self.happened(*node, "log", "log", at, record),
            Record::Told { node, .. } => self.happened(*node, "told", "told", at, record),
            Record::Answered { node, .. } | Record::Unanswered { node, .. } => {
                self.happened(*node, "answers", "answer", at, record);
            }
            _ => {}
        }
    }

    fn committed(&mut self, at: f64, ops: &[Op], record: &Record) {
        for op in ops {
            match op {
                Op::PeerPut(row) if !row.present => self.end(&Open::Lease(row.key.clone()), at),
                Op::DeliveryPut { seq, recipient, .. } => {
                    let lane = self.deliveries();
                    let row = format!("{}", seq.0 % DELIVERIES_DRAWN_SIDE_BY_SIDE as u64);
                    let open = Open::Delivery(seq.0, recipient.clone());
                    self.begin(open, lane, &row, at, "owed", record);
                }
                Op::DeliverySettled(row) => {
                    self.end(&Open::Delivery(row.seq.0, row.recipient.clone()), at);
                }
                _ => {}
            }
        }
    }

    fn lease(&mut self, peer: &PeerKey, at: f64, kind: &'static str, record: &Record) {
        let open = Open::Lease(peer.clone());
        self.end(&open, at);
        let row = match self.names.get(peer) {
            Some(name) => name.clone(),
            None => short(peer),
        };
        let lane = self.leases();
        self.begin(open, lane, &row, at, kind, record);
    }

    /// What its client calls it: the lane of a client has a row for each of its identities.
    fn name(&mut self, node: NodeId, key: &PeerKey) -> String {
        let lane = &self.lanes[node].0;
        let kind = match key {
            PeerKey::Session(_) => "session",
            PeerKey::Member(_) => "member",
        };
        let own = format!("{kind} {}", short(key));
        self.names.insert(key.clone(), format!("{lane} {own}"));
        own
    }

    fn happened(&mut self, lane: usize, row: &str, kind: &'static str, at: f64, record: &Record) {
        let row = self.row(lane, row);
        self.point(lane, row, kind, at, format!("{record:?}"));
    }

    fn begin(
        &mut self,
        open: Open,
        lane: usize,
        row: &str,
        at: f64,
        kind: &'static str,
        record: &Record,
    ) {
        let row = self.row(lane, row);
        let detail = cut(&format!("{record:?}"));
        self.open.insert(open, (lane, row, at, kind, detail));
    }

    fn end(&mut self, open: &Open, at: f64) {
        if let Some((lane, row, from, kind, detail)) = self.open.remove(open) {
            self.span(lane, row, kind, from, at, detail);
        }
    }

    fn end_connections(&mut self, node: NodeId, at: f64) {
        let own: Vec<Open> = self
            .open
            .keys()
            .filter(|open| matches!(open, Open::Connection(of, _) if *of == node))
            .cloned()
            .collect();
        for open in own {
            self.end(&open, at);
        }
    }

    fn row(&mut self, lane: usize, name: &str) -> usize {
        let rows = &mut self.lanes[lane].1;
        if let Some(at) = rows.iter().position(|row| row.name == name) {
            return at;
        }
        rows.push(Row {
            name: name.to_owned(),
            ..Row::default()
        });
        rows.len() - 1
    }

    fn span(&mut self, lane: usize, row: usize, kind: &'static str, from: f64, to: f64, d: String) {
        self.lanes[lane].1[row].spans.push(Span {
            kind,
            from_ms: from,
            to_ms: to,
            detail: d,
        });
    }

    fn point(&mut self, lane: usize, row: usize, kind: &'static str, at: f64, detail: String) {
        self.lanes[lane].1[row].points.push(Point {
            kind,
            at_ms: at,
            detail: cut(&detail),
        });
    }

    fn finish(mut self) -> Timeline {
        let open: Vec<Open> = self.open.keys().cloned().collect();
        for open in open {
            self.end(&open, self.end_ms);
        }
        let violation = self.outcome.violation.as_ref().map(|violation| Found {
            oracle: violation.oracle.clone(),
            what: violation.what.clone(),
            at_ms: violation.at_ms,
            last: {
                let lines = &self.outcome.last;
                lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
            },
        });
        Timeline {
            title: match &violation {
                Some(found) => format!("seed {}: {}", self.plan.seed, found.oracle),
                None => format!("seed {}: nothing wrong", self.plan.seed),
            },
            command: format!(
                "cargo run --profile sim -p sim -- replay --seed {}",
                self.plan.seed
            ),
            profile: format!("{:#?}", self.plan.profile),
            healed_ms: self.plan.profile.safety_ms,
            end_ms: self.outcome.virtual_ms,
            violation,
            lanes: self
                .lanes
                .into_iter()
                .filter(|(_, rows)| !rows.is_empty())
                .map(|(name, rows)| Lane { name, rows })
                .collect(),
        }
    }
}

/// The broker that starts first stands for whichever owns the mesh.
fn lane_of(place: Place) -> usize {
    match place {
        Place::Broker => 0,
        Place::Client(client) => FIRST_CLIENT + client,
    }
}

fn short(key: &PeerKey) -> String {
    key.to_string().chars().take(8).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS).collect()
}

fn ms(at: Moment) -> f64 {
    at.0 as f64 / 1e3
}

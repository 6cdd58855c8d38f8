//! The world: nodes, the run loop, the faults that befall them, and the two phases of a run.
//!
//! Safety first: everything that the plan says happens, and the oracles judge every record. Then
//! everything heals, and the world has a bounded time to converge; the first condition that is not
//! met is named. At last it must be quiet.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};

use bowline_core::mark::Marks;
use bowline_core::wire::Priority;

use crate::clock::Moment;
use crate::fault_mark::{FaultMark, FaultMarks};
use crate::kernel::{Event, Halt, Kernel, NodeEvent, NodeId, Stop, WorldEvent};
use crate::network::{Cut, DialFault};
use crate::oracle::{Oracle, Phase, View};
use crate::panics;
use crate::plan::{Action, Outage, Place, Plan, Step, StepId};
use crate::random::{Purpose, Random};
use crate::record::Record;
use crate::store::StoreFault;

/// From healing to convergence. The longest wait in the design is the five minutes between two
/// redeliveries; the rest is redialling, backoff and slow stores.
const CONVERGE_WITHIN_MS: u64 = 420_000;
const CONVERGENCE_CHECKED_EVERY_MS: u64 = 2_000;
/// A message that is sent when all has converged.
const FRESH_BYTES: usize = 40;
/// How many of a thousand healthy processes are restarted when all heals.
const RESTARTED_PER_MILLE: u64 = 300;
/// Leases that end and their events, before silence is demanded.
const SETTLE_MS: u64 = 130_000;
const QUIET_MS: u64 = 70_000;
/// Between two resets of all connections.
const STORM_EVERY_MS: u64 = 700;
/// As long as a service manager waits.
const STOPS_WITHIN_MS: u64 = 15_000;
const STOP_CHECKED_EVERY_MS: u64 = 20;
/// How often a crash looks for a transaction in flight before it gives up.
const CRASH_TRIES: u32 = 2_000;
/// Events at one and the same moment, beyond which the world is in a loop.
const EVENTS_AT_ONE_MOMENT: u64 = 2_000_000;

/// A place where a process runs, and whoever uses it there.
pub trait Node {
    fn start(&mut self, k: &mut Kernel);

    /// The process dies at once.
    fn stop(&mut self, k: &mut Kernel);

    fn is_running(&self) -> bool;

    /// It is an owner: of a mesh, or of a host's database.
    fn role(&self) -> NodeRole;

    fn on(&mut self, k: &mut Kernel, event: NodeEvent);

    /// It is asked to end: it takes nothing new, and finishes what it has.
    fn begin_stop(&mut self, _: &mut Kernel) {}

    /// Nothing is left of what it was asked to finish.
    fn is_done(&self) -> bool {
        true
    }

    /// Carries out what its clients or users do.
    fn act(&mut self, k: &mut Kernel, id: StepId, action: &Action);

    fn set_store_fault(&mut self, k: &mut Kernel, fault: Option<StoreFault>);

    /// Transactions that are emitted and not durable.
    fn in_flight(&self) -> usize {
        0
    }

    /// Faults of its own end.
    fn heal(&mut self, k: &mut Kernel);

    /// What still keeps this node from being converged, in words.
    fn unmet(&self, k: &Kernel) -> Option<String>;

    /// Would a restart find what is here now? Asked when nothing is under way.
    ///
    /// # Errors
    /// What would be different.
    fn check_recovery(&self, _: &Kernel) -> Result<(), String> {
        Ok(())
    }

    /// Adds what its machines marked, those that live.
    fn marks(&self, into: &mut Marks);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeRole {
    Broker,
    Host,
    Client,
}

/// What went wrong, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub oracle: String,
    pub what: String,
    pub at_ms: u64,
}

/// The end of a run.
#[derive(Debug)]
pub struct Outcome {
    pub hash: u64,
    pub events: u64,
    pub virtual_ms: u64,
    pub violation: Option<Violation>,
    pub marks: Marks,
    pub fault_marks: FaultMarks,
    /// Empty unless it was asked to keep them.
    pub last: Vec<String>,
    /// Everything that the oracles saw; empty unless it was asked to keep it.
    pub records: Vec<(Moment, Record)>,
}

/// Every oracle, and what they see of one mesh: each mesh is judged as if it were alone.
pub struct Judges {
    pub oracles: Vec<Box<dyn Oracle>>,
    pub view: View,
}

pub struct World {
    pub k: Kernel,
    pub nodes: Vec<Box<dyn Node>>,
    /// What waits for a process that is stopped by a signal.
    paused: Vec<Option<VecDeque<NodeEvent>>>,
    plan: Plan,
    first_client: NodeId,
    /// By mesh.
    judges: Vec<Judges>,
    events: u64,
    healed: bool,
    kept: Option<Vec<(Moment, Record)>>,
}

impl World {
    #[must_use]
    pub fn new(
        plan: Plan,
        k: Kernel,
        nodes: Vec<Box<dyn Node>>,
        first_client: NodeId,
        judges: Vec<Judges>,
    ) -> Self {
        Self {
            paused: nodes.iter().map(|_| None).collect(),
            k,
            nodes,
            plan,
            first_client,
            judges,
            events: 0,
            healed: false,
            kept: None,
        }
    }

    /// Keeps every record for whoever asked for the run.
    #[must_use]
    pub fn keeping_records(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// Runs the plan to its end or to the first violation. A panic of a machine is one.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let ran = panic::catch_unwind(AssertUnwindSafe(|| self.phases()));
        let violation = match ran {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => Some(violation),
            Err(payload) => Some(Violation {
                oracle: "no_panic".into(),
                what: panics::text(&*payload),
                at_ms: self.k.now.0 / 1_000,
            }),
        };
        let mut marks = self.k.marks.clone();
        for node in &self.nodes {
            node.marks(&mut marks);
        }
        Outcome {
            hash: self.k.trace.hash(),
            events: self.events,
            virtual_ms: self.k.now.0 / 1_000,
            violation,
            marks,
            fault_marks: self.k.fault_marks.clone(),
            last: self.k.trace.last().map(str::to_owned).collect(),
            records: self.kept.unwrap_or_default(),
        }
    }

    fn phases(&mut self) -> Result<(), Violation> {
        self.start();
        let heal_at = Moment(0).plus_ms(self.plan.profile.safety_ms);
        self.k.at(heal_at, Event::World(WorldEvent::Heal));
        self.run_until(heal_at)?;
        self.enter(Phase::Healed);
        self.converge()?;
        if self.plan.profile.aftermath {
            self.enter(Phase::Fresh);
            self.everybody_sends();
            self.converge()?;
        }
        self.run_until(self.k.now.plus_ms(SETTLE_MS))?;
        self.enter(Phase::Quiet);
        self.run_until(self.k.now.plus_ms(QUIET_MS))?;
        for node in &self.nodes {
            node.check_recovery(&self.k)
                .map_err(|what| violation("recovered_equals_live", what, self.k.now))?;
        }
        for Judges { oracles, view } in &mut self.judges {
            for oracle in oracles {
                oracle
                    .end(self.k.now, view)
                    .map_err(|what| violation(oracle.name(), what, self.k.now))?;
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        for node in 0..self.nodes.len() {
            // The second broker waits for a take-over.
            let spare =
                self.nodes[node].role() == NodeRole::Broker && self.k.network.listener.is_some();
            if spare {
                continue;
            }
            self.start_node(node);
        }
        if self.judges.len() > 1 {
            self.k.fault_marks.hit(FaultMark::TwoMeshes);
        }
        if self.plan.profile.ages.has_two_versions() {
            self.k.fault_marks.hit(FaultMark::TwoVersions);
        }
        if let Some(first) = self.plan.steps.first() {
            self.k.at(Moment(0).plus_ms(first.at_ms), Event::Step(0));
        }
    }

    fn converge(&mut self) -> Result<(), Violation> {
        let until = self.k.now.plus_ms(CONVERGE_WITHIN_MS);
        loop {
            self.run_until(self.k.now.plus_ms(CONVERGENCE_CHECKED_EVERY_MS))?;
            let Some(unmet) = self.unmet() else {
                return Ok(());
            };
            if self.k.now >= until {
                return Err(violation("g12_liveness", unmet, self.k.now));
            }
        }
    }

    /// One message each, to the next one of the same mesh.
    fn everybody_sends(&mut self) {
        let profile = &self.plan.profile;
        let (users, all) = (profile.users(), profile.users() + profile.puppets);
        let next = |from: usize| {
            let mut others = (from + 1..all).chain(0..from);
            others.find(|to| profile.mesh_of(*to) == profile.mesh_of(from))
        };
        let pairs: Vec<_> = (0..all)
            .filter_map(|from| Some((from, next(from)?)))
            .collect();
        for (from, to) in pairs {
            let (bytes, priority) = (FRESH_BYTES, Priority::Now);
            let action = match from.checked_sub(users) {
                None => Action::UserSend {
                    user: from,
                    to,
                    bytes,
                    priority,
                    keyed: true,
                },
                Some(puppet) => Action::PuppetSend {
                    puppet,
                    to,
                    bytes,
                    priority,
                    first: true,
                },
            };
            self.act(StepId(u32::MAX - from as u32), &action);
        }
    }

    fn unmet(&self) -> Option<String> {
        let node = self.nodes.iter().find_map(|node| node.unmet(&self.k));
        node.or_else(|| {
            self.judges.iter().find_map(|Judges { oracles, view }| {
                let mut oracles = oracles.iter();
                oracles.find_map(|oracle| oracle.unmet(self.k.now, view))
            })
        })
    }

    fn enter(&mut self, phase: Phase) {
        for oracle in self.judges.iter_mut().flat_map(|it| &mut it.oracles) {
            oracle.phase(self.k.now, phase);
        }
    }

    fn run_until(&mut self, until: Moment) -> Result<(), Violation> {
        let mut at_this_moment = 0;
        let mut moment = self.k.now;
        while self.k.next_at().is_some_and(|at| at <= until) {
            let Some(event) = self.k.pop() else { break };
            at_this_moment = if self.k.now == moment {
                at_this_moment + 1
            } else {
                0
            };
            moment = self.k.now;
            assert!(at_this_moment < EVENTS_AT_ONE_MOMENT, "time stands still");
            self.events += 1;
            self.handle(event);
            while let Some((node, incarnation, event)) = self.k.immediate.pop_front() {
                self.tell(node, incarnation, event);
            }
            self.halts()?;
            if let Some((node, down_ms)) = self.k.wrote.take() {
                self.k.fault_marks.hit(FaultMark::CrashedAfterSend);
                self.crash(node, down_ms, true);
            }
            self.judge()?;
        }
        self.k.now = until.max(self.k.now);
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Node {
                node,
                incarnation,
                event,
            } => self.tell(node, incarnation, event),
            Event::Establish { conn } => self.k.establish(conn),
            Event::DialFailed { conn } => self.k.dial_failed(conn),
            Event::Deliver { conn, from } => self.k.deliver(conn, from),
            Event::Handed { conn, end } => self.k.handed(conn, end),
            Event::Reset { conn, end } => self.k.reset(conn, end),
            Event::Step(nth) => self.step(nth),
            Event::World(event) => self.appointment(event),
        }
    }

    fn tell(&mut self, node: NodeId, incarnation: u32, event: NodeEvent) {
        let k = &mut self.k;
        k.trace.fold(&[
            k.now.0,
            node as u64,
            code_of(&event),
            u64::from(incarnation),
        ]);
        if matches!(event, NodeEvent::Beside(_)) {
            return self.nodes[node].on(k, event);
        }
        if incarnation != k.incarnation(node) || !self.nodes[node].is_running() {
            return;
        }
        if let Some(waiting) = &mut self.paused[node] {
            waiting.push_back(event);
            return;
        }
        if k.trace.keeps() {
            k.trace.say(k.now, format_args!("{node}: {event:?}"));
        }
        self.nodes[node].on(k, event);
    }

    fn judge(&mut self) -> Result<(), Violation> {
        // Judging makes no records.
        let records = std::mem::take(&mut self.k.records);
        for (at, of, record) in &records {
            if self.k.trace.keeps() {
                self.k.trace.say(*at, format_args!("      {record:?}"));
            }
            for (mesh, Judges { oracles, view }) in self.judges.iter_mut().enumerate() {
                if of.is_some_and(|of| of != mesh) {
                    continue;
                }
                for oracle in oracles {
                    oracle
                        .see(*at, record, view)
                        .map_err(|what| violation(oracle.name(), what, *at))?;
                }
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.extend(records.into_iter().map(|(at, _, record)| (at, record)));
            return Ok(());
        }
        self.k.records = records;
        self.k.records.clear();
        Ok(())
    }

    fn halts(&mut self) -> Result<(), Violation> {
        for (node, halt) in std::mem::take(&mut self.k.halts) {
            match halt {
                Halt::Fenced if self.nodes[node].role() == NodeRole::Broker => {
                    self.stop_node(node, true);
                }
                Halt::Fenced => {
                    return Err(violation(
                        "store",
                        format!("node {node} was fenced from a store that is its own"),
                        self.k.now,
                    ));
                }
                Halt::Broken(what) => {
                    return Err(violation(
                        "store",
                        format!("node {node}: {what}"),
                        self.k.now,
                    ));
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, nth: usize) {
        let Step { id, action, .. } = self.plan.steps[nth].clone();
        if let Some(next) = self.plan.steps.get(nth + 1) {
            let at = Moment(0).plus_ms(next.at_ms);
            self.k.at(at, Event::Step(nth + 1));
        }
        if self.k.trace.keeps() {
            self.k
                .trace
                .say(self.k.now, format_args!("## {id:?} {action:?}"));
        }
        if self.healed {
            return;
        }
        self.k.trace.fold(&[0x57, u64::from(id.0)]);
        self.act(id, &action);
    }

    fn act(&mut self, id: StepId, action: &Action) {
        match action {
            Action::Cut {
                client,
                nth,
                all,
                cut,
                late_ms,
            } => {
                if let Some(node) = self.node_at(Place::Client(*client)) {
                    self.cut(node, *nth, *all, *cut, *late_ms);
                }
            }
            Action::Outage {
                client,
                outage,
                up,
                down,
                for_ms,
            } => {
                if let Some(node) = self.node_at(Place::Client(*client)) {
                    self.outage(node, *outage, *up, *down, *for_ms);
                }
            }
            Action::Dials {
                client,
                fault,
                for_ms,
            } => {
                let Some(node) = self.node_at(Place::Client(*client)) else {
                    return;
                };
                self.k.fault_marks.hit(match fault {
                    DialFault::Refused | DialFault::None => FaultMark::DialRefused,
                    DialFault::Hangs => FaultMark::DialHanging,
                    DialFault::Late => FaultMark::DialLate,
                });
                self.dials(node, *fault, *for_ms);
            }
            Action::Crash {
                place,
                down_ms,
                power_cut,
            } => {
                if let Some(node) = self.node_at(*place) {
                    self.crash(node, *down_ms, !power_cut);
                }
            }
            Action::CrashInFlight { place, down_ms } => {
                if let Some(node) = self.node_at(*place) {
                    self.crash_if_in_flight(node, *down_ms, CRASH_TRIES);
                }
            }
            Action::CrashAfterSend { place, down_ms } => {
                self.k.crash_on_write = self.node_at(*place).map(|node| (node, *down_ms));
            }
            Action::Stop {
                place,
                down_ms,
                killed_after_ms,
            } => {
                if let Some(node) = self.node_at(*place) {
                    self.begin_stop(node, *down_ms, *killed_after_ms);
                }
            }
            Action::Sleep { client, for_ms } => {
                if let Some(node) = self.node_at(Place::Client(*client)) {
                    self.sleep(node, *for_ms);
                }
            }
            Action::Storm { times } => {
                self.k.fault_marks.hit(FaultMark::ReconnectStorm);
                for nth in 0..*times {
                    let at = self.k.now.plus_ms(nth * STORM_EVERY_MS);
                    self.k.at(at, Event::World(WorldEvent::ResetAll));
                }
            }
            Action::Pause { place, for_ms } => {
                if let Some(node) = self.node_at(*place) {
                    self.pause(node, *for_ms);
                }
            }
            Action::TakeOver => self.take_over(id),
            Action::Miscount { client } => {
                let host = *client < self.plan.profile.hosts;
                if let Some(owner) = self.k.network.listener
                    && host
                    && self.nodes[owner].is_running()
                    && self.paused[owner].is_none()
                {
                    self.nodes[owner].act(&mut self.k, id, action);
                }
            }
            Action::WallStep { place, ms } => {
                // An hour forward and nothing is owed any more.
                let expires = self.plan.profile.undelivered_s.is_some();
                if let Some(node) = self
                    .node_at(*place)
                    .filter(|_| !(expires && *place == Place::Broker))
                {
                    self.k.fault_marks.hit(FaultMark::WallStepped);
                    self.k.clocks[node].step_wall(*ms);
                }
            }
            Action::Store {
                place,
                fault,
                for_ms,
            } => {
                if let Some(node) = self.node_at(*place) {
                    if *fault == StoreFault::Slow {
                        self.k.fault_marks.hit(FaultMark::StoreSlow);
                    }
                    self.nodes[node].set_store_fault(&mut self.k, Some(*fault));
                    let at = self.k.now.plus_ms(*for_ms);
                    self.k.at(at, Event::World(WorldEvent::StoreMends(node)));
                }
            }
            workload => {
                let node = self.actor(workload);
                if let Some(node) = node
                    && (self.nodes[node].role() == NodeRole::Host
                        || (self.nodes[node].is_running() && self.paused[node].is_none()))
                {
                    self.nodes[node].act(&mut self.k, id, workload);
                }
            }
        }
    }

    fn actor(&self, action: &Action) -> Option<NodeId> {
        let puppet = |puppet: usize| {
            (puppet < self.plan.profile.puppets)
                .then(|| self.first_client + self.plan.profile.hosts + puppet)
        };
        let user = |user: usize| {
            (user < self.plan.profile.users())
                .then(|| self.first_client + user / self.plan.profile.sessions_per_host)
        };
        match action {
            Action::PuppetSend { puppet: at, .. }
            | Action::PuppetRepeat { puppet: at, .. }
            | Action::PuppetSeen { puppet: at }
            | Action::PuppetAsk { puppet: at, .. }
            | Action::PuppetTag { puppet: at, .. }
            | Action::PuppetFlood { puppet: at, .. }
            | Action::PuppetStatus { puppet: at, .. }
            | Action::PuppetBye { puppet: at, .. }
            | Action::PuppetHoldAcks { puppet: at, .. }
            | Action::PuppetDeaf { puppet: at, .. }
            | Action::PuppetReplayHello { puppet: at }
            | Action::PuppetTwin { puppet: at }
            | Action::PuppetFalseAck { puppet: at, .. }
            | Action::PuppetEager { puppet: at, .. }
            | Action::PuppetForge { puppet: at, .. }
            | Action::PuppetQuiet { puppet: at, .. }
            | Action::PuppetModerate { puppet: at, .. }
            | Action::PuppetGarbage { puppet: at, .. } => puppet(*at),
            Action::UserSend { user: at, .. }
            | Action::UserRepeat { user: at, .. }
            | Action::UserFollow { user: at }
            | Action::UserDeaf { user: at, .. }
            | Action::UserLook { user: at }
            | Action::UserRead { user: at }
            | Action::UserExplain { user: at, .. }
            | Action::UserStranger { user: at }
            | Action::UserEnd { user: at, .. } => user(*at),
            _ => None,
        }
    }

    fn node_at(&self, place: Place) -> Option<NodeId> {
        match place {
            Place::Broker => self.k.network.listener,
            Place::Client(client) => {
                (client < self.plan.profile.clients()).then(|| self.first_client + client)
            }
        }
    }

    fn appointment(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Restart(node) => self.start_node(node),
            WorldEvent::Continue(node) => self.go_on(node),
            WorldEvent::DialsMend(node) => self.k.network.set_dial_fault(node, DialFault::None),
            WorldEvent::StoreMends(node) => self.nodes[node].set_store_fault(&mut self.k, None),
            WorldEvent::Stop(node) => {
                if self.k.network.listener != Some(node) {
                    self.stop_node(node, true);
                }
            }
            WorldEvent::CrashIfInFlight {
                node,
                down_ms,
                tries,
            } => self.crash_if_in_flight(node, down_ms, tries),
            WorldEvent::StopWhenDone(stop) => self.stop_when_done(stop),
            WorldEvent::ResetAll if self.healed => {}
            WorldEvent::ResetAll => {
                for node in self.first_client..self.nodes.len() {
                    self.cut(node, 0, true, Cut::Reset, 0);
                }
            }
            WorldEvent::Heal => self.heal(),
        }
    }

    fn start_node(&mut self, node: NodeId) {
        if self.nodes[node].is_running() {
            return;
        }
        let role = self.nodes[node].role();
        if role == NodeRole::Broker {
            let owner = self.k.network.listener;
            if owner.is_some_and(|owner| owner != node && self.nodes[owner].is_running()) {
                return;
            }
            self.k.network.listener = Some(node);
        }
        self.k.next_incarnation(node);
        self.paused[node] = None;
        self.nodes[node].start(&mut self.k);
        match role {
            NodeRole::Broker => {
                if !self.plan.profile.ages.suits(node) {
                    self.k.fault_marks.hit(FaultMark::BrokerUnsuited);
                }
                self.k.record(Record::OwnerStarted { node });
            }
            NodeRole::Host => self.k.record(Record::HostStarted { node }),
            NodeRole::Client => {}
        }
    }

    fn stop_node(&mut self, node: NodeId, told: bool) {
        if !self.nodes[node].is_running() {
            return;
        }
        self.paused[node] = None;
        self.nodes[node].stop(&mut self.k);
        self.k.drop_sockets(node, told);
        self.k.next_incarnation(node);
        match self.nodes[node].role() {
            NodeRole::Broker => self.k.record(Record::OwnerStopped { node }),
            NodeRole::Host => self.k.record(Record::HostStopped { node }),
            NodeRole::Client => {}
        }
    }

    fn crash(&mut self, node: NodeId, down_ms: u64, told: bool) {
        if !self.nodes[node].is_running() {
            return;
        }
        let marks = &mut self.k.fault_marks;
        match self.nodes[node].role() {
            NodeRole::Broker => marks.hit(FaultMark::BrokerCrashed),
            NodeRole::Host => marks.hit(FaultMark::HostCrashed),
            NodeRole::Client => {}
        }
        if !told {
            marks.hit(FaultMark::PowerCut);
        }
        if self.nodes[node].in_flight() > 0 {
            marks.hit(FaultMark::CrashWithTransactionsInFlight);
        }
        self.stop_node(node, told);
        let at = self.k.now.plus_ms(down_ms);
        self.k.at(at, Event::World(WorldEvent::Restart(node)));
    }

    /// As SIGTERM does; or, where it is killed, as whoever does not wait.
    fn begin_stop(&mut self, node: NodeId, down_ms: u64, killed_after_ms: Option<u64>) {
        if !self.nodes[node].is_running() || self.paused[node].is_some() {
            return;
        }
        match self.nodes[node].role() {
            NodeRole::Broker => {
                self.k.fault_marks.hit(FaultMark::BrokerStopped);
                self.k.network.listener = None;
            }
            NodeRole::Host => self.k.fault_marks.hit(FaultMark::HostStopped),
            NodeRole::Client => {}
        }
        self.nodes[node].begin_stop(&mut self.k);
        let patience_ms = killed_after_ms.unwrap_or(STOPS_WITHIN_MS);
        self.stop_when_done(Stop {
            node,
            incarnation: self.k.incarnation(node),
            until: self.k.now.plus_ms(patience_ms),
            killed: killed_after_ms.is_some(),
            down_ms,
        });
    }

    fn stop_when_done(&mut self, stop: Stop) {
        let node = stop.node;
        let is_same = self.k.incarnation(node) == stop.incarnation;
        if !is_same || !self.nodes[node].is_running() {
            return;
        }
        let is_done = self.nodes[node].is_done();
        if !is_done && self.k.now < stop.until && !self.healed {
            let at = self.k.now.plus_ms(STOP_CHECKED_EVERY_MS).min(stop.until);
            return self.k.at(at, Event::World(WorldEvent::StopWhenDone(stop)));
        }
        if !is_done && stop.killed {
            self.k.fault_marks.hit(FaultMark::KilledDuringDrain);
        }
        self.stop_node(node, true);
        let at = self.k.now.plus_ms(stop.down_ms);
        self.k.at(at, Event::World(WorldEvent::Restart(node)));
    }

    fn sleep(&mut self, node: NodeId, for_ms: u64) {
        self.k.fault_marks.hit(FaultMark::HostSlept);
        let until = self.k.now.plus_ms(for_ms);
        self.k.stall(node, true, true, until);
        self.pause(node, for_ms);
    }

    /// Crashes `node` at a moment at which it has something to lose.
    fn crash_if_in_flight(&mut self, node: NodeId, down_ms: u64, tries: u32) {
        if self.healed || !self.nodes[node].is_running() || tries == 0 {
            return;
        }
        if self.nodes[node].in_flight() > 0 {
            return self.crash(node, down_ms, true);
        }
        let wait_us = 1 + self
            .k
            .random
            .draw(Purpose::Action, node as u64, u64::from(tries))
            % 20_000;
        let tries = tries - 1;
        let event = WorldEvent::CrashIfInFlight {
            node,
            down_ms,
            tries,
        };
        self.k.at(self.k.now.plus_us(wait_us), Event::World(event));
    }

    fn pause(&mut self, node: NodeId, for_ms: u64) {
        if !self.nodes[node].is_running() || self.paused[node].is_some() {
            return;
        }
        self.paused[node] = Some(VecDeque::new());
        match self.nodes[node].role() {
            NodeRole::Broker => {
                self.k.fault_marks.hit(FaultMark::BrokerPaused);
                self.k.record(Record::OwnerPaused { node });
            }
            NodeRole::Host | NodeRole::Client => self.k.fault_marks.hit(FaultMark::HostPaused),
        }
        let at = self.k.now.plus_ms(for_ms);
        self.k.at(at, Event::World(WorldEvent::Continue(node)));
    }

    fn go_on(&mut self, node: NodeId) {
        let Some(waiting) = self.paused[node].take() else {
            return;
        };
        if self.nodes[node].role() == NodeRole::Broker {
            self.k.record(Record::OwnerContinued { node });
        }
        let incarnation = self.k.incarnation(node);
        for event in waiting {
            self.k.tell_now(node, incarnation, event);
        }
    }

    /// The spare broker takes the store while the owner still serves. An owner that never commits
    /// never learns of it, so that it is ended after a while.
    fn take_over(&mut self, id: StepId) {
        let Some(owner) = self.k.network.listener else {
            return;
        };
        let spare = 1 - owner;
        self.stop_node(spare, true);
        self.k.fault_marks.hit(FaultMark::SecondOwner);
        self.k.network.listener = None;
        self.start_node(spare);
        let lives_ms = self.k.random.draw(Purpose::Action, u64::from(id.0), 1) % 20_000;
        let at = self.k.now.plus_ms(lives_ms);
        self.k.at(at, Event::World(WorldEvent::Stop(owner)));
    }

    fn cut(&mut self, node: NodeId, nth: usize, all: bool, cut: Cut, late_ms: u64) {
        let open = self.k.network.open_connections(node);
        if open.is_empty() {
            return;
        }
        self.k.fault_marks.hit(match cut {
            Cut::Reset => FaultMark::ConnectionReset,
            Cut::Fin => FaultMark::ConnectionFin,
            Cut::HalfOpen => FaultMark::HalfOpenBoth,
            Cut::HalfOpenUp => FaultMark::HalfOpenUp,
            Cut::HalfOpenDown => FaultMark::HalfOpenDown,
            Cut::LateClose => FaultMark::CloseReportedLate,
        });
        if !all {
            return self.k.cut(open[nth % open.len()], cut, late_ms);
        }
        for conn in open {
            self.k.cut(conn, cut, late_ms);
        }
    }

    fn outage(&mut self, node: NodeId, outage: Outage, up: bool, down: bool, for_ms: u64) {
        if (80_000..=100_000).contains(&for_ms) {
            self.k.fault_marks.hit(FaultMark::OutageNearGrace);
        }
        match outage {
            Outage::Stall => {
                self.k.fault_marks.hit(if up && down {
                    FaultMark::Stalled
                } else {
                    FaultMark::StalledOneWay
                });
                let until = self.k.now.plus_ms(for_ms);
                self.k.stall(node, up, down, until);
            }
            Outage::Blackhole => {
                self.cut(node, 0, true, Cut::HalfOpen, 0);
                self.dials(node, DialFault::Hangs, for_ms);
            }
            Outage::Refuse => {
                self.cut(node, 0, true, Cut::Reset, 0);
                self.dials(node, DialFault::Refused, for_ms);
            }
        }
    }

    fn dials(&mut self, node: NodeId, fault: DialFault, for_ms: u64) {
        self.k.network.set_dial_fault(node, fault);
        let at = self.k.now.plus_ms(for_ms);
        self.k.at(at, Event::World(WorldEvent::DialsMend(node)));
    }

    /// Faults end: stores answer, packets pass, processes run, some of them after a restart. What is
    /// lost stays lost.
    fn heal(&mut self) {
        self.healed = true;
        self.k.crash_on_write = None;
        if self.k.trace.keeps() {
            self.k.trace.say(self.k.now, format_args!("## healed"));
        }
        self.k.heal_network();
        for node in 0..self.nodes.len() {
            self.nodes[node].set_store_fault(&mut self.k, None);
            self.k.clocks[node].right_wall();
            self.go_on(node);
        }
        // Whoever runs it puts back the broker that everybody can work with.
        let mut owner = self.k.network.listener.unwrap_or_default();
        if !self.plan.profile.ages.suits(owner) {
            self.stop_node(owner, true);
            owner = 1 - owner;
            // As an owner it starts anew: the stores are not its own any more.
            self.stop_node(owner, true);
            self.k.network.listener = Some(owner);
        }
        for node in 0..self.nodes.len() {
            let broker = self.nodes[node].role() == NodeRole::Broker;
            if broker && node != owner {
                self.stop_node(node, true);
                continue;
            }
            let draw = self.k.random.draw(Purpose::Action, node as u64, u64::MAX);
            if self.plan.profile.aftermath && draw % 1_000 < RESTARTED_PER_MILLE {
                self.stop_node(node, true);
            }
            self.start_node(node);
            self.nodes[node].heal(&mut self.k);
        }
    }
}

/// Compares what a live machine holds with what a restart would find.
///
/// # Errors
/// The first line that would be different.
pub fn same_durable(who: &str, live: &str, again: &str) -> Result<(), String> {
    let lines = live.lines().zip(again.lines());
    let different = lines.into_iter().find(|(live, again)| live != again);
    if live == again {
        return Ok(());
    }
    Err(match different {
        Some((live, again)) => {
            format!("{who} holds `{live}`, and would hold `{again}` after a restart")
        }
        None => format!("{who} would hold more or less after a restart"),
    })
}

/// The seed of a machine: of one life of one node.
#[must_use]
pub fn machine_seed(random: &Random, node: NodeId, incarnation: u32) -> [u8; 32] {
    random.bytes32(
        Purpose::MachineSeed,
        (node as u64) << 32 | u64::from(incarnation),
    )
}

fn violation(oracle: &str, what: String, at: Moment) -> Violation {
    Violation {
        oracle: oracle.into(),
        what,
        at_ms: at.0 / 1_000,
    }
}

/// For the hash: which event, and which connection where there is one.
fn code_of(event: &NodeEvent) -> u64 {
    match event {
        NodeEvent::Accepted(sock) => 1 << 40 | u64::from(sock.conn),
        NodeEvent::Connected(sock) => 2 << 40 | u64::from(sock.conn),
        NodeEvent::ConnectFailed(sock) => 3 << 40 | u64::from(sock.conn),
        NodeEvent::Received { sock, .. } => 4 << 40 | u64::from(sock.conn),
        NodeEvent::Handed { sock, bytes, .. } => 5 << 40 | u64::from(sock.conn) ^ bytes << 20,
        NodeEvent::Closed { sock, close } => {
            6 << 40 | u64::from(sock.conn) | u64::from(close.code) << 20
        }
        NodeEvent::Timer(slot) => 7 << 40 ^ slot.map_or(0, |slot| slot + 1),
        NodeEvent::Hop { queue, to_machine } => 8 << 40 ^ queue << 1 ^ u64::from(*to_machine),
        NodeEvent::Committed { store } => 9 << 40 ^ *store as u64,
        NodeEvent::Loaded { store, nth } => 10 << 40 ^ (*store as u64) << 32 ^ nth,
        NodeEvent::Process(what) => 11 << 40 ^ what,
        NodeEvent::Beside(what) => 12 << 40 ^ what,
    }
}

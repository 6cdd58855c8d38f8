//! Sets a world up for a plan: clocks, stores with what was there before, nodes, oracles.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bowline_core::limits::Limits;
use bowline_core::store::{host, mesh};
use bowline_core::wire::feature::INLINE_BYTES_LEAST;

use crate::broker::Broker;
use crate::cast::Cast;
use crate::clock::Clock;
use crate::host::HostNode;
use crate::kernel::{Kernel, NodeId};
use crate::network::Network;
use crate::oracle::{self, View};
use crate::plan::{Plan, Profile, Spare};
use crate::puppet::Puppet;
use crate::random::{Purpose, Random};
use crate::store::{Durable, Shared};
use crate::tape::Tapes;
use crate::trace::Trace;
use crate::world::{Judges, Node, Outcome, World};

/// The two brokers stand first; the second one waits for a take-over.
pub const FIRST_CLIENT: NodeId = 2;

/// A bug that is planted on purpose, to see it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Planted {
    #[default]
    Nothing,
    /// The broker's store says that it is durable and drops one delivery in ten.
    DroppedDelivery,
}

/// Runs a plan with every oracle there is.
#[must_use]
pub fn run(plan: &Plan, keep_trace: bool, planted: Planted) -> Outcome {
    world(plan, keep_trace, planted).run()
}

/// The same, and keeps every record.
#[must_use]
pub fn run_recorded(plan: &Plan, planted: Planted) -> Outcome {
    world(plan, true, planted).keeping_records().run()
}

/// The same as [`run`], and tapes what every owner was told and said.
#[must_use]
pub fn run_taped(plan: &Plan) -> (Outcome, Tapes) {
    let tapes = Tapes::default();
    let mut world = world(plan, false, Planted::Nothing);
    world.k.tapes = Some(tapes.clone());
    (world.run(), tapes)
}

fn world(plan: &Plan, keep_trace: bool, planted: Planted) -> World {
    let random = Random::new(plan.seed);
    let profile = plan.profile.clone();
    let limits = limits(&profile);
    let casts: Vec<Rc<Cast>> = (0..profile.meshes)
        .map(|mesh| Rc::new(Cast::of(&profile, &random, mesh)))
        .collect();
    let nodes_count = FIRST_CLIENT + profile.clients();
    let clocks = (0..nodes_count)
        .map(|node| clock(&random, &profile, node))
        .collect();
    let network = Network::new(profile.network.clone(), nodes_count);
    let kernel = Kernel::new(random, network, clocks, Trace::new(keep_trace));
    let mesh_stores: Vec<_> = casts.iter().map(|cast| mesh_store(cast)).collect();
    let host_stores: Vec<Shared<host::Image>> = (0..profile.hosts)
        .map(|host| host_store(&casts, &profile, host))
        .collect();

    let mut nodes: Vec<Box<dyn Node>> = Vec::new();
    for node in 0..FIRST_CLIENT {
        nodes.push(Box::new(Broker::new(
            node,
            casts.clone(),
            profile.clone(),
            limits_of_broker(node, &profile, &limits),
            mesh_stores.clone(),
            planted,
        )));
    }
    for (host, store) in host_stores.iter().enumerate() {
        nodes.push(Box::new(HostNode::new(
            FIRST_CLIENT + host,
            host,
            casts.clone(),
            profile.clone(),
            limits.clone(),
            Rc::clone(store),
            random.stream(Purpose::Ipc, host as u64),
        )));
    }
    for puppet in 0..profile.puppets {
        let mesh = profile.mesh_of(profile.users() + puppet);
        nodes.push(Box::new(Puppet::new(
            FIRST_CLIENT + profile.hosts + puppet,
            puppet,
            Rc::clone(&casts[mesh]),
            profile.clone(),
            host_stores.clone(),
        )));
    }
    let judges = casts
        .into_iter()
        .zip(mesh_stores)
        .map(|(cast, mesh)| Judges {
            oracles: oracle::all(),
            view: View {
                profile: profile.clone(),
                limits: limits.clone(),
                cast,
                mesh,
                hosts: host_stores.clone(),
                first_client: FIRST_CLIENT,
            },
        });
    let judges = judges.collect();
    World::new(plan.clone(), kernel, nodes, FIRST_CLIENT, judges)
}

/// What a run sets of core's limits.
#[must_use]
pub fn limits(profile: &Profile) -> Limits {
    let undelivered_for = profile
        .undelivered_s
        .map_or(Limits::default().undelivered_for, Duration::from_secs);
    if !profile.tiny_limits {
        return Limits {
            undelivered_for,
            ..Limits::default()
        };
    }
    Limits {
        ring_events: 4,
        window_messages: 2,
        dedupe_cache: 8,
        queued_bytes: 8 * 1024,
        subscriber_events: 8,
        sends_per_second: 5,
        sends_burst: 10,
        look_ups_per_second: 5,
        look_ups_burst: 10,
        owed_messages: 12,
        owed_in_memory: 3,
        undelivered_for,
        ..Limits::default()
    }
}

/// The second broker is the one that waits for a take-over.
fn limits_of_broker(node: NodeId, profile: &Profile, limits: &Limits) -> Limits {
    let limits = limits.clone();
    match profile.spare {
        Spare::OtherNumbers if node > 0 => Limits {
            window_messages: limits.window_messages.div_ceil(2),
            inline_bytes: limits.inline_bytes + 1_000,
            sends_per_second: 2 * limits.sends_per_second,
            dedupe_retention_days: 2 * limits.dedupe_retention_days,
            ..limits
        },
        Spare::BelowTheFloors if node > 0 => Limits {
            inline_bytes: INLINE_BYTES_LEAST - 1,
            ..limits
        },
        _ => limits,
    }
}

fn clock(random: &Random, profile: &Profile, node: NodeId) -> Clock {
    let mut draws = random.stream(Purpose::ClockRate, node as u64);
    let most = profile.clock_rate_most_ppm;
    let rate = draws.below(2 * most + 1) as i64 - most as i64;
    let boot_us = random.draw(Purpose::ClockBoot, node as u64, 0)
        % u64::try_from(Duration::from_secs(30 * 24 * 3600).as_micros()).unwrap_or(1);
    Clock::new(boot_us, rate)
}

fn mesh_store(cast: &Cast) -> Shared<mesh::Image> {
    let mut image = mesh::Image::default();
    for row in cast.member_rows() {
        image.apply(&mesh::Op::MemberPut(row));
    }
    Rc::new(RefCell::new(Durable {
        image,
        owner: bowline_core::store::Owner::default(),
        fault: None,
    }))
}

fn host_store(casts: &[Rc<Cast>], profile: &Profile, host: usize) -> Shared<host::Image> {
    let mut image = host::Image::default();
    for cast in casts {
        image.apply(&HostNode::joined(cast, profile, host));
    }
    Rc::new(RefCell::new(Durable {
        image,
        ..Durable::default()
    }))
}

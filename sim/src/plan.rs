//! A run is data: what the world is like, and what is done to it when. Generated from a seed, kept
//! in a file, taken apart by the shrinker; the same plan is the same run.

use bowline_core::wire::{Priority, Status};
use serde::{Deserialize, Serialize};

use crate::age::Ages;
use crate::cast::MeshIndex;
use crate::network::{Cut, DialFault, NetworkProfile};
use crate::random::{Purpose, Random, Stream};
use crate::store::{StoreFault, StoreProfile};
use crate::swarm::{KINDS, Swarm};

/// Names a step for good: draws are keyed by it, so that the steps before it can be left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    /// In order of time.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    pub at_ms: u64,
    pub action: Action,
}

/// The knobs of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Daemons, each with a `Host` and its sessions.
    pub hosts: usize,
    pub sessions_per_host: usize,
    /// Scripted clients that speak frames through a `ClientLink`, without a daemon.
    pub puppets: usize,
    /// Of one broker. Hosts are in all of them, each session and each puppet is in one.
    #[serde(default = "once")]
    pub meshes: usize,
    pub real_crypto: bool,
    /// Ring 4, window 2, cache 8, short backlog.
    pub tiny_limits: bool,
    pub network: NetworkProfile,
    pub broker_store: StoreProfile,
    pub host_store: StoreProfile,
    pub hop_most_us: u64,
    pub timer_late_most_us: u64,
    /// How many of a thousand early timer events are told to the machine as a spurious time-out.
    pub spurious_per_mille: u64,
    pub clock_rate_most_ppm: u64,
    /// The safety phase; then everything heals.
    pub safety_ms: u64,
    /// What the broker that waits for a take-over can do.
    #[serde(default)]
    pub spare: Spare,
    /// Which side is of which age.
    #[serde(default)]
    pub ages: Ages,
    /// How long a message waits for its recipient, where that is short.
    #[serde(default)]
    pub undelivered_s: Option<u64>,
    /// Some restart while it heals, and everybody sends once more when all has converged.
    #[serde(default = "by_default")]
    pub aftermath: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spare {
    #[default]
    Same,
    /// It announces other numbers, which suit every daemon.
    OtherNumbers,
    /// No daemon can work with it.
    BelowTheFloors,
}

/// What a puppet asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// `explain`, of what it sent.
    WhySent,
    /// `explain`, of what it was pushed.
    WhyPushed,
    /// `explain`, of what nobody sent.
    WhyNothing,
    /// `message_status`, of what it sent, by the whole id that the `ack` told.
    Status,
    /// The same by the beginning of the id.
    StatusOfPrefix,
    /// `message_status`, of what it was pushed: not its to ask.
    StatusPushed,
}

/// Where a process runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Whoever owns the mesh at that moment.
    Broker,
    /// Hosts first, then puppets.
    Client(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// Packets wait; nobody is told.
    Stall,
    /// Packets are lost for good, and so is every connection; dials hang.
    Blackhole,
    /// Connections are reset, dials refused.
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moderation {
    Kick,
    KickByName,
    KickStale,
    KickAll,
    Disconnect,
    /// Until it is taken back.
    Ban,
    ListBans,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    // What puppets do. `puppet` counts from 0; `to` counts users first, then puppets.
    PuppetSend {
        puppet: usize,
        to: usize,
        bytes: usize,
        priority: Priority,
        first: bool,
    },
    /// Sends one of its earlier messages again, as it was or with another content under its id.
    PuppetRepeat {
        puppet: usize,
        nth: usize,
        altered: bool,
    },
    /// Says that it has seen what it was pushed so far.
    PuppetSeen {
        puppet: usize,
    },
    /// Asks where one of its messages is, or one that it was pushed, or one that is not.
    PuppetAsk {
        puppet: usize,
        nth: usize,
        what: Ask,
    },
    /// Changes its profile, which everybody is told, so many times.
    PuppetTag {
        puppet: usize,
        #[serde(default = "once")]
        times: usize,
    },
    /// Sends so many messages at once.
    PuppetFlood {
        puppet: usize,
        to: usize,
        times: usize,
    },
    PuppetStatus {
        puppet: usize,
        status: Status,
    },
    PuppetBye {
        puppet: usize,
        back_after_ms: u64,
    },
    /// Receives, but acknowledges nothing for a while.
    PuppetHoldAcks {
        puppet: usize,
        for_ms: u64,
    },
    /// Stops reading for a while.
    PuppetDeaf {
        puppet: usize,
        for_ms: u64,
    },
    /// Says its last hello once more, byte for byte, on a connection of its own.
    PuppetReplayHello {
        puppet: usize,
    },
    /// Opens a second connection while it has one.
    PuppetTwin {
        puppet: usize,
    },
    /// Says hello, as itself or with a user's stolen key, and at once more than a hello.
    PuppetEager {
        puppet: usize,
        user: Option<usize>,
    },
    /// Sends a user what does not open.
    PuppetForge {
        puppet: usize,
        user: usize,
    },
    /// Acknowledges what it was never owed.
    PuppetFalseAck {
        puppet: usize,
        of: usize,
    },
    /// Sends what is not a frame.
    PuppetGarbage {
        puppet: usize,
        kind: usize,
    },

    /// Opens a connection for sending only, sends, and closes it. `stranger`: as a key that never
    /// holds a lease.
    PuppetQuiet {
        puppet: usize,
        to: usize,
        stranger: bool,
        /// Twice at once, so that the newer replaces the older.
        twice: bool,
        /// Says also what may not be said there.
        nosy: bool,
        for_ms: u64,
    },
    /// Wants others put out: those who are no admins are refused.
    PuppetModerate {
        puppet: usize,
        what: Moderation,
        /// Users first, then puppets, then control planes of hosts and of puppets.
        of: usize,
        for_ms: u64,
    },

    // What the programs behind a daemon do. `user` counts sessions over all hosts.
    UserSend {
        user: usize,
        to: usize,
        bytes: usize,
        priority: Priority,
        keyed: bool,
    },
    /// Asks for one of its earlier sends again, under the same key.
    UserRepeat {
        user: usize,
        nth: usize,
        altered: bool,
    },
    /// Leaves its event stream and takes it up again.
    UserFollow {
        user: usize,
    },
    /// Stops reading its event stream for a while.
    UserDeaf {
        user: usize,
        for_ms: u64,
    },
    /// Reads inbox, outbox and peers.
    UserLook {
        user: usize,
    },
    /// Reads what is unread, and says so.
    UserRead {
        user: usize,
    },
    /// Asks where one of its messages is, and why.
    UserExplain {
        user: usize,
        nth: usize,
    },
    /// Comes with a token that nobody has, for an event stream and for an inbox.
    UserStranger {
        user: usize,
    },
    UserEnd {
        user: usize,
        back_after_ms: u64,
    },

    // What befalls them.
    Cut {
        client: usize,
        nth: usize,
        all: bool,
        cut: Cut,
        late_ms: u64,
    },
    Outage {
        client: usize,
        outage: Outage,
        up: bool,
        down: bool,
        for_ms: u64,
    },
    Dials {
        client: usize,
        fault: DialFault,
        for_ms: u64,
    },
    Crash {
        place: Place,
        down_ms: u64,
        power_cut: bool,
    },
    /// Waits for a transaction in flight at that place, then crashes it.
    CrashInFlight {
        place: Place,
        down_ms: u64,
    },
    /// Waits for the next frame that the process there writes, and crashes it.
    CrashAfterSend {
        place: Place,
        down_ms: u64,
    },
    /// Ends a process in good order: it takes nothing new, and finishes what it has. Or it is
    /// killed before it could.
    Stop {
        place: Place,
        down_ms: u64,
        killed_after_ms: Option<u64>,
    },
    Pause {
        place: Place,
        for_ms: u64,
    },
    /// A laptop's lid is closed: nothing runs, nothing comes or goes, and time goes on.
    Sleep {
        client: usize,
        for_ms: u64,
    },
    /// Every connection is reset, again and again.
    Storm {
        times: u64,
    },
    /// The broker tells a host a count of its stream that is not so.
    Miscount {
        client: usize,
    },
    /// Another broker takes the mesh over while the first one believes that it owns it.
    TakeOver,
    WallStep {
        place: Place,
        ms: i64,
    },
    Store {
        place: Place,
        fault: StoreFault,
        for_ms: u64,
    },
}

/// Of plans that do not say how often, or how many.
fn once() -> usize {
    1
}

fn by_default() -> bool {
    true
}

impl Plan {
    /// The plan of a seed: which faults exist and how hard they are is drawn first, then the steps.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let random = Random::new(seed);
        let mut draws = random.stream(Purpose::Profile, 0);
        let mut profile = Profile::draw(&mut draws, seed);
        if random
            .stream(Purpose::Profile, 1)
            .chance(TWO_MESHES_PER_MILLE)
        {
            profile.meshes = 2;
        }
        if random.stream(Purpose::Profile, 2).chance(500) {
            profile.spare = Spare::OtherNumbers;
        }
        if random
            .stream(Purpose::Profile, 3)
            .chance(TIMERS_ON_TIME_PER_MILLE)
        {
            profile.timer_late_most_us = 0;
        }
        let mut ages = random.stream(Purpose::Profile, 4);
        profile.ages = Ages::draw(&mut ages, profile.hosts, profile.puppets);
        let mut retention = random.stream(Purpose::Profile, 5);
        if retention.chance(SHORT_RETENTION_PER_MILLE) {
            profile.undelivered_s = Some(retention.between(60, 400));
        }
        let mut steps = Vec::new();
        Swarm::draw(&mut draws).steps(&random, &profile, &mut steps);
        if profile.ages.brokers_differ() {
            take_over_twice(&mut ages, &profile, &mut steps);
        }
        steps.sort_by_key(|step: &Step| (step.at_ms, step.id));
        Self {
            seed,
            profile,
            steps,
        }
    }
}

/// To the other broker late, and back.
fn take_over_twice(draws: &mut Stream, profile: &Profile, steps: &mut Vec<Step>) {
    let first_ms = draws.between(profile.safety_ms / 2, profile.safety_ms);
    let second_ms = draws.between(first_ms, profile.safety_ms + 10_000);
    for at_ms in [first_ms, second_ms] {
        steps.push(Step {
            id: StepId(steps.len() as u32 + 1),
            at_ms,
            action: Action::TakeOver,
        });
    }
}

/// How many of a thousand runs have two meshes.
const TWO_MESHES_PER_MILLE: u64 = 250;
/// In how many of a thousand a message is not kept for days.
const SHORT_RETENTION_PER_MILLE: u64 = 150;
/// In how many of a thousand timers fire when they are due, to the microsecond.
const TIMERS_ON_TIME_PER_MILLE: u64 = 150;
/// Of a plan that a fuzzer makes up: many steps say no more than some, and cost more.
const STEPS_OF_BYTES_MOST: usize = 48;

impl Plan {
    /// A plan out of any bytes: four of the world, then seven a step, its kind, when, and what of.
    /// What a byte changes stays near it, so that a fuzzer can find its way.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut head = [0; 4];
        let (given, rest) = bytes.split_at(bytes.len().min(head.len()));
        head[..given.len()].copy_from_slice(given);
        let seed = u64::from(head[0]);
        let random = Random::new(seed);
        let profile = Profile {
            tiny_limits: head[3] % 2 == 0,
            meshes: 1 + usize::from(head[3] / 2 % 2),
            clock_rate_most_ppm: 5_000,
            safety_ms: 150_000,
            aftermath: true,
            ..Profile::calm(
                1 + usize::from(head[1] % 2),
                1 + usize::from(head[1] / 2 % 2),
                1 + usize::from(head[2] % 2),
            )
        };
        let swarm = Swarm::draw(&mut random.stream(Purpose::Profile, 0));
        let mut steps: Vec<Step> = Vec::new();
        for (nth, step) in rest.chunks_exact(7).take(STEPS_OF_BYTES_MOST).enumerate() {
            let make = KINDS[usize::from(step[0]) % KINDS.len()];
            let at = u64::from(u16::from_be_bytes([step[1], step[2]]));
            let of = u32::from_be_bytes([step[3], step[4], step[5], step[6]]);
            let mut draws = random.stream(Purpose::Plan, u64::from(of));
            if let Some(action) = make(&swarm, &mut draws, &profile) {
                steps.push(Step {
                    id: StepId(nth as u32 + 1),
                    at_ms: 3_000 + at * (profile.safety_ms - 3_000) / u64::from(u16::MAX),
                    action,
                });
            }
        }
        steps.sort_by_key(|step| (step.at_ms, step.id));
        Self {
            seed,
            profile,
            steps,
        }
    }
}

impl Profile {
    #[must_use]
    pub fn clients(&self) -> usize {
        self.hosts + self.puppets
    }

    #[must_use]
    pub fn users(&self) -> usize {
        self.hosts * self.sessions_per_host
    }

    /// Where a session or a puppet is: users first, then puppets.
    #[must_use]
    pub fn mesh_of(&self, party: usize) -> MeshIndex {
        party.checked_sub(self.users()).unwrap_or(party) % self.meshes
    }

    /// Nothing ever goes wrong by itself: for scenarios that say themselves what goes wrong.
    #[must_use]
    pub fn calm(hosts: usize, sessions_per_host: usize, puppets: usize) -> Self {
        let store = StoreProfile {
            commit_least_us: 1_000,
            commit_most_us: 3_000,
            group_most: 64,
        };
        Self {
            hosts,
            sessions_per_host,
            puppets,
            meshes: 1,
            real_crypto: false,
            tiny_limits: false,
            network: NetworkProfile {
                latency_least_us: 500,
                latency_most_us: 2_000,
                socket_buffer_bytes: 64 * 1024,
            },
            broker_store: store.clone(),
            host_store: store,
            hop_most_us: 100,
            timer_late_most_us: 500,
            spurious_per_mille: 100,
            clock_rate_most_ppm: 0,
            safety_ms: 60_000,
            spare: Spare::Same,
            ages: Ages::default(),
            undelivered_s: None,
            aftermath: false,
        }
    }

    fn draw(draws: &mut Stream, seed: u64) -> Self {
        let store = |draws: &mut Stream| {
            let least = draws.magnitude(200, 20_000);
            let most = if draws.chance(100) {
                draws.magnitude(1_000_000, 5_000_000)
            } else {
                draws.magnitude(1_000, 200_000)
            };
            StoreProfile {
                commit_least_us: least,
                commit_most_us: most.max(least),
                group_most: *draws.pick(&[1, 4, 64]),
            }
        };
        let hosts = draws.between(1, 3) as usize;
        let least = draws.magnitude(100, 20_000);
        Self {
            hosts,
            sessions_per_host: draws.between(1, 2) as usize,
            puppets: draws.between(1, 3) as usize,
            meshes: 1,
            real_crypto: seed.is_multiple_of(8),
            tiny_limits: draws.chance(500),
            network: NetworkProfile {
                latency_least_us: least,
                latency_most_us: least + draws.magnitude(100, 300_000),
                socket_buffer_bytes: draws.magnitude(2_000, 200_000),
            },
            broker_store: store(draws),
            host_store: store(draws),
            hop_most_us: draws.magnitude(1, 20_000),
            timer_late_most_us: draws.magnitude(1, 50_000),
            spurious_per_mille: draws.between(0, 300),
            clock_rate_most_ppm: draws.between(0, 10_000),
            // One in thirty is long enough for `working` to lapse.
            safety_ms: if draws.chance(33) {
                draws.between(700_000, 900_000)
            } else {
                draws.between(120_000, 360_000)
            },
            spare: Spare::Same,
            ages: Ages::default(),
            undelivered_s: None,
            aftermath: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_file_and_depends_on_its_seed_only() {
        let plan = Plan::of_seed(11);
        let json = serde_json::to_string(&plan).expect("plans serialise");
        let read: Plan = serde_json::from_str(&json).expect("plans deserialise");
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!(serde_json::to_string(&Plan::of_seed(11)).unwrap(), json);
        assert_ne!(serde_json::to_string(&Plan::of_seed(12)).unwrap(), json);
    }

    #[test]
    fn steps_have_ids_of_their_own_and_are_in_order() {
        let plan = Plan::of_seed(3);
        let mut ids: Vec<StepId> = plan.steps.iter().map(|step| step.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), plan.steps.len());
        assert!(plan.steps.is_sorted_by_key(|step| step.at_ms));
    }
}

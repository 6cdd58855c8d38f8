//! A run is data: what the world is like, and what is done to it when. Generated from a seed, kept
//! in a file, taken apart by the shrinker; the same plan is the same run.

use std::time::Duration;

use bowline_core::limits::WORKING_LAPSES_AFTER;
use bowline_core::wire::{Priority, Status};
use serde::{Deserialize, Serialize};

use crate::cast::MeshIndex;
use crate::network::{Cut, DialFault, NetworkProfile};
use crate::random::{Purpose, Random, Stream};
use crate::store::{StoreFault, StoreProfile};

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
        let mut steps = Vec::new();
        Swarm::draw(&mut draws).steps(&random, &profile, &mut steps);
        steps.sort_by_key(|step: &Step| (step.at_ms, step.id));
        Self {
            seed,
            profile,
            steps,
        }
    }
}

/// How many of a thousand runs have two meshes.
const TWO_MESHES_PER_MILLE: u64 = 250;
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
            aftermath: true,
        }
    }
}

/// How often each thing happens in a run, per 100 s of its safety phase. 0: it does not exist.
struct Swarm {
    cuts: u64,
    outages: u64,
    outages_near_grace: bool,
    dials: u64,
    crashes: u64,
    pauses: u64,
    take_overs: u64,
    wall_steps: u64,
    store_faults: u64,
    sends: u64,
    repeats: u64,
    tags: u64,
    statuses: u64,
    byes: u64,
    mischief: u64,
    follows: u64,
    scenes: u64,
    impostors: u64,
    large_bodies: bool,
    crashes_after_send: u64,
    stops: u64,
    sleeps: u64,
    storms: u64,
    floods: u64,
}

type Make = fn(&Swarm, &mut Stream, &Profile) -> Option<Action>;

/// The kinds of steps, in the order in which they are drawn.
const KINDS: [Make; 21] = [
    Swarm::cut,
    Swarm::outage,
    Swarm::dials,
    Swarm::crash,
    Swarm::pause,
    Swarm::take_over,
    Swarm::wall_step,
    Swarm::store_fault,
    Swarm::tag,
    Swarm::status,
    Swarm::bye,
    Swarm::mischief,
    Swarm::follow,
    Swarm::repeat,
    Swarm::send,
    Swarm::impostor,
    Swarm::crash_after_send,
    Swarm::stop,
    Swarm::sleep,
    Swarm::storm,
    Swarm::flood,
];
/// The place of impostors among them.
const IMPOSTORS: usize = 15;
/// What happens once where it happens.
const ONE_BY_ONE: std::ops::Range<usize> = IMPOSTORS..KINDS.len();
/// The draws of scenes, beside those of the kinds.
const SCENES: u64 = 1_000;

impl Swarm {
    fn draw(draws: &mut Stream) -> Self {
        let mut sometimes = |per_mille: u64, most: u64| {
            if draws.chance(per_mille) {
                draws.between(1, most)
            } else {
                0
            }
        };
        Self {
            cuts: sometimes(700, 12),
            outages: sometimes(500, 3),
            outages_near_grace: sometimes(600, 1) == 1,
            dials: sometimes(400, 4),
            crashes: sometimes(500, 3),
            pauses: sometimes(300, 2),
            take_overs: sometimes(120, 1),
            wall_steps: sometimes(200, 2),
            store_faults: sometimes(400, 4),
            sends: sometimes(950, 40),
            repeats: sometimes(500, 8),
            tags: sometimes(800, 20),
            statuses: sometimes(400, 6),
            byes: sometimes(250, 2),
            mischief: sometimes(400, 4),
            follows: sometimes(500, 5),
            scenes: sometimes(300, 2),
            impostors: sometimes(100, 1),
            large_bodies: sometimes(100, 1) == 1,
            crashes_after_send: sometimes(200, 2),
            stops: sometimes(250, 2),
            sleeps: sometimes(150, 1),
            storms: sometimes(80, 1),
            floods: sometimes(100, 1),
        }
    }

    fn steps(&self, random: &Random, profile: &Profile, steps: &mut Vec<Step>) {
        // Long enough for `working` to lapse, unless it is repeated or taken back.
        let lapses = WORKING_LAPSES_AFTER < Duration::from_millis(profile.safety_ms - 30_000);
        if lapses {
            steps.push(Step {
                id: StepId(1),
                at_ms: 5_000,
                action: Action::PuppetStatus {
                    puppet: 0,
                    status: Status::Working,
                },
            });
        }
        let statuses = if lapses { 0 } else { self.statuses };
        let per_100_s: [u64; KINDS.len()] = [
            self.cuts,
            self.outages,
            self.dials,
            self.crashes,
            self.pauses,
            self.take_overs,
            self.wall_steps,
            self.store_faults,
            self.tags,
            statuses,
            self.byes,
            self.mischief,
            self.follows,
            self.repeats,
            self.sends,
            self.impostors,
            self.crashes_after_send,
            self.stops,
            self.sleeps,
            self.storms,
            self.floods,
        ];
        for (kind, (per_100_s, make)) in per_100_s.iter().zip(KINDS).enumerate() {
            let mut draws = random.stream(Purpose::Plan, kind as u64);
            let most = if kind == IMPOSTORS { 2 } else { u64::MAX };
            let count = (per_100_s * profile.safety_ms / 100_000).min(most);
            for _ in 0..count {
                let at_ms = draws.between(3_000, profile.safety_ms);
                // A burst now and then: what is done once is done several times at once.
                let times = if !ONE_BY_ONE.contains(&kind) && draws.chance(30) {
                    draws.between(2, 12)
                } else {
                    1
                };
                for nth in 0..times {
                    if let Some(action) = make(self, &mut draws, profile) {
                        steps.push(Step {
                            id: StepId(steps.len() as u32 + 1),
                            at_ms: at_ms + nth * draws.below(30),
                            action,
                        });
                    }
                }
            }
        }
        let mut draws = random.stream(Purpose::Plan, SCENES);
        for _ in 0..self.scenes * profile.safety_ms / 100_000 {
            let at_ms = draws.between(3_000, profile.safety_ms);
            let scene = if draws.chance(500) {
                Self::redelivery_to_a_slow_disk(&mut draws, profile)
            } else {
                Self::late_acks_beyond_the_window(&mut draws, profile)
            };
            for (after_ms, action) in scene {
                steps.push(Step {
                    id: StepId(steps.len() as u32 + 1),
                    at_ms: at_ms + after_ms,
                    action,
                });
            }
        }
    }

    /// Mail to a host whose disk does not take it yet comes a second time over a new connection.
    fn redelivery_to_a_slow_disk(draws: &mut Stream, profile: &Profile) -> Vec<(u64, Action)> {
        let Some(user) = Self::user(draws, profile) else {
            return Vec::new();
        };
        let client = user / profile.sessions_per_host;
        let puppet = Self::puppet(draws, profile);
        let disk = Action::Store {
            place: Place::Client(client),
            fault: *draws.pick(&[StoreFault::Unavailable, StoreFault::Slow, StoreFault::Full]),
            for_ms: draws.between(4_000, 25_000),
        };
        let mail = Action::PuppetSend {
            puppet,
            to: user,
            bytes: 40,
            priority: Priority::Now,
            first: true,
        };
        let cut = Action::Cut {
            client,
            nth: 0,
            all: true,
            cut: *draws.pick(&[Cut::Reset, Cut::Fin]),
            late_ms: 0,
        };
        let cut_ms = draws.between(300, 3_000);
        vec![(0, disk), (50, mail.clone()), (60, mail), (cut_ms, cut)]
    }

    /// What was pushed out of turn is acknowledged when a narrow window holds what was not.
    fn late_acks_beyond_the_window(draws: &mut Stream, profile: &Profile) -> Vec<(u64, Action)> {
        let puppet = Self::puppet(draws, profile);
        let Some(user) = Self::user(draws, profile) else {
            return Vec::new();
        };
        let mail = |priority: Priority| Action::UserSend {
            user,
            to: profile.users() + puppet,
            bytes: 40,
            priority,
            keyed: false,
        };
        let status = |status: Status| Action::PuppetStatus { puppet, status };
        let hold = Action::PuppetHoldAcks {
            puppet,
            for_ms: 20_000,
        };
        let cut = Action::Cut {
            client: profile.hosts + puppet,
            nth: 0,
            all: true,
            cut: Cut::Reset,
            late_ms: 0,
        };
        vec![
            (0, status(Status::Dnd)),
            (0, hold),
            (500, mail(Priority::Next)),
            (600, mail(Priority::Low)),
            (2_500, mail(Priority::Now)),
            (5_000, status(Status::Idle)),
            (7_000, cut),
        ]
    }

    fn place(draws: &mut Stream, profile: &Profile) -> Place {
        if draws.chance(450) {
            Place::Broker
        } else {
            Place::Client(draws.below(profile.clients() as u64) as usize)
        }
    }

    fn client(draws: &mut Stream, profile: &Profile) -> usize {
        draws.below(profile.clients() as u64) as usize
    }

    fn puppet(draws: &mut Stream, profile: &Profile) -> usize {
        draws.below(profile.puppets as u64) as usize
    }

    fn user(draws: &mut Stream, profile: &Profile) -> Option<usize> {
        (profile.users() > 0).then(|| draws.below(profile.users() as u64) as usize)
    }

    /// Users first, then puppets; now and then one whom nobody knows.
    fn addressee(draws: &mut Stream, profile: &Profile) -> usize {
        let known = (profile.users() + profile.puppets) as u64;
        let strangers = u64::from(draws.chance(20));
        draws.below(known * (1 - strangers)) as usize + (known * strangers) as usize
    }

    /// Rarely, and twice at most: after three duels a daemon gives up, as it should.
    fn impostor(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::PuppetEager {
            puppet: Self::puppet(draws, profile),
            user: Some(Self::user(draws, profile)?),
        })
    }

    fn cut(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let cuts = [
            Cut::Reset,
            Cut::Fin,
            Cut::HalfOpen,
            Cut::HalfOpenUp,
            Cut::HalfOpenDown,
            Cut::LateClose,
        ];
        Some(Action::Cut {
            client: Self::client(draws, profile),
            nth: draws.below(8) as usize,
            all: draws.chance(300),
            cut: *draws.pick(&cuts),
            late_ms: draws.magnitude(500, 200_000),
        })
    }

    fn outage(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let for_ms = if self.outages_near_grace && draws.chance(500) {
            draws.between(80_000, 100_000)
        } else {
            draws.magnitude(200, 200_000)
        };
        let way = draws.below(4);
        Some(Action::Outage {
            client: Self::client(draws, profile),
            outage: *draws.pick(&[Outage::Stall, Outage::Blackhole, Outage::Refuse]),
            up: way != 1,
            down: way != 2,
            for_ms,
        })
    }

    fn dials(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::Dials {
            client: Self::client(draws, profile),
            fault: *draws.pick(&[DialFault::Refused, DialFault::Hangs, DialFault::Late]),
            for_ms: draws.magnitude(1_000, 60_000),
        })
    }

    fn crash(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let place = Self::place(draws, profile);
        let down_ms = draws.magnitude(50, 30_000);
        if draws.chance(500) {
            return Some(Action::CrashInFlight { place, down_ms });
        }
        Some(Action::Crash {
            place,
            down_ms,
            power_cut: draws.chance(300),
        })
    }

    fn crash_after_send(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::CrashAfterSend {
            place: Self::place(draws, profile),
            down_ms: draws.magnitude(50, 30_000),
        })
    }

    fn stop(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::Stop {
            place: Self::place(draws, profile),
            down_ms: draws.magnitude(50, 30_000),
            killed_after_ms: draws.chance(300).then(|| draws.magnitude(1, 3_000)),
        })
    }

    fn sleep(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::Sleep {
            client: Self::client(draws, profile),
            for_ms: draws.magnitude(5_000, 200_000),
        })
    }

    fn storm(&self, draws: &mut Stream, _: &Profile) -> Option<Action> {
        Some(Action::Storm {
            times: draws.between(3, 12),
        })
    }

    fn flood(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::PuppetFlood {
            puppet: Self::puppet(draws, profile),
            to: Self::addressee(draws, profile),
            times: draws.between(30, 150) as usize,
        })
    }

    fn pause(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::Pause {
            place: Self::place(draws, profile),
            for_ms: draws.magnitude(300, 160_000),
        })
    }

    fn take_over(&self, _: &mut Stream, _: &Profile) -> Option<Action> {
        Some(Action::TakeOver)
    }

    fn wall_step(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let ms = draws.magnitude(1_000, 600_000) as i64;
        Some(Action::WallStep {
            place: Place::Client(Self::client(draws, profile)),
            ms: if draws.chance(500) { ms } else { -ms },
        })
    }

    fn store_fault(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let faults = [
            StoreFault::Unavailable,
            StoreFault::Full,
            StoreFault::Unheard,
            StoreFault::Slow,
        ];
        Some(Action::Store {
            place: Self::place(draws, profile),
            fault: *draws.pick(&faults),
            for_ms: draws.magnitude(50, 30_000),
        })
    }

    fn tag(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::PuppetTag {
            puppet: Self::puppet(draws, profile),
            times: if draws.chance(100) {
                draws.between(5, 80) as usize
            } else {
                1
            },
        })
    }

    fn status(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::PuppetStatus {
            puppet: Self::puppet(draws, profile),
            status: *draws.pick(&[Status::Idle, Status::Working, Status::Dnd]),
        })
    }

    fn bye(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let back_after_ms = draws.magnitude(100, 100_000);
        if draws.chance(500) {
            return Some(Action::UserEnd {
                user: Self::user(draws, profile)?,
                back_after_ms,
            });
        }
        Some(Action::PuppetBye {
            puppet: Self::puppet(draws, profile),
            back_after_ms,
        })
    }

    fn mischief(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let puppet = Self::puppet(draws, profile);
        Some(match draws.below(9) {
            6 => Action::PuppetEager { puppet, user: None },
            7 => Action::PuppetForge {
                puppet,
                user: Self::user(draws, profile)?,
            },
            8 => Action::Miscount {
                client: draws.below(profile.hosts as u64) as usize,
            },
            0 => Action::PuppetReplayHello { puppet },
            1 => Action::PuppetTwin { puppet },
            2 => Action::PuppetFalseAck {
                puppet,
                of: Self::puppet(draws, profile),
            },
            3 => Action::PuppetGarbage {
                puppet,
                kind: draws.below(5) as usize,
            },
            4 => Action::PuppetHoldAcks {
                puppet,
                for_ms: draws.magnitude(1_000, 120_000),
            },
            _ => Action::PuppetDeaf {
                puppet,
                for_ms: draws.magnitude(1_000, 60_000),
            },
        })
    }

    fn follow(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let user = Self::user(draws, profile)?;
        Some(match draws.below(4) {
            0 => Action::UserDeaf {
                user,
                for_ms: draws.magnitude(500, 30_000),
            },
            1 if draws.chance(300) => Action::UserStranger { user },
            1 => Action::UserLook { user },
            _ => Action::UserFollow { user },
        })
    }

    fn repeat(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let nth = draws.below(8) as usize;
        let altered = draws.chance(300);
        if draws.chance(500) {
            return Some(Action::UserRepeat {
                user: Self::user(draws, profile)?,
                nth,
                altered,
            });
        }
        Some(Action::PuppetRepeat {
            puppet: Self::puppet(draws, profile),
            nth,
            altered,
        })
    }

    fn send(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let most = if self.large_bodies { 40_000 } else { 2_000 };
        let mut bytes = draws.magnitude(1, most) as usize;
        if self.large_bodies && draws.chance(100) {
            // The largest that fit, and those that just do not.
            bytes = draws.between(48_500, 49_500) as usize;
        }
        let priority = *draws.pick(&[Priority::Now, Priority::Next, Priority::Next, Priority::Low]);
        if profile.users() == 0 || draws.chance(350) {
            return Some(Action::PuppetSend {
                puppet: Self::puppet(draws, profile),
                to: Self::addressee(draws, profile),
                bytes,
                priority,
                first: draws.chance(500),
            });
        }
        Some(Action::UserSend {
            user: Self::user(draws, profile)?,
            to: Self::addressee(draws, profile),
            bytes,
            priority,
            keyed: draws.chance(500),
        })
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

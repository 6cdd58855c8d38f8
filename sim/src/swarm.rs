//! What a seed does to its world: which faults and which uses exist is drawn first, and how often each
//! happens; then each of them, from draws of its own.

use std::time::Duration;

use bowline_core::limits::WORKING_LAPSES_AFTER;
use bowline_core::wire::{Priority, Status};

use crate::network::{Cut, DialFault};
use crate::plan::{Action, Ask, Moderation, Outage, Place, Profile, Step, StepId};
use crate::random::{Purpose, Random, Stream};
use crate::store::StoreFault;

/// How often each thing happens in a run, per 100 s of its safety phase. 0: it does not exist.
pub(crate) struct Swarm {
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
    quiets: u64,
    moderations: u64,
    asks: u64,
}

pub(crate) type Make = fn(&Swarm, &mut Stream, &Profile) -> Option<Action>;

/// The kinds of steps, in the order in which they are drawn.
pub(crate) const KINDS: [Make; 24] = [
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
    Swarm::quiet,
    Swarm::moderate,
    Swarm::ask,
];
/// The place of impostors among them.
const IMPOSTORS: usize = 15;
/// What happens once where it happens.
const ONE_BY_ONE: std::ops::Range<usize> = IMPOSTORS..KINDS.len();
/// The draws of scenes, beside those of the kinds.
const SCENES: u64 = 1_000;
/// Those of readers and askers.
const READERS: u64 = 1_001;
/// How often, in a hundred seconds, somebody reads its mail, or asks where a message is.
const READS_PER_100_S: u64 = 6;

/// A flood takes no longer at a store that is at its slowest.
const DIGESTED_IN_US: u64 = 20_000_000;

impl Swarm {
    pub(crate) fn draw(draws: &mut Stream) -> Self {
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
            quiets: sometimes(200, 2),
            moderations: sometimes(150, 3),
            asks: sometimes(500, 10),
        }
    }

    pub(crate) fn steps(&self, random: &Random, profile: &Profile, steps: &mut Vec<Step>) {
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
            self.quiets,
            self.moderations,
            self.asks,
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
        Self::read_and_ask(random, profile, steps);
    }

    /// Programs read their mail and ask where theirs is. In some runs nobody ever does.
    fn read_and_ask(random: &Random, profile: &Profile, steps: &mut Vec<Step>) {
        let mut draws = random.stream(Purpose::Plan, READERS);
        if draws.chance(250) {
            return;
        }
        for _ in 0..READS_PER_100_S * profile.safety_ms / 100_000 {
            let at_ms = draws.between(3_000, profile.safety_ms);
            let Some(user) = Self::user(&mut draws, profile) else {
                return;
            };
            let action = if draws.chance(600) {
                Action::UserRead { user }
            } else {
                let nth = draws.below(16) as usize;
                Action::UserExplain { user, nth }
            };
            steps.push(Step {
                id: StepId(steps.len() as u32 + 1),
                at_ms,
                action,
            });
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
            killed_after_ms: draws.chance(500).then(|| draws.magnitude(1, 300)),
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
        // As many as a slow store gets through before it has to be done with them.
        let most = DIGESTED_IN_US / profile.broker_store.commit_most_us.max(1);
        Some(Action::PuppetFlood {
            puppet: Self::puppet(draws, profile),
            to: Self::addressee(draws, profile),
            times: draws.between(10, most.clamp(10, 150)) as usize,
        })
    }

    fn quiet(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        Some(Action::PuppetQuiet {
            puppet: Self::puppet(draws, profile),
            to: Self::addressee(draws, profile),
            stranger: draws.chance(500),
            twice: draws.chance(300),
            nosy: draws.chance(300),
            for_ms: draws.magnitude(100, 60_000),
        })
    }

    fn moderate(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        // Mostly by the admin.
        let puppet = if draws.chance(800) {
            0
        } else {
            Self::puppet(draws, profile)
        };
        let everybody = profile.users() + profile.puppets + profile.clients();
        Some(Action::PuppetModerate {
            puppet,
            what: *draws.pick(&[
                Moderation::Kick,
                Moderation::Kick,
                Moderation::KickByName,
                Moderation::KickStale,
                Moderation::KickAll,
                Moderation::Disconnect,
                Moderation::Ban,
                Moderation::Ban,
                Moderation::ListBans,
            ]),
            of: draws.below(everybody as u64) as usize,
            for_ms: draws.magnitude(500, 60_000),
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

    fn ask(&self, draws: &mut Stream, profile: &Profile) -> Option<Action> {
        let puppet = Self::puppet(draws, profile);
        if draws.chance(400) {
            return Some(Action::PuppetSeen { puppet });
        }
        Some(Action::PuppetAsk {
            puppet,
            nth: draws.below(8) as usize,
            what: *draws.pick(&[
                Ask::WhySent,
                Ask::WhySent,
                Ask::WhyPushed,
                Ask::WhyNothing,
                Ask::Status,
                Ask::StatusOfPrefix,
                Ask::StatusPushed,
            ]),
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

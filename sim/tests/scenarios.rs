//! Named scenarios: explicit plans on the real machines. Every oracle watches each of them as well;
//! what a scenario asserts beside is the one thing that it is about.

use bowline_core::id::{MessageId, PeerKey, PubKey};
use bowline_core::link::Down;
use bowline_core::mark::Mark;
use bowline_core::store::host::{self, OutboxStatus};
use bowline_core::store::mesh;
use bowline_core::wire::broker::EventKind;
use bowline_core::wire::{BrokerFrame, Close, Priority, Status, decode_broker};

use sim::cast::Cast;
use sim::clock::Moment;
use sim::fault_mark::FaultMark;
use sim::network::{Cut, DialFault};
use sim::plan::{Action, Outage, Place, Plan, Profile, Spare, Step, StepId};
use sim::random::Random;
use sim::record::{Record, Token};
use sim::stage::{self, Planted};
use sim::store::StoreFault;
use sim::world::Outcome;

const SEED: u64 = 42;
/// Everybody is connected by then.
const BEGIN_S: u64 = 10;

struct Scenario {
    plan: Plan,
}

struct Ran {
    outcome: Outcome,
    cast: Cast,
    users: usize,
}

impl Scenario {
    fn new(hosts: usize, puppets: usize, seconds: u64) -> Self {
        let mut profile = Profile::calm(hosts, 1, puppets);
        profile.safety_ms = seconds * 1_000;
        Self {
            plan: Plan {
                seed: SEED,
                profile,
                steps: Vec::new(),
            },
        }
    }

    fn at(self, seconds: u64, action: Action) -> Self {
        self.at_ms(seconds * 1_000, action)
    }

    fn at_ms(mut self, at_ms: u64, action: Action) -> Self {
        let id = StepId(self.plan.steps.len() as u32 + 1);
        self.plan.steps.push(Step { id, at_ms, action });
        self
    }

    fn run(self) -> Ran {
        let outcome = stage::run_recorded(&self.plan, Planted::Nothing);
        let last: Vec<&str> = outcome
            .last
            .iter()
            .rev()
            .take(40)
            .rev()
            .map(|line| &**line)
            .collect();
        assert_eq!(outcome.violation, None, "{}", last.join("\n"));
        Ran {
            outcome,
            cast: Cast::of(&self.plan.profile, &Random::new(SEED), 0),
            users: self.plan.profile.users(),
        }
    }
}

impl Ran {
    fn records(&self) -> impl Iterator<Item = (Moment, &Record)> {
        self.outcome
            .records
            .iter()
            .map(|(at, record)| (*at, record))
    }

    fn puppet(&self, puppet: usize) -> PubKey {
        self.cast.puppets[puppet].pubkey
    }

    fn user(&self, user: usize) -> PubKey {
        let opened = self.records().find_map(|(_, record)| match record {
            Record::Opened {
                user: own, pubkey, ..
            } if *own == user => Some(*pubkey),
            _ => None,
        });
        opened.expect("every user opens its session")
    }

    /// When `kind` about `peer` was told to puppets, after everybody had come.
    fn told(&self, kind: EventKind, peer: PubKey) -> Vec<Moment> {
        let begin = Moment(0).plus_ms(BEGIN_S * 1_000);
        self.records()
            .filter(|(at, _)| *at > begin)
            .filter_map(|(at, record)| match record {
                Record::Frame { key, frame, .. } if self.cast.puppet_of(key).is_some() => {
                    match &**frame {
                        BrokerFrame::Event(event)
                            if event.kind == kind && event.data.pubkey == peer =>
                        {
                            Some(at)
                        }
                        _ => None,
                    }
                }
                _ => None,
            })
            .collect()
    }

    /// How often programs were told `event` of `peer`, after everybody had come.
    fn programs_told(&self, what: &str, peer: PubKey) -> usize {
        let begin = Moment(0).plus_ms(BEGIN_S * 1_000);
        let peer = peer.to_string();
        self.records()
            .filter(|(at, record)| {
                *at > begin
                    && matches!(record, Record::Told { event, .. } if event.event == what
                        && String::from_utf8_lossy(&event.data).contains(&peer))
            })
            .count()
    }

    fn nobody_was_told_of(&self, peer: PubKey) {
        for kind in [EventKind::PeerLeft, EventKind::PeerJoined] {
            assert_eq!(self.told(kind, peer), [], "{kind:?}");
        }
        for what in ["peer_left", "peer_joined"] {
            assert_eq!(self.programs_told(what, peer), 0, "{what}");
        }
    }

    /// When a message with the canary of `step` was pushed to a puppet.
    fn got(&self, step: u32) -> Vec<Moment> {
        self.records()
            .filter_map(|(at, record)| match record {
                Record::PuppetGot {
                    body: Some(body), ..
                } if Token::of(body).is_some_and(|token| token.nth == u64::from(step)) => Some(at),
                _ => None,
            })
            .collect()
    }

    /// When a message with the canary of `step` was durable in an inbox.
    fn in_inbox(&self, step: u32) -> Vec<Moment> {
        self.host_ops()
            .filter_map(|(at, op)| match op {
                host::Op::InboxPut(row) => match &row.content {
                    host::InboxContent::Opened { body, .. } => Token::of(body)
                        .is_some_and(|token| token.nth == u64::from(step))
                        .then_some(at),
                    host::InboxContent::Undecryptable { .. } => None,
                },
                _ => None,
            })
            .collect()
    }

    fn host_ops(&self) -> impl Iterator<Item = (Moment, &host::Op)> {
        self.records().flat_map(|(at, record)| {
            let ops = match record {
                Record::HostCommitted { ops, .. } => ops.as_slice(),
                _ => &[],
            };
            ops.iter().map(move |op| (at, op))
        })
    }

    fn mesh_ops(&self) -> impl Iterator<Item = (Moment, &mesh::Op)> {
        self.records().flat_map(|(at, record)| {
            let ops = match record {
                Record::MeshCommitted { ops, .. } => ops.as_slice(),
                _ => &[],
            };
            ops.iter().map(move |op| (at, op))
        })
    }

    /// When the identity `key` came up.
    fn ups(&self, key: &PeerKey) -> Vec<Moment> {
        self.records()
            .filter_map(|(at, record)| match record {
                Record::Up { key: own, .. } if **own == *key => Some(at),
                _ => None,
            })
            .collect()
    }

    /// Pushes that the broker gave out, in order.
    fn pushes_to(&self, peer: PubKey) -> Vec<(Moment, MessageId)> {
        self.records()
            .filter_map(|(at, record)| match record {
                Record::Sent {
                    peer: to, frame, ..
                } if **to == PeerKey::Session(peer) => match decode_broker(frame).ok()? {
                    BrokerFrame::Push(push) => Some((at, push.message_id)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    fn hit(&self, mark: Mark) -> bool {
        self.outcome.marks.get(mark) > 0
    }
}

fn seconds(moment: Moment) -> u64 {
    moment.0 / 1_000_000
}

fn silence(client: usize, seconds: u64) -> Action {
    Action::Outage {
        client,
        outage: Outage::Blackhole,
        up: true,
        down: true,
        for_ms: seconds * 1_000,
    }
}

fn cut(client: usize, cut: Cut) -> Action {
    Action::Cut {
        client,
        nth: 0,
        all: true,
        cut,
        late_ms: 60_000,
    }
}

/// `to` counts users first, then puppets.
fn puppet_sends(puppet: usize, to: usize) -> Action {
    Action::PuppetSend {
        puppet,
        to,
        bytes: 60,
        priority: Priority::Next,
        first: true,
    }
}

fn user_sends(user: usize, to: usize) -> Action {
    Action::UserSend {
        user,
        to,
        bytes: 60,
        priority: Priority::Next,
        keyed: true,
    }
}

fn crash(place: Place, down_ms: u64) -> Action {
    Action::Crash {
        place,
        down_ms,
        power_cut: false,
    }
}

/// With one host, client 0 is it, and puppet `n` is client `n + 1`.
const PUPPET_0: usize = 1;

#[test]
fn silence_of_60_s_is_told_to_nobody() {
    let ran = Scenario::new(1, 2, 160).at(20, silence(PUPPET_0, 60)).run();
    ran.nobody_was_told_of(ran.puppet(0));
    assert!(ran.hit(Mark::LeaseReattached));
}

#[test]
fn silence_of_150_s_is_one_leave_and_one_join() {
    let ran = Scenario::new(1, 2, 260)
        .at(20, silence(PUPPET_0, 150))
        .run();
    let gone = ran.puppet(0);
    let (left, joined) = (
        ran.told(EventKind::PeerLeft, gone),
        ran.told(EventKind::PeerJoined, gone),
    );
    assert_eq!((left.len(), joined.len()), (1, 1));
    assert!((110..=150).contains(&seconds(left[0])), "{left:?}");
    assert!(joined[0] > left[0]);
    assert_eq!(ran.programs_told("peer_left", gone), 1);
    assert_eq!(ran.programs_told("peer_joined", gone), 1);
}

#[test]
fn a_nat_that_forgets_is_noticed_and_told_to_nobody() {
    let ran = Scenario::new(1, 2, 120)
        .at(20, cut(PUPPET_0, Cut::HalfOpen))
        .at(25, puppet_sends(1, 1))
        .run();
    ran.nobody_was_told_of(ran.puppet(0));
    assert_eq!(ran.got(2).len(), 1, "and its mail arrives, once");
    assert!(ran.hit(Mark::LinkSilent));
}

#[test]
fn a_message_during_grace_is_delivered_once_on_reattach() {
    let ran = Scenario::new(1, 2, 160)
        .at(20, silence(PUPPET_0, 50))
        .at(30, puppet_sends(1, 1))
        .at(31, user_sends(0, 1))
        .run();
    let back = *ran
        .ups(&PeerKey::Session(ran.puppet(0)))
        .iter()
        .find(|at| seconds(**at) > 30)
        .expect("it comes back");
    for step in [2, 3] {
        let got = ran.got(step);
        assert_eq!(got.len(), 1);
        assert!(
            got[0].since_us(back) < 1_000_000,
            "at once: {got:?} {back:?}"
        );
    }
    ran.nobody_was_told_of(ran.puppet(0));
}

#[test]
fn a_replayed_hello_is_refused() {
    let replay = Action::PuppetReplayHello { puppet: 0 };
    let ran = Scenario::new(0, 2, 60).at(20, replay).run();
    assert!(ran.hit(Mark::HelloReplayed));
    assert_eq!(ran.ups(&PeerKey::Session(ran.puppet(0))).len(), 1);
}

#[test]
fn mistake_01_claimed_is_not_delivered() {
    let ran = Scenario::new(1, 2, 120)
        .at(20, cut(PUPPET_0, Cut::HalfOpenDown))
        .at(21, puppet_sends(1, 1))
        .run();
    let pushes = ran.pushes_to(ran.puppet(0));
    assert!(pushes.len() >= 2, "the first push is lost: {pushes:?}");
    assert_eq!(ran.got(2).len(), 1);
}

#[test]
fn mistake_03_rows_in_flight_are_picked_up_after_a_crash() {
    let ran = Scenario::new(1, 2, 120)
        .at(20, cut(0, Cut::HalfOpenDown))
        .at(21, user_sends(0, 1))
        .at(23, crash(Place::Client(0), 2_000))
        .run();
    assert!(ran.hit(Mark::InflightRecovered));
    assert_eq!(ran.got(2).len(), 1);
}

#[test]
fn mistake_04_waiting_for_an_uplink_is_no_attempt() {
    let refused = Action::Outage {
        client: 0,
        outage: Outage::Refuse,
        up: true,
        down: true,
        for_ms: 1_800_000,
    };
    let full = Action::Store {
        place: Place::Broker,
        fault: StoreFault::Full,
        for_ms: 120_000,
    };
    let ran = Scenario::new(1, 2, 2_100)
        .at(20, refused)
        .at(30, user_sends(0, 1))
        .at(1_815, full)
        .run();
    assert_eq!(ran.got(2).len(), 1);
    let attempts = ran.host_ops().filter_map(|(_, op)| match op {
        host::Op::OutboxState { state, .. } => Some(state.attempts),
        _ => None,
    });
    assert_eq!(
        attempts.max(),
        Some(0),
        "neither the outage nor `busy` counts"
    );
}

#[test]
fn mistake_05_the_late_close_of_a_replaced_socket_evicts_nobody() {
    let ran = Scenario::new(1, 2, 200)
        .at(20, cut(PUPPET_0, Cut::LateClose))
        .run();
    assert!(ran.hit(Mark::LateClose) || ran.hit(Mark::LeaseReplaced));
    let ups = ran.ups(&PeerKey::Session(ran.puppet(0)));
    assert_eq!(ups.len(), 2, "the second connection stays: {ups:?}");
    ran.nobody_was_told_of(ran.puppet(0));
}

#[test]
fn mistake_06_a_peer_in_grace_is_not_swept_away() {
    let ran = Scenario::new(1, 2, 160)
        .at(20, silence(PUPPET_0, 80))
        .at(95, puppet_sends(1, 1))
        .run();
    assert!(!ran.hit(Mark::TargetUnknown));
    assert_eq!(ran.got(2).len(), 1);
    ran.nobody_was_told_of(ran.puppet(0));
}

#[test]
fn mistake_07_what_a_peer_registered_outlives_its_socket() {
    let tag = Action::PuppetTag {
        puppet: 0,
        times: 1,
    };
    let ran = Scenario::new(1, 2, 160)
        .at(20, tag)
        .at(25, silence(PUPPET_0, 60))
        .run();
    let told = ran.told(EventKind::ProfileUpdated, ran.puppet(0));
    let before_healing = told.iter().filter(|at| seconds(**at) < 160).count();
    assert_eq!(before_healing, 1, "coming back changes nothing: {told:?}");
    let titles: Vec<Option<String>> = ran
        .mesh_ops()
        .filter(|(at, _)| seconds(*at) > 21 && seconds(*at) < 160)
        .filter_map(|(_, op)| match op {
            mesh::Op::PeerPut(row) if row.pubkey == ran.puppet(0) => {
                Some(row.registration.profile.as_ref()?.title.clone())
            }
            _ => None,
        })
        .collect();
    assert!(titles.iter().all(|title| title.as_deref() == Some("tag-1")));
}

#[test]
fn mistake_08_every_connection_has_a_fresh_attestation() {
    const HOUR_S: u64 = 3_600;
    let ran = Scenario::new(1, 2, 26 * HOUR_S)
        .at(11 * HOUR_S, cut(0, Cut::Reset))
        .at(25 * HOUR_S, cut(0, Cut::Reset))
        .run();
    let user = PeerKey::Session(ran.user(0));
    let expiries: Vec<u64> = ran
        .records()
        .filter_map(|(_, record)| match record {
            Record::Attached { peer, hello, .. } if **peer == user => {
                Some(hello.attestation.as_ref()?.expires_at.0)
            }
            _ => None,
        })
        .collect();
    assert_eq!(expiries.len(), 3, "it always came back");
    assert!(expiries.is_sorted_by(|a, b| a < b), "{expiries:?}");
}

#[test]
fn mistake_09_a_restarted_daemon_knows_its_sessions() {
    let ran = Scenario::new(1, 2, 120)
        .at(20, crash(Place::Client(0), 5_000))
        .at(40, puppet_sends(0, 0))
        .run();
    assert_eq!(ran.in_inbox(2).len(), 1);
    let ups = ran.ups(&PeerKey::Session(ran.user(0)));
    assert!(ups.iter().any(|at| seconds(*at) >= 25), "{ups:?}");
    ran.nobody_was_told_of(ran.user(0));
}

#[test]
fn mistake_10_a_relaunched_session_has_its_old_key() {
    let end = Action::UserEnd {
        user: 0,
        back_after_ms: 30_000,
    };
    let ran = Scenario::new(1, 2, 120)
        .at(20, end)
        .at(30, puppet_sends(0, 0))
        .run();
    let keys: Vec<PubKey> = ran
        .records()
        .filter_map(|(_, record)| match record {
            Record::Opened { pubkey, .. } => Some(*pubkey),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(ran.in_inbox(2).len(), 1, "what was sent meanwhile opens");
}

#[test]
fn mistake_11_a_token_that_nobody_has_sees_nothing() {
    let ran = Scenario::new(1, 2, 60)
        .at(20, Action::UserStranger { user: 0 })
        .at(22, puppet_sends(0, 0))
        .run();
    assert_eq!(ran.in_inbox(2).len(), 1);
    let strangers = ran.records().filter(|(_, record)| {
        matches!(record, Record::Answered { call: sim::record::UserCall::Stranger, answer, .. }
            if answer.status == 401)
    });
    assert_eq!(strangers.count(), 1);
}

/// Among the connections of a host with one session.
const SESSIONS_CONNECTION: usize = 0;

#[test]
fn mistake_12_a_session_never_sends_over_its_daemons_own_uplink() {
    let session_alone = Action::Cut {
        client: 0,
        nth: SESSIONS_CONNECTION,
        all: false,
        cut: Cut::Reset,
        late_ms: 0,
    };
    let hanging = Action::Dials {
        client: 0,
        fault: DialFault::Hangs,
        for_ms: 40_000,
    };
    let ran = Scenario::new(1, 2, 120)
        .at(20, hanging)
        .at(21, session_alone)
        .at(30, user_sends(0, 1))
        .run();
    let sender = ran.user(0);
    let lost = ran.records().find_map(|(_, record)| match record {
        Record::Down { key, .. } => Some(key),
        _ => None,
    });
    assert_eq!(
        lost.map(|key| (**key).clone()),
        Some(PeerKey::Session(sender))
    );
    let (accepted, row) = ran
        .mesh_ops()
        .find_map(|(at, op)| match op {
            mesh::Op::MessagePut(row) => Some((at, row)),
            _ => None,
        })
        .expect("it is sent");
    assert_eq!(row.sender_pubkey, sender);
    assert_eq!(row.sender, PeerKey::Session(sender));
    assert!(seconds(accepted) >= 60, "it waited for its uplink");
    assert_eq!(ran.got(3).len(), 1);
}

#[test]
fn mistake_13_two_connections_of_one_client_tell_every_event_once() {
    let tag = |puppet| Action::PuppetTag { puppet, times: 3 };
    let ran = Scenario::new(1, 2, 100)
        .at_ms(20_000, Action::PuppetTwin { puppet: 0 })
        .at_ms(20_001, tag(1))
        .at_ms(20_004, tag(1))
        .at_ms(20_006, tag(1))
        .run();
    assert!(ran.hit(Mark::LeaseReplaced));
    let replaced = ran.records().filter(|(_, record)| {
        matches!(record, Record::Down { down: Down::Closed(close), .. }
            if *close == Close::session_replaced())
    });
    assert_eq!(replaced.count(), 1);
    ran.nobody_was_told_of(ran.puppet(0));
}

#[test]
fn mistake_14_nothing_is_told_before_it_is_durable() {
    let away = Action::Store {
        place: Place::Broker,
        fault: StoreFault::Slow,
        for_ms: 60_000,
    };
    let ran = Scenario::new(1, 2, 120)
        .at(20, away)
        .at_ms(20_500, puppet_sends(1, 1))
        .at(21, silence(PUPPET_0, 1))
        .run();
    let durable = ran
        .mesh_ops()
        .find_map(|(at, op)| matches!(op, mesh::Op::MessagePut(_)).then_some(at))
        .expect("it is accepted");
    assert!(
        ran.pushes_to(ran.puppet(0))
            .iter()
            .all(|(at, _)| *at >= durable)
    );
    assert_eq!(ran.got(2).len(), 1);
}

#[test]
fn mistake_16_no_number_is_used_again_after_a_restart() {
    let ran = Scenario::new(1, 2, 160)
        .at(20, user_sends(0, 1))
        .at(21, puppet_sends(0, 0))
        .at(40, crash(Place::Broker, 1_000))
        .at(41, crash(Place::Client(0), 1_000))
        .at(70, user_sends(0, 1))
        .at(71, puppet_sends(0, 0))
        .run();
    let rising = |numbers: Vec<u64>, what: &str| {
        assert_eq!(numbers.len(), 2, "{what}");
        assert!(numbers[0] < numbers[1], "{what}: {numbers:?}");
    };
    let outbox = |op: &host::Op| match op {
        host::Op::OutboxPut(row) => Some(row.seq.0),
        _ => None,
    };
    let inbox = |op: &host::Op| match op {
        host::Op::InboxPut(row) => Some(row.seq.0),
        _ => None,
    };
    rising(
        ran.host_ops().filter_map(|(_, op)| outbox(op)).collect(),
        "outbox",
    );
    rising(
        ran.host_ops().filter_map(|(_, op)| inbox(op)).collect(),
        "inbox",
    );
    let messages: Vec<u64> = ran
        .mesh_ops()
        .filter_map(|(_, op)| match op {
            mesh::Op::MessagePut(row) => Some(row.seq.0),
            _ => None,
        })
        .collect();
    assert_eq!(messages.len(), 4);
    assert!(messages.is_sorted_by(|a, b| a < b), "{messages:?}");
}

#[test]
fn mistake_17_a_failed_call_is_not_taken_for_undone() {
    let in_flight = Action::CrashInFlight {
        place: Place::Client(0),
        down_ms: 2_000,
    };
    let slow = Action::Store {
        place: Place::Client(0),
        fault: StoreFault::Slow,
        for_ms: 3_000,
    };
    let ran = Scenario::new(1, 2, 120)
        .at(20, slow)
        .at_ms(20_100, user_sends(0, 1))
        .at_ms(20_101, in_flight)
        .run();
    let unanswered = ran
        .records()
        .any(|(_, record)| matches!(record, Record::Unanswered { .. }));
    assert!(unanswered);
    assert_eq!(ran.got(2).len(), 1);
    let rows = ran
        .host_ops()
        .filter(|(_, op)| matches!(op, host::Op::OutboxPut(_)));
    assert_eq!(rows.count(), 1);
}

#[test]
fn mistake_19_the_grace_timer_ends_with_the_grace() {
    let ran = Scenario::new(1, 2, 300).at(20, silence(PUPPET_0, 60)).run();
    assert!(!ran.hit(Mark::LeaseGraceExpired));
    ran.nobody_was_told_of(ran.puppet(0));
}

#[test]
fn mistake_20_leaving_is_not_forgetting() {
    let ran = Scenario::new(1, 2, 300)
        .at(20, silence(PUPPET_0, 170))
        .at(30, puppet_sends(1, 1))
        .at(180, puppet_sends(1, 1))
        .run();
    assert!(ran.hit(Mark::LeaseGraceExpired));
    assert_eq!((ran.got(2).len(), ran.got(3).len()), (1, 1));
}

#[test]
fn mistake_21_no_claim_is_given_to_a_peer_in_grace() {
    let ran = Scenario::new(1, 2, 160)
        .at(20, cut(PUPPET_0, Cut::Reset))
        .at(
            20,
            Action::Dials {
                client: PUPPET_0,
                fault: DialFault::Refused,
                for_ms: 20_000,
            },
        )
        .at(30, puppet_sends(1, 1))
        .run();
    let peer = ran.puppet(0);
    let back = *ran
        .ups(&PeerKey::Session(peer))
        .iter()
        .find(|at| seconds(**at) > 30)
        .expect("it comes back");
    let pushes = ran.pushes_to(peer);
    assert_eq!(pushes.len(), 1, "nothing was pushed to nobody: {pushes:?}");
    assert!(ran.got(3)[0].since_us(back) < 1_000_000);
}

#[test]
fn mistake_22_an_expired_claim_pushes_by_itself() {
    let hold = Action::PuppetHoldAcks {
        puppet: 0,
        for_ms: 100_000,
    };
    let ran = Scenario::new(0, 2, 200)
        .at(20, hold)
        .at(21, puppet_sends(1, 0))
        .run();
    let pushes: Vec<u64> = ran
        .pushes_to(ran.puppet(0))
        .iter()
        .map(|(at, _)| seconds(*at))
        .collect();
    assert_eq!(pushes, [21, 51, 111]);
}

#[test]
fn mistake_24_an_owner_that_wakes_up_throws_nobody_out() {
    let pause = Action::Pause {
        place: Place::Broker,
        for_ms: 150_000,
    };
    let ran = Scenario::new(1, 2, 300)
        .at(20, silence(PUPPET_0, 40))
        .at(25, pause)
        .run();
    assert!(ran.outcome.fault_marks.get(FaultMark::BrokerPaused) > 0);
    for peer in [ran.puppet(0), ran.puppet(1), ran.user(0)] {
        ran.nobody_was_told_of(peer);
    }
}

#[test]
fn a_status_holds_mail_and_becoming_idle_delivers_it_at_once() {
    let status = |status| Action::PuppetStatus { puppet: 0, status };
    let ran = Scenario::new(0, 2, 100)
        .at(20, status(Status::Dnd))
        .at(21, puppet_sends(1, 0))
        .at(60, status(Status::Idle))
        .run();
    let got = ran.got(2);
    assert_eq!(got.len(), 1);
    assert_eq!(seconds(got[0]), 60);
}

#[test]
fn mail_to_one_whom_nobody_knows_is_dead_with_the_reason() {
    let ran = Scenario::new(1, 1, 60).at(20, user_sends(0, 9)).run();
    let dead = ran.host_ops().find_map(|(_, op)| match op {
        host::Op::OutboxState { state, .. } if state.status == OutboxStatus::Dead => {
            state.last_error.clone()
        }
        _ => None,
    });
    assert_eq!(dead.as_deref(), Some("target_not_found"));
    assert_eq!(ran.users, 1);
}

/// A daemon that the broker cannot serve stops, tries again in an hour, and has lost nothing.
#[test]
fn a_broker_below_the_floors_is_left_alone_for_an_hour() {
    let mut scenario = Scenario::new(2, 0, 3_900);
    scenario.plan.profile.spare = Spare::BelowTheFloors;
    let ran = scenario
        .at(20, Action::TakeOver)
        .at(60, user_sends(0, 1))
        .at(90, Action::TakeOver)
        .run();
    let refused = ran.records().filter_map(|(at, record)| match record {
        Record::Down {
            down: Down::FeatureMismatch(close),
            ..
        } => Some((seconds(at), close.code)),
        _ => None,
    });
    let refused: Vec<(u64, u16)> = refused.collect();
    // Two daemons, each with a session.
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(refused.iter().all(|(at, _)| (20..60).contains(at)));
    assert!(refused.iter().all(|(_, code)| *code == 4012), "{refused:?}");
    let dials = ran.records().filter_map(|(at, record)| {
        let dialled = matches!(record, Record::Dialled { .. });
        dialled.then(|| seconds(at))
    });
    let next = dials.filter(|at| *at > 60).min();
    assert!(
        next.is_some_and(|at| (3_590..3_700).contains(&at)),
        "{next:?}"
    );
    let arrived = ran.in_inbox(2);
    assert_eq!(arrived.len(), 1);
    assert!(seconds(arrived[0]) > 3_590);
}

//! Plans from a proptest strategy instead of a seed: the same type, another imagination, and
//! proptest's own shrinking.

use bowline_core::wire::{Priority, Status};
use proptest::prelude::*;

use sim::network::{Cut, DialFault};
use sim::plan::{Action, Outage, Place, Plan, Profile, Step, StepId};
use sim::stage::{self, Planted};
use sim::store::StoreFault;

const HOSTS: usize = 2;
const PUPPETS: usize = 2;
const SAFETY_MS: u64 = 150_000;

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Broker),
        (0..HOSTS + PUPPETS).prop_map(Place::Client)
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![
        Just(Priority::Now),
        Just(Priority::Next),
        Just(Priority::Low)
    ]
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        Just(Cut::Reset),
        Just(Cut::Fin),
        Just(Cut::HalfOpen),
        Just(Cut::HalfOpenUp),
        Just(Cut::HalfOpenDown),
        Just(Cut::LateClose),
    ]
}

fn workload() -> impl Strategy<Value = Action> {
    let everybody = HOSTS + PUPPETS;
    prop_oneof![
        4 => (0..HOSTS, 0..everybody, 1..3_000usize, priority(), any::<bool>()).prop_map(
            |(user, to, bytes, priority, keyed)| Action::UserSend { user, to, bytes, priority, keyed }
        ),
        4 => (0..PUPPETS, 0..everybody, 1..3_000usize, priority(), any::<bool>()).prop_map(
            |(puppet, to, bytes, priority, first)| Action::PuppetSend { puppet, to, bytes, priority, first }
        ),
        1 => (0..PUPPETS, 0..4usize, any::<bool>())
            .prop_map(|(puppet, nth, altered)| Action::PuppetRepeat { puppet, nth, altered }),
        1 => (0..HOSTS, 0..4usize, any::<bool>())
            .prop_map(|(user, nth, altered)| Action::UserRepeat { user, nth, altered }),
        2 => (0..PUPPETS, 1..20usize).prop_map(|(puppet, times)| Action::PuppetTag { puppet, times }),
        1 => (0..PUPPETS, prop_oneof![Just(Status::Idle), Just(Status::Working), Just(Status::Dnd)])
            .prop_map(|(puppet, status)| Action::PuppetStatus { puppet, status }),
        1 => (0..PUPPETS, 1..60_000u64)
            .prop_map(|(puppet, for_ms)| Action::PuppetHoldAcks { puppet, for_ms }),
        1 => (0..HOSTS).prop_map(|user| Action::UserFollow { user }),
    ]
}

fn fault() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..HOSTS + PUPPETS, 0..4usize, any::<bool>(), cut(), 100..120_000u64).prop_map(
            |(client, nth, all, cut, late_ms)| Action::Cut { client, nth, all, cut, late_ms }
        ),
        2 => (
            0..HOSTS + PUPPETS,
            prop_oneof![Just(Outage::Stall), Just(Outage::Blackhole), Just(Outage::Refuse)],
            any::<bool>(),
            100..130_000u64
        )
            .prop_map(|(client, outage, down, for_ms)| Action::Outage {
                client, outage, up: true, down, for_ms
            }),
        1 => (0..HOSTS + PUPPETS, 100..30_000u64).prop_map(|(client, for_ms)| Action::Dials {
            client, fault: DialFault::Late, for_ms
        }),
        2 => (place(), 10..20_000u64, any::<bool>())
            .prop_map(|(place, down_ms, power_cut)| Action::Crash { place, down_ms, power_cut }),
        1 => (place(), 10..20_000u64).prop_map(|(place, down_ms)| Action::CrashInFlight { place, down_ms }),
        1 => (place(), 100..120_000u64).prop_map(|(place, for_ms)| Action::Pause { place, for_ms }),
        1 => Just(Action::TakeOver),
        2 => (
            place(),
            prop_oneof![
                Just(StoreFault::Unavailable),
                Just(StoreFault::Full),
                Just(StoreFault::Unheard),
                Just(StoreFault::Slow)
            ],
            10..20_000u64
        )
            .prop_map(|(place, fault, for_ms)| Action::Store { place, fault, for_ms }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let step = (3_000..SAFETY_MS, prop_oneof![3 => workload(), 1 => fault()]);
    (
        any::<u64>(),
        any::<bool>(),
        prop::collection::vec(step, 0..60),
    )
        .prop_map(|(seed, tiny_limits, mut steps)| {
            steps.sort_by_key(|(at_ms, _)| *at_ms);
            let steps = steps
                .into_iter()
                .enumerate()
                .map(|(nth, (at_ms, action))| Step {
                    id: StepId(nth as u32 + 1),
                    at_ms,
                    action,
                });
            Plan {
                seed,
                profile: Profile {
                    tiny_limits,
                    clock_rate_most_ppm: 5_000,
                    safety_ms: SAFETY_MS,
                    ..Profile::calm(HOSTS, 1, PUPPETS)
                },
                steps: steps.collect(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_promise(plan in plan()) {
        let outcome = stage::run(&plan, false, Planted::Nothing);
        prop_assert_eq!(outcome.violation, None);
    }
}

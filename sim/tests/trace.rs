//! One trace, two drivers: what the owners of a simulated world were told, and when, is told to the
//! same machines under production's drive loop. They must say the same at the same times.
//!
//! A tape holds what the network, the store and people said, as inputs. Under production's loop
//! time passes as it does there: the runtime's clock is paused and jumps from timer to timer, and
//! the loop finds out by its own alarm what is due. [`TapeClock`] keeps it from passing the next
//! moment of the tape, and stands still there until everything of that moment is done.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bowline_core::machine::Machine;
use bowline_core::time::{Mono, Now};
use bowline_io::clock::Clock;
use bowline_io::drive;
use sim::plan::{Action, Plan};
use sim::stage;
use sim::tape::{Life, Reel, Taped};
use tokio::time::Instant;

const SEEDS: std::ops::Range<u64> = 0..24;
/// An alarm counts in milliseconds and looks at the clock again when it was early.
const DONE_WITHIN: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_tape_of_the_simulation_says_the_same_under_the_loop_of_production() {
    let mut compared = Compared::default();
    for seed in SEEDS {
        let (outcome, tapes) = stage::run_taped(&plan(seed));
        assert_eq!(outcome.violation, None, "seed {seed}");
        replay_all(&tapes.meshes, &format!("seed {seed}, mesh"), &mut compared).await;
        replay_all(&tapes.hosts, &format!("seed {seed}, host"), &mut compared).await;
    }
    eprintln!("{compared:?}");
    assert!(compared.lives > 50, "{compared:?}");
    assert!(compared.inputs > 10_000, "{compared:?}");
    assert!(compared.timeouts > 500, "{compared:?}");
    assert!(compared.outputs > 10_000, "{compared:?}");
}

/// Everything that befalls a world but what no driver does: to call late, or early.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::of_seed(seed);
    plan.profile.timer_late_most_us = 0;
    plan.profile.spurious_per_mille = 0;
    // A clock of another rate reaches some deadlines a microsecond late.
    plan.profile.clock_rate_most_ppm = 0;
    // A process that was stopped or asleep is called late too; one taken over from is stopped.
    plan.steps.retain(|step| {
        !matches!(
            step.action,
            Action::Pause { .. } | Action::Sleep { .. } | Action::TakeOver
        )
    });
    plan
}

/// How much there was to compare.
#[derive(Debug, Default)]
struct Compared {
    lives: usize,
    inputs: usize,
    timeouts: usize,
    outputs: usize,
}

async fn replay_all<M>(reel: &Reel<M>, whose: &str, compared: &mut Compared)
where
    M: Machine + Send + 'static,
    M::Input: Clone + Send,
    M::Output: Debug,
{
    let lives = reel.borrow().clone();
    for (nth, life) in lives.iter().enumerate() {
        let (machine, began, steps) = {
            let life = life.borrow();
            ((life.begin)(), life.began, steps(&life))
        };
        let said = replay(machine, began, steps).await;
        let life = life.borrow();
        let taped: Vec<(Now, &str)> = life
            .events
            .iter()
            .filter_map(|event| match event {
                Taped::Output(now, words) => Some((*now, words.as_str())),
                Taped::Input(..) | Taped::Timeout(_) => None,
            })
            .collect();
        for (at, taped) in taped.iter().enumerate() {
            let said = said.get(at).map(|(now, words)| (*now, words.as_str()));
            assert_eq!(
                said,
                Some(*taped),
                "output {at} of life {nth} of {whose}: under production's loop, and as taped"
            );
        }
        assert_eq!(said.get(taped.len()), None, "life {nth} of {whose}");
        compared.lives += 1;
        compared.outputs += taped.len();
        for event in &life.events {
            match event {
                Taped::Input(..) => compared.inputs += 1,
                Taped::Timeout(_) => compared.timeouts += 1,
                Taped::Output(..) => {}
            }
        }
    }
}

/// What this machine says under the loop of production.
async fn replay<M>(machine: M, began: Now, steps: Vec<Step<M::Input>>) -> Vec<(Now, String)>
where
    M: Machine + Send + 'static,
    M::Input: Send,
    M::Output: Debug,
{
    let clock = TapeClock::standing_at(began);
    let said = Arc::new(Mutex::new(Vec::new()));
    let (inputs, inbox) = drive::channel();
    let effects = {
        let (clock, said) = (clock.clone(), Arc::clone(&said));
        move |output: M::Output| {
            let words = format!("{output:?}");
            said.lock()
                .expect("nobody panicked")
                .push((clock.now(), words));
        }
    };
    // A task of its own: nothing that the feeding waits for may wake it.
    let driven = drive::spawn_machine(machine, clock.clone(), inbox, effects);
    tokio::time::sleep(DONE_WITHIN).await;
    for step in steps {
        tokio::time::sleep(clock.run_towards(step.now.mono)).await;
        clock.stand_at(step.now);
        for input in step.inputs {
            inputs.tell(input);
        }
        tokio::time::sleep(DONE_WITHIN).await;
    }
    drop(inputs);
    drop(driven.await.expect("the loop ends in good order"));
    let mut said = said.lock().expect("nobody panicked");
    std::mem::take(&mut *said)
}

/// A moment of a tape: inputs that came together, or a time-out.
struct Step<I> {
    now: Now,
    inputs: Vec<I>,
}

fn steps<M: Machine>(life: &Life<M>) -> Vec<Step<M::Input>>
where
    M::Input: Clone,
{
    let mut steps: Vec<Step<M::Input>> = Vec::new();
    for event in &life.events {
        match event {
            Taped::Input(now, input) => match steps.last_mut() {
                Some(step) if step.now == *now && !step.inputs.is_empty() => {
                    step.inputs.push(input.clone());
                }
                _ => steps.push(Step {
                    now: *now,
                    inputs: vec![input.clone()],
                }),
            },
            Taped::Timeout(now) => steps.push(Step {
                now: *now,
                inputs: Vec::new(),
            }),
            Taped::Output(..) => {}
        }
    }
    steps
}

/// Follows the runtime's clock from one moment of a tape to just before the next.
#[derive(Clone)]
struct TapeClock(Arc<Mutex<Hands>>);

struct Hands {
    stood_at: Now,
    /// Since when it runs, and towards what.
    running: Option<(Instant, Mono)>,
}

impl TapeClock {
    fn standing_at(now: Now) -> Self {
        Self(Arc::new(Mutex::new(Hands {
            stood_at: now,
            running: None,
        })))
    }

    fn stand_at(&self, now: Now) {
        *self.hands() = Hands {
            stood_at: now,
            running: None,
        };
    }

    /// Answers how long it takes.
    fn run_towards(&self, next: Mono) -> Duration {
        let mut hands = self.hands();
        hands.running = Some((Instant::now(), next));
        next.since(hands.stood_at.mono)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().expect("nobody panicked")
    }
}

impl Clock for TapeClock {
    fn now(&self) -> Now {
        let hands = self.hands();
        let Some((since, next)) = hands.running else {
            return hands.stood_at;
        };
        let most = Mono(next.0 - 1).max(hands.stood_at.mono);
        Now {
            mono: (hands.stood_at.mono + since.elapsed()).min(most),
            wall: hands.stood_at.wall,
        }
    }
}

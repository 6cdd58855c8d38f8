//! The drive loop: no input is lost, no deadline slept through, the clock decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline_core::machine::{Machine, Outbox, Timeout};
use bowline_core::time::{Mono, Now, Wall};
use bowline_io::SLEEP_AT_MOST;
use bowline_io::clock::{Clock, RuntimeClock};
use bowline_io::drive::{self, Effects, Inputs};
use tokio::sync::mpsc;

/// Echoes numbers; `Wake(d)` asks to be woken after `d`.
struct Toy {
    wake_at: Option<Mono>,
    outbox: Outbox<Said>,
}

enum Asked {
    Number(u64),
    Wake(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Number(u64),
    Woke { due: Mono, at: Mono },
}

impl Toy {
    fn new() -> Self {
        Self {
            wake_at: None,
            outbox: Outbox::default(),
        }
    }
}

impl Machine for Toy {
    type Input = Asked;
    type Output = Said;
    type Why = &'static str;

    fn handle_input(&mut self, now: Now, input: Asked) {
        self.outbox.assert_drained();
        match input {
            Asked::Number(number) => self.outbox.push(Said::Number(number)),
            Asked::Wake(after) => self.wake_at = Some(now.mono + after),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.outbox.assert_drained();
        if let Some(due) = self.wake_at.take_if(|due| *due <= now.mono) {
            self.outbox.push(Said::Woke { due, at: now.mono });
        }
    }

    fn poll_output(&mut self) -> Option<Said> {
        self.outbox.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<&'static str>> {
        self.wake_at.map(|at| Timeout { at, why: "asked" })
    }
}

fn run<C: Clock>(clock: C) -> (Inputs<Asked>, mpsc::UnboundedReceiver<Said>) {
    let (inputs, inbox) = drive::channel();
    let (said, heard) = mpsc::unbounded_channel();
    let effects = move |output| said.send(output).expect("the test listens");
    drive::spawn_machine(Toy::new(), clock, inbox, effects);
    (inputs, heard)
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_met_when_it_is_due_and_not_before() {
    let (inputs, mut heard) = run(RuntimeClock::starting_at(Wall(0)));
    for after in [1, 15, 999, 25_000, 3_600_000].map(Duration::from_millis) {
        inputs.tell(Asked::Wake(after));
        let Some(Said::Woke { due, at }) = heard.recv().await else {
            panic!("it was asked to wake");
        };
        assert!(at >= due);
        // The runtime's timer counts in milliseconds.
        assert!(
            at.since(due) <= Duration::from_millis(2),
            "{:?}",
            at.since(due)
        );
    }
}

/// A machine that was suspended: the clock has moved, the runtime's timer has not.
#[derive(Clone)]
struct Suspended {
    runtime: RuntimeClock,
    asleep_us: Arc<AtomicU64>,
}

impl Clock for Suspended {
    fn now(&self) -> Now {
        let now = self.runtime.now();
        let asleep = Duration::from_micros(self.asleep_us.load(Ordering::SeqCst));
        Now {
            mono: now.mono + asleep,
            wall: now.wall + asleep,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_clock_is_believed_within_ten_seconds() {
    let clock = Suspended {
        runtime: RuntimeClock::starting_at(Wall(0)),
        asleep_us: Arc::default(),
    };
    let (inputs, mut heard) = run(clock.clone());
    inputs.tell(Asked::Wake(Duration::from_secs(90)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let woken = tokio::time::Instant::now();
    let hour = Duration::from_secs(3_600);
    clock
        .asleep_us
        .store(hour.as_micros() as u64, Ordering::SeqCst);
    let said = heard.recv().await;
    assert!(matches!(said, Some(Said::Woke { .. })), "{said:?}");
    assert!(woken.elapsed() <= SLEEP_AT_MOST);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_fires_before_the_clock_is_there_expires_nothing() {
    // Half as fast as the runtime's timers.
    #[derive(Clone)]
    struct Slow(RuntimeClock);
    impl Clock for Slow {
        fn now(&self) -> Now {
            let now = self.0.now();
            Now {
                mono: Mono(now.mono.0 / 2),
                wall: now.wall,
            }
        }
    }
    let (inputs, mut heard) = run(Slow(RuntimeClock::starting_at(Wall(0))));
    inputs.tell(Asked::Wake(Duration::from_secs(60)));
    let Some(Said::Woke { due, at }) = heard.recv().await else {
        panic!("it was asked to wake");
    };
    assert!(at >= due);
    assert!(at.since(due) <= Duration::from_millis(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_input_is_lost_and_each_lane_keeps_its_order() {
    const EACH: u64 = 20_000;
    let (inputs, mut heard) = run(bowline_io::clock::SystemClock);
    let offering = {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                inputs
                    .offer(Asked::Number(number))
                    .await
                    .expect("the machine runs");
            }
        })
    };
    let telling = std::thread::spawn(move || {
        for number in EACH..2 * EACH {
            inputs.tell(Asked::Number(number));
        }
    });
    let (mut offered, mut told) = (0, EACH);
    for _ in 0..2 * EACH {
        let said = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await;
        match said {
            Ok(Some(Said::Number(number))) if number == offered => offered += 1,
            Ok(Some(Said::Number(number))) if number == told => told += 1,
            other => panic!("{other:?} is neither {offered} nor {told}"),
        }
    }
    offering.await.expect("all were offered");
    telling.join().expect("all were told");
    // Nobody is left who could speak to it.
    assert_eq!(heard.recv().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_inputs_does_not_hold_up_a_deadline() {
    let (inputs, mut heard) = run(bowline_io::clock::SystemClock);
    inputs.tell(Asked::Wake(Duration::from_millis(100)));
    let flood = tokio::spawn(async move {
        let mut number = 0;
        while inputs.offer(Asked::Number(number)).await.is_ok() {
            number += 1;
        }
    });
    let woke = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match heard.recv().await {
                Some(Said::Number(_)) => {}
                other => return other,
            }
        }
    });
    let Ok(Some(Said::Woke { due, at })) = woke.await else {
        panic!("it was not woken");
    };
    assert!(
        at.since(due) < Duration::from_secs(2),
        "{:?}",
        at.since(due)
    );
    flood.abort();
}

#[tokio::test]
async fn the_loop_ends_when_its_effects_are_done_and_gives_them_back() {
    struct UntilThree(Arc<Mutex<Vec<u64>>>, bool);
    impl Effects<Said> for UntilThree {
        fn carry_out(&mut self, output: Said) {
            if let Said::Number(number) = output {
                self.0.lock().expect("nobody panicked").push(number);
                self.1 = number == 3;
            }
        }

        fn is_done(&self) -> bool {
            self.1
        }
    }
    let (inputs, inbox) = drive::channel();
    let effects = UntilThree(Arc::default(), false);
    let clock = bowline_io::clock::SystemClock;
    let task = drive::spawn_machine(Toy::new(), clock, inbox, effects);
    for number in 1..=3 {
        inputs.tell(Asked::Number(number));
    }
    let effects = task.await.expect("it ends in good order");
    assert_eq!(*effects.0.lock().expect("nobody panicked"), [1, 2, 3]);
    inputs.ended().await;
    assert_eq!(inputs.offer(Asked::Number(4)).await, Err(drive::Ended));
}

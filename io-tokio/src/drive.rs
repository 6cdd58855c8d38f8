//! The one drive loop: inputs in, outputs out, one timer.
//!
//! The loop decides nothing. It feeds what is waiting, drains the machine after each input, asks
//! the clock what is due and sleeps until the next deadline or the next input.

use std::future::poll_fn;
use std::task::Poll;

use bowline_core::limits::INPUTS_WAITING;
use bowline_core::machine::Machine;
use bowline_core::time::Mono;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::alarm::Alarm;
use crate::clock::Clock;

/// Carries outputs out. Never awaits: what has to wait goes into a queue that the core bounds.
pub trait Effects<O>: Send + 'static {
    fn carry_out(&mut self, output: O);

    /// Asked when the machine is drained: true ends the loop.
    fn is_done(&self) -> bool {
        false
    }
}

impl<O, F: FnMut(O) + Send + 'static> Effects<O> for F {
    fn carry_out(&mut self, output: O) {
        self(output);
    }
}

/// Where the inputs of a machine come from: two lanes, each in order, with no order between them.
pub struct Inbox<I> {
    offered: mpsc::Receiver<I>,
    asked_for: mpsc::UnboundedReceiver<I>,
}

/// The other end of an [`Inbox`].
pub struct Inputs<I> {
    offered: mpsc::Sender<I>,
    asked_for: mpsc::UnboundedSender<I>,
}

/// The machine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has ended")]
pub struct Ended;

/// Inputs fed before the clock is asked what is due.
const BATCH: usize = 64;

#[must_use]
pub fn channel<I>() -> (Inputs<I>, Inbox<I>) {
    let (offered_in, offered) = mpsc::channel(INPUTS_WAITING);
    let (asked_for_in, asked_for) = mpsc::unbounded_channel();
    let inputs = Inputs {
        offered: offered_in,
        asked_for: asked_for_in,
    };
    (inputs, Inbox { offered, asked_for })
}

impl<I> Inputs<I> {
    /// For what a remote side can grow: waits while the machine is behind.
    ///
    /// # Errors
    /// If the machine has ended.
    pub async fn offer(&self, input: I) -> Result<(), Ended> {
        self.offered.send(input).await.map_err(|_| Ended)
    }

    /// For what the machine itself brought about: store events, `Sent`, answers. Unbounded,
    /// because each is the echo of an output, and the core paces those. To a machine that has
    /// ended nothing matters any more.
    pub fn tell(&self, input: I) {
        let _ended = self.asked_for.send(input);
    }

    /// What was offered and not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.offered.max_capacity() - self.offered.capacity()
    }

    /// Resolves when the machine has ended.
    pub async fn ended(&self) {
        self.offered.closed().await;
    }
}

impl<I> Clone for Inputs<I> {
    fn clone(&self) -> Self {
        Self {
            offered: self.offered.clone(),
            asked_for: self.asked_for.clone(),
        }
    }
}

/// Runs `machine` as a task until every [`Inputs`] is gone or its effects are done; the task gives
/// the effects back.
pub fn spawn_machine<M, C, E>(
    machine: M,
    clock: C,
    inbox: Inbox<M::Input>,
    effects: E,
) -> JoinHandle<E>
where
    M: Machine + Send + 'static,
    M::Input: Send,
    C: Clock,
    E: Effects<M::Output>,
{
    tokio::spawn(drive(machine, clock, inbox, effects))
}

/// The loop itself, for those who bring their own task.
pub async fn drive<M, C, E>(
    mut machine: M,
    clock: C,
    mut inbox: Inbox<M::Input>,
    mut effects: E,
) -> E
where
    M: Machine,
    C: Clock,
    E: Effects<M::Output>,
{
    let mut alarm = Alarm::new(clock.clone());
    let mut inputs = Vec::with_capacity(2 * BATCH);
    // A machine may have something to say before anyone speaks to it.
    drain(&mut machine, &mut effects);
    while !effects.is_done() {
        let wake = next_wake(&mut inbox, &mut inputs, &mut alarm, deadline(&machine)).await;
        if wake == Wake::Abandoned {
            break;
        }
        for input in inputs.drain(..) {
            machine.handle_input(clock.now(), input);
            drain(&mut machine, &mut effects);
        }
        let now = clock.now();
        if deadline(&machine).is_some_and(|at| at <= now.mono) {
            machine.handle_timeout(now);
            drain(&mut machine, &mut effects);
            assert_nothing_due(&machine, now.mono);
        }
    }
    effects
}

#[derive(PartialEq, Eq)]
enum Wake {
    /// There is input, or a deadline may be due.
    Up,
    /// No inputs are left, and none can come.
    Abandoned,
}

async fn next_wake<I, C: Clock>(
    inbox: &mut Inbox<I>,
    inputs: &mut Vec<I>,
    alarm: &mut Alarm<C>,
    deadline: Option<Mono>,
) -> Wake {
    poll_fn(|cx| {
        let asked_for = inbox.asked_for.poll_recv_many(cx, inputs, BATCH);
        let offered = inbox.offered.poll_recv_many(cx, inputs, BATCH);
        if !inputs.is_empty() {
            return Poll::Ready(Wake::Up);
        }
        if asked_for.is_ready() && offered.is_ready() {
            return Poll::Ready(Wake::Abandoned);
        }
        alarm.poll_due(cx, deadline).map(|()| Wake::Up)
    })
    .await
}

fn drain<M: Machine, E: Effects<M::Output>>(machine: &mut M, effects: &mut E) {
    while let Some(output) = machine.poll_output() {
        effects.carry_out(output);
    }
}

pub(crate) fn deadline<M: Machine>(machine: &M) -> Option<Mono> {
    machine.poll_timeout().map(|timeout| timeout.at)
}

/// A machine that leaves a deadline behind would make its driver spin.
pub(crate) fn assert_nothing_due<M: Machine>(machine: &M, now: Mono) {
    if let Some(timeout) = machine.poll_timeout() {
        assert!(
            timeout.at > now,
            "{:?} was due at {:?} and still is after handle_timeout({now:?})",
            timeout.why,
            timeout.at
        );
    }
}

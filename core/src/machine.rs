//! The one face of every machine.
//!
//! A driver (a tokio shell in production, the simulator in tests) does only this, for ever:
//!
//! 1. feed one input with [`Machine::handle_input`], or, when [`Machine::poll_timeout`] is due,
//!    call [`Machine::handle_timeout`];
//! 2. **drain [`Machine::poll_output`] to `None`** and carry each output out without awaiting;
//! 3. arm one timer for [`Machine::poll_timeout`] and wait.

use core::fmt;

use crate::time::{Mono, Now};

/// A pure state machine: same construction, same inputs at the same times, same outputs.
pub trait Machine {
    type Input;
    type Output;
    /// What a deadline is for; shown in traces, never interpreted by a driver.
    type Why: fmt::Debug;

    /// Total: bad input is an output, never a panic.
    /// Must not be called before the outputs of the previous call were drained; asserted.
    fn handle_input(&mut self, now: Now, input: Self::Input);

    /// Carries out what is due at `now`. A spurious call changes nothing.
    fn handle_timeout(&mut self, now: Now);

    /// The next output, until `None`.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// The earliest deadline. After `handle_timeout(now)` it is later than `now`.
    fn poll_timeout(&self) -> Option<Timeout<Self::Why>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout<W> {
    pub at: Mono,
    pub why: W,
}

/// The queue of outputs of a machine, with the drain contract asserted.
#[derive(Debug)]
pub struct Outbox<O> {
    queue: alloc::collections::VecDeque<O>,
}

impl<O> Default for Outbox<O> {
    fn default() -> Self {
        Self {
            queue: alloc::collections::VecDeque::new(),
        }
    }
}

impl<O> Outbox<O> {
    pub fn push(&mut self, output: O) {
        self.queue.push_back(output);
    }

    pub fn pop(&mut self) -> Option<O> {
        self.queue.pop_front()
    }

    /// Called first by every `handle_*`.
    ///
    /// # Panics
    /// If the driver broke the contract: outputs of the previous call are still queued.
    pub fn assert_drained(&self) {
        assert!(
            self.queue.is_empty(),
            "poll_output must be drained before the next handle_* call"
        );
    }
}

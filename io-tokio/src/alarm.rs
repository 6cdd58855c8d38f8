//! The one timer of a drive loop. It says when to ask the clock, never what expired.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline_core::time::Mono;
use tokio::time::{Instant, Sleep};

use crate::clock::Clock;

/// The runtime's timer stands still while the machine is suspended, our clock does not: so nobody
/// sleeps longer than this before asking again.
pub const SLEEP_AT_MOST: Duration = Duration::from_secs(10);

/// Rings when the clock has reached a deadline.
pub(crate) struct Alarm<C> {
    clock: C,
    sleep: Pin<Box<Sleep>>,
    armed_for: Option<Mono>,
}

impl<C: Clock> Alarm<C> {
    pub(crate) fn new(clock: C) -> Self {
        Self {
            clock,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed_for: None,
        }
    }

    /// Ready once the clock is at or past `deadline`; without one, never.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>, deadline: Option<Mono>) -> Poll<()> {
        let Some(at) = deadline else {
            return Poll::Pending;
        };
        loop {
            let now = self.clock.now().mono;
            if now >= at {
                self.armed_for = None;
                return Poll::Ready(());
            }
            if self.armed_for != Some(at) {
                let wait = at.since(now).min(SLEEP_AT_MOST);
                self.sleep.as_mut().reset(Instant::now() + wait);
                self.armed_for = Some(at);
            }
            ready!(self.sleep.as_mut().poll(cx));
            self.armed_for = None;
        }
    }
}

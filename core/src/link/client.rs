//! The daemon's end of a connection.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use bytes::Bytes;

use super::{DialPlan, Down, Why, heartbeat, hello, owner_was_stopped};
use crate::crypto::Crypto;
use crate::limits::{DIAL_WITHIN, GARBAGE_IN_A_ROW};
use crate::machine::{Machine, Outbox, Timeout};
use crate::mark::{Mark, Marks};
use crate::time::{Now, Wall};
use crate::timers::TimerQueue;
use crate::wire::broker::{ErrorFrame, HelloAck};
use crate::wire::feature::{FeatureMismatch, Features};
use crate::wire::{BrokerDecodeError, BrokerFrame, Close, decode_broker, encode_client, plain};

#[derive(Debug)]
pub enum Input {
    /// The WebSocket is open: say hello.
    Connected,
    /// The dial failed.
    Failed(alloc::string::String),
    Text(Bytes),
    /// Any other sign of life: ping, pong, a binary message.
    Alive,
    /// Our ping was handed to the socket: the time for its pong begins.
    PingSent,
    /// The socket is gone; without a close frame it is [`Close::ABNORMAL`].
    Closed(Close),
}

#[derive(Debug)]
pub enum Output {
    /// To the socket.
    Send(Bytes),
    Ping,
    /// To the host: the hello was taken.
    Up(Box<HelloAck>),
    /// To the host, in order.
    Frame(BrokerFrame),
    /// To the socket, last; or the end of a dial that is still under way.
    Close(Close),
    /// To the host, last, exactly once: whether it was up or not.
    Down(Down),
}

pub struct ClientLink {
    plan: Box<DialPlan>,
    crypto: Arc<dyn Crypto>,
    stage: Stage,
    garbage_in_a_row: u32,
    timers: TimerQueue<Why>,
    outbox: Outbox<Output>,
    marks: Marks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialling,
    /// The hello is out.
    Greeting,
    Up,
    /// The host was told, and hears nothing more.
    Down,
}

impl ClientLink {
    /// `now`: the begin of the dial.
    #[must_use]
    pub fn new(now: Now, plan: impl Into<Box<DialPlan>>, crypto: Arc<dyn Crypto>) -> Self {
        let mut timers = TimerQueue::default();
        timers.set(Why::Handshake, now.mono + DIAL_WITHIN);
        Self {
            plan: plan.into(),
            crypto,
            stage: Stage::Dialling,
            garbage_in_a_row: 0,
            timers,
            outbox: Outbox::default(),
            marks: Marks::default(),
        }
    }

    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    fn restart_deadlines_if_stopped(&mut self, now: Now) {
        if !owner_was_stopped(&self.timers, now.mono) {
            return;
        }
        match self.stage {
            Stage::Dialling | Stage::Greeting => {
                self.timers.set(Why::Handshake, now.mono + DIAL_WITHIN);
            }
            Stage::Up => heartbeat::alive(&mut self.timers, now.mono),
            Stage::Down => {}
        }
    }

    fn alive(&mut self, now: Now) {
        if self.stage == Stage::Up {
            heartbeat::alive(&mut self.timers, now.mono);
        }
    }

    fn connected(&mut self, now: Now) {
        if self.stage != Stage::Dialling {
            return;
        }
        let hello = hello::sign(&self.plan, &*self.crypto, now.wall);
        self.stage = Stage::Greeting;
        self.outbox.push(Output::Send(encode_client(&hello)));
    }

    fn text(&mut self, now: Now, text: &[u8]) {
        let frame = match decode_broker(text) {
            Ok(frame) => frame,
            Err(BrokerDecodeError::Garbage) => return self.garbage(),
            // Waiting for a better one would only be dialling again, for ever.
            Err(BrokerDecodeError::Bad { kind, detail })
                if kind == "hello_ack" && self.stage == Stage::Greeting =>
            {
                return self.unsuited(&FeatureMismatch::unreadable_answer(&detail));
            }
            // What cannot be read is not acknowledged, and what it counted for is missed by the
            // next check of the stream.
            Err(BrokerDecodeError::Bad { .. }) => BrokerFrame::Unknown,
        };
        self.garbage_in_a_row = 0;
        match (self.stage, frame) {
            (Stage::Greeting, BrokerFrame::HelloAck(ack)) => self.acked(now, ack),
            (Stage::Greeting, BrokerFrame::Error(error)) => self.refused(error),
            // A second hello_ack means as little as a frame before the first.
            (Stage::Up, BrokerFrame::HelloAck(_) | BrokerFrame::Unknown) => {}
            (Stage::Up, frame) => self.outbox.push(Output::Frame(frame)),
            (Stage::Greeting | Stage::Dialling | Stage::Down, _) => {}
        }
    }

    fn acked(&mut self, now: Now, ack: Box<HelloAck>) {
        if let Err(mismatch) = self.judge(&ack) {
            return self.unsuited(&mismatch);
        }
        self.stage = Stage::Up;
        self.timers.cancel(&Why::Handshake);
        heartbeat::alive(&mut self.timers, now.mono);
        self.outbox.push(Output::Up(ack));
    }

    /// Who did not ask what its broker can do is told nothing, and judges nothing.
    fn judge(&self, ack: &HelloAck) -> Result<(), FeatureMismatch> {
        let terms = &self.plan.terms;
        if plain::is_plain(&terms.capabilities) {
            return Ok(());
        }
        terms.version.answered(ack.protocol_version)?;
        let none = Features::default();
        let features = ack.features.as_ref().unwrap_or(&none);
        features.suit_daemon(self.plan.sealed)
    }

    fn unsuited(&mut self, mismatch: &FeatureMismatch) {
        self.marks.hit(Mark::BrokerUnsuited);
        let close = mismatch.close();
        self.close(close.clone(), Down::FeatureMismatch(close));
    }

    fn refused(&mut self, error: ErrorFrame) {
        let down = Down::Refused {
            code: error.code,
            message: error.message,
            broker_time: error.broker_time_ms.map(Wall),
        };
        self.close(Close::new(Close::NORMAL, "refused"), down);
    }

    fn garbage(&mut self) {
        self.garbage_in_a_row += 1;
        if self.garbage_in_a_row >= GARBAGE_IN_A_ROW {
            let close = Close::new(Close::POLICY, "malformed");
            self.close(close.clone(), Down::Closed(close));
        }
    }

    fn close(&mut self, close: Close, down: Down) {
        self.outbox.push(Output::Close(close));
        self.down(down);
    }

    fn down(&mut self, down: Down) {
        self.stage = Stage::Down;
        self.timers = TimerQueue::default();
        self.outbox.push(Output::Down(down));
    }
}

impl Machine for ClientLink {
    type Input = Input;
    type Output = Output;
    type Why = Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.outbox.assert_drained();
        self.restart_deadlines_if_stopped(now);
        if self.stage == Stage::Down {
            return;
        }
        match input {
            Input::Connected => self.connected(now),
            Input::Failed(detail) => self.down(Down::DialFailed { detail }),
            Input::Text(text) => {
                self.alive(now);
                self.text(now, &text);
            }
            Input::Alive => self.alive(now),
            Input::PingSent => heartbeat::ping_left(&mut self.timers, now.mono),
            Input::Closed(close) => self.down(Down::Closed(close)),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.outbox.assert_drained();
        self.restart_deadlines_if_stopped(now);
        while let Some((_, why)) = self.timers.pop_due(now.mono) {
            match why {
                Why::Handshake => {
                    let detail = format!("no answer within {} s", DIAL_WITHIN.as_secs());
                    let close = Close::new(Close::GOING_AWAY, "hello_timeout");
                    self.close(close, Down::DialFailed { detail });
                }
                Why::Ping => {
                    self.marks.hit(Mark::LinkPinged);
                    heartbeat::pinged(&mut self.timers, now.mono);
                    self.outbox.push(Output::Ping);
                }
                Why::Pong => {
                    self.marks.hit(Mark::LinkSilent);
                    self.close(Close::silent(), Down::Closed(Close::silent()));
                }
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<Why>> {
        self.timers.next()
    }
}

//! The broker's end of a connection.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::hello::{Refusal, Verifier};
use super::{VerifiedHello, Why, heartbeat, owner_was_stopped};
use crate::crypto::Crypto;
use crate::id::Role;
use crate::limits::{
    FRAME_BYTES, GARBAGE_IN_A_ROW, HELD_BYTES_AT_HELLO, HELD_FRAMES_AT_HELLO, HELLO_FRAME_BYTES,
    HELLO_WITHIN,
};
use crate::machine::{Machine, Outbox, Timeout};
use crate::mark::{Mark, Marks};
use crate::time::{Now, Wall};
use crate::timers::TimerQueue;
use crate::wire::broker::{Ack, BrokerFrame, ErrorFrame};
use crate::wire::client::{Offer, ReqId};
use crate::wire::version::decode_client_in;
use crate::wire::{
    ClientDecodeError, ClientFrame, Close, Code, HelloCode, ProtocolVersion, SendCode,
    decode_client, encode_broker, plain,
};

#[derive(Debug)]
pub enum Input {
    /// A text message, at most [`crate::limits::FRAME_BYTES`] long.
    Text(Bytes),
    /// Any other sign of life: ping, pong, a binary message.
    Alive,
    /// Our ping was handed to the socket: the time for its pong begins.
    PingSent,
    /// The mesh took the hello: frames held since flow on.
    Attached,
    /// Nobody here takes the hello: there is no such mesh (`unauthorized`), or no room (`capacity`).
    /// A mesh that refuses says so itself.
    Refused(HelloCode),
    /// The socket is gone, or is being closed by the mesh. Nothing comes out after this.
    Closed,
}

#[derive(Debug)]
pub enum Output {
    /// To the mesh, first.
    Attach(Box<VerifiedHello>),
    /// To the mesh, in order.
    Frame(ClientFrame),
    /// To the socket: an error or a pong of the link's own.
    Send(Bytes),
    Ping,
    /// Stop and start reading from the socket.
    Pause,
    Resume,
    /// To the socket, last. The mesh, if it was told of an attach, is told `Closed` by the driver.
    Close(Close),
}

/// What a link knows of its broker.
#[derive(Clone, Copy, Debug)]
pub struct ServerLinkConfig {
    /// The start of this broker.
    pub started: Wall,
    /// The highest that it speaks.
    pub version: ProtocolVersion,
}

pub struct ServerLink {
    config: ServerLinkConfig,
    crypto: Arc<dyn Crypto>,
    stage: Stage,
    garbage_in_a_row: u32,
    timers: TimerQueue<Why>,
    outbox: Outbox<Output>,
    marks: Marks,
}

enum Stage {
    /// Nothing but a hello is listened to.
    Fresh,
    /// The mesh has the hello; what comes meanwhile waits, unread.
    Held {
        speaker: Speaker,
        held: Held,
    },
    Attached(Speaker),
    Closed,
}

/// Who is at the other end, as far as answers depend on it.
#[derive(Clone, Copy)]
struct Speaker {
    plain: bool,
    role: Role,
    version: ProtocolVersion,
}

#[derive(Default)]
struct Held {
    texts: VecDeque<Bytes>,
    bytes: usize,
    paused: bool,
}

impl ServerLink {
    /// `now`: the TCP accept.
    #[must_use]
    pub fn new(now: Now, config: ServerLinkConfig, crypto: Arc<dyn Crypto>) -> Self {
        let mut timers = TimerQueue::default();
        timers.set(Why::Handshake, now.mono + HELLO_WITHIN);
        Self {
            config,
            crypto,
            stage: Stage::Fresh,
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
            Stage::Fresh => self.timers.set(Why::Handshake, now.mono + HELLO_WITHIN),
            Stage::Held { .. } | Stage::Attached(_) => heartbeat::alive(&mut self.timers, now.mono),
            Stage::Closed => {}
        }
    }

    fn alive(&mut self, now: Now) {
        if matches!(self.stage, Stage::Held { .. } | Stage::Attached(_)) {
            heartbeat::alive(&mut self.timers, now.mono);
        }
    }

    fn text(&mut self, now: Now, text: Bytes) {
        let most = match self.stage {
            Stage::Fresh => HELLO_FRAME_BYTES,
            _ => FRAME_BYTES,
        };
        if text.len() > most {
            return self.close(Close::new(Close::TOO_BIG, "frame_too_large"));
        }
        match &mut self.stage {
            Stage::Fresh => self.first_text(now, &text),
            Stage::Held { held, .. } => {
                held.bytes += text.len();
                held.texts.push_back(text);
                self.marks.hit(Mark::LinkHeldFrames);
                let is_full =
                    held.texts.len() >= HELD_FRAMES_AT_HELLO || held.bytes >= HELD_BYTES_AT_HELLO;
                if is_full && !held.paused {
                    held.paused = true;
                    self.outbox.push(Output::Pause);
                }
            }
            Stage::Attached(speaker) => {
                let speaker = *speaker;
                self.attached_text(speaker, &text);
            }
            Stage::Closed => {}
        }
    }

    fn first_text(&mut self, now: Now, text: &[u8]) {
        let decoded = decode_client(text);
        let version = match offer_of(&decoded).map(|offer| self.config.version.towards(offer)) {
            None => ProtocolVersion::V1,
            Some(Ok(version)) => version,
            Some(Err(mismatch)) => {
                self.marks.hit(Mark::VersionRefused);
                return self.close(mismatch.close());
            }
        };
        let verifier = Verifier {
            crypto: &*self.crypto,
            now: now.wall,
            started: self.config.started,
            version,
        };
        let verified = match decoded {
            Ok(ClientFrame::Hello(hello)) => verifier.member(*hello),
            Ok(ClientFrame::SessionHello(hello)) => verifier.session(*hello),
            Err(ClientDecodeError::BadHello {
                code,
                req_id,
                detail,
            }) => return self.refuse_hello(&Refusal::new(code, detail), req_id),
            Err(ClientDecodeError::Garbage) => return self.garbage(None),
            other => return self.no_hello(other),
        };
        match verified {
            Ok(hello) => self.verified(now, hello),
            Err(refusal) => self.refuse_hello(&refusal, None),
        }
    }

    fn verified(&mut self, now: Now, hello: VerifiedHello) {
        self.garbage_in_a_row = 0;
        let version = hello.version.number();
        let said = hello.offer.protocol_version.unwrap_or(version);
        let is_plain = plain::is_plain(&hello.offer.capabilities);
        if !is_plain && (said > version || self.config.version > hello.version) {
            self.marks.hit(Mark::VersionLowered);
        }
        self.timers.cancel(&Why::Handshake);
        heartbeat::alive(&mut self.timers, now.mono);
        self.stage = Stage::Held {
            speaker: Speaker {
                plain: is_plain,
                role: hello.role,
                version: hello.version,
            },
            held: Held::default(),
        };
        self.outbox.push(Output::Attach(Box::new(hello)));
    }

    fn refuse_hello(&mut self, refusal: &Refusal, req_id: Option<ReqId>) {
        self.marks.hit(Mark::LinkHelloRefused);
        if refusal.code == HelloCode::TimestampSkew {
            self.marks.hit(Mark::HelloSkewed);
        }
        self.send(&BrokerFrame::Error(ErrorFrame {
            code: refusal.code.as_str().into(),
            message: refusal.message.clone(),
            id: None,
            req_id,
            broker_time_ms: refusal.broker_time.map(|time| time.0),
        }));
        self.close(refusal.code.close());
    }

    /// A frame that is not a hello, before one. A `send` is owed an `ack`, with a code that is no
    /// refusal of the message.
    fn no_hello(&mut self, decoded: Result<ClientFrame, ClientDecodeError>) {
        self.garbage_in_a_row = 0;
        let (id, req_id) = match decoded {
            Ok(ClientFrame::Send(send)) if send.id.is_some() => {
                return self.send_ack(Ack {
                    id: send.id,
                    error: Some(NO_HELLO.into()),
                    code: Some(Code::NoHello.as_str().into()),
                    ..Ack::default()
                });
            }
            Ok(frame) => (None, frame.req_id().cloned()),
            Err(
                ClientDecodeError::Unknown { id, req_id, .. }
                | ClientDecodeError::Bad { id, req_id, .. },
            ) => (id, req_id),
            Err(ClientDecodeError::BadHello { req_id, .. }) => (None, req_id),
            Err(ClientDecodeError::Garbage) => (None, None),
        };
        self.send_error(Code::NoHello, NO_HELLO.into(), id, req_id);
    }

    fn mesh_attached(&mut self) {
        let (speaker, held) = match core::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Held { speaker, held } => (speaker, held),
            other => {
                self.stage = other;
                return;
            }
        };
        self.stage = Stage::Attached(speaker);
        for text in &held.texts {
            if matches!(self.stage, Stage::Closed) {
                return;
            }
            self.attached_text(speaker, text);
        }
        if held.paused && !matches!(self.stage, Stage::Closed) {
            self.outbox.push(Output::Resume);
        }
    }

    fn attached_text(&mut self, speaker: Speaker, text: &[u8]) {
        let decoded = decode_client_in(speaker.version, text);
        if decoded != Err(ClientDecodeError::Garbage) {
            self.garbage_in_a_row = 0;
        }
        match decoded {
            Ok(ClientFrame::Ping { n }) => self.send(&BrokerFrame::Pong { n }),
            Ok(ClientFrame::Hello(_) | ClientFrame::SessionHello(_)) => {
                self.second_hello(speaker, None);
            }
            Ok(frame) => self.outbox.push(Output::Frame(frame)),
            Err(ClientDecodeError::BadHello { req_id, .. }) => self.second_hello(speaker, req_id),
            Err(ClientDecodeError::Garbage) => self.garbage(Some(speaker)),
            Err(ClientDecodeError::Unknown { kind, id, req_id }) => {
                self.unknown(speaker, &kind, id, req_id);
            }
            Err(ClientDecodeError::Bad {
                kind,
                id: Some(id),
                req_id,
                detail,
            }) if kind == "send" => self.send_ack(Ack {
                id: Some(id),
                error: Some(plain::refusal_text(SendCode::BadRequest, &detail)),
                code: Some(SendCode::BadRequest.as_str().into()),
                req_id,
                ..Ack::default()
            }),
            Err(ClientDecodeError::Bad {
                kind,
                id,
                req_id,
                detail,
            }) => {
                if !speaker.plain || plain::hears_errors_about(&kind, req_id.as_ref()) {
                    self.send_error(Code::BadRequest, detail, id, req_id);
                }
            }
        }
    }

    fn second_hello(&mut self, speaker: Speaker, req_id: Option<ReqId>) {
        if !speaker.plain || req_id.is_some() {
            let message = "this connection has said hello";
            self.send_error(Code::AlreadyAuthenticated, message.into(), None, req_id);
        }
    }

    fn unknown(&mut self, speaker: Speaker, kind: &str, id: Option<String>, req_id: Option<ReqId>) {
        let message = alloc::format!("there is no message type `{kind}`");
        if !speaker.plain {
            return self.send_error(Code::UnknownMessageType, message, id, req_id);
        }
        if let Some(reply) = plain::empty_reply(kind, req_id.as_ref()) {
            return self.outbox.push(Output::Send(reply));
        }
        if !plain::hears_errors_about(kind, req_id.as_ref()) {
            return;
        }
        // On a session's socket a plain client takes the code of this for a broker of another age.
        let code = match speaker.role {
            Role::ControlPlane => Code::UnknownMessageType,
            Role::Session | Role::Service => Code::BadRequest,
        };
        self.send_error(code, message, id, req_id);
    }

    /// `speaker`: absent before the hello, when even a plain client is told.
    fn garbage(&mut self, speaker: Option<Speaker>) {
        self.garbage_in_a_row += 1;
        if self.garbage_in_a_row >= GARBAGE_IN_A_ROW {
            return self.close(Close::new(Close::POLICY, "malformed"));
        }
        if !speaker.is_some_and(|speaker| speaker.plain) {
            let message = "a frame is a JSON object with a string `type`";
            self.send_error(Code::BadRequest, message.into(), None, None);
        }
    }

    fn send_error(
        &mut self,
        code: Code,
        message: String,
        id: Option<String>,
        req_id: Option<ReqId>,
    ) {
        self.send(&BrokerFrame::Error(ErrorFrame {
            code: code.as_str().into(),
            message,
            id,
            req_id,
            broker_time_ms: None,
        }));
    }

    fn send_ack(&mut self, ack: Ack) {
        self.send(&BrokerFrame::Ack(Box::new(ack)));
    }

    fn send(&mut self, frame: &BrokerFrame) {
        self.outbox.push(Output::Send(encode_broker(frame)));
    }

    fn close(&mut self, close: Close) {
        self.outbox.push(Output::Close(close));
        self.end();
    }

    fn end(&mut self) {
        self.stage = Stage::Closed;
        self.timers = TimerQueue::default();
    }
}

const NO_HELLO: &str = "say hello first";

impl Machine for ServerLink {
    type Input = Input;
    type Output = Output;
    type Why = Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.outbox.assert_drained();
        self.restart_deadlines_if_stopped(now);
        if matches!(self.stage, Stage::Closed) {
            return;
        }
        match input {
            Input::Text(text) => {
                self.alive(now);
                self.text(now, text);
            }
            Input::Alive => self.alive(now),
            Input::PingSent => heartbeat::ping_left(&mut self.timers, now.mono),
            Input::Attached => self.mesh_attached(),
            Input::Refused(code) => {
                self.refuse_hello(&Refusal::new(code, "nobody here takes this hello"), None);
            }
            Input::Closed => self.end(),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.outbox.assert_drained();
        self.restart_deadlines_if_stopped(now);
        while let Some((_, why)) = self.timers.pop_due(now.mono) {
            match why {
                Why::Handshake => {
                    self.marks.hit(Mark::LinkHelloTimedOut);
                    self.close(Close::new(Close::POLICY, "hello_timeout"));
                }
                Why::Ping => {
                    self.marks.hit(Mark::LinkPinged);
                    heartbeat::pinged(&mut self.timers, now.mono);
                    self.outbox.push(Output::Ping);
                }
                Why::Pong => {
                    self.marks.hit(Mark::LinkSilent);
                    self.close(Close::silent());
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

fn offer_of(decoded: &Result<ClientFrame, ClientDecodeError>) -> Option<&Offer> {
    match decoded {
        Ok(ClientFrame::Hello(hello)) => Some(&hello.offer),
        Ok(ClientFrame::SessionHello(hello)) => Some(&hello.offer),
        _ => None,
    }
}

//! What goes into a host and what comes out.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;

use super::ipc::{Answer, Call, Subscribe};
use crate::id::{ConnId, InboxSeq, LoadId, RequestId, SubscriberId};
use crate::limits::Limits;
use crate::link::{DialPlan, Down};
use crate::store;
use crate::store::host::{Load, Loaded, Op};
use crate::wire::broker::HelloAck;
use crate::wire::feature::Terms;
use crate::wire::{BrokerFrame, Close};

#[derive(Clone, Debug)]
pub struct Config {
    pub limits: Limits,
    pub terms: Terms,
    /// SHA-256 of the token that stands in the daemon's directory.
    pub machine_token_sha256: [u8; 32],
    pub hostname: String,
    /// Of the daemon, told in `ready` and `/v1/version`.
    pub version: &'static str,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// A dialled connection's link has its `hello_ack`.
    Up {
        conn: ConnId,
        ack: Box<HelloAck>,
    },
    /// From a connection's link, in order.
    Frame {
        conn: ConnId,
        frame: BrokerFrame,
    },
    /// Exactly once for each `Dial`, last.
    Down {
        conn: ConnId,
        down: Down,
    },
    /// `bytes` of what this host sent to `conn` were handed to the socket.
    Sent {
        conn: ConnId,
        bytes: u64,
    },
    Store(store::Event<Loaded>),
    /// A request over the IPC. Answered exactly once.
    Ipc {
        request: RequestId,
        call: Box<Call>,
    },
    /// An event stream is asked for.
    Subscribe {
        subscriber: SubscriberId,
        subscribe: Box<Subscribe>,
    },
    /// This many events of the stream were handed to its socket.
    SubscriberSent {
        subscriber: SubscriberId,
        events: usize,
    },
    /// The stream is gone.
    Unsubscribed {
        subscriber: SubscriberId,
    },
    /// The answer to an `Http`.
    HttpDone {
        request: RequestId,
        outcome: HttpOutcome,
    },
    /// The process of a session, as the shell found it gone.
    ProcessGone {
        pid: u32,
    },
    /// What the file system of the database has free.
    DiskFree {
        bytes: u64,
    },
    /// The daemon stops in good order: connections close without `bye`.
    Stop,
}

#[derive(Debug)]
pub enum Output {
    /// Open a connection and run a client link with this plan over it. `conn` is new.
    Dial {
        conn: ConnId,
        plan: Box<DialPlan>,
    },
    /// To the socket.
    Send {
        conn: ConnId,
        frame: Bytes,
    },
    /// To the socket, last; the link still reports its `Down`.
    Hangup {
        conn: ConnId,
        close: Close,
    },
    Persist(store::Txn<Op>),
    Load {
        load: LoadId,
        what: Load,
    },
    Answer {
        request: RequestId,
        answer: Answer,
    },
    /// The stream is not granted.
    SubscribeRefused {
        subscriber: SubscriberId,
        answer: Answer,
    },
    /// To the stream, in order. The first is `ready`.
    Event {
        subscriber: SubscriberId,
        event: SseEvent,
    },
    /// The stream ends after what was sent.
    EndEvents {
        subscriber: SubscriberId,
    },
    /// A request to a broker's HTTP endpoint.
    Http {
        request: RequestId,
        http: HttpCall,
    },
    /// What the daemon must tell its log: never a body, a key or a token.
    Log {
        level: LogLevel,
        message: String,
    },
    /// After `Stop`: everything is durable and closed.
    Stopped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent {
    /// Only mail has one: its number in the inbox.
    pub id: Option<InboxSeq>,
    /// `ready`, `message`, `peers`, `peer_joined`, `peer_left`, `profile_updated`, `receipt`, `gap`.
    pub event: &'static str,
    /// One line of JSON.
    pub data: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpCall {
    pub method: &'static str,
    /// `http(s)://host[:port]/path`.
    pub url: String,
    /// JSON.
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HttpOutcome {
    Answered {
        status: u16,
        body: Bytes,
    },
    /// No answer: not "did not happen".
    Failed {
        detail: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    Info,
    Warn,
    Error,
}

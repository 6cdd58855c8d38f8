//! Small HTTP/1.1 over any stream: a server whose handler is a closure, answers, event streams,
//! and a client. Mechanisms only: what is answered is decided elsewhere.

mod body;
mod client;
mod server;
mod sse;
mod url;

pub use body::{Body, BodyError, json, read_body};
pub use client::{
    Answered, CallError, EventStream, ReadEvent, Target, call, call_through, open_events,
    open_events_through,
};
pub use server::{ConnInfo, Peer, ServerConfig, serve};
pub use sse::{EventSender, EventsGone, SseFrame, events};
pub use url::{HttpUrl, UrlError};

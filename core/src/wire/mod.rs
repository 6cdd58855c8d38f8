//! The wire: frames, their limits, codes, and what a hello negotiates.
//!
//! One JSON object per WebSocket text message, key `type`. The base dialect is claudemesh's
//! protocol version 1; what Bowline adds is negotiated by `capabilities`.

pub mod audience;
mod body;
pub mod broker;
pub mod client;
pub mod code;
pub mod decode;
pub mod encode;
pub mod feature;
pub mod http;
pub mod moderation;
pub mod plain;
pub mod receipt;
#[cfg(test)]
mod round_trip;
mod suite;
mod target;
pub mod version;

pub use body::{Base64Body, Nonce};
pub use broker::BrokerFrame;
pub use client::{ClientFrame, MemberHello, Send, SessionHello};
pub use code::{Close, Code, HelloCode, SendCode, SendCodeKind};
pub use decode::{BrokerDecodeError, ClientDecodeError, decode_broker, decode_client};
pub use encode::{encode_broker, encode_client, encode_event, encode_event_plain};
pub use suite::Suite;
pub use target::{BadTarget, Target};
pub use version::ProtocolVersion;

use serde::{Deserialize, Serialize};

/// Gates a delivery by its recipient's status: `working` and `dnd` take `now` only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Now,
    Next,
    Low,
}

impl Priority {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }
}

/// What a peer says it is doing; decides which priorities reach it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Idle,
    Working,
    Dnd,
}

impl Status {
    #[must_use]
    pub fn takes(self, priority: Priority) -> bool {
        matches!(self, Self::Idle) || matches!(priority, Priority::Now)
    }
}

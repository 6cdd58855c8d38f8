//! What became of a message: receipts, what was seen, and the answers to those who ask.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::client::{ReqId, first};
use crate::id::{ClientMessageId, MessageId, PubKey};
use crate::limits::SEEN_IDS_PER_FRAME;

/// One more than may be: they are refused, not cut.
const SEEN_IDS_READ: usize = SEEN_IDS_PER_FRAME + 1;
/// A message may be asked for by the beginning of its id.
pub const MESSAGE_ID_PREFIX: core::ops::RangeInclusive<usize> = 8..=32;

/// How far a delivery came. The order is that of truth: a higher rung replaces a lower one, also
/// where a message that had expired turns out to have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Its recipient did not acknowledge it within retention: it may have it all the same.
    Expired,
    /// It will never be delivered, for the reason given.
    Dead,
    /// Durable in the recipient's inbox.
    Delivered,
    /// Read by its recipient.
    Seen,
}

impl Rung {
    pub const ALL: [Self; 4] = [Self::Expired, Self::Dead, Self::Delivered, Self::Seen];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::Delivered => "delivered",
            Self::Seen => "seen",
        }
    }
}

/// The recipient has read these. Idempotent; answered `ok` when it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Message ids, as pushed.
    #[serde(deserialize_with = "first::<SEEN_IDS_READ, _>")]
    pub ids: Vec<String>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

/// Where a message that the asker sent is, by its id or the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    pub message_id: String,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

/// Why a message is where it is, for its sender or its recipient. `id`: the message's or the
/// beginning of it, or the `client_message_id` of one that the asker sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    pub id: String,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

/// To the sender, numbered: a delivery keeps its highest rung and the last number given for it, so
/// a replay may skip lower rungs. Numbers are per sender and never used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub n: u64,
    pub client_message_id: ClientMessageId,
    pub recipient: PubKey,
    pub rung: Rung,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// ISO 8601.
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatusResult {
    pub message_id: MessageId,
    pub target_spec: String,
    /// To all its recipients.
    pub delivered: bool,
    /// When the last of them took it, ISO 8601.
    pub delivered_at: Option<String>,
    pub recipients: Vec<RecipientStatus>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientStatus {
    pub name: String,
    pub pubkey: PubKey,
    pub status: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    Delivered,
    /// Its recipient has a connection.
    Held,
    Disconnected,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainResult {
    pub message_id: MessageId,
    pub client_message_id: ClientMessageId,
    pub recipient: PubKey,
    pub state: DeliveryState,
    pub waits_for: WaitsFor,
    /// The key of the peer whose connection holds the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<PubKey>,
    /// Pushes so far.
    pub attempt: u32,
    /// When it will be pushed again, or expires, if nothing happens before: ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// Oldest first.
    pub history: Vec<Happened>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Owed, and not under way.
    Ready,
    /// Pushed, and not acknowledged.
    Claimed,
    Delivered,
    Seen,
    Expired,
    Dead,
}

impl From<Rung> for DeliveryState {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Expired => Self::Expired,
            Rung::Dead => Self::Dead,
            Rung::Delivered => Self::Delivered,
            Rung::Seen => Self::Seen,
        }
    }
}

/// What has to happen before the next thing can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    Nothing,
    /// The recipient, to connect.
    Reattach,
    /// The recipient's status: it takes only what is more urgent.
    Status,
    /// The recipient's client, which cannot open this suite, to be another.
    Suite,
    /// The recipient's acknowledgement, of this message.
    Acknowledgement,
    /// The recipient's acknowledgement, of some of those before it.
    Window,
    /// Bytes to leave the recipient's connection.
    Connection,
    /// Older messages that go first.
    Turn,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// `accepted`, `pushed`, or a [`Rung`].
    pub what: String,
    /// ISO 8601.
    pub at: String,
}

//! Frames that a broker sends to a client.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audience::Audience;
use super::body::{Base64Body, Nonce};
use super::client::{Group, Profile, ReqId};
use super::feature::{Capabilities, Features};
use super::moderation::{BanAck, BansResult, DisconnectAck, KickAck, UnbanAck};
use super::receipt::{ExplainResult, MessageStatusResult, Receipt};
use super::{Priority, Status};
use crate::crypto::attestation::Attestation;
use crate::id::{
    ClientMessageId, Epoch, Fingerprint, MemberId, MeshId, MessageId, PresenceId, PubKey, SessionId,
};

/// Serialised with its `type` by [`super::encode`], read by [`super::decode::decode_broker`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BrokerFrame {
    HelloAck(alloc::boxed::Box<HelloAck>),
    Ack(alloc::boxed::Box<Ack>),
    Push(alloc::boxed::Box<Push>),
    /// A live event to a `live1` client. Counts one in the stream.
    Event(Event),
    /// The current count of the stream: a check, it does not count.
    Stream(StreamAt),
    PeersList(PeersList),
    Receipt(Receipt),
    MessageStatusResult(MessageStatusResult),
    ExplainResult(alloc::boxed::Box<ExplainResult>),
    KickAck(KickAck),
    DisconnectAck(DisconnectAck),
    BanAck(BanAck),
    UnbanAck(UnbanAck),
    ListBansResult(BansResult),
    Error(ErrorFrame),
    Ok {
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
    },
    /// A type that this version does not know: ignored.
    #[serde(skip)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    pub presence_id: PresenceId,
    pub member_display_name: String,
    pub member_profile: MemberProfile,
    /// To a member only, and always empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Value>>,
    /// To `features1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ttl_ms: Option<u64>,
    /// To `resume1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamAt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberProfile {
    pub role_tag: Option<String>,
    pub groups: Vec<Group>,
    /// Always `push`.
    pub message_mode: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resumed {
    /// What was missed follows.
    Hit,
    /// The ring no longer holds it, or another owner: take a snapshot.
    Miss,
    /// Nothing was asked to be resumed.
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAt {
    pub epoch: Epoch,
    /// The number of the last event before what follows.
    pub count: u64,
}

/// The answer to a `send` with an `id`, whatever is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Empty where refused.
    pub message_id: String,
    pub queued: bool,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub duplicate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_available: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A [`super::SendCode`] by its text; one that is not known is transient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint_prefix: Option<String>,
    /// With `audience_changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    pub message_id: MessageId,
    pub mesh_id: MeshId,
    /// The key whose secret may have sealed it.
    pub sender_pubkey: PubKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<PubKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_id: Option<MemberId>,
    pub sender_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<MessageId>,
    pub priority: Priority,
    pub nonce: Nonce,
    pub ciphertext: Base64Body,
    pub created_at: String,
    #[serde(rename = "client_message_id")]
    pub client_message_id: ClientMessageId,
    #[serde(
        default,
        rename = "request_fingerprint",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_fingerprint: Option<Fingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// `{type:"event", v:1, event, data}`; to other clients the same as a system push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub kind: EventKind,
    pub data: EventData,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    PeerJoined,
    PeerLeft,
    PeerVisible,
    PeerHidden,
    ProfileUpdated,
}

/// `name` and `pubkey` are the dialect's; the rest is what a listing would say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventData {
    pub name: String,
    pub pubkey: PubKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_pubkey: Option<PubKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// What it opens, by name; to `live1` clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersList {
    pub peers: Vec<Peer>,
    /// Pass as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub pubkey: PubKey,
    pub member_pubkey: PubKey,
    pub display_name: String,
    pub status: Status,
    pub summary: Option<String>,
    pub groups: Vec<Group>,
    pub session_id: SessionId,
    pub connected_at: String,
    pub cwd: String,
    pub peer_role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// To Bowline clients from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PeerState>,
    /// How long ago its last connection went, while `state` is `grace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    Live,
    Grace,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFrame {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
    /// The broker's clock in ms since 1970, with `timestamp_skew`.
    #[serde(
        default,
        rename = "brokerTime",
        skip_serializing_if = "Option::is_none"
    )]
    pub broker_time_ms: Option<u64>,
}

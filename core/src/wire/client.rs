//! Frames that a client sends to a broker.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Base64Body, Nonce};
use super::feature::{Capabilities, QUIET1, Require};
use super::moderation::Whom;
use super::receipt::{Explain, MessageStatus, Seen};
use super::{Priority, Status};
use crate::crypto::attestation::Attestation;
use crate::id::{
    ClientMessageId, Epoch, Fingerprint, MemberId, MeshId, MessageId, PubKey, SessionId, Signature,
};
use crate::limits::{MENTIONS, PROFILE_CAPABILITIES};

/// One more than may be: it is refused, not cut.
const MENTIONS_READ: usize = MENTIONS + 1;

/// A frame whose shape is known good. What it may do is decided by the machine that takes it.
///
/// Serialised with its `type`; read by [`super::decode::decode_client`], which knows the limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    Hello(alloc::boxed::Box<MemberHello>),
    SessionHello(alloc::boxed::Box<SessionHello>),
    Send(alloc::boxed::Box<Send>),
    ClientAck(ClientAck),
    ListPeers {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    SetStatus {
        status: Status,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    SetSummary {
        summary: String,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    JoinGroup {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    LeaveGroup {
        name: String,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    SetVisible {
        visible: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    SetProfile {
        #[serde(flatten)]
        profile: Profile,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    SetStats {
        stats: Value,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Seen(Seen),
    MessageStatus(MessageStatus),
    Explain(Explain),
    Kick {
        #[serde(flatten)]
        whom: Whom,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Disconnect {
        #[serde(flatten)]
        whom: Whom,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Ban {
        target: String,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Unban {
        target: String,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    ListBans {
        /// A member's key, as `next` of the page before said.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
        req_id: Option<ReqId>,
    },
    Bye,
    Ping {
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
    },
}

impl ClientFrame {
    /// What an answer to it has to echo.
    #[must_use]
    pub fn req_id(&self) -> Option<&ReqId> {
        match self {
            Self::ListPeers { req_id, .. }
            | Self::SetStatus { req_id, .. }
            | Self::SetSummary { req_id, .. }
            | Self::JoinGroup { req_id, .. }
            | Self::LeaveGroup { req_id, .. }
            | Self::SetVisible { req_id, .. }
            | Self::SetProfile { req_id, .. }
            | Self::SetStats { req_id, .. }
            | Self::Kick { req_id, .. }
            | Self::Disconnect { req_id, .. }
            | Self::Ban { req_id, .. }
            | Self::Unban { req_id, .. }
            | Self::ListBans { req_id, .. } => req_id.as_ref(),
            Self::Seen(seen) => seen.req_id.as_ref(),
            Self::MessageStatus(status) => status.req_id.as_ref(),
            Self::Explain(explain) => explain.req_id.as_ref(),
            Self::Hello(_)
            | Self::SessionHello(_)
            | Self::Send(_)
            | Self::ClientAck(_)
            | Self::Bye
            | Self::Ping { .. } => None,
        }
    }
}

/// `_reqId`: echoed in the reply, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReqId(pub String);

/// What both hellos say of the program that connects. Names are cut, not refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    #[serde(default)]
    pub pid: u64,
    #[serde(default)]
    pub cwd: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human` or `connector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "first::<PROFILE_CAPABILITIES, _>"
    )]
    pub capabilities: Vec<String>,
}

/// What the client has seen of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub epoch: Epoch,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsAfter {
    pub after: u64,
}

/// Role `control-plane`. Signed by the member key over `meshId|memberId|pubkey|timestamp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberHello {
    pub mesh_id: MeshId,
    pub member_id: MemberId,
    pub pubkey: PubKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<PubKey>,
    pub session_id: SessionId,
    #[serde(flatten)]
    pub about: About,
    #[serde(flatten)]
    pub offer: Offer,
    pub timestamp: u64,
    pub signature: Signature,
}

/// Role `session`, or the role that the attestation signs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHello {
    pub mesh_id: MeshId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_member_id: Option<MemberId>,
    pub parent_member_pubkey: PubKey,
    pub session_pubkey: PubKey,
    pub parent_attestation: Attestation,
    pub session_id: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(flatten)]
    pub about: About,
    #[serde(flatten)]
    pub offer: Offer,
    pub timestamp: u64,
    pub signature: Signature,
}

/// What a hello offers and asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    #[serde(default)]
    pub capabilities: Capabilities,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ReceiptsAfter>,
    #[serde(default, skip_serializing_if = "Require::is_empty")]
    pub require: Require,
    /// Authenticates a key for sending only.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub quiet: bool,
}

impl Offer {
    /// `quiet` counts for those who say that they know what it is.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet && self.capabilities.has(QUIET1)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<ClientMessageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<Fingerprint>,
    #[serde(rename = "targetSpec")]
    pub target_spec: String,
    pub priority: Priority,
    pub nonce: Nonce,
    pub ciphertext: Base64Body,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "first::<MENTIONS_READ, _>"
    )]
    pub mentions: Vec<String>,
    #[serde(default, rename = "replyToId", skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<MessageId>,
    #[serde(
        default,
        rename = "bodyVersion",
        skip_serializing_if = "Option::is_none"
    )]
    pub body_version: Option<u32>,
    /// This row was never on a wire before: a miss in the dedupe map is new without a look-up.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub first: bool,
    /// The sealing suite; absent means `box` to a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

/// Settles the acknowledging peer's own delivery, never another's. No reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<ClientMessageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<MessageId>,
}

/// Holds no more than the first `MOST` texts of a list, however long it is.
pub(super) fn first<'de, const MOST: usize, D: Deserializer<'de>>(
    d: D,
) -> Result<Vec<String>, D::Error> {
    struct First<const MOST: usize>;

    impl<'de, const MOST: usize> Visitor<'de> for First<MOST> {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut first = Vec::new();
            while first.len() < MOST {
                let Some(text) = seq.next_element()? else {
                    return Ok(first);
                };
                first.push(text);
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    d.deserialize_seq(First::<MOST>)
}

//! Requests over the IPC as data, and their answers.
//!
//! The shell hands over method, path, query, headers and body; [`parse`] makes a [`Call`] of them
//! or the error answer. Who the caller is and what it may do is decided by the host.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ClientMessageId, InboxSeq, MeshId, MessageId, OutboxSeq, SessionId};
use crate::store::host::OutboxStatus;
use crate::wire::Priority;

/// An IPC request as it came over HTTP.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// A Unix socket: the file system has vouched for the caller. TCP: a token is required.
    pub unix: bool,
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The values of the headers that matter here, by lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Clone, Debug)]
pub struct Call {
    pub token: Token,
    pub request: Request,
}

#[derive(Clone)]
pub enum Token {
    /// None was given, over the Unix socket: the caller is the member.
    Absent,
    Bearer(String),
}

#[derive(Clone, Debug)]
pub enum Request {
    Version,
    Health,
    Metrics,
    Meshes,
    MeshCreate(MeshCreate),
    MeshJoin(MeshJoin),
    Invite(Invite),
    SessionOpen(SessionOpen),
    /// End the calling session: says `bye`.
    SessionEnd {
        session: Option<SessionId>,
    },
    Sessions,
    SessionMe,
    Send {
        send: SendRequest,
        id: Option<ClientMessageId>,
    },
    Inbox(InboxQuery),
    InboxSeen {
        ids: Vec<InboxSeq>,
    },
    Outbox(OutboxQuery),
    OutboxGet {
        id: ClientMessageId,
        mesh: Option<String>,
    },
    Peers {
        mesh: Option<String>,
        all: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeshCreate {
    pub slug: String,
    /// `ws(s)://host[:port]/ws`.
    pub broker_url: String,
    /// `sealed` (default) or `open`.
    #[serde(default)]
    pub policy: Option<String>,
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeshJoin {
    pub invite: String,
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// Slug or id; may be left out where only one mesh is joined.
    #[serde(default)]
    pub mesh: Option<String>,
    /// `member` (default) or `admin`.
    #[serde(default)]
    pub role: Option<String>,
    /// Seconds from now; 7 days by default.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
    #[serde(default)]
    pub uses: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionOpen {
    /// A uuid by convention; made where absent. Same mesh, same id: same key.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    #[serde(default)]
    pub mesh: Option<String>,
    pub display_name: String,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub cwd: Option<String>,
    /// `session` (default) or `service`.
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    /// Take a live session's name.
    #[serde(default)]
    pub take_over: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendRequest {
    /// A name, 64 hex characters, or a prefix of 4 or more.
    pub to: String,
    pub body: String,
    #[serde(default)]
    pub priority: Option<Priority>,
    #[serde(default)]
    pub meta: Option<Value>,
    #[serde(default)]
    pub reply_to_id: Option<MessageId>,
    #[serde(default)]
    pub mesh: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct InboxQuery {
    pub unread: bool,
    /// 64 hex characters or a name.
    pub from: Option<String>,
    pub after: InboxSeq,
    pub limit: Option<usize>,
    pub all: bool,
}

#[derive(Clone, Debug, Default)]
pub struct OutboxQuery {
    pub status: Option<OutboxStatus>,
    pub after: OutboxSeq,
    pub limit: Option<usize>,
    pub all: bool,
}

/// `GET /v1/events`.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub token: Token,
    /// `Last-Event-ID`: mail after this. Absent: from now on.
    pub last_event_id: Option<InboxSeq>,
    pub all: bool,
    /// For a caller that is the member.
    pub mesh: Option<MeshId>,
}

/// Status and JSON body. An error's body is `{"error":{"code","message",…}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Bearer(_) => "Bearer(..)",
        })
    }
}

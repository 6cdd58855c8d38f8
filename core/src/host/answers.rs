//! What the IPC answers: JSON bodies and the one code of each error.
//!
//! | what | shape |
//! |---|---|
//! | error | `{"error":{"code","message",…}}` |
//! | send | 202 `{"id","status":"pending"\|"inflight","mesh","mesh_id","to","target"}`; 200 the same with `"status":"done","duplicate":true,"broker_message_id"` |
//! | inbox | `{"messages":[row],"next":n?}` |
//! | outbox | `{"rows":[row],"next":n?}`; one: the row itself |
//! | message | see [`super::ladder`] |
//! | peers | `{"mesh","mesh_id","stale":bool,"peers":[{"name","pubkey","role","state","away_ms","status","summary","mesh"}]}` |
//! | session open | `{"session_id","mesh","mesh_id","name","role","pubkey","token"}` |
//! | sessions | `{"sessions":[{"session_id","mesh","mesh_id","name","role","pubkey","pid","cwd","opened_at"}]}` |
//! | meshes | `{"meshes":[{"id","slug","policy","broker_url","member_id","pubkey","display_name","owner":bool}]}` |
//! | mesh create, join | a mesh as above; join adds `"already_member"` |
//! | invite | `{"invite","mesh","mesh_id","role","expires_at"}` |
//! | kick | `{"mesh","mesh_id","kicked":[name],"skipped_control_plane":[name],"more":n}` |
//! | ban, unban | `{"mesh","mesh_id","banned":name}`, `{…,"unbanned":name}` |
//! | bans | `{"mesh","mesh_id","bans":[{"name","pubkey","banned_at"}]}` |
//! | uplinks retry | `{"retried":n}` |
//! | health | `{"ok","version","store":{…},"uplinks":[{"mesh","mesh_id","kind","session","name","state","reason","since"}],…}` |

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::context::Told;
use super::directory::Candidate;
use super::ipc::Answer;
use crate::id::{ClientMessageId, Fingerprint};
use crate::store::host::{
    DirectoryRow, InboxContent, InboxRow, MeshRow, OutboxRow, OutboxState, SessionRow,
};

#[must_use]
pub(super) fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

#[must_use]
pub(super) fn error(status: u16, code: &str, message: impl Into<String>) -> Answer {
    error_with(status, code, message, Map::new())
}

pub(super) fn error_with(
    status: u16,
    code: &str,
    message: impl Into<String>,
    more: Map<String, Value>,
) -> Answer {
    let mut error = more;
    error.insert("code".into(), code.into());
    error.insert("message".into(), message.into().into());
    Answer {
        status,
        body: json!({ "error": error }),
    }
}

pub(super) fn bad_request(message: impl Into<String>) -> Answer {
    error(400, "bad_request", message)
}

pub(super) fn unauthorized() -> Answer {
    error(
        401,
        "unauthorized",
        "this token is not, or is no longer, known here; open a session anew",
    )
}

pub(super) fn forbidden(message: impl Into<String>) -> Answer {
    error(403, "forbidden", message)
}

pub(super) fn not_found(message: impl Into<String>) -> Answer {
    error(404, "not_found", message)
}

pub(super) fn mesh_not_joined(mesh: Option<&str>) -> Answer {
    match mesh {
        Some(mesh) => error(
            404,
            "mesh_not_joined",
            alloc::format!("the mesh `{mesh}` is not joined on this host"),
        ),
        None => error(
            404,
            "mesh_not_joined",
            "no mesh is joined on this host; create or join one first",
        ),
    }
}

pub(super) fn mesh_ambiguous(slugs: &[&str]) -> Answer {
    let mut more = Map::new();
    more.insert("meshes".into(), json!(slugs));
    error_with(
        400,
        "mesh_ambiguous",
        "several meshes are joined here; say which",
        more,
    )
}

pub(super) fn busy(message: &str) -> Answer {
    error(429, "busy", message)
}

pub(super) fn storage_full() -> Answer {
    error(
        507,
        "storage_full",
        "the disk of this daemon is full, or its outbox is at its cap; what is queued still goes out",
    )
}

pub(super) fn stopping() -> Answer {
    error(503, "stopping", "the daemon is stopping")
}

pub(super) fn outcome_unknown(id: Option<&ClientMessageId>) -> Answer {
    let mut more = Map::new();
    if let Some(id) = id {
        more.insert("id".into(), json!(id));
    }
    error_with(
        503,
        "outcome_unknown",
        "not durable in time, and it stands: ask again with the same id",
        more,
    )
}

/// `box` holds a body alone.
pub(super) fn meta_unsupported(to: &str) -> Answer {
    error(
        422,
        "meta_unsupported",
        alloc::format!("`{to}` reads bodies and no meta: send it without"),
    )
}

pub(super) fn target_unknown(to: &str, near: &[Candidate]) -> Answer {
    let mut more = Map::new();
    let near: Vec<Value> = near.iter().map(candidate).collect();
    more.insert("near".into(), near.into());
    error_with(
        422,
        "target_unknown",
        alloc::format!("nobody called `{to}` is known in this mesh"),
        more,
    )
}

pub(super) fn target_ambiguous(to: &str, candidates: &[Candidate]) -> Answer {
    let mut more = Map::new();
    let candidates: Vec<Value> = candidates.iter().map(candidate).collect();
    more.insert("candidates".into(), candidates.into());
    error_with(
        422,
        "target_ambiguous",
        alloc::format!("`{to}` can mean several peers; write more of the key"),
        more,
    )
}

/// A 409 of the accept table. `state` is the row's, `relation` is `match` or `mismatch`.
pub(super) fn send_conflict(
    state: &str,
    same: bool,
    fingerprint: &Fingerprint,
    reason: Option<&str>,
) -> Answer {
    let relation = if same { "match" } else { "mismatch" };
    let mut more = Map::new();
    let prefix = hex::encode(&fingerprint.0[..8]);
    more.insert("fingerprint_prefix".into(), prefix.into());
    if let Some(reason) = reason {
        more.insert("reason".into(), reason.into());
    }
    let message = if same {
        alloc::format!(
            "this id was used and its row is {state}; an id once written is never free again"
        )
    } else {
        alloc::format!("this id belongs to another message, which is {state}")
    };
    error_with(
        409,
        &alloc::format!("outbox_{state}_fingerprint_{relation}"),
        message,
        more,
    )
}

fn candidate(candidate: &Candidate) -> Value {
    json!({
        "name": candidate.name,
        "pubkey": candidate.pubkey,
        "state": if candidate.present { "live" } else { "gone" },
    })
}

pub(super) fn mesh(row: &MeshRow, pubkey: &impl ToString) -> Value {
    json!({
        "id": row.id,
        "slug": row.slug,
        "policy": row.policy,
        "broker_url": row.broker_url,
        "member_id": row.member_id,
        "pubkey": pubkey.to_string(),
        "display_name": row.display_name,
        "owner": row.owner_secret.is_some(),
    })
}

pub(super) fn session(row: &SessionRow, slug: &str, pubkey: &impl ToString) -> Value {
    json!({
        "session_id": row.id,
        "mesh": slug,
        "mesh_id": row.mesh,
        "name": row.name,
        "role": row.role,
        "pubkey": pubkey.to_string(),
        "pid": row.pid,
        "cwd": row.cwd,
        "opened_at": row.opened_at.iso8601().to_string(),
    })
}

/// The same for a page, for one message and for an event.
pub(super) fn inbox_row(row: &InboxRow, slug: &str) -> Value {
    let mut value = json!({
        "seq": row.seq,
        "message_id": row.message_id,
        "client_message_id": row.client_message_id,
        "mesh": slug,
        "mesh_id": row.mesh,
        "recipient": row.recipient.to_string(),
        "session_id": row.session,
        "from": { "name": row.sender_name, "pubkey": row.sender },
        "priority": row.priority,
        "reply_to_id": row.reply_to,
        "seal": row.seal,
        "sent_at": row.sent_at,
        "received_at": row.received_at.iso8601().to_string(),
        "seen_at": row.seen_at.map(|at| at.iso8601().to_string()),
    });
    match &row.content {
        InboxContent::Opened { body, meta } => {
            value["body"] = body.as_str().into();
            value["meta"] = json_or_null(meta);
        }
        InboxContent::Undecryptable { .. } => value["undecryptable"] = true.into(),
    }
    value
}

/// `state`: of memory, which is ahead of the store for what is under way.
pub(super) fn outbox_row(row: &OutboxRow, state: &OutboxState, slug: &str) -> Value {
    json!({
        "seq": row.seq,
        "id": row.client_message_id,
        "mesh": slug,
        "mesh_id": row.mesh,
        "sender": row.sender.to_string(),
        "session_id": row.session,
        "to": row.to,
        "target": row.target,
        "priority": row.priority,
        "reply_to_id": row.reply_to,
        "meta": json_or_null(&row.meta),
        "body": row.body,
        "accepted_at": row.accepted_at.iso8601().to_string(),
        "status": state.status,
        "attempts": state.attempts,
        "last_error": state.last_error,
        "next_attempt_at": state.next_attempt_at.map(|at| at.iso8601().to_string()),
        "broker_message_id": state.broker_message_id,
        "settled_at": state.settled_at.map(|at| at.iso8601().to_string()),
        "state": super::ladder::state_of(row, state),
    })
}

/// The data of a `receipt` event.
pub(super) fn told(told: &Told, slug: &str) -> Value {
    json!({
        "id": told.client_message_id,
        "mesh": slug,
        "mesh_id": told.sender.mesh,
        "sender": told.sender.peer.to_string(),
        "rung": told.rung,
        "recipient": told.recipient,
        "broker_message_id": told.broker_message_id,
        "reason": told.reason,
        "at": told.at,
    })
}

/// A peer as the directory knows it.
pub(super) fn known_peer(row: &DirectoryRow, slug: &str) -> Value {
    json!({
        "name": row.name,
        "pubkey": row.pubkey,
        "member_pubkey": row.member_pubkey,
        "role": row.role,
        "state": if row.present { "live" } else { "gone" },
        "away_ms": null,
        "status": null,
        "summary": null,
        "mesh": slug,
        "mesh_id": row.mesh,
        "last_seen": row.last_seen.iso8601().to_string(),
    })
}

/// One line.
pub(super) fn line(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn json_or_null(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

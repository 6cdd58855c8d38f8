//! How far a message came, and why it is there, in JSON.
//!
//! ```text
//! {"id","message_id","direction":"sent"|"received","mesh","mesh_id",…,
//!  "state":"queued"|"accepted"|"delivered"|"seen"|"dead"|"expired"|"aborted",
//!  "ladder":[{"rung","at","recipient"?,"reason"?}],
//!  "why":{"said_by":"host"|"broker","waits_for",…}}
//! ```
//!
//! | said by | `waits_for` | beside it |
//! |---|---|---|
//! | host | `disk` `turn` `acknowledgement` `nothing` `reader` | `behind` |
//! | host | `uplink` | `uplink`, `next_at` |
//! | host | `deferral` `retry` | `code`, `attempt`, `next_at` |
//! | host | `broker`: it has it, and cannot be asked | `uplink`, `error` |
//! | broker | as in its `explain_result`; `unknown`: it does not know the message | `attempt`, `next_at`, `holder`, `history` |

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::store::host::{InboxRow, OutboxRow, OutboxState, OutboxStatus};
use crate::time::Wall;
use crate::wire::receipt::{ExplainResult, Rung};

/// What a row that its broker does not have waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its accept is not durable.
    Disk,
    /// Others of its lane.
    Turn { behind: usize },
    /// "Not now", said of this row, its sender or its mesh.
    Deferral {
        code: &'static str,
        until: Option<Wall>,
    },
    /// The next attempt.
    Retry { until: Option<Wall> },
    /// The broker's answer: it is on its way.
    Acknowledgement,
    /// Room on the connection.
    Connection,
}

/// Of a sent message that has come no further than this host.
pub(super) fn waits(waits: &Waits, state: &OutboxState) -> Value {
    let mut why = match waits {
        Waits::Disk => host("disk"),
        Waits::Turn { behind } => json!({
            "said_by": "host", "waits_for": "turn", "behind": behind,
        }),
        Waits::Deferral { code, until } => json!({
            "said_by": "host", "waits_for": "deferral", "code": code, "next_at": iso(*until),
        }),
        Waits::Retry { until } => json!({
            "said_by": "host", "waits_for": "retry", "code": state.last_error,
            "next_at": iso(*until),
        }),
        Waits::Acknowledgement => host("acknowledgement"),
        Waits::Connection => host("connection"),
    };
    why["attempt"] = state.attempts.into();
    why
}

/// Nobody is asked, or nobody can say more.
pub(super) fn host(waits_for: &str) -> Value {
    json!({ "said_by": "host", "waits_for": waits_for })
}

/// What its broker says.
pub(super) fn explained(result: &ExplainResult) -> Value {
    let mut why = json!({
        "said_by": "broker",
        "waits_for": result.waits_for,
        "state": result.state,
        "attempt": result.attempt,
        "next_at": result.next_at,
        "history": result.history,
    });
    if let Some(holder) = &result.holder {
        why["holder"] = json!(holder);
    }
    why
}

pub(super) fn sent(row: &OutboxRow, state: &OutboxState, slug: &str) -> Value {
    json!({
        "direction": "sent",
        "id": row.client_message_id,
        "message_id": state.broker_message_id,
        "mesh": slug,
        "mesh_id": row.mesh,
        "sender": row.sender.to_string(),
        "session_id": row.session,
        "to": row.to,
        "target": row.target,
        "priority": row.priority,
        "state": state_of(row, state),
        "ladder": climbed(row, state),
        "why": host("nothing"),
    })
}

pub(super) fn received(row: &InboxRow, slug: &str) -> Value {
    let rung = |rung: &str, at: Wall| json!({ "rung": rung, "at": at.iso8601().to_string() });
    let mut ladder = vec![rung("delivered", row.received_at)];
    ladder.extend(row.seen_at.map(|at| rung("seen", at)));
    let (state, waits_for) = match row.seen_at {
        None => ("delivered", "reader"),
        Some(_) => ("seen", "nothing"),
    };
    json!({
        "direction": "received",
        "id": row.client_message_id,
        "message_id": row.message_id,
        "seq": row.seq,
        "mesh": slug,
        "mesh_id": row.mesh,
        "recipient": row.recipient.to_string(),
        "session_id": row.session,
        "from": { "name": row.sender_name, "pubkey": row.sender },
        "priority": row.priority,
        "sent_at": row.sent_at,
        "state": state,
        "ladder": ladder,
        "why": host(waits_for),
    })
}

/// Where a message stands. With several recipients: where it stands with the last of them.
///
/// What a receipt says outdoes what this host concluded: a row that was given up may have been
/// accepted all the same.
pub(super) fn state_of(row: &OutboxRow, state: &OutboxState) -> &'static str {
    if let Some(rung) = lowest(row) {
        return rung.as_str();
    }
    end_of(state).unwrap_or("queued")
}

/// What became of a row at this host; `None` while it is not settled.
pub(super) fn end_of(state: &OutboxState) -> Option<&'static str> {
    match state.status {
        OutboxStatus::Pending | OutboxStatus::Inflight => None,
        OutboxStatus::Done => Some("accepted"),
        OutboxStatus::Dead if state.last_error.as_deref() == Some("expired") => Some("expired"),
        OutboxStatus::Dead => Some("dead"),
        OutboxStatus::Aborted => Some("aborted"),
    }
}

/// Of each recipient its highest, and of these the lowest.
pub(super) fn lowest(row: &OutboxRow) -> Option<Rung> {
    let highest = |recipient| {
        let theirs = row.rungs.iter().filter(|rung| rung.recipient == recipient);
        theirs.map(|rung| rung.rung).max()
    };
    row.rungs
        .iter()
        .filter_map(|rung| highest(rung.recipient))
        .min()
}

fn climbed(row: &OutboxRow, state: &OutboxState) -> Vec<Value> {
    let mut ladder = vec![json!({
        "rung": "queued", "at": row.accepted_at.iso8601().to_string(),
    })];
    if let Some(end) = end_of(state) {
        ladder.push(json!({
            "rung": end, "at": iso(state.settled_at), "reason": state.last_error,
        }));
    }
    ladder.extend(row.rungs.iter().map(|rung| {
        json!({
            "rung": rung.rung, "at": rung.at, "recipient": rung.recipient, "reason": rung.reason,
        })
    }));
    ladder
}

fn iso(at: Option<Wall>) -> Option<String> {
    at.map(|at| at.iso8601().to_string())
}

//! `GET /v1/messages/ID`: where a message is, and why.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::Caller;
use crate::host::context::{Identity, Waiter, sender_of};
use crate::host::ipc::Answer;
use crate::host::{Host, answers, ladder};
use crate::id::{MeshId, MessageId, RequestId};
use crate::limits::ID_BYTES;
use crate::mark::Mark;
use crate::store::host::{InboxRow, Load, MessageName, OutboxRow, OutboxStatus, Scope};
use crate::wire::client::ReqId;
use crate::wire::receipt::{DeliveryState, ExplainResult, MESSAGE_ID_PREFIX};

/// As many as are shown where a prefix means several.
const NAMED_AT_MOST: usize = 8;

impl Host {
    pub(super) fn query_message(
        &mut self,
        request: RequestId,
        caller: &Caller,
        id: &str,
        mesh: Option<&str>,
    ) -> Result<Option<Answer>, Answer> {
        if id.is_empty() || id.len() > ID_BYTES {
            return Err(answers::bad_request(alloc::format!(
                "an id has 1 to {ID_BYTES} bytes"
            )));
        }
        let only = match mesh {
            Some(_) => Some(self.mesh_of(caller, mesh)?),
            None => None,
        };
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let name = MessageName {
            text: id.into(),
            or_prefix: is_plain && MESSAGE_ID_PREFIX.contains(&id.len()),
        };
        let what = Load::Message {
            sent_by: within(self.scope(caller, false, false)?, only.as_ref()),
            received_by: within(self.scope(caller, false, true)?, only.as_ref()),
            id: name.clone(),
            limit: NAMED_AT_MOST,
        };
        self.load_page(what, Waiter::Message { request, name })
    }

    pub(in crate::host) fn message_found(
        &mut self,
        request: RequestId,
        name: &MessageName,
        sent: Vec<OutboxRow>,
        received: Vec<InboxRow>,
    ) {
        let mut found = Found::of(sent, received);
        // Who says all of an id means that one.
        if found.len() > 1 {
            found.keep_exact(&name.text);
        }
        match (found.sent.pop(), found.received.pop(), found.len()) {
            (None, None, _) => {
                let answer = answers::not_found("no message of that id is known here");
                self.ctx.answer(request, answer);
            }
            (Some(row), None, 0) => self.explain_sent(request, row),
            (None, Some(row), 0) => {
                let slug = self.meshes.slug(&row.mesh);
                let answer = answers::ok(ladder::received(&row, &slug));
                self.ctx.answer(request, answer);
            }
            (row, other, _) => {
                found.sent.extend(row);
                found.received.extend(other);
                self.ctx.answer(request, found.ambiguous(&name.text));
            }
        }
    }

    /// What its broker alone can say is asked of it; all else is known here.
    fn explain_sent(&mut self, request: RequestId, row: OutboxRow) {
        let state = self.outbox.state_of(row.seq).unwrap_or(&row.state).clone();
        let who = sender_of(&row);
        let is_open = state.status == OutboxStatus::Done && row.rungs.is_empty();
        let message = state.broker_message_id.as_ref().filter(|_| is_open);
        let Some(message) = message.filter(|_| self.uplinks.takes_receipts(&who)) else {
            let why = self.why_here(&row);
            return self.answer_sent(request, &row, why);
        };
        self.ctx.mark(Mark::ExplainAsked);
        let message = message.clone();
        let ask = self.explains.begin(request, who.clone(), &message, row);
        self.uplinks.send(&mut self.ctx, &who, &ask);
    }

    pub(in crate::host) fn explained(&mut self, who: &Identity, result: &ExplainResult) {
        let Some((request, row)) = self.explains.answered(who, result) else {
            return;
        };
        self.ctx.mark(Mark::ExplainAnswered);
        let mut body = self.sent_body(&row, ladder::explained(result));
        // Its receipt may be under way.
        if !matches!(result.state, DeliveryState::Ready | DeliveryState::Claimed) {
            body["state"] = json!(result.state);
        }
        self.ctx.answer(request, answers::ok(body));
    }

    /// The broker answered a question of ours with an error.
    pub(in crate::host) fn explain_failed(
        &mut self,
        who: &Identity,
        req_id: Option<&ReqId>,
        code: &str,
    ) {
        let Some((request, row)) = self.explains.failed(who, req_id) else {
            return;
        };
        let mut why = self.why_here(&row);
        if code == "not_found" {
            why = json!({ "said_by": "broker", "waits_for": "unknown" });
        } else {
            why["error"] = code.into();
        }
        self.answer_sent(request, &row, why);
    }

    /// The broker cannot be asked any more, or did not answer in time.
    pub(in crate::host) fn explain_unanswered(&mut self, request: RequestId, row: &OutboxRow) {
        let why = self.why_here(row);
        self.answer_sent(request, row, why);
    }

    fn answer_sent(&mut self, request: RequestId, row: &OutboxRow, why: Value) {
        let body = self.sent_body(row, why);
        self.ctx.answer(request, answers::ok(body));
    }

    fn sent_body(&self, row: &OutboxRow, why: Value) -> Value {
        let state = self.outbox.state_of(row.seq).unwrap_or(&row.state);
        let mut body = ladder::sent(row, state, &self.meshes.slug(&row.mesh));
        body["why"] = why;
        body
    }

    /// As far as this host knows.
    fn why_here(&self, row: &OutboxRow) -> Value {
        let who = sender_of(row);
        let uplink = || {
            let mut why = ladder::host("uplink");
            why["uplink"] = self.uplink_in_words(&who);
            why["next_at"] = json!(self.uplinks.next_dial(&self.ctx, &who));
            why
        };
        if let Some(state) = self.outbox.state_of(row.seq) {
            let waits = self.outbox.waits(&self.ctx, row.seq);
            let is_up = self.uplinks.conn(&who).is_some();
            let is_durable = waits != Some(ladder::Waits::Disk);
            return match waits {
                Some(waits) if is_up || !is_durable => ladder::waits(&waits, state),
                _ => {
                    let mut why = uplink();
                    why["attempt"] = state.attempts.into();
                    why
                }
            };
        }
        let rung = ladder::lowest(row);
        match (rung, row.state.status) {
            (Some(crate::wire::receipt::Rung::Delivered), _) => ladder::host("reader"),
            // Memory knows its end already.
            (None, OutboxStatus::Pending | OutboxStatus::Inflight) => ladder::host("disk"),
            (None, OutboxStatus::Done) => {
                let mut why = uplink();
                why["waits_for"] = "broker".into();
                why
            }
            _ => ladder::host("nothing"),
        }
    }

    fn uplink_in_words(&self, who: &Identity) -> Value {
        let shown = self.uplinks.shown().find(|shown| shown.identity == who);
        shown.map_or(Value::Null, |shown| {
            json!({
                "state": shown.state,
                "reason": (!shown.reason.is_empty()).then_some(shown.reason),
                "since": shown.since.iso8601().to_string(),
            })
        })
    }
}

/// The messages that a name means.
struct Found {
    sent: Vec<OutboxRow>,
    received: Vec<InboxRow>,
}

impl Found {
    /// What was both sent and received by those who ask is shown as sent.
    fn of(sent: Vec<OutboxRow>, received: Vec<InboxRow>) -> Self {
        let mut found = Self {
            sent,
            received: Vec::new(),
        };
        for row in received {
            let is_known = |mesh: &MeshId, id: Option<&MessageId>| {
                *mesh == row.mesh && id == Some(&row.message_id)
            };
            let mut sent = found.sent.iter();
            let mut received = found.received.iter();
            let repeats = sent.any(|s| is_known(&s.mesh, s.state.broker_message_id.as_ref()))
                || received.any(|r| is_known(&r.mesh, Some(&r.message_id)));
            if !repeats {
                found.received.push(row);
            }
        }
        found
    }

    fn len(&self) -> usize {
        self.sent.len() + self.received.len()
    }

    fn keep_exact(&mut self, id: &str) {
        let sent_as = |row: &OutboxRow| {
            let broker_id = row.state.broker_message_id.as_ref();
            row.client_message_id.as_str() == id || broker_id.is_some_and(|own| own.as_str() == id)
        };
        let received_as = |row: &InboxRow| row.message_id.as_str() == id;
        if self.sent.iter().any(sent_as) || self.received.iter().any(received_as) {
            self.sent.retain(sent_as);
            self.received.retain(received_as);
        }
    }

    fn ambiguous(&self, id: &str) -> Answer {
        let sent = self.sent.iter().map(|row| {
            json!({
                "id": row.client_message_id,
                "message_id": row.state.broker_message_id,
                "mesh_id": row.mesh,
            })
        });
        let received = self
            .received
            .iter()
            .map(|row| json!({ "message_id": row.message_id, "mesh_id": row.mesh }));
        let mut more = Map::new();
        more.insert("messages".into(), sent.chain(received).collect());
        answers::error_with(
            422,
            "ambiguous_prefix",
            alloc::format!("`{id}` can mean several messages; write more of it, or say the mesh"),
            more,
        )
    }
}

fn within(scope: Scope, only: Option<&MeshId>) -> Scope {
    match (scope, only) {
        (Scope::Members(pairs), Some(only)) => {
            Scope::Members(pairs.into_iter().filter(|(mesh, _)| mesh == only).collect())
        }
        (scope, _) => scope,
    }
}

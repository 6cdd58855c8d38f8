//! Pages of inbox and outbox.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::Caller;
use crate::host::context::{Identity, Promise, SeenRequest, Waiter};
use crate::host::ipc::{Answer, InboxQuery, OutboxQuery};
use crate::host::{Host, answers};
use crate::id::{ClientMessageId, InboxSeq, MeshId, PubKey, RequestId};
use crate::limits::{LOOK_UPS_AT_ONCE, PAGE_ROWS, PAGE_ROWS_MOST, SEEN_IDS};
use crate::store::host::{InboxContent, InboxFilter, InboxRow, Load, Op, OutboxFilter, OutboxRow};

impl Host {
    pub(super) fn query_inbox(
        &mut self,
        request: RequestId,
        caller: &Caller,
        query: &InboxQuery,
    ) -> Result<Option<Answer>, Answer> {
        let scope = self.scope(caller, query.all, true)?;
        let from = match query.from.as_deref() {
            None => None,
            Some(from) => Some(self.known_sender(caller, from)?),
        };
        let limit = page_limit(query.limit);
        let filter = InboxFilter {
            after: query.after,
            unread: query.unread,
            from,
            limit,
        };
        self.load_page(
            Load::Inbox { scope, filter },
            Waiter::InboxPage { request, limit },
        )
    }

    /// 64 hex characters, or the name of somebody who is known in one of the caller's meshes.
    fn known_sender(&self, caller: &Caller, from: &str) -> Result<PubKey, Answer> {
        if let Ok(key) = from.parse() {
            return Ok(key);
        }
        let meshes: Vec<MeshId> = match caller {
            Caller::Session { who, .. } => vec![who.mesh.clone()],
            Caller::Member { .. } => self.meshes.iter().map(|m| m.row.id.clone()).collect(),
        };
        meshes
            .iter()
            .find_map(|mesh| self.directory.by_name(mesh, from))
            .ok_or_else(|| answers::target_unknown(from, &[]))
    }

    pub(in crate::host) fn answer_inbox(
        &mut self,
        request: RequestId,
        rows: &[InboxRow],
        limit: usize,
    ) {
        let messages: Vec<Value> = rows
            .iter()
            .map(|row| answers::inbox_row(row, &self.meshes.slug(&row.mesh)))
            .collect();
        let mut body = json!({ "messages": messages });
        if let Some(last) = rows.last().filter(|_| rows.len() >= limit) {
            body["next"] = json!(last.seq);
        }
        self.ctx.answer(request, answers::ok(body));
    }

    pub(super) fn mark_seen(
        &mut self,
        request: RequestId,
        caller: &Caller,
        mut ids: Vec<InboxSeq>,
    ) -> Result<Option<Answer>, Answer> {
        if ids.len() > SEEN_IDS {
            return Err(answers::bad_request(alloc::format!(
                "at most {SEEN_IDS} messages at once"
            )));
        }
        if self.ctx.ledger.is_busy() {
            return Err(self.busy());
        }
        let scope = self.scope(caller, false, true)?;
        ids.sort_unstable();
        ids.dedup();
        self.ctx.may_stand(request, None);
        self.seen_next(SeenRequest {
            request,
            scope,
            ids: ids.into(),
            found: 0,
        });
        Ok(None)
    }

    /// Rows of the caller's scope from the next id on: what is not in them is not the caller's.
    fn seen_next(&mut self, seen: SeenRequest) {
        let Some(next) = seen.ids.front() else {
            let answer = answers::ok(json!({ "seen": seen.found }));
            self.ctx.answer_when_durable(seen.request, None, answer);
            return;
        };
        let what = Load::Inbox {
            scope: seen.scope.clone(),
            filter: InboxFilter {
                after: InboxSeq(next.0.saturating_sub(1)),
                limit: PAGE_ROWS_MOST,
                ..InboxFilter::default()
            },
        };
        self.ctx.load(what, Waiter::Seen(Box::new(seen)));
    }

    pub(in crate::host) fn seen_page(&mut self, mut seen: SeenRequest, rows: &[InboxRow]) {
        for row in rows {
            while seen.ids.front().is_some_and(|id| *id < row.seq) {
                seen.ids.pop_front();
            }
            if seen.ids.front() != Some(&row.seq) {
                continue;
            }
            seen.ids.pop_front();
            seen.found += 1;
            if row.seen_at.is_none() {
                self.seen_now(row);
            }
        }
        if rows.len() < PAGE_ROWS_MOST {
            seen.ids.clear();
        }
        self.seen_next(seen);
    }

    /// What could not be opened was looked at, and read by nobody: its sender is not told.
    fn seen_now(&mut self, row: &InboxRow) {
        let (seq, at) = (row.seq, self.ctx.now.wall);
        self.ctx.persist(Op::InboxSeen { seq, at });
        if matches!(row.content, InboxContent::Undecryptable { .. }) {
            return;
        }
        self.ctx.persist(Op::SeenOwed { seq });
        let reader = Identity {
            mesh: row.mesh.clone(),
            peer: row.recipient.clone(),
        };
        self.ctx.promise(Promise::SeenOwed(reader));
    }

    pub(super) fn query_outbox(
        &mut self,
        request: RequestId,
        caller: &Caller,
        query: &OutboxQuery,
    ) -> Result<Option<Answer>, Answer> {
        let scope = self.scope(caller, query.all, false)?;
        let limit = page_limit(query.limit);
        let filter = OutboxFilter {
            after: query.after,
            status: query.status,
            id: None,
            limit,
        };
        self.load_page(
            Load::Outbox { scope, filter },
            Waiter::OutboxPage { request, limit },
        )
    }

    pub(super) fn query_outbox_row(
        &mut self,
        request: RequestId,
        caller: &Caller,
        id: ClientMessageId,
        mesh: Option<&str>,
    ) -> Result<Option<Answer>, Answer> {
        let scope = self.scope(caller, false, false)?;
        let mesh = match mesh {
            Some(_) => Some(self.mesh_of(caller, mesh)?),
            None => None,
        };
        let filter = OutboxFilter {
            id: Some(id),
            limit: PAGE_ROWS,
            ..OutboxFilter::default()
        };
        self.load_page(
            Load::Outbox { scope, filter },
            Waiter::OutboxOne { request, mesh },
        )
    }

    pub(super) fn load_page(
        &mut self,
        what: Load,
        waiter: Waiter,
    ) -> Result<Option<Answer>, Answer> {
        if self.ctx.loads() >= LOOK_UPS_AT_ONCE {
            return Err(answers::busy("the store is behind; try again"));
        }
        self.ctx.load(what, waiter);
        Ok(None)
    }

    pub(in crate::host) fn answer_outbox(
        &mut self,
        request: RequestId,
        rows: &[OutboxRow],
        limit: usize,
    ) {
        let shown: Vec<Value> = rows.iter().map(|row| self.show_outbox_row(row)).collect();
        let mut body = json!({ "rows": shown });
        if let Some(last) = rows.last().filter(|_| rows.len() >= limit) {
            body["next"] = json!(last.seq);
        }
        self.ctx.answer(request, answers::ok(body));
    }

    pub(in crate::host) fn answer_outbox_row(
        &mut self,
        request: RequestId,
        mesh: Option<&MeshId>,
        rows: &[OutboxRow],
    ) {
        let of_mesh = |row: &&OutboxRow| mesh.is_none_or(|mesh| row.mesh == *mesh);
        let found: Vec<&OutboxRow> = rows.iter().filter(of_mesh).collect();
        let answer = match found.as_slice() {
            [] => answers::not_found("there is no such message in this outbox"),
            [row] => answers::ok(self.show_outbox_row(row)),
            several => {
                let meshes: Vec<&str> = several.iter().map(|row| row.mesh.as_str()).collect();
                answers::mesh_ambiguous(&meshes)
            }
        };
        self.ctx.answer(request, answer);
    }

    fn show_outbox_row(&self, row: &OutboxRow) -> Value {
        let state = self.outbox.state_of(row.seq).unwrap_or(&row.state);
        answers::outbox_row(row, state, &self.meshes.slug(&row.mesh))
    }
}

fn page_limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MOST)
}

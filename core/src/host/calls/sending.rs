//! `POST /v1/send`: from the request to the row, by the table of [`crate::host::accept`].

use alloc::vec::Vec;

use serde_json::json;

use super::Caller;
use crate::crypto::SecretKey;
use crate::host::accept::{Decision, Draft, decide};
use crate::host::context::{Identity, Waiter};
use crate::host::directory::{Candidate, Resolved};
use crate::host::ipc::{Answer, SendRequest};
use crate::host::outbox::{Accepted, Found, Settled};
use crate::host::{Host, answers, links};
use crate::id::{ClientMessageId, PubKey, RequestId};
use crate::limits::LOOK_UPS_AT_ONCE;
use crate::mark::Mark;
use crate::store::host::{Load, OutboxRow, OutboxStatus};
use crate::store::{Stall, TxnId};
use crate::wire::Suite;

impl Host {
    pub(super) fn draft(
        &mut self,
        caller: &Caller,
        send: SendRequest,
        id: Option<ClientMessageId>,
    ) -> Result<Draft, Answer> {
        let mesh = self.mesh_of(caller, send.mesh.as_deref())?;
        // The caller's own identity. A session whose uplink is away waits for it; it never speaks
        // as the member.
        let (sender, session) = match caller {
            Caller::Session { who, id, .. } => (who.clone(), Some(id.clone())),
            Caller::Member { .. } => {
                let mesh = self.meshes.get(&mesh);
                let member = mesh.ok_or_else(|| answers::mesh_not_joined(None))?.member();
                (member, None)
            }
        };
        let ctx = &mut self.ctx;
        Draft::new(sender, session, id, || ctx.new_ulid(), send)
    }

    /// Idempotency first: whatever is known of the id decides before anything else is looked at.
    pub(super) fn consider(
        &mut self,
        request: RequestId,
        draft: Draft,
    ) -> Result<Option<Answer>, Answer> {
        let behind = self.lookups.is_pending(&draft.sender, &draft.id);
        if !behind && let Some(answer) = self.repeat(request, &draft) {
            return answer;
        }
        if !behind && draft.id_is_ours {
            return self.accept(request, draft);
        }
        if self.ctx.ledger.is_busy() || self.ctx.loads() >= LOOK_UPS_AT_ONCE {
            return Err(self.busy());
        }
        self.ctx.may_stand(request, Some(draft.id.clone()));
        let (sender, id) = (draft.sender.clone(), draft.id.clone());
        if self.lookups.wait(request, draft) {
            let what = Load::OutboxDedupe {
                mesh: sender.mesh.clone(),
                sender: sender.peer.clone(),
                client_message_id: id.clone(),
            };
            self.ctx.load(what, Waiter::Accept(sender, id));
        }
        Ok(None)
    }

    /// The store answered: all that waited for this id, in the order in which it came.
    pub(in crate::host) fn looked_up(
        &mut self,
        sender: &Identity,
        id: &ClientMessageId,
        row: Option<&OutboxRow>,
    ) {
        self.ctx.mark(match row {
            Some(_) => Mark::SendLookedUpFound,
            None => Mark::SendLookedUpAbsent,
        });
        if let Some(row) = row.filter(|row| row.state.status.is_settled()) {
            self.outbox.remember(row);
        }
        for (request, draft) in self.lookups.answered(sender, id) {
            // The first of them may have become a row.
            let answer = match (self.repeat(request, &draft), row) {
                (Some(answer), _) => answer,
                (None, Some(row)) => {
                    let settled = Settled::of(row);
                    let durable = self.ctx.gate.durable();
                    self.by_the_table(request, &draft, &settled, durable)
                }
                (None, None) => self.accept(request, draft),
            };
            if let Some(answer) = answer.unwrap_or_else(Some) {
                self.ctx.answer(request, answer);
            }
        }
    }

    /// `None` if memory knows nothing of this id.
    fn repeat(
        &mut self,
        request: RequestId,
        draft: &Draft,
    ) -> Option<Result<Option<Answer>, Answer>> {
        let (known, txn) = match self.outbox.find(&draft.sender, &draft.id) {
            Found::Open(row, txn) => (Settled::of(row), txn),
            Found::Settled(settled, txn) => {
                (settled.clone(), txn.unwrap_or(self.ctx.gate.durable()))
            }
            Found::Unknown => return None,
        };
        Some(self.by_the_table(request, draft, &known, txn))
    }

    fn by_the_table(
        &mut self,
        request: RequestId,
        draft: &Draft,
        row: &Settled,
        txn: TxnId,
    ) -> Result<Option<Answer>, Answer> {
        // The same text means the row's own target; another that means nobody is another message.
        let target = if draft.to == row.to {
            Some(row.target)
        } else {
            self.resolve(&draft.sender, &draft.to).ok()
        };
        let fingerprint = target.map(|target| draft.form_1(&target));
        let mut answer = match decide(row, fingerprint) {
            Decision::Conflict { same } => {
                self.ctx.mark(Mark::SendConflict);
                let state = row.status.as_str();
                answers::send_conflict(state, same, &row.form_1, row.reason.as_deref())
            }
            decision => {
                self.ctx.mark(Mark::SendDuplicate);
                let status = if decision == Decision::Duplicate {
                    200
                } else {
                    202
                };
                self.sent(status, draft, row.status, &row.target)
            }
        };
        if answer.status == 200 {
            answer.body["duplicate"] = true.into();
            answer.body["broker_message_id"] = json!(row.broker_message_id);
        }
        let id = Some(draft.id.clone());
        self.ctx.answer_when(txn, request, id, answer);
        Ok(None)
    }

    /// A new row. A request that is refused here consumes no id.
    fn accept(&mut self, request: RequestId, draft: Draft) -> Result<Option<Answer>, Answer> {
        draft.check_size(self.ctx.config.limits.inline_bytes)?;
        if self.disk_is_full() {
            return Err(answers::storage_full());
        }
        if self.ctx.ledger.is_busy() {
            return Err(self.busy());
        }
        let most = self.ctx.config.limits.outbox_rows_per_session;
        if self.outbox.rows_of(&draft.sender) >= most {
            self.ctx.mark(Mark::SendBusy);
            return Err(answers::busy(
                "this sender's outbox is full; what is in it goes first",
            ));
        }
        let target = self.resolve(&draft.sender, &draft.to)?;
        let (secret, pubkey) = self
            .keys_of(&draft.sender)
            .ok_or_else(answers::unauthorized)?;
        if target == pubkey {
            return Err(answers::bad_request("this is your own key"));
        }
        if draft.meta.is_some() && self.directory.suite(&draft.sender.mesh, &target) == Suite::Box {
            return Err(answers::meta_unsupported(&draft.to));
        }
        let form_1 = draft.form_1(&target);
        let form_2 = self.ctx.crypto.fingerprint_on_wire(&secret, &form_1);
        let answer = self.sent(202, &draft, OutboxStatus::Pending, &target);
        let id = draft.id.clone();
        let accepted = Accepted {
            meta: draft.canonical_meta(),
            sender: draft.sender,
            session: draft.session,
            id: draft.id,
            id_is_ours: draft.id_is_ours,
            to: draft.to,
            target,
            priority: draft.priority,
            reply_to: draft.reply_to,
            body: draft.body,
            form_1,
            form_2,
        };
        self.outbox.accept(&mut self.ctx, accepted);
        self.ctx.answer_when_durable(request, Some(id), answer);
        Ok(None)
    }

    fn sent(&self, status: u16, draft: &Draft, row: OutboxStatus, target: &PubKey) -> Answer {
        Answer {
            status,
            body: json!({
                "id": draft.id,
                "status": row,
                "mesh": self.meshes.slug(&draft.sender.mesh),
                "mesh_id": draft.sender.mesh,
                "to": draft.to,
                "target": target,
            }),
        }
    }

    fn resolve(&self, sender: &Identity, to: &str) -> Result<PubKey, Answer> {
        let me = self
            .keys_of(sender)
            .map_or(PubKey([0; 32]), |(_, pubkey)| pubkey);
        let own: Vec<Candidate> = self
            .sessions
            .live()
            .filter(|session| session.row.mesh == sender.mesh)
            .map(|session| Candidate {
                name: session.row.name.clone(),
                pubkey: session.pubkey,
                present: true,
            })
            .collect();
        match self.directory.resolve(&sender.mesh, to, &me, &own) {
            Resolved::Key(key) => Ok(key),
            Resolved::Unknown { near } => {
                let mine = own.iter().any(|one| one.pubkey == me && one.name == to);
                if mine {
                    return Err(answers::bad_request("this is your own name"));
                }
                Err(answers::target_unknown(to, &near))
            }
            Resolved::Ambiguous(candidates) => Err(answers::target_ambiguous(to, &candidates)),
        }
    }

    fn disk_is_full(&self) -> bool {
        self.outbox.bytes() >= self.ctx.config.limits.disk_bytes
            || self.ctx.disk_is_low()
            || self.ctx.stall == Some(Stall::Full)
    }

    pub(super) fn busy(&mut self) -> Answer {
        self.ctx.mark(Mark::SendBusy);
        if self.disk_is_full() {
            return answers::storage_full();
        }
        answers::busy("the store is behind; try again")
    }

    fn keys_of(&self, who: &Identity) -> Option<(SecretKey, PubKey)> {
        links::keys(&self.sessions, &self.meshes, who).map(|(secret, key)| (secret.clone(), key))
    }
}

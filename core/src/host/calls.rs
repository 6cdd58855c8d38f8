//! What comes over the IPC: who the caller is, what it may see, what it gets.
//!
//! **A scope is made here, from the token, and nowhere else** (G9). A token that is not known is 401,
//! never a wider view.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::{Value, json};

use super::accept::{Decision, Draft, decide};
use super::context::{Identity, Promise, SeenRequest, Waiter};
use super::directory::{Candidate, Resolved};
use super::events::{Audience, Next};
use super::io::{HttpOutcome, Output};
use super::ipc::{
    Answer, Call, InboxQuery, Invite, MeshJoin, OutboxQuery, Request, SendRequest, SessionOpen,
    Subscribe, Token,
};
use super::joining::Done;
use super::outbox::{Accepted, Found, Settled};
use super::peers::{Listing, Page};
use super::sessions::token_hash;
use super::{Host, Phase, answers};
use crate::crypto::invite::InviteToken;
use crate::id::{
    ClientMessageId, InboxSeq, MeshId, PeerKey, PubKey, RequestId, SessionId, SubscriberId,
};
use crate::limits::{
    EVENT_STREAMS, IPC_REQUESTS, LOOK_UPS_AT_ONCE, PAGE_ROWS, PAGE_ROWS_MOST, SEEN_IDS,
};
use crate::mark::Mark;
use crate::store::host::{
    InboxFilter, InboxRow, Load, Op, OutboxFilter, OutboxRow, OutboxStatus, Scope,
};
use crate::store::{Stall, TxnId};
use crate::wire::broker::{Peer, PeerState, PeersList};

/// Who is asking.
#[derive(Clone, Debug)]
enum Caller {
    Member {
        /// Shown by the machine token, not only by the socket.
        machine: bool,
    },
    Session {
        who: Identity,
        id: SessionId,
        pubkey: PubKey,
    },
}

impl Host {
    pub(super) fn call(&mut self, request: RequestId, call: Call) {
        let crowded = self.ctx.open_requests() >= IPC_REQUESTS;
        self.ctx.request_arrived(request);
        let answer = match self.caller(&call.token) {
            Err(refused) => Some(refused),
            Ok(caller) => match call.request {
                Request::Version => Some(self.version()),
                Request::Health => Some(self.health()),
                Request::Metrics => Some(self.metrics()),
                _ if self.phase != Phase::Running => Some(answers::stopping()),
                _ if crowded => Some(answers::busy("too many requests are under way")),
                request_kind => self
                    .carry_out(request, caller, request_kind)
                    .unwrap_or_else(Some),
            },
        };
        if let Some(answer) = answer {
            self.ctx.answer(request, answer);
        }
    }

    /// `Ok(None)`: the answer comes later.
    fn carry_out(
        &mut self,
        request: RequestId,
        caller: Caller,
        what: Request,
    ) -> Result<Option<Answer>, Answer> {
        match what {
            Request::Version | Request::Health | Request::Metrics => Ok(None),
            Request::Meshes => Ok(Some(self.list_meshes(&caller))),
            Request::MeshCreate(create) => {
                caller.must_be_member()?;
                let taken = self.meshes.iter().any(|mesh| {
                    mesh.row.slug == create.slug && mesh.row.broker_url == create.broker_url
                });
                if taken {
                    return Err(answers::error(
                        409,
                        "mesh_exists",
                        alloc::format!("`{}` is joined on this host already", create.slug),
                    ));
                }
                self.ctx.may_stand(request, None);
                self.joining.create(&mut self.ctx, request, create)?;
                Ok(None)
            }
            Request::MeshJoin(join) => {
                caller.must_be_member()?;
                self.join_mesh(request, join)
            }
            Request::Invite(invite) => {
                caller.must_be_member()?;
                self.invite(request, &invite)
            }
            Request::SessionOpen(open) => self.open_session(request, &caller, open),
            Request::SessionEnd { session } => self.close_session(request, &caller, session),
            Request::Sessions => Ok(Some(self.list_sessions(&caller))),
            Request::SessionMe => self.session_me(&caller).map(Some),
            Request::Send { send, id } => {
                let draft = self.draft(&caller, send, id)?;
                self.consider(request, draft)
            }
            Request::Inbox(query) => self.query_inbox(request, &caller, &query),
            Request::InboxSeen { ids } => self.mark_seen(request, &caller, ids),
            Request::Outbox(query) => self.query_outbox(request, &caller, &query),
            Request::OutboxGet { id, mesh } => {
                self.query_outbox_row(request, &caller, id, mesh.as_deref())
            }
            Request::Peers { mesh, all } => {
                self.query_peers(request, &caller, mesh.as_deref(), all)
            }
        }
    }

    fn caller(&self, token: &Token) -> Result<Caller, Answer> {
        let token = match token {
            Token::Absent => return Ok(Caller::Member { machine: false }),
            Token::Bearer(token) => token,
        };
        if token_hash(token) == self.ctx.config.machine_token_sha256 {
            return Ok(Caller::Member { machine: true });
        }
        let session = self
            .sessions
            .by_token(token)
            .ok_or_else(answers::unauthorized)?;
        Ok(Caller::Session {
            who: session.identity(),
            id: session.row.id.clone(),
            pubkey: session.pubkey,
        })
    }

    /// The mesh in which a caller acts: a session's own, or the one that a member names.
    fn mesh_of(&self, caller: &Caller, named: Option<&str>) -> Result<MeshId, Answer> {
        let Caller::Session { who, .. } = caller else {
            return self.meshes.find(named).map(|mesh| mesh.row.id.clone());
        };
        if let Some(named) = named
            && self.meshes.find(Some(named))?.row.id != who.mesh
        {
            return Err(answers::bad_request(alloc::format!(
                "this session is in `{}`, not in `{named}`",
                self.meshes.slug(&who.mesh)
            )));
        }
        Ok(who.mesh.clone())
    }

    /// Its own rows; of the inbox, its member's too; never a sibling's.
    fn scope(&self, caller: &Caller, all: bool, with_members: bool) -> Result<Scope, Answer> {
        match caller {
            Caller::Member { machine: true } if all => Ok(Scope::Everything),
            _ if all => Err(answers::forbidden("`all` needs the machine token")),
            Caller::Member { .. } => Ok(Scope::Members(
                self.meshes
                    .iter()
                    .map(|mesh| {
                        let member = mesh.member();
                        (member.mesh, member.peer)
                    })
                    .collect(),
            )),
            Caller::Session { who, .. } => {
                let mut peers = vec![who.peer.clone()];
                if let (true, Some(mesh)) = (with_members, self.meshes.get(&who.mesh)) {
                    peers.push(mesh.member().peer);
                }
                Ok(Scope::Peers {
                    mesh: who.mesh.clone(),
                    peers,
                })
            }
        }
    }
}

/// Accepting a send.
impl Host {
    fn draft(
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
        let inline_bytes = self.ctx.config.limits.inline_bytes;
        let ctx = &mut self.ctx;
        Draft::new(sender, session, id, || ctx.new_ulid(), send, inline_bytes)
    }

    /// Idempotency first: whatever is known of the id decides before anything else is looked at.
    fn consider(&mut self, request: RequestId, draft: Draft) -> Result<Option<Answer>, Answer> {
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
    pub(super) fn looked_up(
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

    fn busy(&mut self) -> Answer {
        self.ctx.mark(Mark::SendBusy);
        if self.disk_is_full() {
            return answers::storage_full();
        }
        answers::busy("the store is behind; try again")
    }
}

/// Meshes and sessions.
impl Host {
    fn join_mesh(&mut self, request: RequestId, join: MeshJoin) -> Result<Option<Answer>, Answer> {
        let token = InviteToken::decode(&join.invite)
            .map_err(|bad| answers::error(400, "bad_invite", alloc::format!("{bad}")))?;
        // Joined is joined, whatever became of the invite.
        if let Some(joined) = self.meshes.get(&token.mesh_id) {
            let mut body = answers::mesh(&joined.row, &joined.pubkey);
            body["already_member"] = true.into();
            return Ok(Some(answers::ok(body)));
        }
        let now = self.ctx.now.wall;
        token
            .verify(&*self.ctx.crypto, now)
            .map_err(|bad| answers::error(400, bad.code(), alloc::format!("{bad}")))?;
        self.ctx.may_stand(request, None);
        self.joining
            .join(&mut self.ctx, request, token, join.display_name)?;
        Ok(None)
    }

    fn invite(&mut self, request: RequestId, invite: &Invite) -> Result<Option<Answer>, Answer> {
        let mesh = self.meshes.find(invite.mesh.as_deref())?;
        self.joining.invite(&mut self.ctx, request, mesh, invite)
    }

    pub(super) fn http_done(&mut self, http: RequestId, outcome: HttpOutcome) {
        match self.joining.done(&mut self.ctx, http, outcome) {
            Done::Nothing => {}
            Done::Answered { request, answer } => {
                self.ctx.answer(request, answer);
            }
            Done::Joined {
                request,
                row,
                already_member,
            } => {
                let pubkey = self.ctx.crypto.public_key(&row.member_secret);
                let mut body = answers::mesh(&row, &pubkey);
                body["already_member"] = already_member.into();
                let mesh = row.id.clone();
                self.joining.forget(&row);
                // Of two joins under way at once the first to end holds the key that counts.
                if self.meshes.get(&mesh).is_none() {
                    self.ctx.persist(Op::MeshPut(row.clone()));
                    self.meshes.put(*row, &*self.ctx.crypto);
                    self.ctx.promise(Promise::MeshJoined(mesh));
                }
                self.ctx
                    .answer_when_durable(request, None, answers::ok(body));
            }
        }
    }

    pub(super) fn mesh_joined(&mut self, mesh: &MeshId) {
        let Some(member) = self.meshes.get(mesh).map(super::meshes::Joined::member) else {
            return;
        };
        self.events.mesh_joined(&member);
        self.want(&member);
    }

    fn list_meshes(&self, caller: &Caller) -> Answer {
        let shown = self.meshes.iter().filter(|mesh| match caller {
            Caller::Member { .. } => true,
            Caller::Session { who, .. } => mesh.row.id == who.mesh,
        });
        let meshes: Vec<Value> = shown
            .map(|mesh| answers::mesh(&mesh.row, &mesh.pubkey))
            .collect();
        answers::ok(json!({ "meshes": meshes }))
    }

    fn open_session(
        &mut self,
        request: RequestId,
        caller: &Caller,
        open: SessionOpen,
    ) -> Result<Option<Answer>, Answer> {
        if self.ctx.ledger.is_busy() {
            return Err(self.busy());
        }
        let mesh = self.mesh_of(caller, open.mesh.as_deref())?;
        let opened = self.sessions.open(&mut self.ctx, &mesh, open)?;
        if let Some(displaced) = &opened.displaced {
            self.end_session(displaced);
        }
        let (mesh, id) = &opened.key;
        let slug = self.meshes.slug(mesh);
        let session = self
            .sessions
            .get(mesh, id)
            .expect("a session that was opened is there");
        let who = session.identity();
        let mut body = answers::session(&session.row, &slug, &session.pubkey);
        body["token"] = opened.token.into();
        // Streams under the token that it had before are over.
        self.events.session_ended(&mut self.ctx, &who);
        self.leaving.remove(&who);
        self.ctx.promise(Promise::SessionOpened {
            who,
            renew: opened.changed,
        });
        self.ctx
            .answer_when_durable(request, None, answers::ok(body));
        Ok(None)
    }

    /// Dialled only now: a lease under a key that a crash forgets would be a ghost.
    pub(super) fn session_opened(&mut self, who: &Identity, renew: bool) {
        let live = self.sessions.by_identity(who).is_some_and(|s| s.is_live());
        if !live {
            return;
        }
        self.want(who);
        if renew && self.phase == Phase::Running {
            self.uplinks.renew(&mut self.ctx, who, "profile_changed");
            self.lost(who);
        }
    }

    fn close_session(
        &mut self,
        request: RequestId,
        caller: &Caller,
        session: Option<SessionId>,
    ) -> Result<Option<Answer>, Answer> {
        let key = match (caller, session) {
            (Caller::Session { who, id, .. }, asked) => {
                if asked.is_some_and(|asked| asked != *id) {
                    return Err(answers::forbidden("a session ends itself only"));
                }
                (who.mesh.clone(), id.clone())
            }
            (Caller::Member { .. }, None) => {
                return Err(answers::bad_request(
                    "without a session's token, say which session",
                ));
            }
            (Caller::Member { .. }, Some(id)) => self
                .sessions
                .live()
                .find(|session| session.row.id == id)
                .map(|session| (session.row.mesh.clone(), id))
                .ok_or_else(|| answers::not_found("there is no such session"))?,
        };
        self.end_session(&key);
        let body = json!({ "session_id": key.1, "ended": true });
        self.ctx
            .answer_when_durable(request, None, answers::ok(body));
        Ok(None)
    }

    pub(super) fn end_session(&mut self, key: &(MeshId, SessionId)) {
        let Some(who) = self.sessions.get(&key.0, &key.1).map(|s| s.identity()) else {
            return;
        };
        if self.sessions.end(&mut self.ctx, key) {
            self.events.session_ended(&mut self.ctx, &who);
        }
    }

    fn list_sessions(&self, caller: &Caller) -> Answer {
        let shown = self.sessions.live().filter(|session| match caller {
            Caller::Member { .. } => true,
            Caller::Session { who, .. } => session.identity() == *who,
        });
        let sessions: Vec<Value> = shown
            .map(|session| {
                let slug = self.meshes.slug(&session.row.mesh);
                answers::session(&session.row, &slug, &session.pubkey)
            })
            .collect();
        answers::ok(json!({ "sessions": sessions }))
    }

    fn session_me(&self, caller: &Caller) -> Result<Answer, Answer> {
        let Caller::Session { who, .. } = caller else {
            return Err(answers::not_found(
                "the caller is the member, not a session",
            ));
        };
        let session = self
            .sessions
            .by_identity(who)
            .ok_or_else(answers::unauthorized)?;
        let slug = self.meshes.slug(&who.mesh);
        let body = answers::session(&session.row, &slug, &session.pubkey);
        Ok(answers::ok(body))
    }
}

/// Pages.
impl Host {
    fn query_inbox(
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

    pub(super) fn answer_inbox(&mut self, request: RequestId, rows: &[InboxRow], limit: usize) {
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

    fn mark_seen(
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

    pub(super) fn seen_page(&mut self, mut seen: SeenRequest, rows: &[InboxRow]) {
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
                let at = self.ctx.now.wall;
                self.ctx.persist(Op::InboxSeen { seq: row.seq, at });
            }
        }
        if rows.len() < PAGE_ROWS_MOST {
            seen.ids.clear();
        }
        self.seen_next(seen);
    }

    fn query_outbox(
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

    fn query_outbox_row(
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

    fn load_page(&mut self, what: Load, waiter: Waiter) -> Result<Option<Answer>, Answer> {
        if self.ctx.loads() >= LOOK_UPS_AT_ONCE {
            return Err(answers::busy("the store is behind; try again"));
        }
        self.ctx.load(what, waiter);
        Ok(None)
    }

    pub(super) fn answer_outbox(&mut self, request: RequestId, rows: &[OutboxRow], limit: usize) {
        let shown: Vec<Value> = rows.iter().map(|row| self.show_outbox_row(row)).collect();
        let mut body = json!({ "rows": shown });
        if let Some(last) = rows.last().filter(|_| rows.len() >= limit) {
            body["next"] = json!(last.seq);
        }
        self.ctx.answer(request, answers::ok(body));
    }

    pub(super) fn answer_outbox_row(
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

/// Peers.
impl Host {
    fn query_peers(
        &mut self,
        request: RequestId,
        caller: &Caller,
        mesh: Option<&str>,
        all: bool,
    ) -> Result<Option<Answer>, Answer> {
        let mesh = self.mesh_of(caller, mesh)?;
        let joined = self.meshes.get(&mesh);
        let member = joined
            .ok_or_else(|| answers::mesh_not_joined(None))?
            .member();
        if self.uplinks.conn(&member).is_none() {
            return Ok(Some(self.stale_peers(&mesh)));
        }
        let ask = self.listings.begin(request, mesh, all);
        self.uplinks.send(&mut self.ctx, &member, &ask);
        Ok(None)
    }

    pub(super) fn listing_page(&mut self, who: &Identity, page: PeersList) {
        match self.listings.page(&who.mesh, page) {
            Page::NotOurs => {}
            Page::More(ask) => {
                self.uplinks.send(&mut self.ctx, who, &ask);
            }
            Page::Complete(request, listing) => {
                self.directory
                    .noticed(&mut self.ctx, &listing.mesh, &listing.peers);
                let slug = self.meshes.slug(&listing.mesh);
                let shown = listing
                    .peers
                    .iter()
                    .filter(|peer| listing.all || peer.peer_role != "control-plane");
                let peers: Vec<Value> = shown
                    .map(|peer| live_peer(peer, &slug, &listing.mesh))
                    .collect();
                let body = peers_body(&listing.mesh, &slug, false, peers);
                self.ctx.answer(request, answers::ok(body));
            }
        }
    }

    pub(super) fn answer_stale_peers(&mut self, request: RequestId, listing: &Listing) {
        let answer = self.stale_peers(&listing.mesh);
        self.ctx.answer(request, answer);
    }

    /// As far as the directory knows.
    fn stale_peers(&self, mesh: &MeshId) -> Answer {
        let slug = self.meshes.slug(mesh);
        let peers: Vec<Value> = self
            .directory
            .present(mesh)
            .map(|row| answers::known_peer(row, &slug))
            .collect();
        answers::ok(peers_body(mesh, &slug, true, peers))
    }
}

/// Event streams.
impl Host {
    pub(super) fn subscribe(&mut self, subscriber: SubscriberId, subscribe: Subscribe) {
        match self.audience(&subscribe) {
            Ok((audience, scope)) => {
                // A number that was never given is of another database: its mail begins anew.
                let last = self.inbox.last();
                let after = subscribe.last_event_id;
                let after = after.map(|after| if after > last { InboxSeq(0) } else { after });
                let next = self
                    .events
                    .subscribe(&mut self.ctx, subscriber, audience, scope, after);
                self.next_events(subscriber, next);
            }
            Err(answer) => self
                .ctx
                .out
                .push(Output::SubscribeRefused { subscriber, answer }),
        }
    }

    fn audience(&self, subscribe: &Subscribe) -> Result<(Audience, Scope), Answer> {
        let caller = self.caller(&subscribe.token)?;
        if self.phase != Phase::Running {
            return Err(answers::stopping());
        }
        if self.events.len() >= EVENT_STREAMS {
            return Err(answers::busy("too many event streams are open"));
        }
        let named = subscribe.mesh.as_ref().map(MeshId::as_str);
        let scope = self.scope(&caller, subscribe.all, false)?;
        match &caller {
            Caller::Session { who, pubkey, .. } => {
                self.mesh_of(&caller, named)?;
                let audience = Audience::Session {
                    who: who.clone(),
                    pubkey: *pubkey,
                };
                Ok((audience, scope))
            }
            Caller::Member { .. } => {
                let mesh = match named {
                    Some(_) => Some(self.mesh_of(&caller, named)?),
                    None => None,
                };
                let scope = match (scope, &mesh) {
                    (Scope::Members(pairs), Some(only)) => {
                        Scope::Members(pairs.into_iter().filter(|(id, _)| id == only).collect())
                    }
                    (scope, _) => scope,
                };
                Ok((Audience::Member { mesh }, scope))
            }
        }
    }

    pub(super) fn backlog_page(&mut self, subscriber: SubscriberId, rows: &[InboxRow]) {
        let rows: Vec<(InboxSeq, Bytes)> = rows
            .iter()
            .map(|row| {
                let slug = self.meshes.slug(&row.mesh);
                (row.seq, answers::line(&answers::inbox_row(row, &slug)))
            })
            .collect();
        let next = self.events.page(&mut self.ctx, subscriber, rows);
        self.next_events(subscriber, next);
    }

    pub(super) fn next_events(&mut self, subscriber: SubscriberId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Page(what) => self.ctx.load(what, Waiter::Backlog(subscriber)),
            Next::Peers(audience) => {
                let data = self.peers_snapshot(&audience);
                self.ctx
                    .promise(Promise::PeersSnapshot { subscriber, data });
            }
        }
    }

    /// Who is here, without the one who asks.
    fn peers_snapshot(&self, audience: &Audience) -> Bytes {
        let meshes = self
            .meshes
            .iter()
            .filter(|mesh| audience.hears_of(&mesh.row.id));
        let peers: Vec<Value> = meshes
            .flat_map(|mesh| {
                self.directory
                    .present(&mesh.row.id)
                    .filter(|row| !audience.is(&row.pubkey))
                    .map(|row| answers::known_peer(row, &mesh.row.slug))
            })
            .collect();
        answers::line(&json!({ "peers": peers }))
    }
}

impl Host {
    fn keys_of(&self, who: &Identity) -> Option<(crate::crypto::SecretKey, PubKey)> {
        match &who.peer {
            PeerKey::Session(_) => self
                .sessions
                .by_identity(who)
                .map(|session| (session.row.secret.clone(), session.pubkey)),
            PeerKey::Member(_) => self
                .meshes
                .get(&who.mesh)
                .map(|mesh| (mesh.secret().clone(), mesh.pubkey)),
        }
    }
}

impl Caller {
    fn must_be_member(&self) -> Result<(), Answer> {
        match self {
            Self::Member { .. } => Ok(()),
            Self::Session { .. } => Err(answers::forbidden(
                "a session cannot do this: call without its token",
            )),
        }
    }
}

fn page_limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MOST)
}

fn peers_body(mesh: &MeshId, slug: &str, stale: bool, peers: Vec<Value>) -> Value {
    json!({ "mesh": slug, "mesh_id": mesh, "stale": stale, "peers": peers })
}

fn live_peer(peer: &Peer, slug: &str, mesh: &MeshId) -> Value {
    let state: String = match peer.state {
        Some(PeerState::Grace) => "grace".into(),
        Some(PeerState::Live) | None => "live".into(),
    };
    json!({
        "name": peer.display_name,
        "pubkey": peer.pubkey,
        "member_pubkey": peer.member_pubkey,
        "role": peer.peer_role,
        "state": state,
        "away_ms": peer.away_ms,
        "status": peer.status,
        "summary": peer.summary,
        "mesh": slug,
        "mesh_id": mesh,
    })
}

//! Meshes and sessions: made, joined, opened, ended, listed.

use alloc::vec::Vec;

use serde_json::{Value, json};

use super::Caller;
use crate::crypto::invite::InviteToken;
use crate::host::context::{Identity, Promise};
use crate::host::io::HttpOutcome;
use crate::host::ipc::{Answer, Invite, MeshCreate, MeshJoin, SessionOpen};
use crate::host::joining::Done;
use crate::host::{Host, Phase, answers};
use crate::id::{MeshId, RequestId, SessionId};
use crate::store::host::Op;

impl Host {
    pub(super) fn create_mesh(
        &mut self,
        request: RequestId,
        create: MeshCreate,
    ) -> Result<Option<Answer>, Answer> {
        let taken = self
            .meshes
            .iter()
            .any(|mesh| mesh.row.slug == create.slug && mesh.row.broker_url == create.broker_url);
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

    pub(super) fn join_mesh(
        &mut self,
        request: RequestId,
        join: MeshJoin,
    ) -> Result<Option<Answer>, Answer> {
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

    pub(super) fn invite(
        &mut self,
        request: RequestId,
        invite: &Invite,
    ) -> Result<Option<Answer>, Answer> {
        let mesh = self.meshes.find(invite.mesh.as_deref())?;
        self.joining.invite(&mut self.ctx, request, mesh, invite)
    }

    pub(in crate::host) fn http_done(&mut self, http: RequestId, outcome: HttpOutcome) {
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

    pub(in crate::host) fn mesh_joined(&mut self, mesh: &MeshId) {
        let Some(member) = self
            .meshes
            .get(mesh)
            .map(crate::host::meshes::Joined::member)
        else {
            return;
        };
        self.events.mesh_joined(&member);
        self.want(&member);
    }

    pub(super) fn list_meshes(&self, caller: &Caller) -> Answer {
        let shown = self.meshes.iter().filter(|mesh| match caller {
            Caller::Member { .. } => true,
            Caller::Session { who, .. } => mesh.row.id == who.mesh,
        });
        let meshes: Vec<Value> = shown
            .map(|mesh| answers::mesh(&mesh.row, &mesh.pubkey))
            .collect();
        answers::ok(json!({ "meshes": meshes }))
    }

    pub(super) fn open_session(
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
    pub(in crate::host) fn session_opened(&mut self, who: &Identity, renew: bool) {
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

    pub(super) fn close_session(
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

    pub(in crate::host) fn end_session(&mut self, key: &(MeshId, SessionId)) {
        let Some(who) = self.sessions.get(&key.0, &key.1).map(|s| s.identity()) else {
            return;
        };
        if self.sessions.end(&mut self.ctx, key) {
            self.events.session_ended(&mut self.ctx, &who);
        }
    }

    pub(super) fn list_sessions(&self, caller: &Caller) -> Answer {
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

    pub(super) fn session_me(&self, caller: &Caller) -> Result<Answer, Answer> {
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

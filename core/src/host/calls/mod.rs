//! What comes over the IPC: who the caller is, what it may see, what it gets.
//!
//! **A scope is made here, from the token, and nowhere else** (G9). A token that is not known is 401,
//! never a wider view.

mod joined;
mod message;
mod moderation;
mod pages;
mod present;
mod sending;
mod streams;

use alloc::vec;

use super::context::Identity;
use super::ipc::{Answer, Call, Request, Token};
use super::moderation::What;
use super::sessions::token_hash;
use super::{Host, Phase, answers};
use crate::id::{MeshId, PubKey, RequestId, SessionId};
use crate::limits::IPC_REQUESTS;
use crate::store::host::Scope;

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
    pub(in crate::host) fn call(&mut self, request: RequestId, call: Call) {
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
                self.create_mesh(request, create)
            }
            Request::MeshJoin(join) => {
                caller.must_be_member()?;
                self.join_mesh(request, join)
            }
            Request::Invite(invite) => {
                caller.must_be_member()?;
                self.invite(request, &invite)
            }
            Request::Kick(kick) => {
                caller.must_be_member()?;
                self.kick(request, kick)
            }
            Request::Ban { target, mesh } => {
                caller.must_be_member()?;
                self.moderate(request, mesh.as_deref(), What::Ban(target))
            }
            Request::Unban { target, mesh } => {
                caller.must_be_member()?;
                self.moderate(request, mesh.as_deref(), What::Unban(target))
            }
            Request::Bans { mesh } => {
                caller.must_be_member()?;
                self.moderate(request, mesh.as_deref(), What::ListBans(vec![]))
            }
            Request::RetryUplinks => {
                caller.must_be_member()?;
                Ok(Some(self.retry_uplinks()))
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
            Request::Message { id, mesh } => {
                self.query_message(request, &caller, &id, mesh.as_deref())
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

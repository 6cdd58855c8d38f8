//! Joining the mesh: invites registered, revoked and used.

use super::roster::Joined;
use super::{Mesh, Output, Promise, Request, Response};
use crate::id::RequestId;
use crate::store::mesh::Op;
use crate::time::Now;

impl Mesh {
    pub(super) fn on_request(&mut self, now: Now, request: RequestId, what: Request) {
        if self.ledger.is_busy() {
            let response = Response::Refused {
                code: "busy",
                message: "the store is behind: try again",
            };
            self.out.push(Output::Response { request, response });
            return;
        }
        let response = match what {
            Request::Join {
                invite,
                pubkey,
                display_name,
            } => {
                let id = invite.id();
                match self.roster.join(
                    &mut self.entropy,
                    now.wall,
                    &invite,
                    &id,
                    pubkey,
                    display_name,
                ) {
                    Joined::Already(member) => Response::Joined {
                        member,
                        already_member: true,
                    },
                    Joined::New { member, invite } => {
                        let id = member.id.clone();
                        self.ledger.push(Op::MemberPut(member), 256);
                        self.ledger.push(Op::InvitePut(invite), 128);
                        Response::Joined {
                            member: id,
                            already_member: false,
                        }
                    }
                    Joined::Refused { code, message } => {
                        let response = Response::Refused { code, message };
                        self.out.push(Output::Response { request, response });
                        return;
                    }
                }
            }
            Request::RegisterInvite {
                id,
                uses,
                expires_at,
            } => {
                let row = self.roster.register_invite(id, uses, expires_at);
                self.ledger.push(Op::InvitePut(row), 128);
                Response::InviteRegistered
            }
            Request::RevokeInvite { id } => {
                let row = self.roster.revoke_invite(id);
                self.ledger.push(Op::InvitePut(row), 128);
                Response::InviteRevoked
            }
            Request::SetStatus { whose, status } => self.on_hook(now, &whose, status),
        };
        // Also of one who had joined before: that may not be durable yet.
        self.gate.hold(
            self.ledger.current(),
            Promise::Respond { request, response },
        );
        self.release_durable(now);
    }
}

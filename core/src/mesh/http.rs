//! The mesh's HTTP endpoints: a body to a verified [`Request`], and a [`Response`] to its answer.
//!
//! What a mesh is asked over HTTP carries its own proof: an invite that the mesh's owner signed, or
//! the owner's signature under the request. A hook has none: it is heard from the broker's own host.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Request, Response, Whose};
use crate::crypto::invite::{InviteError, InviteToken};
use crate::crypto::{Crypto, canonical};
use crate::id::{InviteId, MeshId, PubKey, SessionId, Signature};
use crate::limits::NAME_BYTES;
use crate::registry::{Signed, SignedOnce};
use crate::time::{Now, Wall};
use crate::wire::Status;
use crate::wire::decode::cut;
use crate::wire::http::{HttpAnswer, HttpRefusal, read_body};

/// Which mesh is asked, and what.
pub type Asked = (MeshId, Request);

/// `POST /join`. `owner_of`: the owner of a mesh of this broker.
///
/// # Errors
/// The invite's own codes, `bad_request`.
pub fn join(
    body: &[u8],
    crypto: &dyn Crypto,
    now: Now,
    owner_of: impl Fn(&MeshId) -> Option<PubKey>,
) -> Result<Asked, HttpRefusal> {
    #[derive(Deserialize)]
    struct Body {
        invite_token: String,
        /// The token spelled out: clients of the dialect send both. Only the mesh is compared.
        invite_payload: Option<Value>,
        peer_pubkey: PubKey,
        #[serde(default)]
        display_name: String,
    }

    let Body {
        invite_token,
        invite_payload,
        peer_pubkey,
        mut display_name,
    } = read_body(body)?;
    if display_name.contains('\0') {
        return Err(HttpRefusal::bad_request("display_name holds a NUL"));
    }
    cut(&mut display_name, NAME_BYTES);
    let invite = InviteToken::decode(&invite_token).map_err(|error| {
        let code = InviteError::BadSignature.code();
        HttpRefusal::new(400, code, alloc::format!("{error}"))
    })?;
    let mesh = invite.mesh_id.clone();
    let is_other = |payload: &Value| payload["mesh_id"].as_str() != Some(mesh.as_str());
    if invite_payload.as_ref().is_some_and(is_other) {
        return Err(refused(InviteError::MeshMismatch));
    }
    let owner = owner_of(&mesh).ok_or_else(|| refused(InviteError::MeshNotFound))?;
    invite
        .verify_for(crypto, &mesh, &owner, now.wall)
        .map_err(refused)?;
    Ok((
        mesh,
        Request::Join {
            invite: Box::new(invite),
            pubkey: peer_pubkey,
            display_name,
        },
    ))
}

/// `POST /invites`: `{mesh_id, invite_id, uses, expires_at(s), timestamp, signature}`.
///
/// # Errors
/// `mesh_not_found`, `bad_request`, or what [`SignedOnce::check`] says.
pub fn register_invite(
    body: &[u8],
    crypto: &dyn Crypto,
    signed_once: &mut SignedOnce,
    now: Now,
    owner_of: impl Fn(&MeshId) -> Option<PubKey>,
) -> Result<Asked, HttpRefusal> {
    #[derive(Deserialize)]
    struct Body {
        mesh_id: MeshId,
        invite_id: String,
        uses: u32,
        #[serde(rename = "expires_at")]
        expires_at_s: u64,
        timestamp: Wall,
        signature: Signature,
    }

    let Body {
        mesh_id,
        invite_id,
        uses,
        expires_at_s,
        timestamp,
        signature,
    } = read_body(body)?;
    let id = read_invite_id(&invite_id)?;
    if uses == 0 {
        return Err(HttpRefusal::bad_request("an invite has at least one use"));
    }
    let owner = owner_of(&mesh_id).ok_or_else(mesh_not_found)?;
    let text = canonical::invite_registration(&mesh_id, &id, uses, expires_at_s, timestamp);
    signed_once.check(
        crypto,
        now,
        Signed {
            by: &owner,
            text: &text,
            timestamp,
            signature: &signature,
        },
    )?;
    Ok((
        mesh_id,
        Request::RegisterInvite {
            id,
            uses,
            expires_at: Wall(expires_at_s.saturating_mul(1000)),
        },
    ))
}

/// `DELETE /invites/ID`: `{mesh_id, timestamp, signature}`.
///
/// # Errors
/// As [`register_invite`].
pub fn revoke_invite(
    id: &str,
    body: &[u8],
    crypto: &dyn Crypto,
    signed_once: &mut SignedOnce,
    now: Now,
    owner_of: impl Fn(&MeshId) -> Option<PubKey>,
) -> Result<Asked, HttpRefusal> {
    #[derive(Deserialize)]
    struct Body {
        mesh_id: MeshId,
        timestamp: Wall,
        signature: Signature,
    }

    let id = read_invite_id(id)?;
    let Body {
        mesh_id,
        timestamp,
        signature,
    } = read_body(body)?;
    let owner = owner_of(&mesh_id).ok_or_else(mesh_not_found)?;
    let text = canonical::invite_revocation(&mesh_id, &id, timestamp);
    signed_once.check(
        crypto,
        now,
        Signed {
            by: &owner,
            text: &text,
            timestamp,
            signature: &signature,
        },
    )?;
    Ok((mesh_id, Request::RevokeInvite { id }))
}

/// `POST /hook/set-status`: what every mesh is asked. The surest comes first; the next is asked
/// only where [`hook_answer`] has nothing to say.
///
/// # Errors
/// `unauthorized` from anywhere but the broker's own host, `bad_request`.
pub fn hook_set_status(body: &[u8], local: bool) -> Result<Vec<Request>, HttpRefusal> {
    #[derive(Deserialize)]
    struct Body {
        cwd: String,
        pid: Option<u64>,
        status: Status,
        session_id: Option<SessionId>,
    }

    if !local {
        let message = "a hook is heard from the broker's own host only";
        return Err(HttpRefusal::new(401, "unauthorized", message));
    }
    let Body {
        cwd,
        pid,
        status,
        session_id,
    } = read_body(body)?;
    let process = pid.map(|pid| Whose::Process {
        cwd: cwd.clone(),
        pid,
    });
    let whose = [
        session_id.map(Whose::Session),
        process,
        Some(Whose::Directory(cwd)),
    ];
    let ask = |whose| Request::SetStatus { whose, status };
    Ok(whose.into_iter().flatten().map(ask).collect())
}

/// From what all meshes said to one of [`hook_set_status`]'s. `None`: nobody was there.
#[must_use]
pub fn hook_answer(responses: &[Response]) -> Option<HttpAnswer> {
    let set = responses
        .iter()
        .filter(|response| **response == Response::StatusSet)
        .count();
    if set > 0 {
        return Some(hook_told(set));
    }
    // It may be there that it is: a less certain guess would hit another.
    let refused = responses
        .iter()
        .find(|response| matches!(response, Response::Refused { .. }));
    refused.map(answer)
}

/// Of how many peers the status was set, or left because it is `dnd`. None is no error: hooks run
/// before their session is here, and after.
#[must_use]
pub fn hook_told(peers: usize) -> HttpAnswer {
    HttpAnswer::new(200, &json!({ "ok": true, "peers": peers }))
}

/// A mesh's answer as it leaves.
#[must_use]
pub fn answer(response: &Response) -> HttpAnswer {
    match response {
        Response::Joined {
            member,
            already_member,
        } => {
            let mut body = json!({ "ok": true, "memberId": member });
            if *already_member {
                body["alreadyMember"] = json!(true);
            }
            HttpAnswer::new(200, &body)
        }
        Response::InviteRegistered | Response::InviteRevoked => {
            HttpAnswer::new(200, &json!({ "ok": true }))
        }
        Response::StatusSet => hook_told(1),
        Response::NobodyThere => hook_told(0),
        Response::Refused { code, message } => {
            let status = match *code {
                "busy" | "capacity" | "outcome_unknown" => 503,
                _ => 400,
            };
            HttpRefusal::new(status, code, *message).answer()
        }
    }
}

fn refused(error: InviteError) -> HttpRefusal {
    HttpRefusal::new(400, error.code(), alloc::format!("{error}"))
}

fn mesh_not_found() -> HttpRefusal {
    let error = InviteError::MeshNotFound;
    HttpRefusal::new(404, error.code(), alloc::format!("{error}"))
}

/// SHA-256 in lower-case hex.
fn read_invite_id(text: &str) -> Result<InviteId, HttpRefusal> {
    let is_id = text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id {
        return Err(HttpRefusal::bad_request(
            "an invite id is 64 hex characters",
        ));
    }
    Ok(text.into())
}

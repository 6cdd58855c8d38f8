//! Making a mesh, joining one, inviting to one: a few requests to a broker, one after the other.
//!
//! **No answer is not "did not happen".** The keys of an attempt are kept while this daemon runs, so
//! that asking again asks for the same thing: the same owner, the same member.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use core::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers;
use super::context::Context;
use super::io::{HttpCall, HttpOutcome, Output};
use super::ipc::{Answer, Invite, MeshCreate};
use super::meshes::Joined;
use super::sessions::check_name;
use crate::crypto::invite::{InviteTerms, InviteToken, is_slug};
use crate::crypto::{SecretKey, canonical};
use crate::id::{MemberId, MeshId, RequestId};
use crate::limits::{ID_BYTES, IPC_REQUESTS, NAME_BYTES};
use crate::store::host::{MeshRow, POLICY_UNKNOWN};
use crate::store::mesh::MemberRole;
use crate::wire::decode::cut;

/// How long an invite is good where nothing is said.
const INVITE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The invite by which the maker of a mesh joins it.
const OWN_INVITE_FOR: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Joining {
    steps: BTreeMap<RequestId, Step>,
    last_http: RequestId,
    /// By broker and slug.
    owner_keys: BTreeMap<(String, String), SecretKey>,
    member_keys: BTreeMap<MeshId, SecretKey>,
}

/// What an answer of a broker is waited for. `request` is the caller's.
enum Step {
    Creating {
        request: RequestId,
        create: MeshCreate,
        policy: String,
        owner: SecretKey,
    },
    Joining {
        request: RequestId,
        token: InviteToken,
        member: SecretKey,
        owner: Option<SecretKey>,
        policy: String,
        display_name: String,
    },
    Registering {
        request: RequestId,
        answer: Answer,
    },
}

/// What the answer of a broker led to.
pub(super) enum Done {
    /// The next request is under way, or nobody asked.
    Nothing,
    Answered {
        request: RequestId,
        answer: Answer,
    },
    Joined {
        request: RequestId,
        row: alloc::boxed::Box<MeshRow>,
        already_member: bool,
    },
}

impl Joining {
    pub(super) fn create(
        &mut self,
        ctx: &mut Context,
        request: RequestId,
        create: MeshCreate,
    ) -> Result<(), Answer> {
        self.has_room()?;
        if !is_slug(&create.slug) {
            return Err(answers::bad_request("a mesh's slug is `[a-z0-9._-]+`"));
        }
        let base = http_base(&create.broker_url)?;
        if let Some(name) = &create.display_name {
            check_name(name)?;
        }
        let policy = match create.policy.as_deref() {
            None | Some("sealed") => "sealed",
            Some("open") => "open",
            Some(_) => return Err(answers::bad_request("a policy is `sealed` or `open`")),
        };
        let key = (create.broker_url.clone(), create.slug.clone());
        let owner = match self.owner_keys.get(&key) {
            Some(owner) => owner.clone(),
            None => SecretKey::generate(&mut ctx.entropy),
        };
        self.owner_keys.insert(key, owner.clone());
        let owner_pubkey = ctx.crypto.public_key(&owner);
        let timestamp = ctx.now.wall;
        let signed = canonical::mesh(&create.slug, &owner_pubkey, policy, timestamp);
        let body = json!({
            "slug": create.slug,
            "owner_pubkey": owner_pubkey,
            "policy": policy,
            "timestamp": timestamp,
            "signature": ctx.crypto.sign(&owner, signed.as_bytes()),
        });
        let step = Step::Creating {
            request,
            create,
            policy: policy.into(),
            owner,
        };
        self.post(ctx, &base, "/meshes", &body, step);
        Ok(())
    }

    /// `token` is decoded and verified, and its mesh not joined yet.
    pub(super) fn join(
        &mut self,
        ctx: &mut Context,
        request: RequestId,
        token: InviteToken,
        display_name: Option<String>,
    ) -> Result<(), Answer> {
        self.has_room()?;
        if let Some(name) = &display_name {
            check_name(name)?;
        }
        let base = http_base(&token.broker_url)?;
        self.post_join(
            ctx,
            &base,
            request,
            token,
            None,
            POLICY_UNKNOWN.into(),
            display_name,
        );
        Ok(())
    }

    /// The link, or `None` where the broker is asked first.
    pub(super) fn invite(
        &mut self,
        ctx: &mut Context,
        request: RequestId,
        mesh: &Joined,
        invite: &Invite,
    ) -> Result<Option<Answer>, Answer> {
        let row = &mesh.row;
        let Some(owner) = &row.owner_secret else {
            return Err(answers::error(
                403,
                "not_owner",
                alloc::format!("only the host that created `{}` can invite to it", row.slug),
            ));
        };
        let role = match invite.role.as_deref() {
            None | Some("member") => MemberRole::Member,
            Some("admin") => MemberRole::Admin,
            Some(_) => return Err(answers::bad_request("a role is `member` or `admin`")),
        };
        let wanted = invite.expires_in_s.map_or(INVITE_FOR, Duration::from_secs);
        let expires_at_s = (ctx.now.wall + wanted).0 / 1_000;
        let terms = InviteTerms {
            mesh_id: row.id.clone(),
            mesh_slug: row.slug.clone(),
            broker_url: row.broker_url.clone(),
            expires_at_s,
            mesh_root_key: row.mesh_root_key.clone(),
            role,
        };
        let token = InviteToken::sign(&*ctx.crypto, owner, terms)
            .ok_or_else(|| answers::error(500, "internal", "this mesh cannot be invited to"))?;
        let answer = answers::ok(json!({
            "invite": token.link(),
            "mesh": row.slug,
            "mesh_id": row.id,
            "role": role,
            "expires_at": token.expires_at().iso8601().to_string(),
        }));
        let Some(uses) = invite.uses else {
            return Ok(Some(answer));
        };
        self.has_room()?;
        let base = http_base(&row.broker_url)?;
        let (id, timestamp) = (token.id(), ctx.now.wall);
        let signed = canonical::invite_registration(&row.id, &id, uses, expires_at_s, timestamp);
        let body = json!({
            "mesh_id": row.id,
            "invite_id": id,
            "uses": uses,
            "expires_at": expires_at_s,
            "timestamp": timestamp,
            "signature": ctx.crypto.sign(owner, signed.as_bytes()),
        });
        self.post(
            ctx,
            &base,
            "/invites",
            &body,
            Step::Registering { request, answer },
        );
        Ok(None)
    }

    pub(super) fn done(
        &mut self,
        ctx: &mut Context,
        http: RequestId,
        outcome: HttpOutcome,
    ) -> Done {
        let Some(step) = self.steps.remove(&http) else {
            return Done::Nothing;
        };
        match step {
            Step::Creating {
                request,
                create,
                policy,
                owner,
            } => match read::<Created>(&outcome) {
                Ok(created) => self.created(ctx, request, create, policy, owner, created.mesh_id),
                Err(answer) => Done::Answered { request, answer },
            },
            Step::Joining {
                request,
                token,
                member,
                owner,
                policy,
                display_name,
            } => match read::<JoinedAs>(&outcome) {
                Ok(joined) => Done::Joined {
                    request,
                    row: alloc::boxed::Box::new(MeshRow {
                        id: token.mesh_id,
                        slug: token.mesh_slug,
                        broker_url: token.broker_url,
                        policy,
                        display_name,
                        member_id: joined.member_id,
                        member_secret: member,
                        owner_pubkey: token.owner_pubkey,
                        owner_secret: owner,
                        mesh_root_key: token.mesh_root_key,
                        joined_at: ctx.now.wall,
                    }),
                    already_member: joined.already_member,
                },
                Err(answer) => Done::Answered { request, answer },
            },
            Step::Registering { request, answer } => {
                let answer = read::<Value>(&outcome).map_or_else(|refused| refused, |_| answer);
                Done::Answered { request, answer }
            }
        }
    }

    /// The mesh's row stands: its keys need not be kept here.
    pub(super) fn forget(&mut self, row: &MeshRow) {
        self.member_keys.remove(&row.id);
        self.owner_keys
            .remove(&(row.broker_url.clone(), row.slug.clone()));
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len() + self.owner_keys.len() + self.member_keys.len()
    }

    /// The mesh is there: its maker joins by an invite of its own.
    fn created(
        &mut self,
        ctx: &mut Context,
        request: RequestId,
        create: MeshCreate,
        policy: String,
        owner: SecretKey,
        mesh_id: MeshId,
    ) -> Done {
        let terms = InviteTerms {
            mesh_id,
            mesh_slug: create.slug,
            broker_url: create.broker_url,
            expires_at_s: (ctx.now.wall + OWN_INVITE_FOR).0 / 1_000,
            mesh_root_key: Base64UrlUnpadded::encode_string(&ctx.entropy.bytes::<32>()),
            role: MemberRole::Admin,
        };
        let token = InviteToken::sign(&*ctx.crypto, &owner, terms);
        let base = token.as_ref().map(|token| http_base(&token.broker_url));
        let (Some(token), Some(Ok(base))) = (token, base) else {
            let answer = answers::error(
                502,
                "broker_error",
                "the broker gave the mesh an id that cannot be signed",
            );
            return Done::Answered { request, answer };
        };
        let name = create.display_name;
        self.post_join(ctx, &base, request, token, Some(owner), policy, name);
        Done::Nothing
    }

    fn post_join(
        &mut self,
        ctx: &mut Context,
        base: &str,
        request: RequestId,
        token: InviteToken,
        owner: Option<SecretKey>,
        policy: String,
        display_name: Option<String>,
    ) {
        let mut display_name = display_name.unwrap_or_else(|| ctx.config.hostname.clone());
        cut(&mut display_name, NAME_BYTES);
        let member = match self.member_keys.get(&token.mesh_id) {
            Some(member) => member.clone(),
            None => SecretKey::generate(&mut ctx.entropy),
        };
        self.member_keys
            .insert(token.mesh_id.clone(), member.clone());
        let body = json!({
            "invite_token": token.encode(),
            "invite_payload": token,
            "peer_pubkey": ctx.crypto.public_key(&member),
            "display_name": display_name,
        });
        let step = Step::Joining {
            request,
            token,
            member,
            owner,
            policy,
            display_name,
        };
        self.post(ctx, base, "/join", &body, step);
    }

    fn post(&mut self, ctx: &mut Context, base: &str, path: &str, body: &Value, step: Step) {
        self.last_http = self.last_http.next();
        self.steps.insert(self.last_http, step);
        ctx.out.push(Output::Http {
            request: self.last_http,
            http: HttpCall {
                method: "POST",
                url: alloc::format!("{base}{path}"),
                body: Bytes::from(body.to_string()),
            },
        });
    }

    fn has_room(&self) -> Result<(), Answer> {
        if self.len() >= IPC_REQUESTS {
            return Err(answers::busy("too many meshes are being made or joined"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Created {
    mesh_id: MeshId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinedAs {
    member_id: MemberId,
    #[serde(default)]
    already_member: bool,
}

/// The body of a good answer, or what the caller is told.
fn read<T: serde::de::DeserializeOwned>(outcome: &HttpOutcome) -> Result<T, Answer> {
    let (status, body) = match outcome {
        HttpOutcome::Failed { detail } => {
            return Err(answers::error(
                503,
                "broker_unreachable",
                alloc::format!(
                    "the broker gave no answer ({detail}); it may have heard: run this again"
                ),
            ));
        }
        HttpOutcome::Answered { status, body } => (*status, body),
    };
    if (200..300).contains(&status) {
        return serde_json::from_slice(body).map_err(|_| {
            answers::error(502, "broker_error", "the broker's answer cannot be read")
        });
    }
    let said: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = &said["error"];
    let mut code = error
        .as_str()
        .or_else(|| error["code"].as_str())
        .unwrap_or("broker_error")
        .to_string();
    cut(&mut code, ID_BYTES);
    let message = error["message"]
        .as_str()
        .or_else(|| said["message"].as_str())
        .map_or_else(
            || alloc::format!("the broker refused: {code}"),
            ToString::to_string,
        );
    // What a broker says of itself is not this daemon's state.
    let status = if matches!(status, 400 | 402..500 | 503) {
        status
    } else {
        502
    };
    Err(answers::error(status, &code, message))
}

/// `http(s)://host[:port]` of a `ws(s)://host[:port]/ws`.
fn http_base(broker_url: &str) -> Result<String, Answer> {
    let secure = broker_url
        .strip_prefix("wss://")
        .map(|rest| ("https", rest));
    let plain = broker_url.strip_prefix("ws://").map(|rest| ("http", rest));
    let host = secure
        .or(plain)
        .and_then(|(scheme, rest)| Some((scheme, rest.strip_suffix("/ws")?)))
        .filter(|(_, host)| {
            let bad = |byte: u8| matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\');
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !bad(byte))
        });
    match host {
        Some((scheme, host)) => Ok(alloc::format!("{scheme}://{host}")),
        None => Err(answers::bad_request(
            "a broker's URL is `ws://HOST[:PORT]/ws` or `wss://HOST[:PORT]/ws`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_http_base_is_the_root_of_the_brokers_host() {
        assert_eq!(
            http_base("ws://[::1]:7900/ws"),
            Ok("http://[::1]:7900".into())
        );
        assert_eq!(
            http_base("wss://b.example/ws"),
            Ok("https://b.example".into())
        );
        for bad in [
            "http://b/ws",
            "ws://b",
            "ws:///ws",
            "ws://u@b/ws",
            "ws://b/x/ws",
        ] {
            assert!(http_base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_brokers_code() {
        let answered = |status, body: &'static [u8]| HttpOutcome::Answered {
            status,
            body: Bytes::from_static(body),
        };
        let refused = |outcome| read::<Created>(&outcome).err().unwrap();
        let answer = refused(answered(
            400,
            b"{\"ok\":false,\"error\":\"invite_expired\"}",
        ));
        assert_eq!(answer.status, 400);
        assert_eq!(answer.body["error"]["code"], "invite_expired");
        let answer = refused(answered(500, b"oops"));
        assert_eq!(
            (answer.status, &answer.body["error"]["code"]),
            (502, &"broker_error".into())
        );
        let answer = refused(HttpOutcome::Failed {
            detail: "refused".into(),
        });
        assert_eq!(answer.status, 503);
    }
}

//! Invites: a link that carries a token which the owner of a mesh has signed.

use alloc::format;
use alloc::string::String;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Crypto, SecretKey, canonical};
use crate::id::{InviteId, MeshId, PubKey, Signature};
use crate::limits::ID_BYTES;
use crate::store::mesh::MemberRole;
use crate::time::Wall;

/// The only version there is.
pub const INVITE_VERSION: u32 = 1;
/// A link is pasted by people; whatever is longer is not one.
pub const INVITE_LINK_BYTES: usize = 4096;

const BROKER_URL_BYTES: usize = 512;
const ROOT_KEY_BYTES: usize = 128;

/// The fields as they stand in the token's JSON. Not to be trusted before [`InviteToken::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteToken {
    pub v: u32,
    pub mesh_id: MeshId,
    /// `[a-z0-9._-]+`
    pub mesh_slug: String,
    /// The complete `ws(s)://host[:port]/ws`.
    pub broker_url: String,
    /// Seconds since 1970, unlike every other time on the wire.
    #[serde(rename = "expires_at")]
    pub expires_at_s: u64,
    /// Of the dialect. No secrecy is derived from it.
    pub mesh_root_key: String,
    pub role: MemberRole,
    pub owner_pubkey: PubKey,
    pub signature: Signature,
}

/// What an invite says, before its owner signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteTerms {
    pub mesh_id: MeshId,
    pub mesh_slug: String,
    pub broker_url: String,
    pub expires_at_s: u64,
    pub mesh_root_key: String,
    pub role: MemberRole,
}

/// The text is not an invite of this version. It may still be a good one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInvite {
    #[error("an invite is at most {INVITE_LINK_BYTES} bytes")]
    TooLong,
    #[error("this is not an invite link")]
    NotALink,
    #[error("the invite's token is damaged")]
    Damaged,
    #[error("the invite's version is not {INVITE_VERSION}")]
    Version,
}

/// Why an invite is refused. The whole list of the wire; what only a registry knows is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    #[error("there is no such mesh here")]
    MeshNotFound,
    #[error("there is no such invite")]
    NotFound,
    #[error("the invite has expired")]
    Expired,
    #[error("the invite has been used up")]
    Exhausted,
    #[error("the invite has been revoked")]
    Revoked,
    #[error("the invite is not signed by the owner that it names")]
    BadSignature,
    #[error("the invite is for another mesh")]
    MeshMismatch,
    #[error("the invite is by somebody who does not own the mesh")]
    OwnerMismatch,
}

impl InviteError {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::MeshNotFound => "mesh_not_found",
            Self::NotFound => "invite_not_found",
            Self::Expired => "invite_expired",
            Self::Exhausted => "invite_exhausted",
            Self::Revoked => "invite_revoked",
            Self::BadSignature => "invite_bad_signature",
            Self::MeshMismatch => "invite_mesh_mismatch",
            Self::OwnerMismatch => "invite_owner_mismatch",
        }
    }
}

impl InviteToken {
    /// `None` where a field is not in its alphabet: signed, it could be read in two ways.
    #[must_use]
    pub fn sign(
        crypto: &(impl Crypto + ?Sized),
        owner: &SecretKey,
        terms: InviteTerms,
    ) -> Option<Self> {
        let InviteTerms {
            mesh_id,
            mesh_slug,
            broker_url,
            expires_at_s,
            mesh_root_key,
            role,
        } = terms;
        let mut token = Self {
            v: INVITE_VERSION,
            mesh_id,
            mesh_slug,
            broker_url,
            expires_at_s,
            mesh_root_key,
            role,
            owner_pubkey: crypto.public_key(owner),
            signature: Signature([0; Signature::LEN]),
        };
        token.signature = crypto.sign(owner, canonical::invite(&token).as_bytes());
        token.is_well_formed().then_some(token)
    }

    /// Total: any text of any length.
    pub fn decode(link: &str) -> Result<Self, BadInvite> {
        let link = link.trim();
        if link.len() > INVITE_LINK_BYTES {
            return Err(BadInvite::TooLong);
        }
        let token = token_of(link).ok_or(BadInvite::NotALink)?;
        let json = Base64UrlUnpadded::decode_vec(token).map_err(|_| BadInvite::NotALink)?;
        let version: Version = serde_json::from_slice(&json).map_err(|_| BadInvite::Damaged)?;
        if version.v != u64::from(INVITE_VERSION) {
            return Err(BadInvite::Version);
        }
        let token: Self = serde_json::from_slice(&json).map_err(|_| BadInvite::Damaged)?;
        token
            .is_well_formed()
            .then_some(token)
            .ok_or(BadInvite::Damaged)
    }

    /// The token alone, as `/join` takes it.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("plain fields always serialise");
        Base64UrlUnpadded::encode_string(&json)
    }

    #[must_use]
    pub fn link(&self) -> String {
        format!("bowline://join/{}", self.encode())
    }

    /// SHA-256 of the signature's bytes. Two invites that say the same are one.
    #[must_use]
    pub fn id(&self) -> InviteId {
        InviteId::from(hex::encode(Sha256::digest(self.signature.0)))
    }

    #[must_use]
    pub fn expires_at(&self) -> Wall {
        Wall(self.expires_at_s.saturating_mul(1000))
    }

    /// What anybody can check: signed by the owner that it names, and not expired.
    pub fn verify(&self, crypto: &(impl Crypto + ?Sized), now: Wall) -> Result<(), InviteError> {
        let signed = canonical::invite(self);
        if !self.is_well_formed()
            || !crypto.verify(&self.owner_pubkey, signed.as_bytes(), &self.signature)
        {
            return Err(InviteError::BadSignature);
        }
        if now >= self.expires_at() {
            return Err(InviteError::Expired);
        }
        Ok(())
    }

    /// What the broker of the mesh checks beside: it is this mesh and this owner.
    pub fn verify_for(
        &self,
        crypto: &(impl Crypto + ?Sized),
        mesh: &MeshId,
        owner: &PubKey,
        now: Wall,
    ) -> Result<(), InviteError> {
        if self.mesh_id != *mesh {
            return Err(InviteError::MeshMismatch);
        }
        if self.owner_pubkey != *owner {
            return Err(InviteError::OwnerMismatch);
        }
        self.verify(crypto, now)
    }

    fn is_well_formed(&self) -> bool {
        let plain = |field: &str, most: usize| {
            field.len() <= most
                && field
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'|')
        };
        self.v == INVITE_VERSION
            && !self.mesh_id.as_str().is_empty()
            && plain(self.mesh_id.as_str(), ID_BYTES)
            && is_slug(&self.mesh_slug)
            && plain(&self.broker_url, BROKER_URL_BYTES)
            && is_broker_url(&self.broker_url)
            && plain(&self.mesh_root_key, ROOT_KEY_BYTES)
    }
}

/// `[a-z0-9._-]+`, as long as an id may be.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    (1..=ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Read first and alone, so that an invite of a later version says so whatever its fields are.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

fn is_broker_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("wss://")
        .or_else(|| url.strip_prefix("ws://"));
    let host = rest.and_then(|rest| rest.strip_suffix("/ws"));
    host.is_some_and(|host| {
        !host.is_empty()
            && !host
                .bytes()
                .any(|byte| matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\'))
    })
}

fn token_of(link: &str) -> Option<&str> {
    let token = if let Some(page) = link.strip_prefix("https://") {
        let (host, path) = page.split_once('/')?;
        path.strip_prefix("join/").filter(|_| !host.is_empty())?
    } else {
        let after = |scheme: &str| link.strip_prefix(scheme);
        after("bowline://join/")
            .or_else(|| after("ic://join/"))
            .unwrap_or(link)
    };
    (!token.is_empty()).then_some(token)
}

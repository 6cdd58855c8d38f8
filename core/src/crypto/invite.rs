//! Invites: a link that carries a token which the owner of a mesh has signed.

use alloc::format;
use alloc::string::String;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::canonical::{self, is_signable};
use super::{Crypto, SecretKey};
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
        if !token.is_well_formed() {
            return None;
        }
        token.signature = crypto.sign(owner, canonical::invite(&token).as_bytes());
        Some(token)
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

    /// SHA-256 of the signature's bytes. Signatures are deterministic: two invites that say the same
    /// are one, with one count of uses.
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
        let plain = |field: &str, most: usize| field.len() <= most && is_signable(field);
        self.v == INVITE_VERSION
            && plain(self.mesh_id.as_str(), ID_BYTES)
            && is_slug(&self.mesh_slug)
            && plain(&self.broker_url, BROKER_URL_BYTES)
            && is_broker_url(&self.broker_url)
            && (self.mesh_root_key.is_empty() || plain(&self.mesh_root_key, ROOT_KEY_BYTES))
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

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::stand_in::StandIn;

    const NOW: Wall = Wall(1_700_000_000_000);

    fn owner() -> SecretKey {
        SecretKey::from_bytes([1; 32])
    }

    fn terms() -> InviteTerms {
        InviteTerms {
            mesh_id: MeshId::from("01hqz0k3v7mesh00000000000a"),
            mesh_slug: "team-1".into(),
            broker_url: "wss://broker.example:7443/ws".into(),
            expires_at_s: NOW.0 / 1000 + 60,
            mesh_root_key: "cm9vdA".into(),
            role: MemberRole::Member,
        }
    }

    fn token() -> InviteToken {
        InviteToken::sign(&StandIn, &owner(), terms()).unwrap()
    }

    fn token_of_json(json: &serde_json::Value) -> String {
        Base64UrlUnpadded::encode_string(&serde_json::to_vec(json).unwrap())
    }

    #[test]
    fn every_form_of_a_link_is_the_same_invite() {
        let (expected, bare) = (token(), token().encode());
        let links = [
            expected.link(),
            format!("ic://join/{bare}"),
            format!("https://broker.example/join/{bare}"),
            format!("  {bare}\n"),
        ];
        for link in links {
            assert_eq!(InviteToken::decode(&link).as_ref(), Ok(&expected), "{link}");
        }
    }

    #[test]
    fn what_is_no_link_is_refused() {
        let bare = token().encode();
        let links = [
            String::new(),
            "bowline://join/".into(),
            format!("https:///join/{bare}"),
            format!("https://broker.example/leave/{bare}"),
            format!("http://broker.example/join/{bare}"),
            format!("{bare}="),
        ];
        for link in links {
            assert_eq!(
                InviteToken::decode(&link),
                Err(BadInvite::NotALink),
                "{link}"
            );
        }
        let long = "a".repeat(INVITE_LINK_BYTES + 1);
        assert_eq!(InviteToken::decode(&long), Err(BadInvite::TooLong));
    }

    #[test]
    fn a_later_version_says_so_whatever_its_fields_are() {
        let later = token_of_json(&serde_json::json!({"v": 2, "mesh": "m"}));
        assert_eq!(InviteToken::decode(&later), Err(BadInvite::Version));
    }

    #[test]
    fn a_field_outside_its_alphabet_is_damage_and_is_never_signed() {
        let changes: [(&str, &str); 9] = [
            ("mesh_id", "a|b"),
            ("mesh_id", ""),
            ("mesh_slug", "Team"),
            ("mesh_slug", ""),
            ("broker_url", "wss://a|b/ws"),
            ("broker_url", "https://broker.example/ws"),
            ("broker_url", "wss://broker.example/elsewhere/ws"),
            ("mesh_root_key", "a|b"),
            ("role", "owner"),
        ];
        for (field, value) in changes {
            let mut json = serde_json::to_value(token()).unwrap();
            json[field] = value.into();
            let decoded = InviteToken::decode(&token_of_json(&json));
            assert_eq!(decoded, Err(BadInvite::Damaged), "{field}: {value}");
        }
        let ambiguous = InviteTerms {
            mesh_root_key: "a|b".into(),
            ..terms()
        };
        assert_eq!(InviteToken::sign(&StandIn, &owner(), ambiguous), None);
    }

    #[test]
    fn the_token_is_spelled_as_on_the_wire() {
        let json = Base64UrlUnpadded::decode_vec(&token().encode()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let fields: Vec<_> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = [
            "broker_url",
            "expires_at",
            "mesh_id",
            "mesh_root_key",
            "mesh_slug",
            "owner_pubkey",
            "role",
            "signature",
            "v",
        ];
        assert_eq!(fields, expected);
        assert_eq!(json["v"], 1);
        assert_eq!(json["role"], "member");
        assert_eq!(json["expires_at"], NOW.0 / 1000 + 60);
    }

    #[test]
    fn it_is_good_until_it_expires() {
        let (token, owner) = (token(), StandIn.public_key(&owner()));
        let verify = |now| token.verify_for(&StandIn, &token.mesh_id, &owner, now);
        assert_eq!(verify(NOW), Ok(()));
        assert_eq!(verify(Wall(token.expires_at().0 - 1)), Ok(()));
        assert_eq!(verify(token.expires_at()), Err(InviteError::Expired));
    }

    #[test]
    fn every_field_is_signed() {
        let changes: [fn(&mut InviteToken); 7] = [
            |token| token.mesh_id = "01hqz0k3v7mesh00000000000b".into(),
            |token| token.mesh_slug.push('x'),
            |token| token.broker_url = "wss://elsewhere.example/ws".into(),
            |token| token.expires_at_s += 1,
            |token| token.mesh_root_key.push('x'),
            |token| token.role = MemberRole::Admin,
            |token| token.owner_pubkey = StandIn.public_key(&SecretKey::from_bytes([2; 32])),
        ];
        for change in changes {
            let mut token = token();
            change(&mut token);
            assert_eq!(
                token.verify(&StandIn, NOW),
                Err(InviteError::BadSignature),
                "{token:?}"
            );
        }
    }

    #[test]
    fn a_broker_takes_only_invites_to_its_mesh_by_its_owner() {
        let (token, owner) = (token(), StandIn.public_key(&owner()));
        assert_eq!(
            token.verify_for(&StandIn, &MeshId::from("other"), &owner, NOW),
            Err(InviteError::MeshMismatch)
        );
        assert_eq!(
            token.verify_for(&StandIn, &token.mesh_id, &PubKey([9; 32]), NOW),
            Err(InviteError::OwnerMismatch)
        );
    }

    #[test]
    fn its_id_is_the_hash_of_its_signature() {
        let mut token = token();
        token.signature = Signature([0; 64]);
        // SHA-256 of 64 zero bytes.
        let expected = "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b";
        assert_eq!(token.id().as_str(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn decoding_is_total(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = InviteToken::decode(&text);
            let _ = InviteToken::decode(&format!("https://{text}"));
            let _ = InviteToken::decode(&Base64UrlUnpadded::encode_string(&bytes));
        }

        #[test]
        fn what_was_signed_decodes_and_verifies(
            mesh_id in "[0-9a-z]{1,40}",
            mesh_slug in "[a-z0-9._-]{1,40}",
            host in "[a-z0-9.]{1,40}(:[0-9]{1,5})?",
            lasts_s in 1..100_000_000u64,
            root_key in "[A-Za-z0-9_-]{0,43}",
            admin in any::<bool>(),
        ) {
            let terms = InviteTerms {
                mesh_id: mesh_id.into(),
                mesh_slug,
                broker_url: format!("ws://{host}/ws"),
                expires_at_s: NOW.0 / 1000 + lasts_s,
                mesh_root_key: root_key,
                role: if admin { MemberRole::Admin } else { MemberRole::Member },
            };
            let token = InviteToken::sign(&StandIn, &owner(), terms).unwrap();
            let decoded = InviteToken::decode(&token.link());
            prop_assert_eq!(decoded.as_ref(), Ok(&token));
            prop_assert_eq!(decoded.unwrap().verify(&StandIn, NOW), Ok(()));
        }
    }
}

//! `POST /meshes`: what is asked, and whether its owner asks it.

use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::signed_once::{Signed, SignedOnce};
use crate::crypto::invite::is_slug;
use crate::crypto::{Crypto, canonical};
use crate::id::{PubKey, Signature};
use crate::limits::NAME_BYTES;
use crate::store::registry::Policy;
use crate::time::{Now, Wall};
use crate::wire::http::{HttpRefusal, read_body};

/// A mesh that the holder of `owner_pubkey` wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateMesh {
    pub slug: String,
    pub owner_pubkey: PubKey,
    pub policy: Policy,
}

impl CreateMesh {
    /// # Errors
    /// `bad_request`, or what [`SignedOnce::check`] says.
    pub fn verify(
        body: &[u8],
        crypto: &dyn Crypto,
        signed_once: &mut SignedOnce,
        now: Now,
    ) -> Result<Self, HttpRefusal> {
        #[derive(Deserialize)]
        struct Body {
            slug: String,
            owner_pubkey: PubKey,
            policy: Policy,
            timestamp: Wall,
            signature: Signature,
        }

        let Body {
            slug,
            owner_pubkey,
            policy,
            timestamp,
            signature,
        } = read_body(body)?;
        if !is_slug(&slug) || slug.len() > NAME_BYTES {
            return Err(HttpRefusal::bad_request(format!(
                "a slug is 1 to {NAME_BYTES} of [a-z0-9._-]"
            )));
        }
        let text = canonical::mesh(&slug, &owner_pubkey, policy.as_str(), timestamp);
        signed_once.check(
            crypto,
            now,
            Signed {
                by: &owner_pubkey,
                text: &text,
                timestamp,
                signature: &signature,
            },
        )?;
        Ok(Self {
            slug,
            owner_pubkey,
            policy,
        })
    }
}

//! A member vouches for the key of one of its sessions or services.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Crypto, SecretKey, canonical};
use crate::id::{MeshId, PubKey, Role, Signature};
use crate::limits::{ATTESTATION_MINTED_FOR, ATTESTATION_REFUSED_BEYOND};
use crate::time::Wall;
use crate::wire::HelloCode;

/// As it stands in a `session_hello` and in a list of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    pub session_pubkey: PubKey,
    pub parent_member_pubkey: PubKey,
    pub expires_at: Wall,
    pub signature: Signature,
}

/// What the signature covers beside the two keys and the expiry. It is not in the attestation: the
/// verifier knows which form the other side speaks, in which mesh, and which role it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Of a plain client. Good in any mesh; yields role `session`, whatever the hello says.
    Dialect,
    /// Capability `attest1`. The role is `session` or `service`.
    Bowline { mesh: MeshId, role: Role },
}

/// Why a key is not vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// Vouches for another key, by another member, or for a role that no member can give.
    #[error("the attestation is not for this key, member and role")]
    Mismatch,
    #[error("the attestation has expired")]
    Expired,
    /// A member's clock may be wrong; an attestation that long-lived is not a mistake to accept.
    #[error("the attestation lasts longer than {} h", ATTESTATION_REFUSED_BEYOND.as_secs() / 3600)]
    TtlTooLong,
    #[error("the attestation is not signed by the member")]
    BadSignature,
}

impl AttestationError {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> HelloCode {
        match self {
            Self::Mismatch => HelloCode::AttestationMismatch,
            Self::Expired => HelloCode::Expired,
            Self::TtlTooLong => HelloCode::TtlTooLong,
            Self::BadSignature => HelloCode::BadSignature,
        }
    }
}

impl Attestation {
    /// Signed by the member, good for 12 h.
    #[must_use]
    pub fn mint(
        crypto: &(impl Crypto + ?Sized),
        member: &SecretKey,
        session: PubKey,
        form: &Form,
        now: Wall,
    ) -> Self {
        let parent = crypto.public_key(member);
        let expires_at = now + ATTESTATION_MINTED_FOR;
        let signed = form.canonical(&parent, &session, expires_at);
        Self {
            session_pubkey: session,
            parent_member_pubkey: parent,
            expires_at,
            signature: crypto.sign(member, signed.as_bytes()),
        }
    }

    /// The role that the member gave to `session`. What is cheap to refuse is refused first.
    pub fn verify(
        &self,
        crypto: &(impl Crypto + ?Sized),
        parent: &PubKey,
        session: &PubKey,
        form: &Form,
        now: Wall,
    ) -> Result<Role, AttestationError> {
        let role = match form {
            Form::Dialect => Role::Session,
            Form::Bowline {
                role: Role::ControlPlane,
                ..
            } => {
                return Err(AttestationError::Mismatch);
            }
            Form::Bowline { role, .. } => *role,
        };
        if self.parent_member_pubkey != *parent || self.session_pubkey != *session {
            return Err(AttestationError::Mismatch);
        }
        match self.expires_at.since(now) {
            Duration::ZERO => return Err(AttestationError::Expired),
            left if left > ATTESTATION_REFUSED_BEYOND => return Err(AttestationError::TtlTooLong),
            _ => {}
        }
        let signed = form.canonical(parent, session, self.expires_at);
        if !crypto.verify(parent, signed.as_bytes(), &self.signature) {
            return Err(AttestationError::BadSignature);
        }
        Ok(role)
    }
}

impl Form {
    fn canonical(
        &self,
        parent: &PubKey,
        session: &PubKey,
        expires_at: Wall,
    ) -> alloc::string::String {
        match self {
            Self::Dialect => canonical::dialect_attestation(parent, session, expires_at),
            Self::Bowline { mesh, role } => {
                canonical::bowline_attestation(mesh, parent, session, *role, expires_at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::stand_in::StandIn;

    const NOW: Wall = Wall(1_700_000_000_000);

    struct Minted {
        attestation: Attestation,
        parent: PubKey,
        session: PubKey,
    }

    fn mint(form: &Form) -> Minted {
        let member = SecretKey::from_bytes([1; 32]);
        let session = StandIn.public_key(&SecretKey::from_bytes([2; 32]));
        let attestation = Attestation::mint(&StandIn, &member, session, form, NOW);
        Minted {
            attestation,
            parent: StandIn.public_key(&member),
            session,
        }
    }

    fn service() -> Form {
        Form::Bowline {
            mesh: MeshId::from("m1"),
            role: Role::Service,
        }
    }

    fn verify(minted: &Minted, form: &Form, now: Wall) -> Result<Role, AttestationError> {
        minted
            .attestation
            .verify(&StandIn, &minted.parent, &minted.session, form, now)
    }

    #[test]
    fn the_role_is_the_one_that_was_signed() {
        assert_eq!(
            verify(&mint(&service()), &service(), NOW),
            Ok(Role::Service)
        );
        assert_eq!(
            verify(&mint(&Form::Dialect), &Form::Dialect, NOW),
            Ok(Role::Session)
        );
    }

    #[test]
    fn a_form_is_good_for_its_own_mesh_and_role_only() {
        let minted = mint(&service());
        let others = [
            Form::Dialect,
            Form::Bowline {
                mesh: MeshId::from("m2"),
                role: Role::Service,
            },
            Form::Bowline {
                mesh: MeshId::from("m1"),
                role: Role::Session,
            },
        ];
        for form in others {
            assert_eq!(
                verify(&minted, &form, NOW),
                Err(AttestationError::BadSignature)
            );
        }
    }

    #[test]
    fn nobody_vouches_for_a_control_plane() {
        let form = Form::Bowline {
            mesh: MeshId::from("m1"),
            role: Role::ControlPlane,
        };
        assert_eq!(
            verify(&mint(&form), &form, NOW),
            Err(AttestationError::Mismatch)
        );
    }

    #[test]
    fn another_key_or_member_is_a_mismatch() {
        let minted = mint(&Form::Dialect);
        let stranger = PubKey([9; 32]);
        let verify = |parent: &PubKey, session: &PubKey| {
            minted
                .attestation
                .verify(&StandIn, parent, session, &Form::Dialect, NOW)
        };
        assert_eq!(
            verify(&stranger, &minted.session),
            Err(AttestationError::Mismatch)
        );
        assert_eq!(
            verify(&minted.parent, &stranger),
            Err(AttestationError::Mismatch)
        );
    }

    #[test]
    fn the_expiry_is_signed_and_bounded() {
        let mut minted = mint(&Form::Dialect);
        let at_expiry = NOW + ATTESTATION_MINTED_FOR;
        assert_eq!(
            verify(&minted, &Form::Dialect, Wall(at_expiry.0 - 1)),
            Ok(Role::Session)
        );
        assert_eq!(
            verify(&minted, &Form::Dialect, at_expiry),
            Err(AttestationError::Expired)
        );

        minted.attestation.expires_at = NOW + ATTESTATION_REFUSED_BEYOND;
        assert_eq!(
            verify(&minted, &Form::Dialect, NOW),
            Err(AttestationError::BadSignature)
        );
        minted.attestation.expires_at = Wall(minted.attestation.expires_at.0 + 1);
        assert_eq!(
            verify(&minted, &Form::Dialect, NOW),
            Err(AttestationError::TtlTooLong)
        );
    }

    #[test]
    fn it_is_spelled_as_on_the_wire() {
        let json = serde_json::to_value(mint(&Form::Dialect).attestation).unwrap();
        let fields: alloc::vec::Vec<_> = json
            .as_object()
            .unwrap()
            .keys()
            .map(|k| k.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "expiresAt",
                "parentMemberPubkey",
                "sessionPubkey",
                "signature"
            ]
        );
        assert_eq!(json["expiresAt"], (NOW + ATTESTATION_MINTED_FOR).0);
    }
}

//! The exact strings that are signed, as UTF-8.
//!
//! Fields are joined by `|`, as the dialect has it. That is unambiguous only because no field can
//! hold a `|`:
//! - keys and invite ids are lower-case hex, times are decimal, roles and policies are words of ours;
//! - slugs are `[a-z0-9._-]+`;
//! - mesh ids and member ids are minted by a broker, out of letters and digits here. A broker honours
//!   only those that it minted; whoever takes one from a broker or an invite asks [`is_signable`]
//!   before signing with it, lest the other side choose what is signed;
//! - the free fields of an invite are checked by [`InviteToken`] before its signature is looked at.
//!
//! A prefix of its own keeps each kind from being taken for another. The dialect gave none to the
//! member hello (four fields) and the invite (eight). Another four fields that a member key signs are
//! the dialect's attestation: a hello made to look like one would vouch for the member's own key until
//! the moment of signing, that is for nothing.
//!
//! `timestamp` is in milliseconds, `expires_at` of an invite in seconds.

use alloc::format;
use alloc::string::String;

use super::invite::InviteToken;
use crate::id::{InviteId, MemberId, MeshId, PubKey, Role};
use crate::store::mesh::MemberRole;
use crate::time::Wall;

/// Whether a field can stand between two bars.
#[must_use]
pub fn is_signable(field: &str) -> bool {
    !field.is_empty()
        && field
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'|')
}

/// By the member key: the hello of a control plane.
#[must_use]
pub fn member_hello(mesh: &MeshId, member: &MemberId, key: &PubKey, timestamp: Wall) -> String {
    format!("{mesh}|{member}|{key}|{}", timestamp.0)
}

/// By the session key: the hello of a session or service.
#[must_use]
pub fn session_hello(mesh: &MeshId, parent: &PubKey, session: &PubKey, timestamp: Wall) -> String {
    format!(
        "claudemesh-session-hello|{mesh}|{parent}|{session}|{}",
        timestamp.0
    )
}

/// By the member key: "this session is mine", in any mesh and for the default role only.
#[must_use]
pub fn dialect_attestation(parent: &PubKey, session: &PubKey, expires_at: Wall) -> String {
    format!(
        "claudemesh-session-attest|{parent}|{session}|{}",
        expires_at.0
    )
}

/// By the member key: "this key is mine, in this mesh and in this role".
#[must_use]
pub fn bowline_attestation(
    mesh: &MeshId,
    parent: &PubKey,
    session: &PubKey,
    role: Role,
    expires_at: Wall,
) -> String {
    format!(
        "bowline-attest-v1|{mesh}|{parent}|{session}|{}|{}",
        role.as_str(),
        expires_at.0
    )
}

/// By the owner key: making a mesh. `policy` is `sealed` or `open`.
#[must_use]
pub fn mesh(slug: &str, owner: &PubKey, policy: &str, timestamp: Wall) -> String {
    format!("bowline-mesh-v1|{slug}|{owner}|{policy}|{}", timestamp.0)
}

/// By the owner key: registering an invite before its first use, with how often it may be used.
#[must_use]
pub fn invite_registration(
    mesh: &MeshId,
    invite: &InviteId,
    uses: u32,
    expires_at_s: u64,
    timestamp: Wall,
) -> String {
    format!(
        "bowline-invite-v1|{mesh}|{invite}|{uses}|{expires_at_s}|{}",
        timestamp.0
    )
}

/// By the owner key: no further use of an invite.
#[must_use]
pub fn invite_revocation(mesh: &MeshId, invite: &InviteId, timestamp: Wall) -> String {
    format!("bowline-revoke-v1|{mesh}|{invite}|{}", timestamp.0)
}

/// By the owner key: the invite itself, all its fields but the signature.
#[must_use]
pub fn invite(token: &InviteToken) -> String {
    let InviteToken {
        v,
        mesh_id,
        mesh_slug,
        broker_url,
        expires_at_s,
        mesh_root_key,
        role,
        owner_pubkey,
        signature: _,
    } = token;
    let role = match role {
        MemberRole::Admin => "admin",
        MemberRole::Member => "member",
    };
    format!(
        "{v}|{mesh_id}|{mesh_slug}|{broker_url}|{expires_at_s}|{mesh_root_key}|{role}|{owner_pubkey}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Signature;

    const A: &str = "0a00000000000000000000000000000000000000000000000000000000000000";
    const B: &str = "0b00000000000000000000000000000000000000000000000000000000000000";

    fn keys() -> (PubKey, PubKey) {
        (A.parse().unwrap(), B.parse().unwrap())
    }

    #[test]
    fn only_visible_ascii_without_bars_is_signable() {
        assert!(
            ["a", "01hqz0k3v7", "wss://h:1/ws"]
                .into_iter()
                .all(is_signable)
        );
        assert!(!["", "a|b", "a b", "a\0", "é"].into_iter().any(is_signable));
    }

    #[test]
    fn hellos_and_attestations_are_spelled_as_on_the_wire() {
        let (a, b) = keys();
        let mesh = MeshId::from("m1");
        assert_eq!(
            member_hello(&mesh, &MemberId::from("p1"), &a, Wall(1700)),
            format!("m1|p1|{A}|1700")
        );
        assert_eq!(
            session_hello(&mesh, &a, &b, Wall(1700)),
            format!("claudemesh-session-hello|m1|{A}|{B}|1700")
        );
        assert_eq!(
            dialect_attestation(&a, &b, Wall(1700)),
            format!("claudemesh-session-attest|{A}|{B}|1700")
        );
        assert_eq!(
            bowline_attestation(&mesh, &a, &b, Role::Service, Wall(1700)),
            format!("bowline-attest-v1|m1|{A}|{B}|service|1700")
        );
    }

    #[test]
    fn meshes_and_invites_are_spelled_as_on_the_wire() {
        let (a, _) = keys();
        let (mesh_id, invite_id) = (MeshId::from("m1"), InviteId::from("ab12"));
        assert_eq!(
            mesh("team", &a, "sealed", Wall(1700)),
            format!("bowline-mesh-v1|team|{A}|sealed|1700")
        );
        assert_eq!(
            invite_registration(&mesh_id, &invite_id, 3, 9, Wall(1700)),
            "bowline-invite-v1|m1|ab12|3|9|1700"
        );
        assert_eq!(
            invite_revocation(&mesh_id, &invite_id, Wall(1700)),
            "bowline-revoke-v1|m1|ab12|1700"
        );
        let token = InviteToken {
            v: 1,
            mesh_id,
            mesh_slug: "team".into(),
            broker_url: "wss://broker.example/ws".into(),
            expires_at_s: 9,
            mesh_root_key: "cm9vdA".into(),
            role: MemberRole::Member,
            owner_pubkey: a,
            signature: Signature([0; 64]),
        };
        assert_eq!(
            invite(&token),
            format!("1|m1|team|wss://broker.example/ws|9|cm9vdA|member|{A}")
        );
    }
}

//! Who belongs to the mesh: members and the invites by which they join.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::crypto::invite::InviteToken;
use crate::entropy::Entropy;
use crate::id::{InviteId, MemberId, PubKey};
use crate::limits::MEMBERS_PER_MESH;
use crate::store::mesh::{InviteRow, MemberRow};
use crate::time::Wall;

#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<MemberId, MemberRow>,
    by_pubkey: BTreeMap<PubKey, MemberId>,
    invites: BTreeMap<InviteId, InviteRow>,
}

/// What joining did.
#[derive(Debug)]
pub enum Joined {
    Already(MemberId),
    /// Both rows are to be stored.
    New {
        member: MemberRow,
        invite: InviteRow,
    },
    Refused {
        code: &'static str,
        message: &'static str,
    },
}

impl Roster {
    #[must_use]
    pub fn recovered(members: &[MemberRow], invites: &[InviteRow]) -> Self {
        let mut roster = Self::default();
        for member in members {
            roster.put_member(member.clone());
        }
        for invite in invites {
            roster.invites.insert(invite.id.clone(), invite.clone());
        }
        roster
    }

    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<&MemberRow> {
        self.members.get(id)
    }

    #[must_use]
    pub fn by_pubkey(&self, key: &PubKey) -> Option<&MemberRow> {
        self.members.get(self.by_pubkey.get(key)?)
    }

    /// By the name that they joined under.
    pub fn called<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a MemberRow> {
        self.members
            .values()
            .filter(move |member| member.display_name == name)
    }

    /// Those who are banned, and since when.
    pub fn banned(&self) -> impl Iterator<Item = (&MemberRow, Wall)> {
        self.members
            .values()
            .filter_map(|member| Some((member, member.revoked_at?)))
    }

    /// Bans, or takes a ban back. The row to be stored, if that is a change.
    pub fn set_revoked(&mut self, id: &MemberId, at: Option<Wall>) -> Option<MemberRow> {
        let member = self.members.get_mut(id)?;
        if member.revoked_at.is_some() == at.is_some() {
            return None;
        }
        member.revoked_at = at;
        Some(member.clone())
    }

    /// The same key twice burns no use.
    pub fn join(
        &mut self,
        entropy: &mut Entropy,
        now: Wall,
        token: &InviteToken,
        id: &InviteId,
        pubkey: PubKey,
        display_name: String,
    ) -> Joined {
        if let Some(member) = self.by_pubkey(&pubkey) {
            return match member.revoked_at {
                None => Joined::Already(member.id.clone()),
                Some(_) => refused("forbidden", "this key was banned from the mesh"),
            };
        }
        let expires_at = Wall(token.expires_at_s.saturating_mul(1_000));
        let mut invite = self.invites.get(id).cloned().unwrap_or(InviteRow {
            id: id.clone(),
            uses_left: None,
            expires_at,
            revoked: false,
        });
        if invite.revoked {
            return refused(
                "invite_revoked",
                "the invite was revoked: ask for a new one",
            );
        }
        if now >= expires_at.min(invite.expires_at) {
            return refused(
                "invite_expired",
                "the invite has expired: ask for a new one",
            );
        }
        if invite.uses_left == Some(0) {
            return refused(
                "invite_exhausted",
                "the invite was used up: ask for a new one",
            );
        }
        if self.members.len() >= MEMBERS_PER_MESH {
            return refused("capacity", "the mesh has as many members as it can have");
        }
        let member = MemberRow {
            id: entropy.ulid(now).into(),
            pubkey,
            display_name,
            role: token.role,
            joined_at: now,
            revoked_at: None,
        };
        invite.uses_left = invite.uses_left.map(|uses| uses - 1);
        self.put_member(member.clone());
        self.invites.insert(id.clone(), invite.clone());
        Joined::New { member, invite }
    }

    /// Before its first use, with a count of uses; a revoked one stays revoked.
    pub fn register_invite(&mut self, id: InviteId, uses: u32, expires_at: Wall) -> InviteRow {
        let row = self.invites.entry(id.clone()).or_insert(InviteRow {
            id,
            uses_left: Some(uses),
            expires_at,
            revoked: false,
        });
        row.clone()
    }

    /// Also of an invite that was never seen: it must not be used later.
    pub fn revoke_invite(&mut self, id: InviteId) -> InviteRow {
        let row = self.invites.entry(id.clone()).or_insert(InviteRow {
            id,
            uses_left: Some(0),
            expires_at: Wall(u64::MAX),
            revoked: true,
        });
        row.revoked = true;
        row.clone()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    fn put_member(&mut self, member: MemberRow) {
        self.by_pubkey.insert(member.pubkey, member.id.clone());
        self.members.insert(member.id.clone(), member);
    }
}

fn refused(code: &'static str, message: &'static str) -> Joined {
    Joined::Refused { code, message }
}

//! Invites: who holds one may join.

use alloc::string::String;

use crate::id::{MeshId, PubKey, Signature};

/// Signed by the mesh's owner.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InviteToken {
    pub v: u32,
    pub mesh_id: MeshId,
    pub mesh_slug: String,
    pub broker_url: String,
    #[serde(rename = "expires_at")]
    pub expires_at_s: u64,
    pub mesh_root_key: String,
    /// `admin` or `member`.
    pub role: String,
    pub owner_pubkey: PubKey,
    pub signature: Signature,
}

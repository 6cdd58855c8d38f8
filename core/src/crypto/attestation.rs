//! A member's word for a session's key.

use serde::{Deserialize, Serialize};

use crate::id::{PubKey, Signature};
use crate::time::Wall;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    pub session_pubkey: PubKey,
    pub parent_member_pubkey: PubKey,
    pub expires_at: Wall,
    pub signature: Signature,
}

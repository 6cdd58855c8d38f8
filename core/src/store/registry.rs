//! What a registry remembers: the meshes of this broker.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Owner;
use crate::id::{MeshId, PubKey};
use crate::time::Wall;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A new row: a mesh is made once and never changed.
    MeshPut(MeshRow),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRow {
    pub id: MeshId,
    /// Unique among the meshes of a broker.
    pub slug: String,
    pub owner_pubkey: PubKey,
    pub policy: Policy,
    pub created_at: Wall,
}

/// Who may read bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Their recipients.
    Sealed,
    /// The broker too.
    Open,
}

impl Policy {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Open => "open",
        }
    }
}

/// A registry reads nothing but what it recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {}

/// What an owner reads at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    pub owner: Owner,
    pub meshes: Vec<MeshRow>,
}

/// A registry's store as plain maps: the reference against which drivers are tested, and the
/// simulator's store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub meshes: BTreeMap<MeshId, MeshRow>,
}

impl Image {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MeshPut(row) => {
                self.meshes.insert(row.id.clone(), row.clone());
            }
        }
    }

    #[must_use]
    pub fn recover(&self, owner: Owner) -> Recovered {
        Recovered {
            owner,
            meshes: self.meshes.values().cloned().collect(),
        }
    }
}

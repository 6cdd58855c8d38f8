//! The meshes that this host's user joined.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::answers;
use super::context::Identity;
use super::ipc::Answer;
use crate::crypto::{Crypto, SecretKey};
use crate::id::{MeshId, PubKey};
use crate::store::host::MeshRow;

pub(super) struct Meshes {
    joined: BTreeMap<MeshId, Joined>,
}

pub(super) struct Joined {
    pub(super) row: MeshRow,
    pub(super) pubkey: PubKey,
}

impl Joined {
    pub(super) fn member(&self) -> Identity {
        Identity::member(&self.row.id, &self.row.member_id)
    }

    pub(super) fn secret(&self) -> &SecretKey {
        &self.row.member_secret
    }
}

impl Meshes {
    pub(super) fn new(rows: Vec<MeshRow>, crypto: &dyn Crypto) -> Self {
        let mut meshes = Self {
            joined: BTreeMap::new(),
        };
        rows.into_iter().for_each(|row| meshes.put(row, crypto));
        meshes
    }

    pub(super) fn put(&mut self, row: MeshRow, crypto: &dyn Crypto) {
        let pubkey = crypto.public_key(&row.member_secret);
        self.joined.insert(row.id.clone(), Joined { row, pubkey });
    }

    pub(super) fn get(&self, id: &MeshId) -> Option<&Joined> {
        self.joined.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &MeshId) -> Option<&mut Joined> {
        self.joined.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Joined> {
        self.joined.values()
    }

    pub(super) fn len(&self) -> usize {
        self.joined.len()
    }

    pub(super) fn slug(&self, id: &MeshId) -> String {
        self.get(id)
            .map_or_else(|| id.as_str().into(), |joined| joined.row.slug.clone())
    }

    /// By slug or id; the only one where nothing is said.
    pub(super) fn find(&self, named: Option<&str>) -> Result<&Joined, Answer> {
        let Some(named) = named else {
            let mut all = self.joined.values();
            let first = all.next().ok_or_else(|| answers::mesh_not_joined(None))?;
            if all.next().is_some() {
                let slugs: Vec<&str> = self.iter().map(|joined| joined.row.slug.as_str()).collect();
                return Err(answers::mesh_ambiguous(&slugs));
            }
            return Ok(first);
        };
        if let Some(joined) = self.joined.get(&MeshId::from(named)) {
            return Ok(joined);
        }
        // Two brokers may each have a mesh of this slug.
        let mut same = self.iter().filter(|joined| joined.row.slug == named);
        let first = same
            .next()
            .ok_or_else(|| answers::mesh_not_joined(Some(named)))?;
        if same.next().is_some() {
            let ids: Vec<&str> = self
                .iter()
                .filter(|joined| joined.row.slug == named)
                .map(|joined| joined.row.id.as_str())
                .collect();
            return Err(answers::mesh_ambiguous(&ids));
        }
        Ok(first)
    }
}

//! What a peer registered goes with its lease, not with its socket: while it is present, a profile
//! that it set is replaced only by a later one.

use std::collections::BTreeMap;

use bowline_core::id::PeerKey;
use bowline_core::store::mesh::{Op, PeerRow};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct RegistrationStays {
    /// Of those who are present: their newest tag.
    tags: BTreeMap<PeerKey, u64>,
}

impl Oracle for RegistrationStays {
    fn name(&self) -> &'static str {
        "registration_stays"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        if let Record::MeshCommitted { ops, .. } = record {
            for op in ops {
                if let Op::PeerPut(row) = op {
                    self.put(row)?;
                }
            }
        }
        Ok(())
    }
}

impl RegistrationStays {
    fn put(&mut self, row: &PeerRow) -> Result<(), String> {
        if !row.present {
            self.tags.remove(&row.key);
            return Ok(());
        }
        let tag = tag_of(row);
        let before = self.tags.get(&row.key).copied();
        if before.is_some_and(|before| tag.is_none_or(|tag| tag < before)) {
            return Err(format!(
                "{} is present all the time; its profile was tag {before:?}, and is {tag:?}",
                row.key
            ));
        }
        if let Some(tag) = tag {
            self.tags.insert(row.key.clone(), tag);
        }
        Ok(())
    }
}

/// What `PuppetTag` sets: `tag-N`, with a growing N.
fn tag_of(row: &PeerRow) -> Option<u64> {
    let title = row.registration.profile.as_ref()?.title.as_ref()?;
    title.strip_prefix("tag-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::client::Profile;

    #[test]
    fn a_profile_that_goes_with_a_socket_is_found() {
        let put = |present: bool, tag: Option<u64>| {
            let mut record = testing::peer_put(1, present);
            if let Record::MeshCommitted { ops, .. } = &mut record
                && let Some(Op::PeerPut(row)) = ops.first_mut()
            {
                row.registration.profile = tag.map(|tag| Profile {
                    title: Some(format!("tag-{tag}")),
                    ..Profile::default()
                });
            }
            record
        };
        let judge = |second: Record, third: Record| {
            let history = [(s(1), put(true, Some(3))), (s(2), second), (s(3), third)];
            testing::judge(&mut RegistrationStays::default(), &history)
        };
        assert!(judge(put(true, Some(4)), put(true, Some(4))).is_ok());
        assert!(judge(put(false, None), put(true, None)).is_ok());
        assert!(judge(put(true, None), put(true, None)).is_err());
        assert!(judge(put(true, Some(4)), put(true, Some(3))).is_err());
    }
}

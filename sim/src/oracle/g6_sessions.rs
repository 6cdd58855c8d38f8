//! G6 at the programs: a daemon tells its sessions of a leave or a join only where the broker's store
//! has one, at most once for each, in turn, and in the end what they believe is so.

use std::collections::BTreeMap;

use bowline_core::host::io::SseEvent;
use bowline_core::id::{PeerKey, PubKey, SubscriberId};
use bowline_core::store::mesh::Op;
use serde_json::Value;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct Sessions {
    present: BTreeMap<PubKey, bool>,
    leaves: BTreeMap<PubKey, u32>,
    /// Leaves told to a user, over all its streams.
    told_leaves: BTreeMap<(usize, PubKey), u32>,
    /// What a user's last stream says.
    streams: BTreeMap<usize, Stream>,
    users: BTreeMap<usize, PubKey>,
}

struct Stream {
    id: SubscriberId,
    snapshot: bool,
    here: BTreeMap<PubKey, bool>,
}

impl Oracle for Sessions {
    fn name(&self) -> &'static str {
        "g6_sessions"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                ops.iter().for_each(|op| self.committed(op));
                Ok(())
            }
            Record::Opened { user, pubkey, .. } => {
                self.users.insert(*user, *pubkey);
                Ok(())
            }
            Record::Told {
                user,
                subscriber,
                event,
                ..
            } => self.told(*user, *subscriber, event),
            _ => Ok(()),
        }
    }

    fn unmet(&self, _: Moment, _: &View) -> Option<String> {
        for (user, stream) in &self.streams {
            if !stream.snapshot {
                return Some(format!("user {user} has no snapshot of its peers"));
            }
            for (peer, present) in &self.present {
                let believed = stream.here.get(peer).copied().unwrap_or_default();
                if self.users.get(user) != Some(peer) && believed != *present {
                    return Some(format!(
                        "user {user} believes that {peer:?} is {}, and it is not",
                        if believed { "here" } else { "away" }
                    ));
                }
            }
        }
        None
    }
}

impl Sessions {
    fn committed(&mut self, op: &Op) {
        let Op::PeerPut(row) = op else { return };
        // The coming and going of control planes is told to nobody.
        if !matches!(row.key, PeerKey::Session(_)) {
            return;
        }
        let before = self.present.insert(row.pubkey, row.present);
        if before == Some(true) && !row.present {
            *self.leaves.entry(row.pubkey).or_default() += 1;
        }
    }

    fn told(&mut self, user: usize, id: SubscriberId, event: &SseEvent) -> Result<(), String> {
        let stream = self.streams.entry(user).or_insert_with(|| Stream::new(id));
        if stream.id != id {
            *stream = Stream::new(id);
        }
        let here = match event.event {
            "peers" => {
                stream.snapshot = true;
                stream.here = peers(&event.data);
                return Ok(());
            }
            "peer_joined" => true,
            "peer_left" => false,
            _ => return Ok(()),
        };
        let Some(peer) = pubkey(&event.data) else {
            return Err(format!("user {user} was told {} of nobody", event.event));
        };
        if !stream.snapshot {
            return Err(format!(
                "user {user} was told {} before `peers`",
                event.event
            ));
        }
        if self.users.get(&user) == Some(&peer) {
            return Err(format!("user {user} was told {} of itself", event.event));
        }
        let before = stream.here.insert(peer, here).unwrap_or_default();
        if before == here {
            return Err(format!(
                "user {user} was told {} of {peer:?} twice",
                event.event
            ));
        }
        if here {
            return Ok(());
        }
        let told = self.told_leaves.entry((user, peer)).or_default();
        *told += 1;
        let leaves = self.leaves.get(&peer).copied().unwrap_or_default();
        if *told > leaves {
            return Err(format!(
                "user {user} was told of leave {told} of {peer:?}, which left {leaves} times"
            ));
        }
        Ok(())
    }
}

impl Stream {
    fn new(id: SubscriberId) -> Self {
        Self {
            id,
            snapshot: false,
            here: BTreeMap::new(),
        }
    }
}

fn peers(data: &[u8]) -> BTreeMap<PubKey, bool> {
    let value: Value = serde_json::from_slice(data).unwrap_or_default();
    let peers = value.get("peers").and_then(Value::as_array);
    peers
        .into_iter()
        .flatten()
        .filter(|peer| peer.get("role").and_then(Value::as_str) != Some("control-plane"))
        .filter_map(|peer| {
            let pubkey = peer.get("pubkey")?.as_str()?.parse().ok()?;
            let state = peer.get("state")?.as_str()?;
            Some((pubkey, state != "gone"))
        })
        .collect()
}

fn pubkey(data: &[u8]) -> Option<PubKey> {
    let value: Value = serde_json::from_slice(data).ok()?;
    value.get("pubkey")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    fn told(event: &'static str, peer: u8) -> Record {
        let data = format!("{{\"pubkey\":\"{}\"}}", testing::pubkey(peer));
        testing::told_event(0, 1, event, data)
    }

    fn snapshot(peer: u8) -> Record {
        let data = format!(
            "{{\"peers\":[{{\"pubkey\":\"{}\",\"state\":\"live\"}}]}}",
            testing::pubkey(peer)
        );
        testing::told_event(0, 1, "peers", data)
    }

    #[test]
    fn a_leave_that_nobody_took_and_one_told_twice_are_found() {
        let judge = |history: &[Record]| {
            let history: Vec<(u64, Record)> = history
                .iter()
                .map(|record| (s(1), record.clone()))
                .collect();
            testing::judge(&mut Sessions::default(), &history)
        };
        let (joined, left) = (testing::peer_put(2, true), testing::peer_put(2, false));
        let good = [
            joined.clone(),
            snapshot(2),
            left.clone(),
            told("peer_left", 2),
        ];
        assert!(judge(&good).is_ok());
        assert!(judge(&[joined.clone(), snapshot(2), told("peer_left", 2)]).is_err());
        assert!(judge(&[joined.clone(), snapshot(2), told("peer_joined", 2)]).is_err());
        assert!(judge(&[joined, told("peer_joined", 2)]).is_err());
    }

    #[test]
    fn a_belief_that_is_wrong_in_the_end_is_found() {
        let mut oracle = Sessions::default();
        let history = [
            (s(1), testing::peer_put(2, true)),
            (s(2), snapshot(2)),
            (s(3), testing::peer_put(2, false)),
        ];
        assert!(testing::judge(&mut oracle, &history).is_ok());
        assert!(oracle.unmet(Moment(s(9)), &testing::view()).is_some());
    }
}

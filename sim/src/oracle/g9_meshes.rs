//! G9: nobody sees who is in a mesh that is not his, though his daemon is in it.

use std::collections::BTreeSet;

use bowline_core::id::PubKey;
use bowline_core::store::{host, mesh};
use serde_json::Value;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, UserCall};

#[derive(Default)]
pub struct Meshes {
    /// Whoever was ever in this mesh.
    known: BTreeSet<PubKey>,
}

impl Oracle for Meshes {
    fn name(&self) -> &'static str {
        "g9_meshes"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let mesh::Op::PeerPut(row) = op {
                        self.known.insert(row.pubkey);
                    }
                }
                Ok(())
            }
            // A daemon knows its own sessions before its broker does.
            Record::HostCommitted { ops, .. } => {
                for op in ops {
                    if let host::Op::SessionPut(row) = op {
                        self.known.insert(view.cast.crypto.public_key(&row.secret));
                    }
                }
                Ok(())
            }
            Record::Told { user, event, .. } => match event.event {
                "peers" | "peer_joined" | "peer_left" | "profile_updated" => {
                    let data = serde_json::from_slice(&event.data).unwrap_or_default();
                    self.seen(*user, &data, view)
                }
                _ => Ok(()),
            },
            Record::Answered {
                user,
                call: UserCall::Peers,
                answer,
                ..
            } => self.seen(*user, &answer.body, view),
            _ => Ok(()),
        }
    }
}

impl Meshes {
    /// A list of peers, or one of them.
    fn seen(&self, user: usize, data: &Value, view: &View) -> Result<(), String> {
        let listed = data["peers"].as_array();
        let one = data.get("pubkey").map(|_| data);
        for peer in listed.into_iter().flatten().chain(one) {
            let Some(key) = peer["pubkey"].as_str().and_then(|key| key.parse().ok()) else {
                continue;
            };
            let is_member = view.cast.members.iter().any(|it| it.pubkey == key);
            if !is_member && !self.known.contains(&key) {
                let mesh = view.cast.slug;
                return Err(format!(
                    "user {user} of {mesh} saw {key}, who was never in it"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn one_who_was_never_here_is_found_in_a_list_an_event_and_an_answer() {
        let peer = |peer: u8| format!("{{\"pubkey\":\"{}\"}}", testing::pubkey(peer));
        let told = |event: &'static str, data: String| {
            let history = [
                (s(1), testing::peer_put(1, true)),
                (s(2), testing::told_event(0, 1, event, data)),
            ];
            testing::judge(&mut Meshes::default(), &history)
        };
        let list = |of: &[u8]| {
            let peers: Vec<String> = of.iter().map(|it| peer(*it)).collect();
            format!("{{\"peers\":[{}]}}", peers.join(","))
        };
        assert!(told("peers", list(&[1])).is_ok());
        assert!(told("peers", list(&[1, 2])).is_err());
        assert!(told("peer_joined", peer(1)).is_ok());
        assert!(told("peer_joined", peer(2)).is_err());
        let answered = |of: &[u8]| {
            let body = serde_json::from_str(&list(of)).expect("JSON");
            let answered = Record::Answered {
                node: 2,
                user: 0,
                call: UserCall::Peers,
                answer: bowline_core::host::ipc::Answer { status: 200, body },
            };
            let history = [(s(1), testing::peer_put(1, true)), (s(2), answered)];
            testing::judge(&mut Meshes::default(), &history)
        };
        assert!(answered(&[1]).is_ok());
        assert!(answered(&[2]).is_err());
    }
}

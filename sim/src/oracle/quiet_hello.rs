//! A quiet hello authenticates a key for sending, and for nothing else: nothing but answers travels
//! on its connection, quiet ones replace quiet ones and no others, and whose only hellos are quiet is in
//! no store, no list and no event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{ConnId, PeerKey, PubKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct QuietHello {
    /// Open ones, and whose they are.
    conns: BTreeMap<(NodeId, ConnId), Arc<PeerKey>>,
    /// Keys that said a quiet hello and never another.
    silent: BTreeSet<PubKey>,
    loud: BTreeSet<PubKey>,
    /// Closed as replaced, and whether that one was quiet: their successors are still to attach.
    replaced: BTreeMap<Arc<PeerKey>, bool>,
}

impl Oracle for QuietHello {
    fn name(&self) -> &'static str {
        "quiet_hello"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::OwnerStarted { .. } => self.conns.clear(),
            Record::QuietAttached {
                node, conn, peer, ..
            } => {
                self.conns.retain(|_, own| own != peer);
                self.conns.insert((*node, *conn), Arc::clone(peer));
                self.silent.extend(session(peer));
                return self.succeeded(peer, true);
            }
            Record::Attached { peer, .. } => {
                self.loud.extend(session(peer));
                return self.succeeded(peer, false);
            }
            Record::Sent {
                node, conn, frame, ..
            } if self.conns.contains_key(&(*node, *conn)) => return only_an_answer(frame),
            Record::Dismissed {
                node,
                conn,
                quiet,
                close,
                peer,
            } => {
                self.conns.remove(&(*node, *conn));
                if close.reason == "session_replaced" {
                    self.replaced.insert(Arc::clone(peer), *quiet);
                }
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::PeerPut(row) = op
                        && self.only_quiet(&row.pubkey)
                    {
                        return Err(format!("{} said quiet hellos only, and is stored", row.key));
                    }
                }
            }
            Record::Listed { key, present, .. } => {
                if let Some(silent) = present.iter().find(|peer| self.only_quiet(peer)) {
                    return Err(format!("{key} was listed {silent:?}, which is quiet"));
                }
            }
            Record::Frame { key, frame, .. } => {
                if let BrokerFrame::Event(event) = &**frame
                    && self.only_quiet(&event.data.pubkey)
                {
                    return Err(format!(
                        "{key} was told of {:?}, which is quiet",
                        event.data.pubkey
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl QuietHello {
    fn only_quiet(&self, key: &PubKey) -> bool {
        self.silent.contains(key) && !self.loud.contains(key)
    }

    /// The older connection is closed, and then the newer attached, in one breath.
    fn succeeded(&mut self, peer: &Arc<PeerKey>, quiet: bool) -> Result<(), String> {
        match self.replaced.remove(peer) {
            Some(older) if older != quiet => Err(format!(
                "of {peer}, a connection that was quiet: {older} was replaced by one that is quiet: {quiet}"
            )),
            _ => Ok(()),
        }
    }
}

fn session(peer: &PeerKey) -> Option<PubKey> {
    match peer {
        PeerKey::Session(key) => Some(*key),
        PeerKey::Member(_) => None,
    }
}

fn only_an_answer(frame: &[u8]) -> Result<(), String> {
    match decode_broker(frame) {
        Ok(BrokerFrame::HelloAck(ack)) if ack.stream.is_none() => Ok(()),
        Ok(
            BrokerFrame::Ack(_)
            | BrokerFrame::Error(_)
            | BrokerFrame::Receipt(_)
            | BrokerFrame::MessageStatusResult(_)
            | BrokerFrame::ExplainResult(_),
        ) => Ok(()),
        _ => Err(format!(
            "a quiet connection was sent {}",
            String::from_utf8_lossy(frame)
                .chars()
                .take(120)
                .collect::<String>()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::Close;
    use bowline_core::wire::broker::EventKind;

    fn judge(history: &[Record]) -> Result<(), String> {
        let history: Vec<(u64, Record)> = history.iter().map(|it| (s(1), it.clone())).collect();
        testing::judge(&mut QuietHello::default(), &history)
    }

    fn quiet(peer: u8, conn: u64) -> Record {
        let Record::Attached {
            node,
            conn,
            peer,
            hello,
        } = testing::attached(peer, conn)
        else {
            unreachable!("attached")
        };
        Record::QuietAttached {
            node,
            conn,
            peer,
            hello,
        }
    }

    fn replaced(peer: u8, conn: u64, quiet: bool) -> Record {
        Record::Dismissed {
            node: 0,
            conn: ConnId(conn),
            peer: testing::key(peer),
            quiet,
            close: Close::session_replaced(),
        }
    }

    #[test]
    fn a_push_on_a_quiet_connection_is_found() {
        let sent = |frame| judge(&[quiet(1, 7), testing::sent(1, 7, &frame)]);
        assert!(sent(testing::ack_frame("a", Some(1))).is_ok());
        assert!(sent(testing::push_frame(1, None)).is_err());
        let loud = [
            testing::attached(1, 7),
            testing::sent(1, 7, &testing::push_frame(1, None)),
        ];
        assert!(judge(&loud).is_ok());
    }

    #[test]
    fn one_that_joined_quietly_is_found_wherever_it_shows() {
        let shows = [
            testing::peer_put(1, true),
            testing::event(2, 9, EventKind::PeerJoined, 1, None),
            Record::Listed {
                node: 2,
                conn: ConnId(9),
                key: testing::key(2),
                present: vec![testing::pubkey(1)],
            },
        ];
        for shown in shows {
            assert!(judge(&[quiet(1, 7), shown.clone()]).is_err(), "{shown:?}");
            let loud = [testing::attached(1, 6), quiet(1, 7), shown];
            assert!(judge(&loud).is_ok());
        }
    }

    #[test]
    fn a_quiet_one_that_replaces_another_kind_is_found() {
        assert!(judge(&[replaced(1, 6, true), quiet(1, 7)]).is_ok());
        assert!(judge(&[replaced(1, 6, false), testing::attached(1, 7)]).is_ok());
        assert!(judge(&[replaced(1, 6, false), quiet(1, 7)]).is_err());
        assert!(judge(&[replaced(1, 6, true), testing::attached(1, 7)]).is_err());
    }
}

//! G6: silence under 90 s is told to nobody; silence beyond 90 + 35 s of the owner's running time
//! is exactly one leave; and each observer is told, per peer, leave and join in turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_core::id::{Epoch, PeerKey, PubKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::BrokerFrame;
use bowline_core::wire::broker::{EventKind, Resumed};

use super::truth::Truth;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct OneLeaveOneJoin {
    truth: Truth,
    /// As the store has it.
    present: BTreeMap<PeerKey, bool>,
    /// Per observer: what it was told, in one epoch.
    told: BTreeMap<Arc<PeerKey>, Told>,
    conns: BTreeMap<(NodeId, u64), (Arc<PeerKey>, Epoch, u64)>,
}

#[derive(Default)]
struct Told {
    epoch: Option<Epoch>,
    count: u64,
    /// A list was taken in this epoch: it says who was there.
    here: BTreeMap<PubKey, bool>,
    listed: bool,
}

impl Oracle for OneLeaveOneJoin {
    fn name(&self) -> &'static str {
        "g6_one_leave_one_join"
    }

    fn see(&mut self, at: Moment, record: &Record, _: &View) -> Result<(), String> {
        if let Record::Attached { peer, .. } = record {
            self.check_gone(at, peer)?;
        }
        self.truth.see(at, record);
        match record {
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    self.committed(at, op)?;
                }
            }
            Record::Up {
                node,
                conn,
                key,
                ack,
            } => {
                let Some(stream) = ack.stream else {
                    return Ok(());
                };
                let told = self.told.entry(Arc::clone(key)).or_default();
                if ack.resumed != Some(Resumed::Hit) || told.epoch != Some(stream.epoch) {
                    *told = Told {
                        epoch: Some(stream.epoch),
                        count: stream.count,
                        ..Told::default()
                    };
                }
                self.conns.insert(
                    (*node, conn.0),
                    (Arc::clone(key), stream.epoch, stream.count),
                );
            }
            Record::Frame {
                node, conn, frame, ..
            } => {
                if let BrokerFrame::Event(event) = &**frame {
                    return self.event((*node, conn.0), event.kind, event.data.pubkey, at);
                }
            }
            Record::Listed {
                node,
                conn,
                key,
                present,
            } => self.listed((*node, conn.0), key, present)?,
            Record::Down { node, conn, .. } => {
                self.conns.remove(&(*node, conn.0));
            }
            _ => {}
        }
        Ok(())
    }

    fn unmet(&self, _: Moment, view: &View) -> Option<String> {
        for puppet in view.puppets() {
            if self.present.get(&puppet.key).copied() != Some(true) {
                return Some(format!("{} is not present at the broker", puppet.key));
            }
        }
        for (observer, told) in &self.told {
            for (peer, here) in &told.here {
                let key = PeerKey::Session(*peer);
                if told.listed
                    && **observer != key
                    && let Some(present) = self.present.get(&key)
                    && present != here
                {
                    return Some(format!(
                        "{observer} believes that {peer:?} is {}, and it is not",
                        if *here { "here" } else { "away" }
                    ));
                }
            }
        }
        None
    }
}

impl OneLeaveOneJoin {
    /// Whoever comes back after so long a silence must have left in between.
    fn check_gone(&self, at: Moment, peer: &PeerKey) -> Result<(), String> {
        if self.present.get(peer).copied() == Some(true) && self.truth.must_be_gone(at, peer) {
            return Err(format!(
                "{peer} was silent for {:.1} s and never left",
                self.truth.silent_us(at, peer).unwrap_or_default() as f64 / 1e6
            ));
        }
        Ok(())
    }

    fn committed(&mut self, at: Moment, op: &Op) -> Result<(), String> {
        let Op::PeerPut(row) = op else { return Ok(()) };
        let before = self.present.insert(row.key.clone(), row.present);
        if before == Some(true) && !row.present && !self.truth.leave(at, &row.key) {
            return Err(format!(
                "{} left after a silence of {:.1} s; the owner started at {:.1} s",
                row.key,
                self.truth.silent_us(at, &row.key).unwrap_or_default() as f64 / 1e6,
                self.truth.owner_started().seconds(),
            ));
        }
        Ok(())
    }

    fn event(
        &mut self,
        conn: (NodeId, u64),
        kind: EventKind,
        peer: PubKey,
        at: Moment,
    ) -> Result<(), String> {
        let Some((observer, epoch, count)) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        *count += 1;
        let Some(told) = self.told.get_mut(observer) else {
            return Ok(());
        };
        // Another connection of the same identity has told it already, or of another lease.
        if told.epoch != Some(*epoch) || *count <= told.count {
            return Ok(());
        }
        told.count = *count;
        let here = match kind {
            EventKind::PeerJoined => true,
            EventKind::PeerLeft => false,
            EventKind::PeerVisible | EventKind::PeerHidden | EventKind::ProfileUpdated => {
                return Ok(());
            }
        };
        let observer = Arc::clone(observer);
        let before = told.here.insert(peer, here);
        if before == Some(here) {
            let twice = if here { "joined" } else { "left" };
            return Err(format!("{observer} was told twice that {peer:?} {twice}"));
        }
        if *observer == PeerKey::Session(peer) {
            return Err(format!("{observer} was told of itself at {at:?}"));
        }
        Ok(())
    }

    fn listed(
        &mut self,
        conn: (NodeId, u64),
        key: &Arc<PeerKey>,
        present: &[PubKey],
    ) -> Result<(), String> {
        let Some((_, epoch, count)) = self.conns.get(&conn) else {
            return Ok(());
        };
        let Some(told) = self.told.get_mut(key) else {
            return Ok(());
        };
        // Events and lists of one connection are one sequence; of two they are not.
        if told.epoch != Some(*epoch) || told.count != *count {
            return Ok(());
        }
        // What was told since the hello_ack stands in the list.
        for (peer, here) in &told.here {
            if *here != present.contains(peer) {
                return Err(format!(
                    "the list that {key} took and the events before it disagree about {peer:?}"
                ));
            }
        }
        told.here.values_mut().for_each(|here| *here = false);
        told.here.extend(present.iter().map(|peer| (*peer, true)));
        told.listed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    fn left(peer: u8) -> Record {
        testing::peer_put(peer, false)
    }

    fn judge(history: &[(u64, Record)]) -> Result<(), String> {
        testing::judge(&mut OneLeaveOneJoin::default(), history)
    }

    #[test]
    fn a_leave_within_the_grace_is_found() {
        let history = |leaves_at: u64| {
            vec![
                (s(0), Record::OwnerStarted { node: 0 }),
                (s(100), testing::attached(1, 7)),
                (s(100), testing::peer_put(1, true)),
                (s(120), testing::heard(1, 7)),
                (leaves_at, left(1)),
            ]
        };
        assert!(judge(&history(s(150))).is_err());
        assert!(judge(&history(s(207))).is_err());
        assert!(judge(&history(s(246))).is_ok());
    }

    #[test]
    fn a_second_leave_for_one_silence_is_found() {
        let history = vec![
            (s(0), Record::OwnerStarted { node: 0 }),
            (s(1), testing::attached(1, 7)),
            (s(1), testing::peer_put(1, true)),
            (s(140), left(1)),
            (s(150), testing::attached(1, 8)),
            (s(150), testing::peer_put(1, true)),
            (s(160), left(1)),
        ];
        assert!(judge(&history[..6]).is_ok());
        assert!(judge(&history).is_err());
    }

    #[test]
    fn an_owner_that_starts_or_wakes_up_and_throws_everybody_out_is_found() {
        let began = vec![
            (s(0), Record::OwnerStarted { node: 0 }),
            (s(1), testing::attached(1, 7)),
            (s(1), testing::peer_put(1, true)),
        ];
        let mut restarted = began.clone();
        restarted.push((s(60), Record::OwnerStopped { node: 0 }));
        restarted.push((s(100), Record::OwnerStarted { node: 0 }));
        restarted.push((s(130), left(1)));
        assert!(judge(&restarted).is_err());

        let mut woke = began;
        woke.push((s(20), Record::OwnerPaused { node: 0 }));
        woke.push((s(140), Record::OwnerContinued { node: 0 }));
        woke.push((s(141), left(1)));
        assert!(judge(&woke).is_err());
    }

    #[test]
    fn a_peer_that_never_leaves_is_found() {
        let history = vec![
            (s(0), Record::OwnerStarted { node: 0 }),
            (s(1), testing::attached(1, 7)),
            (s(1), testing::peer_put(1, true)),
            (s(400), testing::attached(1, 8)),
        ];
        assert!(judge(&history).is_err());
    }

    #[test]
    fn being_told_the_same_twice_is_found() {
        let told = |twice: bool| {
            let mut history = vec![
                (s(1), testing::up(1, 1, 5, 0, Resumed::Fresh)),
                (s(2), testing::event(1, 1, EventKind::PeerJoined, 2, None)),
                (s(3), testing::event(1, 1, EventKind::PeerLeft, 2, None)),
            ];
            if twice {
                history.push((s(4), testing::event(1, 1, EventKind::PeerLeft, 2, None)));
            }
            history
        };
        assert!(judge(&told(false)).is_ok());
        assert!(judge(&told(true)).is_err());
    }

    #[test]
    fn what_a_second_connection_repeats_under_its_number_is_no_repeat() {
        let history = vec![
            (s(1), testing::up(1, 1, 5, 0, Resumed::Fresh)),
            (s(2), testing::event(1, 1, EventKind::PeerJoined, 2, None)),
            (s(3), testing::up(1, 2, 5, 0, Resumed::Hit)),
            (s(4), testing::event(1, 2, EventKind::PeerJoined, 2, None)),
        ];
        assert!(judge(&history).is_ok());
    }
}

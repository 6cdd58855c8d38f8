//! G5: live events arrive in order without gap or repeat, or the answer is `miss`. Numbers are
//! implicit, so the oracle counts for itself, per epoch: a number has one content, whatever
//! connection brings it, and whoever was there the whole time was told all that was to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{Epoch, PeerKey, PubKey};
use bowline_core::wire::BrokerFrame;
use bowline_core::wire::broker::{Event, EventKind, Resumed};
use bowline_core::wire::client::Resume;
use bowline_core::wire::feature::RESUME1;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct SilentReconnect {
    asked: BTreeMap<(NodeId, u64), Asked>,
    conns: BTreeMap<(NodeId, u64), Conn>,
    /// Per observer.
    streams: BTreeMap<Arc<PeerKey>, Stream>,
    /// Changes that their peer heard acknowledged: when it asked, and for whom.
    tags: BTreeMap<(Arc<PeerKey>, u64), Tag>,
    /// Nodes that were told a wrong count on purpose: for them no count proves anything.
    lied: BTreeSet<NodeId>,
}

#[derive(Default)]
struct Asked {
    resume: Option<Resume>,
    /// What it is told is not counted.
    counts_nothing: bool,
}

struct Conn {
    key: Arc<PeerKey>,
    epoch: Epoch,
    count: u64,
}

struct Stream {
    epoch: Epoch,
    since: Moment,
    log: BTreeMap<u64, Told>,
    /// The last tag told of each peer.
    tags: BTreeMap<PubKey, u64>,
    seen: BTreeMap<(PubKey, u64), ()>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    kind: EventKind,
    peer: PubKey,
    title: Option<String>,
}

struct Tag {
    asked: Moment,
    acked: Option<Moment>,
}

impl Oracle for SilentReconnect {
    fn name(&self) -> &'static str {
        "g5_silent_reconnect"
    }

    fn see(&mut self, at: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::Dialled {
                node,
                conn,
                resume,
                terms,
                ..
            } => {
                let asked = Asked {
                    resume: *resume,
                    counts_nothing: !terms.capabilities.has(RESUME1),
                };
                self.asked.insert((*node, conn.0), asked);
                Ok(())
            }
            Record::Up {
                node,
                conn,
                key,
                ack,
            } => {
                let asked = self.asked.remove(&(*node, conn.0)).unwrap_or_default();
                if asked.counts_nothing {
                    // Of its former self, if it was one that counted, nothing goes on.
                    self.streams.remove(key);
                    let told = ack.stream.is_some() || ack.resumed.is_some();
                    return match told {
                        true => Err(format!("{key} did not offer resume1 and got a stream")),
                        false => Ok(()),
                    };
                }
                let asked = asked.resume;
                let (Some(stream), Some(resumed)) = (ack.stream, ack.resumed) else {
                    return Err(format!("{key} offered resume1 and got no stream"));
                };
                judge_answer(key, asked, stream.epoch, stream.count, resumed, view)?;
                self.conns.insert(
                    (*node, conn.0),
                    Conn {
                        key: Arc::clone(key),
                        epoch: stream.epoch,
                        count: stream.count,
                    },
                );
                let known = self.streams.get(key);
                if resumed != Resumed::Hit || known.is_none_or(|own| own.epoch != stream.epoch) {
                    self.streams.insert(
                        Arc::clone(key),
                        Stream {
                            epoch: stream.epoch,
                            since: at,
                            log: BTreeMap::new(),
                            tags: BTreeMap::new(),
                            seen: BTreeMap::new(),
                        },
                    );
                }
                Ok(())
            }
            Record::Frame {
                node, conn, frame, ..
            } => {
                let lie = matches!(&**frame, BrokerFrame::Stream(_)) && self.lied.contains(node);
                if lie {
                    return Ok(());
                }
                self.frame(at, (*node, conn.0), frame)
            }
            Record::Lied { node } => {
                self.lied.insert(*node);
                Ok(())
            }
            Record::Tagged { key, tag } => {
                let (asked, acked) = (at, None);
                self.tags
                    .insert((Arc::clone(key), *tag), Tag { asked, acked });
                Ok(())
            }
            Record::Down { node, conn, .. } => {
                self.conns.remove(&(*node, conn.0));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn unmet(&self, _: Moment, _: &View) -> Option<String> {
        for ((peer, tag), times) in &self.tags {
            let PeerKey::Session(pubkey) = &**peer else {
                // The coming, going and changing of control planes is told to nobody.
                continue;
            };
            if times.acked.is_none() {
                continue;
            }
            for (observer, stream) in &self.streams {
                let whole_time = stream.since < times.asked;
                if whole_time && observer != peer && !stream.seen.contains_key(&(*pubkey, *tag)) {
                    return Some(format!(
                        "{observer} was there the whole time and was not told of change {tag} of {peer}"
                    ));
                }
            }
        }
        None
    }
}

impl SilentReconnect {
    fn frame(&mut self, at: Moment, id: (NodeId, u64), frame: &BrokerFrame) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Ok(());
        };
        match frame {
            BrokerFrame::Event(event) => {
                conn.count += 1;
                let (key, epoch, number) = (Arc::clone(&conn.key), conn.epoch, conn.count);
                self.event(&key, epoch, number, event)
            }
            BrokerFrame::Stream(stream) => {
                if stream.epoch == conn.epoch && stream.count == conn.count {
                    return Ok(());
                }
                Err(format!(
                    "{} counts {} and the broker says {}",
                    conn.key, conn.count, stream.count
                ))
            }
            BrokerFrame::Ack(ack) if ack.code.is_none() => {
                let tag = ack.id.as_deref().and_then(|id| id.strip_prefix('t'));
                if let Some(tag) = tag.and_then(|tag| tag.parse().ok())
                    && let Some(times) = self.tags.get_mut(&(Arc::clone(&conn.key), tag))
                {
                    times.acked = Some(at);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn event(
        &mut self,
        key: &Arc<PeerKey>,
        epoch: Epoch,
        number: u64,
        event: &Event,
    ) -> Result<(), String> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.epoch != epoch {
            return Ok(());
        }
        let profile = event.data.profile.as_ref();
        let told = Told {
            kind: event.kind,
            peer: event.data.pubkey,
            title: profile.and_then(|profile| profile.title.clone()),
        };
        if let Some(before) = stream.log.get(&number) {
            if *before == told {
                return Ok(());
            }
            return Err(format!(
                "event {number} was {before:?} for {key} once, and now is {told:?}"
            ));
        }
        if let Some((last, _)) = stream.log.last_key_value()
            && last + 1 != number
        {
            return Err(format!("{key} was told event {number} after {last}"));
        }
        let tag = told
            .title
            .as_deref()
            .and_then(|title| title.strip_prefix("tag-"));
        if let Some(tag) = tag.and_then(|tag| tag.parse::<u64>().ok()) {
            let last = stream.tags.insert(told.peer, tag).unwrap_or_default();
            if tag < last {
                return Err(format!(
                    "{key} was told change {tag} of {:?} after change {last}",
                    told.peer
                ));
            }
            stream.seen.insert((told.peer, tag), ());
        }
        stream.log.insert(number, told);
        Ok(())
    }
}

fn judge_answer(
    key: &PeerKey,
    asked: Option<Resume>,
    epoch: Epoch,
    count: u64,
    resumed: Resumed,
    view: &View,
) -> Result<(), String> {
    let Some(asked) = asked else {
        return if resumed == Resumed::Fresh {
            Ok(())
        } else {
            Err(format!(
                "{key} asked for nothing and was answered {resumed:?}"
            ))
        };
    };
    match resumed {
        Resumed::Fresh => Err(format!("{key} asked to resume and was answered fresh")),
        Resumed::Hit if epoch != asked.epoch || count != asked.count => Err(format!(
            "{key} resumes at {} and was answered a hit at {count}",
            asked.count
        )),
        Resumed::Miss
            if epoch == asked.epoch
                && count >= asked.count
                && count - asked.count <= view.limits.ring_events as u64 =>
        {
            Err(format!(
                "{key} missed {} events, the ring holds {}, and it was answered miss",
                count - asked.count,
                view.limits.ring_events
            ))
        }
        Resumed::Hit | Resumed::Miss => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    fn judge(history: &[(u64, Record)]) -> Result<(), String> {
        testing::judge(&mut SilentReconnect::default(), history)
    }

    fn tagged(conn: u64, tag: u64) -> Record {
        testing::event(
            1,
            conn,
            EventKind::ProfileUpdated,
            2,
            Some(format!("tag-{tag}")),
        )
    }

    #[test]
    fn a_gap_and_a_repeat_after_a_hit_are_found() {
        let resumed = |second: u64| {
            vec![
                (s(1), testing::up(1, 1, 5, 0, Resumed::Fresh)),
                (s(2), tagged(1, 1)),
                (s(3), testing::down(1, 1)),
                (s(4), testing::dialled(1, 2, 5, 1)),
                (s(5), testing::up(1, 2, 5, 1, Resumed::Hit)),
                (s(6), tagged(2, second)),
            ]
        };
        assert!(judge(&resumed(2)).is_ok());
        let mut repeat = resumed(2);
        repeat.push((s(7), tagged(2, 1)));
        assert!(judge(&repeat).is_err());
    }

    #[test]
    fn a_number_with_two_contents_is_found() {
        let history = |second: u64| {
            vec![
                (s(1), testing::up(1, 1, 5, 0, Resumed::Fresh)),
                (s(2), tagged(1, 1)),
                (s(4), testing::dialled(1, 2, 5, 0)),
                (s(5), testing::up(1, 2, 5, 0, Resumed::Hit)),
                (s(6), tagged(2, second)),
            ]
        };
        assert!(judge(&history(1)).is_ok());
        assert!(judge(&history(2)).is_err());
    }

    #[test]
    fn a_count_that_disagrees_is_found() {
        let history = vec![
            (s(1), testing::up(1, 1, 5, 3, Resumed::Fresh)),
            (s(2), tagged(1, 1)),
            (s(3), testing::stream(1, 1, 5, 4)),
            (s(4), testing::stream(1, 1, 5, 5)),
        ];
        assert!(judge(&history[..3]).is_ok());
        assert!(judge(&history).is_err());
    }

    #[test]
    fn a_wrong_answer_to_a_resume_is_found() {
        let answer = |count: u64, resumed: Resumed| {
            judge(&[
                (s(4), testing::dialled(1, 2, 5, 7)),
                (s(5), testing::up(1, 2, 5, count, resumed)),
            ])
        };
        assert!(answer(7, Resumed::Hit).is_ok());
        assert!(answer(8, Resumed::Hit).is_err());
        assert!(answer(7, Resumed::Fresh).is_err());
        assert!(answer(9, Resumed::Miss).is_err());
        assert!(answer(100_000, Resumed::Miss).is_ok());
    }

    #[test]
    fn a_change_that_somebody_was_not_told_is_found() {
        let mut oracle = SilentReconnect::default();
        let history = vec![
            (s(1), testing::up(1, 1, 5, 0, Resumed::Fresh)),
            (s(1), testing::up(2, 9, 6, 0, Resumed::Fresh)),
            (s(2), testing::tagged(2, 1)),
            (s(3), testing::ack(2, 9, "t1")),
        ];
        assert!(testing::judge(&mut oracle, &history).is_ok());
        assert!(oracle.unmet(Moment(s(9)), &testing::view()).is_some());
        assert!(testing::judge(&mut oracle, &[(s(4), tagged(1, 1))]).is_ok());
        assert!(oracle.unmet(Moment(s(9)), &testing::view()).is_none());
    }
}

//! Live events, lists, and what a peer registers about itself.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::presence::{self, Announcement};
use super::{Mesh, Output, Promise, Why, hand_over};
use crate::id::{ConnId, PeerKey, PubKey};
use crate::limits::{
    GROUPS_PER_PEER, PEERS_PAGE, REPLY_BYTES, STREAM_CHECK_EVERY, WORKING_LAPSES_AFTER,
};
use crate::mark::Mark;
use crate::store::mesh::PeerRow;
use crate::time::Now;
use crate::wire::broker::{Ack, EventKind, PeersList, StreamAt};
use crate::wire::client::{Group, ReqId};
use crate::wire::encode_broker;
use crate::wire::{BrokerFrame, ClientFrame, Code, Status};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Done,
    /// What comes behind it waits.
    LookUpPending,
}

impl Mesh {
    pub(super) fn on_frame(&mut self, now: Now, id: ConnId, frame: ClientFrame) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&conn.peer) {
            peer.heard_at = now.mono;
        }
        if !conn.is_holding() {
            self.handle_frame(now, id, frame);
            return;
        }
        let pause = conn.hold(frame);
        self.marks.hit(Mark::FramesHeldBehindLookUp);
        if pause {
            self.out.push(Output::Pause { conn: id });
        }
    }

    pub(super) fn handle_frame(&mut self, now: Now, id: ConnId, frame: ClientFrame) -> Then {
        let Some(frame) = self.heard_on(id, frame) else {
            return Then::Done;
        };
        match frame {
            ClientFrame::Send(send) => {
                let loads = self.loads.len();
                self.on_send(now, id, send);
                return if self.loads.len() > loads {
                    Then::LookUpPending
                } else {
                    Then::Done
                };
            }
            ClientFrame::ClientAck(ack) => self.on_client_ack(now, id, &ack),
            ClientFrame::ListPeers {
                after,
                limit,
                req_id,
            } => {
                self.list_peers(now, id, after.as_deref(), limit, req_id);
            }
            ClientFrame::SetStatus { status, req_id } => {
                self.set_status(now, id, status);
                self.reply_ok(now, id, req_id);
            }
            ClientFrame::SetSummary { summary, req_id } => {
                self.register(id, |row| row.registration.summary = Some(summary));
                self.reply_ok(now, id, req_id);
            }
            ClientFrame::JoinGroup { name, role, req_id } => {
                self.join_group(now, id, Group { name, role }, req_id)
            }
            ClientFrame::LeaveGroup { name, req_id } => {
                let changed = self.register(id, |row| {
                    row.registration
                        .about
                        .groups
                        .retain(|group| group.name != name);
                    row.registration
                        .hello_groups
                        .retain(|group| group.name != name);
                });
                self.announce_change(EventKind::ProfileUpdated, changed);
                self.reply_ok(now, id, req_id);
            }
            ClientFrame::SetVisible {
                visible,
                id: ack,
                req_id,
            } => {
                let changed = self.register(id, |row| row.registration.visible = visible);
                let kind = if visible {
                    EventKind::PeerVisible
                } else {
                    EventKind::PeerHidden
                };
                self.announce_change(kind, changed);
                self.acknowledge(now, id, ack, req_id);
            }
            ClientFrame::SetProfile {
                profile,
                id: ack,
                req_id,
            } => {
                let changed = self.register(id, |row| row.registration.profile = Some(profile));
                self.announce_change(EventKind::ProfileUpdated, changed);
                self.acknowledge(now, id, ack, req_id);
            }
            ClientFrame::SetStats { stats, req_id } => {
                let key = self.conns.get(&id).map(|conn| conn.peer.clone());
                if let Some(peer) = key.and_then(|key| self.peers.get_mut(&key)) {
                    peer.stats = Some(stats);
                }
                self.reply_ok(now, id, req_id);
            }
            ClientFrame::Kick { whom, req_id } => self.on_kick(now, id, &whom, req_id),
            ClientFrame::Disconnect { whom, req_id } => self.on_disconnect(now, id, &whom, req_id),
            ClientFrame::Ban { target, req_id } => self.on_ban(now, id, &target, req_id),
            ClientFrame::Unban { target, req_id } => self.on_unban(now, id, &target, req_id),
            ClientFrame::ListBans { after, req_id } => {
                self.on_list_bans(id, after.as_deref(), req_id);
            }
            ClientFrame::Seen(seen) => self.on_seen(now, id, seen),
            ClientFrame::MessageStatus(asked) => self.on_message_status(now, id, asked),
            ClientFrame::Explain(asked) => self.on_explain(now, id, asked),
            ClientFrame::Bye => self.bye(now, id),
            // The link answers these itself.
            ClientFrame::Hello(_) | ClientFrame::SessionHello(_) | ClientFrame::Ping { .. } => {}
        }
        Then::Done
    }

    /// An event takes its number here, when it leaves the gate, and goes to everybody entitled:
    /// serialised once, the same bytes for all.
    pub(super) fn announce_now(&mut self, now: Now, announcement: &Announcement) {
        if let Some(peer) = self.peers.get_mut(&announcement.about.key) {
            match announcement.kind {
                EventKind::PeerJoined => peer.announced = true,
                EventKind::PeerLeft => {
                    peer.announced = false;
                    self.leaving.remove(&announcement.about.key);
                }
                EventKind::PeerVisible | EventKind::PeerHidden | EventKind::ProfileUpdated => {}
            }
        }
        let id = self.entropy.ulid(now.wall).into();
        let event = announcement.encode(&self.config.mesh, &id, now.wall);
        let (events, bytes) = (
            self.config.limits.ring_events,
            self.config.limits.ring_bytes,
        );
        let mut told: Vec<ConnId> = Vec::new();
        for key in &self.present {
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            let (Some(row), Some(stream)) = (&peer.row, &mut peer.stream) else {
                continue;
            };
            if announcement.is_for(row) {
                stream.append(Arc::clone(&event), events, bytes);
                told.extend_from_slice(peer.lease.connections());
            }
        }
        for conn in told {
            self.pump_stream(now, conn);
        }
    }

    /// Replay and live events are one sequence from the connection's position. A position that
    /// falls out of the ring is a slow consumer.
    pub(super) fn pump_stream(&mut self, now: Now, id: ConnId) {
        let full = self.config.limits.queued_bytes;
        let conn = self.conns.get_mut(&id);
        let Some(conn) = conn.filter(|conn| conn.quiet.is_none()) else {
            return;
        };
        let stream = self
            .peers
            .get(&conn.peer)
            .and_then(|peer| peer.stream.as_ref());
        let Some(stream) = stream else { return };
        while conn.stream_at < stream.count() {
            if conn.stream_at < stream.lost() {
                self.slow.insert(id);
                return;
            }
            let behind = stream.count() - conn.stream_at;
            // A replay waits while more than half is queued; a live event only when all is.
            let room = if behind > 1 { full / 2 } else { full };
            if conn.queued() > room {
                self.marks.hit(Mark::ReplayPaced);
                return;
            }
            let Some(event) = stream.get(conn.stream_at + 1) else {
                return;
            };
            let event = if conn.live1 {
                event.live1.clone()
            } else {
                event.plain.clone()
            };
            conn.stream_at += 1;
            let limits = &self.config.limits;
            hand_over(conn, event, limits, &mut self.out, &mut self.slow);
            if conn.resume1 && now.mono.since(conn.stream_checked_at) >= STREAM_CHECK_EVERY {
                conn.stream_checked_at = now.mono;
                self.marks.hit(Mark::StreamChecked);
                let check = encode_broker(&BrokerFrame::Stream(StreamAt {
                    epoch: stream.epoch(),
                    count: conn.stream_at,
                }));
                hand_over(conn, check, limits, &mut self.out, &mut self.slow);
            }
        }
    }

    pub(super) fn working_lapsed(&mut self, key: &PeerKey) {
        let Some(row) = self.peers.get_mut(key).and_then(|peer| peer.row.as_mut()) else {
            return;
        };
        if row.registration.status != Status::Working {
            return;
        }
        row.registration.status = Status::Idle;
        let row = row.clone();
        self.store_peer(&row);
        self.marks.hit(Mark::WorkingLapsed);
        self.deliver(key);
    }

    pub(super) fn set_status(&mut self, now: Now, id: ConnId, status: Status) {
        self.register(id, |row| row.registration.status = status);
        let Some(key) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        match status {
            Status::Working => self
                .timers
                .set(Why::Working(key), now.mono + WORKING_LAPSES_AFTER),
            Status::Idle | Status::Dnd => {
                self.timers.cancel(&Why::Working(key.clone()));
                // Becoming idle delivers what was held, at once.
                self.deliver(&key);
            }
        }
    }

    fn join_group(&mut self, now: Now, id: ConnId, group: Group, req_id: Option<ReqId>) {
        let mut room = true;
        let changed = self.register(id, |row| {
            room = presence::join_group(&mut row.registration.about.groups, group, GROUPS_PER_PEER);
        });
        if !room {
            let message = String::from("a peer can be in 32 groups: leave one first");
            return self.refuse_frame(id, Code::Capacity, message, req_id);
        }
        self.announce_change(EventKind::ProfileUpdated, changed);
        self.reply_ok(now, id, req_id);
    }

    /// Changes what the peer registered. The new row, if it is another.
    fn register(&mut self, id: ConnId, change: impl FnOnce(&mut PeerRow)) -> Option<PeerRow> {
        let key = self.conns.get(&id)?.peer.clone();
        let row = self.peers.get_mut(&key)?.row.as_mut()?;
        let was = row.clone();
        change(row);
        let row = (*row != was).then(|| row.clone())?;
        self.store_peer(&row);
        Some(row)
    }

    /// What changed nothing is told to nobody.
    fn announce_change(&mut self, kind: EventKind, changed: Option<PeerRow>) {
        let Some(row) = changed else { return };
        let Some(member) = self.roster.member(&row.member).cloned() else {
            return;
        };
        self.announce(kind, row, &member);
    }

    /// Those who were announced; a peer in grace is listed, a hidden one to its own member only.
    fn list_peers(
        &mut self,
        now: Now,
        id: ConnId,
        after: Option<&str>,
        limit: Option<u32>,
        req_id: Option<ReqId>,
    ) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let bowline = conn.features;
        let observer = self
            .peers
            .get(&conn.peer)
            .and_then(|peer| peer.row.as_ref())
            .map(|row| row.member.clone());
        let after: Option<PubKey> = after.and_then(|key| key.parse().ok());
        let limit = match limit {
            _ if !bowline => usize::MAX,
            Some(limit) => (limit as usize).clamp(1, PEERS_PAGE),
            None => PEERS_PAGE,
        };
        let mut candidates: Vec<(PubKey, &PeerKey)> = self
            .listable()
            .filter_map(|key| Some((self.peers.get(key)?.row.as_ref()?.pubkey, key)))
            .filter(|(pubkey, _)| after.is_none_or(|after| *pubkey > after))
            .collect();
        candidates.sort_unstable();
        let mut peers = Vec::new();
        let (mut bytes, mut next) = (0, None);
        for (_, key) in candidates {
            let Some(peer) = self.peers.get(key) else {
                continue;
            };
            let Some(row) = &peer.row else { continue };
            let own = observer.as_ref() == Some(&row.member);
            if !row.registration.visible && !own {
                continue;
            }
            let Some(member) = self.roster.member(&row.member) else {
                continue;
            };
            let Some(listed) = presence::listed(peer, member.pubkey, now.mono, bowline) else {
                continue;
            };
            let size = serde_json::to_vec(&listed).map_or(0, |json| json.len());
            if bowline && !peers.is_empty() && (peers.len() >= limit || bytes + size > REPLY_BYTES)
            {
                next = Some(last_key(&peers));
                break;
            }
            bytes += size;
            peers.push(listed);
        }
        self.send(
            id,
            &BrokerFrame::PeersList(PeersList {
                peers,
                next,
                req_id,
            }),
        );
    }

    /// Whose presence is told: those whose joining was, and whose leaving was not yet.
    fn listable(&self) -> impl Iterator<Item = &PeerKey> {
        self.present
            .union(&self.leaving)
            .filter(|key| self.peers.get(key).is_some_and(|peer| peer.announced))
    }

    pub(super) fn reply_ok(&mut self, now: Now, id: ConnId, req_id: Option<ReqId>) {
        if req_id.is_some() {
            self.reply_when_durable(now, id, BrokerFrame::Ok { req_id });
        }
    }

    fn acknowledge(&mut self, now: Now, id: ConnId, ack: Option<String>, req_id: Option<ReqId>) {
        let ack = Ack {
            id: ack,
            req_id,
            ..Ack::default()
        };
        self.reply_when_durable(now, id, BrokerFrame::Ack(Box::new(ack)));
    }

    /// What was registered is promised when it will be there after a restart.
    pub(super) fn reply_when_durable(&mut self, now: Now, conn: ConnId, frame: BrokerFrame) {
        let txn = self.ledger.current();
        match self.gate.pass(txn, Promise::Reply { conn, frame }) {
            Ok(durable) => self.keep(now, durable),
            Err(promise) => self.gate.hold(txn, promise),
        }
    }
}

fn last_key(peers: &[crate::wire::broker::Peer]) -> String {
    peers
        .last()
        .map(|peer| peer.pubkey.to_string())
        .unwrap_or_default()
}

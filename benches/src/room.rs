//! A mesh in which everybody is live and nothing is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_core::id::{ConnId, MemberId, MeshId, PeerKey, PubKey, Role, SessionId, Signature};
use bowline_core::limits::{Limits, SESSIONS_PER_MEMBER};
use bowline_core::link::VerifiedHello;
use bowline_core::machine::Machine;
use bowline_core::mesh::{Config, Input, Mesh, Output};
use bowline_core::store::mesh::{
    Load, Loaded, MemberRole, MemberRow, PeerRow, Recovered, Registration,
};
use bowline_core::store::{self, TxnId};
use bowline_core::time::{Mono, Now, Wall};
use bowline_core::wire::client::{About, Offer};
use bowline_core::wire::feature::{Capabilities, Features};
use bowline_core::wire::{ClientFrame, ProtocolVersion};
use bytes::Bytes;

/// A mesh with `peers` live sessions, and a driver of it without sockets or a disk.
pub struct Room {
    mesh: Mesh,
    now: Now,
    peers: usize,
    /// Handed to a connection and not reported as sent yet.
    queued: BTreeMap<ConnId, u64>,
    emitted: TxnId,
    durable: TxnId,
    sends: Vec<(ConnId, Bytes)>,
}

impl Room {
    /// All peers were present before the owner started and have just come back: nobody is told,
    /// so filling the room is linear in its size.
    #[must_use]
    pub fn with_live_peers(peers: usize) -> Self {
        let now = Now {
            mono: Mono(1_000_000),
            wall: Wall(1_760_000_000_000),
        };
        let recovered = Recovered {
            members: (0..=peers / SESSIONS_PER_MEMBER).map(member).collect(),
            peers: (0..peers).map(|peer| row(peer, now.wall)).collect(),
            ..Recovered::default()
        };
        let config = Config {
            mesh: MESH.into(),
            owner_pubkey: PubKey([255; 32]),
            open: false,
            limits: Limits::default(),
            offered_instead: Features::default(),
        };
        let mut room = Self {
            mesh: Mesh::new(config, [7; 32], recovered, now),
            now,
            peers,
            queued: BTreeMap::new(),
            emitted: TxnId(0),
            durable: TxnId(0),
            sends: Vec::with_capacity(peers + 16),
        };
        for peer in 0..peers {
            let hello = Box::new(hello(peer, now.wall));
            room.feed(Input::Attach {
                conn: conn(peer),
                hello,
                local: false,
            });
        }
        room.settle();
        assert_eq!(room.mesh.connections(), peers);
        room
    }

    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers
    }

    /// Lets time pass, so that rate limits fill up again.
    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = self.now.wall + time;
    }

    /// One input; what came out to sockets is in [`Self::sends`] until the next. Bookkeeping of
    /// what came out before is done here, so that a measured feed hardly pays for it.
    pub fn feed(&mut self, input: Input) {
        self.queue();
        self.mesh.handle_input(self.now, input);
        self.drain();
    }

    pub fn frame(&mut self, peer: usize, frame: ClientFrame) {
        self.feed(Input::Frame {
            conn: conn(peer),
            frame,
        });
    }

    /// The store says that everything emitted is durable: gates open.
    pub fn persisted(&mut self) {
        self.durable = self.emitted;
        self.feed(Input::Store(store::Event::Persisted { upto: self.durable }));
    }

    /// Carries out everything that is under way, until the mesh has nothing more to say.
    pub fn settle(&mut self) {
        loop {
            self.queue();
            while let Some((conn, bytes)) = self.queued.pop_first() {
                self.feed(Input::Sent { conn, bytes });
            }
            if self.durable < self.emitted {
                self.persisted();
            }
            if self.queued.is_empty() && self.sends.is_empty() && self.durable == self.emitted {
                return;
            }
        }
    }

    /// What the last [`Self::feed`] sent, in order.
    #[must_use]
    pub fn sends(&self) -> &[(ConnId, Bytes)] {
        &self.sends
    }

    /// A transaction was emitted that is not durable.
    #[must_use]
    pub fn has_undurable(&self) -> bool {
        self.durable < self.emitted
    }

    fn drain(&mut self) {
        let mut loads = Vec::new();
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { conn, frame } => self.sends.push((conn, frame)),
                Output::Persist(txn) => self.emitted = txn.id,
                Output::Load { load, what } => loads.push((load, what)),
                Output::Attached { .. } => {}
                Output::Close { .. }
                | Output::Pause { .. }
                | Output::Resume { .. }
                | Output::Response { .. } => unreachable!("nobody misbehaves here: {output:?}"),
            }
        }
        for (load, what) in loads {
            let loaded = match what {
                Load::Dedupe { .. } => Loaded::Dedupe(None),
                Load::Backlog { .. } => Loaded::Backlog(Vec::new()),
                Load::Receipts { .. } => Loaded::Receipts(Vec::new()),
                Load::Deliveries { .. } | Load::Message { .. } => {
                    unreachable!("nobody asks: {what:?}")
                }
            };
            self.feed(Input::Store(store::Event::Loaded { load, loaded }));
        }
    }

    fn queue(&mut self) {
        for (conn, frame) in self.sends.drain(..) {
            *self.queued.entry(conn).or_default() += frame.len() as u64;
        }
    }
}

pub const MESH: &str = "bench";

#[must_use]
pub fn conn(peer: usize) -> ConnId {
    ConnId(peer as u64 + 1)
}

/// The address of a peer.
#[must_use]
pub fn pubkey(peer: usize) -> PubKey {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&(peer as u64).to_be_bytes());
    PubKey(bytes)
}

fn member(number: usize) -> MemberRow {
    MemberRow {
        id: member_id(number),
        pubkey: member_pubkey(number),
        display_name: format!("m{number}"),
        role: MemberRole::Member,
        joined_at: Wall(0),
        revoked_at: None,
    }
}

fn member_id(number: usize) -> MemberId {
    format!("member-{number}").into()
}

fn member_pubkey(number: usize) -> PubKey {
    let mut bytes = [2; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PubKey(bytes)
}

fn about() -> About {
    About {
        // An event about such a peer that becomes visible is 256 bytes long.
        display_name: Some("alice".into()),
        ..About::default()
    }
}

fn session_id(peer: usize) -> SessionId {
    format!("session-{peer}").into()
}

fn row(peer: usize, now: Wall) -> PeerRow {
    PeerRow {
        key: PeerKey::Session(pubkey(peer)),
        role: Role::Session,
        member: member_id(peer / SESSIONS_PER_MEMBER),
        pubkey: pubkey(peer),
        present: true,
        joined_at: now,
        last_seen: now,
        registration: Registration {
            session_id: Some(session_id(peer)),
            about: about(),
            visible: true,
            capabilities: Capabilities::ours(),
            ..Registration::default()
        },
    }
}

fn hello(peer: usize, now: Wall) -> VerifiedHello {
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&(peer as u64).to_be_bytes());
    VerifiedHello {
        mesh: MeshId::from(MESH),
        key: PeerKey::Session(pubkey(peer)),
        role: Role::Session,
        member_pubkey: member_pubkey(peer / SESSIONS_PER_MEMBER),
        member_id: None,
        pubkey: pubkey(peer),
        session_pubkey: None,
        attestation: None,
        session_id: session_id(peer),
        about: about(),
        offer: Offer {
            capabilities: Capabilities::ours(),
            ..Offer::default()
        },
        version: ProtocolVersion::SPOKEN,
        timestamp: now,
        signature: Signature(signature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_else_is_told_with_the_same_bytes() {
        let mut room = Room::with_live_peers(300);
        room.frame(
            0,
            ClientFrame::SetVisible {
                visible: false,
                id: None,
                req_id: None,
            },
        );
        room.persisted();
        let told: Vec<_> = room
            .sends()
            .iter()
            .filter(|(to, _)| *to != conn(0))
            .map(|(_, frame)| frame.as_ptr())
            .collect();
        assert_eq!(told.len(), 299);
        assert!(told.iter().all(|frame| *frame == told[0]));
    }
}

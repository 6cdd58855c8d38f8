//! A connection as the mesh sees it: what was handed to it, what left, what waits behind a look-up.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::receipts::ToldUpto;
use crate::id::{ConnId, MemberId, MessageSeq, PeerKey, PubKey};
use crate::limits::{HELD_BYTES_BEHIND_LOOK_UP, HELD_FRAMES_BEHIND_LOOK_UP};
use crate::time::Mono;
use crate::wire::ClientFrame;

#[derive(Debug)]
pub struct Conn {
    pub id: ConnId,
    pub peer: PeerKey,
    /// The key whose secret may have sealed what it sends: unproven, in a member's hello.
    pub session_pubkey: Option<PubKey>,
    /// It sends only, and is no connection of a lease.
    pub quiet: Option<Quiet>,
    /// It comes from the broker's own host.
    pub local: bool,
    pub features: bool,
    pub live1: bool,
    pub resume1: bool,
    pub seal_x1: bool,
    /// How far it was told of what became of its messages; `None`: it did not ask.
    pub receipts: Option<ToldUpto>,
    /// The number of the last live event handed to it.
    pub stream_at: u64,
    pub stream_checked_at: Mono,
    /// Bytes handed to the connection, and bytes that left, since it began.
    handed: u64,
    left: u64,
    /// Pushes that have not left: where each ends, counted like `handed`.
    pushes: VecDeque<(u64, MessageSeq)>,
    /// Frames behind a look-up, in order. `None`: none is pending.
    held: Option<Held>,
}

#[derive(Debug, Default)]
struct Held {
    frames: VecDeque<(ClientFrame, usize)>,
    bytes: usize,
    paused: bool,
}

/// As whom a quiet connection sends: there may be no lease that says it.
#[derive(Debug)]
pub struct Quiet {
    pub pubkey: PubKey,
    pub member: MemberId,
    pub name: String,
}

/// What a hello said of the connection.
#[derive(Debug)]
pub struct Offered {
    pub session_pubkey: Option<PubKey>,
    pub features: bool,
    pub live1: bool,
    pub resume1: bool,
    pub seal_x1: bool,
    pub receipts: Option<ToldUpto>,
}

impl Conn {
    #[must_use]
    pub fn new(id: ConnId, peer: PeerKey, offered: &Offered, now: Mono) -> Self {
        Self {
            id,
            peer,
            session_pubkey: offered.session_pubkey,
            quiet: None,
            local: false,
            features: offered.features,
            live1: offered.live1,
            resume1: offered.resume1,
            seal_x1: offered.seal_x1,
            receipts: offered.receipts,
            stream_at: 0,
            stream_checked_at: now,
            handed: 0,
            left: 0,
            pushes: VecDeque::new(),
            held: None,
        }
    }

    pub fn hand(&mut self, bytes: usize) {
        self.handed += bytes as u64;
    }

    /// Call after the push was handed over.
    pub fn pushed(&mut self, seq: MessageSeq) {
        self.pushes.push_back((self.handed, seq));
    }

    pub fn sent(&mut self, bytes: u64) {
        self.left = (self.left + bytes).min(self.handed);
    }

    /// The next push whose last byte has left.
    pub fn next_push_left(&mut self) -> Option<MessageSeq> {
        let (end, _) = self.pushes.front()?;
        if *end > self.left {
            return None;
        }
        self.pushes.pop_front().map(|(_, seq)| seq)
    }

    /// Bytes that wait in the connection's queue.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.handed - self.left
    }

    /// A look-up is pending: what comes behind it is held in order.
    pub fn begin_holding(&mut self) {
        self.held.get_or_insert_default();
    }

    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// True where reading should stop now.
    pub fn hold(&mut self, frame: ClientFrame) -> bool {
        let bytes = weight(&frame);
        let held = self.held.get_or_insert_default();
        held.bytes += bytes;
        held.frames.push_back((frame, bytes));
        let full = held.frames.len() >= HELD_FRAMES_BEHIND_LOOK_UP
            || held.bytes >= HELD_BYTES_BEHIND_LOOK_UP;
        let pause = full && !held.paused;
        held.paused |= full;
        pause
    }

    /// The look-up was answered: the next frame, while there is one.
    pub fn next_held(&mut self) -> Option<ClientFrame> {
        let held = self.held.as_mut()?;
        let (frame, bytes) = held.frames.pop_front()?;
        held.bytes -= bytes;
        Some(frame)
    }

    /// Nothing is held any more. True where reading should start again.
    pub fn end_holding(&mut self) -> bool {
        self.held.take().is_some_and(|held| held.paused)
    }

    #[must_use]
    pub fn held_frames(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.frames.len())
    }
}

/// Roughly what a frame holds in memory.
fn weight(frame: &ClientFrame) -> usize {
    256 + match frame {
        ClientFrame::Send(send) => send.ciphertext.len() + send.nonce.len(),
        ClientFrame::SetStats { stats, .. } => stats.as_str().map_or(1024, str::len),
        _ => 0,
    }
}

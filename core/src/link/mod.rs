//! One connection, both ends: handshake, heartbeat, decoding.
//!
//! A link stands between a socket and a machine ([`crate::mesh`] or [`crate::host`]). It verifies
//! signatures and shapes; membership, bans, replays, capacity and leases are the mesh's.

pub mod client;
pub mod dial;
mod heartbeat;
mod hello;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::ClientLink;
pub use dial::Backoff;
pub use server::{ServerLink, ServerLinkConfig};

use alloc::string::String;

use crate::crypto::SecretKey;
use crate::crypto::attestation::Attestation;
use crate::id::{MemberId, MeshId, PeerKey, PubKey, Role, SessionId, Signature};
use crate::limits::OWNER_LATE;
use crate::time::{Mono, Wall};
use crate::timers::TimerQueue;
use crate::wire::client::{About, Offer, ReceiptsAfter, Resume};
use crate::wire::feature::Terms;
use crate::wire::{Close, ProtocolVersion};

/// A hello whose signatures and times are good. What it may do is the mesh's to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedHello {
    pub mesh: MeshId,
    /// `Member` for a member's hello, `Session` for a session's or service's.
    pub key: PeerKey,
    pub role: Role,
    /// The member that vouches: the hello's own key, or the attestation's parent.
    pub member_pubkey: PubKey,
    /// As claimed; the mesh checks that the key belongs to it.
    pub member_id: Option<MemberId>,
    /// The key by which others address this peer.
    pub pubkey: PubKey,
    /// Unproven, in a member's hello.
    pub session_pubkey: Option<PubKey>,
    pub attestation: Option<Attestation>,
    pub session_id: SessionId,
    pub about: About,
    pub offer: Offer,
    /// What both sides go on in.
    pub version: ProtocolVersion,
    pub timestamp: Wall,
    /// Names this hello: the same one twice is a replay.
    pub signature: Signature,
}

/// What a client link needs to say hello, as of this connection: signed anew each time.
#[derive(Clone, Debug)]
pub struct DialPlan {
    /// `ws(s)://host[:port]/ws`.
    pub url: String,
    pub mesh: MeshId,
    pub member_id: MemberId,
    pub member_secret: SecretKey,
    /// `None`: the member's own hello.
    pub session: Option<SessionIdentity>,
    pub session_id: SessionId,
    pub about: About,
    pub resume: Option<Resume>,
    /// To send only: nothing is joined, told or pushed.
    pub quiet: bool,
    /// The highest receipt that it has durably; `None` asks for none.
    pub receipts: Option<ReceiptsAfter>,
    pub terms: Terms,
    /// The mesh is known to be sealed: a broker that says otherwise is not believed.
    pub sealed: bool,
    /// The broker's clock minus ours, in ms.
    pub clock_offset_ms: i64,
}

#[derive(Clone, Debug)]
pub struct SessionIdentity {
    pub secret: SecretKey,
    pub role: Role,
}

/// How a connection ended, or why it never began.
#[derive(Clone, Debug, PartialEq)]
pub enum Down {
    /// No connection, or none in time.
    DialFailed { detail: String },
    /// The broker's `error` frame before its `hello_ack`.
    Refused {
        code: String,
        message: String,
        broker_time: Option<Wall>,
    },
    /// What the broker offers is not what we need: 4010 to 4012.
    FeatureMismatch(Close),
    /// The close that travelled, or [`Close::ABNORMAL`].
    Closed(Close),
}

/// What a link's deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// The hello, or at the client the answer to it.
    Handshake,
    /// Nothing came in: ping.
    Ping,
    /// Nothing came in since: the other side is gone.
    Pong,
}

/// Whoever runs this link was stopped: what it did not hear in that time it may not hold against
/// the other side.
fn owner_was_stopped(timers: &TimerQueue<Why>, now: Mono) -> bool {
    timers
        .next()
        .is_some_and(|earliest| now.since(earliest.at) > OWNER_LATE)
}

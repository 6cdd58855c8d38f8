//! Everything the mesh keeps of one peer: its parts, side by side.

use serde_json::Value;

use super::delivery::Owed;
use super::lease::Lease;
use super::limiter::Bucket;
use super::receipts::Numbers;
use super::stream::Stream;
use crate::id::ConnId;
use crate::store::mesh::PeerRow;
use crate::time::Mono;

#[derive(Debug)]
pub struct Peer {
    /// `None`: a member that mail waits for and that never connected.
    pub row: Option<PeerRow>,
    pub lease: Lease,
    /// While the lease stands.
    pub stream: Option<Stream>,
    pub owed: Owed,
    /// Where deliveries go: one connection at a time, so that they arrive in order.
    pub delivers_on: Option<ConnId>,
    /// How many connections back from the newest that is, since claims expired there.
    pub passed_over: usize,
    pub sends: Bucket,
    pub look_ups: Bucket,
    /// When a socket of a plain client on its key was last put out by another.
    pub replaced_at: Option<Mono>,
    /// When it last said anything but a sign of life.
    pub heard_at: Mono,
    /// Of the receipts of what it sent.
    pub receipts: Numbers,
    /// Others were told that it is here, and not yet that it left.
    pub announced: bool,
    /// Kept in memory only.
    pub stats: Option<Value>,
}

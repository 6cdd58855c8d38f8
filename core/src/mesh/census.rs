//! What can only be known by a look at every peer: for metrics, now and then.

use super::Mesh;
use super::lease::Lease;

/// Gauges of one mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Peers without a connection whose lease stands.
    pub in_grace: usize,
    /// Accepted and not settled, of all recipients.
    pub owed_messages: u64,
    pub owed_bytes: u64,
    /// Handed to connections and not on their way yet.
    pub queued_bytes: u64,
}

impl Mesh {
    /// Takes a look at every peer and connection.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for peer in self.peers.values() {
            census.in_grace += usize::from(matches!(peer.lease, Lease::Grace { .. }));
            census.owed_messages += peer.owed.messages() as u64;
            census.owed_bytes += peer.owed.bytes() as u64;
        }
        census.queued_bytes = self.conns.values().map(super::conn::Conn::queued).sum();
        census
    }

    /// Transactions that are not durable yet.
    #[must_use]
    pub fn unpersisted(&self) -> usize {
        self.ledger.unpersisted()
    }
}

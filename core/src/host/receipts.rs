//! Receipts: what brokers tell the senders of this host, each number once.
//!
//! A broker numbers the receipts of a sender and tells them in order, so that the highest number that
//! a sender has says all that it has. Its hello asks for those behind the number that is *durable*
//! here; what was told and had not become durable comes again, and is known by its number.
//!
//! **What cannot be written is not taken.** While the store is behind by as much as is kept, receipts
//! are passed over, and from there on all of that connection: a later number would hide them. The
//! next connection asks for them again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::context::{Context, Identity, Promise};
use crate::id::{MeshId, PeerKey};
use crate::limits::UNPERSISTED_TXNS;
use crate::mark::Mark;
use crate::store::host::Op;
use crate::wire::client::ReceiptsAfter;
use crate::wire::receipt::Receipt;

#[derive(Default)]
pub(super) struct Receipts {
    /// By sender.
    known: BTreeMap<Identity, Known>,
    /// Whose receipts are passed over until its next connection.
    missed: BTreeSet<Identity>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    /// Written, or about to be.
    taken: u64,
    durable: u64,
}

impl Receipts {
    pub(super) fn recover(rows: Vec<(MeshId, PeerKey, u64)>) -> Self {
        let known = rows.into_iter().map(|(mesh, peer, n)| {
            let known = Known {
                taken: n,
                durable: n,
            };
            (Identity { mesh, peer }, known)
        });
        Self {
            known: known.collect(),
            missed: BTreeSet::new(),
        }
    }

    /// What the next hello of `who` asks for.
    pub(super) fn after(&self, who: &Identity) -> ReceiptsAfter {
        let known = self.known.get(who).copied().unwrap_or_default();
        ReceiptsAfter {
            after: known.durable,
        }
    }

    /// A receipt on the current connection of `who`.
    pub(super) fn told(&mut self, ctx: &mut Context, who: &Identity, receipt: Receipt) {
        let known = self.known.entry(who.clone()).or_default();
        if receipt.n <= known.taken {
            ctx.mark(Mark::ReceiptRepeated);
            return;
        }
        if self.missed.contains(who) {
            return;
        }
        if ctx.ledger.unpersisted() >= UNPERSISTED_TXNS {
            self.missed.insert(who.clone());
            return;
        }
        ctx.mark(Mark::ReceiptTaken);
        known.taken = receipt.n;
        let receipt = Box::new(receipt);
        ctx.persist(Op::Receipt {
            mesh: who.mesh.clone(),
            sender: who.peer.clone(),
            receipt: receipt.clone(),
        });
        let sender = who.clone();
        ctx.promise(Promise::Receipt { sender, receipt });
    }

    pub(super) fn durable(&mut self, who: &Identity, n: u64) {
        let known = self.known.entry(who.clone()).or_default();
        known.durable = n.max(known.durable);
    }

    /// A connection is up: it is told everything behind what its hello said.
    pub(super) fn connected(&mut self, who: &Identity) {
        self.missed.remove(who);
    }

    /// Whose receipts were passed over: they have to connect anew.
    pub(super) fn take_missed(&mut self) -> BTreeSet<Identity> {
        core::mem::take(&mut self.missed)
    }

    /// For [`super::Host::durable`].
    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        for (who, known) in &self.known {
            if known.taken > 0 {
                text += &alloc::format!("receipts of {who:?}: {}\n", known.taken);
            }
        }
        text
    }
}

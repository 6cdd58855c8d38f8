//! A host from what its store holds.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;

use super::context::{Context, Identity, sender_of};
use super::directory::Directory;
use super::inbox::Inbox;
use super::io::Config;
use super::meshes::Meshes;
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::seen::SeenMail;
use super::sessions::Sessions;
use super::uplink::Uplinks;
use super::{Asked, Events, Explains, Host, Joining, Listings, Lookups, Phase};
use crate::crypto::Crypto;
use crate::mark::Mark;
use crate::store::host::Recovered;
use crate::time::Now;

impl Host {
    /// Sessions that had not ended dial again, each with its own key; those that had, and still have
    /// rows or `seen` to tell, dial until that is done. Nothing comes out before the first deadline.
    #[must_use]
    pub fn new(
        config: Config,
        seed: [u8; 32],
        crypto: Arc<dyn Crypto>,
        recovered: Recovered,
        now: Now,
    ) -> Self {
        let Recovered {
            owner,
            last_outbox_seq,
            last_inbox_seq,
            meshes,
            sessions,
            directory,
            outbox,
            receipts,
            seen_owed,
            outbox_bytes,
            inbox_bytes,
        } = recovered;
        let cache = config.limits.dedupe_cache;
        let behind_most = config.limits.subscriber_events;
        let meshes = Meshes::new(meshes, &*crypto);
        let sessions = Sessions::new(sessions, &*crypto);
        let mut ctx = Context::new(config, crypto, seed, owner.last_txn, now);
        if owner.last_txn.0 > 0 {
            ctx.mark(Mark::Recovered);
        }
        let seen = SeenMail::recover(seen_owed);
        let senders = outbox.iter().map(sender_of);
        let undone: BTreeSet<Identity> = senders.chain(seen.owing().cloned()).collect();
        let mut host = Self {
            outbox: Outbox::recover(&mut ctx, last_outbox_seq, outbox_bytes, outbox),
            receipts: Receipts::recover(receipts),
            explains: Explains::default(),
            inbox: Inbox::recover(cache, last_inbox_seq, inbox_bytes),
            seen,
            directory: Directory::recover(directory),
            ctx,
            meshes,
            sessions,
            uplinks: Uplinks::default(),
            lookups: Lookups::default(),
            listings: Listings::default(),
            asked: Asked::default(),
            events: Events::new(behind_most),
            joining: Joining::default(),
            stirred: BTreeSet::new(),
            leaving: BTreeSet::new(),
            phase: Phase::Running,
        };
        for session in host.sessions.iter().filter(|session| !session.is_live()) {
            let who = session.identity();
            if undone.contains(&who) {
                host.leaving.insert(who);
            }
        }
        let members = host.meshes.iter().map(super::meshes::Joined::member);
        let live = host.sessions.live().map(super::sessions::Session::identity);
        let wanted: BTreeSet<Identity> = members
            .chain(live)
            .chain(host.leaving.iter().cloned())
            .collect();
        for who in wanted {
            host.want(&who);
        }
        host
    }
}

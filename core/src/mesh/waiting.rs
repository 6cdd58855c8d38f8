//! Hellos that come at a bad moment are answered late.
//!
//! A plain client redials a moment after every close, whatever its code: two sockets on one key
//! would put each other out every second. So once a plain client was put out, a hello of its key
//! that meets a live connection waits; if that connection goes meanwhile, it is answered at once.
//! Daemons rest by themselves, and never wait.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Mesh, Output, Why};
use crate::id::{ConnId, PeerKey};
use crate::limits::{DUEL_WITHIN, HELLO_ANSWERED_WITHIN, HELLOS_WAITING};
use crate::link::VerifiedHello;
use crate::mark::Mark;
use crate::time::Now;
use crate::wire::{Close, plain};

/// A hello whose signatures are good.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) hello: Box<VerifiedHello>,
    /// It came from the broker's own host.
    pub(super) local: bool,
}

impl Mesh {
    /// It is answered now, or waits.
    pub(super) fn greeted(&mut self, now: Now, id: ConnId, greeting: Greeting) {
        if !self.duels(now, &greeting.hello) || self.waiting.len() >= HELLOS_WAITING {
            return self.attach(now, id, greeting);
        }
        self.marks.hit(Mark::HelloWaits);
        self.timers
            .set(Why::Hello(id), now.mono + HELLO_ANSWERED_WITHIN);
        self.waiting.insert(id, greeting);
    }

    /// Its time is over: the newest hello of its key is answered, and those before it are as
    /// connections that were replaced.
    pub(super) fn waited(&mut self, now: Now, id: ConnId) {
        let Some(key) = self.key_of_waiting(id) else {
            return;
        };
        let mut of_key = self.stop_waiting(&key);
        let Some((newest, greeting)) = of_key.pop() else {
            return;
        };
        for (older, _) in of_key {
            self.out.push(Output::Close {
                conn: older,
                close: Close::session_replaced(),
            });
        }
        self.attach(now, newest, greeting);
    }

    /// The live connection of `key` is gone: whoever waited for that need not any more.
    pub(super) fn nobody_to_duel(&mut self, now: Now, key: &PeerKey) {
        for (id, greeting) in self.stop_waiting(key) {
            self.attach(now, id, greeting);
        }
    }

    /// True if it was a hello that waited.
    pub(super) fn waiting_closed(&mut self, id: ConnId) -> bool {
        self.timers.cancel(&Why::Hello(id));
        self.waiting.remove(&id).is_some()
    }

    fn duels(&self, now: Now, hello: &VerifiedHello) -> bool {
        let Some(peer) = self.peers.get(&hello.key) else {
            return false;
        };
        let is_late = |at| now.mono.since(at) <= DUEL_WITHIN;
        plain::is_plain(&hello.offer.capabilities)
            && !hello.offer.is_quiet()
            && peer.replaced_at.is_some_and(is_late)
            && !peer.lease.connections().is_empty()
    }

    fn key_of_waiting(&self, id: ConnId) -> Option<PeerKey> {
        let greeting = self.waiting.get(&id)?;
        Some(greeting.hello.key.clone())
    }

    /// Oldest first.
    fn stop_waiting(&mut self, key: &PeerKey) -> Vec<(ConnId, Greeting)> {
        let of_key = self.waiting.iter().filter(|(_, one)| one.hello.key == *key);
        let ids: Vec<ConnId> = of_key.map(|(id, _)| *id).collect();
        let take = |id| {
            self.timers.cancel(&Why::Hello(id));
            Some((id, self.waiting.remove(&id)?))
        };
        ids.into_iter().filter_map(take).collect()
    }
}

//! Where a message is and why: for its sender, and for the recipient that it is owed to.
//!
//! The store says which message is meant and what was settled; of what is owed, memory is right. What
//! memory has settled is told when it is durable, like any other promise.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{Continue, Mesh};
use crate::id::{ConnId, PeerKey};
use crate::limits::ID_BYTES;
use crate::mark::Mark;
use crate::store::mesh::{ClaimRow, Head, Load, MessageName, Standing};
use crate::time::{Mono, Now, Wall};
use crate::wire::client::ReqId;
use crate::wire::receipt::{
    DeliveryState, Explain, ExplainResult, Happened, MESSAGE_ID_PREFIX, MessageStatus,
    MessageStatusResult, Reach, RecipientStatus, Rung, WaitsFor,
};
use crate::wire::{BrokerFrame, Code};

/// What a look-up of a message found: itself, and its deliveries.
pub type Found = Vec<(Head, Vec<(PeerKey, Standing)>)>;

impl Mesh {
    pub(super) fn on_message_status(&mut self, now: Now, id: ConnId, asked: MessageStatus) {
        let Some(asker) = self.may_look_up(now, id, asked.req_id.as_ref()) else {
            return;
        };
        let name = MessageName::Prefix(asked.message_id);
        let req_id = asked.req_id;
        self.load(
            Load::Message { asker, name },
            Continue::Status { conn: id, req_id },
        );
    }

    pub(super) fn on_explain(&mut self, now: Now, id: ConnId, asked: Explain) {
        let Some(asker) = self.may_look_up(now, id, asked.req_id.as_ref()) else {
            return;
        };
        let (req_id, own) = (asked.req_id, asked.id.clone());
        let load = Load::Message {
            asker,
            name: MessageName::Own(asked.id.into()),
        };
        let then = Continue::Explain {
            conn: id,
            req_id,
            prefix: is_prefix(&own).then_some(own),
        };
        self.load(load, then);
    }

    pub(super) fn status_looked_up(
        &mut self,
        now: Now,
        id: ConnId,
        req_id: Option<ReqId>,
        found: Found,
    ) {
        let Some(asker) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        let found: Found = found
            .into_iter()
            .filter(|(head, _)| head.sender == asker)
            .collect();
        let Some((head, deliveries)) = self.the_one(id, req_id.as_ref(), found) else {
            return;
        };
        let mut taken_at = Vec::new();
        let recipients: Vec<RecipientStatus> = deliveries
            .into_iter()
            .map(|(key, read)| {
                let standing = self.settlements.standing(&key, head.seq, read);
                let taken = match &standing {
                    Standing::Settled(row) if row.rung >= Rung::Delivered => Some(row.at),
                    _ => None,
                };
                taken_at.push(taken);
                RecipientStatus {
                    name: self.name_of(&key),
                    pubkey: self.pubkey_of(&key),
                    status: self.reach(&key, taken),
                }
            })
            .collect();
        let all_taken: Option<Vec<Wall>> = taken_at.into_iter().collect();
        let last = all_taken.and_then(|taken| taken.into_iter().max());
        let result = MessageStatusResult {
            message_id: head.id,
            target_spec: head.target_spec,
            delivered: last.is_some(),
            delivered_at: last.map(|at| at.iso8601().to_string()),
            recipients,
            req_id,
        };
        self.marks.hit(Mark::MessageStatusTold);
        self.reply_when_durable(now, id, BrokerFrame::MessageStatusResult(result));
    }

    /// What the asker itself called so goes before what the broker calls so.
    pub(super) fn explain_looked_up(
        &mut self,
        now: Now,
        id: ConnId,
        req_id: Option<ReqId>,
        prefix: Option<String>,
        found: Found,
    ) {
        let Some(asker) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        if let (true, Some(prefix)) = (found.is_empty(), prefix) {
            let name = MessageName::Prefix(prefix);
            let then = Continue::Explain {
                conn: id,
                req_id,
                prefix: None,
            };
            return self.load(Load::Message { asker, name }, then);
        }
        let Some((head, deliveries)) = self.the_one(id, req_id.as_ref(), found) else {
            return;
        };
        let is_sender = head.sender == asker;
        let Some((key, read)) = deliveries
            .into_iter()
            .find(|(key, _)| is_sender || *key == asker)
        else {
            return self.not_found(id, req_id.as_ref());
        };
        let standing = self.settlements.standing(&key, head.seq, read);
        let explained = match standing {
            Standing::Settled(row) => Explained {
                state: row.rung.into(),
                waits_for: WaitsFor::Nothing,
                attempt: 0,
                next_at: None,
                history: vec![happened(row.rung.as_str(), row.at)],
            },
            Standing::Owed(claim) => self.explain_owed(now, &key, &head, claim),
        };
        self.marks.hit(match explained.state {
            DeliveryState::Ready => Mark::ExplainedReady,
            DeliveryState::Claimed => Mark::ExplainedClaimed,
            _ => Mark::ExplainedSettled,
        });
        let mut history = vec![happened("accepted", head.created_at)];
        history.extend(explained.history);
        let recipient = self.pubkey_of(&key);
        let result = ExplainResult {
            message_id: head.id,
            client_message_id: head.client_message_id,
            recipient,
            state: explained.state,
            waits_for: explained.waits_for,
            holder: (explained.state == DeliveryState::Claimed).then_some(recipient),
            attempt: explained.attempt,
            next_at: explained.next_at.map(|at| at.iso8601().to_string()),
            history,
            req_id,
        };
        self.reply_when_durable(now, id, BrokerFrame::ExplainResult(Box::new(result)));
    }

    fn explain_owed(
        &self,
        now: Now,
        key: &PeerKey,
        head: &Head,
        claim: Option<ClaimRow>,
    ) -> Explained {
        let known = self
            .peers
            .get(key)
            .and_then(|peer| peer.owed.known(head.seq));
        let attempt = known.map_or(0, |known| known.attempts);
        let history = claim
            .filter(|_| attempt > 0)
            .map(|claim| happened("pushed", claim.claimed_at));
        let expires_at = Some(self.expires_at(head.created_at));
        let (state, waits_for, next_at) = match known {
            Some(known) if known.claimed => (
                DeliveryState::Claimed,
                WaitsFor::Acknowledgement,
                known.until.map(|until| wall_at(now, until)),
            ),
            _ => (
                DeliveryState::Ready,
                self.waits_for(key, head, attempt),
                expires_at,
            ),
        };
        Explained {
            state,
            waits_for,
            attempt,
            next_at,
            history: history.into_iter().collect(),
        }
    }

    /// What keeps an owed message from being pushed: the first of it, in the order in which
    /// [`Self::deliver`] asks.
    fn waits_for(&self, key: &PeerKey, head: &Head, attempts: u32) -> WaitsFor {
        let Some(peer) = self.peers.get(key) else {
            return WaitsFor::Reattach;
        };
        let Some(conn) = peer.delivers_on.and_then(|id| self.conns.get(&id)) else {
            return WaitsFor::Reattach;
        };
        let takes = self.takes(key);
        if !takes.status_lets(head.priority, attempts) {
            return WaitsFor::Status;
        }
        if !takes.suite_lets(head.seal.as_deref()) {
            return WaitsFor::Suite;
        }
        if peer.owed.claimed() >= self.config.limits.window_messages {
            return WaitsFor::Window;
        }
        if conn.queued() > self.config.limits.queued_bytes / 2 {
            return WaitsFor::Connection;
        }
        WaitsFor::Turn
    }

    fn reach(&self, key: &PeerKey, taken: Option<Wall>) -> Reach {
        let is_live = self
            .peers
            .get(key)
            .is_some_and(|peer| !peer.lease.connections().is_empty());
        match taken {
            Some(_) => Reach::Delivered,
            None if is_live => Reach::Held,
            None => Reach::Disconnected,
        }
    }

    /// The asker is told where there is none, or more than one.
    fn the_one(
        &mut self,
        id: ConnId,
        req_id: Option<&ReqId>,
        mut found: Found,
    ) -> Option<(Head, Vec<(PeerKey, Standing)>)> {
        if found.len() > 1 {
            self.marks.hit(Mark::MessagePrefixAmbiguous);
            let message = String::from("more than one message begins so: give more of its id");
            self.refuse_frame(id, Code::AmbiguousPrefix, message, req_id.cloned());
            return None;
        }
        let one = found.pop();
        if one.is_none() {
            self.not_found(id, req_id);
        }
        one
    }

    fn not_found(&mut self, id: ConnId, req_id: Option<&ReqId>) {
        self.marks.hit(Mark::MessageNotFound);
        let message = String::from("no message of yours goes by this id");
        self.refuse_frame(id, Code::NotFound, message, req_id.cloned());
    }
}

struct Explained {
    state: DeliveryState,
    waits_for: WaitsFor,
    attempt: u32,
    next_at: Option<Wall>,
    history: Vec<Happened>,
}

fn happened(what: &str, at: Wall) -> Happened {
    Happened {
        what: what.into(),
        at: at.iso8601().to_string(),
    }
}

fn wall_at(now: Now, at: Mono) -> Wall {
    now.wall + at.since(now.mono)
}

/// Whether the broker may have called a message so.
fn is_prefix(id: &str) -> bool {
    debug_assert!(id.len() <= ID_BYTES);
    MESSAGE_ID_PREFIX.contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

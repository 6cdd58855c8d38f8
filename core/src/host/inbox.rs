//! The inbox: one row per (mesh, recipient, sender, client message id), in the order of the pushes.
//!
//! A push says nothing of having been pushed before, so each one that memory does not know is looked
//! up. Look-ups run side by side; decisions are taken in order: a push waits for those before it,
//! so that the rows of a sender stand as they were sent (G8).
//!
//! **Acknowledged only when durable.** An inbox without room takes nothing more from that connection,
//! whatever comes: a later message must not overtake the one that had no room.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use super::context::{Context, Identity, Promise, Waiter};
use super::sealing;
use crate::crypto::SecretKey;
use crate::dedupe::{Dedupe, Seen};
use crate::id::{InboxSeq, PubKey, SessionId};
use crate::limits::{FRAME_BYTES, HELD_PUSH_BYTES, HELD_PUSHES, ID_BYTES, NAME_BYTES};
use crate::mark::Mark;
use crate::store::TxnId;
use crate::store::host::{InboxContent, InboxKey, InboxRow, Load, Op};
use crate::wire::broker::Push;
use crate::wire::decode::cut;

pub(super) struct Inbox {
    last: InboxSeq,
    bytes: u64,
    known: Dedupe<InboxKey, ()>,
    queues: BTreeMap<Identity, Queue>,
    last_ticket: u64,
}

#[derive(Default)]
struct Queue {
    held: VecDeque<Held>,
    bytes: usize,
}

struct Held {
    ticket: u64,
    push: Box<Push>,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The store is being asked.
    Asked,
    InStore,
    NotInStore,
    /// One before it has the same key, and decides for both.
    Repeated,
}

/// Who opens and keeps what is pushed.
pub(super) struct Recipient<'a> {
    pub(super) identity: &'a Identity,
    pub(super) session: Option<&'a SessionId>,
    pub(super) secret: &'a SecretKey,
    pub(super) pubkey: PubKey,
}

/// What becomes of the connection on which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Well,
    /// More than is held behind a look-up.
    TooMuch,
    /// No room: nothing more is to be taken from this recipient's connection.
    Full,
}

impl Inbox {
    pub(super) fn recover(cache: usize, last: InboxSeq, bytes: u64) -> Self {
        Self {
            last,
            bytes,
            known: Dedupe::new(cache),
            queues: BTreeMap::new(),
            last_ticket: 0,
        }
    }

    /// A push on the current connection of `to`.
    pub(super) fn pushed(
        &mut self,
        ctx: &mut Context,
        to: &Recipient<'_>,
        push: Box<Push>,
    ) -> Taken {
        let key = key_of(to.identity, &push);
        if self.repeat(ctx, to.identity, &push, &key) {
            return Taken::Well;
        }
        let bytes = weight_of(&push);
        let queue = self.queues.entry(to.identity.clone()).or_default();
        if queue.held.len() >= HELD_PUSHES || queue.bytes + bytes > HELD_PUSH_BYTES {
            return Taken::TooMuch;
        }
        let repeated = queue
            .held
            .iter()
            .any(|held| key_of(to.identity, &held.push) == key);
        self.last_ticket += 1;
        queue.bytes += bytes;
        queue.held.push_back(Held {
            ticket: self.last_ticket,
            push,
            verdict: if repeated {
                Verdict::Repeated
            } else {
                Verdict::Asked
            },
        });
        if !repeated {
            let (mesh, recipient, sender, client_message_id) = key;
            let what = Load::InboxDedupe {
                mesh,
                recipient,
                sender,
                client_message_id,
            };
            let waiter = Waiter::Push {
                recipient: to.identity.clone(),
                ticket: self.last_ticket,
            };
            ctx.load(what, waiter);
        }
        Taken::Well
    }

    /// A look-up came back: whatever can be decided now is.
    pub(super) fn looked_up(
        &mut self,
        ctx: &mut Context,
        to: &Recipient<'_>,
        ticket: u64,
        in_store: bool,
    ) -> Taken {
        let Some(queue) = self.queues.get_mut(to.identity) else {
            return Taken::Well;
        };
        if let Ok(at) = queue.held.binary_search_by_key(&ticket, |held| held.ticket) {
            queue.held[at].verdict = if in_store {
                Verdict::InStore
            } else {
                Verdict::NotInStore
            };
        }
        self.decide(ctx, to)
    }

    /// Nobody receives for this identity any more, or its connection takes nothing more.
    pub(super) fn forget(&mut self, who: &Identity) {
        self.queues.remove(who);
    }

    pub(super) fn persisted(&mut self, upto: TxnId) {
        self.known.persisted(upto);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest number given.
    pub(super) fn last(&self) -> InboxSeq {
        self.last
    }

    /// For a frame at its largest.
    pub(super) fn has_room(&self, ctx: &Context) -> bool {
        let most = ctx.config.limits.disk_bytes;
        self.bytes + FRAME_BYTES as u64 <= most && !ctx.disk_is_low()
    }

    pub(super) fn held(&self) -> usize {
        self.queues.values().map(|queue| queue.held.len()).sum()
    }

    pub(super) fn remembered(&self) -> usize {
        self.known.fresh() + self.known.cached()
    }

    fn decide(&mut self, ctx: &mut Context, to: &Recipient<'_>) -> Taken {
        loop {
            let Some(queue) = self.queues.get_mut(to.identity) else {
                return Taken::Well;
            };
            match queue.held.front() {
                None => {
                    self.queues.remove(to.identity);
                    return Taken::Well;
                }
                Some(held) if held.verdict == Verdict::Asked => return Taken::Well,
                Some(_) => {}
            }
            let Some(held) = queue.held.pop_front() else {
                return Taken::Well;
            };
            queue.bytes -= weight_of(&held.push);
            let key = key_of(to.identity, &held.push);
            // Of two with one key the first may have become a row since the store was asked.
            if self.repeat(ctx, to.identity, &held.push, &key) {
                continue;
            }
            if held.verdict != Verdict::NotInStore {
                ctx.mark(Mark::InboxDuplicateDurable);
                self.known.remember(key, ());
                acknowledge(ctx, to.identity, &held.push);
                continue;
            }
            if !self.insert(ctx, to, held) {
                self.forget(to.identity);
                return Taken::Full;
            }
        }
    }

    /// True if this is in the inbox already: then it is acknowledged as soon as that is durable.
    fn repeat(&mut self, ctx: &mut Context, who: &Identity, push: &Push, key: &InboxKey) -> bool {
        match self.known.seen(key) {
            Seen::Unknown => return false,
            Seen::Durable(()) => {
                ctx.mark(Mark::InboxDuplicateDurable);
                acknowledge(ctx, who, push);
            }
            Seen::Fresh((), txn) => {
                ctx.mark(Mark::InboxDuplicateFresh);
                ctx.gate.hold(txn, received(who, push, None));
            }
        }
        true
    }

    /// False if there is no room.
    fn insert(&mut self, ctx: &mut Context, to: &Recipient<'_>, held: Held) -> bool {
        let push = held.push;
        let (seal, content) = sealing::open(ctx, to, &push);
        let mut sender_name = push.sender_name.clone();
        cut(&mut sender_name, NAME_BYTES);
        let row = InboxRow {
            seq: self.last.next(),
            mesh: to.identity.mesh.clone(),
            recipient: to.identity.peer.clone(),
            session: to.session.cloned(),
            sender: push.sender_pubkey,
            sender_name,
            client_message_id: push.client_message_id.clone(),
            message_id: push.message_id.clone(),
            priority: push.priority,
            reply_to: push.reply_to_id.clone(),
            seal,
            content,
            sent_at: push.created_at.clone(),
            received_at: ctx.now.wall,
            seen_at: None,
        };
        let bytes = row.weight() as u64;
        if self.bytes + bytes > ctx.config.limits.disk_bytes || ctx.disk_is_low() {
            return false;
        }
        ctx.mark(match row.content {
            InboxContent::Opened { .. } => Mark::InboxInserted,
            InboxContent::Undecryptable { .. } => Mark::InboxUndecryptable,
        });
        self.last = row.seq;
        self.bytes += bytes;
        ctx.persist(Op::InboxPut(Box::new(row.clone())));
        let txn = ctx.ledger.current();
        self.known.insert(key_of(to.identity, &push), (), txn);
        ctx.promise(received(to.identity, &push, Some(Box::new(row))));
        true
    }
}

/// What is durable already is acknowledged as soon as what stands in the gate before it.
fn acknowledge(ctx: &mut Context, who: &Identity, push: &Push) {
    let durable = ctx.gate.durable();
    ctx.gate.hold(durable, received(who, push, None));
}

fn received(who: &Identity, push: &Push, row: Option<Box<InboxRow>>) -> Promise {
    Promise::Received {
        recipient: who.clone(),
        message: push.message_id.clone(),
        client_message_id: push.client_message_id.clone(),
        row,
    }
}

fn key_of(who: &Identity, push: &Push) -> InboxKey {
    (
        who.mesh.clone(),
        who.peer.clone(),
        push.sender_pubkey,
        push.client_message_id.clone(),
    )
}

fn weight_of(push: &Push) -> usize {
    push.ciphertext.len() + push.nonce.len() + ID_BYTES * 4
}

//! Event streams over the IPC: who listens, to what, and how far behind.
//!
//! A stream begins with `ready`, then the mail after `Last-Event-ID`, then a snapshot of the peers,
//! then what happens. One that is too far behind is told `gap` and ended; nothing of the mail is
//! lost, because its client resumes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::context::{Context, Identity};
use super::io::{Output, SseEvent};
use crate::id::{InboxSeq, MeshId, PubKey, SubscriberId};
use crate::mark::Mark;
use crate::store::host::{InboxFilter, InboxRow, Load, Scope};

/// Rows of one page of the backlog, where a stream may be that far behind.
const BACKLOG_PAGE: usize = 100;

pub(super) struct Events {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    /// How far behind a stream may be.
    behind_most: usize,
}

struct Subscriber {
    audience: Audience,
    scope: Scope,
    phase: Phase,
    /// Handed out and not yet in the socket.
    behind: usize,
    /// Mail up to here was handed out.
    last_mail: InboxSeq,
    /// Mail that became durable while an earlier part of the stream is not through.
    held: VecDeque<(InboxSeq, Bytes)>,
}

/// Whose stream it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Sees its own mail, and its mesh; never itself coming or going.
    Session { who: Identity, pubkey: PubKey },
    /// The member's own mail and the presence of its meshes, or of one of them.
    Member { mesh: Option<MeshId> },
}

impl Audience {
    pub(super) fn hears_of(&self, mesh: &MeshId) -> bool {
        match self {
            Self::Session { who, .. } => who.mesh == *mesh,
            Self::Member { mesh: only } => only.as_ref().is_none_or(|only| only == mesh),
        }
    }

    pub(super) fn is(&self, peer: &PubKey) -> bool {
        matches!(self, Self::Session { pubkey, .. } if pubkey == peer)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A page is being loaded.
    Paging,
    /// There is more, when the stream has room.
    Paced,
    /// The mail is through; the snapshot waits in the gate.
    Peers,
    Live,
}

/// What a stream needs next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    Nothing,
    Page(Load),
    Peers(Audience),
}

impl Events {
    pub(super) fn new(behind_most: usize) -> Self {
        Self {
            subscribers: BTreeMap::new(),
            behind_most,
        }
    }

    pub(super) fn subscribe(
        &mut self,
        ctx: &mut Context,
        id: SubscriberId,
        audience: Audience,
        scope: Scope,
        after: Option<InboxSeq>,
    ) -> Next {
        let subscriber = Subscriber {
            audience,
            scope,
            phase: Phase::Paging,
            behind: 0,
            last_mail: after.unwrap_or_default(),
            held: VecDeque::new(),
        };
        self.subscribers.insert(id, subscriber);
        let ready = serde_json::json!({ "daemon_version": ctx.config.version });
        self.emit(ctx, id, None, "ready", super::answers::line(&ready));
        match after {
            Some(_) => self.next_page(id),
            None => self.mail_is_through(ctx, id),
        }
    }

    /// A page of the backlog.
    pub(super) fn page(
        &mut self,
        ctx: &mut Context,
        id: SubscriberId,
        rows: Vec<(InboxSeq, Bytes)>,
    ) -> Next {
        if !self.subscribers.contains_key(&id) {
            return Next::Nothing;
        }
        let is_last = rows.len() < self.page_rows();
        for (seq, data) in rows {
            self.emit_mail(ctx, id, seq, data);
        }
        if is_last {
            return self.mail_is_through(ctx, id);
        }
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return Next::Nothing;
        };
        if subscriber.behind > self.behind_most / 2 {
            subscriber.phase = Phase::Paced;
            return Next::Nothing;
        }
        self.next_page(id)
    }

    /// Events reached the stream's socket.
    pub(super) fn sent(&mut self, id: SubscriberId, events: usize) -> Next {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return Next::Nothing;
        };
        subscriber.behind = subscriber.behind.saturating_sub(events);
        if subscriber.phase == Phase::Paced && subscriber.behind <= self.behind_most / 2 {
            return self.next_page(id);
        }
        Next::Nothing
    }

    /// The snapshot of the peers, as it was when it was taken: what happens from here on is live.
    pub(super) fn peers(&mut self, ctx: &mut Context, id: SubscriberId, data: Bytes) {
        self.emit(ctx, id, None, "peers", data);
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        subscriber.phase = Phase::Live;
        for (seq, data) in core::mem::take(&mut subscriber.held) {
            self.emit_mail(ctx, id, seq, data);
        }
    }

    /// A message stands in the inbox.
    pub(super) fn mail(&mut self, ctx: &mut Context, row: &InboxRow, data: &Bytes) {
        let listening: Vec<SubscriberId> = self
            .subscribers
            .iter()
            .filter(|(_, one)| one.scope.includes(&row.mesh, &row.recipient))
            .map(|(id, _)| *id)
            .collect();
        for id in listening {
            let Some(subscriber) = self.subscribers.get_mut(&id) else {
                continue;
            };
            if subscriber.phase == Phase::Live {
                self.emit_mail(ctx, id, row.seq, data.clone());
                continue;
            }
            subscriber.held.push_back((row.seq, data.clone()));
            if subscriber.held.len() > self.behind_most {
                self.gap(ctx, id);
            }
        }
    }

    /// A peer of `mesh` came, went or changed.
    pub(super) fn presence(
        &mut self,
        ctx: &mut Context,
        mesh: &MeshId,
        peer: &PubKey,
        event: &'static str,
        data: &Bytes,
    ) {
        let listening: Vec<SubscriberId> = self
            .subscribers
            .iter()
            .filter(|(_, one)| one.phase == Phase::Live)
            .filter(|(_, one)| one.audience.hears_of(mesh) && !one.audience.is(peer))
            .map(|(id, _)| *id)
            .collect();
        for id in listening {
            self.emit(ctx, id, None, event, data.clone());
        }
    }

    /// A message of this sender came so far, or ended. There is no backlog of these: who comes later
    /// asks where its message is.
    pub(super) fn receipt(&mut self, ctx: &mut Context, sender: &Identity, data: &Bytes) {
        let listening: Vec<SubscriberId> = self
            .subscribers
            .iter()
            .filter(|(_, one)| one.scope.includes(&sender.mesh, &sender.peer))
            .map(|(id, _)| *id)
            .collect();
        for id in listening {
            self.emit(ctx, id, None, "receipt", data.clone());
        }
    }

    /// The member's streams see this mesh too.
    pub(super) fn mesh_joined(&mut self, member: &Identity) {
        for subscriber in self.subscribers.values_mut() {
            let wants = subscriber.audience.hears_of(&member.mesh);
            if let (true, Scope::Members(pairs)) = (wants, &mut subscriber.scope) {
                pairs.push((member.mesh.clone(), member.peer.clone()));
            }
        }
    }

    /// The streams of a session whose token is no longer good.
    pub(super) fn session_ended(&mut self, ctx: &mut Context, session: &Identity) {
        let theirs: Vec<SubscriberId> = self
            .subscribers
            .iter()
            .filter(
                |(_, one)| matches!(&one.audience, Audience::Session { who, .. } if who == session),
            )
            .map(|(id, _)| *id)
            .collect();
        for id in theirs {
            self.end(ctx, id);
        }
    }

    pub(super) fn end_all(&mut self, ctx: &mut Context) {
        for id in self.subscribers.keys().copied().collect::<Vec<_>>() {
            self.end(ctx, id);
        }
    }

    /// The stream is gone.
    pub(super) fn unsubscribed(&mut self, id: SubscriberId) {
        self.subscribers.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// The furthest behind.
    pub(super) fn behind(&self) -> usize {
        let most = self
            .subscribers
            .values()
            .map(|one| one.behind + one.held.len());
        most.max().unwrap_or(0)
    }

    fn next_page(&mut self, id: SubscriberId) -> Next {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return Next::Nothing;
        };
        subscriber.phase = Phase::Paging;
        Next::Page(Load::Inbox {
            scope: subscriber.scope.clone(),
            filter: InboxFilter {
                after: subscriber.last_mail,
                limit: self.page_rows(),
                ..InboxFilter::default()
            },
        })
    }

    /// What became durable meanwhile follows the last page: a row is in one of them, or in both.
    fn mail_is_through(&mut self, ctx: &mut Context, id: SubscriberId) -> Next {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return Next::Nothing;
        };
        subscriber.phase = Phase::Peers;
        for (seq, data) in core::mem::take(&mut subscriber.held) {
            self.emit_mail(ctx, id, seq, data);
        }
        self.subscribers
            .get(&id)
            .map_or(Next::Nothing, |one| Next::Peers(one.audience.clone()))
    }

    fn emit_mail(&mut self, ctx: &mut Context, id: SubscriberId, seq: InboxSeq, data: Bytes) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        if seq <= subscriber.last_mail {
            return;
        }
        subscriber.last_mail = seq;
        self.emit(ctx, id, Some(seq), "message", data);
    }

    /// A page and the one before it, unread, are no gap yet.
    fn page_rows(&self) -> usize {
        BACKLOG_PAGE.min(self.behind_most / 2).max(1)
    }

    fn emit(
        &mut self,
        ctx: &mut Context,
        id: SubscriberId,
        seq: Option<InboxSeq>,
        event: &'static str,
        data: Bytes,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        if subscriber.behind >= self.behind_most {
            self.gap(ctx, id);
            return;
        }
        subscriber.behind += 1;
        let event = SseEvent {
            id: seq,
            event,
            data,
        };
        ctx.out.push(Output::Event {
            subscriber: id,
            event,
        });
    }

    fn gap(&mut self, ctx: &mut Context, id: SubscriberId) {
        ctx.mark(Mark::SubscriberGap);
        let event = SseEvent {
            id: None,
            event: "gap",
            data: Bytes::from_static(b"{}"),
        };
        ctx.out.push(Output::Event {
            subscriber: id,
            event,
        });
        self.end(ctx, id);
    }

    fn end(&mut self, ctx: &mut Context, id: SubscriberId) {
        if self.subscribers.remove(&id).is_some() {
            ctx.out.push(Output::EndEvents { subscriber: id });
        }
    }
}

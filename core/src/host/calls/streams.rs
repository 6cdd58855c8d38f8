//! `GET /v1/events`: who may listen, and what a stream is given next.

use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Caller;
use crate::host::context::{Promise, Waiter};
use crate::host::events::{Audience, Next};
use crate::host::io::Output;
use crate::host::ipc::{Answer, Subscribe};
use crate::host::{Host, Phase, answers};
use crate::id::{InboxSeq, MeshId, SubscriberId};
use crate::limits::EVENT_STREAMS;
use crate::store::host::{InboxRow, Scope};

impl Host {
    pub(in crate::host) fn subscribe(&mut self, subscriber: SubscriberId, subscribe: Subscribe) {
        match self.audience(&subscribe) {
            Ok((audience, scope)) => {
                // A number that was never given is of another database: its mail begins anew.
                let last = self.inbox.last();
                let after = subscribe.last_event_id;
                let after = after.map(|after| if after > last { InboxSeq(0) } else { after });
                let next = self
                    .events
                    .subscribe(&mut self.ctx, subscriber, audience, scope, after);
                self.next_events(subscriber, next);
            }
            Err(answer) => self
                .ctx
                .out
                .push(Output::SubscribeRefused { subscriber, answer }),
        }
    }

    fn audience(&self, subscribe: &Subscribe) -> Result<(Audience, Scope), Answer> {
        let caller = self.caller(&subscribe.token)?;
        if self.phase != Phase::Running {
            return Err(answers::stopping());
        }
        if self.events.len() >= EVENT_STREAMS {
            return Err(answers::busy("too many event streams are open"));
        }
        let named = subscribe.mesh.as_ref().map(MeshId::as_str);
        let scope = self.scope(&caller, subscribe.all, false)?;
        match &caller {
            Caller::Session { who, pubkey, .. } => {
                self.mesh_of(&caller, named)?;
                let audience = Audience::Session {
                    who: who.clone(),
                    pubkey: *pubkey,
                };
                Ok((audience, scope))
            }
            Caller::Member { .. } => {
                let mesh = match named {
                    Some(_) => Some(self.mesh_of(&caller, named)?),
                    None => None,
                };
                let scope = match (scope, &mesh) {
                    (Scope::Members(pairs), Some(only)) => {
                        Scope::Members(pairs.into_iter().filter(|(id, _)| id == only).collect())
                    }
                    (scope, _) => scope,
                };
                Ok((Audience::Member { mesh }, scope))
            }
        }
    }

    pub(in crate::host) fn backlog_page(&mut self, subscriber: SubscriberId, rows: &[InboxRow]) {
        let rows: Vec<(InboxSeq, Bytes)> = rows
            .iter()
            .map(|row| {
                let slug = self.meshes.slug(&row.mesh);
                (row.seq, answers::line(&answers::inbox_row(row, &slug)))
            })
            .collect();
        let next = self.events.page(&mut self.ctx, subscriber, rows);
        self.next_events(subscriber, next);
    }

    pub(in crate::host) fn next_events(&mut self, subscriber: SubscriberId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Page(what) => self.ctx.load(what, Waiter::Backlog(subscriber)),
            Next::Peers(audience) => {
                let data = self.peers_snapshot(&audience);
                self.ctx
                    .promise(Promise::PeersSnapshot { subscriber, data });
            }
        }
    }

    /// Who is here, without the one who asks.
    fn peers_snapshot(&self, audience: &Audience) -> Bytes {
        let meshes = self
            .meshes
            .iter()
            .filter(|mesh| audience.hears_of(&mesh.row.id));
        let peers: Vec<Value> = meshes
            .flat_map(|mesh| {
                self.directory
                    .present(&mesh.row.id)
                    .filter(|row| !audience.is(&row.pubkey))
                    .map(|row| answers::known_peer(row, &mesh.row.slug))
            })
            .collect();
        answers::line(&json!({ "peers": peers }))
    }
}

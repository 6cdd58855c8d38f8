//! What belongs to no mesh: the meshes of a broker.
//!
//! - **A slug belongs to whoever signed for it first.** Asked again by the same owner, it is the
//!   same mesh.
//! - **A mesh is answered for, and run, only when it is durable.**

mod create;
mod io;
mod signed_once;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;

use serde_json::json;

pub use create::CreateMesh;
pub use io::{Input, Output};
pub use signed_once::{Signed, SignedOnce};

use crate::crypto::Crypto;
use crate::entropy::Entropy;
use crate::gate::Gate;
use crate::id::{MeshId, RequestId};
use crate::limits::{ACCEPT_DURABLE_WITHIN, MESHES};
use crate::machine::{Machine, Outbox, Timeout};
use crate::store::Event;
use crate::store::ledger::Ledger;
use crate::store::registry::{Loaded, MeshRow, Op, Recovered};
use crate::time::Now;
use crate::timers::TimerQueue;
use crate::wire::http::{HttpAnswer, HttpRefusal};

pub struct Registry {
    crypto: Arc<dyn Crypto>,
    entropy: Entropy,
    by_slug: BTreeMap<String, MeshRow>,
    signed_once: SignedOnce,
    ledger: Ledger<Op>,
    gate: Gate<Promise>,
    /// Requests whose answer waits in the gate.
    waiting: BTreeSet<RequestId>,
    timers: TimerQueue<Why>,
    outbox: Outbox<Output>,
}

/// What a registry's deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// The store may be back.
    Store,
    /// Durable or not, its asker wants to know.
    Answer(RequestId),
}

#[derive(Debug)]
enum Promise {
    Open(MeshRow),
    Created { request: RequestId, mesh: MeshId },
}

impl Registry {
    #[must_use]
    pub fn new(recovered: Recovered, entropy: Entropy, crypto: Arc<dyn Crypto>) -> Self {
        let Recovered { owner, meshes } = recovered;
        Self {
            crypto,
            entropy,
            by_slug: meshes
                .into_iter()
                .map(|row| (row.slug.clone(), row))
                .collect(),
            signed_once: SignedOnce::default(),
            ledger: Ledger::new(owner.last_txn),
            gate: Gate::new(owner.last_txn),
            waiting: BTreeSet::new(),
            timers: TimerQueue::default(),
            outbox: Outbox::default(),
        }
    }

    /// Those that were made, durable or not.
    pub fn meshes(&self) -> impl Iterator<Item = &MeshRow> {
        self.by_slug.values()
    }

    fn create(&mut self, now: Now, request: RequestId, body: &[u8], allowed: bool) {
        match self.created(now, body, allowed) {
            Ok(mesh) => {
                // Of a mesh that was there already too: its row may not be durable yet.
                self.gate
                    .hold(self.ledger.current(), Promise::Created { request, mesh });
                self.waiting.insert(request);
                let deadline = now.mono + ACCEPT_DURABLE_WITHIN;
                self.timers.set(Why::Answer(request), deadline);
                self.release();
            }
            Err(refusal) => self.outbox.push(Output::Answer {
                request,
                answer: refusal.answer(),
            }),
        }
    }

    fn created(&mut self, now: Now, body: &[u8], allowed: bool) -> Result<MeshId, HttpRefusal> {
        if !allowed {
            return Err(HttpRefusal::new(
                403,
                "forbidden",
                "a mesh is made from the broker's own host, or with the operator's token",
            ));
        }
        if self.ledger.is_busy() {
            return Err(HttpRefusal::new(
                503,
                "busy",
                "the broker cannot write now: try again",
            ));
        }
        let asked = CreateMesh::verify(body, &*self.crypto, &mut self.signed_once, now)?;
        if let Some(row) = self.by_slug.get(&asked.slug) {
            if row.owner_pubkey != asked.owner_pubkey {
                return Err(slug_taken("the slug belongs to somebody else"));
            }
            if row.policy != asked.policy {
                return Err(slug_taken("your mesh of this slug has the other policy"));
            }
            return Ok(row.id.clone());
        }
        if self.by_slug.len() >= MESHES {
            return Err(HttpRefusal::new(
                503,
                "capacity",
                "this broker has as many meshes as it takes",
            ));
        }
        let row = MeshRow {
            id: self.entropy.ulid(now.wall).into(),
            slug: asked.slug,
            owner_pubkey: asked.owner_pubkey,
            policy: asked.policy,
            created_at: now.wall,
        };
        let id = row.id.clone();
        self.by_slug.insert(row.slug.clone(), row.clone());
        self.ledger
            .push(Op::MeshPut(row.clone()), size_of::<MeshRow>());
        self.gate.hold(self.ledger.current(), Promise::Open(row));
        Ok(id)
    }

    fn on_store(&mut self, now: Now, event: Event<Loaded>) {
        match event {
            Event::Persisted { upto } => {
                if self.ledger.persisted(upto) {
                    self.timers.cancel(&Why::Store);
                }
                self.gate.persisted(upto);
                self.release();
            }
            Event::Stalled(_) => {
                let backoff = self.ledger.stall();
                self.timers.set(Why::Store, now.mono + backoff);
            }
            Event::Loaded { loaded, .. } => match loaded {},
        }
    }

    fn release(&mut self) {
        while let Some(promise) = self.gate.release() {
            match promise.into_inner() {
                Promise::Open(row) => self.outbox.push(Output::Open(row)),
                Promise::Created { request, mesh } => {
                    let body = json!({ "ok": true, "mesh_id": mesh });
                    self.answer(request, HttpAnswer::new(200, &body));
                }
            }
        }
    }

    /// Once: whose time ran out was told that the outcome is open.
    fn answer(&mut self, request: RequestId, answer: HttpAnswer) {
        self.timers.cancel(&Why::Answer(request));
        if self.waiting.remove(&request) {
            self.outbox.push(Output::Answer { request, answer });
        }
    }

    fn emit(&mut self) {
        if let Some(txn) = self.ledger.seal() {
            self.outbox.push(Output::Persist(txn));
        }
    }
}

impl Machine for Registry {
    type Input = Input;
    type Output = Output;
    type Why = Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.outbox.assert_drained();
        match input {
            Input::Create {
                request,
                body,
                allowed,
            } => self.create(now, request, &body, allowed),
            Input::Store(event) => self.on_store(now, event),
        }
        self.emit();
    }

    fn handle_timeout(&mut self, now: Now) {
        self.outbox.assert_drained();
        while let Some((_, why)) = self.timers.pop_due(now.mono) {
            match why {
                Why::Store => {
                    for txn in self.ledger.resend() {
                        self.outbox.push(Output::Persist(txn));
                    }
                }
                Why::Answer(request) => {
                    let message = "it is not certain that the mesh was made: ask again";
                    let refusal = HttpRefusal::new(503, "outcome_unknown", message);
                    self.answer(request, refusal.answer());
                }
            }
        }
        self.emit();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<Why>> {
        self.timers.next()
    }
}

fn slug_taken(message: &str) -> HttpRefusal {
    HttpRefusal::new(409, "slug_taken", message)
}

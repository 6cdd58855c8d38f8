//! The registry's task: it makes meshes, and each new one is run from here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_core::id::RequestId;
use bowline_core::registry::{Input, Output};
use bowline_core::store::registry::{MeshRow, Op};
use bowline_core::wire::http::HttpAnswer;
use bowline_io::drive::{Effects, Inputs};
use bowline_io::store::Store;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::meshes::OutcomeUnknown;

/// The outside of the registry.
pub(crate) struct RegistryHandle {
    inputs: Inputs<Input>,
    requests: Requests,
    last_request: AtomicU64,
}

type Requests = Arc<Mutex<HashMap<RequestId, oneshot::Sender<HttpAnswer>>>>;

/// What the registry's task hands to the one that opens meshes, in this order for each new mesh.
#[derive(Debug)]
pub(crate) enum Made {
    Open(MeshRow),
    Answer(RequestId, HttpAnswer),
}

pub(crate) struct RegistryEffects<S> {
    store: S,
    made: mpsc::UnboundedSender<Made>,
}

impl RegistryHandle {
    pub(crate) fn new(inputs: Inputs<Input>) -> Self {
        Self {
            inputs,
            requests: Requests::default(),
            last_request: AtomicU64::new(0),
        }
    }

    /// `POST /meshes`. The machine answers in its time, whatever its store does.
    pub(crate) async fn create(
        &self,
        body: Bytes,
        allowed: bool,
    ) -> Result<HttpAnswer, OutcomeUnknown> {
        let request = RequestId(self.last_request.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, answered) = oneshot::channel();
        lock(&self.requests).insert(request, answer);
        let input = Input::Create {
            request,
            body,
            allowed,
        };
        // A registry that has ended takes the sender of the answer with it.
        let _ended = self.inputs.offer(input).await;
        answered.await.map_err(|_| OutcomeUnknown)
    }

    pub(crate) fn answers(&self) -> Answers {
        Answers(Arc::clone(&self.requests))
    }
}

/// Where answers go.
pub(crate) struct Answers(Requests);

impl Answers {
    pub(crate) fn give(&self, request: RequestId, answer: HttpAnswer) {
        if let Some(asked) = lock(&self.0).remove(&request) {
            // Whoever asked may have gone; what was done stands.
            let _gone = asked.send(answer);
        }
    }
}

impl<S> RegistryEffects<S> {
    pub(crate) fn new(store: S) -> (Self, mpsc::UnboundedReceiver<Made>) {
        let (made, receiver) = mpsc::unbounded_channel();
        (Self { store, made }, receiver)
    }
}

impl<S: Store<Op, Infallible>> Effects<Output> for RegistryEffects<S> {
    fn carry_out(&mut self, output: Output) {
        let made = match output {
            Output::Persist(txn) => return self.store.persist(txn),
            Output::Open(row) => Made::Open(row),
            Output::Answer { request, answer } => Made::Answer(request, answer),
        };
        // Its receiver lives as long as the broker.
        let _stopped = self.made.send(made);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The meshes that this broker owns: one machine each, in a task of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bowline_core::id::{ConnId, MeshId, RequestId};
use bowline_core::limits::ACCEPT_DURABLE_WITHIN;
use bowline_core::mesh::{Config, Input, Mesh, Output, Request, Response};
use bowline_core::store::mesh::{Load, Op, Recovered};
use bowline_io::clock::Clock;
use bowline_io::drive::{Effects, Inbox, Inputs, spawn_machine};
use bowline_io::store::Store;
use bowline_io::ws::Commands;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::metrics::{Gauges, Observed};

/// By id. Meshes are added and never removed.
#[derive(Default)]
pub(crate) struct Meshes(RwLock<HashMap<MeshId, Arc<MeshHandle>>>);

/// The outside of one mesh.
pub(crate) struct MeshHandle {
    pub(crate) config: Config,
    pub(crate) slug: String,
    pub(crate) gauges: Arc<Gauges>,
    inputs: Inputs<Input>,
    conns: Conns,
    requests: Requests,
    last_request: AtomicU64,
}

type Conns = Arc<Mutex<HashMap<ConnId, Commands>>>;
type Requests = Arc<Mutex<HashMap<RequestId, oneshot::Sender<Response>>>>;

/// No answer in time, or none at all: whether it was done is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeUnknown;

impl Meshes {
    pub(crate) fn get(&self, id: &MeshId) -> Option<Arc<MeshHandle>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<MeshHandle>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn add(&self, mesh: MeshHandle) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mesh.config.mesh.clone(), Arc::new(mesh));
    }
}

impl MeshHandle {
    /// Runs the machine from what its store remembers. `inputs` and `inbox` are one channel, into
    /// which the store's events go as well.
    pub(crate) fn start(
        clock: impl Clock,
        config: Config,
        slug: String,
        seed: [u8; 32],
        recovered: Recovered,
        store: impl Store<Op, Load>,
        (inputs, inbox): (Inputs<Input>, Inbox<Input>),
    ) -> Self {
        let gauges = Arc::new(Gauges::default());
        let mesh = Mesh::new(config.clone(), seed, recovered, clock.now());
        let conns = Conns::default();
        let requests = Requests::default();
        let effects = MeshEffects {
            conns: Arc::clone(&conns),
            requests: Arc::clone(&requests),
            store,
        };
        let observed = Observed::new(mesh, Arc::clone(&gauges));
        // Ends with its inputs; a panic in it is a bug that the panic hook has logged.
        spawn_machine(observed, clock, inbox, effects);
        Self {
            config,
            slug,
            gauges,
            inputs,
            conns,
            requests,
            last_request: AtomicU64::new(0),
        }
    }

    /// Before its `Attach` is offered.
    pub(crate) fn add(&self, conn: ConnId, commands: Commands) {
        lock(&self.conns).insert(conn, commands);
    }

    pub(crate) fn remove(&self, conn: ConnId) {
        lock(&self.conns).remove(&conn);
    }

    /// Inputs of connections that the machine has not come to.
    pub(crate) fn inputs_waiting(&self) -> usize {
        self.inputs.waiting()
    }

    pub(crate) async fn offer(&self, input: Input) {
        // A machine that has ended took its process with it, or is about to.
        let _ended = self.inputs.offer(input).await;
    }

    pub(crate) fn tell(&self, input: Input) {
        self.inputs.tell(input);
    }

    /// Asks on behalf of an HTTP endpoint; what it promises is durable.
    pub(crate) async fn ask(&self, what: Request) -> Result<Response, OutcomeUnknown> {
        let request = RequestId(self.last_request.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, answered) = oneshot::channel();
        lock(&self.requests).insert(request, answer);
        self.offer(Input::Request { request, what }).await;
        let answered = timeout(ACCEPT_DURABLE_WITHIN, answered).await;
        lock(&self.requests).remove(&request);
        match answered {
            Ok(Ok(response)) => Ok(response),
            _ => Err(OutcomeUnknown),
        }
    }
}

struct MeshEffects<S> {
    conns: Conns,
    requests: Requests,
    store: S,
}

impl<S: Store<Op, Load>> Effects<Output> for MeshEffects<S> {
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Attached { conn } => self.command(conn, Commands::attached),
            Output::Send { conn, frame } => self.command(conn, |commands| commands.send(frame)),
            Output::Close { conn, close } => self.command(conn, |commands| commands.close(close)),
            Output::Pause { conn } => self.command(conn, Commands::pause),
            Output::Resume { conn } => self.command(conn, Commands::resume),
            Output::Persist(txn) => self.store.persist(txn),
            Output::Load { load, what } => self.store.load(load, what),
            Output::Response { request, response } => {
                if let Some(answer) = lock(&self.requests).remove(&request) {
                    // Whoever asked may have gone; what was done stands.
                    let _gone = answer.send(response);
                }
            }
        }
    }
}

impl<S> MeshEffects<S> {
    /// A connection that is not there any more has said so, or is about to.
    fn command(&self, conn: ConnId, command: impl FnOnce(&Commands)) {
        if let Some(commands) = lock(&self.conns).get(&conn) {
            command(commands);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

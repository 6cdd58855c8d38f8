//! A running broker: its listener, its meshes, its store, and their end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline_core::crypto::real::RealCrypto;
use bowline_core::entropy::Entropy;
use bowline_core::link::server::ServerLinkConfig;
use bowline_core::mesh::{Config, Input};
use bowline_core::registry::{self, Registry, SignedOnce};
use bowline_core::store::registry::{MeshRow, Policy};
use bowline_io::clock::Clock;
use bowline_io::drive;
use bowline_io::http::{ServerConfig, serve};
use bowline_io::net::Listener;
use bowline_io::store::{BrokerStores, OpenOwnerError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Settings;
use crate::connection::{AllGone, Connections};
use crate::exit::{Exit, Failure};
use crate::http::Routes;
use crate::meshes::{MeshHandle, Meshes};
use crate::metrics::{Commits, Timed};
use crate::registry::{Answers, Made, RegistryEffects, RegistryHandle};

/// A broker over any listener, clock and store. Until it is stopped; dropping it leaves its tasks
/// to the runtime.
pub struct Running<D> {
    connections: Connections,
    all_gone: AllGone,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<()>,
    opener: JoinHandle<D>,
}

/// Where the seed of a machine's randomness comes from.
pub type Seeds = fn() -> std::io::Result<[u8; 32]>;

/// How long connections may take to say goodbye at a stop.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How long the store may take at a stop to commit what waits.
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);

impl<D: BrokerStores> Running<D> {
    /// Runs every mesh in `stores` behind `socket`.
    ///
    /// # Errors
    /// If a store or a seed cannot be had.
    pub async fn start(
        socket: impl Listener + Sync + 'static,
        clock: impl Clock,
        stores: D,
        seeds: Seeds,
        settings: impl Into<Settings>,
    ) -> Result<Self, Failure> {
        let settings = settings.into();
        let now = clock.now();
        let commits = Arc::new(Commits::default());
        let crypto = Arc::new(RealCrypto);
        let (inputs, inbox) = drive::channel();
        let events = {
            let inputs = inputs.clone();
            move |event| inputs.tell(registry::Input::Store(event))
        };
        let (store, recovered) = stores.open_registry(events).await?;
        let machine = Registry::new(
            recovered,
            Entropy::from_seed(seeds()?),
            Arc::clone(&crypto) as _,
        );
        let meshes: Vec<_> = machine.meshes().cloned().collect();
        let (effects, made) = RegistryEffects::new(store);
        drive::spawn_machine(machine, clock.clone(), inbox, effects);
        let registry = RegistryHandle::new(inputs);

        let link = ServerLinkConfig {
            started: now.wall,
            version: settings.version,
        };
        let mut opener = Opener {
            stores,
            clock: clock.clone(),
            seeds,
            meshes: Arc::default(),
            answers: registry.answers(),
            commits: Arc::clone(&commits),
            settings,
        };
        for mesh in meshes {
            opener.open(mesh).await?;
        }
        let (connections, all_gone) = Connections::new();
        let routes = Arc::new(Routes {
            clock: clock.clone(),
            meshes: Arc::clone(&opener.meshes),
            registry,
            connections: connections.clone(),
            commits,
            crypto,
            link,
            signed_once: Mutex::new(SignedOnce::default()),
        });
        let (stopping, stopped) = watch::channel(false);
        let opener = tokio::spawn(opener.run(made, stopped.clone()));
        let listener = tokio::spawn(listen(socket, clock, routes, stopped));
        Ok(Self {
            connections,
            all_gone,
            stopping,
            listener,
            opener,
        })
    }

    /// Closes every connection with 1001, and waits, within bounds, until what was accepted is
    /// durable.
    ///
    /// # Errors
    /// If the store did not finish in time.
    pub async fn stop(self) -> Result<(), Failure> {
        tracing::info!("stopping");
        self.stopping.send_replace(true);
        self.connections.close_all();
        let answered = self.listener.await;
        if let Err(error) = answered {
            tracing::error!(%error, "the listener failed");
        }
        if timeout(CLOSED_WITHIN, self.all_gone.wait(self.connections))
            .await
            .is_err()
        {
            tracing::warn!("some connections did not close in time");
        }
        let stores = self.opener.await.map_err(std::io::Error::other)?;
        match timeout(COMMITTED_WITHIN, stores.finish()).await {
            Ok(finished) => Ok(finished?),
            Err(_) => Err(Failure::new(
                Exit::Failed,
                "store_slow",
                format!(
                    "the store did not finish within {} s",
                    COMMITTED_WITHIN.as_secs()
                ),
            )
            .next("what was answered is durable; senders repeat the rest")),
        }
    }
}

async fn listen<L: Listener + Sync + 'static, C: Clock>(
    socket: L,
    clock: C,
    routes: Arc<Routes<C>>,
    stopped: watch::Receiver<bool>,
) {
    let answer = move |request, info| Arc::clone(&routes).answer::<L::Stream>(request, info);
    serve(
        socket,
        clock,
        ServerConfig::default(),
        answer,
        until_set(stopped),
    )
    .await;
}

/// Runs meshes: those that are there at the start, and each new one.
struct Opener<D, C> {
    stores: D,
    clock: C,
    seeds: Seeds,
    meshes: Arc<Meshes>,
    answers: Answers,
    commits: Arc<Commits>,
    settings: Settings,
}

impl<D: BrokerStores, C: Clock> Opener<D, C> {
    /// Gives the stores back at the stop.
    async fn run(
        mut self,
        mut made: mpsc::UnboundedReceiver<Made>,
        stopped: watch::Receiver<bool>,
    ) -> D {
        let mut stopped = std::pin::pin!(until_set(stopped));
        loop {
            let made = tokio::select! {
                () = &mut stopped => return self.stores,
                Some(made) = made.recv() => made,
            };
            match made {
                Made::Open(row) => {
                    let slug = row.slug.clone();
                    // It exists, and the next start runs it; until then hellos to it are refused.
                    if let Err(failure) = self.open(row).await {
                        tracing::error!(%failure, slug, "a new mesh cannot be run");
                    }
                }
                Made::Answer(request, answer) => self.answers.give(request, answer),
            }
        }
    }

    async fn open(&mut self, row: MeshRow) -> Result<(), Failure> {
        let config = Config {
            mesh: row.id,
            owner_pubkey: row.owner_pubkey,
            open: row.policy == Policy::Open,
            limits: self.settings.limits.clone(),
            offered_instead: self.settings.offered_instead.clone(),
        };
        let (inputs, inbox) = drive::channel();
        let (timed, mut on_persisted) = Timed::watch(Arc::clone(&self.commits));
        let events = {
            let inputs = inputs.clone();
            move |event| {
                on_persisted(&event);
                inputs.tell(Input::Store(event));
            }
        };
        let (store, recovered) = self.stores.open_mesh(&config.mesh, events).await?;
        self.meshes.add(MeshHandle::start(
            self.clock.clone(),
            config,
            row.slug,
            (self.seeds)()?,
            recovered,
            timed.around(store),
            (inputs, inbox),
        ));
        Ok(())
    }
}

impl From<OpenOwnerError> for Failure {
    fn from(error: OpenOwnerError) -> Self {
        Self::new(Exit::Halted, "store_failed", error.to_string())
            .next("see that the disk has room and is writable, then start again")
    }
}

async fn until_set(mut flag: watch::Receiver<bool>) {
    // Its sender gone: the broker is, too.
    let _gone = flag.wait_for(|set| *set).await.is_err();
}

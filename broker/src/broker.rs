//! A running broker: its listener, its meshes, its store, and their end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline_core::crypto::real::RealCrypto;
use bowline_core::entropy::Entropy;
use bowline_core::limits::Limits;
use bowline_core::link::server::ServerLinkConfig;
use bowline_core::mesh::{Config, Input};
use bowline_core::registry::{self, Registry, SignedOnce};
use bowline_core::store::registry::{MeshRow, Policy};
use bowline_io::clock::{Clock, SystemClock};
use bowline_io::drive;
use bowline_io::http::{ServerConfig, serve};
use bowline_io::store::{BrokerDatabase, Halt, OpenOwnerError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::{AllGone, Connections};
use crate::exit::{Exit, Failure};
use crate::http::Routes;
use crate::meshes::{MeshHandle, Meshes};
use crate::metrics::{Commits, Timed};
use crate::registry::{Answers, Made, RegistryEffects, RegistryHandle};
use crate::seed;

/// Until it is stopped; dropping it leaves its tasks to the runtime.
pub struct Broker {
    address: SocketAddr,
    connections: Connections,
    all_gone: AllGone,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<()>,
    opener: JoinHandle<BrokerDatabase>,
    halted: oneshot::Receiver<Halt>,
}

/// How long connections may take to say goodbye at a stop.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How long the store may take at a stop to commit what waits.
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);

impl Broker {
    /// Opens the database in `data`, runs every mesh in it, and listens.
    ///
    /// # Errors
    /// If the directory is held by another broker, the database is not usable, or the address is
    /// taken.
    pub async fn start(listen: SocketAddr, data: &Path, limits: Limits) -> Result<Self, Failure> {
        let clock = SystemClock;
        let now = clock.now();
        let (halt, halted) = oneshot::channel();
        let on_halt = move |why| {
            // Nobody listens only where the process ends already.
            let _ending = halt.send(why);
        };
        let dir = data.to_owned();
        let database =
            tokio::task::spawn_blocking(move || BrokerDatabase::open(&dir, now.wall, on_halt))
                .await
                .map_err(std::io::Error::other)??;
        // Only after the directory is ours: two brokers with one directory are the worse mistake.
        let socket = TcpListener::bind(listen)
            .await
            .map_err(|error| cannot_listen(listen, &error))?;
        let address = socket.local_addr()?;

        let commits = Arc::new(Commits::default());
        let crypto = Arc::new(RealCrypto);
        let (inputs, inbox) = drive::channel();
        let events = {
            let inputs = inputs.clone();
            move |event| inputs.tell(registry::Input::Store(event))
        };
        let (store, recovered) = database.open_registry(events).await?;
        let machine = Registry::new(
            recovered,
            Entropy::from_seed(seed::from_system()?),
            Arc::clone(&crypto) as _,
        );
        let meshes: Vec<_> = machine.meshes().cloned().collect();
        let (effects, made) = RegistryEffects::new(store);
        drive::spawn_machine(machine, clock, inbox, effects);
        let registry = RegistryHandle::new(inputs);

        let mut opener = Opener {
            database,
            meshes: Arc::default(),
            answers: registry.answers(),
            commits: Arc::clone(&commits),
            limits,
        };
        for mesh in meshes {
            opener.open(mesh).await?;
        }
        let (connections, all_gone) = Connections::new();
        let routes = Arc::new(Routes {
            meshes: Arc::clone(&opener.meshes),
            registry,
            connections: connections.clone(),
            commits,
            crypto,
            link: ServerLinkConfig { started: now.wall },
            signed_once: Mutex::new(SignedOnce::default()),
        });
        let (stopping, stopped) = watch::channel(false);
        let opener = tokio::spawn(opener.run(made, stopped.clone()));
        let listener = tokio::spawn(serve(
            socket,
            clock,
            ServerConfig::default(),
            move |request, info| Arc::clone(&routes).answer(request, info),
            until_set(stopped),
        ));
        tracing::info!(%address, data = %data.display(), "listening");
        Ok(Self {
            address,
            connections,
            all_gone,
            stopping,
            listener,
            opener,
            halted,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves if the store halts: this process must end, and a restart recovers.
    pub async fn halted(&mut self) -> Failure {
        match (&mut self.halted).await {
            Ok(halt) => halted(&halt),
            Err(_) => Failure::new(Exit::Halted, "store_gone", "the store's thread is gone")
                .next("restart the broker; what was durable is recovered"),
        }
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
        let database = self.opener.await.map_err(std::io::Error::other)?;
        let closed = tokio::task::spawn_blocking(move || database.close());
        match timeout(COMMITTED_WITHIN, closed).await {
            Ok(closed) => Ok(closed.map_err(std::io::Error::other)?),
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

/// Runs meshes: those that are there at the start, and each new one.
struct Opener {
    database: BrokerDatabase,
    meshes: Arc<Meshes>,
    answers: Answers,
    commits: Arc<Commits>,
    limits: Limits,
}

impl Opener {
    /// Gives the database back at the stop.
    async fn run(
        mut self,
        mut made: mpsc::UnboundedReceiver<Made>,
        stopped: watch::Receiver<bool>,
    ) -> BrokerDatabase {
        let mut stopped = std::pin::pin!(until_set(stopped));
        loop {
            let made = tokio::select! {
                () = &mut stopped => return self.database,
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
            limits: self.limits.clone(),
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
        let (store, recovered) = self.database.open_mesh(&config.mesh, events).await?;
        self.meshes.add(MeshHandle::start(
            config,
            row.slug,
            seed::from_system()?,
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

fn halted(halt: &Halt) -> Failure {
    Failure::new(Exit::Halted, "store_halted", halt.to_string())
        .next("restart; everything that was answered is durable and is recovered")
}

fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(
            Exit::InUse,
            "address_in_use",
            format!("another program listens on {listen}"),
        )
        .next("stop it, or choose another address with --listen"),
        _ => Failure::new(
            Exit::Failed,
            "cannot_listen",
            format!("cannot listen on {listen}: {error}"),
        )
        .next("choose an address of this host, and a port above 1023, with --listen"),
    }
}

async fn until_set(mut flag: watch::Receiver<bool>) {
    // Its sender gone: the broker is, too.
    let _gone = flag.wait_for(|set| *set).await.is_err();
}

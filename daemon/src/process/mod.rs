//! The daemon's process: one host machine, its database, its socket, its connections.
//!
//! **Nothing is decided here.** What comes over the IPC is parsed by the core and answered by the
//! host; connections are dialled, and requests to brokers made, when the host says so.

mod disk;
mod effects;
mod ipc;
mod log_file;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use bowline_broker::seed;
use bowline_core::crypto::real::RealCrypto;
use bowline_core::host::Host;
use bowline_core::host::io::{Config, Input};
use bowline_core::limits::Limits;
use bowline_io::clock::{Clock, SystemClock};
use bowline_io::drive::{self, Inputs};
use bowline_io::http::{ServerConfig, serve};
use bowline_io::net::bind_unix;
use bowline_io::store::{DaemonDatabase, Halt};
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch as signal};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::home::Home;
use effects::HostEffects;
use ipc::Ipc;
pub use log_file::LogFile;
use watch::Watched;

/// Until it is stopped; dropping it leaves its tasks to the runtime.
pub struct Process {
    home: Home,
    inputs: Inputs<Input>,
    machine: JoinHandle<HostEffects>,
    listener: JoinHandle<()>,
    stopping: signal::Sender<bool>,
    database: DaemonDatabase,
    halted: oneshot::Receiver<Halt>,
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long connections may take to close, and what was accepted to become durable, at a stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

impl Process {
    /// Takes the home, opens its database and listens on its socket.
    ///
    /// # Errors
    /// If another daemon holds the home, or its database is not usable.
    pub async fn start(home: Home) -> Result<Self, Failure> {
        let clock = SystemClock;
        let now = clock.now();
        home.prepare()?;
        let (halt, halted) = oneshot::channel();
        let on_halt = move |why| {
            // Nobody listens only where the process ends already.
            let _ending = halt.send(why);
        };
        let dir = home.dir().to_owned();
        let database =
            tokio::task::spawn_blocking(move || DaemonDatabase::open(&dir, now.wall, on_halt))
                .await
                .map_err(std::io::Error::other)??;
        let token = home.machine_token(|| Ok(hex(&seed::from_system()?)))?;

        let (inputs, inbox) = drive::channel();
        let events = {
            let inputs = inputs.clone();
            move |event| inputs.tell(Input::Store(event))
        };
        let (store, recovered) = database.open_host(events).await?;
        let config = Config {
            limits: Limits::default(),
            machine_token_sha256: Sha256::digest(&token).into(),
            hostname: hostname(),
            version: VERSION,
        };
        let crypto = Arc::new(RealCrypto);
        let host = Host::new(
            config,
            seed::from_system()?,
            Arc::clone(&crypto) as _,
            recovered,
            clock.now(),
        );
        let ipc = Ipc::new(inputs.clone());
        let effects = HostEffects::new(store, crypto, inputs.clone(), ipc.answers());
        let watched = Watched::new(host, inputs.clone());
        let socket = bind_unix(&home.socket())
            .await
            .map_err(|error| cannot_listen(&home, &error))?;
        let machine = drive::spawn_machine(watched, clock, inbox, effects);
        let (stopping, stopped) = signal::channel(false);
        let listener = tokio::spawn(serve(
            socket,
            clock,
            ServerConfig::default(),
            move |request, info| ipc.clone().answer(request, info),
            until_set(stopped),
        ));
        tokio::spawn(tell_of_disk(home.clone(), inputs.clone()));
        tracing::info!(home = %home.dir().display(), "the daemon is up");
        Ok(Self {
            home,
            inputs,
            machine,
            listener,
            stopping,
            database,
            halted,
        })
    }

    /// Resolves if the store halts, or the machine ends by itself: this process must end.
    pub async fn halted(&mut self) -> Failure {
        let failure = tokio::select! {
            halt = &mut self.halted => match halt {
                Ok(halt) => Failure::new(Exit::Halted, "store_halted", halt.to_string()),
                Err(_) => Failure::new(Exit::Halted, "store_gone", "the store's thread is gone"),
            },
            _ = &mut self.machine => {
                Failure::new(Exit::Halted, "machine_gone", "the daemon's machine ended")
            }
        };
        failure.next("start it again with `bowline up`; everything that was answered is durable")
    }

    /// Connections close without `bye`, and what was accepted becomes durable.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn stop(self) -> Result<(), Failure> {
        tracing::info!("stopping");
        self.inputs.tell(Input::Stop);
        let machine = timeout(STOPPED_WITHIN, self.machine).await;
        self.stopping.send_replace(true);
        self.listener.await.map_err(std::io::Error::other)?;
        let removed = std::fs::remove_file(self.home.socket());
        let database = self.database;
        let closed = tokio::task::spawn_blocking(move || database.close());
        let closed = timeout(STOPPED_WITHIN, closed).await;
        match (machine, closed) {
            (Ok(ended), Ok(closed)) => {
                ended.map_err(std::io::Error::other)?;
                closed.map_err(std::io::Error::other)?;
            }
            _ => {
                return Err(Failure::new(
                    Exit::Failed,
                    "slow_stop",
                    format!("not everything ended within {} s", STOPPED_WITHIN.as_secs()),
                )
                .next("what was answered is durable, and the rest is done after the next start"));
            }
        }
        tracing::info!("stopped");
        Ok(removed?)
    }
}

/// Now, and then again and again, for as long as there is a machine to tell.
async fn tell_of_disk(home: Home, inputs: Inputs<Input>) {
    let mut due = interval(disk::TOLD_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = inputs.ended() => return,
        }
        match disk::free_bytes(home.dir()) {
            Ok(bytes) => inputs.tell(Input::DiskFree { bytes }),
            Err(error) => tracing::warn!(%error, "cannot tell how much room the disk has"),
        }
    }
}

fn cannot_listen(home: &Home, error: &std::io::Error) -> Failure {
    let socket = home.socket();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(
            Exit::InUse,
            "socket_in_use",
            format!("another program answers on {}", socket.display()),
        )
        .next("stop it, or set BOWLINE_HOME to another directory"),
        _ => Failure::new(
            Exit::Failed,
            "cannot_listen",
            format!("cannot listen on {}: {error}", socket.display()),
        )
        .next("the directory has to be on a file system that knows Unix sockets"),
    }
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn until_set(mut flag: signal::Receiver<bool>) {
    // Its sender gone: the process is, too.
    let _gone = flag.wait_for(|set| *set).await.is_err();
}

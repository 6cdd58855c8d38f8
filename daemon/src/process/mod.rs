//! The daemon's process: one host machine, its database, its socket, its connections.
//!
//! **Nothing is decided here.** What comes over the IPC is parsed by the core and answered by the
//! host; connections are dialled, and requests to brokers made, when the host says so.

mod disk;
mod effects;
mod ipc;
mod log_file;
mod running;
mod watch;

use bowline_broker::exit::{Exit, Failure};
use bowline_broker::seed;
use bowline_core::host::io::{Config, Input};
use bowline_core::limits::Limits;
use bowline_core::wire::feature::Terms;
use bowline_io::clock::{Clock, SystemClock};
use bowline_io::drive::Inputs;
use bowline_io::net::{Tcp, bind_unix};
use bowline_io::store::{DaemonDatabase, Halt};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::home::Home;
pub use log_file::LogFile;
pub use running::Running;

/// The daemon of production, on a home of its own. Until it is stopped; dropping it leaves its
/// tasks to the runtime.
pub struct Process {
    home: Home,
    running: Running<DaemonDatabase, Tcp, SystemClock>,
    halted: oneshot::Receiver<Halt>,
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Process {
    /// Takes the home, opens its database and listens on its socket.
    ///
    /// # Errors
    /// If another daemon holds the home, or its database is not usable.
    pub async fn start(home: Home, terms: Terms) -> Result<Self, Failure> {
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
        let config = Config {
            limits: Limits::default(),
            terms,
            machine_token_sha256: Sha256::digest(&token).into(),
            hostname: hostname(),
            version: VERSION,
        };
        let socket = bind_unix(&home.socket())
            .await
            .map_err(|error| cannot_listen(&home, &error))?;
        let running =
            Running::start(socket, Tcp, clock, database, seed::from_system()?, config).await?;
        tokio::spawn(tell_of_disk(home.clone(), running.inputs().clone()));
        tracing::info!(home = %home.dir().display(), "the daemon is up");
        Ok(Self {
            home,
            running,
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
            () = self.running.machine_gone() => {
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
        // While the home is still ours: whoever takes it next listens at the same path.
        let removed = std::fs::remove_file(self.home.socket());
        self.running.stop().await?;
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

//! The broker of production: a database in a directory, a TCP listener, the system's clocks.

use std::net::SocketAddr;
use std::path::Path;

use bowline_io::clock::{Clock, SystemClock};
use bowline_io::store::{BrokerDatabase, Halt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::running::Running;
use crate::seed;

/// A broker over the sockets, clocks and files of the operating system. Until it is stopped;
/// dropping it leaves its tasks to the runtime.
pub struct Broker {
    address: SocketAddr,
    running: Running<BrokerDatabase>,
    halted: oneshot::Receiver<Halt>,
}

impl Broker {
    /// Opens the database in `data`, runs every mesh in it, and listens.
    ///
    /// # Errors
    /// If the directory is held by another broker, the database is not usable, or the address is
    /// taken.
    pub async fn start(
        listen: SocketAddr,
        data: &Path,
        settings: Settings,
    ) -> Result<Self, Failure> {
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
        let running = Running::start(socket, clock, database, seed::from_system, settings).await?;
        tracing::info!(%address, data = %data.display(), "listening");
        Ok(Self {
            address,
            running,
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

    /// See [`Running::stop`].
    ///
    /// # Errors
    /// If the store did not finish in time.
    pub async fn stop(self) -> Result<(), Failure> {
        self.running.stop().await
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

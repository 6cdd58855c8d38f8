//! A running daemon: its machine, its connections, its IPC, and their end.

use std::sync::Arc;
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use bowline_core::crypto::real::RealCrypto;
use bowline_core::host::Host;
use bowline_core::host::io::{Config, Input};
use bowline_io::clock::Clock;
use bowline_io::drive::{self, Inputs};
use bowline_io::http::{ServerConfig, serve};
use bowline_io::net::{Connector, Listener};
use bowline_io::store::HostStores;
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::effects::HostEffects;
use super::ipc::Ipc;
use super::watch::Watched;

/// A daemon over any socket, network, clock and store. Until it is stopped; dropping it leaves its
/// tasks to the runtime.
pub struct Running<D: HostStores, N: Connector, C: Clock> {
    inputs: Inputs<Input>,
    machine: JoinHandle<HostEffects<D::Host, N, C>>,
    listener: JoinHandle<()>,
    stopping: signal::Sender<bool>,
    stores: D,
}

/// How long connections may take to close, and what was accepted to become durable, at a stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

impl<D: HostStores, N: Connector, C: Clock> Running<D, N, C> {
    /// Takes the host over from `stores`, and answers on `socket`.
    ///
    /// # Errors
    /// If the store does not let itself be taken.
    pub async fn start(
        socket: impl Listener + Sync + 'static,
        connector: N,
        clock: C,
        stores: D,
        seed: [u8; 32],
        config: Config,
    ) -> Result<Self, Failure> {
        let (inputs, inbox) = drive::channel();
        let events = {
            let inputs = inputs.clone();
            move |event| inputs.tell(Input::Store(event))
        };
        let (store, recovered) = stores.open_host(events).await?;
        let crypto = Arc::new(RealCrypto);
        let host = Host::new(
            config,
            seed,
            Arc::clone(&crypto) as _,
            recovered,
            clock.now(),
        );
        let ipc = Ipc::new(inputs.clone());
        let effects = HostEffects::new(
            store,
            connector,
            clock.clone(),
            crypto,
            inputs.clone(),
            ipc.answers(),
        );
        let watched = Watched::new(host, inputs.clone());
        let machine = drive::spawn_machine(watched, clock.clone(), inbox, effects);
        let (stopping, stopped) = signal::channel(false);
        let listener = tokio::spawn(serve(
            socket,
            clock,
            ServerConfig::default(),
            move |request, info| ipc.clone().answer(request, info),
            until_set(stopped),
        ));
        Ok(Self {
            inputs,
            machine,
            listener,
            stopping,
            stores,
        })
    }

    /// The way into the machine.
    #[must_use]
    pub fn inputs(&self) -> &Inputs<Input> {
        &self.inputs
    }

    /// Resolves if the machine ends by itself: this process must end.
    pub async fn machine_gone(&mut self) {
        // A panic in it is a bug that the panic hook has logged.
        let _gone = (&mut self.machine).await;
    }

    /// Connections close without `bye`, and what was accepted becomes durable.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn stop(self) -> Result<(), Failure> {
        self.inputs.tell(Input::Stop);
        let machine = timeout(STOPPED_WITHIN, self.machine).await;
        self.stopping.send_replace(true);
        self.listener.await.map_err(std::io::Error::other)?;
        let finished = timeout(STOPPED_WITHIN, self.stores.finish()).await;
        match (machine, finished) {
            (Ok(ended), Ok(finished)) => {
                ended.map_err(std::io::Error::other)?;
                Ok(finished?)
            }
            _ => Err(Failure::new(
                Exit::Failed,
                "slow_stop",
                format!("not everything ended within {} s", STOPPED_WITHIN.as_secs()),
            )
            .next("what was answered is durable, and the rest is done after the next start")),
        }
    }
}

async fn until_set(mut flag: signal::Receiver<bool>) {
    // Its sender gone: the process is, too.
    let _gone = flag.wait_for(|set| *set).await.is_err();
}

//! Hosts in turmoil's network: a broker, two daemons, the relay between them, and who tests them.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline_broker as broker;
use bowline_core::host::io::Config;
use bowline_core::limits::Limits;
use bowline_core::time::{Now, Wall};
use bowline_core::wire::feature::Terms;
use bowline_daemon::process as daemon;
use bowline_io::clock::{Clock, RuntimeClock};
use bowline_io::http::Peer;
use bowline_io::net::{Connector, Listener};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

use super::relay::Relay;
use super::stores::{BrokerDisk, HostDisk, OpenBroker, OpenHost};
use super::user::{Daemon, Session};

pub const BROKER: &str = "broker";
pub const RELAY: &str = "relay";
pub const NORTH: &str = "north";
pub const SOUTH: &str = "south";
/// Whatever a host offers, it offers here: WebSockets, or the IPC.
pub const PORT: u16 = 7000;

const TICK: Duration = Duration::from_millis(2);
/// No scenario takes longer.
const AN_HOUR: Duration = Duration::from_secs(3_600);
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// The beginning of 2026.
const WALL_AT_START: Wall = Wall(1_767_225_600_000);
/// Segments that may be under way, or unread, on a connection.
const SEGMENTS: usize = 64;

/// What differs from one scenario to the next.
#[derive(Default)]
pub struct Setup {
    pub broker: Limits,
    pub hosts: Limits,
}

/// In the hands of a scenario.
#[derive(Clone)]
pub struct Stage {
    pub relay: Relay,
    pub broker_disk: BrokerDisk,
    pub disks: [HostDisk; 2],
    suspended: Arc<AtomicU64>,
    stops: [Stop; 3],
    orders: Rc<RefCell<Vec<Order>>>,
}

/// What only the outside of the network can do.
enum Order {
    Crash(&'static str),
    Bounce(&'static str),
}

/// Asks a process to stop as SIGTERM does; it says when it has.
#[derive(Clone)]
struct Stop {
    of: &'static str,
    asked: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
}

/// Plays one scenario to its end.
///
/// # Panics
/// If it does, or if a process ends with an error.
pub fn play<F>(setup: Setup, scenario: impl FnOnce(Stage) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .simulation_duration(AN_HOUR)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(SEGMENTS)
        .rng_seed(7)
        .build();
    let stage = Stage {
        relay: Relay::new(),
        broker_disk: BrokerDisk::new(),
        disks: [HostDisk::new(), HostDisk::new()],
        suspended: Arc::default(),
        stops: [BROKER, NORTH, SOUTH].map(Stop::of),
        orders: Rc::default(),
    };
    let (disk, stop) = (stage.broker_disk.clone(), stage.stops[0].clone());
    sim.host(BROKER, move || {
        run_broker(disk.clone(), setup.broker.clone(), stop.clone())
    });
    let relay = stage.relay.clone();
    sim.host(RELAY, move || {
        let relay = relay.clone();
        async move { Ok(relay.run().await?) }
    });
    for (nth, host) in [NORTH, SOUTH].into_iter().enumerate() {
        let (disk, stop) = (stage.disks[nth].clone(), stage.stops[nth + 1].clone());
        // Only one of them is a laptop.
        let suspended = match host {
            SOUTH => Arc::clone(&stage.suspended),
            _ => Arc::default(),
        };
        let limits = setup.hosts.clone();
        sim.host(host, move || {
            let clock = HostClock::starting(&suspended);
            run_daemon(host, disk.clone(), clock, limits.clone(), stop.clone())
        });
    }
    let orders = Rc::clone(&stage.orders);
    sim.client("tester", async move {
        scenario(stage).await;
        Ok(())
    });
    loop {
        let is_over = sim.step().expect("no process ends with an error");
        for order in orders.take() {
            match order {
                Order::Crash(host) => sim.crash(host),
                Order::Bounce(host) => sim.bounce(host),
            }
        }
        if is_over {
            return;
        }
    }
}

impl Stage {
    /// Two sessions that see each other: ada in the north, bob in the south.
    pub async fn ada_and_bob(&self) -> (Session, Session) {
        let (north, south) = (Daemon::of(NORTH), Daemon::of(SOUTH));
        let url = format!("ws://{RELAY}:{PORT}/ws");
        let mesh = json!({ "slug": "team", "broker_url": url, "display_name": NORTH });
        north.post("/v1/meshes", mesh).await;
        let invite = north.post("/v1/invites", json!({})).await;
        let join = json!({ "invite": invite["invite"], "display_name": SOUTH });
        south.post("/v1/meshes/join", join).await;
        let ada = Session::open(NORTH, "ada").await;
        let bob = Session::open(SOUTH, "bob").await;
        ada.sees("bob", "live", Duration::from_secs(60)).await;
        bob.sees("ada", "live", Duration::from_secs(60)).await;
        (ada, bob)
    }

    /// Power is gone: nothing that is under way arrives, not even the end of a connection.
    pub async fn cut_power(&self, host: &'static str) {
        for other in [BROKER, RELAY, NORTH, SOUTH, "tester"] {
            if other != host {
                turmoil::partition(host, other);
            }
        }
        self.order(Order::Crash(host)).await;
    }

    pub async fn give_power(&self, host: &'static str) {
        for other in [BROKER, RELAY, NORTH, SOUTH, "tester"] {
            if other != host {
                turmoil::repair(host, other);
            }
        }
        self.start(host).await;
    }

    pub async fn start(&self, host: &'static str) {
        let stop = self.stop_of(host);
        stop.asked.send_replace(false);
        stop.stopped.send_replace(false);
        self.order(Order::Bounce(host)).await;
    }

    /// As SIGTERM; answers how long it took.
    pub async fn stop(&self, host: &'static str) -> Duration {
        let asked_at = tokio::time::Instant::now();
        let stop = self.stop_of(host);
        stop.asked.send_replace(true);
        within(
            &format!("{host} stops"),
            Duration::from_secs(60),
            async || *stop.stopped.borrow(),
        )
        .await;
        asked_at.elapsed()
    }

    /// The lid of the southern laptop was closed, and is opened after so long: its monotonic clock
    /// went on, its timers did not. What the others did meanwhile is left out, and so all agree on
    /// the time of day.
    pub fn suspend_south(&self, how_long: Duration) {
        let us = u64::try_from(how_long.as_micros()).expect("less than an age");
        self.suspended.fetch_add(us, Ordering::Relaxed);
    }

    fn stop_of(&self, host: &'static str) -> &Stop {
        let stop = self.stops.iter().find(|stop| stop.of == host);
        stop.expect("it is a process of ours")
    }

    async fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
        // It is carried out before the next step.
        tokio::time::sleep(2 * TICK).await;
    }
}

/// Waits, in the network's time, for something to be so.
///
/// # Panics
/// If it is not by then.
pub async fn within(what: &str, time: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    };
    let waited = tokio::time::timeout(time, waiting).await;
    assert!(waited.is_ok(), "waited {time:?} in vain: {what}");
}

impl Stop {
    fn of(of: &'static str) -> Self {
        Self {
            of,
            asked: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
        }
    }

    async fn asked(&self) {
        let mut asked = self.asked.subscribe();
        asked
            .wait_for(|asked| *asked)
            .await
            .expect("it is held here");
    }
}

async fn run_broker(disk: BrokerDisk, limits: Limits, stop: Stop) -> turmoil::Result {
    let socket = Socket::bind().await?;
    let clock = HostClock::starting(&Arc::default());
    let stores = OpenBroker::of(&disk);
    let running = broker::Running::start(socket, clock, stores, seed, limits).await?;
    stop.asked().await;
    running.stop().await?;
    stop.stopped.send_replace(true);
    Ok(())
}

async fn run_daemon(
    host: &'static str,
    disk: HostDisk,
    clock: HostClock,
    limits: Limits,
    stop: Stop,
) -> turmoil::Result {
    let socket = Socket::bind().await?;
    let config = Config {
        limits,
        terms: Terms::default(),
        machine_token_sha256: Sha256::digest(host).into(),
        hostname: host.to_owned(),
        version: daemon::VERSION,
    };
    let stores = OpenHost::of(&disk);
    let mut running =
        daemon::Running::start(socket, TurmoilTcp, clock, stores, seed()?, config).await?;
    tokio::select! {
        () = running.machine_gone() => return Err("the machine is gone".into()),
        () = stop.asked() => {}
    }
    running.stop().await?;
    stop.stopped.send_replace(true);
    Ok(())
}

/// The seed of a machine: another for each.
fn seed() -> io::Result<[u8; 32]> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let nth = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(Sha256::digest(nth.to_be_bytes()).into())
}

/// The clocks of a host: turmoil's, which start anew with each process, and the time that it slept.
#[derive(Clone)]
pub struct HostClock {
    runtime: RuntimeClock,
    suspended: Arc<AtomicU64>,
}

impl HostClock {
    fn starting(suspended: &Arc<AtomicU64>) -> Self {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        Self {
            runtime: RuntimeClock::starting_at(WALL_AT_START + elapsed),
            suspended: Arc::clone(suspended),
        }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Now {
        let asleep = Duration::from_micros(self.suspended.load(Ordering::Relaxed));
        let Now { mono, wall } = self.runtime.now();
        Now {
            mono: mono + asleep,
            wall,
        }
    }
}

/// A listener of turmoil. Whoever comes is vouched for, as on a Unix socket: it is the IPC's, and
/// meshes are made over it.
struct Socket(TcpListener);

impl Socket {
    async fn bind() -> io::Result<Self> {
        Ok(Self(
            TcpListener::bind((IpAddr::from([0, 0, 0, 0]), PORT)).await?,
        ))
    }
}

impl Listener for Socket {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Peer::Unix))
    }
}

#[derive(Clone, Copy)]
pub struct TurmoilTcp;

impl Connector for TurmoilTcp {
    type Stream = TcpStream;

    async fn connect(&self, authority: String) -> io::Result<TcpStream> {
        TcpStream::connect(authority).await
    }
}

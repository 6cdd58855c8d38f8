//! A TCP proxy that stands for the network: it carries bytes with a delay, cuts connections in both
//! directions, and stalls them without a FIN, as a router does that forgot them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::hello::{Who, WhoSpeaks};

/// How long a byte is under way, each way.
const DELAY: Duration = Duration::from_millis(5);

/// A proxy to one address on loopback, until it is dropped with its runtime.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    lines: Mutex<Lines>,
    /// Raised whenever a connection comes, is known by name, or goes.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    last: u64,
    open: BTreeMap<u64, Line>,
}

/// One connection through the proxy.
struct Line {
    who: Option<Who>,
    mode: watch::Sender<Mode>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Flow,
    /// Nothing passes, in either direction, and neither side is told.
    Stall,
    /// The broker gets a FIN, and what it says still passes.
    HalfClose,
    /// Both sides get a FIN.
    Close,
    /// Both sides get a RST; what was under way is lost.
    Reset,
}

impl Proxy {
    /// # Errors
    /// If it cannot listen.
    pub async fn to(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            lines: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts every flowing connection of which `which` says yes into `mode`. How many those were.
    pub fn set(&self, mode: Mode, which: impl Fn(&Who) -> bool) -> usize {
        let lines = self.shared.lines();
        let hit: Vec<_> = lines.flowing().filter(|(who, _)| which(who)).collect();
        for (_, line) in &hit {
            line.mode.send_replace(mode);
        }
        hit.len()
    }

    /// Lets those that are stalled, and of which `which` says yes, flow again.
    pub fn heal(&self, which: impl Fn(&Who) -> bool) {
        let lines = self.shared.lines();
        let theirs = |line: &&Line| line.who.as_ref().is_some_and(&which);
        for line in lines.open.values().filter(theirs) {
            line.mode.send_if_modified(|mode| {
                let stalled = *mode == Mode::Stall;
                if stalled {
                    *mode = Mode::Flow;
                }
                stalled
            });
        }
        drop(lines);
        self.shared.changed();
    }

    /// Resolves once a flowing connection of everyone in `whom` has said hello.
    pub async fn until_flowing(&self, whom: &[Who]) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if whom.iter().all(|who| self.shared.lines().flows(who)) {
                return;
            }
            // The sender lives in `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    fn open(&self) -> (u64, watch::Receiver<Mode>) {
        let (mode, modes) = watch::channel(Mode::Flow);
        let mut lines = self.lines();
        lines.last += 1;
        let id = lines.last;
        lines.open.insert(id, Line { who: None, mode });
        (id, modes)
    }

    fn name(&self, id: u64, who: Who) {
        if let Some(line) = self.lines().open.get_mut(&id) {
            line.who = Some(who);
        }
        self.changed();
    }

    fn close(&self, id: u64) {
        self.lines().open.remove(&id);
        self.changed();
    }
}

impl Lines {
    fn flowing(&self) -> impl Iterator<Item = (&Who, &Line)> {
        self.open
            .values()
            .filter(|line| *line.mode.borrow() == Mode::Flow)
            .filter_map(|line| Some((line.who.as_ref()?, line)))
    }

    fn flows(&self, who: &Who) -> bool {
        self.flowing().any(|(flowing, _)| flowing == who)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // An accept fails for the connection's sake (gone already) or for want of descriptors; either
    // way the next may succeed.
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, Arc::clone(&shared)));
        }
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    // A broker that is down refuses; the client's connection then closes, as its own dial would
    // have failed.
    let Ok(broker) = TcpStream::connect(shared.upstream).await else {
        return;
    };
    let (id, modes) = shared.open();
    let ended = carry_both_ways(client, broker, id, modes, &shared).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection through the proxy broke");
    }
    shared.close(id);
}

async fn carry_both_ways(
    mut client: TcpStream,
    mut broker: TcpStream,
    id: u64,
    mut modes: watch::Receiver<Mode>,
    shared: &Shared,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let mut speaks = WhoSpeaks::default();
    let hear = |bytes: &[u8]| {
        if let Some(who) = speaks.hear(bytes) {
            shared.name(id, who);
        }
    };
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        let up = pump(Direction::Up, from_client, to_broker, modes.clone(), hear);
        let down = pump(
            Direction::Down,
            from_broker,
            to_client,
            modes.clone(),
            |_| {},
        );
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => return ended.map(|_| ()),
            cut = modes.wait_for(|mode| matches!(mode, Mode::Close | Mode::Reset)) => {
                cut.map(|mode| *mode)
            }
        }
    };
    if let Ok(Mode::Reset) = cut {
        client.set_zero_linger()?;
        broker.set_zero_linger()?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// To the broker.
    Up,
    Down,
}

/// Carries one direction until its end.
async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    mut heard: impl FnMut(&[u8]),
) -> io::Result<()> {
    let is_half_closed = |mode: &Mode| direction == Direction::Up && *mode == Mode::HalfClose;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut closed = modes.clone();
        let half_closed = async { closed.wait_for(is_half_closed).await.is_ok() };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            _ = half_closed => return to.shutdown().await,
        };
        tokio::time::sleep(DELAY).await;
        // What arrives during a stall waits in here, and the rest behind it in the socket.
        let passes = modes.wait_for(|mode| matches!(mode, Mode::Flow | Mode::HalfClose));
        if passes.await.is_err() {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        heard(&buffer[..read]);
        to.write_all(&buffer[..read]).await?;
    }
}

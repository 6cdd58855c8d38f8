//! What stands between the daemons and their broker: it passes bytes on, or does something to them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use super::frames::{Frame, Frames};
use super::stage::{BROKER, PORT};

/// What is done to the connections of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    #[default]
    Pass,
    /// Few bytes at a time, both ways.
    OneByOne,
    /// Each message in several WebSocket frames, both ways.
    Fragments,
    /// Nothing is read any more, from neither side.
    Hang,
    /// Who dials is turned away.
    Refuse,
    /// What the daemon says is read and thrown away.
    SwallowUp,
    /// What the broker says is read and thrown away.
    SwallowDown,
    /// What the broker says is not read.
    StopDown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    /// From a daemon to the broker.
    Up,
    Down,
}

#[derive(Clone)]
pub struct Relay {
    ways: watch::Sender<BTreeMap<String, Way>>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    open: Vec<Open>,
    /// How often each host connected.
    dials: BTreeMap<String, usize>,
    /// Bytes that the broker took from each host.
    taken: BTreeMap<String, usize>,
    /// Codes with which the broker closed, by host.
    closes: Vec<(String, u16)>,
}

struct Open {
    of: String,
    task: AbortHandle,
    inject: mpsc::UnboundedSender<Vec<u8>>,
}

/// Read at once.
const CHUNK_BYTES: usize = 4 * 1024;
const FEW_BYTES: usize = 3;
const PARTS: usize = 4;

impl Relay {
    pub fn new() -> Self {
        Self {
            ways: watch::Sender::new(BTreeMap::new()),
            log: Arc::default(),
        }
    }

    pub fn set(&self, host: &str, way: Way) {
        self.ways.send_modify(|ways| {
            ways.insert(host.to_owned(), way);
        });
    }

    /// Cuts every connection of a host, without a word.
    pub fn cut(&self, host: &str) {
        let mut log = self.lock();
        log.open
            .iter()
            .filter(|open| open.of == host)
            .for_each(|open| open.task.abort());
        log.open.retain(|open| open.of != host);
    }

    /// As [`Self::cut`], the latest of them.
    pub fn cut_latest(&self, host: &str) {
        self.open(host).last().expect("it has a connection").abort();
    }

    /// The oldest connection of a host that is open.
    pub fn oldest(&self, host: &str) -> AbortHandle {
        self.open(host).remove(0)
    }

    fn open(&self, host: &str) -> Vec<AbortHandle> {
        let log = self.lock();
        let of_host = log.open.iter().filter(|open| open.of == host);
        let tasks = of_host.map(|open| open.task.clone());
        tasks.filter(|task| !task.is_finished()).collect()
    }

    /// Says this to the broker on the latest connection of a host, as if the daemon had.
    pub fn inject(&self, host: &str, bytes: Vec<u8>) {
        let log = self.lock();
        let open = log.open.iter().rev().find(|open| open.of == host);
        let open = open.expect("the host has a connection");
        open.inject.send(bytes).expect("it is open");
    }

    pub fn dials(&self, host: &str) -> usize {
        self.lock().dials.get(host).copied().unwrap_or(0)
    }

    pub fn taken(&self, host: &str) -> usize {
        self.lock().taken.get(host).copied().unwrap_or(0)
    }

    /// How often the broker closed a connection of a host with this code.
    pub fn closes(&self, host: &str, code: u16) -> usize {
        let closes = &self.lock().closes;
        closes
            .iter()
            .filter(|close| **close == (host.to_owned(), code))
            .count()
    }

    /// The software of the relay's host.
    pub async fn run(self) -> io::Result<()> {
        let listener = TcpListener::bind((IpAddr::from([0, 0, 0, 0]), PORT)).await?;
        loop {
            let (stream, from) = listener.accept().await?;
            let of = turmoil::reverse_lookup(from.ip()).expect("a host of the stage");
            *self.lock().dials.entry(of.clone()).or_default() += 1;
            if self.ways.borrow().get(&of) == Some(&Way::Refuse) {
                continue;
            }
            let (inject, injected) = mpsc::unbounded_channel();
            let pumping = self.clone().relay(of.clone(), stream, injected);
            let task = tokio::spawn(pumping).abort_handle();
            self.lock().open.push(Open { of, task, inject });
        }
    }

    /// A broker that is not there is as if it had closed.
    async fn relay(
        self,
        of: String,
        daemon: TcpStream,
        injected: mpsc::UnboundedReceiver<Vec<u8>>,
    ) {
        let Ok(broker) = TcpStream::connect((BROKER, PORT)).await else {
            return;
        };
        let (from_daemon, to_daemon) = daemon.into_split();
        let (from_broker, to_broker) = broker.into_split();
        let up = self.pump(&of, Direction::Up, from_daemon, to_broker, Some(injected));
        let down = self.pump(&of, Direction::Down, from_broker, to_daemon, None);
        // The end of either direction is the end of that direction only: half-closed.
        let _ends = tokio::join!(up, down);
    }

    async fn pump(
        &self,
        of: &str,
        direction: Direction,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut injected: Option<mpsc::UnboundedReceiver<Vec<u8>>>,
    ) -> io::Result<()> {
        let mut ways = self.ways.subscribe();
        let mut frames = Frames::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut is_first = true;
        loop {
            until_read(&mut ways, of, direction).await;
            let read = tokio::select! {
                read = from.read(&mut buffer) => read?,
                Some(bytes) = next(&mut injected) => {
                    for piece in bytes.chunks(CHUNK_BYTES) {
                        self.write(of, direction, &mut to, piece).await?;
                    }
                    continue;
                }
                _ = ways.changed() => continue,
            };
            if read == 0 {
                return to.shutdown().await;
            }
            // The way may have changed while the bytes came.
            until_read(&mut ways, of, direction).await;
            let bytes = &buffer[..read];
            let whole = frames.feed(bytes);
            if direction == Direction::Down {
                let codes = whole.iter().filter_map(Frame::close_code);
                self.lock()
                    .closes
                    .extend(codes.map(|code| (of.to_owned(), code)));
            }
            match (way_of(&ways, of), direction) {
                (Way::SwallowUp, Direction::Up) | (Way::SwallowDown, Direction::Down) => {}
                (Way::OneByOne, _) => {
                    for few in bytes.chunks(FEW_BYTES) {
                        self.write(of, direction, &mut to, few).await?;
                    }
                }
                (Way::Fragments, _) if frames.are_there() => {
                    if std::mem::take(&mut is_first) {
                        self.write(of, direction, &mut to, Frames::head(bytes))
                            .await?;
                    }
                    for frame in whole.into_iter().flat_map(|frame| frame.fragments(PARTS)) {
                        self.write(of, direction, &mut to, &frame.encode()).await?;
                    }
                }
                _ => self.write(of, direction, &mut to, bytes).await?,
            }
        }
    }

    async fn write(
        &self,
        of: &str,
        direction: Direction,
        to: &mut OwnedWriteHalf,
        bytes: &[u8],
    ) -> io::Result<()> {
        to.write_all(bytes).await?;
        if direction == Direction::Up {
            *self.lock().taken.entry(of.to_owned()).or_default() += bytes.len();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn way_of(ways: &watch::Receiver<BTreeMap<String, Way>>, of: &str) -> Way {
    ways.borrow().get(of).copied().unwrap_or_default()
}

async fn until_read(
    ways: &mut watch::Receiver<BTreeMap<String, Way>>,
    of: &str,
    direction: Direction,
) {
    let is_read = |ways: &BTreeMap<String, Way>| {
        !matches!(
            (ways.get(of), direction),
            (Some(Way::Hang), _) | (Some(Way::StopDown), Direction::Down)
        )
    };
    ways.wait_for(is_read)
        .await
        .expect("the stage holds the other end");
}

async fn next(injected: &mut Option<mpsc::UnboundedReceiver<Vec<u8>>>) -> Option<Vec<u8>> {
    injected.as_mut()?.recv().await
}

//! The network: in-order connections that carry encoded frames, and everything that befalls them.
//!
//! A connection is two pipes. A pipe keeps the order of what is put into it, delays it, may stall,
//! and may go dead in the middle: then a prefix of what was under way arrives and nothing after it.
//! What a sender cannot put on the wire yet waits in its own write queue, and is reported `Handed`
//! when it leaves there, as a socket buffer would have it.

use std::collections::VecDeque;

use bowline_core::wire::Close;
use bytes::Bytes;

use crate::clock::Moment;
use crate::fault_mark::FaultMark;
use crate::kernel::{Event, Kernel, NodeEvent, NodeId};
use crate::random::{Purpose, Stream, entity};

/// Frames beyond this carry a body as large as may be.
const LARGEST_BYTES: usize = 64 * 1024;
/// Overhead of a WebSocket frame, roughly; a ping is nothing else.
const FRAME_OVERHEAD_BYTES: u64 = 8;
const BYTES_PER_US: u64 = 40;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Dialer,
    Acceptor,
}

impl End {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sock {
    pub conn: u32,
    pub end: End,
}

#[derive(Clone, Debug)]
pub enum Packet {
    Text {
        bytes: Bytes,
        /// Its bytes are reported when they are handed to the socket: a machine gave it, which
        /// counts what is queued; a link does not.
        counted: bool,
    },
    Ping,
    Pong,
    /// The last one of its pipe.
    Close(Close),
}

impl Packet {
    fn size(&self) -> u64 {
        match self {
            Self::Text { bytes, .. } => bytes.len() as u64 + FRAME_OVERHEAD_BYTES,
            _ => FRAME_OVERHEAD_BYTES,
        }
    }
}

/// What the network of a run is like, drawn from its seed.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NetworkProfile {
    pub latency_least_us: u64,
    pub latency_most_us: u64,
    /// What a socket takes before its sender has to wait.
    pub socket_buffer_bytes: u64,
}

/// What happens to those who dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialFault {
    #[default]
    None,
    Refused,
    /// No answer at all.
    Hangs,
    /// The connection opens, long after its dialler has given up: a socket that nobody owns.
    Late,
}

/// What happens to a connection. What is lost is always a suffix of what was under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Both ends see it go, after a moment of their own.
    Reset,
    /// All that is under way arrives, then both ends see it closed.
    Fin,
    /// Nobody is told and nothing arrives, as when a NAT forgets.
    HalfOpen,
    /// Nothing arrives at the acceptor any more; it is not told.
    HalfOpenUp,
    /// Nothing arrives at the dialler any more; it is not told.
    HalfOpenDown,
    /// The dialler sees it go at once, the acceptor only after `late_ms`.
    LateClose,
}

#[derive(Debug)]
struct Pipe {
    /// In the sender's process: it has not been handed to the socket.
    queue: VecDeque<Packet>,
    queued_bytes: u64,
    flight: VecDeque<Packet>,
    flight_bytes: u64,
    last_arrival: Moment,
    stalled_until: Moment,
    /// So many more packets arrive, then nothing does.
    alive_for: Option<usize>,
    /// Arrived while the receiver did not read.
    unread: usize,
    handed_bytes: u64,
    handed_pings: u32,
    handed_due: bool,
    delay: Stream,
}

#[derive(Debug)]
struct Connection {
    nodes: [NodeId; 2],
    incarnations: [u32; 2],
    open: [bool; 2],
    reading: [bool; 2],
    /// By sender.
    pipes: [Pipe; 2],
    entity: u64,
}

#[derive(Debug)]
pub struct Network {
    profile: NetworkProfile,
    connections: Vec<Connection>,
    /// Who takes connections at the broker's address.
    pub listener: Option<NodeId>,
    /// Per dialling node.
    dial_faults: Vec<DialFault>,
    dials: Vec<u64>,
    /// Per node, until when all that it sends (0) or is sent (1) waits.
    stalls: Vec<[Moment; 2]>,
}

impl Network {
    #[must_use]
    pub fn new(profile: NetworkProfile, nodes: usize) -> Self {
        Self {
            profile,
            connections: Vec::new(),
            listener: None,
            dial_faults: vec![DialFault::None; nodes],
            dials: vec![0; nodes],
            stalls: vec![[Moment(0); 2]; nodes],
        }
    }

    /// Bytes that `sock` has written and that are not handed to the socket yet.
    #[must_use]
    pub fn queued_bytes(&self, sock: Sock) -> u64 {
        self.connections[sock.conn as usize].pipes[sock.end as usize].queued_bytes
    }

    #[must_use]
    pub fn is_open(&self, sock: Sock) -> bool {
        self.connections[sock.conn as usize].open[sock.end as usize]
    }

    /// The other end of `sock`, as the network knows it.
    #[must_use]
    pub fn dialer_of(&self, conn: u32) -> NodeId {
        self.connections[conn as usize].nodes[End::Dialer as usize]
    }

    /// Connections of `node` that it holds open, oldest first.
    #[must_use]
    pub fn open_connections(&self, node: NodeId) -> Vec<u32> {
        (0..self.connections.len())
            .filter(|at| {
                let conn = &self.connections[*at];
                conn.nodes
                    .iter()
                    .zip(conn.open)
                    .any(|(of, open)| *of == node && open)
            })
            .map(|at| at as u32)
            .collect()
    }

    pub fn set_dial_fault(&mut self, node: NodeId, fault: DialFault) {
        self.dial_faults[node] = fault;
    }
}

impl Kernel {
    /// `node` dials the broker's address. The outcome is `Connected`, `ConnectFailed` or nothing.
    pub fn dial(&mut self, node: NodeId) -> Sock {
        let nth = self.network.dials[node];
        self.network.dials[node] += 1;
        let of = entity(&[node as u64, u64::from(self.incarnation(node)), nth]);
        let mut draws = self.random.stream(Purpose::Dial, of);
        let conn = self.network.connections.len() as u32;
        let pipe = |salt: u64| Pipe {
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: VecDeque::new(),
            flight_bytes: 0,
            last_arrival: Moment(0),
            stalled_until: Moment(0),
            alive_for: None,
            unread: 0,
            handed_bytes: 0,
            handed_pings: 0,
            handed_due: false,
            delay: self.random.stream(Purpose::Latency, of ^ salt),
        };
        self.network.connections.push(Connection {
            nodes: [node, NodeId::MAX],
            incarnations: [self.incarnation(node), 0],
            open: [true, false],
            reading: [true, true],
            pipes: [pipe(1), pipe(2)],
            entity: of,
        });
        let sock = Sock {
            conn,
            end: End::Dialer,
        };
        let round_trip = 2 * draws.between(
            self.network.profile.latency_least_us,
            self.network.profile.latency_most_us,
        );
        let soon = self.now.plus_us(round_trip);
        let stalled = self.network.stalls[node]
            .iter()
            .copied()
            .max()
            .unwrap_or_default();
        match self.network.dial_faults[node] {
            DialFault::None => self.at(soon.max(stalled), Event::Establish { conn }),
            DialFault::Refused => self.at(soon, Event::DialFailed { conn }),
            DialFault::Hangs => {}
            DialFault::Late => {
                let late = draws.between(4_000, 20_000);
                self.at(soon.plus_ms(late), Event::Establish { conn });
            }
        }
        sock
    }

    /// The acceptor's process has seen the connection: its dialler hears that it is open.
    pub fn accept(&mut self, sock: Sock) {
        let latency = self.network.profile.latency_least_us;
        let connection = &self.network.connections[sock.conn as usize];
        let (node, incarnation) = (connection.nodes[0], connection.incarnations[0]);
        let dialer = Sock {
            conn: sock.conn,
            end: End::Dialer,
        };
        self.tell_at(
            self.now.plus_us(latency),
            node,
            incarnation,
            NodeEvent::Connected(dialer),
        );
    }

    /// Puts a packet into the write queue of `sock`.
    pub fn write(&mut self, sock: Sock, packet: Packet) {
        let connection = &mut self.network.connections[sock.conn as usize];
        if !connection.open[sock.end as usize] {
            return;
        }
        let node = connection.nodes[sock.end as usize];
        if let Packet::Text { bytes, .. } = &packet {
            if self.crash_on_write.is_some_and(|(of, _)| of == node) {
                self.wrote = self.crash_on_write.take();
            }
            if bytes.len() > LARGEST_BYTES {
                self.fault_marks.hit(FaultMark::LargestFrame);
            }
        }
        let pipe = &mut connection.pipes[sock.end as usize];
        pipe.queued_bytes += packet.size();
        pipe.queue.push_back(packet);
        self.pump(sock);
    }

    /// Closes this end: what was written before still goes out, then the close. Nothing more is
    /// received here.
    pub fn close(&mut self, sock: Sock, close: Close) {
        self.write(sock, Packet::Close(close));
        self.network.connections[sock.conn as usize].open[sock.end as usize] = false;
    }

    /// Stops or starts taking what arrives at `sock`.
    pub fn set_reading(&mut self, sock: Sock, reading: bool) {
        let connection = &mut self.network.connections[sock.conn as usize];
        connection.reading[sock.end as usize] = reading;
        if !reading {
            return;
        }
        let conn = sock.conn;
        let from = sock.end.other();
        let unread = std::mem::take(&mut connection.pipes[from as usize].unread);
        for _ in 0..unread {
            self.at(self.now, Event::Deliver { conn, from });
        }
    }

    /// A process died: its ends are gone. `told`: the kernel of its host says so to the others.
    pub fn drop_sockets(&mut self, node: NodeId, told: bool) {
        for conn in self.network.open_connections(node) {
            if told {
                self.cut(conn, Cut::Reset, 0);
            } else {
                self.cut(conn, Cut::HalfOpen, 0);
            }
            let connection = &mut self.network.connections[conn as usize];
            for end in [End::Dialer, End::Acceptor] {
                if connection.nodes[end as usize] == node {
                    connection.open[end as usize] = false;
                }
            }
        }
    }

    pub fn cut(&mut self, conn: u32, cut: Cut, late_ms: u64) {
        let of = self.network.connections[conn as usize].entity;
        let mut draws = self.random.stream(Purpose::Reset, of);
        let soon_us = |draws: &mut Stream| draws.magnitude(100, 2_000_000);
        match cut {
            Cut::Reset | Cut::LateClose => {
                self.lose_suffix(conn, End::Dialer, &mut draws);
                self.lose_suffix(conn, End::Acceptor, &mut draws);
                let dialer = self.now.plus_us(soon_us(&mut draws));
                let acceptor = match cut {
                    Cut::LateClose => self.now.plus_ms(late_ms),
                    _ => self.now.plus_us(soon_us(&mut draws)),
                };
                let end = End::Dialer;
                self.at(dialer, Event::Reset { conn, end });
                let end = End::Acceptor;
                self.at(acceptor, Event::Reset { conn, end });
            }
            Cut::Fin => {
                for end in [End::Dialer, End::Acceptor] {
                    let close = Close::new(Close::ABNORMAL, "");
                    let pipe = &mut self.network.connections[conn as usize].pipes[end as usize];
                    // What was not handed to the socket is lost; what was arrives first.
                    pipe.queue.clear();
                    pipe.queued_bytes = 0;
                    self.write(Sock { conn, end }, Packet::Close(close));
                    let pipe = &mut self.network.connections[conn as usize].pipes[end as usize];
                    pipe.alive_for.get_or_insert(pipe.flight.len());
                }
            }
            Cut::HalfOpen => {
                self.lose_suffix(conn, End::Dialer, &mut draws);
                self.lose_suffix(conn, End::Acceptor, &mut draws);
            }
            Cut::HalfOpenUp => self.lose_suffix(conn, End::Dialer, &mut draws),
            Cut::HalfOpenDown => self.lose_suffix(conn, End::Acceptor, &mut draws),
        }
    }

    /// What `node` sends (`up`) or is sent waits until then, and so do those that dial.
    pub fn stall(&mut self, node: NodeId, up: bool, down: bool, until: Moment) {
        for (waits, stall) in [up, down].iter().zip(&mut self.network.stalls[node]) {
            if *waits {
                *stall = until.max(*stall);
            }
        }
        for conn in self.network.open_connections(node) {
            let connection = &mut self.network.connections[conn as usize];
            let here = usize::from(connection.nodes[1] == node);
            for (waits, sender) in [(up, here), (down, 1 - here)] {
                if waits {
                    let pipe = &mut connection.pipes[sender];
                    pipe.stalled_until = until.max(pipe.stalled_until);
                }
            }
        }
    }

    /// All stalls end and all dials succeed. What is lost stays lost.
    pub fn heal_network(&mut self) {
        let now = self.now;
        self.network.dial_faults.fill(DialFault::None);
        self.network.stalls.fill([now; 2]);
        for connection in &mut self.network.connections {
            for pipe in &mut connection.pipes {
                pipe.stalled_until = pipe.stalled_until.min(now);
            }
        }
    }

    pub(crate) fn establish(&mut self, conn: u32) {
        let Some(listener) = self.network.listener else {
            return self.dial_failed(conn);
        };
        let incarnation = self.incarnation(listener);
        let connection = &mut self.network.connections[conn as usize];
        connection.nodes[1] = listener;
        connection.incarnations[1] = incarnation;
        connection.open[1] = true;
        let end = End::Acceptor;
        let dialer_gone = !connection.open[0];
        self.tell_now(
            listener,
            incarnation,
            NodeEvent::Accepted(Sock { conn, end }),
        );
        if dialer_gone {
            // Its dialler gave up: in half of the cases the acceptor hears of that.
            let mut draws = self.random.stream(Purpose::Dial, u64::from(conn) << 32);
            let cut = if draws.chance(500) {
                Cut::Reset
            } else {
                Cut::HalfOpen
            };
            self.cut(conn, cut, 0);
        }
    }

    pub(crate) fn dial_failed(&mut self, conn: u32) {
        let connection = &mut self.network.connections[conn as usize];
        if !std::mem::take(&mut connection.open[0]) {
            return;
        }
        let (node, incarnation) = (connection.nodes[0], connection.incarnations[0]);
        let end = End::Dialer;
        self.tell_now(
            node,
            incarnation,
            NodeEvent::ConnectFailed(Sock { conn, end }),
        );
    }

    pub(crate) fn reset(&mut self, conn: u32, end: End) {
        let sock = Sock { conn, end };
        self.closed_under(sock, Close::new(Close::ABNORMAL, ""));
    }

    pub(crate) fn deliver(&mut self, conn: u32, from: End) {
        let to = from.other();
        let now = self.now;
        let connection = &mut self.network.connections[conn as usize];
        let reads = connection.reading[to as usize];
        let open = connection.open[to as usize];
        let pipe = &mut connection.pipes[from as usize];
        if pipe.stalled_until > now {
            let at = pipe.stalled_until;
            return self.at(at, Event::Deliver { conn, from });
        }
        if open && !reads {
            pipe.unread += 1;
            return;
        }
        match &mut pipe.alive_for {
            // Never acknowledged: it keeps filling the sender's socket buffer.
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        let Some(packet) = pipe.flight.pop_front() else {
            return;
        };
        pipe.flight_bytes -= packet.size();
        let sock = Sock { conn, end: to };
        if open {
            let (node, incarnation) = (
                connection.nodes[to as usize],
                connection.incarnations[to as usize],
            );
            match packet {
                Packet::Close(close) => self.closed_under(sock, close),
                packet => {
                    self.tell_now(node, incarnation, NodeEvent::Received { sock, packet });
                }
            }
        }
        self.pump(Sock { conn, end: from });
    }

    pub(crate) fn handed(&mut self, conn: u32, end: End) {
        let connection = &mut self.network.connections[conn as usize];
        let pipe = &mut connection.pipes[end as usize];
        pipe.handed_due = false;
        let bytes = std::mem::take(&mut pipe.handed_bytes);
        let pings = std::mem::take(&mut pipe.handed_pings);
        if !connection.open[end as usize] {
            return;
        }
        let (node, incarnation) = (
            connection.nodes[end as usize],
            connection.incarnations[end as usize],
        );
        let sock = Sock { conn, end };
        let event = NodeEvent::Handed { sock, bytes, pings };
        self.tell_now(node, incarnation, event);
    }

    /// Moves packets from the write queue to the wire, as far as the socket buffer takes them.
    fn pump(&mut self, sock: Sock) {
        let Sock { conn, end } = sock;
        let most = self.network.profile.socket_buffer_bytes;
        let (least_us, most_us) = (
            self.network.profile.latency_least_us,
            self.network.profile.latency_most_us,
        );
        let now = self.now;
        let mut arrivals: Vec<Moment> = Vec::new();
        let connection = &mut self.network.connections[conn as usize];
        let from = connection.nodes[end as usize];
        let to = connection.nodes[end.other() as usize];
        let stalls = &self.network.stalls;
        let stall = |node: NodeId, way: usize| stalls.get(node).map_or(Moment(0), |s| s[way]);
        let pipe = &mut connection.pipes[end as usize];
        while pipe.flight_bytes < most
            && let Some(packet) = pipe.queue.pop_front()
        {
            let size = packet.size();
            pipe.queued_bytes -= size;
            pipe.flight_bytes += size;
            match &packet {
                Packet::Text {
                    bytes,
                    counted: true,
                } => pipe.handed_bytes += bytes.len() as u64,
                Packet::Ping => pipe.handed_pings += 1,
                Packet::Text { .. } | Packet::Pong | Packet::Close(_) => {}
            }
            pipe.flight.push_back(packet);
            let latency = pipe.delay.between(least_us, most_us) + size / BYTES_PER_US;
            let arrival = now
                .plus_us(latency)
                .max(pipe.last_arrival)
                .max(stall(from, 0))
                .max(stall(to, 1));
            pipe.last_arrival = arrival;
            arrivals.push(arrival);
        }
        let due = (pipe.handed_bytes > 0 || pipe.handed_pings > 0) && !pipe.handed_due;
        pipe.handed_due |= due;
        for at in arrivals {
            self.at(at, Event::Deliver { conn, from: end });
        }
        if due {
            let soon = self.random.draw(Purpose::Handed, u64::from(conn), now.0) % 1_000;
            self.at(now.plus_us(soon), Event::Handed { conn, end });
        }
    }

    fn lose_suffix(&mut self, conn: u32, end: End, draws: &mut Stream) {
        let pipe = &mut self.network.connections[conn as usize].pipes[end as usize];
        let under_way = pipe.flight.len().min(pipe.alive_for.unwrap_or(usize::MAX));
        pipe.alive_for = Some(draws.below(under_way as u64 + 1) as usize);
    }

    fn closed_under(&mut self, sock: Sock, close: Close) {
        let connection = &mut self.network.connections[sock.conn as usize];
        if !std::mem::take(&mut connection.open[sock.end as usize]) {
            return;
        }
        let (node, incarnation) = (
            connection.nodes[sock.end as usize],
            connection.incarnations[sock.end as usize],
        );
        self.tell_now(node, incarnation, NodeEvent::Closed { sock, close });
    }
}

//! The client ends of connections: a `ClientLink` for each, between the network and whoever
//! dialled it (a host's machine, or a puppet). What a link has to say to its machine is a hop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bowline_core::crypto::Crypto;
use bowline_core::id::{ConnId, PeerKey};
use bowline_core::link::client;
use bowline_core::link::{ClientLink, DialPlan, Down};
use bowline_core::mark::Marks;
use bowline_core::wire::broker::HelloAck;
use bowline_core::wire::{BrokerFrame, Close};
use bytes::Bytes;

use crate::cast::MeshIndex;
use crate::clock::Moment;
use crate::driven::{Driven, Timing};
use crate::kernel::{Kernel, NodeEvent, NodeId};
use crate::network::{Packet, Sock};
use crate::random::{Purpose, Stream};
use crate::record::Record;

/// To the machine, in order.
#[derive(Debug)]
pub enum FromLink {
    Up(Box<HelloAck>),
    Frame(BrokerFrame),
    Down(Down),
    /// `bytes` of the machine's own were handed to the socket.
    Sent(u64),
}

pub struct ClientShell {
    node: NodeId,
    crypto: Arc<dyn Crypto>,
    timing: Timing,
    hop_most_us: u64,
    conns: BTreeMap<u64, ClientConn>,
    by_sock: BTreeMap<u32, u64>,
}

struct ClientConn {
    id: ConnId,
    mesh: MeshIndex,
    key: Arc<PeerKey>,
    /// For sending only: it takes part in no stream, and those who follow streams do not see it.
    quiet: bool,
    sock: Sock,
    /// `None` when it said its last.
    link: Option<Driven<ClientLink>>,
    /// Text of the hello that it sent.
    hello: Option<Bytes>,
    to_machine: VecDeque<FromLink>,
    to_machine_at: Moment,
    hops: Stream,
}

impl ClientShell {
    #[must_use]
    pub fn new(node: NodeId, crypto: Arc<dyn Crypto>, timing: Timing, hop_most_us: u64) -> Self {
        Self {
            node,
            crypto,
            timing,
            hop_most_us,
            conns: BTreeMap::new(),
            by_sock: BTreeMap::new(),
        }
    }

    pub fn dial(
        &mut self,
        k: &mut Kernel,
        id: ConnId,
        mesh: MeshIndex,
        key: Arc<PeerKey>,
        plan: Box<DialPlan>,
    ) {
        let quiet = plan.quiet;
        if !quiet {
            let dialled = Record::Dialled {
                node: self.node,
                conn: id,
                key: Arc::clone(&key),
                resume: plan.resume,
                terms: Arc::new(plan.terms.clone()),
            };
            k.record_in(mesh, dialled);
        }
        let link = ClientLink::new(k.clock(self.node), plan, Arc::clone(&self.crypto));
        let sock = k.dial(self.node);
        self.by_sock.insert(sock.conn, id.0);
        let of = (self.node as u64) << 48 | u64::from(k.incarnation(self.node)) << 32 | id.0;
        self.conns.insert(
            id.0,
            ClientConn {
                id,
                mesh,
                key,
                quiet,
                sock,
                link: Some(Driven::new(link, self.node, Some(id.0), self.timing)),
                hello: None,
                to_machine: VecDeque::new(),
                to_machine_at: Moment(0),
                hops: k.random.stream(Purpose::Hop, of),
            },
        );
        self.drain(k, id.0);
    }

    /// True if the event was for one of these connections.
    pub fn on(&mut self, k: &mut Kernel, event: &NodeEvent) -> bool {
        match event {
            NodeEvent::Connected(sock) => self.of_sock(k, *sock, client::Input::Connected),
            NodeEvent::ConnectFailed(sock) => {
                self.of_sock(k, *sock, client::Input::Failed("connection refused".into()))
            }
            NodeEvent::Received { sock, packet } => {
                let input = match packet {
                    Packet::Text { bytes, .. } => client::Input::Text(bytes.clone()),
                    Packet::Ping => {
                        k.write(*sock, Packet::Pong);
                        client::Input::Alive
                    }
                    Packet::Pong | Packet::Close(_) => client::Input::Alive,
                };
                self.of_sock(k, *sock, input)
            }
            NodeEvent::Closed { sock, close } => {
                self.of_sock(k, *sock, client::Input::Closed(close.clone()))
            }
            NodeEvent::Handed { sock, bytes, pings } => {
                let Some(id) = self.by_sock.get(&sock.conn).copied() else {
                    return false;
                };
                for _ in 0..*pings {
                    self.input(k, id, client::Input::PingSent);
                }
                if *bytes > 0
                    && let Some(conn) = self.conns.get_mut(&id)
                {
                    conn.hop(k, self.node, self.hop_most_us, FromLink::Sent(*bytes));
                }
                true
            }
            NodeEvent::Timer(Some(id)) => {
                let link = self.conns.get_mut(id).and_then(|conn| conn.link.as_mut());
                if let Some(link) = link {
                    link.timer(k);
                    self.drain(k, *id);
                }
                true
            }
            _ => false,
        }
    }

    /// What a hop brought to the machine, and from which connection.
    pub fn arrived(&mut self, k: &mut Kernel, queue: u64) -> Option<(ConnId, FromLink)> {
        let conn = self.conns.get_mut(&queue)?;
        let said = conn.to_machine.pop_front()?;
        let (node, id, key) = (self.node, conn.id, Arc::clone(&conn.key));
        let seen = match &said {
            FromLink::Up(_) | FromLink::Down(_) if conn.quiet => None,
            FromLink::Up(ack) => Some(Record::Up {
                node,
                conn: id,
                key,
                ack: ack.clone(),
            }),
            FromLink::Frame(frame) => Some(Record::Frame {
                node,
                conn: id,
                key,
                frame: Box::new(frame.clone()),
            }),
            FromLink::Down(down) => Some(Record::Down {
                node,
                conn: id,
                key,
                down: down.clone(),
            }),
            FromLink::Sent(_) => None,
        };
        if let Some(seen) = seen {
            k.record_in(conn.mesh, seen);
        }
        if conn.link.is_none() && conn.to_machine.is_empty() {
            let sock = conn.sock;
            self.conns.remove(&queue);
            self.by_sock.remove(&sock.conn);
        }
        Some((id, said))
    }

    /// A frame of the machine's own.
    pub fn send(&mut self, k: &mut Kernel, id: ConnId, bytes: Bytes) {
        if let Some(conn) = self.conns.get(&id.0) {
            let counted = true;
            k.write(conn.sock, Packet::Text { bytes, counted });
        }
    }

    /// The machine is done with it; the link still says so.
    pub fn hang_up(&mut self, k: &mut Kernel, id: ConnId, close: Close) {
        let Some(conn) = self.conns.get(&id.0) else {
            return;
        };
        k.close(conn.sock, close.clone());
        self.input(k, id.0, client::Input::Closed(close));
    }

    pub fn set_reading(&mut self, k: &mut Kernel, id: ConnId, reading: bool) {
        if let Some(conn) = self.conns.get(&id.0) {
            k.set_reading(conn.sock, reading);
        }
    }

    /// The last hello that went out on this connection.
    #[must_use]
    pub fn hello_of(&self, id: ConnId) -> Option<Bytes> {
        self.conns.get(&id.0)?.hello.clone()
    }

    /// Where the connection queues more than it should.
    #[must_use]
    pub fn queued_bytes(&self, k: &Kernel, id: ConnId) -> u64 {
        self.conns
            .get(&id.0)
            .map_or(0, |conn| k.network.queued_bytes(conn.sock))
    }

    pub fn marks(&self, into: &mut Marks) {
        for link in self.conns.values().filter_map(|conn| conn.link.as_ref()) {
            into.add(link.machine.marks());
        }
    }

    fn of_sock(&mut self, k: &mut Kernel, sock: Sock, input: client::Input) -> bool {
        let Some(id) = self.by_sock.get(&sock.conn).copied() else {
            return false;
        };
        self.input(k, id, input);
        true
    }

    fn input(&mut self, k: &mut Kernel, id: u64, input: client::Input) {
        let link = self.conns.get_mut(&id).and_then(|conn| conn.link.as_mut());
        if let Some(link) = link {
            link.input(k, input);
            self.drain(k, id);
        }
    }

    fn drain(&mut self, k: &mut Kernel, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (node, most) = (self.node, self.hop_most_us);
        loop {
            let Some(link) = &mut conn.link else { return };
            let Some(output) = link.output(k) else { return };
            match output {
                client::Output::Send(bytes) => {
                    conn.hello.get_or_insert_with(|| bytes.clone());
                    let counted = false;
                    k.write(conn.sock, Packet::Text { bytes, counted });
                }
                client::Output::Ping => k.write(conn.sock, Packet::Ping),
                client::Output::Up(ack) => conn.hop(k, node, most, FromLink::Up(ack)),
                client::Output::Frame(frame) => conn.hop(k, node, most, FromLink::Frame(frame)),
                client::Output::Close(close) => k.close(conn.sock, close),
                client::Output::Down(down) => {
                    conn.hop(k, node, most, FromLink::Down(down));
                    if let Some(mut link) = conn.link.take() {
                        assert!(
                            link.output(k).is_none(),
                            "a link says nothing after its Down"
                        );
                        k.marks.add(link.machine.marks());
                    }
                }
            }
        }
    }
}

impl ClientConn {
    fn hop(&mut self, k: &mut Kernel, node: NodeId, most_us: u64, said: FromLink) {
        self.to_machine.push_back(said);
        let soon = k.now.plus_us(self.hops.below(most_us + 1));
        self.to_machine_at = self.to_machine_at.max(soon);
        let incarnation = k.incarnation(node);
        let event = NodeEvent::Hop {
            queue: self.id.0,
            to_machine: true,
        };
        k.tell_at(self.to_machine_at, node, incarnation, event);
    }
}

//! A broker: a `Mesh` and a driver of its store for each mesh, a `ServerLink` for each connection, and
//! the hops between them, which are events of their own.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bowline_core::id::{ConnId, Epoch, PeerKey};
use bowline_core::limits::{INPUTS_WAITING, Limits};
use bowline_core::link::VerifiedHello;
use bowline_core::link::server;
use bowline_core::link::{ServerLink, ServerLinkConfig};
use bowline_core::mark::Marks;
use bowline_core::mesh::{self, Mesh};
use bowline_core::store::mesh::{Image, Op};
use bowline_core::store::{Txn, TxnId};
use bowline_core::time::Wall;
use bowline_core::wire::broker::StreamAt;
use bowline_core::wire::{BrokerFrame, ClientFrame, Close, encode_broker};

use crate::cast::{self, Cast, MeshIndex};
use crate::clock::Moment;
use crate::driven::{Driven, Timing};
use crate::kernel::{Halt, Kernel, NodeEvent, NodeId};
use crate::network::{Packet, Sock};
use crate::plan::{Action, Profile, StepId};
use crate::random::{Purpose, Stream};
use crate::record::Record;
use crate::stage::{FIRST_CLIENT, Planted};
use crate::store::{Driver, Said, Shared, StoreFault};
use crate::tape::Recorder;
use crate::world::{Node, NodeRole, machine_seed, same_durable};

pub struct Broker {
    node: NodeId,
    /// By mesh.
    casts: Vec<Rc<Cast>>,
    profile: Profile,
    limits: Limits,
    /// By mesh.
    stores: Vec<Shared<Image>>,
    planted: Planted,
    process: Option<Process>,
    /// Process-wide unique would do; unique over all lives is easier to read.
    next_conn: u64,
}

struct Process {
    meshes: Vec<Owned>,
    conns: BTreeMap<u64, Conn>,
    by_sock: BTreeMap<u32, u64>,
    started: Wall,
}

/// A mesh that this process owns.
struct Owned {
    mesh: Driven<Mesh>,
    driver: Driver<Image>,
}

struct Conn {
    id: ConnId,
    sock: Sock,
    /// Which its hello named.
    mesh: MeshIndex,
    /// `None` when it said its last.
    link: Option<Driven<ServerLink>>,
    /// Its hello was for sending only.
    quiet: bool,
    /// Pushed by the link, once.
    hello: Option<Arc<VerifiedHello>>,
    attached: Option<Arc<PeerKey>>,
    /// The mesh knows of it and was not told that it is gone.
    told: bool,
    link_paused: bool,
    mesh_paused: bool,
    /// As much waits for the mesh as may.
    is_full: bool,
    to_mesh: VecDeque<mesh::Input>,
    from_mesh: VecDeque<FromMesh>,
    /// When the last of each queue arrives.
    to_mesh_at: Moment,
    from_mesh_at: Moment,
    hops: Stream,
}

/// Inputs of one connection that wait for the mesh: less than there can be of all, so that what one
/// adds at once stays within that.
const WAITING_MOST: usize = INPUTS_WAITING / 2;

enum FromMesh {
    Attached,
    Send(bytes::Bytes),
    Close(Close),
    Pause(bool),
}

impl Broker {
    #[must_use]
    pub fn new(
        node: NodeId,
        casts: Vec<Rc<Cast>>,
        profile: Profile,
        limits: Limits,
        stores: Vec<Shared<Image>>,
        planted: Planted,
    ) -> Self {
        Self {
            node,
            casts,
            profile,
            limits,
            stores,
            planted,
            process: None,
            next_conn: 0,
        }
    }

    fn timing(&self) -> Timing {
        Timing {
            late_most_us: self.profile.timer_late_most_us,
            spurious_per_mille: self.profile.spurious_per_mille,
        }
    }

    fn config(&self, mesh: MeshIndex) -> mesh::Config {
        let cast = &self.casts[mesh];
        let ages = &self.profile.ages;
        mesh::Config {
            mesh: cast.mesh.clone(),
            owner_pubkey: cast.crypto.public_key(&cast.owner),
            open: ages.open,
            limits: self.limits.clone(),
            offered_instead: ages
                .broker(self.node)
                .offers
                .instead(&self.limits, ages.open),
        }
    }

    /// Begins to own a mesh, behind whoever owned it before.
    fn own(&self, k: &mut Kernel, mesh: MeshIndex) -> Owned {
        let profile = self.profile.broker_store.clone();
        let (driver, recovered) = Driver::start(&self.stores[mesh], profile, self.node, mesh, k);
        let life = (mesh as u32) << 24 ^ k.incarnation(self.node);
        let seed = machine_seed(&k.random, self.node, life);
        let config = self.config(mesh);
        let began = k.clock(self.node);
        let begin = move || Mesh::new(config.clone(), seed, recovered.clone(), began);
        let machine = Driven::new(begin(), self.node, slot_of(mesh), self.timing());
        let tapes = k.tapes.as_ref();
        let recorder = tapes.map(|tapes| Recorder::new(&tapes.meshes, began, begin));
        Owned {
            mesh: machine.recorded(recorder),
            driver,
        }
    }

    fn mesh_at(&self, slot: Option<u64>) -> Option<MeshIndex> {
        (0..self.stores.len()).find(|mesh| slot_of(*mesh) == slot)
    }

    fn accept(&mut self, k: &mut Kernel, sock: Sock) {
        self.next_conn += 1;
        let id = self.next_conn;
        let timing = self.timing();
        let Some(started) = self.process.as_ref().map(|process| process.started) else {
            return;
        };
        let config = ServerLinkConfig {
            started,
            version: self.profile.ages.broker(self.node).version(),
        };
        let link = ServerLink::new(
            k.clock(self.node),
            config,
            Arc::clone(&self.casts[0].crypto),
        );
        let Some(process) = &mut self.process else {
            return;
        };
        process.by_sock.insert(sock.conn, id);
        process.conns.insert(
            id,
            Conn {
                id: ConnId(id),
                sock,
                mesh: 0,
                link: Some(Driven::new(link, self.node, Some(id), timing)),
                quiet: false,
                hello: None,
                attached: None,
                told: false,
                link_paused: false,
                mesh_paused: false,
                is_full: false,
                to_mesh: VecDeque::new(),
                from_mesh: VecDeque::new(),
                to_mesh_at: Moment(0),
                from_mesh_at: Moment(0),
                hops: k.random.stream(Purpose::Hop, (self.node as u64) << 32 | id),
            },
        );
        k.accept(sock);
        self.drain_link(k, id);
    }

    fn link_input(&mut self, k: &mut Kernel, id: u64, input: server::Input) {
        let link = self
            .process
            .as_mut()
            .and_then(|process| process.conns.get_mut(&id))
            .and_then(|conn| conn.link.as_mut());
        let Some(link) = link else {
            return;
        };
        link.input(k, input);
        self.drain_link(k, id);
    }

    fn drain_link(&mut self, k: &mut Kernel, id: u64) {
        let hop_most_us = self.profile.hop_most_us;
        let node = self.node;
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(conn) = process.conns.get_mut(&id) else {
            return;
        };
        while let Some(output) = conn.link.as_mut().and_then(|link| link.output(k)) {
            match output {
                server::Output::Attach(hello) => {
                    conn.told = true;
                    conn.mesh = cast::index_of(&self.casts, &hello.mesh);
                    conn.quiet = hello.offer.is_quiet();
                    conn.hello = Some(Arc::new((*hello).clone()));
                    let input = mesh::Input::Attach {
                        conn: conn.id,
                        hello,
                        local: false,
                    };
                    conn.hop_to_mesh(k, node, hop_most_us, input);
                }
                server::Output::Frame(frame) => {
                    let input = mesh::Input::Frame {
                        conn: conn.id,
                        frame,
                    };
                    conn.hop_to_mesh(k, node, hop_most_us, input);
                }
                server::Output::Send(bytes) => {
                    let counted = false;
                    k.write(conn.sock, Packet::Text { bytes, counted });
                }
                server::Output::Ping => k.write(conn.sock, Packet::Ping),
                server::Output::Pause => {
                    conn.link_paused = true;
                    conn.update_reading(k);
                }
                server::Output::Resume => {
                    conn.link_paused = false;
                    conn.update_reading(k);
                }
                server::Output::Close(close) => {
                    k.close(conn.sock, close);
                    conn.gone(k, node, hop_most_us);
                }
            }
        }
        let over = conn.is_over();
        self.forget_if(over, id);
    }

    fn mesh_input(&mut self, k: &mut Kernel, mesh: MeshIndex, input: mesh::Input) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.meshes[mesh].mesh.input(k, input);
        self.drain_mesh(k, mesh);
    }

    fn drain_mesh(&mut self, k: &mut Kernel, mesh: MeshIndex) {
        let hop_most_us = self.profile.hop_most_us;
        let node = self.node;
        let Some(process) = &mut self.process else {
            return;
        };
        let owned = &mut process.meshes[mesh];
        while let Some(output) = owned.mesh.output(k) {
            match output {
                mesh::Output::Attached { conn } => {
                    let Some(conn) = process.conns.get_mut(&conn.0) else {
                        continue;
                    };
                    if let Some(hello) = &conn.hello {
                        let peer = Arc::new(hello.key.clone());
                        conn.attached = Some(Arc::clone(&peer));
                        let (conn_id, hello) = (conn.id, Arc::clone(hello));
                        let attached = if conn.quiet {
                            Record::QuietAttached {
                                node,
                                conn: conn_id,
                                peer,
                                hello,
                            }
                        } else {
                            Record::Attached {
                                node,
                                conn: conn_id,
                                peer,
                                hello,
                            }
                        };
                        k.record_in(mesh, attached);
                    }
                    conn.hop_from_mesh(k, node, hop_most_us, FromMesh::Attached);
                }
                mesh::Output::Send { conn, frame } => {
                    let Some(conn) = process.conns.get_mut(&conn.0) else {
                        continue;
                    };
                    if let Some(peer) = &conn.attached {
                        let sent = Record::Sent {
                            node,
                            conn: conn.id,
                            peer: Arc::clone(peer),
                            frame: frame.clone(),
                            queued_bytes: k.network.queued_bytes(conn.sock),
                        };
                        k.record_in(mesh, sent);
                    }
                    conn.hop_from_mesh(k, node, hop_most_us, FromMesh::Send(frame));
                }
                mesh::Output::Close { conn, close } => {
                    let Some(conn) = process.conns.get_mut(&conn.0) else {
                        continue;
                    };
                    if let Some(hello) = &conn.hello {
                        let dismissed = Record::Dismissed {
                            node,
                            conn: conn.id,
                            peer: Arc::new(hello.key.clone()),
                            quiet: conn.quiet,
                            close: close.clone(),
                        };
                        k.record_in(mesh, dismissed);
                    }
                    conn.hop_from_mesh(k, node, hop_most_us, FromMesh::Close(close));
                }
                mesh::Output::Pause { conn } => {
                    if let Some(conn) = process.conns.get_mut(&conn.0) {
                        conn.hop_from_mesh(k, node, hop_most_us, FromMesh::Pause(true));
                    }
                }
                mesh::Output::Resume { conn } => {
                    if let Some(conn) = process.conns.get_mut(&conn.0) {
                        conn.hop_from_mesh(k, node, hop_most_us, FromMesh::Pause(false));
                    }
                }
                mesh::Output::Persist(txn) => {
                    let txn = match self.planted {
                        Planted::Nothing => txn,
                        Planted::DroppedDelivery => without_some_deliveries(&txn),
                    };
                    owned.driver.submit(k, txn);
                }
                mesh::Output::Load { load, what } => owned.driver.load(k, load, what),
                mesh::Output::Response { request, response } => {
                    k.trace.say(
                        k.now,
                        format_args!("      response {request:?} {response:?}"),
                    );
                }
            }
        }
        let sizes = owned.mesh.machine.sizes();
        k.record_in(mesh, Record::Sizes { node, sizes });
    }

    /// A hop towards the mesh has arrived.
    fn arrived_at_mesh(&mut self, k: &mut Kernel, id: u64) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(conn) = process.conns.get_mut(&id) else {
            return;
        };
        let Some(input) = conn.to_mesh.pop_front() else {
            return;
        };
        conn.update_fullness(k);
        if let (mesh::Input::Frame { frame, .. }, Some(peer)) = (&input, &conn.attached)
            && matches!(frame, ClientFrame::Bye)
            && !conn.quiet
        {
            let bye = Record::Bye {
                node: self.node,
                conn: conn.id,
                peer: Arc::clone(peer),
            };
            k.record_in(conn.mesh, bye);
        }
        if let (mesh::Input::Frame { frame, .. }, Some(peer)) = (&input, &conn.attached)
            && is_moderation(frame)
        {
            let moderation = Record::Moderation {
                node: self.node,
                peer: Arc::clone(peer),
                frame: Box::new(frame.clone()),
            };
            k.record_in(conn.mesh, moderation);
        }
        if let (mesh::Input::Frame { frame, .. }, Some(peer)) = (&input, &conn.attached)
            && let ClientFrame::SetStatus { status, .. } = frame
        {
            let heard = Record::StatusHeard {
                peer: Arc::clone(peer),
                status: *status,
            };
            k.record_in(conn.mesh, heard);
        }
        if let (mesh::Input::Closed { .. }, Some(peer)) = (&input, &conn.attached)
            && !conn.quiet
        {
            let detached = Record::Detached {
                node: self.node,
                conn: conn.id,
                peer: Arc::clone(peer),
            };
            k.record_in(conn.mesh, detached);
        }
        let (over, mesh) = (conn.is_over(), conn.mesh);
        self.forget_if(over, id);
        self.mesh_input(k, mesh, input);
    }

    /// A hop from the mesh has arrived at the connection.
    fn arrived_at_conn(&mut self, k: &mut Kernel, id: u64) {
        let hop_most_us = self.profile.hop_most_us;
        let node = self.node;
        let conn = self
            .process
            .as_mut()
            .and_then(|process| process.conns.get_mut(&id));
        let Some(conn) = conn else {
            return;
        };
        match conn.from_mesh.pop_front() {
            Some(FromMesh::Attached) => self.link_input(k, id, server::Input::Attached),
            Some(FromMesh::Send(bytes)) => {
                let counted = true;
                k.write(conn.sock, Packet::Text { bytes, counted });
            }
            Some(FromMesh::Pause(paused)) => {
                conn.mesh_paused = paused;
                conn.update_reading(k);
            }
            Some(FromMesh::Close(close)) => {
                k.close(conn.sock, close);
                if let Some(link) = &mut conn.link {
                    link.input(k, server::Input::Closed);
                }
                conn.gone(k, node, hop_most_us);
                self.drain_link(k, id);
            }
            None => {}
        }
    }

    fn received(&mut self, k: &mut Kernel, sock: Sock, packet: Packet) {
        let Some(id) = self.conn_of(sock) else {
            return;
        };
        if let Some(process) = &self.process
            && let Some(conn) = process.conns.get(&id)
            && let Some(peer) = conn.attached.clone()
        {
            let heard = Record::Heard {
                node: self.node,
                conn: conn.id,
                peer,
            };
            k.record_in(conn.mesh, heard);
        }
        let input = match packet {
            Packet::Text { bytes, .. } => {
                k.record(Record::Reached {
                    bytes: bytes.clone(),
                });
                server::Input::Text(bytes)
            }
            Packet::Ping => {
                k.write(sock, Packet::Pong);
                server::Input::Alive
            }
            Packet::Pong | Packet::Close(_) => server::Input::Alive,
        };
        self.link_input(k, id, input);
    }

    fn handed(&mut self, k: &mut Kernel, sock: Sock, bytes: u64, pings: u32) {
        let Some(id) = self.conn_of(sock) else {
            return;
        };
        for _ in 0..pings {
            self.link_input(k, id, server::Input::PingSent);
        }
        let conn = self
            .process
            .as_mut()
            .and_then(|process| process.conns.get_mut(&id));
        if let Some(conn) = conn
            && bytes > 0
            && conn.told
        {
            let input = mesh::Input::Sent {
                conn: conn.id,
                bytes,
            };
            conn.hop_to_mesh(k, self.node, self.profile.hop_most_us, input);
        }
    }

    fn closed(&mut self, k: &mut Kernel, sock: Sock) {
        let (node, hop_most_us) = (self.node, self.profile.hop_most_us);
        let Some(id) = self.conn_of(sock) else {
            return;
        };
        let conn = self
            .process
            .as_mut()
            .and_then(|process| process.conns.get_mut(&id));
        let Some(conn) = conn else {
            return;
        };
        if let Some(link) = &mut conn.link {
            link.input(k, server::Input::Closed);
        }
        conn.gone(k, node, hop_most_us);
        self.drain_link(k, id);
    }

    fn store_said(&mut self, k: &mut Kernel, mesh: MeshIndex, said: Said<Image>) {
        match said {
            Said::Nothing => {}
            Said::Event(event) => self.mesh_input(k, mesh, mesh::Input::Store(event)),
            Said::Fenced => k.halt(self.node, Halt::Fenced),
            Said::Broken(what) => k.halt(self.node, Halt::Broken(what)),
        }
    }

    fn conn_of(&self, sock: Sock) -> Option<u64> {
        self.process.as_ref()?.by_sock.get(&sock.conn).copied()
    }

    fn committed(&self, k: &mut Kernel, mesh: MeshIndex, ops: Vec<(TxnId, Vec<Op>)>) {
        let node = self.node;
        for (txn, ops) in ops {
            k.record_in(mesh, Record::MeshCommitted { node, txn, ops });
        }
    }

    fn forget_if(&mut self, over: bool, id: u64) {
        if let Some(process) = &mut self.process
            && over
            && let Some(conn) = process.conns.remove(&id)
        {
            process.by_sock.remove(&conn.sock.conn);
        }
    }
}

fn is_moderation(frame: &ClientFrame) -> bool {
    matches!(
        frame,
        ClientFrame::Kick { .. }
            | ClientFrame::Disconnect { .. }
            | ClientFrame::Ban { .. }
            | ClientFrame::Unban { .. }
            | ClientFrame::ListBans { .. }
    )
}

/// The timers of meshes beside those of connections, which count upwards.
fn slot_of(mesh: MeshIndex) -> Option<u64> {
    (mesh > 0).then(|| u64::MAX - mesh as u64)
}

/// The planted bug: a store that says that it is durable and drops one delivery in seven.
fn without_some_deliveries(txn: &Txn<Op>) -> Txn<Op> {
    let kept = |op: &&Op| !matches!(op, Op::DeliveryPut { seq, .. } if seq.0 % 7 == 0);
    Txn {
        id: txn.id,
        ops: Arc::new(txn.ops.iter().filter(kept).cloned().collect()),
    }
}

impl Conn {
    fn hop_to_mesh(&mut self, k: &mut Kernel, node: NodeId, most_us: u64, input: mesh::Input) {
        self.to_mesh.push_back(input);
        self.update_fullness(k);
        let soon = k.now.plus_us(self.hops.below(most_us + 1));
        self.to_mesh_at = self.to_mesh_at.max(soon);
        let incarnation = k.incarnation(node);
        let event = NodeEvent::Hop {
            queue: self.id.0,
            to_machine: true,
        };
        k.tell_at(self.to_mesh_at, node, incarnation, event);
    }

    fn hop_from_mesh(&mut self, k: &mut Kernel, node: NodeId, most_us: u64, what: FromMesh) {
        self.from_mesh.push_back(what);
        let soon = k.now.plus_us(self.hops.below(most_us + 1));
        self.from_mesh_at = self.from_mesh_at.max(soon);
        let incarnation = k.incarnation(node);
        let event = NodeEvent::Hop {
            queue: self.id.0,
            to_machine: false,
        };
        k.tell_at(self.from_mesh_at, node, incarnation, event);
    }

    /// The socket is gone, whoever closed it: the mesh is told once.
    fn gone(&mut self, k: &mut Kernel, node: NodeId, most_us: u64) {
        if let Some(link) = self.link.take() {
            k.marks.add(link.machine.marks());
        }
        if std::mem::take(&mut self.told) {
            let input = mesh::Input::Closed { conn: self.id };
            self.hop_to_mesh(k, node, most_us, input);
        }
    }

    fn update_fullness(&mut self, k: &mut Kernel) {
        let is_full = self.to_mesh.len() >= WAITING_MOST;
        if is_full != self.is_full {
            self.is_full = is_full;
            self.update_reading(k);
        }
    }

    fn update_reading(&self, k: &mut Kernel) {
        let paused = self.link_paused || self.mesh_paused || self.is_full;
        k.set_reading(self.sock, !paused);
    }

    fn is_over(&self) -> bool {
        self.link.is_none() && self.to_mesh.is_empty()
    }
}

impl Node for Broker {
    fn start(&mut self, k: &mut Kernel) {
        let meshes = (0..self.stores.len())
            .map(|mesh| self.own(k, mesh))
            .collect();
        self.process = Some(Process {
            meshes,
            conns: BTreeMap::new(),
            by_sock: BTreeMap::new(),
            started: k.clock(self.node).wall,
        });
        for mesh in 0..self.stores.len() {
            self.drain_mesh(k, mesh);
        }
    }

    fn stop(&mut self, k: &mut Kernel) {
        let Some(process) = self.process.take() else {
            return;
        };
        for link in process.conns.values().filter_map(|conn| conn.link.as_ref()) {
            k.marks.add(link.machine.marks());
        }
        for (mesh, owned) in process.meshes.into_iter().enumerate() {
            k.marks.add(owned.mesh.machine.marks());
            let mut ops = Vec::new();
            owned.driver.crash(k, &mut ops);
            self.committed(k, mesh, ops);
        }
    }

    /// Every connection is told, as the shell tells it.
    fn begin_stop(&mut self, k: &mut Kernel) {
        let (node, hop_most_us) = (self.node, self.profile.hop_most_us);
        let Some(process) = &mut self.process else {
            return;
        };
        let ids: Vec<u64> = process.conns.keys().copied().collect();
        for id in ids {
            let process = self.process.as_mut();
            if let Some(conn) = process.and_then(|process| process.conns.get_mut(&id)) {
                k.close(conn.sock, Close::new(Close::GOING_AWAY, "the broker stops"));
                if let Some(link) = &mut conn.link {
                    link.input(k, server::Input::Closed);
                }
                conn.gone(k, node, hop_most_us);
                self.drain_link(k, id);
            }
        }
    }

    fn is_done(&self) -> bool {
        let process = self.process.as_ref();
        process.is_none_or(|process| process.conns.is_empty()) && self.in_flight() == 0
    }

    fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn role(&self) -> NodeRole {
        NodeRole::Broker
    }

    fn on(&mut self, k: &mut Kernel, event: NodeEvent) {
        match event {
            NodeEvent::Accepted(sock) => self.accept(k, sock),
            NodeEvent::Received { sock, packet } => self.received(k, sock, packet),
            NodeEvent::Handed { sock, bytes, pings } => self.handed(k, sock, bytes, pings),
            NodeEvent::Closed { sock, .. } => self.closed(k, sock),
            NodeEvent::Timer(slot) if self.mesh_at(slot).is_some() => {
                let mesh = self.mesh_at(slot).unwrap_or_default();
                if let Some(process) = &mut self.process {
                    process.meshes[mesh].mesh.timer(k);
                    self.drain_mesh(k, mesh);
                }
            }
            NodeEvent::Timer(slot) => {
                let id = slot.unwrap_or_default();
                let link = self
                    .process
                    .as_mut()
                    .and_then(|process| process.conns.get_mut(&id))
                    .and_then(|conn| conn.link.as_mut());
                if let Some(link) = link {
                    link.timer(k);
                    self.drain_link(k, id);
                }
            }
            NodeEvent::Hop {
                queue,
                to_machine: true,
            } => self.arrived_at_mesh(k, queue),
            NodeEvent::Hop {
                queue,
                to_machine: false,
            } => self.arrived_at_conn(k, queue),
            NodeEvent::Committed { store } => {
                let Some(process) = &mut self.process else {
                    return;
                };
                let mut ops = Vec::new();
                let said = process.meshes[store].driver.committed(k, &mut ops);
                self.committed(k, store, ops);
                self.store_said(k, store, said);
            }
            NodeEvent::Loaded { store, nth } => {
                let Some(process) = &mut self.process else {
                    return;
                };
                let said = process.meshes[store].driver.loaded(k, nth);
                self.store_said(k, store, said);
            }
            NodeEvent::Connected(_)
            | NodeEvent::ConnectFailed(_)
            | NodeEvent::Process(_)
            | NodeEvent::Beside(_) => {}
        }
    }

    fn act(&mut self, k: &mut Kernel, _: StepId, action: &Action) {
        let Action::Miscount { client } = action else {
            return;
        };
        let Some(process) = &self.process else { return };
        let lie = BrokerFrame::Stream(StreamAt {
            epoch: Epoch([0; 16]),
            count: u64::MAX / 2,
        });
        for conn in process.conns.values() {
            let dialer = k.network.dialer_of(conn.sock.conn);
            if dialer == FIRST_CLIENT + client && conn.attached.is_some() && conn.link.is_some() {
                k.record(Record::Lied { node: dialer });
                let (bytes, counted) = (encode_broker(&lie), false);
                k.write(conn.sock, Packet::Text { bytes, counted });
            }
        }
    }

    fn set_store_fault(&mut self, k: &mut Kernel, fault: Option<StoreFault>) {
        k.record(Record::StoreFault {
            broken: fault.is_some(),
        });
        // One database holds them all.
        for store in &self.stores {
            store.borrow_mut().fault = fault;
        }
    }

    fn in_flight(&self) -> usize {
        let process = self.process.iter();
        let meshes = process.flat_map(|process| &process.meshes);
        meshes.map(|owned| owned.driver.in_flight()).sum()
    }

    fn heal(&mut self, _: &mut Kernel) {}

    fn unmet(&self, _: &Kernel) -> Option<String> {
        let meshes = &self.process.as_ref()?.meshes;
        let loads = meshes.iter().map(|owned| owned.driver.loads_in_flight());
        let in_flight = self.in_flight() + loads.sum::<usize>();
        (in_flight > 0).then(|| format!("the broker's store has {in_flight} things in hand"))
    }

    fn check_recovery(&self, k: &Kernel) -> Result<(), String> {
        let meshes = self.process.iter().flat_map(|process| &process.meshes);
        for (mesh, owned) in meshes.enumerate() {
            let held = self.stores[mesh].borrow();
            let recovered = held.image.recover(held.owner);
            drop(held);
            let live = &owned.mesh.machine;
            let again = Mesh::new(self.config(mesh), [0; 32], recovered, k.clock(self.node));
            same_durable("the mesh", &live.durable(), &again.durable())?;
        }
        Ok(())
    }

    fn marks(&self, into: &mut Marks) {
        let Some(process) = &self.process else { return };
        for owned in &process.meshes {
            into.add(owned.mesh.machine.marks());
        }
        for link in process.conns.values().filter_map(|conn| conn.link.as_ref()) {
            into.add(link.machine.marks());
        }
    }
}

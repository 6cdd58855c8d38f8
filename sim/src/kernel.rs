//! What every node of a world may touch: time, the event heap, clocks, the network, the trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bowline_core::id::{MessageId, PubKey};
use bowline_core::mark::Marks;
use bowline_core::time::Now;
use bowline_core::wire::Close;

use crate::cast::MeshIndex;
use crate::clock::{Clock, Moment};
use crate::fault_mark::FaultMarks;
use crate::network::{End, Network, Packet, Sock};
use crate::random::{Purpose, Random};
use crate::record::Record;
use crate::tape::Tapes;
use crate::trace::Trace;

/// A process, or the place where one runs: its index in the world.
pub type NodeId = usize;

/// What a node is told. Whatever is behind a queue (a pipe, a hop) is a token: the node or the
/// network pops the head, so that order within a queue is kept whatever the heap does.
#[derive(Debug)]
pub enum NodeEvent {
    Accepted(Sock),
    Connected(Sock),
    ConnectFailed(Sock),
    Received {
        sock: Sock,
        packet: Packet,
    },
    Handed {
        sock: Sock,
        bytes: u64,
        pings: u32,
    },
    Closed {
        sock: Sock,
        close: Close,
    },
    /// A deadline of the machine (`None`) or of one connection's link may be due.
    Timer(Option<u64>),
    /// The head of a queue between a link and its machine.
    Hop {
        queue: u64,
        to_machine: bool,
    },
    /// A store of the process is done with what it has in hand.
    Committed {
        store: MeshIndex,
    },
    Loaded {
        store: MeshIndex,
        nth: u64,
    },
    /// An appointment of the process with itself.
    Process(u64),
    /// An appointment of somebody at that place who is not its process: neither a crash nor a
    /// pause keeps it from happening.
    Beside(u64),
}

#[derive(Debug)]
pub enum Event {
    Node {
        node: NodeId,
        incarnation: u32,
        event: NodeEvent,
    },
    Establish {
        conn: u32,
    },
    DialFailed {
        conn: u32,
    },
    Deliver {
        conn: u32,
        from: End,
    },
    Handed {
        conn: u32,
        end: End,
    },
    Reset {
        conn: u32,
        end: End,
    },
    /// The next step of the plan.
    Step(usize),
    /// A fault that ends by itself, and other appointments of the world.
    World(WorldEvent),
}

/// Why a process stops by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Its store has another owner.
    Fenced,
    /// It asked of its store what no owner in its right mind asks.
    Broken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorldEvent {
    Restart(NodeId),
    Continue(NodeId),
    DialsMend(NodeId),
    StoreMends(NodeId),
    /// A former owner ends, if it is not the owner again.
    Stop(NodeId),
    CrashIfInFlight {
        node: NodeId,
        down_ms: u64,
        tries: u32,
    },
    StopWhenDone(Stop),
    /// Every connection of every client.
    ResetAll,
    Heal,
}

/// A process that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub node: NodeId,
    /// One life of it.
    pub incarnation: u32,
    /// Longer nobody waits.
    pub until: Moment,
    /// Whoever stops waiting kills it.
    pub killed: bool,
    pub down_ms: u64,
}

struct Entry {
    at: Moment,
    tie: u64,
    nth: u64,
    event: Event,
}

pub struct Kernel {
    pub now: Moment,
    pub random: Random,
    pub trace: Trace,
    pub network: Network,
    pub clocks: Vec<Clock>,
    pub marks: Marks,
    pub fault_marks: FaultMarks,
    /// Messages that some puppet was pushed, for one that acknowledges what is not its own.
    pub gossip: Vec<MessageId>,
    /// Keys of the users whose sessions were opened.
    pub addresses: BTreeMap<usize, PubKey>,
    /// What the oracles have not seen yet, and those of which mesh are to see it: `None` is all.
    pub records: Vec<(Moment, Option<MeshIndex>, Record)>,
    /// Only where somebody asked for them.
    pub tapes: Option<Tapes>,
    incarnations: Vec<u32>,
    heap: BinaryHeap<Reverse<Entry>>,
    pushed: u64,
    pub(crate) halts: Vec<(NodeId, Halt)>,
    /// Crashes, for so long, when it writes its next frame.
    pub(crate) crash_on_write: Option<(NodeId, u64)>,
    /// It has written it.
    pub(crate) wrote: Option<(NodeId, u64)>,
    pub(crate) immediate: VecDeque<(NodeId, u32, NodeEvent)>,
}

impl Kernel {
    #[must_use]
    pub fn new(random: Random, network: Network, clocks: Vec<Clock>, trace: Trace) -> Self {
        Self {
            now: Moment(0),
            random,
            trace,
            network,
            incarnations: vec![0; clocks.len()],
            clocks,
            marks: Marks::default(),
            fault_marks: FaultMarks::default(),
            gossip: Vec::new(),
            addresses: BTreeMap::new(),
            records: Vec::new(),
            tapes: None,
            heap: BinaryHeap::new(),
            pushed: 0,
            halts: Vec::new(),
            crash_on_write: None,
            wrote: None,
            immediate: VecDeque::new(),
        }
    }

    /// What the clocks of `node`'s host say.
    #[must_use]
    pub fn clock(&self, node: NodeId) -> Now {
        self.clocks[node].read(self.now)
    }

    pub fn at(&mut self, at: Moment, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse(Entry {
            at: at.max(self.now),
            tie: self.random.draw(Purpose::TieBreak, at.0, self.pushed),
            nth: self.pushed,
            event,
        }));
    }

    /// Before anything else happens, in the order of these calls: what comes out of a queue must
    /// not be reordered by the heap.
    pub fn tell_now(&mut self, node: NodeId, incarnation: u32, event: NodeEvent) {
        self.immediate.push_back((node, incarnation, event));
    }

    /// The process at `node` cannot go on.
    pub fn halt(&mut self, node: NodeId, halt: Halt) {
        self.halts.push((node, halt));
    }

    pub fn tell_later(&mut self, us: u64, node: NodeId, event: NodeEvent) {
        let incarnation = self.incarnations[node];
        self.tell_at(self.now.plus_us(us), node, incarnation, event);
    }

    /// For one life of `node` only: a later one does not hear it.
    pub fn tell_at(&mut self, at: Moment, node: NodeId, incarnation: u32, event: NodeEvent) {
        self.at(
            at,
            Event::Node {
                node,
                incarnation,
                event,
            },
        );
    }

    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> u32 {
        self.incarnations[node]
    }

    /// The process at `node` is another from now on.
    pub fn next_incarnation(&mut self, node: NodeId) {
        self.incarnations[node] += 1;
    }

    pub fn record(&mut self, record: Record) {
        self.records.push((self.now, None, record));
    }

    /// Seen in one mesh only.
    pub fn record_in(&mut self, mesh: MeshIndex, record: Record) {
        self.records.push((self.now, Some(mesh), record));
    }

    #[must_use]
    pub fn next_at(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub fn pop(&mut self) -> Option<Event> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie, self.nth).cmp(&(other.at, other.tie, other.nth))
    }
}

//! One event of 256 bytes to everybody: from the `Persisted` that opens the gate to the last frame
//! handed out. The floor is a loop that clones one shared buffer for as many recipients.

use std::hint::black_box;
use std::time::Duration;

use benches::counting::{Allocated, Counting};
use benches::report::{median, ratio, timed};
use benches::room::{Room, conn};
use bowline_core::id::ConnId;
use bowline_core::wire::ClientFrame;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIVE_PEERS: [usize; 4] = [10, 100, 1_000, 10_000];
const EVENT_BYTES: usize = 256;
/// A ring that has not been round once still grows.
const RING_EVENTS: usize = 500;

fn main() {
    fanout();
    print_table();
}

criterion_group!(fanout, bench);

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout");
    group.sample_size(10);
    for peers in LIVE_PEERS {
        let mut teller = Teller::warm(peers);
        group.throughput(Throughput::Elements(peers as u64 - 1));
        group.bench_function(BenchmarkId::new("mesh", peers), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| teller.tell().took).sum());
        });
        let mut floor = Floor::new(peers - 1);
        group.bench_function(BenchmarkId::new("floor", peers), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| floor.run()).sum());
        });
    }
    group.finish();
}

fn print_table() {
    println!(
        "\n| live peers | told | ns each | floor, ns each | ratio | bytes allocated each | allocations in all |"
    );
    println!("|---|---|---|---|---|---|---|");
    for peers in LIVE_PEERS {
        let told = peers - 1;
        let rounds = 200_000 / peers.max(1_000) + 21;
        let mut teller = Teller::warm(peers);
        let took = median(rounds, || teller.tell().took);
        let allocated = teller.tell().allocated;
        let mut floor = Floor::new(told);
        let least = median(rounds, || floor.run());
        #[expect(clippy::cast_precision_loss, reason = "small numbers, for people")]
        let each = |total: f64| total / told as f64;
        println!(
            "| {peers} | {told} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
            each(took.as_secs_f64() * 1e9),
            each(least.as_secs_f64() * 1e9),
            ratio(took, least),
            each(allocated.bytes as f64),
            allocated.calls,
        );
    }
}

/// One peer whose visibility changes for ever, among others who are told.
struct Teller {
    room: Room,
    visible: bool,
}

struct Told {
    took: Duration,
    allocated: Allocated,
}

impl Teller {
    fn warm(peers: usize) -> Self {
        let mut teller = Self {
            room: Room::with_live_peers(peers),
            visible: true,
        };
        for _ in 0..=RING_EVENTS {
            teller.tell();
        }
        if !teller.visible {
            teller.tell();
        }
        teller
    }

    fn tell(&mut self) -> Told {
        self.visible = !self.visible;
        self.room.frame(
            0,
            ClientFrame::SetVisible {
                visible: self.visible,
                id: None,
                req_id: None,
            },
        );
        let before = Allocated::so_far();
        let (took, ()) = timed(|| self.room.persisted());
        let allocated = Allocated::since(before);
        self.check();
        self.room.settle();
        Told { took, allocated }
    }

    /// Everybody else was told, once, with the very same bytes; the teller has its ack.
    fn check(&self) {
        let told: Vec<&Bytes> = self
            .room
            .sends()
            .iter()
            .filter(|(to, _)| *to != conn(0))
            .map(|(_, frame)| frame)
            .collect();
        assert_eq!(told.len(), self.room.peers() - 1);
        let expected = if self.visible {
            EVENT_BYTES
        } else {
            EVENT_BYTES - 1
        };
        assert_eq!(told[0].len(), expected, "{:?}", told[0]);
        assert!(told.iter().all(|frame| frame.as_ptr() == told[0].as_ptr()));
    }
}

/// What no fan-out can do without: a handle of the bytes for each recipient, in one list.
struct Floor {
    frame: Bytes,
    recipients: Vec<ConnId>,
    sends: Vec<(ConnId, Bytes)>,
}

impl Floor {
    fn new(recipients: usize) -> Self {
        Self {
            // Shared from the start, as what comes out of an encoder is after its first clone.
            frame: {
                let frame = Bytes::from(vec![b'x'; EVENT_BYTES]);
                drop(frame.clone());
                frame
            },
            recipients: (0..recipients).map(conn).collect(),
            sends: Vec::with_capacity(recipients),
        }
    }

    fn run(&mut self) -> Duration {
        self.sends.clear();
        let (took, ()) = timed(|| {
            for to in &self.recipients {
                self.sends.push((*to, self.frame.clone()));
            }
            black_box(&self.sends);
        });
        took
    }
}

//! A direct message from the bytes of its frame to the transaction that will make it durable:
//! decoding, dedupe, limiter, routing, and the rows. The floor is a copy of the frame's bytes.

use std::hint::black_box;
use std::time::Duration;

use benches::counting::{Allocated, Counting};
use benches::report::{median, ratio, timed};
use benches::room::{Room, pubkey};
use bowline_core::wire::client::ClientAck;
use bowline_core::wire::{
    Base64Body, BrokerFrame, ClientFrame, Priority, Send, decode_broker, decode_client,
    encode_client,
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BODY_BYTES: [usize; 3] = [256, 4 * 1024, 45 * 1024];
const SENDER: usize = 0;
const RECIPIENT: usize = 1;

fn main() {
    accept();
    print_table();
}

criterion_group!(accept, bench);

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accept");
    group.sample_size(20);
    for body_bytes in BODY_BYTES {
        let mut conversation = Conversation::new(body_bytes);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("dm", body_bytes), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| conversation.send().took).sum());
        });
    }
    group.finish();
}

fn print_table() {
    const ROUNDS: usize = 2_001;
    println!(
        "\n| body, bytes | frame, bytes | µs | copying the frame, µs | ratio | bytes allocated |"
    );
    println!("|---|---|---|---|---|---|");
    for body_bytes in BODY_BYTES {
        let mut conversation = Conversation::new(body_bytes);
        let took = median(ROUNDS, || conversation.send().took);
        let allocated = conversation.send().allocated;
        let frame = conversation.next_frame();
        let least = median(ROUNDS, || {
            timed(|| black_box(Bytes::copy_from_slice(black_box(&frame)))).0
        });
        println!(
            "| {body_bytes} | {} | {:.2} | {:.3} | {:.0} | {} |",
            frame.len(),
            took.as_secs_f64() * 1e6,
            least.as_secs_f64() * 1e6,
            ratio(took, least),
            allocated.bytes,
        );
    }
}

/// One peer writes to another, who acknowledges; each message is settled before the next.
struct Conversation {
    room: Room,
    ciphertext: Base64Body,
    nonce: Base64Body,
    number: u64,
}

struct Accepted {
    took: Duration,
    allocated: Allocated,
}

impl Conversation {
    fn new(body_bytes: usize) -> Self {
        Self {
            room: Room::with_live_peers(2),
            ciphertext: Base64Body::encode(&vec![7; body_bytes]),
            nonce: Base64Body::encode(&[9; 24]),
            number: 0,
        }
    }

    fn next_frame(&mut self) -> Bytes {
        self.number += 1;
        encode_client(&ClientFrame::Send(Box::new(Send {
            id: Some(self.number.to_string()),
            client_message_id: Some(format!("{:026}", self.number).as_str().into()),
            request_fingerprint: None,
            target_spec: pubkey(RECIPIENT).to_string(),
            priority: Priority::Next,
            nonce: self.nonce.clone(),
            ciphertext: self.ciphertext.clone(),
            mentions: Vec::new(),
            reply_to_id: None,
            body_version: Some(1),
            first: true,
            seal: Some("x1".into()),
        })))
    }

    fn send(&mut self) -> Accepted {
        let frame = self.next_frame();
        self.room.pass(Duration::from_millis(10));
        let before = Allocated::so_far();
        let (took, ()) = timed(|| {
            let frame = decode_client(&frame).expect("a frame of our own");
            self.room.frame(SENDER, frame);
        });
        let allocated = Allocated::since(before);
        assert!(self.room.has_undurable() && self.room.sends().is_empty());
        self.acknowledge();
        Accepted { took, allocated }
    }

    fn acknowledge(&mut self) {
        self.room.persisted();
        let pushed = self
            .room
            .sends()
            .iter()
            .find_map(|(_, frame)| match decode_broker(frame) {
                Ok(BrokerFrame::Push(push)) => Some(push.message_id),
                _ => None,
            })
            .expect("a live recipient is pushed to");
        self.room.settle();
        self.room.frame(
            RECIPIENT,
            ClientFrame::ClientAck(ClientAck {
                client_message_id: None,
                broker_message_id: Some(pushed),
            }),
        );
        self.room.settle();
    }
}

//! Decoding and encoding of the three frames that every message costs. The floor of a decode is a
//! walk over the same JSON that keeps nothing; of an encode, a copy of what comes out.

use std::hint::black_box;
use std::time::Duration;

use benches::report::{median, ratio, timed};
use bowline_core::id::{Fingerprint, PubKey};
use bowline_core::wire::broker::{Ack, Push};
use bowline_core::wire::{
    Base64Body, BrokerFrame, ClientFrame, Priority, Send, decode_broker, decode_client,
    encode_broker, encode_client,
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use serde::de::IgnoredAny;

const BODY_BYTES: usize = 256;

fn main() {
    wire();
    print_table();
}

criterion_group!(wire, bench);

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    for subject in subjects() {
        group.throughput(Throughput::Bytes(subject.bytes.len() as u64));
        group.bench_function(BenchmarkId::new("decode", subject.name), |bencher| {
            bencher.iter(|| (subject.decode)(black_box(&subject.bytes)));
        });
        group.bench_function(BenchmarkId::new("encode", subject.name), |bencher| {
            bencher.iter(|| (subject.encode)());
        });
    }
    group.finish();
}

fn print_table() {
    println!("\n| frame | bytes | decode, ns | over a walk | encode, ns | over a copy |");
    println!("|---|---|---|---|---|---|");
    for subject in subjects() {
        let bytes = &subject.bytes;
        let decode = each(|| (subject.decode)(black_box(bytes)));
        let encode = each(|| {
            black_box((subject.encode)());
        });
        let walk = each(|| {
            black_box(serde_json::from_slice::<IgnoredAny>(black_box(bytes)).is_ok());
        });
        let copy = each(|| {
            black_box(Bytes::copy_from_slice(black_box(bytes)));
        });
        println!(
            "| {} | {} | {:.0} | {:.1} | {:.0} | {:.1} |",
            subject.name,
            bytes.len(),
            decode.as_secs_f64() * 1e9,
            ratio(decode, walk),
            encode.as_secs_f64() * 1e9,
            ratio(encode, copy),
        );
    }
}

/// The median over batches, for one.
fn each(mut work: impl FnMut()) -> Duration {
    const BATCH: u32 = 1_000;
    median(101, || timed(|| (0..BATCH).for_each(|_| work())).0 / BATCH)
}

struct Subject {
    name: &'static str,
    bytes: Bytes,
    decode: Box<dyn Fn(&[u8])>,
    encode: Box<dyn Fn() -> Bytes>,
}

fn subjects() -> [Subject; 3] {
    let (send, push, ack) = (send(), push(), ack());
    [
        Subject {
            name: "send",
            bytes: encode_client(&send),
            decode: Box::new(|bytes| {
                black_box(decode_client(bytes)).expect("a frame of our own");
            }),
            encode: Box::new(move || encode_client(&send)),
        },
        broker("push", push),
        broker("ack", ack),
    ]
}

fn broker(name: &'static str, frame: BrokerFrame) -> Subject {
    Subject {
        name,
        bytes: encode_broker(&frame),
        decode: Box::new(|bytes| {
            black_box(decode_broker(bytes)).expect("a frame of our own");
        }),
        encode: Box::new(move || encode_broker(&frame)),
    }
}

fn send() -> ClientFrame {
    ClientFrame::Send(Box::new(Send {
        id: Some("41".into()),
        client_message_id: Some("01J8ZQ4X5N3W1V0T7S6R5Q4P3M".into()),
        request_fingerprint: Some(Fingerprint([5; 32])),
        target_spec: PubKey([3; 32]).to_string(),
        priority: Priority::Next,
        nonce: Base64Body::encode(&[9; 24]),
        ciphertext: Base64Body::encode(&[7; BODY_BYTES]),
        mentions: Vec::new(),
        reply_to_id: None,
        body_version: Some(1),
        first: true,
        seal: Some("x1".into()),
    }))
}

fn push() -> BrokerFrame {
    BrokerFrame::Push(Box::new(Push {
        message_id: "01J8ZQ4X5N3W1V0T7S6R5Q4P3N".into(),
        mesh_id: "01J8ZQ4X5N3W1V0T7S6R5Q4P3K".into(),
        sender_pubkey: PubKey([3; 32]),
        sender_member_pubkey: Some(PubKey([4; 32])),
        sender_member_id: Some("01J8ZQ4X5N3W1V0T7S6R5Q4P3J".into()),
        sender_name: "alice".into(),
        reply_to_id: None,
        priority: Priority::Next,
        nonce: Base64Body::encode(&[9; 24]),
        ciphertext: Base64Body::encode(&[7; BODY_BYTES]),
        created_at: "2026-01-31T12:00:00.000Z".into(),
        client_message_id: "01J8ZQ4X5N3W1V0T7S6R5Q4P3M".into(),
        request_fingerprint: Some(Fingerprint([5; 32])),
        body_version: Some(1),
        target_spec: Some(PubKey([6; 32]).to_string()),
        seal: Some("x1".into()),
        attempt: None,
    }))
}

fn ack() -> BrokerFrame {
    BrokerFrame::Ack(Box::new(Ack {
        id: Some("41".into()),
        message_id: "01J8ZQ4X5N3W1V0T7S6R5Q4P3N".into(),
        queued: true,
        ..Ack::default()
    }))
}

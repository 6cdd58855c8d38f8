//! The broker's store is away for as long as fifteen minutes are here, under load.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Session, temp, two_hosts, wait_for};

/// Longer than an accept may stay open, and than the longest rest between two tries of the store.
const AWAY_FOR: Duration = Duration::from_secs(15);

#[test]
fn while_the_store_is_away_all_is_deferred_and_afterwards_all_arrives() {
    let dir = temp();
    let (broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    // Writes for the first time when the store is away: what she sends is deferred from the start,
    // where theirs is under way already.
    let eve = south.session("eve");
    ada.until_sees("bob", "live");
    bob.until_sees("ada", "live");
    let mut to_bob = vec!["before".to_owned()];
    send(&ada, "bob", "before");
    bob.until_bodies(&["before"]);
    assert_eq!(get(broker.address, "/readyz").0, 200);

    let database = dir.path().join("broker").join("broker.db");
    let writer = rusqlite::Connection::open(database).expect("opened");
    writer
        .busy_timeout(Duration::from_secs(10))
        .expect("a timeout can be set");
    writer.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let begun = Instant::now();
    let mut was_ready = true;
    let mut to_ada = Vec::new();
    while begun.elapsed() < AWAY_FOR {
        let body = format!("m{}", to_bob.len());
        send(&ada, "bob", &body);
        to_bob.push(body.clone());
        send(&bob, "ada", &body);
        to_ada.push(body);
        let is_ready = get(broker.address, "/readyz").0 == 200;
        assert!(was_ready || !is_ready, "ready while its store is away");
        was_ready = is_ready;
        if !is_ready {
            let body = format!("e{}", to_ada.len());
            send(&eve, "ada", &body);
            to_ada.push(body);
        }
        assert_eq!((dead(&ada), dead(&bob), dead(&eve)), (0, 0, 0));
    }
    assert!(!was_ready, "it never said that its store is away");
    assert!(busy_refusals(broker.address) > 0.0);
    assert_eq!(bob.bodies(), ["before"], "nothing undurable is pushed");
    assert_eq!(ada.bodies(), Vec::<String>::new());

    writer.execute_batch("ROLLBACK").expect("unlocked");
    wait_for("the broker to be ready", || {
        get(broker.address, "/readyz").0 == 200
    });
    for (session, bodies) in [(&bob, &mut to_bob), (&ada, &mut to_ada)] {
        bodies.sort();
        wait_for("all to arrive, each once", || {
            let mut arrived = session.bodies();
            arrived.sort();
            arrived == *bodies
        });
    }
    assert_eq!((dead(&ada), dead(&bob), dead(&eve)), (0, 0, 0));
}

fn send(from: &Session, to: &str, body: &str) {
    let sent = from.run(&["send", to, body]);
    assert_eq!(sent.code, 0, "{sent:?}");
}

fn dead(session: &Session) -> usize {
    let dead = session.run(&["outbox", "--status", "dead"]);
    dead.one()["rows"].as_array().expect("a list").len()
}

fn busy_refusals(broker: SocketAddr) -> f64 {
    let (status, metrics) = get(broker, "/metrics");
    assert_eq!(status, 200);
    let sample = "bowline_broker_refusals_total{mesh=\"team\",code=\"busy\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(sample));
    count.expect("it is exported").parse().expect("a number")
}

/// Status and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

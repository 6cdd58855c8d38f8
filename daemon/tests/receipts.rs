//! What became of a message, told to its sender: at once, when it is back, and in words.

mod common;

use std::path::Path;

use common::puppet::Puppet;
use common::{Answer, Broker, Session, hosts_at, program, temp, two_hosts, wait_for};
use serde_json::Value;

#[test]
fn a_sender_that_was_away_learns_delivered_and_seen() {
    let dir = temp();
    let (_broker, mut north, mut south) = two_hosts(dir.path());
    let ada = north.session("ada");
    let (bob, ben) = (south.session("bob"), south.session("ben"));
    ada.until_sees("bob", "live");
    ada.until_sees("ben", "live");
    south.kill();
    let read = send(&ada, "bob", "to be read");
    let unread = send(&ada, "ben", "to be left");
    until_state(&ada, &read, "accepted");
    until_state(&ada, &unread, "accepted");
    north.kill();

    south.restart();
    bob.until_bodies(&["to be read"]);
    ben.until_bodies(&["to be left"]);
    assert_eq!(bob.run(&["inbox"]).lines.len(), 1);
    // South knows that the broker knows.
    wait_for("seen to be told", || owed(&south.home) == 0);

    north.restart();
    until_state(&ada, &read, "seen");
    until_state(&ada, &unread, "delivered");
    assert_eq!(
        rungs(&explain(&ada, &read)).last().map(String::as_str),
        Some("seen")
    );
    // What it was told outlives it.
    north.kill();
    north.restart();
    assert_eq!(explain(&ada, &read)["state"], "seen");
    let outbox = ada.run(&["outbox"]);
    assert_eq!(outbox.one()["rows"][0]["state"], "seen");
}

#[test]
fn a_sender_that_was_away_learns_expired() {
    let dir = temp();
    let broker = Broker::start_with(dir.path(), &["undelivered_for=2s"]);
    let (mut north, south) = hosts_at(dir.path(), &broker);
    let ada = north.session("ada");
    let mut bob = south.session("bob");
    ada.until_sees("bob", "live");
    assert_eq!(bob.end(), Some(0));
    let id = send(&ada, "bob", "too late");
    wait_for("the broker to have it", || state(&ada, &id) != "queued");
    north.kill();
    wait_for("the broker to give it up", || {
        count(
            &dir.path().join("broker/broker.db"),
            "receipts WHERE rung = 'expired'",
        ) > 0
    });
    north.restart();
    until_state(&ada, &id, "expired");
    let words = in_words(&ada, &id);
    assert!(
        words.contains("expired: bob did not take it in time"),
        "{words}"
    );
}

#[test]
fn explain_says_what_a_message_waits_for() {
    let dir = temp();
    // A claim outlives its connection; this one not for long.
    let mut broker = Broker::start_with(dir.path(), &["claim=8s"]);
    let (north, _south) = hosts_at(dir.path(), &broker);
    let ada = north.session("ada");
    let mut eve = Puppet::join(&north, broker.address, "eve");
    ada.until_sees("eve", "live");

    eve.set_status("dnd");
    let held = send(&ada, "eve", "when you have time");
    until_words(&ada, &held, "held by status: eve");
    eve.set_status("idle");
    eve.until("push");
    until_words(&ada, &held, "claimed: pushed to eve");
    eve.disconnect();
    until_words(&ada, &held, "waiting for reattach: eve");

    broker.kill();
    let queued = send(&ada, "eve", "later");
    until_words(&ada, &queued, "waiting for the sender's uplink");
    until_words(&ada, &held, "the broker has it");

    let unknown = text_of(&ada, &["explain", "01JNOBODYKNOWSTHISONE00000"]);
    assert_eq!(unknown.0, 5, "{}", unknown.1);
    assert!(
        unknown.1.contains("no message of that id is known"),
        "{}",
        unknown.1
    );
}

#[test]
fn a_wait_ends_where_the_message_does() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");

    let delivered = ada.run(&["send", "bob", "hello", "--wait", "delivered"]);
    assert_eq!(delivered.code, 0, "{delivered:?}");
    let told: Vec<_> = delivered.lines[1..].iter().map(rung).collect();
    assert_eq!(told, ["accepted", "delivered"]);

    // Nobody looks: it says how far it came.
    let late = ada.run(&["send", "bob", "hello", "--wait", "seen", "--timeout", "2"]);
    assert_eq!(late.code, 11, "{late:?}");
    let failure = &late.lines.last().expect("a failure")["error"];
    assert_eq!(failure["code"], "wait_timed_out");
    assert_eq!(failure["state"], "delivered");

    // The same message once more, and somebody looks while it is waited for.
    let id = failure["id"].as_str().expect("an id").to_owned();
    let seen = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| ada.run(&["send", "bob", "hello", "--id", &id, "--wait", "seen"]));
        bob.run(&["inbox"]);
        waiting.join().expect("it ends")
    });
    assert_eq!(seen.code, 0, "{seen:?}");
    assert_eq!(seen.lines.last().map(rung).as_deref(), Some("seen"));
}

#[test]
fn a_wait_for_what_expires_says_so() {
    let dir = temp();
    let broker = Broker::start_with(dir.path(), &["undelivered_for=2s"]);
    let (north, south) = hosts_at(dir.path(), &broker);
    let ada = north.session("ada");
    let mut bob = south.session("bob");
    ada.until_sees("bob", "live");
    assert_eq!(bob.end(), Some(0));
    let ended = ada.run(&["send", "bob", "hello", "--wait", "delivered"]);
    assert_eq!(ended.code, 10, "{ended:?}");
    let failure = &ended.lines.last().expect("a failure")["error"];
    assert_eq!(failure["code"], "message_expired");
}

fn send(from: &Session, to: &str, body: &str) -> String {
    let sent = from.run(&["send", to, body]);
    assert_eq!(sent.code, 0, "{sent:?}");
    sent.one()["id"].as_str().expect("an id").to_owned()
}

fn explain(session: &Session, id: &str) -> Value {
    let Answer { code, lines } = session.run(&["explain", id]);
    assert_eq!(code, 0, "{lines:?}");
    lines[0].clone()
}

fn state(session: &Session, id: &str) -> String {
    let state = &explain(session, id)["state"];
    state.as_str().expect("a state").to_owned()
}

fn until_state(session: &Session, id: &str, expected: &str) {
    wait_for(&format!("{id} to be {expected}"), || {
        state(session, id) == expected
    });
}

fn rungs(message: &Value) -> Vec<String> {
    let ladder = message["ladder"].as_array().expect("a ladder");
    ladder.iter().map(rung).collect()
}

fn rung(told: &Value) -> String {
    told["rung"].as_str().unwrap_or_default().to_owned()
}

fn in_words(session: &Session, id: &str) -> String {
    let (code, words) = text_of(session, &["explain", id]);
    assert_eq!(code, 0, "{words}");
    assert!(
        words.lines().all(|line| line.chars().count() <= 80),
        "{words}"
    );
    words
}

fn until_words(session: &Session, id: &str, expected: &str) {
    wait_for(&format!("explain to say {expected:?}"), || {
        in_words(session, id).replace('\n', " ").contains(expected)
    });
}

/// What a person sees, and the exit code.
fn text_of(session: &Session, args: &[&str]) -> (i32, String) {
    let output = program()
        .args(args)
        .env("BOWLINE_HOME", &session.home)
        .env("BOWLINE_SESSION_FILE", &session.file)
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().expect("not killed");
    (code, String::from_utf8(text).expect("text"))
}

/// Messages that were read on this host and are not known to have been at their broker.
fn owed(home: &Path) -> i64 {
    count(&home.join("daemon.db"), "seen_owed")
}

fn count(database: &Path, of: &str) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = rusqlite::Connection::open_with_flags(database, flags).expect("a database");
    let query = format!("SELECT count(*) FROM {of}");
    db.query_row(&query, [], |row| row.get(0)).expect("a count")
}

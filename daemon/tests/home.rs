//! A daemon's directory, socket and database: whose they are, and what is refused.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{Host, program, run, temp, wait_for};

#[test]
fn without_a_daemon_every_verb_says_so_and_how_to_start_one() {
    let dir = temp();
    for verb in [
        &["status"][..],
        &["inbox"],
        &["outbox"],
        &["peers"],
        &["send", "bob", "x"],
        &["mesh", "list"],
        &["invite"],
        &["session", "run", "--", "true"],
    ] {
        let args: Vec<_> = ["--json"].iter().chain(verb).copied().collect();
        let output = program()
            .args(&args)
            .env("BOWLINE_HOME", dir.path())
            .output()
            .expect("it runs");
        let answer = common::answer(&output);
        assert_eq!(answer.code, 3, "{verb:?}");
        let next = answer.one()["error"]["next"].as_str().expect("what to do");
        assert!(next.contains("bowline up"), "{verb:?}: {next}");
    }
    assert_eq!(run(dir.path(), None, &["down"]).code, 3);
    let usage = program().arg("no-such-verb").output().expect("it runs");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn up_detaches_answers_and_down_stops() {
    let dir = temp();
    let home = dir.path().join("h");
    let up = run(&home, None, &["up"]);
    assert_eq!((up.code, up.one()["started"].as_bool()), (0, Some(true)));
    let again = run(&home, None, &["up"]);
    assert_eq!(again.one()["started"], false);
    assert_eq!(again.one()["pid"], up.one()["pid"]);
    let status = run(&home, None, &["status"]);
    assert_eq!((status.code, status.one()["ok"].as_bool()), (0, Some(true)));
    assert!(home.join("log/daemon.log").exists());
    let logs = run(&home, None, &["logs"]);
    assert!(
        logs.lines
            .iter()
            .any(|line| line["message"] == "the daemon is up")
    );
    let down = run(&home, None, &["down"]);
    assert_eq!(
        (down.code, down.one()["stopped"].as_bool()),
        (0, Some(true))
    );
    assert!(!home.join("daemon.sock").exists());
    assert_eq!(run(&home, None, &["status"]).code, 3);
}

#[test]
fn what_holds_secrets_is_for_its_owner_alone() {
    let dir = temp();
    let host = Host::start(dir.path(), "h");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&host.home), 0o700);
    for file in ["token", "daemon.sock", "daemon.db", "daemon.lock"] {
        assert_eq!(mode(&host.home.join(file)), 0o600, "{file}");
    }
}

#[test]
fn one_home_has_one_daemon() {
    let dir = temp();
    let host = Host::start(dir.path(), "h");
    let second = run(&host.home, None, &["up", "--foreground"]);
    assert_eq!((second.code, second.error()), (6, "data_in_use"));
    let message = second.one()["error"]["message"]
        .as_str()
        .expect("a message");
    assert!(message.contains(&host.pid().to_string()), "{message}");
    assert_eq!(host.run(&["status"]).code, 0, "the first is untouched");
}

#[test]
fn a_database_that_is_foreign_or_damaged_is_refused_and_left_alone() {
    for (content, code) in [
        (foreign(), "database_foreign"),
        (vec![b'?'; 8192], "database_damaged"),
    ] {
        let dir = temp();
        let home = dir.path().join("h");
        fs::create_dir(&home).expect("made");
        let database = home.join("daemon.db");
        fs::write(&database, &content).expect("written");
        for up in [&["up", "--foreground"][..], &["up"]] {
            let refused = run(&home, None, up);
            assert_eq!((refused.code, refused.error()), (8, code), "{refused:?}");
        }
        assert_eq!(fs::read(&database).expect("there"), content);
    }
}

#[test]
fn a_daemon_that_was_killed_leaves_nothing_in_the_way_of_the_next() {
    let dir = temp();
    let mut host = Host::start(dir.path(), "h");
    host.kill();
    assert!(host.home.join("daemon.sock").exists(), "nobody cleaned up");
    assert_eq!(host.run(&["status"]).code, 3);
    host.restart();
    assert_eq!(host.run(&["status"]).code, 0);
}

#[test]
fn requests_from_web_pages_and_tokens_in_urls_are_refused() {
    let dir = temp();
    let host = Host::start(dir.path(), "h");
    let ask = |target: &str, headers: &str| {
        let mut stream = UnixStream::connect(host.home.join("daemon.sock")).expect("it listens");
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse::<u16>()
            .expect("a number")
    };
    assert_eq!(ask("/v1/health", "Host: localhost\r\n"), 200);
    assert_eq!(ask("/v1/health", "Host: evil.example\r\n"), 403);
    assert_eq!(
        ask(
            "/v1/health",
            "Host: localhost\r\nOrigin: http://localhost\r\n"
        ),
        403
    );
    assert_eq!(ask("/v1/health?token=x", "Host: localhost\r\n"), 400);
    assert_eq!(
        ask(
            "/v1/inbox",
            "Host: localhost\r\nAuthorization: Bearer nobody\r\n"
        ),
        401
    );
    assert_eq!(ask("/v1/nowhere", "Host: localhost\r\n"), 404);
    assert_eq!(ask("/metrics", "Host: localhost\r\n"), 200);
}

#[test]
fn a_daemon_ends_in_good_order_on_sigterm() {
    let dir = temp();
    let host = Host::start(dir.path(), "h");
    assert_eq!(host.run(&["down"]).code, 0);
    wait_for("the socket to go", || {
        !host.home.join("daemon.sock").exists()
    });
}

/// A database of SQLite that is not ours.
fn foreign() -> Vec<u8> {
    let dir = temp();
    let path = dir.path().join("other.db");
    let db = rusqlite::Connection::open(&path).expect("opened");
    db.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (x)")
        .expect("made");
    drop(db);
    fs::read(path).expect("there")
}

//! Two daemons and a broker: what reaches whom, through restarts of each of them.

mod common;

use common::{Broker, Host, state_of, temp, two_hosts, wait_for};

#[test]
fn a_message_reaches_the_other_host_and_only_its_session() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let ada = north.session("ada");
    let (mut bob, eve) = (south.session("bob"), south.session("eve"));
    ada.until_sees("bob", "live");

    let sent = ada.run(&["send", "bob", "hello"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    let id = sent.one()["id"].as_str().expect("an id").to_owned();
    bob.until_bodies(&["hello"]);
    assert_eq!(
        eve.bodies(),
        Vec::<String>::new(),
        "a sibling's mail is not hers"
    );
    wait_for("the broker's ack", || {
        let outbox = ada.run(&["outbox", "--status", "done"]);
        outbox.one()["rows"]
            .as_array()
            .is_some_and(|rows| rows.len() == 1 && rows[0]["id"] == id.as_str())
    });

    // Printing marks as seen, peeking does not.
    assert_eq!(bob.run(&["inbox", "--unread", "--peek"]).lines.len(), 1);
    assert_eq!(bob.run(&["inbox", "--unread"]).lines.len(), 1);
    assert_eq!(bob.run(&["inbox", "--unread"]).lines.len(), 0);
    assert_eq!(bob.bodies(), ["hello"], "it is still there");

    // The end of a session is told at once, and it leaves no file behind.
    assert_eq!(bob.end(), Some(0));
    assert!(!bob.file.exists());
    wait_for("bob to be gone", || {
        state_of(&ada.run(&["peers"]), "bob").is_none()
    });
}

#[test]
fn an_id_is_sent_once_and_names_one_message() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");

    for _ in 0..3 {
        let sent = ada.run(&["send", "--id", "one", "bob", "once"]);
        assert_eq!((sent.code, sent.one()["id"].as_str()), (0, Some("one")));
    }
    bob.until_bodies(&["once"]);
    let other = ada.run(&["send", "--id", "one", "bob", "something else"]);
    assert_eq!(other.code, 6);
    assert!(
        other.error().ends_with("_fingerprint_mismatch"),
        "{other:?}"
    );
    assert_eq!(bob.bodies(), ["once"]);
}

#[test]
fn nobody_of_that_name_is_answered_with_near_names() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let (ada, _bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");

    let refused = ada.run(&["send", "bop", "hello"]);
    assert_eq!((refused.code, refused.error()), (5, "target_unknown"));
    let near = &refused.one()["error"]["near"];
    assert_eq!(near[0]["name"], "bob", "{near}");
    assert_eq!(ada.run(&["send", "--mesh", "nowhere", "bob", "x"]).code, 5);
    let outbox = ada.run(&["outbox"]);
    assert_eq!(outbox.one()["rows"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_broker_that_is_killed_costs_nothing_and_nobody_is_seen_to_leave() {
    let dir = temp();
    let (mut broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");
    bob.until_sees("ada", "live");

    ada.run(&["send", "bob", "before"]);
    broker.kill();
    // Names resolve while the broker is away, and what is queued says so.
    let queued = ada.run(&["send", "bob", "meanwhile"]);
    assert_eq!(
        (queued.code, queued.one()["status"].as_str()),
        (0, Some("pending"))
    );
    wait_for("status to say that the broker is away", || {
        let status = ada_status(&north);
        status.iter().all(|state| state != "up")
    });
    broker.restart();
    bob.until_bodies(&["before", "meanwhile"]);
    ada.until_sees("bob", "live");
}

#[test]
fn a_daemon_that_is_killed_goes_on_where_it_stopped() {
    let dir = temp();
    let (mut broker, mut north, mut south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");
    ada.run(&["send", "bob", "one"]);
    bob.until_bodies(&["one"]);

    // The recipient's daemon is away: the broker keeps it.
    south.kill();
    assert_eq!(bob.run(&["inbox"]).code, 3);
    ada.run(&["send", "bob", "two"]);
    south.restart();
    bob.until_bodies(&["one", "two"]);

    // The sender's daemon dies with mail that never was on a wire.
    broker.kill();
    ada.run(&["send", "bob", "three"]);
    north.kill();
    broker.restart();
    north.restart();
    bob.until_bodies(&["one", "two", "three"]);
    // The session's token and key outlived its daemon.
    bob.run(&["send", "ada", "got them"]);
    ada.until_bodies(&["got them"]);
}

#[test]
fn a_daemon_that_starts_before_its_broker_connects_when_it_comes() {
    let dir = temp();
    let (mut broker, mut north, south) = two_hosts(dir.path());
    let ada = north.session("ada");
    let bob = south.session("bob");
    ada.until_sees("bob", "live");
    broker.kill();
    north.kill();
    north.restart();
    assert_eq!(ada.run(&["send", "bob", "early"]).code, 0);
    let states = ada_status(&north);
    assert!(
        !states.is_empty() && states.iter().all(|state| state != "up"),
        "{states:?}"
    );
    broker.restart();
    bob.until_bodies(&["early"]);
}

#[test]
fn a_session_whose_process_is_gone_ends_and_its_token_with_it() {
    let dir = temp();
    let (_broker, north, _south) = two_hosts(dir.path());
    let mut ada = north.session("ada");
    ada.kill();
    wait_for("the daemon to notice", || {
        north.run(&["session", "list"]).one()["sessions"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    let refused = ada.run(&["inbox"]);
    assert_eq!((refused.code, refused.error()), (4, "unauthorized"));
    // The same name is free again, and keeps its key.
    let again = north.session("ada");
    assert_eq!(again.run(&["inbox"]).code, 0);
}

#[test]
fn a_live_name_is_taken_over_only_when_asked() {
    let dir = temp();
    let (_broker, north, _south) = two_hosts(dir.path());
    let _ada = north.session("ada");
    let second = north.run(&["session", "run", "--name", "ada", "--", "true"]);
    assert_eq!((second.code, second.error()), (6, "session_live"));
    let taken = north.run(&[
        "session",
        "run",
        "--name",
        "ada",
        "--take-over",
        "--",
        "true",
    ]);
    assert_eq!(taken.code, 0);
}

#[test]
fn a_session_passes_on_exit_codes_and_says_what_cannot_be_run() {
    let dir = temp();
    let (_broker, north, _south) = two_hosts(dir.path());
    let run = |command: &[&str]| {
        let args: Vec<_> = ["session", "run", "--name", "x", "--"]
            .iter()
            .chain(command)
            .copied()
            .collect();
        // After `--` everything is the program's, `--json` too.
        common::answer_code(&north.home, &args)
    };
    assert_eq!(run(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]), 128 + 15);
    assert_eq!(run(&["sh", "-c", "test -n \"$BOWLINE_SESSION_FILE\""]), 0);
    assert_eq!(run(&["/no/such/program"]), 5);
}

#[test]
fn meshes_that_cannot_be_made_or_joined_say_why() {
    let dir = temp();
    let mut broker = Broker::start(dir.path());
    let north = Host::start(dir.path(), "north");
    let bad = north.run(&["mesh", "create", "Bad!", "--broker", &broker.url()]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert_eq!(
        north.run(&["join", "bowline://join/xyz"]).error(),
        "bad_invite"
    );
    assert_eq!(north.run(&["send", "bob", "x"]).error(), "mesh_not_joined");
    broker.kill();
    let away = north.run(&["mesh", "create", "team", "--broker", &broker.url()]);
    assert_ne!(away.code, 0, "{away:?}");
    broker.restart();
    let made = north.run(&["mesh", "create", "team", "--broker", &broker.url()]);
    assert_eq!(made.code, 0, "{made:?}");
}

fn ada_status(host: &Host) -> Vec<String> {
    let status = host.run(&["status"]);
    let uplinks = status.one()["uplinks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    uplinks
        .iter()
        .map(|uplink| uplink["state"].as_str().unwrap_or_default().to_owned())
        .collect()
}

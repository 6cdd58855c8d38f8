//! A broker and daemons of different ages: what they go on in, and what is said when they cannot.

mod common;

use common::{Broker, Host, join_two, two_hosts, wait_for};
use serde_json::Value;

/// A broker that offers less than a daemon needs.
const LESS: [(&[&str], u64, &str); 3] = [
    (&["--offer", "sealing=null"], 4010, "sealing"),
    (
        &[
            "--offer",
            r#"max_payload={"version":1,"inline_bytes":"much"}"#,
        ],
        4011,
        "max_payload",
    ),
    (
        &[
            "--offer",
            r#"max_payload={"version":1,"inline_bytes":1023}"#,
        ],
        4012,
        "max_payload",
    ),
];

#[test]
fn a_daemon_that_lacks_a_feature_stops_says_so_and_loses_nothing() {
    let dir = common::temp();
    let (mut broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");
    let mut bodies = Vec::new();
    for (args, code, feature) in LESS {
        broker.kill();
        broker.restart_as(args);
        for host in [&north, &south] {
            // Whatever it is waiting for, it is asked to try at once.
            wait_for("every uplink to stop", || {
                let stopped = uplinks(host);
                let all = stopped.iter().all(|uplink| uplink["state"] == "stopped");
                all && stopped.len() == 2
            });
            for uplink in uplinks(host) {
                assert_eq!(uplink["mismatch"]["code"], code, "{uplink}");
                assert_eq!(uplink["mismatch"]["feature"], feature, "{uplink}");
                assert_eq!(uplink["mismatch"]["by"], "daemon", "{uplink}");
            }
            let told = status(host);
            assert!(told.contains(&format!("`{feature}`")), "{told}");
            assert!(told.contains(&code.to_string()), "{told}");
            assert!(told.contains("`bowline up`"), "{told}");
        }
        let body = format!("sent at {code}");
        let sent = ada.run(&["send", "bob", &body]);
        assert_eq!(sent.code, 0, "{sent:?}");
        bodies.push(body);

        broker.kill();
        broker.restart_as(&[]);
        for host in [&north, &south] {
            let up = host.run(&["up"]);
            assert_eq!(up.one()["started"], false, "{up:?}");
            assert_eq!(up.one()["retried"], 2, "{up:?}");
        }
        let expected: Vec<&str> = bodies.iter().map(String::as_str).collect();
        bob.until_bodies(&expected);
    }
}

#[test]
fn sides_one_version_apart_go_on_in_the_lower_one() {
    for (broker, hosts) in [(2, [1, 2]), (1, [2, 1])] {
        let dir = common::temp();
        let version = |version: u32| version.to_string();
        let broker = Broker::start_as(dir.path(), &["--protocol-version", &version(broker)]);
        let [north, south] = ["north", "south"].map(|name| {
            let at = usize::from(name == "south");
            Host::start_with(
                dir.path(),
                name,
                &["--protocol-version", &version(hosts[at])],
            )
        });
        join_two(&broker, &north, &south);
        let (ada, bob) = (north.session("ada"), south.session("bob"));
        ada.until_sees("bob", "live");
        bob.until_sees("ada", "live");
        // Delivered is what the broker understood as acknowledged.
        for (from, to) in [(&ada, "bob"), (&bob, "ada")] {
            let sent = from.run(&["send", "--wait", "delivered", "--timeout", "30", to, "hi"]);
            assert_eq!(sent.code, 0, "{sent:?}");
        }
        ada.until_bodies(&["hi"]);
        bob.until_bodies(&["hi"]);
    }
}

fn uplinks(host: &Host) -> Vec<Value> {
    let status = host.run(&["status"]);
    status.one()["uplinks"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// As people read it.
fn status(host: &Host) -> String {
    let output = common::program()
        .arg("status")
        .env("BOWLINE_HOME", &host.home)
        .output()
        .expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

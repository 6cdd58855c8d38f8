//! An admin's command line: who is put out stays out, says so, and comes back when asked.

mod common;

use common::{Host, state_of, temp, two_hosts, wait_for};

/// State and reason of each uplink of a host, by kind.
fn uplinks(host: &Host, kind: &str) -> Vec<(String, String)> {
    let status = host.run(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    let shown = status.one()["uplinks"].as_array().cloned();
    let text = |uplink: &serde_json::Value, field: &str| {
        uplink[field].as_str().unwrap_or_default().to_owned()
    };
    shown
        .unwrap_or_default()
        .iter()
        .filter(|uplink| uplink["kind"] == kind)
        .map(|uplink| (text(uplink, "state"), text(uplink, "reason")))
        .collect()
}

fn until_stopped(host: &Host, kind: &str, why: &str) {
    wait_for(&format!("{kind} to stop because of {why}"), || {
        uplinks(host, kind)
            .iter()
            .all(|(state, reason)| state == "stopped" && reason.contains(why))
    });
}

#[test]
fn a_ban_stops_the_other_host_and_unban_and_up_bring_it_back() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let (ada, bob) = (north.session("ada"), south.session("bob"));
    ada.until_sees("bob", "live");
    // A ban that meets it on its way in says `revoked`.
    wait_for("south itself to be here", || {
        let mut uplinks = uplinks(&south, "control-plane").into_iter();
        uplinks.all(|(state, _)| state == "up")
    });

    let banned = north.run(&["ban", "south"]);
    assert_eq!((banned.code, &banned.one()["banned"]), (0, &"south".into()));
    assert!(state_of(&ada.run(&["peers"]), "bob").is_none(), "at once");
    until_stopped(&south, "control-plane", "banned");
    wait_for("the session to stop with it", || {
        uplinks(&south, "session")
            .iter()
            .all(|(state, _)| state == "stopped")
    });
    let bans = north.run(&["bans"]);
    let listed = bans.one()["bans"].as_array().expect("a list");
    assert_eq!(listed.len(), 1, "{bans:?}");
    assert_eq!(listed[0]["name"], "south");

    // Mail to it is refused for good, and says why; asking again changes nothing.
    let sent = ada.run(&["send", "bob", "are you there"]);
    assert_eq!(sent.code, 0, "it is queued: {sent:?}");
    wait_for("the row to be dead", || {
        let dead = ada.run(&["outbox", "--status", "dead"]);
        let rows = dead.one()["rows"].as_array().cloned().unwrap_or_default();
        rows.len() == 1
    });
    south.run(&["up"]);
    until_stopped(&south, "control-plane", "revoked");

    let key = listed[0]["pubkey"].as_str().expect("a key");
    let unbanned = north.run(&["unban", key]);
    assert_eq!(
        (unbanned.code, &unbanned.one()["unbanned"]),
        (0, &"south".into())
    );
    assert_eq!(north.run(&["bans"]).one()["bans"], serde_json::json!([]));
    let up = south.run(&["up"]);
    assert_eq!(up.code, 0, "{up:?}");
    assert!(
        up.one()["retried"]
            .as_u64()
            .is_some_and(|retried| retried >= 2),
        "{up:?}"
    );
    ada.until_sees("bob", "live");
    assert_eq!(bob.run(&["send", "ada", "back"]).code, 0);
    ada.until_bodies(&["back"]);
}

#[test]
fn a_kick_of_a_session_leaves_its_host_and_one_of_a_host_takes_all_along() {
    let dir = temp();
    let (_broker, north, south) = two_hosts(dir.path());
    let (ada, _bob, eve) = (
        north.session("ada"),
        south.session("bob"),
        south.session("eve"),
    );
    for name in ["bob", "eve"] {
        ada.until_sees(name, "live");
    }

    let kicked = north.run(&["kick", "bob"]);
    assert_eq!(
        (kicked.code, &kicked.one()["kicked"]),
        (0, &serde_json::json!(["bob"]))
    );
    wait_for("bob's uplink to say so", || {
        uplinks(&south, "session").contains(&("stopped".into(), "closed 4001 kicked".into()))
    });
    assert_eq!(uplinks(&south, "control-plane")[0].0, "up");
    assert!(state_of(&ada.run(&["peers"]), "bob").is_none());
    eve.until_sees("ada", "live");

    // Its name reaches nobody: it is a control plane's. Its key does.
    let skipped = north.run(&["kick", "south"]);
    assert_eq!(skipped.one()["kicked"], serde_json::json!([]));
    assert_eq!(
        skipped.one()["skipped_control_plane"],
        serde_json::json!(["south"])
    );
    let peers = north.run(&["peers", "--all"]);
    let peers = peers.one()["peers"].as_array().cloned().unwrap_or_default();
    let south_key = peers
        .iter()
        .find(|peer| peer["name"] == "south")
        .and_then(|peer| peer["pubkey"].as_str())
        .expect("it is listed among all")
        .to_owned();
    assert_eq!(
        north.run(&["kick", &south_key]).one()["kicked"],
        serde_json::json!(["south"])
    );
    until_stopped(&south, "control-plane", "closed 4001 kicked");
    until_stopped(&south, "session", "");
    assert_eq!(south.run(&["up"]).code, 0);
    for name in ["bob", "eve"] {
        ada.until_sees(name, "live");
    }
}

#[test]
fn who_may_not_or_cannot_is_told_so() {
    let dir = temp();
    let (mut broker, north, south) = two_hosts(dir.path());
    let ada = north.session("ada");
    let bob = south.session("bob");
    ada.until_sees("bob", "live");
    wait_for("south to be up", || {
        uplinks(&south, "control-plane")[0].0 == "up"
    });

    let refused = south.run(&["ban", "north"]);
    assert_eq!((refused.code, refused.error()), (4, "forbidden"));
    let nobody = north.run(&["kick", "nobody"]);
    assert_eq!((nobody.code, nobody.error()), (5, "bad_request"));
    // A session's own token is not used: the member asks.
    assert_eq!(ada.run(&["bans"]).code, 0);
    drop(bob);

    broker.kill();
    wait_for("north to notice", || {
        uplinks(&north, "control-plane")[0].0 != "up"
    });
    let away = north.run(&["bans"]);
    assert_eq!((away.code, away.error()), (7, "mesh_away"));
}

//! Quiet connections: for sending only, of no lease.

use super::*;
use crate::wire::client::ReqId;
use crate::wire::moderation::Whom;

fn quiet(hello: &mut VerifiedHello) {
    hello.offer.quiet = true;
}

fn of(who: u8) -> PeerKey {
    PeerKey::Session(PubKey([who; 32]))
}

#[test]
fn it_joins_nobody_is_in_no_list_and_is_told_nothing() {
    let (mut rig, a, b) = pair();
    let silent = rig.connect_with(2, quiet);
    rig.settle();
    let ack = rig.hello_ack(silent);
    assert_eq!(
        (ack.stream, ack.resumed, ack.lease_ttl_ms),
        (None, None, None)
    );
    assert!(ack.features.is_some());
    assert!(rig.events(a).is_empty());
    assert_eq!(rig.peers(a).peers.len(), 2);
    assert!(!rig.image.peers.contains_key(&of(2)), "nothing is stored");
    rig.frame(b, ClientFrame::Bye);
    rig.settle();
    assert!(rig.take(silent).is_empty(), "no event");
    rig.close(silent);
    rig.advance(Duration::from_secs(200));
    assert_eq!(rig.events(a), [("left", 11)], "and it leaves nobody");
    assert_eq!(rig.mesh.connections(), 1);
}

#[test]
fn it_sends_and_is_acknowledged_and_nothing_is_pushed_to_it() {
    let (mut rig, a, b) = pair();
    let silent = rig.connect_with(2, |hello| {
        quiet(hello);
        hello.about.display_name = Some("gone".into());
    });
    rig.take(silent);
    rig.send(silent, 11, "m1");
    rig.settle();
    assert!(rig.acks(silent)[0].queued);
    let push = rig.pushes(b).remove(0);
    assert_eq!(push.sender_pubkey, PubKey([2; 32]));
    assert_eq!(push.sender_name, "gone");
    assert_eq!(push.sender_member_id, Some(MEMBER.into()));
    rig.send(silent, 11, "m1");
    rig.settle();
    assert!(rig.acks(silent)[0].duplicate);
    rig.send(a, 2, "to one without a lease");
    rig.settle();
    assert_eq!(rig.acks(a)[0].code.as_deref(), Some("target_not_found"));
}

#[test]
fn beside_a_lease_it_is_no_connection_of_it() {
    let (mut rig, a, b) = pair();
    let silent = rig.connect_with(11, quiet);
    rig.take(silent);
    assert!(!rig.closes.contains_key(&b), "it replaces nothing");
    rig.send(a, 11, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(b), ["m1"]);
    assert!(rig.take(silent).is_empty());
    rig.close(b);
    rig.send(a, 11, "m2");
    rig.settle();
    assert!(rig.take(silent).is_empty(), "nor where the lease has none");
    let again = rig.connect(11);
    assert!(!rig.closes.contains_key(&silent), "and nothing replaces it");
    rig.settle();
    rig.close(silent);
    rig.close(again);
    rig.advance(Duration::from_secs(60));
    assert!(
        rig.mesh.present.contains(&of(11)),
        "the lease has its own grace"
    );
}

#[test]
fn a_newer_quiet_one_replaces_it_and_first_counts_on_none() {
    let (mut rig, _, _) = pair();
    let old = rig.connect_with(2, quiet);
    let new = rig.connect_with(2, quiet);
    assert_eq!(rig.closes[&old], Close::session_replaced());
    rig.take(new);
    rig.send(old, 11, "nobody hears this");
    rig.settle();
    assert!(rig.image.messages.is_empty());
    rig.close(old);
    rig.frame(new, send_to(11, "m1", |send| assert!(send.first)));
    assert_eq!(rig.loads.len(), 1, "it is looked up all the same");
    rig.settle();
    assert!(rig.acks(new)[0].queued);
    assert_eq!(rig.mesh.quiet_connections(), 1);
}

#[test]
fn it_shares_the_limits_of_its_key() {
    let limits = Limits {
        sends_burst: 2,
        sends_per_second: 1,
        ..Limits::default()
    };
    let mut rig = Rig::new(limits);
    let (_, live) = (rig.connect(11), rig.connect(1));
    let silent = rig.connect_with(1, quiet);
    rig.settle();
    rig.take(silent);
    for id in ["m1", "m2"] {
        rig.send(live, 11, id);
    }
    rig.send(silent, 11, "m3");
    rig.settle();
    assert_eq!(rig.acks(silent)[0].code.as_deref(), Some("rate_limited"));
}

#[test]
fn whatever_else_it_says_is_refused() {
    let (mut rig, a, _) = pair();
    let silent = rig.connect_with(20, quiet);
    rig.take(silent);
    let req_id = Some(ReqId("r".into()));
    let refused = [
        ClientFrame::ListPeers {
            after: None,
            limit: None,
            req_id: req_id.clone(),
        },
        ClientFrame::SetStatus {
            status: Status::Idle,
            req_id: req_id.clone(),
        },
        ClientFrame::Kick {
            whom: Whom::All,
            req_id: req_id.clone(),
        },
    ];
    for frame in refused {
        rig.frame(silent, frame);
        rig.settle();
        let frames = rig.take(silent);
        assert!(
            matches!(&frames[..], [BrokerFrame::Error(error)]
                if error.code == "forbidden" && error.req_id == req_id),
            "{frames:?}"
        );
    }
    assert_eq!(rig.mesh.present_peers(), 2);
    rig.frame(silent, ClientFrame::Bye);
    assert_eq!(rig.closes[&silent].reason, "bye");
    rig.settle();
    assert!(rig.events(a).is_empty());
}

#[test]
fn kick_and_ban_close_it() {
    let (mut rig, a, _) = pair();
    let admin = rig.connect(20);
    let (one, other) = (rig.connect_with(2, quiet), rig.connect_with(11, quiet));
    rig.settle();
    rig.take(a);
    rig.take(admin);
    let whom = Whom::Target(format!("{}", PubKey([2; 32])));
    rig.frame(admin, ClientFrame::Kick { whom, req_id: None });
    assert_eq!(rig.closes[&one].code, Close::KICKED);
    let target = "member-2".to_owned();
    rig.frame(
        admin,
        ClientFrame::Ban {
            target,
            req_id: None,
        },
    );
    assert_eq!(rig.closes[&other].code, Close::BANNED);
    rig.settle();
    assert_eq!(rig.events(a), [("left", 11)], "one leave, of the lease");
    assert_eq!(rig.mesh.quiet_connections(), 0);
    let refused = rig.connect_with(11, quiet);
    assert_eq!(rig.closes[&refused].code, Close::BANNED);
}

#[test]
fn without_the_capability_the_word_means_nothing() {
    let (mut rig, a, _) = pair();
    rig.connect_with(2, |hello| {
        quiet(hello);
        hello.offer.capabilities.0.retain(|name| name != "quiet1");
    });
    rig.settle();
    assert_eq!(rig.events(a), [("joined", 2)]);
}

#[test]
fn its_keys_are_bounded_like_those_that_join() {
    let mut rig = rig();
    for who in 1..=2 {
        let member = &mut rig.mesh.members.entry(MEMBER.into()).or_default();
        member.day = rig.now.wall.0 / 86_400_000;
        member.new_keys = crate::limits::SESSION_KEYS_PER_MEMBER_A_DAY + who - 2;
        let conn = rig.connect_with(u8::try_from(who).unwrap(), quiet);
        assert_eq!(rig.closes.contains_key(&conn), who == 2);
    }
    let full = &mut rig.mesh.members.entry(MEMBER.into()).or_default();
    full.quiet = crate::limits::SESSIONS_PER_MEMBER;
    let conn = rig.connect_with(3, quiet);
    assert_eq!(rig.closes[&conn].reason, "capacity");
    let again = rig.connect_with(1, quiet);
    assert!(!rig.closes.contains_key(&again), "its key has its place");
}

#[test]
fn who_only_ever_sent_is_forgotten_before_those_who_were_here() {
    let mut rig = rig();
    let here = rig.connect(1);
    rig.settle();
    rig.frame(here, ClientFrame::Bye);
    rig.settle();
    let silent = rig.connect_with(2, quiet);
    let gone = rig.connect_with(3, quiet);
    rig.close(gone);
    assert!(rig.mesh.forget_one());
    assert!(!rig.mesh.peers.contains_key(&of(3)));
    assert!(rig.mesh.forget_one());
    assert!(!rig.mesh.peers.contains_key(&of(1)));
    assert!(
        !rig.mesh.forget_one(),
        "whose quiet connection stands stays"
    );
    rig.close(silent);
}

use alloc::borrow::ToOwned;

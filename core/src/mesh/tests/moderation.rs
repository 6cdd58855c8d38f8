//! Kick, disconnect, ban, unban, and who may.

use super::*;
use crate::link::VerifiedHello;
use crate::wire::moderation::{Ban, KickAck, Whom};
use crate::wire::{Code, HelloCode};
use alloc::borrow::ToOwned;

const ADMIN: u8 = 20;

/// A session of each of the three members; the last is an admin's.
fn three() -> (Rig, ConnId, ConnId, ConnId) {
    let mut rig = rig();
    let (a, b, admin) = (rig.connect(1), rig.connect(11), rig.connect(ADMIN));
    rig.settle();
    for conn in [a, b, admin] {
        rig.take(conn);
    }
    (rig, a, b, admin)
}

fn control_plane_of(member: u8) -> impl FnOnce(&mut VerifiedHello) {
    move |hello| {
        hello.key = PeerKey::Member(format!("member-{member}").into());
        hello.role = Role::ControlPlane;
        hello.member_pubkey = PubKey([100 + member; 32]);
        hello.pubkey = hello.member_pubkey;
        hello.about.display_name = None;
    }
}

fn key(who: u8) -> String {
    format!("{}", PubKey([who; 32]))
}

impl Rig {
    fn kick(&mut self, conn: ConnId, whom: Whom) {
        self.frame(conn, ClientFrame::Kick { whom, req_id: None });
    }

    fn kicks(&mut self, conn: ConnId, target: &str) -> KickAck {
        self.take(conn);
        self.kick(conn, Whom::Target(target.into()));
        self.kick_ack(conn)
    }

    fn kick_ack(&mut self, conn: ConnId) -> KickAck {
        // The leaves are told first: they are what is acknowledged.
        self.settle();
        let frames = self.take(conn);
        let ack = frames.iter().find_map(|frame| match frame {
            BrokerFrame::KickAck(ack) => Some(ack.clone()),
            _ => None,
        });
        ack.unwrap_or_else(|| panic!("a kick_ack, not {frames:?}"))
    }

    fn ban(&mut self, conn: ConnId, target: &str) {
        let (target, req_id) = (target.into(), None);
        self.frame(conn, ClientFrame::Ban { target, req_id });
    }

    fn unban(&mut self, conn: ConnId, target: &str) {
        let (target, req_id) = (target.into(), None);
        self.frame(conn, ClientFrame::Unban { target, req_id });
    }

    fn bans(&mut self, conn: ConnId) -> Vec<Ban> {
        self.take(conn);
        let (after, req_id) = (None, None);
        self.frame(conn, ClientFrame::ListBans { after, req_id });
        match self.take(conn).into_iter().next() {
            Some(BrokerFrame::ListBansResult(result)) => result.bans,
            other => panic!("a list of bans, not {other:?}"),
        }
    }

    fn error(&mut self, conn: ConnId) -> String {
        match self.take(conn).into_iter().next() {
            Some(BrokerFrame::Error(error)) => error.code,
            other => panic!("an error, not {other:?}"),
        }
    }

    fn is_present(&self, who: u8) -> bool {
        let key = PeerKey::Session(PubKey([who; 32]));
        self.mesh.present.contains(&key)
    }
}

fn banned() -> Close {
    Close::new(Close::BANNED, "banned")
}

fn kicked() -> Close {
    Close::new(Close::KICKED, "kicked")
}

#[test]
fn a_kick_ends_a_live_lease_at_once_with_one_leave() {
    let (mut rig, a, b, admin) = three();
    let ack = rig.kicks(admin, &key(11));
    assert_eq!((ack.kicked, ack.more), (vec!["peer 11".to_owned()], 0));
    assert_eq!(rig.closes[&b], kicked());
    assert!(!rig.is_present(11));
    rig.settle();
    assert_eq!(rig.events(a), [("left", 11)]);
    rig.close(b);
    rig.advance(Duration::from_secs(200));
    assert!(rig.events(a).is_empty(), "its late close changes nothing");
    let again = rig.connect(11);
    rig.settle();
    assert_eq!(rig.events(a), [("joined", 11)]);
    assert!(!rig.closes.contains_key(&again), "it heard of it");
    assert_eq!(rig.mesh.stats().kicks, 1);
}

#[test]
fn one_kicked_in_grace_is_told_at_its_next_hello_within_a_lease_term() {
    let (mut rig, a, b, admin) = three();
    rig.close(b);
    rig.kicks(admin, "peer 11");
    rig.settle();
    assert_eq!(rig.events(a), [("left", 11)]);
    let told = rig.connect(11);
    assert_eq!(rig.closes[&told], kicked());
    assert!(rig.take(told).is_empty(), "no hello_ack");
    assert!(!rig.is_present(11));
    let again = rig.connect(11);
    assert!(!rig.closes.contains_key(&again), "it is told once");

    rig.settle();
    rig.close(again);
    rig.kicks(admin, "peer 11");
    rig.advance(rig.limits.lease_grace);
    let late = rig.connect(11);
    assert!(!rig.closes.contains_key(&late), "after a term it is over");
}

#[test]
fn a_hello_that_waits_is_told_of_a_kick_too() {
    let mut rig = rig();
    let admin = rig.connect(ADMIN);
    rig.connect_with(1, plain::plain);
    let newer = rig.connect_with(1, plain::plain);
    let waits = rig.connect_with(1, plain::plain);
    rig.settle();
    assert!(rig.take(waits).is_empty(), "it waits for its answer");
    rig.kicks(admin, &key(1));
    assert_eq!(rig.closes[&newer], kicked());
    rig.advance(crate::limits::HELLO_ANSWERED_WITHIN);
    assert_eq!(rig.closes[&waits], kicked());
    assert!(!rig.is_present(1));
}

#[test]
fn a_kick_reaches_no_control_plane_that_it_did_not_name() {
    let (mut rig, a, b, admin) = three();
    let plane = rig.connect_with(0, control_plane_of(1));
    rig.settle();
    rig.take(admin);
    rig.kick(admin, Whom::All);
    let ack = rig.kick_ack(admin);
    assert_eq!(ack.kicked, ["peer 1", "peer 11"]);
    assert_eq!(ack.affected, ack.kicked);
    assert_eq!(ack.skipped_control_plane, ["Member 1"]);
    assert_eq!((&rig.closes[&a], &rig.closes[&b]), (&kicked(), &kicked()));
    assert!(!rig.closes.contains_key(&plane));
    let ack = rig.kicks(admin, "Member 1");
    assert_eq!(ack.skipped_control_plane, ["Member 1"], "nor by its name");
    assert!(ack.kicked.is_empty());
    for exactly in [key(101), "member-1".to_owned()] {
        let plane = rig.connect_with(0, control_plane_of(1));
        let ack = rig.kicks(admin, &exactly);
        assert_eq!(ack.kicked, ["Member 1"], "{exactly}");
        assert_eq!(rig.closes[&plane], kicked());
    }
}

#[test]
fn by_all_and_stale_the_askers_own_are_spared() {
    let (mut rig, a, b, admin) = three();
    let sibling = rig.connect(21);
    rig.settle();
    rig.advance(Duration::from_secs(100));
    rig.frame(
        a,
        ClientFrame::SetStatus {
            status: Status::Idle,
            req_id: None,
        },
    );
    rig.take(admin);
    rig.kick(admin, Whom::Stale(60_000));
    assert_eq!(
        rig.kick_ack(admin).kicked,
        ["peer 11"],
        "who said something stays"
    );
    assert_eq!(rig.closes[&b], kicked());
    rig.settle();
    rig.take(admin);
    rig.kick(admin, Whom::All);
    assert_eq!(rig.kick_ack(admin).kicked, ["peer 1"]);
    assert!(!rig.closes.contains_key(&sibling));
}

#[test]
fn a_target_must_mean_one_peer() {
    let (mut rig, _, _, admin) = three();
    rig.connect_with(12, |hello| hello.about.display_name = Some("peer 1".into()));
    rig.settle();
    rig.take(admin);
    for target in ["peer 1", "nobody", "peer 20", &key(99), &key(ADMIN)] {
        rig.kick(admin, Whom::Target(target.into()));
        assert_eq!(rig.error(admin), Code::BadRequest.as_str(), "{target}");
    }
    assert_eq!(rig.mesh.present_peers(), 4);
    let ack = rig.kicks(admin, &key(12));
    assert_eq!(ack.kicked, ["peer 1"], "a key tells them apart");
    let ack = rig.kicks(admin, &key(12));
    assert!(ack.kicked.is_empty(), "who is gone is not kicked again");
}

#[test]
fn disconnect_starts_grace_and_tells_nobody() {
    let (mut rig, a, b, admin) = three();
    let whom = Whom::Target("peer 11".into());
    rig.frame(admin, ClientFrame::Disconnect { whom, req_id: None });
    assert_eq!(rig.closes[&b], Close::new(Close::NORMAL, "disconnected"));
    let frames = rig.take(admin);
    assert!(
        matches!(&frames[..], [BrokerFrame::DisconnectAck(ack)] if ack.affected == ["peer 11"]),
        "{frames:?}"
    );
    rig.close(b);
    rig.advance(Duration::from_secs(60));
    let again = rig.connect(11);
    rig.settle();
    assert!(!rig.closes.contains_key(&again));
    assert!(rig.events(a).is_empty());
}

#[test]
fn a_ban_ends_every_lease_of_the_member_with_one_leave_each() {
    let (mut rig, a, live, admin) = three();
    let in_grace = rig.connect(12);
    let plane = rig.connect_with(0, control_plane_of(2));
    rig.settle();
    rig.close(in_grace);
    for conn in [a, admin] {
        rig.take(conn);
    }
    rig.ban(admin, &key(11));
    assert_eq!(rig.closes[&live], banned());
    assert_eq!(rig.closes[&plane], banned());
    assert!(rig.take(admin).is_empty(), "the ban is not durable yet");
    rig.settle();
    assert_eq!(rig.events(a), [("left", 11), ("left", 12)]);
    let frames = rig.take(admin);
    assert!(
        frames
            .iter()
            .any(|frame| matches!(frame, BrokerFrame::BanAck(ack) if ack.banned == "Member 2")),
        "{frames:?}"
    );
    rig.advance(Duration::from_secs(300));
    assert!(rig.events(a).is_empty());
    assert_eq!(rig.mesh.present_peers(), 2);
}

#[test]
fn a_banned_member_is_refused_also_after_a_restart() {
    let (mut rig, _, _, admin) = three();
    rig.ban(admin, "member-2");
    rig.settle();
    for restarted in [false, true] {
        if restarted {
            rig.restart();
        }
        for late in [rig.connect(11), rig.connect_with(0, control_plane_of(2))] {
            assert_eq!(rig.error(late), HelloCode::Revoked.as_str());
            assert_eq!(rig.closes[&late], banned());
        }
    }
}

#[test]
fn a_banned_members_key_does_not_join_again() {
    let (mut rig, _, _, admin) = three();
    rig.ban(admin, "member-2");
    rig.settle();
    let invite = crate::crypto::invite::InviteToken {
        v: 1,
        mesh_id: "mesh".into(),
        mesh_slug: "mesh".into(),
        broker_url: "ws://localhost/ws".into(),
        expires_at_s: u64::MAX / 2_000,
        mesh_root_key: String::new(),
        role: MemberRole::Member,
        owner_pubkey: PubKey([99; 32]),
        signature: Signature([7; 64]),
    };
    rig.input(Input::Request {
        request: RequestId(1),
        what: Request::Join {
            invite: Box::new(invite),
            pubkey: PubKey([102; 32]),
            display_name: "again".into(),
        },
    });
    rig.settle();
    assert!(
        matches!(
            &rig.responses[..],
            [(
                _,
                Response::Refused {
                    code: "forbidden",
                    ..
                }
            )]
        ),
        "{:?}",
        rig.responses
    );
}

#[test]
fn mail_to_the_banned_is_forbidden_and_what_was_accepted_is_answered_again() {
    let (mut rig, a, b, admin) = three();
    rig.frame(
        b,
        ClientFrame::SetStatus {
            status: Status::Dnd,
            req_id: None,
        },
    );
    rig.send(a, 11, "before");
    rig.settle();
    assert!(rig.acks(a)[0].queued);
    rig.ban(admin, "member-2");
    rig.settle();
    rig.take(a);

    rig.send(a, 11, "before");
    rig.settle();
    let again = rig.acks(a).remove(0);
    assert!(again.queued && again.duplicate, "{again:?}");
    for (to, id) in [(11, "to a session"), (102, "to the member")] {
        rig.send(a, to, id);
        rig.settle();
        let ack = rig.acks(a).remove(0);
        assert_eq!(ack.code.as_deref(), Some("forbidden"));
    }

    rig.unban(admin, "Member 2");
    rig.settle();
    let back = rig.connect(11);
    rig.settle();
    assert_eq!(rig.push_ids(back), ["before"], "what was owed stayed owed");
    rig.send(a, 11, "to a session");
    rig.settle();
    assert!(rig.acks(a)[0].queued, "a refusal consumed no id");
}

#[test]
fn bans_are_listed_until_they_are_taken_back() {
    let (mut rig, _, _, admin) = three();
    assert!(rig.bans(admin).is_empty());
    rig.ban(admin, "peer 11");
    rig.settle();
    let at = format!("{}", rig.now.wall.iso8601());
    let expected = Ban {
        name: "Member 2".into(),
        pubkey: PubKey([102; 32]),
        revoked_at: at,
    };
    assert_eq!(rig.bans(admin), [expected]);
    rig.advance(Duration::from_secs(5));
    rig.ban(admin, "member-2");
    rig.settle();
    assert_eq!(rig.mesh.stats().bans, 1, "banning twice is banning once");
    rig.unban(admin, &key(102));
    rig.settle();
    assert!(rig.bans(admin).is_empty());
    rig.take(admin);
    rig.unban(admin, "Member 2");
    assert_eq!(
        rig.error(admin),
        "bad_request",
        "nobody banned is called so"
    );
}

#[test]
fn only_admins_may_and_nobody_bans_itself() {
    let (mut rig, a, _, admin) = three();
    let frames = || {
        let (target, req_id) = ("member-3".to_owned(), None);
        [
            ClientFrame::Kick {
                whom: Whom::All,
                req_id: None,
            },
            ClientFrame::Disconnect {
                whom: Whom::All,
                req_id: None,
            },
            ClientFrame::Ban {
                target: target.clone(),
                req_id: None,
            },
            ClientFrame::Unban { target, req_id },
            ClientFrame::ListBans {
                after: None,
                req_id: None,
            },
        ]
    };
    for frame in frames() {
        rig.frame(a, frame.clone());
        rig.settle();
        assert_eq!(rig.error(a), "forbidden", "{frame:?}");
    }
    rig.ban(admin, "member-3");
    assert_eq!(rig.error(admin), "bad_request");
    assert_eq!(rig.mesh.present_peers(), 3);
}

#[test]
fn a_plain_client_is_told_of_a_refusal_only_where_it_asked() {
    let (mut rig, _, _, _) = three();
    let plain = rig.connect_with(2, |hello| {
        hello.offer.capabilities = Capabilities::default()
    });
    rig.settle();
    rig.take(plain);
    rig.kick(plain, Whom::All);
    assert!(rig.take(plain).is_empty());
    let req_id = Some(ReqId("r".into()));
    rig.frame(
        plain,
        ClientFrame::Kick {
            whom: Whom::All,
            req_id,
        },
    );
    assert_eq!(rig.error(plain), "forbidden");
}

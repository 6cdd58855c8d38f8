//! What plain clients do and cannot do: each test is a way in which they would lose or garble mail.

use super::*;
use crate::limits::HELLO_ANSWERED_WITHIN;
use crate::wire::client::ReqId;

/// A client that names no capability.
pub(super) fn plain(hello: &mut VerifiedHello) {
    hello.offer.capabilities = Capabilities::default();
}

/// Two sockets of one plain client, the older of which was put out.
fn duel() -> (Rig, ConnId, ConnId) {
    let mut rig = rig();
    let older = rig.connect_with(1, plain);
    let newer = rig.connect_with(1, plain);
    rig.settle();
    assert!(is_attached(&mut rig, newer));
    rig.take(older);
    (rig, older, newer)
}

fn is_attached(rig: &mut Rig, conn: ConnId) -> bool {
    let frames = rig.take(conn);
    frames
        .iter()
        .any(|frame| matches!(frame, BrokerFrame::HelloAck(_)))
}

#[test]
fn a_push_bears_neither_key_nor_id_of_the_senders_member() {
    let mut rig = rig();
    let a = rig.connect(1);
    let to_plain = rig.connect_with(11, plain);
    let to_ours = rig.connect(12);
    rig.settle();
    for to in [11, 12] {
        rig.frame(a, send_to(to, &format!("k{to}"), |send| send.seal = None));
    }
    rig.settle();
    let push = rig.pushes(to_plain).remove(0);
    assert_eq!(push.sender_member_pubkey, None);
    assert_eq!(push.sender_member_id, None);
    assert_eq!(
        (push.target_spec, push.seal, push.attempt),
        (None, None, None)
    );
    assert_eq!(push.sender_pubkey, PubKey([1; 32]));
    let push = rig.pushes(to_ours).remove(0);
    assert_eq!(push.sender_member_pubkey, Some(PubKey([101; 32])));
    assert!(push.sender_member_id.is_some());
}

#[test]
fn an_error_comes_only_where_it_was_asked_for() {
    let mut rig = rig();
    let a = rig.connect_with(1, plain);
    rig.settle();
    let join = |nth: usize, req_id: Option<ReqId>| ClientFrame::JoinGroup {
        name: format!("g{nth}"),
        role: None,
        req_id,
    };
    for nth in 0..crate::limits::GROUPS_PER_PEER {
        rig.frame(a, join(nth, None));
    }
    rig.settle();
    rig.take(a);
    rig.frame(a, join(99, None));
    rig.settle();
    assert!(rig.take(a).is_empty());
    rig.frame(a, join(99, Some(ReqId("r".into()))));
    rig.settle();
    assert!(matches!(&rig.take(a)[..], [BrokerFrame::Error(error)] if error.code == "capacity"));
}

#[test]
fn the_loser_of_a_duel_is_answered_late() {
    let (mut rig, _, winner) = duel();
    rig.advance(Duration::from_secs(1));
    let loser = rig.connect_with(1, plain);
    rig.advance(HELLO_ANSWERED_WITHIN - Duration::from_millis(1));
    assert!(!is_attached(&mut rig, loser), "it waits");
    rig.send(winner, 11, "still");
    rig.settle();
    assert!(
        !rig.acks(winner).is_empty(),
        "and puts out nobody meanwhile"
    );
    rig.advance(Duration::from_millis(2));
    assert!(is_attached(&mut rig, loser), "but is not refused");
    assert!(rig.mesh.marks().get(Mark::HelloWaits) > 0);
}

#[test]
fn who_waits_for_a_duel_is_answered_at_once_when_nobody_is_left_to_duel() {
    let (mut rig, _, winner) = duel();
    let loser = rig.connect_with(1, plain);
    rig.settle();
    assert!(!is_attached(&mut rig, loser));
    rig.close(winner);
    rig.settle();
    assert!(is_attached(&mut rig, loser));
}

#[test]
fn of_several_that_wait_the_newest_is_answered() {
    let (mut rig, _, _) = duel();
    let first = rig.connect_with(1, plain);
    rig.advance(Duration::from_secs(2));
    let second = rig.connect_with(1, plain);
    let gone = rig.connect_with(1, plain);
    rig.close(gone);
    rig.advance(HELLO_ANSWERED_WITHIN);
    assert!(!is_attached(&mut rig, first));
    assert!(is_attached(&mut rig, second));
    assert!(!is_attached(&mut rig, gone));
}

#[test]
fn a_daemon_never_waits_and_neither_does_a_plain_client_without_a_duel() {
    let mut rig = rig();
    for _ in 0..3 {
        let ours = rig.connect(1);
        rig.settle();
        assert!(is_attached(&mut rig, ours));
    }
    let (mut rig, _, _) = duel();
    rig.advance(crate::limits::DUEL_WITHIN + Duration::from_secs(1));
    let later = rig.connect_with(1, plain);
    rig.settle();
    assert!(is_attached(&mut rig, later));
}

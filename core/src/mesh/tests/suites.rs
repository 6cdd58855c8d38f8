//! By what mail is sealed, and whom it reaches.

use super::plain::plain;
use super::*;
use crate::wire::Suite;
use crate::wire::audience::Audience;

fn in_box(send: &mut Send) {
    send.seal = None;
}

#[test]
fn what_the_recipient_does_not_open_is_refused_with_what_it_opens() {
    let mut rig = rig();
    let a = rig.connect(1);
    let b = rig.connect_with(11, plain);
    rig.settle();
    rig.frame(a, send_to(11, "k", |_| {}));
    rig.settle();
    let ack = rig.acks(a).remove(0);
    assert_eq!(ack.code.as_deref(), Some("audience_changed"));
    assert!(ack.retry_after_ms.is_some());
    let audience = Audience::of_one(PubKey([11; 32]), &[Suite::Box]);
    assert_eq!(ack.audience, Some(audience));
    assert!(rig.pushes(b).is_empty());

    // Nothing was left behind: the same id in a box is new.
    rig.frame(a, send_to(11, "k", in_box));
    rig.settle();
    let ack = rig.acks(a).remove(0);
    assert!(ack.queued && !ack.duplicate);
    assert_eq!(rig.push_ids(b), ["k"]);
}

#[test]
fn what_a_peer_opens_is_known_while_it_is_away() {
    let mut rig = rig();
    let a = rig.connect(1);
    let b = rig.connect_with(11, plain);
    rig.settle();
    rig.close(b);
    rig.advance(Duration::from_secs(100));
    rig.restart();
    let a_again = rig.connect(1);
    rig.settle();
    assert_ne!(a, a_again);
    rig.frame(a_again, send_to(11, "k", |_| {}));
    rig.settle();
    let ack = rig.acks(a_again).remove(0);
    assert_eq!(ack.code.as_deref(), Some("audience_changed"));
}

#[test]
fn a_box_reaches_everybody_and_says_so_to_those_who_ask() {
    let mut rig = rig();
    let a = rig.connect_with(1, plain);
    let b = rig.connect(11);
    rig.settle();
    rig.frame(a, send_to(11, "k", in_box));
    rig.settle();
    let push = rig.pushes(b).remove(0);
    assert_eq!(Suite::of_message(push.seal.as_deref()), Some(Suite::Box));
}

#[test]
fn what_is_sealed_x1_waits_for_a_connection_that_opens_it() {
    let mut rig = rig();
    let a = rig.connect(1);
    let b = rig.connect(11);
    rig.settle();
    rig.close(b);
    rig.frame(a, send_to(11, "k", |_| {}));
    rig.settle();
    assert!(rig.acks(a).remove(0).queued, "it opened x1 when it went");
    let plainly = rig.connect_with(11, plain);
    rig.settle();
    assert!(rig.pushes(plainly).is_empty());
    rig.close(plainly);
    let ours = rig.connect(11);
    rig.settle();
    assert_eq!(rig.push_ids(ours), ["k"]);
}

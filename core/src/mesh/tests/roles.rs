//! The table of roles, line by line: what a role is, is a policy over leases, connections and
//! deliveries.

use super::*;
use crate::limits::CONNECTIONS_PER_PEER;

fn as_service(hello: &mut VerifiedHello) {
    hello.role = Role::Service;
}

fn roles(rig: &mut Rig, conn: ConnId) -> Vec<(String, u8)> {
    let listed = rig.peers(conn).peers.into_iter();
    listed
        .map(|peer| (peer.peer_role, peer.pubkey.0[0]))
        .collect()
}

#[test]
fn a_service_is_told_of_and_listed_as_one_and_has_one_connection() {
    let (mut rig, a, _) = pair();
    let old = rig.connect_with(2, as_service);
    rig.settle();
    assert_eq!(rig.events(a), [("joined", 2)]);
    assert!(roles(&mut rig, a).contains(&("service".into(), 2)));
    let new = rig.connect_with(2, as_service);
    assert_eq!(rig.closes[&old], Close::session_replaced());
    rig.send(a, 2, "m1");
    rig.settle();
    assert_eq!(rig.push_ids(new), ["m1"], "what is owed to it is pushed");
    rig.close(new);
    rig.advance(Duration::from_secs(89));
    assert!(rig.events(a).is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.events(a), [("left", 2)]);
}

#[test]
fn a_control_plane_has_many_connections_and_is_told_of_to_nobody() {
    let (mut rig, a, b) = pair();
    let first = rig.connect_with(0, as_member);
    rig.settle();
    for _ in 1..CONNECTIONS_PER_PEER {
        rig.connect_with(0, as_member);
    }
    let beyond = rig.connect_with(0, as_member);
    assert_eq!(rig.closes[&beyond].reason, "capacity");
    assert!(!rig.closes.contains_key(&first), "nobody is replaced");
    rig.settle();
    assert!(roles(&mut rig, a).contains(&("control-plane".into(), 101)));
    let summary = ClientFrame::SetProfile {
        profile: crate::wire::client::Profile {
            title: Some("t".into()),
            ..crate::wire::client::Profile::default()
        },
        id: None,
        req_id: None,
    };
    rig.frame(first, summary);
    rig.frame(first, ClientFrame::Bye);
    rig.settle();
    assert!(rig.events(a).is_empty());
    assert!(rig.events(b).is_empty());
    assert!(!roles(&mut rig, a).contains(&("control-plane".into(), 101)));
}

#[test]
fn a_control_plane_is_told_of_others_and_keeps_its_lease_for_90_s() {
    let (mut rig, _, b) = pair();
    let plane = rig.connect_with(0, as_member);
    rig.settle();
    rig.take(plane);
    rig.frame(b, ClientFrame::Bye);
    rig.settle();
    assert_eq!(rig.events(plane), [("left", 11)]);
    rig.close(plane);
    rig.advance(Duration::from_secs(89));
    let key = PeerKey::Member(MEMBER.into());
    assert!(rig.mesh.present.contains(&key));
    rig.advance(Duration::from_secs(1));
    assert!(!rig.mesh.present.contains(&key));
}

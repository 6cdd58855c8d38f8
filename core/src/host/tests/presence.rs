//! Who is here, told once, whichever way it was learned.

use super::*;
use crate::wire::Status;
use crate::wire::broker::{Event as LiveEvent, EventData, EventKind, Peer, PeerState, PeersList};
use crate::wire::client::ReqId;

fn event(kind: EventKind, who: u8, name: &str) -> BrokerFrame {
    BrokerFrame::Event(LiveEvent {
        kind,
        data: EventData {
            name: name.into(),
            pubkey: key_of(&peer(who)),
            member_pubkey: None,
            role: Some("session".into()),
            groups: None,
            summary: None,
            profile: None,
            suites: None,
        },
    })
}

fn listed(key: PubKey, name: &str, role: &str) -> Peer {
    Peer {
        pubkey: key,
        member_pubkey: key,
        display_name: name.into(),
        status: Status::Idle,
        summary: None,
        groups: Vec::new(),
        session_id: SessionId::from("s"),
        connected_at: String::new(),
        cwd: String::new(),
        peer_role: role.into(),
        hostname: None,
        peer_type: None,
        channel: None,
        model: None,
        stats: None,
        visible: None,
        profile: None,
        state: Some(PeerState::Grace),
        away_ms: Some(12_000),
        attestation: None,
        capabilities: None,
    }
}

fn member_conn(bench: &Bench) -> ConnId {
    bench.conn_of(&bench.member_key())
}

fn names(events: &[(&'static str, Value)]) -> Vec<(String, String)> {
    let told = events
        .iter()
        .filter(|(event, _)| event.starts_with("peer_"));
    told.map(|(event, data)| {
        let name = data["name"].as_str().unwrap().to_string();
        (event.to_string(), name)
    })
    .collect()
}

/// The control plane comes back and its stream could not be resumed.
fn miss(bench: &mut Bench) -> (ConnId, ReqId) {
    let conn = member_conn(bench);
    bench.drop_conn(conn, Close::new(Close::ABNORMAL, ""));
    bench.advance(Duration::from_secs(2));
    let (conn, plan) = bench.dials.pop_front().expect("dialled again");
    let key = StandIn.public_key(&plan.member_secret);
    bench.up.insert(key, conn);
    bench.feed(Input::Up {
        conn,
        ack: Box::new(hello_ack(Resumed::Miss, 9)),
    });
    (conn, asked(bench))
}

fn asked(bench: &mut Bench) -> ReqId {
    let asked = bench
        .frames
        .iter()
        .rev()
        .find_map(|(_, frame)| match frame {
            ClientFrame::ListPeers { req_id, .. } => req_id.clone(),
            _ => None,
        });
    asked.expect("a snapshot is asked for")
}

fn page(peers: Vec<Peer>, next: Option<&str>, req_id: ReqId) -> BrokerFrame {
    BrokerFrame::PeersList(PeersList {
        peers,
        next: next.map(String::from),
        req_id: Some(req_id),
    })
}

#[test]
fn an_event_is_told_once_and_only_when_durable() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let stream = bench.listen(&session.token, None);
    bench.take_events(stream);
    bench.store = Store::Held;
    let conn = member_conn(&bench);
    bench.frame(conn, event(EventKind::PeerJoined, 5, "bob"));
    // The session's own stream carries it too: it counts there, and is not told twice.
    let own = bench.conn_of(&session.pubkey);
    bench.frame(own, event(EventKind::PeerJoined, 5, "bob"));
    assert!(bench.take_events(stream).is_empty());
    bench.catch_up();
    let told = bench.take_events(stream);
    assert_eq!(names(&told), [("peer_joined".into(), "bob".into())]);
}

#[test]
fn a_listing_tells_what_members_open() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let (conn, req_id) = miss(&mut bench);
    let plain = |who: u8, role: &str| Peer {
        capabilities: Some(crate::wire::feature::Capabilities::default()),
        ..listed(key_of(&peer(who)), "plain", role)
    };
    let peers = alloc::vec![plain(5, "session"), plain(6, "control-plane")];
    bench.frame(conn, page(peers, None, req_id));
    for (nth, who) in [5, 6].into_iter().enumerate() {
        bench.send_now(&session.token, &hex_of(&peer(who)), "hi", None);
        let (_, send) = bench.take_sends().remove(0);
        assert_eq!(send.seal.as_deref(), Some("box"), "{nth}");
    }
    // A control plane's name is nobody's.
    let answer = bench.send_now(&session.token, "plain", "hi", None);
    assert_eq!(answer.status, 202);
}

#[test]
fn a_session_is_not_told_of_itself_and_its_sibling_is() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    let (hears_a, hears_b) = (bench.listen(&a.token, None), bench.listen(&b.token, None));
    bench.take_events(hears_a);
    bench.take_events(hears_b);
    let conn = member_conn(&bench);
    let BrokerFrame::Event(mut joined) = event(EventKind::PeerJoined, 5, "a") else {
        unreachable!()
    };
    joined.data.pubkey = a.pubkey;
    bench.frame(conn, BrokerFrame::Event(joined));
    assert!(bench.take_events(hears_a).is_empty());
    assert_eq!(bench.take_events(hears_b).len(), 1);
    // Nor does it find itself among its peers.
    let again = bench.listen(&a.token, None);
    let (_, peers) = bench.take_events(again).pop().unwrap();
    assert!(peers["peers"].as_array().unwrap().is_empty());
}

#[test]
fn after_a_miss_the_difference_is_told_and_nothing_else() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = member_conn(&bench);
    for (n, name) in [(5, "stays"), (6, "goes")] {
        bench.frame(conn, event(EventKind::PeerJoined, n, name));
    }
    let stream = bench.listen(&session.token, None);
    bench.take_events(stream);
    let (conn, req_id) = miss(&mut bench);
    let stays = listed(key_of(&peer(5)), "stays", "session");
    let comes = listed(key_of(&peer(7)), "comes", "session");
    let hidden = listed(key_of(&peer(8)), "daemon", "control-plane");
    bench.frame(conn, page(vec_of([stays, hidden]), Some("x"), req_id));
    assert!(
        bench.take_events(stream).is_empty(),
        "not before the last page"
    );
    let req_id = asked(&mut bench);
    bench.frame(conn, page(vec_of([comes]), None, req_id));
    let told = bench.take_events(stream);
    assert_eq!(
        names(&told),
        [
            ("peer_left".into(), "goes".into()),
            ("peer_joined".into(), "comes".into())
        ]
    );
    assert_eq!(bench.mark(Mark::PresenceFromSnapshot), 1);
}

fn vec_of<const N: usize>(peers: [Peer; N]) -> Vec<Peer> {
    peers.into_iter().collect()
}

#[test]
fn events_between_the_pages_are_worked_in() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let stream = bench.listen(&session.token, None);
    bench.take_events(stream);
    let (conn, req_id) = miss(&mut bench);
    let early = listed(key_of(&peer(5)), "early", "session");
    bench.frame(conn, page(vec_of([early]), Some("x"), req_id));
    // It leaves after its page was made; another joins on a page that is through.
    bench.frame(conn, event(EventKind::PeerLeft, 5, "early"));
    bench.frame(conn, event(EventKind::PeerJoined, 6, "late"));
    let req_id = asked(&mut bench);
    bench.frame(conn, page(Vec::new(), None, req_id));
    let told = bench.take_events(stream);
    assert_eq!(names(&told), [("peer_joined".into(), "late".into())]);
}

#[test]
fn a_snapshot_that_was_cut_is_taken_on_the_next_connection() {
    let mut bench = Bench::new();
    bench.session("a");
    let (conn, _) = miss(&mut bench);
    bench.drop_conn(conn, Close::new(Close::ABNORMAL, ""));
    bench.advance(Duration::from_secs(3));
    let (conn, plan) = bench.dials.pop_front().unwrap();
    bench.frames.clear();
    bench
        .up
        .insert(StandIn.public_key(&plan.member_secret), conn);
    bench.feed(Input::Up {
        conn,
        ack: Box::new(hello_ack(Resumed::Hit, 9)),
    });
    asked(&mut bench);
}

#[test]
fn a_page_that_does_not_come_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.session("a");
    let (_, first) = miss(&mut bench);
    bench.frames.clear();
    bench.advance(Duration::from_secs(16));
    assert_eq!(asked(&mut bench), first);
}

#[test]
fn a_resumed_stream_needs_no_snapshot() {
    let mut bench = Bench::new();
    bench.connect();
    let conn = member_conn(&bench);
    bench.frame(conn, event(EventKind::PeerJoined, 5, "bob"));
    bench.drop_conn(conn, Close::new(Close::ABNORMAL, ""));
    bench.advance(Duration::from_secs(2));
    let (conn, plan) = bench.dials.pop_front().unwrap();
    let seen = Resume {
        epoch: EPOCH,
        count: 1,
    };
    assert_eq!(plan.resume, Some(seen));
    bench.frames.clear();
    bench.feed(Input::Up {
        conn,
        ack: Box::new(hello_ack(Resumed::Hit, 1)),
    });
    assert!(bench.frames.is_empty());
}

#[test]
fn what_was_told_survives_a_restart_and_the_difference_is_told_then() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = member_conn(&bench);
    bench.frame(conn, event(EventKind::PeerJoined, 5, "bob"));
    let mut bench = bench.crash();
    let stream = bench.listen(&session.token, None);
    let first = bench.take_events(stream);
    assert_eq!(first[1].1["peers"][0]["name"], "bob");
    bench.connect();
    let told = bench.take_events(stream);
    assert_eq!(names(&told), [("peer_left".into(), "bob".into())]);
}

#[test]
fn names_resolve_here_before_gone_and_keys_by_their_beginning() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let conn = member_conn(&bench);
    bench.frame(conn, event(EventKind::PeerJoined, 5, "bob"));
    bench.frame(conn, event(EventKind::PeerLeft, 5, "bob"));
    bench.frame(conn, event(EventKind::PeerJoined, 6, "bob"));
    let target = |answer: &Answer| {
        answer.body["target"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    };
    let sent = bench.send_now(&session.token, "bob", "hi", None);
    assert_eq!(target(&sent), hex_of(&peer(6)));
    let prefix = &hex_of(&peer(5))[..8];
    let sent = bench.send_now(&session.token, prefix, "hi", None);
    assert_eq!(target(&sent), hex_of(&peer(5)));
    bench.frame(conn, event(EventKind::PeerJoined, 7, "bob"));
    let refused = bench.send_now(&session.token, "bob", "hi", None);
    assert_eq!(code(&refused), (422, "target_ambiguous"));
    let candidates = refused.body["error"]["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);
    let refused = bench.send_now(&session.token, "bop", "hi", None);
    assert_eq!(code(&refused), (422, "target_unknown"));
    assert_eq!(refused.body["error"]["near"][0]["name"], "bob");
}

#[test]
fn peers_are_asked_of_the_broker_or_said_to_be_stale() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.frames.clear();
    let peers = || Request::Peers {
        mesh: None,
        all: false,
    };
    let request = bench.call(&session.token, peers());
    let req_id = asked(&mut bench);
    let conn = member_conn(&bench);
    let bob = listed(key_of(&peer(5)), "bob", "session");
    let daemon = listed(key_of(&peer(8)), "daemon", "control-plane");
    bench.frame(conn, page(vec_of([bob, daemon]), None, req_id));
    let answer = bench.answered(request).unwrap();
    assert_eq!(answer.body["stale"], false);
    let shown = answer.body["peers"].as_array().unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (&shown[0]["state"], &shown[0]["away_ms"]),
        (&json!("grace"), &json!(12_000))
    );

    // No answer in time.
    let request = bench.call(&session.token, peers());
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.answered(request).unwrap().body["stale"], true);
    bench.drop_conn(conn, Close::new(Close::ABNORMAL, ""));
    assert_eq!(bench.ask(&session.token, peers()).body["stale"], true);
}

#[test]
fn events_that_a_store_behind_could_not_take_are_made_up_for() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    let conn = member_conn(&bench);
    for n in 0..crate::limits::UNPERSISTED_TXNS / 2 {
        let name = alloc::format!("flicker {n}");
        bench.frame(conn, event(EventKind::PeerJoined, 5, &name));
        bench.frame(conn, event(EventKind::PeerLeft, 5, &name));
    }
    let kept = bench.host.sizes().unpersisted_txns;
    bench.frame(conn, event(EventKind::PeerJoined, 6, "bob"));
    assert_eq!(bench.host.sizes().unpersisted_txns, kept);
    bench.frames.clear();
    bench.catch_up();
    let req_id = asked(&mut bench);
    let stream = bench.listen(&session.token, None);
    bench.take_events(stream);
    let bob = listed(key_of(&peer(6)), "bob", "session");
    bench.frame(conn, page(vec_of([bob]), None, req_id));
    let told = names(&bench.take_events(stream));
    assert_eq!(told, [("peer_joined".into(), "bob".into())]);
}

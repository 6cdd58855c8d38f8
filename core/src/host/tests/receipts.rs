//! What brokers tell senders: each number once, durable before it counts.

use super::*;
use crate::limits::UNPERSISTED_TXNS;
use crate::store::host::OutboxRow;

fn sent(bench: &mut Bench, session: &OpenedSession, id: &str) {
    bench.send_now(&session.token, &hex_of(&peer(5)), "hi", Some(id));
    for (conn, send) in bench.take_sends() {
        bench.ack(conn, &send);
    }
}

fn row<'a>(bench: &'a Bench, id: &str) -> &'a OutboxRow {
    let mut rows = bench.image.outbox.values();
    rows.find(|row| row.client_message_id.as_str() == id)
        .expect("it was sent")
}

fn rungs(bench: &Bench, id: &str) -> Vec<Rung> {
    row(bench, id).rungs.iter().map(|rung| rung.rung).collect()
}

fn dialled_after(bench: &mut Bench, key: &PubKey) -> u64 {
    bench.advance(Duration::from_secs(60));
    let mut after = None;
    while let Some((conn, plan)) = bench.dials.pop_front() {
        let secret = plan.session.as_ref().map(|session| &session.secret);
        if StandIn.public_key(secret.unwrap_or(&plan.member_secret)) == *key {
            after = plan.receipts.map(|receipts| receipts.after);
        }
        bench.take_hello(conn, &plan, Resumed::Fresh, 0);
    }
    after.expect("it dialled")
}

#[test]
fn a_ladder_is_climbed_and_told_to_its_session_alone() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    let (mine, siblings) = (bench.listen(&a.token, None), bench.listen(&b.token, None));
    let members = bench.listen("", None);
    sent(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 1, "k", Rung::Delivered);
    bench.receipt(&a.pubkey, 2, "k", Rung::Seen);
    assert_eq!(rungs(&bench, "k"), [Rung::Delivered, Rung::Seen]);
    let told: Vec<(Value, Value)> = bench
        .take_events(mine)
        .into_iter()
        .filter(|(event, _)| *event == "receipt")
        .map(|(_, data)| (data["id"].clone(), data["rung"].clone()))
        .collect();
    let of_k = |rung: &str| (json!("k"), json!(rung));
    assert_eq!(told, [of_k("accepted"), of_k("delivered"), of_k("seen")]);
    for stream in [siblings, members] {
        let events = bench.take_events(stream);
        assert!(events.iter().all(|(event, _)| *event != "receipt"));
    }
}

#[test]
fn a_number_counts_once_and_a_rung_never_goes_down() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    let stream = bench.listen(&a.token, None);
    sent(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 5, "k", Rung::Seen);
    bench.take_events(stream);
    bench.receipt(&a.pubkey, 5, "k", Rung::Seen);
    bench.receipt(&a.pubkey, 4, "k", Rung::Delivered);
    assert_eq!(bench.take_events(stream), []);
    bench.receipt(&a.pubkey, 6, "k", Rung::Delivered);
    assert_eq!(rungs(&bench, "k"), [Rung::Seen]);
}

#[test]
fn what_expired_and_was_read_after_all_was_read() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    sent(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 1, "k", Rung::Expired);
    bench.receipt(&a.pubkey, 2, "k", Rung::Seen);
    assert_eq!(rungs(&bench, "k"), [Rung::Expired, Rung::Seen]);
}

#[test]
fn the_hello_asks_for_what_is_behind_the_durable_number() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    sent(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 3, "k", Rung::Delivered);
    bench.store = Store::Held;
    let stream = bench.listen(&a.token, None);
    bench.receipt(&a.pubkey, 4, "k", Rung::Seen);
    assert!(
        bench
            .take_events(stream)
            .iter()
            .all(|(event, _)| *event != "receipt"),
        "told before it is durable"
    );
    bench.drop_conn(bench.conn_of(&a.pubkey), Close::silent());
    assert_eq!(dialled_after(&mut bench, &a.pubkey), 3);
    // It comes again, and is one rung.
    bench.receipt(&a.pubkey, 4, "k", Rung::Seen);
    bench.catch_up();
    let told = bench.take_events(stream);
    assert_eq!(
        told.iter().filter(|(event, _)| *event == "receipt").count(),
        1
    );
    bench.drop_conn(bench.conn_of(&a.pubkey), Close::silent());
    assert_eq!(dialled_after(&mut bench, &a.pubkey), 4);
    // Over a crash too, and the member's numbers are its own.
    let mut bench = bench.crash();
    assert_eq!(dialled_after(&mut bench, &a.pubkey), 4);
    let member = bench.member_key();
    bench.drop_conn(bench.conn_of(&member), Close::silent());
    assert_eq!(dialled_after(&mut bench, &member), 0);
}

#[test]
fn a_receipt_of_what_is_not_known_is_no_rung_and_counts() {
    let mut bench = Bench::new();
    let (a, b) = (bench.session("a"), bench.session("b"));
    sent(&mut bench, &a, "k");
    bench.receipt(&a.pubkey, 7, "another", Rung::Delivered);
    // The same id of another sender.
    bench.receipt(&b.pubkey, 1, "k", Rung::Delivered);
    assert_eq!(rungs(&bench, "k"), []);
    bench.drop_conn(bench.conn_of(&a.pubkey), Close::silent());
    assert_eq!(dialled_after(&mut bench, &a.pubkey), 7);
}

#[test]
fn a_receipt_may_come_before_the_acknowledgement() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    bench.send_now(&a.token, &hex_of(&peer(5)), "hi", Some("k"));
    bench.receipt(&a.pubkey, 1, "k", Rung::Delivered);
    let (conn, send) = bench.take_sends().remove(0);
    bench.ack(conn, &send);
    assert_eq!(rungs(&bench, "k"), [Rung::Delivered]);
    let row = row(&bench, "k");
    assert!(row.state.status.is_settled());
}

#[test]
fn what_a_store_behind_cannot_take_is_asked_for_again() {
    let mut bench = Bench::new();
    let a = bench.session("a");
    sent(&mut bench, &a, "k");
    bench.store = Store::Held;
    let most = UNPERSISTED_TXNS as u64;
    for n in 1..=most + 5 {
        bench.receipt(&a.pubkey, n, "another", Rung::Delivered);
    }
    assert_eq!(bench.host.sizes().unpersisted_txns, UNPERSISTED_TXNS);
    bench.catch_up();
    // A later one would hide those that were passed over.
    assert_eq!(dialled_after(&mut bench, &a.pubkey), most);
    bench.receipt(&a.pubkey, most + 1, "k", Rung::Delivered);
    assert_eq!(rungs(&bench, "k"), [Rung::Delivered]);
}

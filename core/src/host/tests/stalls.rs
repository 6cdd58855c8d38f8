//! A store that does not take what it is given.

use super::*;

fn stall(bench: &mut Bench, why: Stall) {
    bench.uncommitted.clear();
    bench.unanswered.clear();
    bench.feed(Input::Store(Event::Stalled(why)));
}

#[test]
fn what_was_forgotten_is_given_again_and_new_sends_are_busy() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.store = Store::Held;
    let first = bench.send(&session.token, &to, "1", None);
    stall(&mut bench, Stall::Unavailable);
    let busy = bench.send_now(&session.token, &to, "2", None);
    assert_eq!(code(&busy), (429, "busy"));
    let given = bench.send_now(&session.token, &to, "2", Some("k"));
    assert_eq!(code(&given), (429, "busy"));
    assert!(bench.uncommitted.is_empty());
    bench.store = Store::Prompt;
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.answered(first).unwrap().status, 202);
    assert_eq!(bench.send_now(&session.token, &to, "2", None).status, 202);
    assert_eq!(bench.mark(Mark::StalledLeft), 1);
}

#[test]
fn a_full_store_says_so() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    let to = hex_of(&peer(5));
    bench.send(&session.token, &to, "1", None);
    stall(&mut bench, Stall::Full);
    let full = bench.send_now(&session.token, &to, "2", None);
    assert_eq!(code(&full), (507, "storage_full"));
}

#[test]
fn an_accept_that_is_not_durable_in_time_is_unknown_and_stands() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.store = Store::Held;
    let first = bench.send(&session.token, &to, "hi", Some("k"));
    let (load, what) = bench.unanswered.pop_front().unwrap();
    let loaded = bench.image.load(&what);
    bench.feed(Input::Store(Event::Loaded { load, loaded }));
    let repeat = bench.send(&session.token, &to, "hi", Some("k"));
    bench.advance(Duration::from_secs(10));
    for request in [first, repeat] {
        let answer = bench.answered(request).unwrap();
        assert_eq!(code(&answer), (503, "outcome_unknown"));
        assert_eq!(answer.body["error"]["id"], "k");
    }
    bench.catch_up();
    assert_eq!(bench.take_sends().len(), 1);
    assert_eq!(bench.mark(Mark::GateAbandoned), 2);
    let repeat = bench.send_now(&session.token, &to, "hi", Some("k"));
    assert_eq!(repeat.status, 202);
}

#[test]
fn a_look_up_that_met_the_stall_is_asked_again() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.store = Store::Held;
    let request = bench.send(&session.token, &hex_of(&peer(5)), "hi", Some("k"));
    let message = bench.push(&session.pubkey, &peer(6), "in", "hi");
    assert_eq!(bench.unanswered.len(), 2);
    stall(&mut bench, Stall::Unavailable);
    bench.store = Store::Prompt;
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.answered(request).unwrap().status, 202);
    assert_eq!(bench.take_client_acks(), [message]);
}

#[test]
fn what_comes_behind_a_look_up_of_the_same_id_waits_in_order() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let to = hex_of(&peer(5));
    bench.store = Store::Held;
    let first = bench.send(&session.token, &to, "one", Some("k"));
    let second = bench.send(&session.token, &to, "two", Some("k"));
    let other = bench.send(&session.token, &to, "three", Some("other"));
    assert_eq!(bench.unanswered.len(), 2, "one question for each id");
    bench.catch_up();
    assert_eq!(bench.answered(first).unwrap().status, 202);
    assert_eq!(bench.answered(second).unwrap().status, 409);
    assert_eq!(bench.answered(other).unwrap().status, 202);
}

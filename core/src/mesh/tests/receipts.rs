//! What senders are told, what was seen, what expires, and where a message is said to be.

use super::*;
use crate::wire::client::ReceiptsAfter;
use crate::wire::receipt::{
    DeliveryState, Explain, ExplainResult, MessageStatus, MessageStatusResult, Reach, Receipt,
    Rung, Seen, WaitsFor,
};

const KEPT_FOR: Duration = Duration::from_secs(600);

fn rig() -> Rig {
    Rig::new(Limits {
        undelivered_for: KEPT_FOR,
        ..Limits::default()
    })
}

impl Rig {
    fn connect_after(&mut self, who: u8, after: u64) -> ConnId {
        self.connect_with(who, |hello| {
            hello.offer.receipts = Some(ReceiptsAfter { after });
        })
    }

    fn receipts(&mut self, conn: ConnId) -> Vec<Receipt> {
        let of = |frame| match frame {
            BrokerFrame::Receipt(receipt) => Some(receipt),
            _ => None,
        };
        self.take(conn).into_iter().filter_map(of).collect()
    }

    fn told(&mut self, conn: ConnId) -> Vec<(u64, Rung)> {
        let receipts = self.receipts(conn);
        receipts.iter().map(|told| (told.n, told.rung)).collect()
    }

    fn ack_all(&mut self, conn: ConnId) -> Vec<Push> {
        let pushes = self.pushes(conn);
        pushes.iter().for_each(|push| self.ack(conn, push));
        pushes
    }

    fn see(&mut self, conn: ConnId, push: &Push) {
        let seen = Seen {
            ids: vec![push.message_id.as_str().into()],
            req_id: None,
        };
        self.frame(conn, ClientFrame::Seen(seen));
    }

    fn explain(&mut self, conn: ConnId, id: &str) -> Option<ExplainResult> {
        self.take(conn);
        let asked = Explain {
            id: id.into(),
            req_id: None,
        };
        self.frame(conn, ClientFrame::Explain(asked));
        self.settle();
        self.take(conn).into_iter().find_map(|frame| match frame {
            BrokerFrame::ExplainResult(result) => Some(*result),
            _ => None,
        })
    }

    fn standing(&mut self, conn: ConnId, id: &str) -> (DeliveryState, WaitsFor) {
        let result = self.explain(conn, id).expect("an answer");
        (result.state, result.waits_for)
    }

    fn status_of(&mut self, conn: ConnId, message_id: &str) -> Option<MessageStatusResult> {
        self.take(conn);
        let asked = MessageStatus {
            message_id: message_id.into(),
            req_id: None,
        };
        self.frame(conn, ClientFrame::MessageStatus(asked));
        self.settle();
        self.take(conn).into_iter().find_map(|frame| match frame {
            BrokerFrame::MessageStatusResult(result) => Some(result),
            _ => None,
        })
    }
}

#[test]
fn a_sender_is_told_when_it_is_durable_and_each_rung_once() {
    let mut rig = rig();
    let (a, b) = (rig.connect_after(1, 0), rig.connect(2));
    rig.send(a, 2, "m1");
    rig.settle();
    let push = rig.ack_all(b).remove(0);
    assert_eq!(rig.told(a), [], "not before it is durable");
    rig.settle();
    assert_eq!(rig.told(a), [(1, Rung::Delivered)]);
    for _ in 0..2 {
        rig.see(b, &push);
        rig.settle();
    }
    assert_eq!(
        rig.told(a),
        [(2, Rung::Seen)],
        "once, however often it is said"
    );
}

#[test]
fn a_sender_that_was_away_is_told_from_the_number_that_it_has() {
    let mut rig = rig();
    let (a, b) = (rig.connect_after(1, 0), rig.connect(2));
    for id in ["m1", "m2", "m3"] {
        rig.send(a, 2, id);
    }
    rig.settle();
    rig.close(a);
    let pushes = rig.ack_all(b);
    rig.settle();
    rig.see(b, &pushes[0]);
    rig.settle();
    let back = rig.connect_after(1, 1);
    rig.settle();
    let told = rig.told(back);
    assert_eq!(
        told,
        [(2, Rung::Delivered), (3, Rung::Delivered), (4, Rung::Seen)],
        "the first rung of m1 was replaced by its highest"
    );
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut rig = rig();
    let (a, b) = (rig.connect(1), rig.connect(2));
    rig.send(a, 2, "m1");
    rig.settle();
    rig.ack_all(b);
    rig.settle();
    rig.restart();
    let (a, b) = (rig.connect_after(1, 1), rig.connect(2));
    rig.send(a, 2, "m2");
    rig.settle();
    rig.ack_all(b);
    rig.settle();
    assert_eq!(rig.told(a), [(2, Rung::Delivered)]);
}

#[test]
fn what_nobody_took_expires_and_its_sender_is_told() {
    let mut rig = rig();
    let (a, b) = (rig.connect_after(1, 0), rig.connect(2));
    rig.close(b);
    rig.send(a, 2, "m1");
    rig.settle();
    rig.advance(KEPT_FOR - Duration::from_secs(1));
    assert_eq!(rig.told(a), []);
    rig.advance(Duration::from_secs(2));
    let told = rig.receipts(a);
    assert_eq!((told[0].n, told[0].rung), (1, Rung::Expired));
    assert!(told[0].reason.is_some());
    let b = rig.connect(2);
    rig.settle();
    assert_eq!(rig.pushes(b).len(), 0, "it is owed no longer");
}

#[test]
fn what_is_under_way_is_left_to_its_claim_and_an_ack_in_time_counts() {
    let mut rig = rig();
    let (a, b) = (rig.connect_after(1, 0), rig.connect(2));
    rig.close(b);
    rig.send(a, 2, "m1");
    rig.settle();
    rig.advance(KEPT_FOR - Duration::from_secs(5));
    let b = rig.connect(2);
    rig.settle();
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.told(a), [], "it may have arrived");
    rig.ack_all(b);
    rig.settle();
    assert_eq!(rig.told(a), [(1, Rung::Delivered)]);
}

#[test]
fn where_a_message_is_and_what_it_waits_for_is_said() {
    let mut rig = rig();
    let (a, b) = (rig.connect(1), rig.connect(2));
    rig.send(a, 2, "m1");
    rig.settle();
    let claimed = rig.explain(a, "m1").expect("an answer");
    assert_eq!(claimed.state, DeliveryState::Claimed);
    assert_eq!(
        (claimed.attempt, claimed.holder),
        (1, Some(PubKey([2; 32])))
    );
    assert!(claimed.next_at.is_some(), "its claim ends");
    let push = rig.ack_all(b).remove(0);
    rig.settle();
    let done = (DeliveryState::Delivered, WaitsFor::Nothing);
    assert_eq!(rig.standing(a, "m1"), done);
    assert_eq!(
        rig.standing(b, push.message_id.as_str()),
        done,
        "also to its recipient"
    );
    let status = ClientFrame::SetStatus {
        status: Status::Dnd,
        req_id: None,
    };
    rig.frame(b, status);
    rig.send(a, 2, "m2");
    rig.settle();
    assert_eq!(
        rig.standing(a, "m2"),
        (DeliveryState::Ready, WaitsFor::Status)
    );
    rig.close(b);
    assert_eq!(
        rig.standing(a, "m2"),
        (DeliveryState::Ready, WaitsFor::Reattach)
    );
    assert_eq!(rig.explain(a, "nobody-sent-this"), None);
    let stranger = rig.connect(3);
    assert_eq!(rig.explain(stranger, push.message_id.as_str()), None);
}

#[test]
fn the_status_of_a_message_is_its_senders_to_ask() {
    let mut rig = rig();
    let (a, b) = (rig.connect(1), rig.connect(2));
    rig.send(a, 2, "m1");
    rig.settle();
    let push = rig.pushes(b).remove(0);
    let id = push.message_id.as_str();
    let reach = |status: &MessageStatusResult| status.recipients[0].status;
    let held = rig.status_of(a, id).expect("an answer");
    assert_eq!((held.delivered, reach(&held)), (false, Reach::Held));
    rig.ack(b, &push);
    rig.settle();
    let delivered = rig.status_of(a, &id[..8]).expect("an answer to a prefix");
    assert_eq!(
        (delivered.delivered, reach(&delivered)),
        (true, Reach::Delivered)
    );
    assert_eq!(rig.status_of(b, id), None);
    rig.send(a, 2, "m2");
    rig.settle();
    assert_eq!(rig.status_of(a, &id[..8]), None, "two begin so");
}

#[test]
fn a_refusal_gives_the_token_back() {
    let mut rig = Rig::new(Limits {
        sends_per_second: 1,
        sends_burst: 2,
        ..Limits::default()
    });
    let (a, _) = (rig.connect(1), rig.connect(2));
    for nth in 0..5 {
        rig.send(a, 77, &format!("nowhere-{nth}"));
    }
    rig.settle();
    let codes = |acks: Vec<Ack>| -> Vec<_> { acks.into_iter().map(|ack| ack.code).collect() };
    assert_eq!(codes(rig.acks(a)), vec![Some("target_not_found".into()); 5]);
    for id in ["m1", "m2", "m3"] {
        rig.send(a, 2, id);
    }
    rig.send(a, 2, "m1");
    rig.settle();
    let mut codes = codes(rig.acks(a));
    codes.sort();
    assert_eq!(codes, [None, None, None, Some("rate_limited".into())]);
    assert_eq!(rig.mesh.stats().limited_after_accept, 0);
}

#[test]
fn a_full_store_says_so() {
    let mut rig = Rig::new(Limits::default());
    let (a, _) = (rig.connect(1), rig.connect(2));
    rig.settle();
    rig.take(a);
    rig.input(Input::Store(store::Event::Stalled(Stall::Full)));
    rig.send(a, 2, "m1");
    let ack = rig.acks(a).remove(0);
    assert_eq!(ack.code.as_deref(), Some("storage_full"));
    assert!(ack.retry_after_ms.is_some());
}

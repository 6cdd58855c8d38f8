//! What `/metrics` of a running broker says after a workload that is known.

#[path = "wire/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet};

use harness::{BrokerProcess, Client, SOON, TestMesh, public, secret, send_frame};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Samples by what stands before their value.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

async fn scrape(broker: &BrokerProcess) -> Scrape {
    let (status, text) = broker.request_text("GET", "/metrics", &Value::Null).await;
    assert_eq!(status, 200);
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    Scrape { text, samples }
}

impl Scrape {
    /// Of mesh `team`.
    fn of(&self, name: &str) -> f64 {
        self.with(name, "")
    }

    fn with(&self, name: &str, labels: &str) -> f64 {
        self.value(&format!("bowline_broker_{name}{{mesh=\"team\"{labels}}}"))
    }

    fn value(&self, sample: &str) -> f64 {
        let value = self.samples.get(sample);
        *value.unwrap_or_else(|| panic!("no {sample} in\n{}", self.text))
    }

    /// Kinds by family.
    fn families(&self) -> BTreeMap<String, String> {
        let of_line = |line: &str| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some((name.to_owned(), kind.to_owned()))
        };
        self.text.lines().filter_map(of_line).collect()
    }
}

/// Gauges that are counted now and then get their time.
async fn until(broker: &BrokerProcess, what: &str, mut is_so: impl FnMut(&Scrape) -> bool) {
    let counted = timeout(SOON, async {
        while !is_so(&scrape(broker).await) {
            tokio::task::yield_now().await;
        }
    });
    counted
        .await
        .unwrap_or_else(|_| panic!("{what} was never so"));
}

#[tokio::test]
async fn figures_agree_with_what_was_done() {
    let broker = BrokerProcess::start(&[]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let mut hello = ada.hello();
    let capabilities = hello["capabilities"].as_array_mut().expect("a list");
    capabilities.push(json!("receipts1"));
    let (mut a, _) = ada.join_with(&broker, &hello).await;
    let (mut b, ack) = bob.join(&broker).await;
    assert_eq!(a.expect("event").await["event"], "peer_joined");

    a.send(&send_frame("m1", &bob.key(), 20)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    a.send(&send_frame("m1", &bob.key(), 20)).await;
    assert_eq!(a.expect("ack").await["duplicate"], true);
    a.send(&send_frame("m1", &bob.key(), 21)).await;
    assert_eq!(a.expect("ack").await["code"], "idempotency_key_reused");
    a.send(&send_frame("lost", &public(&secret()), 20)).await;
    assert_eq!(a.expect("ack").await["code"], "target_not_found");
    let push = b.expect("push").await;
    b.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]}))
        .await;
    assert_eq!(a.expect("receipt").await["rung"], "delivered");
    b.cut();
    until(&broker, "one in grace", |now| {
        now.with("leases", ",state=\"grace\"") == 1.0
    })
    .await;
    a.send(&send_frame("m2", &bob.key(), 20)).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    until(&broker, "one is owed", |now| {
        now.of("owed_messages") == 1.0 && now.of("owed_bytes") > 20.0
    })
    .await;

    // It comes back, says nothing, and is put out by its own next connection.
    let mut silent = Client::connect(&broker).await;
    silent.send(&bob.hello_resuming(&ack["stream"])).await;
    assert_eq!(silent.expect("hello_ack").await["resumed"], "hit");
    silent.expect("push").await;
    let (mut b, _) = bob.attach(&broker).await;
    let push = b.expect("push").await;
    assert_eq!(push["attempt"], 2);
    b.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]}))
        .await;
    assert_eq!(a.expect("receipt").await["rung"], "delivered");
    b.send(&json!({"type": "seen", "ids": [push["messageId"]], "_reqId": "s"}))
        .await;
    assert_eq!(b.expect("ok").await["_reqId"], "s");
    assert_eq!(a.expect("receipt").await["rung"], "seen");
    b.send(&json!({"type": "bye"})).await;
    assert_eq!(a.expect("event").await["event"], "peer_left");
    until(&broker, "nobody in grace, nothing owed", |now| {
        now.with("leases", ",state=\"grace\"") == 0.0
            && now.of("owed_messages") == 0.0
            && now.value("bowline_broker_connections") == 1.0
    })
    .await;

    let now = scrape(&broker).await;
    for (name, value) in [
        ("accepts_total", 2.0),
        ("duplicates_total", 1.0),
        ("limited_after_accept_total", 0.0),
        ("deliveries_total", 3.0),
        ("redeliveries_total", 1.0),
        ("claims_total", 3.0),
        ("claims_expired_total", 0.0),
        ("acknowledgements_total", 2.0),
        ("seen_total", 1.0),
        ("expired_total", 0.0),
        ("receipts_total", 3.0),
        ("replacements_total", 1.0),
        ("resume_hits_total", 1.0),
        // `m1`, `lost` and `m2` might have been sent in an earlier life; one more is `seen`.
        ("look_ups_total", 4.0),
        ("store_stalls_total", 0.0),
        ("ready", 1.0),
        ("mesh_connections", 1.0),
        ("quiet_connections", 0.0),
        ("inputs_waiting", 0.0),
        ("transactions_waiting", 0.0),
        ("owed_bytes", 0.0),
        ("queued_bytes", 0.0),
    ] {
        assert_eq!(now.of(name), value, "{name} in\n{}", now.text);
    }
    for (code, count) in [
        ("idempotency_key_reused", 1.0),
        ("target_not_found", 1.0),
        ("busy", 0.0),
    ] {
        let labels = format!(",code=\"{code}\"");
        assert_eq!(now.with("refusals_total", &labels), count, "{code}");
    }
    for (to, count) in [
        ("joined", 2.0),
        ("grace", 1.0),
        ("reattached", 2.0),
        ("left", 1.0),
    ] {
        let labels = format!(",to=\"{to}\"");
        assert_eq!(
            now.with("lease_transitions_total", &labels),
            count,
            "{to} in\n{}",
            now.text
        );
    }
    let commits = now.value("bowline_broker_commit_seconds_count");
    let transactions = now.value("bowline_broker_commit_transactions_sum");
    assert!(commits >= 1.0 && transactions >= commits, "{}", now.text);
    assert!(now.value("bowline_broker_commit_seconds_sum") > 0.0);
}

#[tokio::test]
async fn claims_that_nobody_acknowledges_are_counted_as_expired() {
    let broker = BrokerProcess::start(&["claim=200ms"]);
    let mesh = TestMesh::create(&broker, "team").await;
    let member = mesh.member(&broker).await;
    let (ada, bob) = (member.session("ada"), member.session("bob"));
    let (mut a, _) = ada.join(&broker).await;
    let (mut b, _) = bob.join(&broker).await;
    a.send(&send_frame("m", &bob.key(), 20)).await;
    b.expect("push").await;
    assert_eq!(b.expect("push").await["attempt"], 2);
    let now = scrape(&broker).await;
    let expired = now.of("claims_expired_total");
    assert!(expired >= 1.0, "{}", now.text);
    assert_eq!(now.of("claims_total"), now.of("deliveries_total"));
    assert_eq!(now.of("redeliveries_total"), now.of("claims_total") - 1.0);
}

/// The table in `docs/OPERATIONS.md` names what is exported, all of it, by its kind.
#[tokio::test]
async fn the_table_of_metrics_is_what_is_exported() {
    let broker = BrokerProcess::start(&[]);
    TestMesh::create(&broker, "team").await;
    let exported = scrape(&broker).await;

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
    let document = std::fs::read_to_string(path).expect("the document can be read");
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let is_ours = name.starts_with("bowline_broker_");
        is_ours.then_some((name.to_owned(), cells.next()?.to_owned()))
    };
    let documented: BTreeMap<_, _> = document.lines().filter_map(row).collect();
    assert_eq!(documented, exported.families());

    // No ids in labels: each has a handful of values, whoever comes and goes.
    let labels: BTreeSet<&str> = exported
        .samples
        .keys()
        .filter_map(|sample| sample.split_once('{'))
        .flat_map(|(_, labels)| labels.trim_end_matches('}').split(','))
        .filter_map(|label| label.split_once('='))
        .map(|(label, _)| label)
        .collect();
    assert_eq!(
        labels,
        BTreeSet::from(["code", "le", "mesh", "state", "to"])
    );
}

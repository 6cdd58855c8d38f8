//! A session that sends to all others, one message after the other, whatever happens to its daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use bowline_broker::exit::Failure;
use bowline_daemon::client::Daemon;
use bowline_daemon::stage::Party;
use hyper::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::stage::Stage;

/// Between one message and the next.
const EVERY: Duration = Duration::from_millis(20);
/// Between two tries of one message.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Sends until it is over; what it has begun by then it finishes.
pub(super) struct Sender {
    name: &'static str,
    daemon: Daemon,
    to: Vec<&'static str>,
    sent: Sent,
    over: Arc<AtomicBool>,
}

/// What a daemon said that it accepted, in order.
pub(super) struct Sent {
    pub(super) pubkey: String,
    /// By recipient.
    pub(super) ids: BTreeMap<&'static str, Vec<String>>,
}

impl Sent {
    pub(super) fn count(&self) -> usize {
        self.ids.values().map(Vec::len).sum()
    }
}

impl Sender {
    pub(super) fn spawn_all(
        stage: &Stage,
        over: &Arc<AtomicBool>,
    ) -> Vec<JoinHandle<anyhow::Result<Sent>>> {
        let names: Vec<_> = stage.parties.iter().map(|party| party.name).collect();
        let sender = |party: &Party| Self {
            name: party.name,
            daemon: party.daemon().clone(),
            to: names
                .iter()
                .copied()
                .filter(|name| *name != party.name)
                .collect(),
            sent: Sent {
                pubkey: party.pubkey.clone(),
                ids: BTreeMap::new(),
            },
            over: Arc::clone(over),
        };
        let senders = stage.parties.iter().map(sender);
        senders.map(|sender| tokio::spawn(sender.run())).collect()
    }

    async fn run(mut self) -> anyhow::Result<Sent> {
        let mut number = 0_usize;
        while !self.over.load(Ordering::Relaxed) {
            let to = self.to[number % self.to.len()];
            let id = format!("{}-{number}", self.name);
            let body = json!({ "to": to, "body": format!("{id} to {to}") });
            self.until_accepted(&id, &body).await?;
            self.sent.ids.entry(to).or_default().push(id);
            number += 1;
            sleep(EVERY).await;
        }
        Ok(self.sent)
    }

    /// Always with the same id: whoever had no answer asks again.
    async fn until_accepted(&self, id: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let headers = [("idempotency-key", id)];
        loop {
            let answer = self
                .daemon
                .call(Method::POST, "/v1/send", Some(body), &headers);
            match answer.await {
                Ok(_) => return Ok(()),
                Err(failure) if passes(&failure) => sleep(AGAIN_AFTER).await,
                Err(failure) => bail!("{} cannot send: {failure}", self.name),
            }
        }
    }
}

/// A daemon that is away, stopping, or has no room for the moment.
fn passes(failure: &Failure) -> bool {
    matches!(
        failure.code.as_str(),
        "no_daemon"
            | "daemon_unreachable"
            | "no_answer"
            | "outcome_unknown"
            | "stopping"
            | "busy"
            | "storage_full"
    )
}

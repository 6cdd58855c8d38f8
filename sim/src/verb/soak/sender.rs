//! A session that sends to all others, one message after the other, whatever happens to its daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bowline_broker::exit::Failure;
use bowline_core::wire::Priority;
use bowline_daemon::client::Daemon;
use bowline_daemon::stage::{Accepted, Party};
use hyper::Method;
use serde_json::json;
use sim::random::{Purpose, Random, Stream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between one message and the next.
const EVERY: Duration = Duration::from_millis(20);
/// Between two tries of one message.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A daemon is away for seconds, and takes no longer than half a minute to start.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(120);
/// Nobody's status is anything but `idle`, so that each of them reaches its recipient.
const PRIORITIES: [Priority; 3] = [Priority::Now, Priority::Next, Priority::Low];

/// All that send, each on its own.
pub(super) struct Senders {
    sending: JoinSet<anyhow::Result<Sender>>,
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

pub(super) struct Sender {
    name: &'static str,
    daemon: Daemon,
    to: Vec<&'static str>,
    draws: Stream,
    number: usize,
    pub(super) sent: Sent,
    accepted: Arc<AtomicUsize>,
}

/// What a daemon said that it accepted, in order.
pub(super) struct Sent {
    pub(super) pubkey: String,
    pub(super) by_recipient: BTreeMap<&'static str, Vec<Accepted>>,
}

impl Sent {
    pub(super) fn count(&self) -> usize {
        self.by_recipient.values().map(Vec::len).sum()
    }
}

impl Senders {
    /// Every party begins to send to all others.
    pub(super) fn begin(parties: &[Party], seed: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut sending = JoinSet::new();
        for (entity, party) in (0..).zip(parties) {
            let others = parties.iter().map(|other| other.name);
            let sender = Sender {
                name: party.name,
                daemon: party.daemon().clone(),
                to: others.filter(|name| *name != party.name).collect(),
                draws: Random::new(seed).stream(Purpose::Client, entity),
                number: 0,
                sent: Sent {
                    pubkey: party.pubkey.clone(),
                    by_recipient: BTreeMap::new(),
                },
                accepted: Arc::clone(&accepted),
            };
            sending.spawn(sender.send_until(Arc::clone(&over)));
        }
        Self {
            sending,
            over,
            accepted,
        }
    }

    /// How many messages were accepted; goes on counting.
    pub(super) fn accepted(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.accepted)
    }

    /// Resolves when one of them cannot go on, with the reason. Not to be asked after the end.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        match self.sending.join_next().await {
            Some(Ok(Err(failure))) => failure,
            Some(Err(panic)) => anyhow!(panic).context("a sender panicked"),
            Some(Ok(Ok(sender))) => anyhow!("{} ended before the end", sender.name),
            None => anyhow!("nobody sends"),
        }
    }

    /// They finish what they have begun. Takes no longer than one message may.
    pub(super) async fn finish(mut self) -> anyhow::Result<Vec<Sender>> {
        self.over.store(true, Ordering::Relaxed);
        let mut senders = Vec::new();
        while let Some(ended) = self.sending.join_next().await {
            senders.push(ended.context("a sender panicked")??);
        }
        Ok(senders)
    }
}

impl Sender {
    async fn send_until(mut self, over: Arc<AtomicBool>) -> anyhow::Result<Self> {
        while !over.load(Ordering::Relaxed) {
            let to = self.to[self.number % self.to.len()];
            let drawn = usize::try_from(self.draws.below(PRIORITIES.len() as u64));
            self.send(to, PRIORITIES[drawn?]).await?;
            sleep(EVERY).await;
        }
        Ok(self)
    }

    /// One message more in each lane. Whatever was under way in a lane before it arrives before it.
    pub(super) async fn send_in_every_lane(&mut self) -> anyhow::Result<()> {
        for nth in 0..self.to.len() {
            for priority in PRIORITIES {
                self.send(self.to[nth], priority).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, to: &'static str, priority: Priority) -> anyhow::Result<()> {
        let id = format!("{}-{}", self.name, self.number);
        let body = json!({ "to": to, "body": format!("{id} to {to}"), "priority": priority });
        let tries = Tries {
            daemon: &self.daemon,
            name: self.name,
            within: ACCEPTED_WITHIN,
        };
        tries.until_accepted(&id, &body).await?;
        self.number += 1;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let sent = self.sent.by_recipient.entry(to).or_default();
        sent.push(Accepted { id, priority });
        Ok(())
    }
}

/// Of one message.
struct Tries<'a> {
    daemon: &'a Daemon,
    name: &'a str,
    within: Duration,
}

impl Tries<'_> {
    /// Always with the same id: whoever had no answer asks again.
    async fn until_accepted(&self, id: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let headers = [("idempotency-key", id)];
        let mut last = None;
        let accepted = timeout(self.within, async {
            loop {
                let answer = self
                    .daemon
                    .call(Method::POST, "/v1/send", Some(body), &headers);
                match answer.await {
                    Ok(_) => return Ok(()),
                    Err(failure) if passes(&failure) => last = Some(failure),
                    Err(failure) => bail!("{} cannot send {id}: {failure}", self.name),
                }
                sleep(AGAIN_AFTER).await;
            }
        })
        .await;
        accepted.unwrap_or_else(|_| {
            let last = last.map_or("no answer".to_owned(), |failure| failure.to_string());
            let (name, seconds) = (self.name, self.within.as_secs_f64());
            bail!("{name} could not send {id} for {seconds} s; the last it heard: {last}")
        })
    }
}

/// A daemon that is away, stopping, or has no room for the moment.
pub(super) fn passes(failure: &Failure) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_daemon::home::Home;

    #[tokio::test]
    async fn a_daemon_that_stays_away_is_told_of_with_the_sender_and_the_last_refusal() {
        let nowhere = tempfile::tempdir().unwrap();
        let tries = Tries {
            daemon: &Daemon::new(&Home::at(nowhere.path()).unwrap(), None),
            name: "ada",
            within: Duration::from_millis(300),
        };
        let failure = tries.until_accepted("ada-7", &json!({})).await.unwrap_err();
        let told = failure.to_string();
        assert!(told.contains("ada could not send ada-7"), "{told}");
        assert!(told.contains("no_daemon"), "{told}");
    }
}

//! A watcher: a session's event stream, and what it was told of others coming and going, and of
//! mail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_broker::exit::Failure;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Daemon, Event};

/// How long a watcher waits for a daemon that was killed.
const COME_BACK_AFTER: Duration = Duration::from_millis(100);

pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    pub joined: usize,
    pub left: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Progress {
    /// One for each time that it subscribed.
    snapshots: usize,
    /// Others that it knows to be here.
    present: usize,
}

#[derive(Default)]
struct Seen {
    progress: Progress,
    counts: Counts,
    /// Numbers of the inbox, as they were told.
    mail: Vec<u64>,
    /// `None` before the first snapshot.
    present: Option<BTreeSet<String>>,
}

impl Watcher {
    /// Watches from now on; comes back by itself whenever the stream ends.
    #[must_use]
    pub fn of(daemon: Daemon) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (told, progress) = watch::channel(Progress::default());
        let task = tokio::spawn(watch(daemon, Arc::clone(&seen), told));
        Self {
            seen,
            progress,
            task,
        }
    }

    /// How many snapshots it was given: one for each time that it subscribed.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.progress.borrow().snapshots
    }

    /// Resolves once it was given more than `count` snapshots.
    pub async fn until_snapshots_exceed(&mut self, count: usize) {
        self.until(|progress| progress.snapshots > count).await;
    }

    /// Resolves once it knows `others` to be here.
    pub async fn until_sees(&mut self, others: usize) {
        self.until(|progress| progress.present >= others).await;
    }

    async fn until(&mut self, done: impl Fn(&Progress) -> bool) {
        // The sender ends with the watcher.
        let _ended = self.progress.wait_for(done).await.is_err();
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.seen).counts
    }

    /// Numbers of the inbox, as they were told: each time that it comes back, it asks for what is
    /// beyond the last.
    #[must_use]
    pub fn mail(&self) -> Vec<u64> {
        lock(&self.seen).mail.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// What a stream tells: changes as they come, and at its beginning a snapshot, of which the
    /// difference to what was known counts as seen.
    fn take(&mut self, event: &Event) -> Progress {
        match event.kind.as_str() {
            "peer_joined" => {
                self.counts.joined += 1;
                self.present_now().insert(key(&event.data));
            }
            "peer_left" => {
                self.counts.left += 1;
                self.present_now().remove(&key(&event.data));
            }
            "peers" => {
                let listed = event.data["peers"].as_array();
                let now: BTreeSet<_> = listed.into_iter().flatten().map(key).collect();
                if let Some(before) = self.present.replace(now.clone()) {
                    self.counts.joined += now.difference(&before).count();
                    self.counts.left += before.difference(&now).count();
                }
                self.progress.snapshots += 1;
            }
            "message" => self.mail.extend(event.id),
            _ => {}
        }
        self.progress.present = self.present.as_ref().map_or(0, BTreeSet::len);
        self.progress
    }

    fn present_now(&mut self) -> &mut BTreeSet<String> {
        self.present.get_or_insert_default()
    }
}

async fn watch(daemon: Daemon, seen: Arc<Mutex<Seen>>, told: watch::Sender<Progress>) {
    loop {
        // A daemon that was killed is expected to come back; whoever killed it notices one that does
        // not.
        if let Err(failure) = watch_once(&daemon, &seen, &told).await {
            tracing::debug!(%failure, "the event stream is gone");
        }
        tokio::time::sleep(COME_BACK_AFTER).await;
    }
}

async fn watch_once(
    daemon: &Daemon,
    seen: &Mutex<Seen>,
    told: &watch::Sender<Progress>,
) -> Result<(), Failure> {
    let last = lock(seen).mail.last().copied();
    let mut events = daemon.events("", last).await?;
    while let Some(event) = events.next().await? {
        let progress = lock(seen).take(&event);
        told.send_replace(progress);
    }
    Ok(())
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(peer: &Value) -> String {
    peer["pubkey"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, data: Value) -> Event {
        Event {
            id: None,
            kind: kind.to_owned(),
            data,
        }
    }

    #[test]
    fn a_leave_between_two_snapshots_counts_like_one_that_was_told() {
        let mut seen = Seen::default();
        seen.take(&event(
            "peers",
            json!({"peers": [{"pubkey": "a"}, {"pubkey": "b"}]}),
        ));
        assert_eq!(seen.counts, Counts::default());
        seen.take(&event("peer_left", json!({"pubkey": "b"})));
        seen.take(&event("peers", json!({"peers": [{"pubkey": "c"}]})));
        assert_eq!(seen.counts, Counts { joined: 1, left: 2 });
        assert!(seen.mail.is_empty());
    }
}

//! Who takes part: a broker, two hosts with two sessions each, and the proxy between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bowline_broker::exit::Failure;
use bowline_daemon::client::Daemon;
use bowline_daemon::stage::{Accepted, Broker, Host, Mail, Party, Proxy, Verdict, Watcher};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Story;
use super::disk::Disk;
use super::processes::Processes;
use super::report::Streams;
use super::sender::{Sender, passes};

pub(super) struct Stage {
    pub(super) processes: Processes,
    pub(super) proxy: Proxy,
    pub(super) parties: Vec<Party>,
    /// One for each party, on its own event stream.
    watchers: Vec<Watcher>,
    left_at_start: usize,
}

/// By host.
const SESSIONS: [[&str; 2]; 2] = [["ada", "amy"], ["bob", "ben"]];
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is under way at the end has this long to arrive: the longest backoff, and a claim.
const SETTLES_WITHIN: Duration = Duration::from_secs(300);
const LOOKS_EVERY: Duration = Duration::from_millis(250);
const TELLS_EVERY: u32 = 20;

impl Stage {
    pub(super) async fn set(
        program: &Path,
        dir: &Path,
        disk: &Disk,
        story: Story,
    ) -> anyhow::Result<Self> {
        let data: PathBuf = disk.path().join("broker");
        // Not on the disk that fills: what a broker says then is wanted.
        let broker = Broker::start(program, &data, &dir.join("broker.log")).await?;
        let proxy = Proxy::to(broker.address()).await?;
        let north = Host::start(program, dir, "north").await?;
        let south = Host::start(program, dir, "south").await?;
        let url = format!("ws://{}/ws", proxy.address());
        let mesh = json!({ "slug": "soak", "broker_url": url, "display_name": "north" });
        let member = Daemon::new(&north.home, None);
        member.post("/v1/meshes", &mesh).await?;
        let invite = member.post("/v1/invites", &json!({})).await?.body;
        let join = json!({ "invite": invite["invite"], "display_name": "south" });
        Daemon::new(&south.home, None)
            .post("/v1/meshes/join", &join)
            .await?;
        let hosts = [north, south];
        let mut parties = Vec::new();
        for (host, names) in hosts.iter().zip(SESSIONS) {
            for name in names {
                parties.push(Party::open(host, dir, name).await?);
            }
        }
        let mut watchers: Vec<Watcher> = parties
            .iter()
            .map(|party| Watcher::of(party.daemon().clone()))
            .collect();
        let others = parties.len() - 1;
        for watcher in &mut watchers {
            timeout(READY_WITHIN, watcher.until_sees(others))
                .await
                .context("the sessions do not see one another")?;
        }
        let left_at_start = leaves(&watchers);
        Ok(Self {
            processes: Processes {
                broker,
                hosts,
                story,
                died_unasked: 0,
            },
            proxy,
            parties,
            watchers,
            left_at_start,
        })
    }

    /// Until every inbox holds as many as were sent to it; what has not come by then is lost.
    pub(super) async fn settle(&mut self, senders: &[Sender]) -> anyhow::Result<()> {
        let story = self.processes.story;
        let all: usize = senders.iter().map(|sender| sender.sent.count()).sum();
        let settled = timeout(SETTLES_WITHIN, async {
            for look in 0.. {
                self.processes.revive().await?;
                let there = arrived(&mut self.parties).await?;
                if look % TELLS_EVERY == 0 || there >= all {
                    story.tell(&format!("{there} of {all} messages have arrived"));
                }
                if there >= all {
                    break;
                }
                sleep(LOOKS_EVERY).await;
            }
            anyhow::Ok(())
        });
        settled.await.unwrap_or_else(|_| {
            story.tell("not everything has arrived in time");
            Ok(())
        })
    }

    /// Until the last message of every lane has arrived: what was sent in a lane before it, and
    /// would arrive again, has done so by then.
    pub(super) async fn settle_last(&mut self, senders: &[Sender]) -> anyhow::Result<()> {
        let settled = timeout(SETTLES_WITHIN, async {
            loop {
                self.processes.revive().await?;
                arrived(&mut self.parties).await?;
                let mut waits = false;
                for sent in senders.iter().map(|sender| &sender.sent) {
                    for (to, accepted) in &sent.by_recipient {
                        let inbox = party(&self.parties, to)?.inbox();
                        waits |= !have_arrived(&sent.pubkey, last_of_lanes(accepted), inbox);
                    }
                }
                if !waits {
                    return anyhow::Ok(());
                }
                sleep(LOOKS_EVERY).await;
            }
        });
        settled.await.unwrap_or_else(|_| {
            let story = self.processes.story;
            story.tell("not everything that was sent after the restart has arrived in time");
            Ok(())
        })
    }

    /// Only what is durable counts.
    pub(super) async fn kill_and_restart_everybody(&mut self) -> anyhow::Result<()> {
        let before: Vec<usize> = self.watchers.iter().map(Watcher::snapshots).collect();
        self.processes.kill_and_restart_all().await?;
        for (watcher, before) in self.watchers.iter_mut().zip(before) {
            timeout(READY_WITHIN, watcher.until_snapshots_exceed(before))
                .await
                .context("an event stream did not come back")?;
        }
        Ok(())
    }

    pub(super) async fn judge(&mut self, senders: &[Sender]) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        for party in &mut self.parties {
            party.read_again();
            party.read_inbox().await?;
        }
        for sent in senders.iter().map(|sender| &sender.sent) {
            for (to, accepted) in &sent.by_recipient {
                let inbox = party(&self.parties, to)?.inbox();
                verdict = verdict.and(Verdict::of(&sent.pubkey, accepted, inbox));
            }
        }
        Ok(verdict)
    }

    /// What the event streams told of mail, against the inboxes as they were read last.
    pub(super) async fn judge_streams(&self) -> anyhow::Result<Streams> {
        let mut streams = Streams::default();
        for (party, watcher) in self.parties.iter().zip(&self.watchers) {
            let inbox: Vec<u64> = party.inbox().iter().map(|mail| mail.seq).collect();
            let told = async {
                while watcher.mail().len() < inbox.len() {
                    sleep(LOOKS_EVERY).await;
                }
            };
            // What was not told by now counts as missed.
            let _in_time = timeout(READY_WITHIN, told).await.is_ok();
            streams = streams.and(Streams::of(&inbox, &watcher.mail()));
        }
        Ok(streams)
    }

    /// Nobody was away for as long as the grace.
    pub(super) fn leaves(&self) -> usize {
        leaves(&self.watchers) - self.left_at_start
    }
}

/// How many messages are in the inboxes. A daemon that is away for the moment is asked again later.
async fn arrived(parties: &mut [Party]) -> Result<usize, Failure> {
    for party in &mut *parties {
        match party.read_inbox().await {
            Err(failure) if !passes(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(parties.iter().map(|party| party.inbox().len()).sum())
}

fn party<'a>(parties: &'a [Party], name: &str) -> anyhow::Result<&'a Party> {
    let party = parties.iter().find(|party| party.name == name);
    party.context("a message to nobody")
}

/// By priority.
fn last_of_lanes(accepted: &[Accepted]) -> Vec<&str> {
    let last = accepted.iter().map(|it| (it.priority, it.id.as_str()));
    last.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn have_arrived(sender: &str, ids: Vec<&str>, inbox: &[Mail]) -> bool {
    // The last are at the end.
    let from_sender = || inbox.iter().rev().filter(|mail| mail.sender == sender);
    ids.iter()
        .all(|id| from_sender().any(|mail| mail.id == *id))
}

fn leaves(watchers: &[Watcher]) -> usize {
    watchers.iter().map(|watcher| watcher.counts().left).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_core::wire::Priority::{self, Low, Now};

    fn accepted(id: &str, priority: Priority) -> Accepted {
        Accepted {
            id: id.into(),
            priority,
        }
    }

    fn mail(sender: &str, id: &str) -> Mail {
        Mail {
            seq: 0,
            sender: sender.into(),
            id: id.into(),
            priority: Some(Now),
            body: Some(String::new()),
        }
    }

    #[test]
    fn every_lane_is_waited_for() {
        let sent = [
            accepted("a", Low),
            accepted("b", Now),
            accepted("c", Low),
            accepted("d", Now),
        ];
        let last = last_of_lanes(&sent);
        assert_eq!(last, ["d", "c"]);
        let inbox = [mail("s", "a"), mail("s", "d"), mail("t", "c")];
        assert!(
            !have_arrived("s", last.clone(), &inbox),
            "of another sender"
        );
        assert!(have_arrived("s", last, &[mail("s", "d"), mail("s", "c")]));
    }
}

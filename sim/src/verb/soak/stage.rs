//! Who takes part: a broker, two hosts with two sessions each, and the proxy between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bowline_daemon::client::Daemon;
use bowline_daemon::stage::{Broker, Host, Party, Proxy, Verdict, Watcher};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Story;
use super::disk::Disk;
use super::report::Streams;
use super::sender::Sent;

pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) hosts: [Host; 2],
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
    pub(super) async fn set(program: &Path, dir: &Path, disk: &Disk) -> anyhow::Result<Self> {
        let data: PathBuf = disk.path().join("broker");
        let broker = Broker::start(program, &data).await?;
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
            broker,
            hosts,
            proxy,
            parties,
            watchers,
            left_at_start,
        })
    }

    /// Until every inbox holds as many as were sent to it; what has not come by then is lost.
    pub(super) async fn settle(&mut self, sent: &[Sent], story: &Story) -> anyhow::Result<()> {
        let all: usize = sent.iter().map(Sent::count).sum();
        let settled = timeout(SETTLES_WITHIN, async {
            for look in 0.. {
                let mut there = 0;
                for party in &mut self.parties {
                    party.read_inbox().await?;
                    there += party.inbox().len();
                }
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
        match settled.await {
            Ok(settled) => settled,
            Err(_) => {
                story.tell("not everything has arrived in time");
                Ok(())
            }
        }
    }

    /// Only what is durable counts.
    pub(super) async fn kill_and_restart_everybody(&mut self) -> anyhow::Result<()> {
        let before: Vec<usize> = self.watchers.iter().map(Watcher::snapshots).collect();
        for host in &mut self.hosts {
            host.kill().await?;
        }
        self.broker.kill().await?;
        self.broker.restart().await?;
        for host in &mut self.hosts {
            host.restart().await?;
        }
        for (watcher, before) in self.watchers.iter_mut().zip(before) {
            timeout(READY_WITHIN, watcher.until_snapshots_exceed(before))
                .await
                .context("an event stream did not come back")?;
        }
        Ok(())
    }

    pub(super) async fn judge(&mut self, sent: &[Sent]) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        for party in &mut self.parties {
            party.read_again();
            party.read_inbox().await?;
        }
        for sent in sent {
            for (to, ids) in &sent.ids {
                let to = self.parties.iter().find(|party| party.name == *to);
                let to = to.context("a message to nobody")?;
                verdict = verdict.and(Verdict::of(&sent.pubkey, ids, to.inbox()));
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

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for host in &mut self.hosts {
            host.stop().await?;
        }
        Ok(self.broker.stop().await?)
    }
}

fn leaves(watchers: &[Watcher]) -> usize {
    watchers.iter().map(|watcher| watcher.counts().left).sum()
}

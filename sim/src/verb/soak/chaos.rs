//! What goes wrong: processes are killed, connections cut, stalled and half-closed, the disk fills.

use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_daemon::stage::{Mode, Proxy, Who};
use sim::random::{Purpose, Random, Stream};
use tokio::time::sleep;

use super::disk::Disk;
use super::processes::Processes;
use super::report::Faults;
use super::stage::Stage;

pub(super) struct Chaos<'a> {
    disk: &'a Disk,
    kills: Stream,
    cuts: Stream,
    pub(super) faults: Faults,
}

/// Between a restart and the next kill: with the time away, more than one in ten seconds.
const UNHURT_MS: (u64, u64) = (1_000, 4_000);
const AWAY_MS: (u64, u64) = (200, 2_500);
const BETWEEN_CUTS_MS: (u64, u64) = (500, 2_500);
const STALLED_MS: (u64, u64) = (300, 6_000);
const FULL_MS: (u64, u64) = (1_000, 2_500);
/// One kill in so many finds the disk full.
const KILLS_A_FILL: u64 = 4;
/// One connection in so many is hit by a fault of the network.
const HITS_ONE_IN: u64 = 3;
/// One stall in so many is for good.
const FOR_GOOD_ONE_IN: u64 = 4;
const RESTART_TRIES: u32 = 20;
const RESTART_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl<'a> Chaos<'a> {
    pub(super) fn new(seed: u64, disk: &'a Disk) -> Self {
        let random = Random::new(seed);
        Self {
            disk,
            kills: random.stream(Purpose::Plan, 1),
            cuts: random.stream(Purpose::Plan, 2),
            faults: Faults::default(),
        }
    }

    /// Until then; afterwards everybody runs, everything flows, and there is room.
    pub(super) async fn play(&mut self, until: Instant, stage: &mut Stage) -> anyhow::Result<()> {
        let Stage {
            processes, proxy, ..
        } = stage;
        let mut cut = Faults::default();
        let (killed, ()) = tokio::join!(
            kill(
                self.disk,
                &mut self.kills,
                &mut self.faults,
                until,
                processes,
            ),
            hurt(&mut self.cuts, &mut cut, until, proxy),
        );
        killed?;
        self.faults = self.faults.and(cut);
        self.disk
            .empty()
            .context("the ballast cannot be taken away")?;
        proxy.heal(|_| true);
        Ok(())
    }
}

/// One after the other: somebody is killed, is away, and comes back.
async fn kill(
    disk: &Disk,
    draws: &mut Stream,
    faults: &mut Faults,
    until: Instant,
    processes: &mut Processes,
) -> anyhow::Result<()> {
    let story = processes.story;
    for nth in 1_u64.. {
        sleep(between(draws, UNHURT_MS)).await;
        processes.revive().await?;
        if Instant::now() >= until {
            break;
        }
        let fills = disk.can_be_filled() && nth % KILLS_A_FILL == 0;
        if fills {
            disk.fill().context("the disk cannot be filled")?;
            faults.disk_fulls += 1;
            story.tell("the broker's disk is full");
            sleep(between(draws, FULL_MS)).await;
        }
        let away = between(draws, AWAY_MS);
        match draws.below(3) {
            0 => {
                if processes.kill_broker().await? {
                    faults.broker_kills += 1;
                    story.tell(&format!("SIGKILL: the broker, for {} ms", away.as_millis()));
                }
                sleep(away).await;
                // A broker cannot begin on a full disk, and says so.
                disk.empty()?;
                let mut tries = 0;
                while let Err(failure) = processes.broker.restart().await {
                    tries += 1;
                    if tries >= RESTART_TRIES {
                        return Err(failure).context("the broker does not come back");
                    }
                    sleep(RESTART_AGAIN_AFTER).await;
                }
            }
            n => {
                let nth = usize::from(n == 2);
                let name = processes.hosts[nth].name;
                if processes.kill_host(nth).await? {
                    faults.daemon_kills += 1;
                    story.tell(&format!("SIGKILL: {name}, for {} ms", away.as_millis()));
                }
                sleep(away).await;
                let back = processes.hosts[nth].restart().await;
                back.with_context(|| format!("{name} does not come back"))?;
            }
        }
        disk.empty().context("the ballast cannot be taken away")?;
    }
    Ok(())
}

/// Connections are cut, half-closed, and stalled for a while or for good.
async fn hurt(draws: &mut Stream, faults: &mut Faults, until: Instant, proxy: &Proxy) {
    while Instant::now() < until {
        sleep(between(draws, BETWEEN_CUTS_MS)).await;
        let salt = draws.next_u64();
        let which = |who: &Who| hit(who, salt);
        match draws.below(4) {
            0 => faults.cuts += proxy.set(Mode::Reset, which),
            1 => faults.cuts += proxy.set(Mode::Close, which),
            2 => faults.half_closes += proxy.set(Mode::HalfClose, which),
            _ => {
                faults.stalls += proxy.set(Mode::Stall, which);
                sleep(between(draws, STALLED_MS)).await;
                if draws.below(FOR_GOOD_ONE_IN) > 0 {
                    proxy.heal(|_| true);
                }
            }
        }
    }
}

fn hit(who: &Who, salt: u64) -> bool {
    let (Who::Session(name) | Who::Member(name)) = who;
    let sum = name.bytes().fold(salt, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (sum >> 32) % HITS_ONE_IN == 0
}

fn between(draws: &mut Stream, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(draws.between(least, most))
}

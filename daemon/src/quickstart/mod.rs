//! `quickstart`: a broker, two daemons and four sessions on this machine, with everything cut,
//! stalled and killed while they talk. It uses only what a user has: the binaries, their sockets,
//! their IPC.

mod story;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bowline_broker::exit::{Exit, Failure};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use self::story::Story;
use crate::cli::output::Output;
use crate::client::Daemon;
use crate::stage::{
    Broker, Counts, Death, Host, Mode, Party, Proxy, Signals, Verdict, Watcher, Who,
};

#[derive(Args, Debug)]
pub struct QuickstartArgs {
    /// Stop everything at the end instead of leaving it running until Ctrl-C.
    #[arg(long)]
    exit: bool,
}

/// Messages each way.
const MESSAGES: usize = 200;
/// No kill happens with fewer messages under way.
const UNDER_WAY_AT_LEAST: usize = 10;
const SETTLES_WITHIN: Duration = Duration::from_secs(150);
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// How long the broker, a daemon, or the path stays away: far below the grace of 90 s.
const OUTAGE: Duration = Duration::from_millis(1_500);

/// The code of a failure.
const INTERRUPTED: &str = "interrupted";

const ADA: &str = "ada";
const BOB: &str = "bob";
const ADAS_WATCHER: &str = "watcher-north";
const BOBS_WATCHER: &str = "watcher-south";

/// The one object that `--json` prints. Counted through the IPC.
#[derive(Serialize, Clone, Debug)]
struct Report {
    sent: usize,
    delivered: usize,
    lost: usize,
    duplicates: usize,
    out_of_order: usize,
    socket_cuts: usize,
    broker_restarts: usize,
    daemon_restarts: usize,
    /// The smallest number of messages under way over all kills.
    in_flight_at_kill: usize,
    peer_left_seen: usize,
    peer_joined_seen: usize,
    seconds: f64,
}

impl Report {
    fn holds(&self) -> bool {
        self.delivered == self.sent
            && self.lost + self.duplicates + self.out_of_order + self.peer_left_seen == 0
            && self.in_flight_at_kill >= UNDER_WAY_AT_LEAST
    }
}

/// Runs it to the end; with a report that does not hold, the exit code says so.
///
/// # Errors
/// If something did not start, answer or settle in time.
pub async fn run(args: QuickstartArgs, output: Output) -> Result<ExitCode, Failure> {
    // Short, because the path of a Unix socket has to fit.
    let dir = tempfile::Builder::new().prefix("bowline-").tempdir()?;
    let ended = run_in(dir.path(), &args, output).await;
    if ended
        .as_ref()
        .is_err_and(|failure| failure.code != INTERRUPTED)
    {
        // The logs that a failure names have to be there.
        let _kept = dir.keep();
    }
    ended
}

async fn run_in(dir: &Path, args: &QuickstartArgs, output: Output) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let story = Story::begin(2 * MESSAGES);
    let performed = tokio::select! {
        performed = perform(dir, &story) => performed,
        () = signals.next() => Err(interrupted()),
    };
    story.end();
    let (mut stage, report) = performed?;
    let json = serde_json::to_value(&report).expect("plain numbers always serialise");
    let code = if report.holds() {
        ExitCode::SUCCESS
    } else {
        Exit::Failed.into()
    };
    if args.exit {
        stage.clear().await?;
        output.say(summary(&report), &json)?;
        return Ok(code);
    }
    output.say(
        format!("{}\n\n{}", summary(&report), stage.what_to_try()?),
        &json,
    )?;
    signals.next().await;
    stage.clear().await?;
    Ok(code)
}

fn interrupted() -> Failure {
    Failure::new(Exit::Failed, INTERRUPTED, "interrupted before the end")
}

/// Everything that runs, and what was done to it.
struct Stage<'a> {
    story: &'a Story,
    proxy: Proxy,
    broker: Broker,
    north: Host,
    south: Host,
    ada: Party,
    bob: Party,
    watchers: [Watcher; 2],
    at_start: [Counts; 2],
    socket_cuts: usize,
    broker_restarts: usize,
    daemon_restarts: usize,
    in_flight_at_kill: Option<usize>,
}

async fn perform<'a>(dir: &Path, story: &'a Story) -> Result<(Stage<'a>, Report), Failure> {
    let begun = Instant::now();
    let mut stage = Stage::set(dir, story).await?;
    match stage.play_to_the_end(begun).await {
        Ok(report) => Ok((stage, report)),
        // Whoever died is why the others waited.
        Err(failure) => Err(stage.death()?.map_or(failure, Failure::from)),
    }
}

impl<'a> Stage<'a> {
    async fn set(dir: &Path, story: &'a Story) -> Result<Self, Failure> {
        story.tell("starting a broker and two daemons, north and south");
        let program = std::env::current_exe()?;
        let broker = Broker::start(&program, &dir.join("broker"), &dir.join("broker.log")).await?;
        let proxy = Proxy::to(broker.address()).await?;
        let (north, south) = tokio::try_join!(
            Host::start(&program, dir, "north"),
            Host::start(&program, dir, "south")
        )?;

        story.tell("north makes a mesh and invites south");
        let north_member = Daemon::new(&north.home, None);
        let south_member = Daemon::new(&south.home, None);
        let mesh = json!({
            "slug": "quickstart",
            "broker_url": format!("ws://{}/ws", proxy.address()),
            "display_name": north.name,
        });
        north_member.post("/v1/meshes", &mesh).await?;
        let invite = north_member.post("/v1/invites", &json!({})).await?.body;
        let join = json!({ "invite": invite["invite"], "display_name": south.name });
        south_member.post("/v1/meshes/join", &join).await?;

        story.tell("sessions open: ada on north, bob on south, and a watcher beside each");
        let ada = Party::open(&north, dir, ADA).await?;
        let bob = Party::open(&south, dir, BOB).await?;
        let north_eye = Party::open(&north, dir, ADAS_WATCHER).await?;
        let south_eye = Party::open(&south, dir, BOBS_WATCHER).await?;
        in_time("the sessions to see one another", async {
            for party in [&ada, &bob, &north_eye, &south_eye] {
                // Itself is listed too.
                while party.live_peers().await? < 4 {
                    sleep(LOOKS_EVERY).await;
                }
            }
            Ok(())
        })
        .await?;
        let mut watchers = [&north_eye, &south_eye].map(|eye| Watcher::of(eye.daemon().clone()));
        for watcher in &mut watchers {
            in_time("the watchers to see the others", async {
                watcher.until_sees(3).await;
                Ok(())
            })
            .await?;
        }
        let at_start = [watchers[0].counts(), watchers[1].counts()];
        Ok(Self {
            story,
            proxy,
            broker,
            north,
            south,
            ada,
            bob,
            watchers,
            at_start,
            socket_cuts: 0,
            broker_restarts: 0,
            daemon_restarts: 0,
            in_flight_at_kill: None,
        })
    }

    async fn play_to_the_end(&mut self, begun: Instant) -> Result<Report, Failure> {
        self.play().await?;
        self.settle().await?;
        self.restart_both_daemons().await?;
        self.count(begun.elapsed()).await
    }

    /// Of whoever ended by itself.
    fn death(&mut self) -> Result<Option<Death>, Failure> {
        let died = [
            self.broker.process.died()?,
            self.north.process.died()?,
            self.south.process.died()?,
        ];
        Ok(died.into_iter().flatten().next())
    }

    /// What goes wrong, in order. The numbers of messages add up to [`MESSAGES`].
    async fn play(&mut self) -> Result<(), Failure> {
        self.send_each_way(15).await?;

        self.send_each_way(15).await?;
        self.cut("every socket is reset", Mode::Reset, |_| true)
            .await?;
        self.all_connected().await?;

        self.send_each_way(15).await?;
        self.cut(
            "ada's session socket stalls, without a FIN, for good",
            Mode::Stall,
            is(ADA),
        )
        .await?;
        self.send_each_way(15).await?;
        self.cut("bob's session socket is closed", Mode::Close, is(BOB))
            .await?;
        self.kill_broker(30).await?;

        self.connected(&[session(BOB)]).await?;
        self.kill_south(30).await?;

        self.connected(&of_south()).await?;
        self.send_each_way(15).await?;
        self.cut(
            "every socket of south stalls for a while",
            Mode::Stall,
            |who| of_south().contains(who),
        )
        .await?;
        sleep(OUTAGE).await;
        self.proxy.heal(|who| of_south().contains(who));
        self.story.tell("and goes on where it stood");
        self.kill_broker(30).await?;

        self.connected(&[session(BOB)]).await?;
        self.send_each_way(20).await?;
        self.cut("bob's session socket is reset", Mode::Reset, is(BOB))
            .await?;
        self.connected(&[session(ADA), session(BOB)]).await?;
        self.story
            .tell("ada's daemon has noticed by itself that its stalled socket is dead");
        self.send_each_way(15).await?;
        self.cut("both session sockets are reset", Mode::Reset, |who| {
            is(ADA)(who) || is(BOB)(who)
        })
        .await
    }

    async fn send_each_way(&mut self, count: usize) -> Result<(), Failure> {
        tokio::try_join!(self.ada.send(BOB, count), self.bob.send(ADA, count))?;
        self.show_delivered().await?;
        Ok(())
    }

    /// `what` is told with how many sockets it hit; hitting none is no act.
    async fn cut(
        &mut self,
        what: &str,
        mode: Mode,
        which: impl Fn(&Who) -> bool,
    ) -> Result<(), Failure> {
        let hit = self.proxy.set(mode, which);
        if hit == 0 {
            return Err(Failure::new(
                Exit::Failed,
                "nothing_to_cut",
                format!("no connection was there when {what}"),
            ));
        }
        self.socket_cuts += hit;
        self.story.tell(format!("{what} ({hit} cut)"));
        Ok(())
    }

    /// SIGKILL while messages are under way, and a start with the same data.
    async fn kill_broker(&mut self, burst: usize) -> Result<(), Failure> {
        self.send_burst(burst).await?;
        self.broker.process.kill().await?.as_asked()?;
        let under_way = self.under_way().await?;
        self.note_kill("the broker", under_way);
        sleep(OUTAGE).await;
        self.broker.restart().await?;
        self.broker_restarts += 1;
        Ok(())
    }

    async fn kill_south(&mut self, burst: usize) -> Result<(), Failure> {
        self.send_burst(burst).await?;
        self.south.process.kill().await?.as_asked()?;
        // Bob's inbox cannot be read now, so only what bob sent and ada does not have is counted.
        self.ada.read_inbox().await?;
        let under_way = missing(&self.bob, &self.ada);
        self.note_kill("the daemon of south", under_way);
        sleep(OUTAGE).await;
        self.south.restart().await?;
        self.daemon_restarts += 1;
        Ok(())
    }

    async fn send_burst(&mut self, count: usize) -> Result<(), Failure> {
        tokio::try_join!(self.ada.send(BOB, count), self.bob.send(ADA, count))?;
        Ok(())
    }

    /// Messages with a 202 that are in no inbox yet.
    async fn under_way(&mut self) -> Result<usize, Failure> {
        tokio::try_join!(self.ada.read_inbox(), self.bob.read_inbox())?;
        Ok(missing(&self.ada, &self.bob) + missing(&self.bob, &self.ada))
    }

    fn note_kill(&mut self, whom: &str, under_way: usize) {
        self.story.tell(format!(
            "SIGKILL: {whom}, with {under_way} messages under way"
        ));
        let smallest = self
            .in_flight_at_kill
            .map_or(under_way, |n| n.min(under_way));
        self.in_flight_at_kill = Some(smallest);
    }

    async fn connected(&self, whom: &[Who]) -> Result<(), Failure> {
        in_time("the daemons to reconnect", async {
            self.proxy.until_flowing(whom).await;
            Ok(())
        })
        .await
    }

    async fn all_connected(&self) -> Result<(), Failure> {
        self.connected(&[
            Who::Member("north".into()),
            Who::Member("south".into()),
            session(ADA),
            session(BOB),
            session(ADAS_WATCHER),
            session(BOBS_WATCHER),
        ])
        .await
    }

    /// Until every message is in its inbox.
    async fn settle(&mut self) -> Result<(), Failure> {
        self.story
            .tell("nothing more goes wrong; waiting until everything has arrived");
        let settled = timeout(SETTLES_WITHIN, async {
            while self.show_delivered().await? < 2 * MESSAGES {
                sleep(LOOKS_EVERY).await;
            }
            Ok(())
        })
        .await;
        match settled {
            Ok(settled) => settled,
            // What has not arrived by now is counted as lost.
            Err(_) => {
                self.story.tell("not everything has arrived in time");
                Ok(())
            }
        }
    }

    async fn show_delivered(&mut self) -> Result<usize, Failure> {
        tokio::try_join!(self.ada.read_inbox(), self.bob.read_inbox())?;
        let delivered = self.ada.inbox().len() + self.bob.inbox().len();
        self.story.delivered(delivered);
        Ok(delivered)
    }

    async fn restart_both_daemons(&mut self) -> Result<(), Failure> {
        self.story
            .tell("both daemons are restarted once more before counting");
        let before = self.watchers.each_ref().map(Watcher::snapshots);
        self.stop_both_daemons().await?;
        tokio::try_join!(self.north.restart(), self.south.restart())?;
        self.all_connected().await?;
        for (watcher, before) in self.watchers.iter_mut().zip(before) {
            in_time("the watchers to come back", async {
                watcher.until_snapshots_exceed(before).await;
                Ok(())
            })
            .await?;
        }
        in_time("everybody to be listed again", async {
            for party in [&self.ada, &self.bob] {
                while party.live_peers().await? < 4 {
                    sleep(LOOKS_EVERY).await;
                }
            }
            Ok(())
        })
        .await
    }

    async fn stop_both_daemons(&mut self) -> Result<(), Failure> {
        let (north, south) =
            tokio::try_join!(self.north.process.stop(), self.south.process.stop())?;
        north.as_asked()?;
        south.as_asked()
    }

    async fn count(&mut self, elapsed: Duration) -> Result<Report, Failure> {
        self.ada.read_again();
        self.bob.read_again();
        tokio::try_join!(self.ada.read_inbox(), self.bob.read_inbox())?;
        let (from_ada, from_bob) = tokio::try_join!(self.ada.outbox(), self.bob.outbox())?;
        let verdict = Verdict::of(&self.ada.pubkey, &from_ada, self.bob.inbox()).and(Verdict::of(
            &self.bob.pubkey,
            &from_bob,
            self.ada.inbox(),
        ));
        tokio::try_join!(self.ada.mark_seen(), self.bob.mark_seen())?;
        let accepted = self.ada.accepted() + self.bob.accepted();
        let seen = self
            .watchers
            .iter()
            .zip(self.at_start)
            .map(|(watcher, before)| {
                let now = watcher.counts();
                (now.left - before.left, now.joined - before.joined)
            });
        let (left, joined) = seen.fold((0, 0), |sum, seen| (sum.0 + seen.0, sum.1 + seen.1));
        Ok(Report {
            sent: accepted,
            delivered: verdict.delivered,
            // A 202 whose row is in no outbox is as lost as one that did not arrive.
            lost: verdict.lost + accepted.saturating_sub(verdict.sent),
            duplicates: verdict.duplicates,
            out_of_order: verdict.out_of_order,
            socket_cuts: self.socket_cuts,
            broker_restarts: self.broker_restarts,
            daemon_restarts: self.daemon_restarts,
            in_flight_at_kill: self.in_flight_at_kill.unwrap_or(0),
            peer_left_seen: left,
            peer_joined_seen: joined,
            seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
        })
    }

    fn what_to_try(&self) -> Result<String, Failure> {
        let exe = std::env::current_exe()?;
        let line = |party: &Party, verb: &str| {
            format!(
                "  BOWLINE_SESSION_FILE={} {} {verb}",
                party.session_file.display(),
                exe.display()
            )
        };
        Ok(format!(
            "Broker and daemons go on until Ctrl-C. In another terminal:\n{}\n{}\n{}",
            line(&self.ada, "peers"),
            line(&self.ada, "send bob 'hello from ada'"),
            line(&self.bob, "inbox --unread"),
        ))
    }

    /// Stops everything, in order.
    async fn clear(&mut self) -> Result<(), Failure> {
        self.stop_both_daemons().await?;
        self.broker.process.stop().await?.as_asked()?;
        self.ada.forget_session_file()?;
        self.bob.forget_session_file()
    }
}

/// Accepted from `sender` and not in the inbox of `recipient`, as last read.
fn missing(sender: &Party, recipient: &Party) -> usize {
    let arrived = recipient
        .inbox()
        .iter()
        .filter(|mail| mail.sender == sender.pubkey)
        .count();
    sender.accepted().saturating_sub(arrived)
}

fn session(name: &str) -> Who {
    Who::Session(name.to_owned())
}

fn of_south() -> [Who; 3] {
    [
        Who::Member("south".into()),
        session(BOB),
        session(BOBS_WATCHER),
    ]
}

fn is(name: &'static str) -> impl Fn(&Who) -> bool {
    move |who| *who == session(name)
}

async fn in_time(
    what: &str,
    done: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    timeout(SETTLES_WITHIN, done).await.unwrap_or_else(|_| {
        Err(Failure::new(
            Exit::Failed,
            "not_in_time",
            format!("waited {} s for {what}", SETTLES_WITHIN.as_secs()),
        ))
    })
}

fn summary(report: &Report) -> String {
    let verdict = if report.holds() {
        "It held."
    } else {
        "It did NOT hold."
    };
    format!(
        "{verdict} {} sent, {} delivered, {} lost, {} doubled, {} out of order\n\
         through {} socket cuts, {} broker kills and {} daemon kill, with {} or more under way at \
         each kill\nthe watchers saw {} leave and {} join, in {} s",
        report.sent,
        report.delivered,
        report.lost,
        report.duplicates,
        report.out_of_order,
        report.socket_cuts,
        report.broker_restarts,
        report.daemon_restarts,
        report.in_flight_at_kill,
        report.peer_left_seen,
        report.peer_joined_seen,
        report.seconds,
    )
}

//! Real processes under random faults: release binaries behind a proxy that cuts, killed without
//! warning, the broker on a disk that fills. What a user sees is counted: inboxes, event streams.

mod chaos;
mod disk;
mod processes;
mod report;
mod sender;
mod stage;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bowline_daemon::stage::Signals;
use tokio::time::interval_at;

use self::chaos::Chaos;
use self::disk::Disk;
use self::report::Report;
use self::sender::Senders;
use self::stage::Stage;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long messages are sent and things go wrong; then everything has to arrive
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Nothing on stdout but one object of JSON
    #[arg(long)]
    json: bool,
    /// Draws what happens, and to whom. What comes of it depends on the machine too
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `bowline` to attack; without it, the release build of this tree
    #[arg(long)]
    program: Option<PathBuf>,
}

const TELLS_EVERY: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => release_build()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        // Short, because the path of a Unix socket has to fit.
        let dir = tempfile::Builder::new().prefix("soak-").tempdir()?;
        // What was started and mounted ends with `soak`, however that ends.
        let report = tokio::select! {
            report = soak(args, &program, dir.path()) => report,
            () = signals.next() => bail!("interrupted before the end"),
        };
        if !report.as_ref().is_ok_and(Report::holds) {
            eprintln!("the logs are kept in {}", dir.keep().display());
        }
        report
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.holds())
}

async fn soak(args: &Args, program: &Path, dir: &Path) -> anyhow::Result<Report> {
    let story = Story(Instant::now());
    let disk = Disk::mount(&dir.join("disk"))?;
    story.tell(&format!("the broker's disk is a tmpfs: {}", disk.tmpfs()));
    let mut stage = Stage::set(program, dir, &disk, story).await?;
    story.tell("everybody sees everybody; from now on things go wrong");

    let mut chaos = Chaos::new(args.seed, &disk);
    let mut senders = Senders::begin(&stage.parties, args.seed);
    let accepted = senders.accepted();
    let sending = async {
        let until = Instant::now() + Duration::from_secs(args.seconds);
        tokio::select! {
            played = chaos.play(until, &mut stage) => played?,
            failure = senders.failure() => return Err(failure),
        }
        story.tell("nothing more goes wrong; waiting until everything has arrived");
        tokio::select! {
            senders = senders.finish() => senders,
            failure = stage.processes.keep_running() => Err(failure),
        }
    };
    let mut senders = tokio::select! {
        senders = sending => senders?,
        never = tell_progress(story, &accepted) => match never {},
    };
    stage.settle(&senders).await?;
    stage.kill_and_restart_everybody().await?;
    story.tell("all were killed once more; every lane carries one message more");
    for sender in &mut senders {
        tokio::select! {
            sent = sender.send_in_every_lane() => sent?,
            failure = stage.processes.keep_running() => return Err(failure),
        }
    }
    stage.settle_last(&senders).await?;
    let verdict = stage.judge(&senders).await?;
    let streams = stage.judge_streams().await?;
    let wrong_leaves = stage.leaves();
    stage.processes.stop_all().await?;
    Ok(Report {
        messages: verdict.sent,
        delivered: verdict.delivered,
        lost: verdict.lost,
        duplicates: verdict.duplicates,
        out_of_order: verdict.out_of_order,
        wrong_leaves,
        died_unasked: stage.processes.died_unasked,
        streams,
        faults: chaos.faults,
        tmpfs: disk.tmpfs().to_owned(),
        seconds: story.0.elapsed().as_secs(),
    })
}

async fn tell_progress(story: Story, accepted: &AtomicUsize) -> Infallible {
    let first = tokio::time::Instant::now() + TELLS_EVERY;
    let mut ticks = interval_at(first, TELLS_EVERY);
    loop {
        ticks.tick().await;
        let accepted = accepted.load(Ordering::Relaxed);
        story.tell(&format!("{accepted} messages were accepted"));
    }
}

/// What it tells while it works, on standard error.
#[derive(Clone, Copy)]
struct Story(Instant);

impl Story {
    fn tell(&self, line: &str) {
        eprintln!("{:6.1} s  {line}", self.0.elapsed().as_secs_f64());
    }
}

/// Built anew where the sources are newer.
fn release_build() -> anyhow::Result<PathBuf> {
    let root = super::mutants::root()?;
    eprintln!("building the release binary");
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--bin",
            "bowline",
        ])
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        built.success(),
        "`cargo build --release --bin bowline` failed"
    );
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root.join(target).join("release/bowline"))
}

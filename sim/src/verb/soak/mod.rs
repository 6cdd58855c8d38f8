//! Real processes under random faults: release binaries behind a proxy that cuts, killed without
//! warning, the broker on a disk that fills. What a user sees is counted: inboxes, event streams.

mod chaos;
mod disk;
mod report;
mod sender;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::chaos::Chaos;
use self::disk::Disk;
use self::report::Report;
use self::sender::Sender;
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

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => release_build()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // What was started and mounted ends with `soak`, however that ends.
        tokio::select! {
            report = soak(args, &program) => report,
            _ = interrupt.recv() => bail!("interrupted before the end"),
            _ = terminate.recv() => bail!("interrupted before the end"),
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.holds())
}

async fn soak(args: &Args, program: &Path) -> anyhow::Result<Report> {
    let story = Story(Instant::now());
    // Short, because the path of a Unix socket has to fit.
    let dir = tempfile::Builder::new().prefix("soak-").tempdir()?;
    let disk = Disk::mount(&dir.path().join("disk"))?;
    story.tell(&format!("the broker's disk is a tmpfs: {}", disk.tmpfs()));
    let mut stage = Stage::set(program, dir.path(), &disk).await?;
    story.tell("everybody sees everybody; from now on things go wrong");

    let over = Arc::new(AtomicBool::new(false));
    let sending = Sender::spawn_all(&stage, &over);
    let mut chaos = Chaos::new(args.seed, &disk, &story);
    let until = Instant::now() + Duration::from_secs(args.seconds);
    chaos.play(until, &mut stage).await?;
    over.store(true, Ordering::Relaxed);
    story.tell("nothing more goes wrong; waiting until everything has arrived");
    let mut sent = Vec::new();
    for sender in sending {
        sent.push(sender.await.context("a sender panicked")??);
    }
    stage.settle(&sent, &story).await?;
    stage.kill_and_restart_everybody().await?;
    let verdict = stage.judge(&sent).await?;
    let streams = stage.judge_streams().await?;
    let wrong_leaves = stage.leaves();
    stage.stop().await?;
    Ok(Report {
        messages: verdict.sent,
        delivered: verdict.delivered,
        lost: verdict.lost,
        duplicates: verdict.duplicates,
        out_of_order: verdict.out_of_order,
        wrong_leaves,
        streams,
        faults: chaos.faults,
        tmpfs: disk.tmpfs().to_owned(),
        seconds: story.0.elapsed().as_secs(),
    })
}

/// What it tells while it works, on standard error.
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

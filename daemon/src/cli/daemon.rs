//! `up --foreground`: this process becomes the daemon.

use std::io::Write;
use std::process::ExitCode;

use bowline_broker::exit::Failure;
use bowline_broker::log;
use bowline_core::wire::feature::Terms;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::up::UpArgs;
use crate::home::Home;
use crate::process::{LogFile, Process, VERSION};

pub(super) fn run(args: &UpArgs, output: Output) -> Result<ExitCode, Failure> {
    let home = super::home()?;
    if args.detached {
        // Whoever started us may go, and its terminal with it. It fails for the leader of a process
        // group, which is detached enough.
        let _leader = rustix::process::setsid();
        home.prepare()?;
        log::init(args.log_format, LogFile::open(&home.log())?);
    } else {
        log::init_stderr(args.log_format);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(home, args.terms(), output))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(home: Home, terms: Terms, output: Output) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut process = Process::start(home.clone(), terms).await?;
    say_ready(&home, output)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // A terminal that closes does not take the daemon along.
            _ = hangup.recv() => {}
            failure = process.halted() => {
                tracing::error!(%failure, "halted");
                return Err(failure);
            }
        }
    }
    process.stop().await
}

/// The first line on standard output: whoever started us waits for it.
fn say_ready(home: &Home, output: Output) -> Result<(), Failure> {
    let ready = json!({
        "running": true,
        "pid": std::process::id(),
        "version": VERSION,
        "socket": home.socket(),
    });
    output.say(
        format!("daemon is up on {}", home.socket().display()),
        &ready,
    )?;
    Ok(std::io::stdout().flush()?)
}

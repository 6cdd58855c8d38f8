//! `logs`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use bowline_broker::exit::{Exit, Failure};
use clap::Args;

use super::home;
use super::output::Output;

#[derive(Args, Debug)]
pub(super) struct LogsArgs {
    /// How many lines, the latest.
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: usize,
}

/// The daemon logs JSON lines, so people and programs are shown the same.
pub(super) async fn run(args: &LogsArgs, _output: Output) -> Result<(), Failure> {
    let path = home()?.log();
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Exit::NotFound,
            "no_log",
            format!("{} is not there", path.display()),
        )
        .next("`bowline up` starts a daemon that logs there; `up --foreground` logs to its standard error"),
        _ => error.into(),
    })?;
    let mut latest = VecDeque::with_capacity(args.lines.min(10_000));
    for line in BufReader::new(file).lines() {
        latest.push_back(line?);
        if latest.len() > args.lines {
            latest.pop_front();
        }
    }
    let mut out = io::stdout().lock();
    for line in latest {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

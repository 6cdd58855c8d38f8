//! `up` (detached) and `down`.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use bowline_broker::config::parse_version;
use bowline_broker::exit::{Exit, Failure};
use bowline_broker::log::LogFormat;
use bowline_core::wire::ProtocolVersion;
use bowline_core::wire::feature::Terms;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::home;
use super::moderation::retry_uplinks;
use super::output::{Output, text};
use crate::client::Daemon;
use crate::home::Home;

#[derive(Args, Debug)]
pub(super) struct UpArgs {
    /// Stay in the foreground and log to standard error, for service managers.
    #[arg(long)]
    foreground: bool,

    /// What `up` starts: in a session of its own, logging to a file.
    #[arg(long, hide = true)]
    pub(super) detached: bool,

    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(super) log_format: LogFormat,

    /// For tests: the highest version of the protocol that is spoken.
    #[arg(long, hide = true, value_parser = parse_version, default_value = "1")]
    protocol_version: ProtocolVersion,
}

impl UpArgs {
    /// This process becomes the daemon.
    #[must_use]
    pub(super) fn foreground(&self) -> bool {
        self.foreground || self.detached
    }

    /// What this daemon says of itself to brokers.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            version: self.protocol_version,
            ..Terms::default()
        }
    }
}

/// How long a daemon may take to answer: an integrity check of a large database is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop: what it accepted must become durable.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &UpArgs, output: Output) -> Result<(), Failure> {
    let home = home()?;
    let daemon = Daemon::new(&home, None);
    if let Ok(version) = daemon.get("/v1/version").await {
        let pid = pid_of_daemon(&home);
        let retried = retry_uplinks(&daemon).await?;
        let human = match retried.as_u64() {
            None | Some(0) => "a daemon is running already".to_owned(),
            Some(retried) => {
                format!("a daemon is running already; stopped uplinks are tried again: {retried}")
            }
        };
        return output.say(
            human,
            &json!({
                "running": true,
                "started": false,
                "pid": pid,
                "version": version["version"],
                "retried": retried,
            }),
        );
    }
    let said = start(&home, args.protocol_version).await?;
    daemon.get("/v1/version").await?;
    output.say(
        format!(
            "daemon is up (pid {}), log in {}",
            text(&said, "pid"),
            home.log().display()
        ),
        &json!({"running": true, "started": true, "pid": said["pid"], "version": said["version"]}),
    )
}

pub(super) async fn down(output: Output) -> Result<(), Failure> {
    let home = home()?;
    let Some(pid) = pid_of_daemon(&home) else {
        return Err(Failure::new(
            Exit::NoDaemon,
            "no_daemon",
            "no daemon is running",
        ));
    };
    let target = Pid::from_raw(pid.cast_signed())
        .ok_or_else(|| Failure::new(Exit::Failed, "bad_lock", "the lock names no process"))?;
    kill_process(target, Signal::TERM).map_err(std::io::Error::from)?;
    let path = home.lock();
    let released = tokio::task::spawn_blocking(move || std::fs::File::open(path)?.lock());
    match timeout(STOPS_WITHIN, released).await {
        Ok(joined) => joined.map_err(std::io::Error::other)??,
        Err(_) => {
            return Err(Failure::new(
                Exit::NotNow,
                "still_stopping",
                format!("the daemon (pid {pid}) has not stopped after {STOPS_WITHIN:?}"),
            )
            .next("`bowline logs` may say what it waits for"));
        }
    }
    output.say(
        "daemon is down",
        &json!({"running": false, "stopped": true, "pid": pid}),
    )
}

/// Starts the daemon in a session of its own. Its first line says that it listens, or why not.
async fn start(home: &Home, version: ProtocolVersion) -> Result<Value, Failure> {
    let mut child = Command::new(env::current_exe()?)
        .args(["up", "--detached", "--json", "--protocol-version"])
        .arg(version.number().to_string())
        .env("BOWLINE_HOME", home.dir())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().expect("it was asked to be piped");
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    let Ok(read) = timeout(ANSWERS_WITHIN, reader.read_line(&mut line)).await else {
        return Err(Failure::new(
            Exit::NotNow,
            "no_answer",
            format!("the daemon does not answer after {ANSWERS_WITHIN:?}"),
        )
        .next("`bowline logs` may say what it is doing"));
    };
    read?;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    if said["running"] == Value::Bool(true) {
        return Ok(said);
    }
    let status = child.wait().await?;
    Err(why_it_did_not_start(&said, status.code()))
}

fn why_it_did_not_start(said: &Value, code: Option<i32>) -> Failure {
    let exit = match code {
        Some(4) => Exit::Refused,
        Some(6) => Exit::InUse,
        Some(7) => Exit::NotNow,
        Some(8) => Exit::BadDatabase,
        _ => Exit::Failed,
    };
    let error = &said["error"];
    let Some(code) = error["code"].as_str() else {
        return Failure::new(exit, "died_at_start", "the daemon died before it answered")
            .next("`bowline logs` or `bowline up --foreground` says why");
    };
    let mut failure = Failure::new(exit, code, text(error, "message"));
    failure.next = error["next"].as_str().map(str::to_owned);
    failure
}

/// Of the daemon that holds the lock; a pid in a lock that nobody holds is of nobody.
fn pid_of_daemon(home: &Home) -> Option<u32> {
    let file = std::fs::File::open(home.lock()).ok()?;
    if file.try_lock_shared().is_ok() {
        return None;
    }
    std::fs::read_to_string(home.lock())
        .ok()?
        .trim()
        .parse()
        .ok()
}

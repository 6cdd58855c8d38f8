//! `session run` and `session list`.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use bowline_broker::exit::{Exit, Failure};
use clap::{Args, Subcommand};
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::output::{Output, Table, short_key, text};
use super::{SESSION_FILE, SessionFile, home, member};
use crate::client::Daemon;
use crate::home::{Home, create_private};

#[derive(Subcommand, Debug)]
pub(super) enum SessionVerb {
    /// Run a program with a session of its own; the session ends with it.
    Run(RunArgs),
    /// The sessions of this host.
    List,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// What others call it; the program's name by default. The same name keeps the same key.
    #[arg(long)]
    name: Option<String>,
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
    /// Take the name from a session that is still live.
    #[arg(long)]
    take_over: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) async fn run(verb: SessionVerb, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        SessionVerb::Run(args) => run_program(args).await,
        SessionVerb::List => list(output).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn list(output: Output) -> Result<(), Failure> {
    let answer = member()?.get("/v1/sessions").await?;
    let mut table = Table::new(["NAME", "MESH", "ROLE", "PID", "KEY"]);
    for session in answer["sessions"].as_array().into_iter().flatten() {
        table.row([
            text(session, "name"),
            text(session, "mesh"),
            text(session, "role"),
            text(session, "pid"),
            short_key(&text(session, "pubkey")),
        ]);
    }
    let human = if table.is_empty() {
        "no session; open one with `bowline session run --name NAME -- CMD`".into()
    } else {
        table.render()
    };
    output.say(human, &answer)
}

/// The program has the terminal and standard output to itself: nothing of ours is printed there.
async fn run_program(args: RunArgs) -> Result<ExitCode, Failure> {
    let home = home()?;
    let session = Session::open(&home, &args).await?;
    let ended = match session.spawn(&args.command) {
        Ok(child) => wait_forwarding_signals(child).await,
        Err(failure) => Err(failure),
    };
    // `bye` is said at the program's end, whatever that end was; a daemon that is down meanwhile
    // notices the process gone when it is back.
    let said = session.end().await;
    let status = ended?;
    if let Err(failure) = said
        && failure.exit != Exit::NoDaemon
    {
        return Err(failure);
    }
    Ok(code_of(status))
}

struct Session {
    daemon: Daemon,
    file: PathBuf,
}

impl Session {
    async fn open(home: &Home, args: &RunArgs) -> Result<Self, Failure> {
        let program = Path::new(&args.command[0]).file_name().map_or_else(
            || args.command[0].clone(),
            |name| name.to_string_lossy().into_owned(),
        );
        let body = json!({
            "display_name": args.name.as_ref().unwrap_or(&program),
            "mesh": args.mesh,
            "pid": std::process::id(),
            "cwd": env::current_dir().ok(),
            "take_over": args.take_over,
        });
        let opened = Daemon::new(home, None)
            .post("/v1/sessions", &body)
            .await?
            .body;
        let session = SessionFile {
            home: home.dir().to_owned(),
            session_id: text(&opened, "session_id"),
            name: text(&opened, "name"),
            token: field(&opened, "token")?,
        };
        let file = home.sessions().join(format!("{}.json", std::process::id()));
        write_session_file(&file, &session)?;
        Ok(Self {
            daemon: Daemon::new(home, Some(session.token)),
            file,
        })
    }

    fn spawn(&self, command: &[String]) -> Result<Child, Failure> {
        Command::new(&command[0])
            .args(&command[1..])
            .env(SESSION_FILE, &self.file)
            .spawn()
            .map_err(|error| {
                Failure::new(
                    Exit::NotFound,
                    "cannot_run",
                    format!("{}: {error}", command[0]),
                )
                .next("give a program that is in PATH, after --")
            })
    }

    async fn end(self) -> Result<(), Failure> {
        let removed = fs::remove_file(&self.file);
        self.daemon
            .call(Method::DELETE, "/v1/sessions", None, &[])
            .await?;
        Ok(removed?)
    }
}

/// A file that a process of the same pid left behind is of nobody who lives.
fn write_session_file(path: &Path, session: &SessionFile) -> Result<(), Failure> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let text = serde_json::to_string(session).expect("plain fields always serialise");
    create_private(path)?.write_all(text.as_bytes())?;
    Ok(())
}

fn field(answer: &Value, name: &str) -> Result<String, Failure> {
    answer[name].as_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "bad_answer",
            format!("the daemon's answer has no {name}"),
        )
        .next("`bowline --version` and the daemon's may differ: `bowline down`, then `bowline up`")
    })
}

/// Ctrl-C and Ctrl-\ reach the program by its terminal; the other signals are passed on.
async fn wait_forwarding_signals(mut child: Child) -> Result<ExitStatus, Failure> {
    let (forward, mut signals) = mpsc::channel(8);
    for (kind, passed_on) in [
        (SignalKind::terminate(), Some(Signal::TERM)),
        (SignalKind::hangup(), Some(Signal::HUP)),
        (SignalKind::user_defined1(), Some(Signal::USR1)),
        (SignalKind::user_defined2(), Some(Signal::USR2)),
        (SignalKind::interrupt(), None),
        (SignalKind::quit(), None),
    ] {
        let mut arrivals = signal(kind)?;
        let forward = forward.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                if forward.send(passed_on).await.is_err() {
                    return;
                }
            }
        });
    }
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            Some(Some(signal)) = signals.recv() => pass_on(&child, signal)?,
        }
    }
}

fn pass_on(child: &Child, signal: Signal) -> Result<(), Failure> {
    // No id: it was waited for, and its end is about to be noticed.
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
        return Ok(());
    };
    kill_process(pid, signal).map_err(|error| std::io::Error::from(error).into())
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

//! The command line: one file a verb, and this one that knows them all.

mod broker;
mod daemon;
mod explain;
mod inbox;
mod logs;
mod mesh;
mod moderation;
mod outbox;
pub mod output;
mod peers;
mod send;
mod session;
mod status;
mod up;
mod wait;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use bowline_broker::exit::{EXIT_CODES, Exit, Failure};
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::client::Daemon;
use crate::home::Home;
use crate::quickstart::{self, QuickstartArgs};
use output::Output;

/// Messaging that holds, for coding agents, people and services.
#[derive(Parser, Debug)]
#[command(name = "bowline", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// Print JSON: one object, or one object a line for streams.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start this user's daemon, and wait until it answers.
    Up(up::UpArgs),
    /// Stop it. Sessions stay open: their peers see nobody leave if it is back in time.
    Down,
    /// The daemon, its meshes and their connections.
    Status,
    /// What the daemon logged.
    Logs(logs::LogsArgs),
    /// Make a mesh, or list those that this user joined.
    #[command(subcommand)]
    Mesh(mesh::MeshVerb),
    /// Make a link that lets another host join a mesh of yours.
    Invite(mesh::InviteArgs),
    /// Join a mesh by an invite's link.
    Join(mesh::JoinArgs),
    /// Run a program as a session of its own, or list the sessions.
    #[command(subcommand)]
    Session(session::SessionVerb),
    /// Send a message. It is queued durably before this returns.
    Send(send::SendArgs),
    /// Read the messages of this session, or without one those of the member.
    Inbox(inbox::InboxArgs),
    /// Who is in the mesh.
    Peers(peers::PeersArgs),
    /// Put a peer out of the mesh. It may come back: `bowline up` at its host.
    Kick(moderation::KickArgs),
    /// Put a member out of the mesh for good, its host and all its sessions.
    Ban(moderation::BanArgs),
    /// Take a ban back.
    Unban(moderation::BanArgs),
    /// Who is banned.
    Bans(moderation::BansArgs),
    /// What was sent, and how far it got.
    Outbox(outbox::OutboxArgs),
    /// How far a message came, and what it waits for.
    Explain(explain::ExplainArgs),
    /// Run a broker.
    #[command(subcommand)]
    Broker(broker::BrokerVerb),
    /// See it hold: a broker, two daemons, and everything cut and killed while they talk.
    Quickstart(QuickstartArgs),
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json };
    match run(cli.verb, output) {
        Ok(code) => code,
        Err(failure) => {
            output.fail(&failure);
            failure.exit.into()
        }
    }
}

fn run(verb: Verb, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        // These bring a runtime of their own.
        Verb::Broker(verb) => return broker::run(verb, output),
        Verb::Up(args) if args.foreground() => return daemon::run(&args, output),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let done = ExitCode::SUCCESS;
        match verb {
            Verb::Up(args) => up::run(&args, output).await?,
            Verb::Down => up::down(output).await?,
            Verb::Status => status::run(output).await?,
            Verb::Logs(args) => logs::run(&args, output).await?,
            Verb::Mesh(verb) => mesh::run(verb, output).await?,
            Verb::Invite(args) => mesh::invite(args, output).await?,
            Verb::Join(args) => mesh::join(args, output).await?,
            Verb::Session(verb) => return session::run(verb, output).await,
            Verb::Send(args) => send::run(args, output).await?,
            Verb::Inbox(args) => inbox::run(args, output).await?,
            Verb::Peers(args) => peers::run(args, output).await?,
            Verb::Kick(args) => moderation::kick(args, output).await?,
            Verb::Ban(args) => moderation::ban(args, output).await?,
            Verb::Unban(args) => moderation::unban(args, output).await?,
            Verb::Bans(args) => moderation::bans(args, output).await?,
            Verb::Outbox(args) => outbox::run(args, output).await?,
            Verb::Explain(args) => explain::run(args, output).await?,
            Verb::Quickstart(args) => return quickstart::run(args, output).await,
            Verb::Broker(_) => unreachable!("handled above"),
        }
        Ok(done)
    })
}

/// What `session run` leaves for the programs that it starts: who they are, and where the daemon is.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionFile {
    pub home: PathBuf,
    pub session_id: String,
    pub name: String,
    pub token: String,
}

pub const SESSION_FILE: &str = "BOWLINE_SESSION_FILE";

/// The daemon as this process speaks to it: as the session that it runs in, else as the member.
///
/// # Errors
/// If the session file that the environment names cannot be read: never a silent fall-back to the
/// member.
pub fn caller() -> Result<Daemon, Failure> {
    let Some(session) = session_file()? else {
        return Ok(Daemon::new(&Home::find()?, None));
    };
    Ok(Daemon::new(&Home::at(&session.home)?, Some(session.token)))
}

/// The daemon as its user speaks to it, whatever session this process runs in.
///
/// # Errors
/// If there is no home.
pub fn member() -> Result<Daemon, Failure> {
    Ok(Daemon::new(&home()?, None))
}

/// `$BOWLINE_HOME`, else the home of the session that this process runs in, else the platform's.
pub fn home() -> Result<Home, Failure> {
    if env::var_os("BOWLINE_HOME").is_some() {
        return Home::find();
    }
    match session_file()? {
        Some(session) => Home::at(&session.home),
        None => Home::find(),
    }
}

fn session_file() -> Result<Option<SessionFile>, Failure> {
    let Some(path) = env::var_os(SESSION_FILE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let unusable = |detail: String| {
        Failure::new(
            Exit::NotFound,
            "session_file",
            format!("{}: {detail}", PathBuf::from(&path).display()),
        )
        .next(format!(
            "the session may have ended; unset {SESSION_FILE} to act as the member"
        ))
    };
    let text = fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| unusable(error.to_string()))
}

/// `?a=1&b=2` of what is there, percent-encoded.
fn query(fields: &[(&str, Option<String>)]) -> String {
    let mut query = String::new();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.push_str(&encoded(value));
    }
    query
}

/// As a part of a path or a value of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_documents_its_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("no daemon is running"));
    }

    #[test]
    fn queries_are_encoded() {
        let fields = [
            ("a", Some("x y&=é".to_owned())),
            ("b", None),
            ("c", Some("1".into())),
        ];
        assert_eq!(query(&fields), "?a=x%20y%26%3D%C3%A9&c=1");
        assert_eq!(query(&[]), "");
    }
}

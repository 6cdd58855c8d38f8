//! Real binaries: a broker, daemons on homes of their own, sessions, and the command line.

#![allow(dead_code)] // Each test file uses what it needs.

pub mod puppet;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes longer, unless it is broken.
const SOON: Duration = Duration::from_secs(45);
const LOOKS_EVERY: Duration = Duration::from_millis(50);

pub struct Broker {
    child: Option<Child>,
    pub address: SocketAddr,
    data: PathBuf,
    args: Vec<String>,
}

pub struct Host {
    child: Option<Child>,
    pub home: PathBuf,
}

/// `session run` of a program that ends when its standard input does.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    pub home: PathBuf,
    pub file: PathBuf,
}

/// What a verb answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    /// Each line of standard output.
    pub lines: Vec<Value>,
}

pub fn temp() -> tempfile::TempDir {
    // Short: the path of a Unix socket has to fit.
    tempfile::Builder::new()
        .prefix("bl-")
        .tempdir_in("/tmp")
        .expect("a temporary directory")
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command
        .env_remove("BOWLINE_HOME")
        .env_remove("BOWLINE_SESSION_FILE")
        .stdin(Stdio::null());
    command
}

impl Broker {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// `limits`: as `--limit` takes them.
    pub fn start_with(dir: &Path, limits: &[&str]) -> Self {
        let args: Vec<_> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
        Self::start_as(dir, &args)
    }

    /// `args`: as `serve` takes them.
    pub fn start_as(dir: &Path, args: &[&str]) -> Self {
        let data = dir.join("broker");
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address) = serve(&data, anywhere, &args);
        Self {
            child: Some(child),
            address,
            data,
            args,
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub fn kill(&mut self) {
        kill(&mut self.child);
    }

    pub fn restart(&mut self) {
        let (child, address) = serve(&self.data, self.address, &self.args);
        assert_eq!(address, self.address);
        self.child = Some(child);
    }

    /// From now on with these.
    pub fn restart_as(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.restart();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

impl Host {
    pub fn start(dir: &Path, name: &str) -> Self {
        Self::start_with(dir, name, &[])
    }

    pub fn start_with(dir: &Path, name: &str, args: &[&str]) -> Self {
        let mut host = Self {
            child: None,
            home: dir.join(name),
        };
        host.restart_with(args);
        host
    }

    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    pub fn restart_with(&mut self, args: &[&str]) {
        let mut command = program();
        command
            .args(["up", "--foreground", "--json"])
            .args(args)
            .env("BOWLINE_HOME", &self.home);
        let (child, said) = first_line(command);
        assert_eq!(said["running"], true, "{said}");
        self.child = Some(child);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        kill(&mut self.child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// As the member.
    pub fn run(&self, args: &[&str]) -> Answer {
        run(&self.home, None, args)
    }

    pub fn session(&self, name: &str) -> Session {
        let mut command = program();
        command
            .args(["session", "run", "--name", name, "--", "cat"])
            .env("BOWLINE_HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let file = self
            .home
            .join("sessions")
            .join(format!("{}.json", child.id()));
        let stdin = child.stdin.take();
        wait_for("the session file", || file.exists());
        Session {
            child,
            stdin,
            home: self.home.clone(),
            file,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

impl Session {
    pub fn run(&self, args: &[&str]) -> Answer {
        run(&self.home, Some(&self.file), args)
    }

    /// Ends the program, and with it the session. Its exit code.
    pub fn end(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().expect("it ends").code()
    }

    /// SIGKILL to `session run`: nobody says goodbye.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    pub fn bodies(&self) -> Vec<String> {
        let inbox = self.run(&["inbox", "--peek"]);
        assert_eq!(inbox.code, 0, "{inbox:?}");
        let body = |row: &Value| row["body"].as_str().expect("it opens").to_owned();
        inbox.lines.iter().map(body).collect()
    }

    pub fn until_bodies(&self, expected: &[&str]) {
        wait_for(&format!("{expected:?} in the inbox"), || {
            self.bodies() == expected
        });
    }

    pub fn until_sees(&self, name: &str, state: &str) {
        wait_for(&format!("{name} to be {state}"), || {
            state_of(&self.run(&["peers"]), name).as_deref() == Some(state)
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Answer {
    pub fn one(&self) -> &Value {
        assert_eq!(self.lines.len(), 1, "{self:?}");
        &self.lines[0]
    }

    pub fn error(&self) -> &str {
        self.one()["error"]["code"].as_str().expect("an error")
    }
}

/// A broker, two hosts in one mesh.
pub fn two_hosts(dir: &Path) -> (Broker, Host, Host) {
    let broker = Broker::start(dir);
    let (north, south) = hosts_at(dir, &broker);
    (broker, north, south)
}

/// Two hosts in one mesh of this broker.
pub fn hosts_at(dir: &Path, broker: &Broker) -> (Host, Host) {
    let (north, south) = (Host::start(dir, "north"), Host::start(dir, "south"));
    join_two(broker, &north, &south);
    (north, south)
}

/// A mesh of this broker, with both of them in it.
pub fn join_two(broker: &Broker, north: &Host, south: &Host) {
    let made = north.run(&[
        "mesh",
        "create",
        "team",
        "--broker",
        &broker.url(),
        "--name",
        "north",
    ]);
    assert_eq!(made.code, 0, "{made:?}");
    let invite = north.run(&["invite"]);
    let link = invite.one()["invite"].as_str().expect("a link").to_owned();
    let joined = south.run(&["join", &link, "--name", "south"]);
    assert_eq!(joined.code, 0, "{joined:?}");
}

pub fn run(home: &Path, session: Option<&Path>, args: &[&str]) -> Answer {
    let mut command = program();
    command.arg("--json").args(args).env("BOWLINE_HOME", home);
    if let Some(file) = session {
        command.env("BOWLINE_SESSION_FILE", file);
    }
    let output = command.output().expect("it runs");
    answer(&output)
}

pub fn answer(output: &Output) -> Answer {
    let text = String::from_utf8_lossy(&output.stdout);
    Answer {
        code: output.status.code().expect("not killed"),
        lines: text
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect(),
    }
}

pub fn state_of(peers: &Answer, name: &str) -> Option<String> {
    let list = peers.one()["peers"].as_array().cloned().unwrap_or_default();
    let peer = list.iter().find(|peer| peer["name"] == name)?;
    peer["state"].as_str().map(str::to_owned)
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "waited {SOON:?} for {what}");
        std::thread::sleep(LOOKS_EVERY);
    }
}

fn serve(data: &Path, listen: SocketAddr, args: &[String]) -> (Child, SocketAddr) {
    let mut command = program();
    command
        .args(["broker", "serve", "--json", "--listen", &listen.to_string()])
        .arg("--data")
        .arg(data)
        .args(args);
    let (child, said) = first_line(command);
    let address = said["listening"].as_str().expect("its address");
    (child, address.parse().expect("an address"))
}

fn first_line(mut command: Command) -> (Child, Value) {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a first line");
    let said = serde_json::from_str(&line).unwrap_or_else(|_| panic!("it said {line:?}"));
    (child, said)
}

fn kill(child: &mut Option<Child>) {
    let Some(mut child) = child.take() else {
        return;
    };
    // It may have ended already.
    let _ended = child.kill();
    let _reaped = child.wait();
}

/// The exit code of a verb whose output is not ours.
pub fn answer_code(home: &Path, args: &[&str]) -> i32 {
    let status = program()
        .args(args)
        .env("BOWLINE_HOME", home)
        .stdout(Stdio::null())
        .status();
    status.expect("it runs").code().expect("not killed")
}

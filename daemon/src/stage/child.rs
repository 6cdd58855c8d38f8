//! Child processes of our executable: started, killed without warning, stopped in good order.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::home::Home;

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// A broker that can be killed and started again at the same address with the same data.
pub struct Broker {
    program: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    running: Running,
}

/// A daemon that can be killed and started again on the same home.
pub struct Host {
    program: PathBuf,
    pub name: &'static str,
    pub home: Home,
    running: Running,
}

struct Running {
    child: Child,
    /// Kept open: a child whose standard output is closed may stumble over it.
    _stdout: BufReader<ChildStdout>,
}

impl Broker {
    /// On `data`, at an address of its own choice.
    ///
    /// # Errors
    /// If it does not say in time that it listens.
    pub async fn start(program: &Path, data: &Path) -> Result<Self, Failure> {
        let data = data.to_owned();
        let (running, address) =
            serve(program, &data, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        Ok(Self {
            program: program.to_owned(),
            data,
            address,
            running,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL: nothing is flushed, nothing is closed.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.running.kill().await
    }

    /// # Errors
    /// If it does not say in time that it listens.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        (self.running, self.address) = serve(&self.program, &self.data, self.address).await?;
        Ok(())
    }

    /// SIGTERM, and SIGKILL for one that does not go.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        self.running.stop().await
    }
}

impl Host {
    /// On the home `dir/name`.
    ///
    /// # Errors
    /// If it does not say in time that it is up.
    pub async fn start(program: &Path, dir: &Path, name: &'static str) -> Result<Self, Failure> {
        let home = Home::at(&dir.join(name))?;
        let running = up(program, &home).await?;
        Ok(Self {
            program: program.to_owned(),
            name,
            home,
            running,
        })
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.running.kill().await
    }

    /// # Errors
    /// If it does not say in time that it is up.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        self.running = up(&self.program, &self.home).await?;
        Ok(())
    }

    /// SIGTERM, and SIGKILL for one that does not go.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        self.running.stop().await
    }
}

impl Running {
    async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and SIGKILL for one that does not go.
    async fn stop(&mut self) -> Result<(), Failure> {
        let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        else {
            return Ok(());
        };
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        match timeout(STOPS_WITHIN, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()).map_err(Failure::from),
            Err(_) => self.kill().await,
        }
    }
}

async fn serve(
    program: &Path,
    data: &Path,
    listen: SocketAddr,
) -> Result<(Running, SocketAddr), Failure> {
    let args: Vec<OsString> = vec![
        "broker".into(),
        "serve".into(),
        "--json".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--data".into(),
        data.into(),
    ];
    let log = data.with_extension("log");
    let (running, said) = start("the broker", program, args, None, &log).await?;
    let address = said["listening"]
        .as_str()
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| Failure::new(Exit::Failed, "no_address", "the broker named no address"))?;
    Ok((running, address))
}

async fn up(program: &Path, home: &Home) -> Result<Running, Failure> {
    let args = ["up", "--foreground", "--json"]
        .map(OsString::from)
        .to_vec();
    let log = home.dir().with_extension("log");
    let (running, _) = start("a daemon", program, args, Some(home), &log).await?;
    Ok(running)
}

/// Starts the executable and waits for its first line, which says that it is ready or why not.
async fn start(
    what: &str,
    program: &Path,
    args: Vec<OsString>,
    home: Option<&Home>,
    log: &Path,
) -> Result<(Running, Value), Failure> {
    let log_file = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_remove(crate::cli::SESSION_FILE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        // Ctrl-C is for us: we end them, in order.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(home) = home {
        command.env("BOWLINE_HOME", home.dir());
    }
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().expect("it was asked to be piped");
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    let read = timeout(STARTS_WITHIN, reader.read_line(&mut line)).await;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    let in_time = matches!(read, Ok(Ok(bytes)) if bytes > 0);
    if !in_time || said.get("error").is_some() || said.is_null() {
        let why = said["error"]["message"]
            .as_str()
            .unwrap_or("it said nothing")
            .to_owned();
        return Err(Failure::new(
            Exit::Failed,
            "child_did_not_start",
            format!("{what} did not start: {why}"),
        )
        .next(format!("its log is {}", log.display())));
    }
    let running = Running {
        child,
        _stdout: reader,
    };
    Ok((running, said))
}

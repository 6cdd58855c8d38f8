//! A child process: started, watched, ended; and whether it ended because it was asked to.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
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

/// How a child that was to end has ended.
#[must_use]
#[derive(Debug)]
pub enum Ended {
    AsAsked,
    /// Before it was asked to, or in another way.
    Otherwise(Death),
}

/// An end that nobody asked for: the child's fault, whatever was done to it.
#[derive(Debug)]
pub struct Death {
    name: String,
    status: ExitStatus,
    log: PathBuf,
}

/// A process that was started here; whoever drops it kills it.
pub struct Running {
    name: String,
    child: Child,
    /// Kept open: a child whose standard output is closed may stumble over it.
    _stdout: BufReader<ChildStdout>,
    log: PathBuf,
    has_ended: bool,
}

impl Ended {
    /// # Errors
    /// If it did not end as it was asked to.
    pub fn as_asked(self) -> Result<(), Failure> {
        match self {
            Self::AsAsked => Ok(()),
            Self::Otherwise(death) => Err(death.into()),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended unasked ({})", self.name, self.status)?;
        write!(f, "; its log is {}", self.log.display())
    }
}

impl From<Death> for Failure {
    fn from(death: Death) -> Self {
        Self::new(Exit::Failed, "died_unasked", death.to_string())
    }
}

impl Running {
    /// Starts the executable and waits for its first line, which says that it is ready or why not.
    pub(super) async fn start(
        name: &str,
        program: &Path,
        args: Vec<OsString>,
        home: Option<&Home>,
        log: &Path,
    ) -> Result<(Self, Value), Failure> {
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
                format!("{name} did not start: {why}"),
            )
            .next(format!("its log is {}", log.display())));
        }
        let running = Self {
            name: name.to_owned(),
            child,
            _stdout: reader,
            log: log.to_owned(),
            has_ended: false,
        };
        Ok((running, said))
    }

    /// Whether it is to be started again: it was killed or stopped, or its death was told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// If it has ended, and nobody asked it to. Told once.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn died(&mut self) -> Result<Option<Death>, Failure> {
        if self.has_ended {
            return Ok(None);
        }
        let status = self.child.try_wait()?;
        Ok(status.map(|status| self.death(status)))
    }

    /// SIGKILL: nothing is flushed, nothing is closed.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<Ended, Failure> {
        if let Some(death) = self.died()? {
            return Ok(Ended::Otherwise(death));
        }
        if self.has_ended {
            return Ok(Ended::AsAsked);
        }
        self.child.start_kill()?;
        let status = self.child.wait().await?;
        // It may have been quicker than the signal.
        let by_the_signal = status.signal() == Some(Signal::KILL.as_raw());
        Ok(self.ended(status, by_the_signal))
    }

    /// SIGTERM, upon which it has to exit with 0; SIGKILL for one that does not go.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn stop(&mut self) -> Result<Ended, Failure> {
        if let Some(death) = self.died()? {
            return Ok(Ended::Otherwise(death));
        }
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        let Some(pid) = pid else {
            return Ok(Ended::AsAsked);
        };
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        let status = match timeout(STOPS_WITHIN, self.child.wait()).await {
            Ok(ended) => ended?,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await?
            }
        };
        Ok(self.ended(status, status.success()))
    }

    fn ended(&mut self, status: ExitStatus, as_asked: bool) -> Ended {
        self.has_ended = true;
        if as_asked {
            Ended::AsAsked
        } else {
            Ended::Otherwise(self.death(status))
        }
    }

    fn death(&mut self, status: ExitStatus) -> Death {
        self.has_ended = true;
        Death {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that says that it is ready, and goes on as `script` has it.
    async fn child(dir: &Path, script: &str) -> Running {
        let args = vec!["-c".into(), script.into()];
        let log = dir.join("log");
        let (running, _) = Running::start("a child", Path::new("/bin/sh"), args, None, &log)
            .await
            .unwrap();
        running
    }

    fn is_death(ended: &Ended, code: Option<i32>) -> bool {
        matches!(ended, Ended::Otherwise(death) if death.status.code() == code)
    }

    #[tokio::test]
    async fn a_child_that_ended_by_itself_was_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path(), "echo '{}'; exit 3").await;
        child.child.wait().await.unwrap();
        let ended = child.kill().await.unwrap();
        assert!(is_death(&ended, Some(3)), "{ended:?}");
        let failure = ended.as_asked().unwrap_err();
        assert_eq!(failure.code, "died_unasked");
        let log = dir.path().join("log");
        assert!(failure.message.contains("exit status: 3"), "{failure}");
        assert!(failure.message.contains(log.to_str().unwrap()), "{failure}");
        assert!(child.died().unwrap().is_none(), "told twice");
    }

    #[tokio::test]
    async fn even_in_good_order_an_end_that_nobody_asked_for_is_a_death() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path(), "echo '{}'; exit 0").await;
        child.child.wait().await.unwrap();
        assert!(child.died().unwrap().is_some());
        assert!(child.has_ended());
    }

    #[tokio::test]
    async fn a_child_that_was_killed_ended_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path(), "echo '{}'; exec sleep 60").await;
        assert!(child.died().unwrap().is_none());
        child.kill().await.unwrap().as_asked().unwrap();
        assert!(child.died().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_child_that_is_stopped_has_to_exit_with_0() {
        let dir = tempfile::tempdir().unwrap();
        let stops_with = |code: u8| {
            let wait = "while :; do sleep 0.05; done";
            format!("trap 'exit {code}' TERM; echo '{{}}'; {wait}")
        };
        let mut clean = child(dir.path(), &stops_with(0)).await;
        clean.stop().await.unwrap().as_asked().unwrap();
        let mut failing = child(dir.path(), &stops_with(9)).await;
        let ended = failing.stop().await.unwrap();
        assert!(is_death(&ended, Some(9)), "{ended:?}");
        let mut untrapped = child(dir.path(), "echo '{}'; exec sleep 60").await;
        let ended = untrapped.stop().await.unwrap();
        assert!(is_death(&ended, None), "{ended:?}");
    }
}

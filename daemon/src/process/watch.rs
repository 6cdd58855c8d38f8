//! Watching the processes of sessions: the host is told when one is gone.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_core::host::Host;
use bowline_core::host::io::{Input, Output};
use bowline_core::machine::{Machine, Timeout};
use bowline_core::time::Now;
use bowline_io::drive::Inputs;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// How often a process is looked for where the system cannot tell of its end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A host, and its eye on the processes of its sessions.
pub(super) struct Watched {
    host: Host,
    watch: Watch,
    inputs: Inputs<Input>,
    /// Sessions may have been opened since the processes were last looked at.
    look: bool,
}

impl Watched {
    pub(super) fn new(host: Host, inputs: Inputs<Input>) -> Self {
        Self {
            host,
            watch: Watch::default(),
            inputs,
            look: true,
        }
    }

    fn look(&mut self) {
        if !std::mem::take(&mut self.look) {
            return;
        }
        for pid in self.host.watched_pids() {
            let inputs = self.inputs.clone();
            self.watch
                .process(pid, move |pid| inputs.tell(Input::ProcessGone { pid }));
        }
    }
}

impl Machine for Watched {
    type Input = Input;
    type Output = Output;
    type Why = <Host as Machine>::Why;

    fn handle_input(&mut self, now: Now, input: Input) {
        self.look |= matches!(input, Input::Ipc { .. });
        self.host.handle_input(now, input);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.host.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.host.poll_output();
        if output.is_none() {
            self.look();
        }
        output
    }

    fn poll_timeout(&self) -> Option<Timeout<Self::Why>> {
        self.host.poll_timeout()
    }
}

/// Each process is watched once, however many sessions it opened.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<BTreeSet<u32>>>);

impl Watch {
    /// Calls `gone` once, when `pid` is no more.
    fn process(&self, pid: u32, gone: impl FnOnce(u32) + Send + 'static) {
        if !self.lock().insert(pid) {
            return;
        }
        let watch = self.clone();
        tokio::spawn(async move {
            until_gone(pid).await;
            watch.lock().remove(&pid);
            gone(pid);
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until_gone(raw: u32) {
    let Some(pid) = Pid::from_raw(raw.cast_signed()) else {
        return;
    };
    if let Err(error) = told_of_its_end(pid).await {
        tracing::debug!(pid = raw, %error, "looking for the process instead");
        while !matches!(test_kill_process(pid), Err(Errno::SRCH)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A pid file descriptor is readable once its process has ended, and never means another process.
#[cfg(target_os = "linux")]
async fn told_of_its_end(pid: Pid) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // SAFETY: an `OwnedFd` is open for as long as it lives, and always the same descriptor.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    fd.readable().await.map(|_ended| ())
}

#[cfg(not(target_os = "linux"))]
async fn told_of_its_end(_: Pid) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn the_end_of_a_process_is_told_once_however_often_it_is_watched() {
        let mut child = tokio::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let watch = Watch::default();
        let (told, gone) = oneshot::channel();
        watch.process(pid, |pid| told.send(pid).unwrap());
        watch.process(pid, |_| panic!("watched twice"));
        child.kill().await.unwrap();
        assert_eq!(gone.await.unwrap(), pid);
    }

    #[tokio::test]
    async fn a_process_that_is_gone_already_is_told_of_at_once() {
        let mut child = tokio::process::Command::new("true").spawn().unwrap();
        let pid = child.id().unwrap();
        child.wait().await.unwrap();
        let (told, gone) = oneshot::channel();
        Watch::default().process(pid, |pid| told.send(pid).unwrap());
        assert_eq!(gone.await.unwrap(), pid);
    }
}

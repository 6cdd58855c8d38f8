//! The broker and the daemons: who is killed, who died unasked, and who has to be started again.

use std::time::Duration;

use anyhow::Context;
use bowline_daemon::stage::{Broker, Death, Ended, Host};
use tokio::time::sleep;

use super::Story;

pub(super) struct Processes {
    pub(super) broker: Broker,
    pub(super) hosts: [Host; 2],
    pub(super) story: Story,
    pub(super) died_unasked: usize,
}

const LOOKS_EVERY: Duration = Duration::from_millis(250);

impl Processes {
    /// Says whether it was the signal that ended it.
    pub(super) async fn kill_broker(&mut self) -> anyhow::Result<bool> {
        let ended = self.broker.process.kill().await?;
        Ok(self.note(ended))
    }

    /// Likewise.
    pub(super) async fn kill_host(&mut self, nth: usize) -> anyhow::Result<bool> {
        let ended = self.hosts[nth].process.kill().await?;
        Ok(self.note(ended))
    }

    /// Starts whoever does not run. Nobody is to be away: an end that is found here is a death.
    pub(super) async fn revive(&mut self) -> anyhow::Result<()> {
        if let Some(death) = self.broker.process.died()? {
            self.note_death(&death);
        }
        if self.broker.process.has_ended() {
            let back = self.broker.restart().await;
            back.context("the broker does not come back")?;
        }
        for nth in 0..self.hosts.len() {
            if let Some(death) = self.hosts[nth].process.died()? {
                self.note_death(&death);
            }
            let host = &mut self.hosts[nth];
            if host.process.has_ended() {
                let back = host.restart().await;
                back.with_context(|| format!("{} does not come back", host.name))?;
            }
        }
        Ok(())
    }

    /// Revives until that fails.
    pub(super) async fn keep_running(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.revive().await {
                return error;
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    pub(super) async fn kill_and_restart_all(&mut self) -> anyhow::Result<()> {
        for nth in 0..self.hosts.len() {
            self.kill_host(nth).await?;
        }
        self.kill_broker().await?;
        self.revive().await
    }

    pub(super) async fn stop_all(&mut self) -> anyhow::Result<()> {
        for nth in 0..self.hosts.len() {
            let ended = self.hosts[nth].process.stop().await?;
            self.note(ended);
        }
        let ended = self.broker.process.stop().await?;
        self.note(ended);
        Ok(())
    }

    fn note(&mut self, ended: Ended) -> bool {
        match ended {
            Ended::AsAsked => true,
            Ended::Otherwise(death) => {
                self.note_death(&death);
                false
            }
        }
    }

    fn note_death(&mut self, death: &Death) {
        self.died_unasked += 1;
        self.story.tell(&format!("FAILURE: {death}"));
    }
}

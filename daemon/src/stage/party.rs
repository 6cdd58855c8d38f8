//! A session that takes part: it sends, and its inbox is read, over the IPC of its daemon.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use bowline_core::wire::Priority;
use serde::Deserialize;
use serde_json::{Value, json};

use super::child::Host;
use super::verdict::Accepted;
use crate::cli::SessionFile;
use crate::client::Daemon;
use crate::home::create_private;

const PAGE: usize = 500;
const BUSY_FOR: Duration = Duration::from_millis(200);

pub struct Party {
    pub name: &'static str,
    pub pubkey: String,
    daemon: Daemon,
    /// What `BOWLINE_SESSION_FILE` has to name.
    pub session_file: PathBuf,
    accepted: usize,
    inbox: Vec<Mail>,
    read_to: u64,
}

/// One row of an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    pub seq: u64,
    pub sender: String,
    pub id: String,
    pub priority: Option<Priority>,
    pub body: Option<String>,
}

impl Party {
    /// Registers a session of this process, whose secret goes to `dir`.
    ///
    /// # Errors
    /// If its daemon refuses.
    pub async fn open(host: &Host, dir: &Path, name: &'static str) -> Result<Self, Failure> {
        let request = json!({
            "display_name": name,
            "pid": std::process::id(),
            "cwd": dir,
        });
        let member = Daemon::new(&host.home, None);
        let opened = member.post("/v1/sessions", &request).await?.body;
        let text = |field: &str| {
            opened[field].as_str().map(str::to_owned).ok_or_else(|| {
                Failure::new(
                    Exit::Failed,
                    "bad_answer",
                    format!("a session without {field}"),
                )
            })
        };
        let session = SessionFile {
            home: host.home.dir().to_owned(),
            session_id: text("session_id")?,
            name: name.to_owned(),
            token: text("token")?,
        };
        let session_file = dir.join(format!("{name}.json"));
        let json = serde_json::to_string(&session).expect("plain fields always serialise");
        create_private(&session_file)?.write_all(json.as_bytes())?;
        Ok(Self {
            name,
            pubkey: text("pubkey")?,
            daemon: Daemon::new(&host.home, Some(session.token)),
            session_file,
            accepted: 0,
            inbox: Vec::new(),
            read_to: 0,
        })
    }

    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Messages for which the daemon gave a 202.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    #[must_use]
    pub fn inbox(&self) -> &[Mail] {
        &self.inbox
    }

    /// Sends `count` messages to `to`, one after the other: the next when the last has its 202.
    ///
    /// # Errors
    /// If its daemon gives no answer, or a refusal.
    pub async fn send(&mut self, to: &str, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            let number = self.accepted + 1;
            let body = format!("{} to {to}, number {number}", self.name);
            self.send_one(&json!({ "to": to, "body": body })).await?;
            self.accepted = number;
        }
        Ok(())
    }

    async fn send_one(&self, request: &Value) -> Result<(), Failure> {
        loop {
            match self.daemon.post("/v1/send", request).await {
                Ok(_) => return Ok(()),
                // Nothing was accepted: later.
                Err(failure) if failure.code == "busy" => tokio::time::sleep(BUSY_FOR).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// So that whoever looks into the inbox sees what is new to him.
    ///
    /// # Errors
    /// If its daemon gives no answer, or a refusal.
    pub async fn mark_seen(&self) -> Result<(), Failure> {
        for mail in self.inbox.chunks(PAGE) {
            let seqs: Vec<_> = mail.iter().map(|mail| mail.seq).collect();
            let seen = json!({ "ids": seqs });
            self.daemon.post("/v1/inbox/seen", &seen).await?;
        }
        Ok(())
    }

    /// Reads what is new in the inbox.
    ///
    /// # Errors
    /// If its daemon gives no answer, or a refusal.
    pub async fn read_inbox(&mut self) -> Result<(), Failure> {
        loop {
            let path = format!("/v1/inbox?after={}&limit={PAGE}", self.read_to);
            let page = self.daemon.get(&path).await?;
            let rows = page["messages"].as_array().cloned().unwrap_or_default();
            for row in &rows {
                let mail = mail(row);
                self.read_to = mail.seq.max(self.read_to);
                self.inbox.push(mail);
            }
            if page["next"].is_null() {
                return Ok(());
            }
        }
    }

    /// Forgets what was read: the next read begins at the beginning.
    pub fn read_again(&mut self) {
        self.inbox.clear();
        self.read_to = 0;
    }

    /// All it sent, in the order in which its daemon accepted it.
    ///
    /// # Errors
    /// If its daemon gives no answer, or a refusal.
    pub async fn outbox(&self) -> Result<Vec<Accepted>, Failure> {
        let mut sent = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/v1/outbox?after={after}&limit={PAGE}");
            let page = self.daemon.get(&path).await?;
            let rows = page["rows"].as_array().cloned().unwrap_or_default();
            for row in &rows {
                after = row["seq"].as_u64().unwrap_or(0).max(after);
                sent.push(Accepted {
                    id: string(row, "id"),
                    priority: priority(row).ok_or_else(|| {
                        Failure::new(Exit::Failed, "bad_answer", "a row without a priority")
                    })?,
                });
            }
            if page["next"].is_null() {
                return Ok(sent);
            }
        }
    }

    /// How many peers the session's daemon lists as live.
    ///
    /// # Errors
    /// If its daemon gives no answer, or a refusal.
    pub async fn live_peers(&self) -> Result<usize, Failure> {
        let answer = self.daemon.get("/v1/peers").await?;
        let peers = answer["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.iter().filter(|peer| peer["state"] == "live").count())
    }

    /// # Errors
    /// If it is gone already.
    pub fn forget_session_file(&self) -> Result<(), Failure> {
        Ok(fs::remove_file(&self.session_file)?)
    }
}

fn mail(row: &Value) -> Mail {
    Mail {
        seq: row["seq"].as_u64().unwrap_or(0),
        sender: string(&row["from"], "pubkey"),
        id: string(row, "client_message_id"),
        priority: priority(row),
        body: row["body"].as_str().map(str::to_owned),
    }
}

fn priority(row: &Value) -> Option<Priority> {
    Priority::deserialize(&row["priority"]).ok()
}

fn string(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

//! `send --wait`: what was sent is followed up its ladder, event by event.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::explain::{rung_line, standing};
use super::output::{Output, text};
use super::{encoded, query};
use crate::client::{Answer, Daemon, Events};

/// How long it waits before it looks for a daemon that went away.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);
/// What is asked when the time is up may take a moment more.
const LAST_LOOK_WITHIN: Duration = Duration::from_secs(15);

/// How far a message is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Goal {
    /// In its recipient's inbox.
    Delivered,
    /// Read there.
    Seen,
}

/// A stream of this caller's events that has begun: what happens from now on is told on it.
pub(super) struct Watch {
    events: Events,
}

/// One message on its way up.
pub(super) struct Follow<'a> {
    daemon: &'a Daemon,
    output: Output,
    id: String,
    mesh: Option<String>,
    goal: Goal,
    printed: BTreeSet<(String, String)>,
}

impl Watch {
    /// # Errors
    /// If the daemon grants no stream.
    pub(super) async fn begin(daemon: &Daemon) -> Result<Self, Failure> {
        let mut events = daemon.events("", None).await?;
        while let Some(event) = events.next().await? {
            if event.kind == "ready" {
                return Ok(Self { events });
            }
        }
        Err(Failure::new(
            Exit::NotNow,
            "no_events",
            "the daemon ended its stream of events before it began",
        ))
    }
}

impl<'a> Follow<'a> {
    /// `sent`: the answer to the send.
    pub(super) fn new(daemon: &'a Daemon, output: Output, sent: &Answer, goal: Goal) -> Self {
        let mesh = sent.body["mesh_id"].as_str().map(str::to_owned);
        Self {
            daemon,
            output,
            id: text(&sent.body, "id"),
            mesh,
            goal,
            printed: BTreeSet::from([("queued".to_owned(), String::new())]),
        }
    }

    /// Until it has come so far, has ended, or `within` is over.
    ///
    /// # Errors
    /// If it has ended otherwise, or has not come so far in time.
    pub(super) async fn up(
        mut self,
        watch: Watch,
        within: Option<Duration>,
    ) -> Result<(), Failure> {
        let Some(within) = within else {
            return self.climb(watch).await;
        };
        let until = Instant::now() + within;
        if let Ok(climbed) = timeout_at(until, self.climb(watch)).await {
            return climbed;
        }
        // Whatever can be said of it by then; that it is late is said in any case.
        let last = timeout_at(Instant::now() + LAST_LOOK_WITHIN, self.look()).await;
        Err(self.late(within, last.ok().and_then(Result::ok)))
    }

    async fn climb(&mut self, watch: Watch) -> Result<(), Failure> {
        let mut events = watch.events;
        loop {
            // What happened before this stream began is not told on it.
            let message = self.look().await?;
            for rung in message["ladder"].as_array().into_iter().flatten() {
                if self.reached(rung)? {
                    return Ok(());
                }
            }
            while let Some(event) = events.next().await? {
                let ours = event.kind == "receipt"
                    && event.data["id"] == self.id.as_str()
                    && event.data["mesh_id"].as_str() == self.mesh.as_deref();
                if ours && self.reached(&event.data)? {
                    return Ok(());
                }
            }
            events = self.begin_again().await?.events;
        }
    }

    /// The stream ended: a gap, or the daemon went.
    async fn begin_again(&self) -> Result<Watch, Failure> {
        loop {
            sleep(COME_BACK_AFTER).await;
            match Watch::begin(self.daemon).await {
                Err(failure) if matches!(failure.exit, Exit::NoDaemon | Exit::NotNow) => {}
                other => return other,
            }
        }
    }

    async fn look(&self) -> Result<Value, Failure> {
        let mesh = query(&[("mesh", self.mesh.clone())]);
        let path = format!("/v1/messages/{}{mesh}", encoded(&self.id));
        self.daemon.get(&path).await
    }

    /// Prints a rung that is new. True if that is as far as it was to come.
    fn reached(&mut self, rung: &Value) -> Result<bool, Failure> {
        let name = text(rung, "rung");
        let recipient = match name.as_str() {
            // Of the message, not of one of its recipients.
            "queued" | "accepted" | "aborted" => String::new(),
            _ => text(rung, "recipient"),
        };
        if self.printed.insert((name.clone(), recipient)) {
            let told = json!({
                "id": self.id, "rung": name, "at": rung["at"], "reason": rung["reason"],
            });
            self.output.say(rung_line(rung), &told)?;
        }
        match name.as_str() {
            "seen" => Ok(true),
            "delivered" => Ok(self.goal == Goal::Delivered),
            "dead" | "expired" | "aborted" => Err(self.over(&name, rung)),
            _ => Ok(false),
        }
    }

    fn over(&self, end: &str, rung: &Value) -> Failure {
        let reason = text(rung, "reason");
        let why = match reason.as_str() {
            "" => String::new(),
            reason if reason == end => String::new(),
            reason => format!(": {reason}"),
        };
        let code = format!("message_{end}");
        let mut failure = Failure::new(Exit::Ended, &code, format!("{} is {end}{why}", self.id));
        failure.details.insert("id".into(), json!(self.id));
        failure.details.insert("reason".into(), json!(reason));
        failure
    }

    fn late(&self, within: Duration, message: Option<Value>) -> Failure {
        let goal = match self.goal {
            Goal::Delivered => "delivered",
            Goal::Seen => "seen",
        };
        let stands = message.as_ref().map(standing);
        let stands = stands.unwrap_or_else(|| "the daemon gives no answer".to_owned());
        let state = message.map_or(Value::Null, |message| message["state"].clone());
        let mut failure = Failure::new(
            Exit::TimedOut,
            "wait_timed_out",
            format!(
                "{} is not {goal} after {} s: {stands}",
                self.id,
                within.as_secs()
            ),
        )
        .next(format!(
            "it is still on its way; `bowline explain {}` says where",
            self.id
        ));
        failure.details.insert("id".into(), json!(self.id));
        failure.details.insert("state".into(), state);
        failure
    }
}

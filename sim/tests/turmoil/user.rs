//! Who uses a daemon: a person or a session, over the IPC.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_io::http::{CallError, EventStream, call_through, open_events_through};
use bowline_io::net::Connector;
use bytes::Bytes;
use serde_json::{Value, json};
use turmoil::net::TcpStream;

use super::stage::{PORT, within};

const ANSWER_BYTES: usize = 4 * 1024 * 1024;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const LOOKS_EVERY: Duration = Duration::from_millis(100);
const PAGE: usize = 500;

/// The IPC of a host, whatever it is called.
#[derive(Clone, Copy)]
struct Ipc(&'static str);

impl Connector for Ipc {
    type Stream = TcpStream;

    async fn connect(&self, _: String) -> io::Result<TcpStream> {
        TcpStream::connect((self.0, PORT)).await
    }
}

/// A daemon, spoken to as its member or as one of its sessions.
#[derive(Clone)]
pub struct Daemon {
    pub host: &'static str,
    authorization: Option<String>,
}

#[derive(Clone)]
pub struct Session {
    pub name: &'static str,
    pub daemon: Daemon,
}

/// What a session's event stream told of others, over all the times that it was opened.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    left: Vec<String>,
    present: Option<BTreeSet<String>>,
}

impl Daemon {
    pub fn of(host: &'static str) -> Self {
        Self {
            host,
            authorization: None,
        }
    }

    /// What stands in `Authorization`.
    pub fn token(&self) -> &str {
        self.authorization.as_deref().unwrap_or_default()
    }

    /// A connection to its IPC.
    pub async fn connect(&self) -> TcpStream {
        Ipc(self.host)
            .connect(String::new())
            .await
            .expect("it listens")
    }

    /// Status and body; `None` without an answer: what was asked may have been done.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        self.ask_with(method, path, body, &[]).await
    }

    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Option<(u16, Value)> {
        let mut all = self.headers();
        all.extend_from_slice(headers);
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let answered = call_through(
            &Ipc(self.host),
            "localhost",
            method.parse().expect("a method"),
            path,
            &all,
            body,
            ANSWER_BYTES,
            ANSWERED_WITHIN,
        )
        .await
        .ok()?;
        let body = serde_json::from_slice(&answered.body).expect("every answer is JSON");
        Some((answered.status.as_u16(), body))
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null).await;
        let (status, body) = answer.expect("it answers");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, &body).await.expect("it answers");
        assert!((200..300).contains(&status), "{path}: {answer}");
        answer
    }

    async fn events(&self) -> Result<EventStream, CallError> {
        open_events_through(
            &Ipc(self.host),
            "localhost",
            "/v1/events",
            &self.headers(),
            ANSWERED_WITHIN,
        )
        .await
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let token = self.authorization.iter();
        token
            .map(|token| ("authorization", token.as_str()))
            .collect()
    }
}

impl Session {
    pub async fn open(host: &'static str, name: &'static str) -> Self {
        let asked = json!({ "display_name": name, "session_id": name });
        let opened = Daemon::of(host).post("/v1/sessions", asked).await;
        let token = opened["token"].as_str().expect("a token");
        Self {
            name,
            daemon: Daemon {
                host,
                authorization: Some(format!("Bearer {token}")),
            },
        }
    }

    /// Until it is accepted, with one id: a daemon that gives no answer is asked again.
    pub async fn send(&self, to: &str, id: &str, body: &str) {
        let asked = json!({ "to": to, "body": body });
        let headers = [("idempotency-key", id)];
        within(
            &format!("{id} is accepted"),
            Duration::from_secs(300),
            async || match self
                .daemon
                .ask_with("POST", "/v1/send", &asked, &headers)
                .await
            {
                Some((200 | 202, _)) => true,
                Some((429 | 503, _)) | None => false,
                Some((status, answer)) => panic!("{status}: {answer}"),
            },
        )
        .await;
    }

    /// Bodies in the order of the inbox.
    pub async fn inbox(&self) -> Vec<String> {
        let mut bodies = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/v1/inbox?after={after}&limit={PAGE}");
            let page = self.daemon.get(&path).await;
            for row in page["messages"].as_array().expect("rows") {
                after = row["seq"].as_u64().expect("a number").max(after);
                bodies.push(row["body"].as_str().expect("it opens").to_owned());
            }
            if page["next"].is_null() {
                return bodies;
            }
        }
    }

    /// Waits until exactly these are in the inbox, in this order.
    pub async fn receives(&self, expected: &[String], within_time: Duration) {
        let what = format!("{} has {} messages", self.name, expected.len());
        within(&what, within_time, async || {
            let inbox = self.inbox().await;
            assert!(
                inbox.len() <= expected.len(),
                "{} has more than it was sent",
                self.name
            );
            inbox == expected
        })
        .await;
    }

    pub async fn sees(&self, name: &str, state: &str, within_time: Duration) {
        within(
            &format!("{name} is {state} for {}", self.name),
            within_time,
            async || self.state_of(name).await.as_deref() == Some(state),
        )
        .await;
    }

    pub async fn state_of(&self, name: &str) -> Option<String> {
        let listed = self.daemon.get("/v1/peers").await;
        let peers = listed["peers"].as_array().expect("a list");
        let peer = peers.iter().find(|peer| peer["name"] == name)?;
        peer["state"].as_str().map(str::to_owned)
    }

    /// Watches from now on, in a task; comes back whenever the stream ends.
    pub fn watch(&self) -> Watch {
        let watch = Watch::default();
        let (daemon, seen) = (self.daemon.clone(), watch.clone());
        tokio::spawn(async move {
            loop {
                if let Ok(mut events) = daemon.events().await {
                    while let Ok(Some(event)) = events.next().await {
                        seen.take(&event.event, &event.data);
                    }
                }
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        });
        watch
    }
}

impl Watch {
    /// Names, in order; what a snapshot shows to have happened meanwhile counts as seen.
    pub fn left(&self) -> Vec<String> {
        self.lock().left.clone()
    }

    pub async fn is_watching(&self) {
        within("a snapshot came", ANSWERED_WITHIN, async || {
            self.lock().present.is_some()
        })
        .await;
    }

    fn take(&self, kind: &str, data: &str) {
        let data: Value = serde_json::from_str(data).expect("JSON");
        let name = |peer: &Value| peer["name"].as_str().unwrap_or_default().to_owned();
        let mut seen = self.lock();
        match kind {
            "peer_left" => {
                seen.left.push(name(&data));
                seen.present.get_or_insert_default().remove(&name(&data));
            }
            "peer_joined" => {
                seen.present.get_or_insert_default().insert(name(&data));
            }
            "peers" => {
                let listed = data["peers"].as_array().expect("a list");
                let now: BTreeSet<String> = listed.iter().map(name).collect();
                if let Some(before) = seen.present.replace(now.clone()) {
                    seen.left.extend(before.difference(&now).cloned());
                }
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

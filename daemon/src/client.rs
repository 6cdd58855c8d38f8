//! What a command line says to its daemon: HTTP/1.1 over the Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use bowline_io::http::{CallError, EventStream, Target, call, open_events};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::home::Home;

/// The daemon of one home, as one caller speaks to it.
#[derive(Clone, Debug)]
pub struct Daemon {
    socket: PathBuf,
    authorization: Option<String>,
}

/// A success: 2xx.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// One event of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Only mail has one.
    pub id: Option<u64>,
    pub kind: String,
    pub data: Value,
}

/// Live events; see [`Daemon::events`].
pub struct Events(EventStream);

/// A page of an inbox is the longest answer.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Longer than the daemon takes to say `outcome_unknown`, and than a broker takes to answer a join.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

impl Daemon {
    /// `token` of a session or of the machine; without one the caller is the member.
    #[must_use]
    pub fn new(home: &Home, token: Option<String>) -> Self {
        Self {
            socket: home.socket(),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// # Errors
    /// See [`Self::call`].
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, path, None, &[]).await?.body)
    }

    /// # Errors
    /// See [`Self::call`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    /// # Errors
    /// If no daemon answers, or it answers with anything but a success.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answered = call(
            &Target::unix(&self.socket),
            method,
            path,
            &self.with_authorization(headers),
            bytes,
            ANSWER_BYTES,
            ANSWER_WITHIN,
        )
        .await
        .map_err(|error| self.no_answer(error))?;
        answer_of(answered.status, &answered.body)
    }

    /// `GET /v1/events`: live, after the mail beyond `last_event_id`.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub async fn events(&self, query: &str, last_event_id: Option<u64>) -> Result<Events, Failure> {
        let last = last_event_id.map(|id| id.to_string());
        let headers: Vec<_> = last
            .iter()
            .map(|id| ("last-event-id", id.as_str()))
            .collect();
        open_events(
            &Target::unix(&self.socket),
            &format!("/v1/events{query}"),
            &self.with_authorization(&headers),
            ANSWER_WITHIN,
        )
        .await
        .map(Events)
        .map_err(|error| self.no_answer(error))
    }

    fn with_authorization<'a>(&'a self, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self
            .authorization
            .iter()
            .map(|value| ("authorization", value.as_str()));
        own.chain(headers.iter().copied()).collect()
    }

    fn no_answer(&self, error: CallError) -> Failure {
        match error {
            CallError::Connect { error, .. } => self.not_there(&error),
            CallError::NotEvents(answered) => failure_of(answered.status, &answered.body),
            CallError::Malformed(error) => {
                Failure::new(Exit::Usage, "bad_request", error.to_string())
                    .next("ids are visible ASCII characters")
            }
            error => Failure::new(
                Exit::NotNow,
                "no_answer",
                format!("the daemon gave no answer: {error}"),
            )
            .next("whether it was done is unknown; `bowline status` tells when the daemon is back"),
        }
    }

    fn not_there(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(Exit::NoDaemon, "no_daemon", "no daemon is running")
                    .next("start one with `bowline up`")
            }
            io::ErrorKind::PermissionDenied => Failure::new(
                Exit::Refused,
                "socket_forbidden",
                format!("{} belongs to another user", self.socket.display()),
            )
            .next("run as the user whose daemon it is, or set BOWLINE_HOME to your own"),
            _ => Failure::new(
                Exit::Failed,
                "daemon_unreachable",
                format!("{}: {error}", self.socket.display()),
            )
            .next("`bowline logs` may say why"),
        }
    }
}

impl Events {
    /// The next event; `None` where the stream has ended. A connection that breaks is an end like
    /// any other: the reader comes back with the id of the last mail.
    ///
    /// # Errors
    /// If an event's data is not JSON.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let Ok(Some(event)) = self.0.next().await else {
            return Ok(None);
        };
        let data = serde_json::from_str(&event.data).map_err(|error| {
            Failure::new(
                Exit::Failed,
                "bad_event",
                format!("an event of the daemon is not JSON: {error}"),
            )
        })?;
        Ok(Some(Event {
            id: event.id.and_then(|id| id.parse().ok()),
            kind: event.event,
            data,
        }))
    }
}

fn answer_of(status: StatusCode, bytes: &[u8]) -> Result<Answer, Failure> {
    if !status.is_success() {
        return Err(failure_of(status, bytes));
    }
    let body = match bytes {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(
                Exit::Failed,
                "bad_answer",
                format!("the daemon's answer is not JSON: {error}"),
            )
            .next("is another program listening on the daemon's socket?")
        })?,
    };
    Ok(Answer {
        status: status.as_u16(),
        body,
    })
}

/// `{"error":{"code","message","next"?,…}}` as it travels.
fn failure_of(status: StatusCode, bytes: &[u8]) -> Failure {
    let exit = Exit::of_status(status.as_u16());
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let Some(error) = body.get("error").and_then(Value::as_object) else {
        return Failure::new(exit, "http_error", format!("the daemon answered {status}"));
    };
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let code = text("code").unwrap_or("http_error");
    let mut failure = Failure::new(exit, code, text("message").unwrap_or(code));
    failure.next = text("next").map(str::to_owned).or_else(|| advice(code));
    failure.details = error
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "code" | "message" | "next"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    failure
}

/// What a person can do about a refusal of the daemon.
fn advice(code: &str) -> Option<String> {
    let advice = match code {
        "mesh_not_joined" => "`bowline status` lists the meshes; `bowline join LINK` joins another",
        "mesh_ambiguous" => "say which with --mesh",
        "target_unknown" | "target_ambiguous" => "`bowline peers` lists who can be written to",
        "broker_silent" => "repeat it: twice is as good as once",
        "mesh_away" => "`bowline status` says since when, and why",
        "busy" | "storage_full" => "nothing was accepted; try again later",
        "outcome_unknown" => "repeat it with the same --id: it is never sent twice",
        "unauthorized" => "the session has ended; open another with `bowline session run`",
        "session_live" => "take it over with --take-over, or choose another --name",
        _ => return None,
    };
    Some(advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_its_details_and_says_what_to_do() {
        let body = br#"{"error":{"code":"target_unknown","message":"nobody is called bop","near":["bob"]}}"#;
        let failure = failure_of(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.code, "target_unknown");
        assert_eq!(failure.details["near"][0], "bob");
        assert!(failure.next.unwrap().contains("bowline peers"));
    }

    #[test]
    fn an_answer_that_is_not_ours_is_not_taken_for_a_success() {
        assert_eq!(
            answer_of(StatusCode::OK, b"<html>").unwrap_err().code,
            "bad_answer"
        );
        assert_eq!(failure_of(StatusCode::BAD_GATEWAY, b"").code, "http_error");
    }

    #[tokio::test]
    async fn without_a_daemon_the_failure_says_how_to_start_one() {
        let temp = tempfile::tempdir().unwrap();
        let daemon = Daemon::new(&Home::at(temp.path()).unwrap(), None);
        let failure = daemon.get("/v1/version").await.unwrap_err();
        assert_eq!(failure.exit, Exit::NoDaemon);
        assert!(failure.next.unwrap().contains("bowline up"));
    }
}

//! Requests over the IPC as data, and their answers.
//!
//! The shell hands over method, path, query, headers and body; [`parse`] makes a [`Call`] of them
//! or the error answer. Who the caller is and what it may do is decided by the host.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers;
use crate::crypto::jcs;
use crate::id::{ClientMessageId, InboxSeq, MeshId, MessageId, OutboxSeq, SessionId};
use crate::limits::SUMMARY_BYTES;
use crate::store::host::OutboxStatus;
use crate::wire::Priority;
use crate::wire::decode::cut;

/// An IPC request as it came over HTTP.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// A Unix socket: the file system has vouched for the caller. TCP: a token is required.
    pub unix: bool,
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The values of the headers that matter here, by lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Clone, Debug)]
pub struct Call {
    pub token: Token,
    pub request: Request,
}

#[derive(Clone)]
pub enum Token {
    /// None was given, over the Unix socket: the caller is the member.
    Absent,
    Bearer(String),
}

#[derive(Clone, Debug)]
pub enum Request {
    Version,
    Health,
    Metrics,
    Meshes,
    MeshCreate(MeshCreate),
    MeshJoin(MeshJoin),
    Invite(Invite),
    Kick(KickRequest),
    Ban {
        target: String,
        mesh: Option<String>,
    },
    Unban {
        target: String,
        mesh: Option<String>,
    },
    Bans {
        mesh: Option<String>,
    },
    /// Uplinks that have stopped are tried again.
    RetryUplinks,
    SessionOpen(SessionOpen),
    /// End the calling session: says `bye`.
    SessionEnd {
        session: Option<SessionId>,
    },
    Sessions,
    SessionMe,
    Send {
        send: SendRequest,
        id: Option<ClientMessageId>,
    },
    Inbox(InboxQuery),
    InboxSeen {
        ids: Vec<InboxSeq>,
    },
    Outbox(OutboxQuery),
    OutboxGet {
        id: ClientMessageId,
        mesh: Option<String>,
    },
    /// By the sender's id, by the broker's, or by the beginning of one.
    Message {
        id: String,
        mesh: Option<String>,
    },
    Peers {
        mesh: Option<String>,
        all: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeshCreate {
    pub slug: String,
    /// `ws(s)://host[:port]/ws`.
    pub broker_url: String,
    /// `sealed` (default) or `open`.
    #[serde(default)]
    pub policy: Option<String>,
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeshJoin {
    pub invite: String,
    #[serde(default)]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// Slug or id; may be left out where only one mesh is joined.
    #[serde(default)]
    pub mesh: Option<String>,
    /// `member` (default) or `admin`.
    #[serde(default)]
    pub role: Option<String>,
    /// Seconds from now; 7 days by default.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
    #[serde(default)]
    pub uses: Option<u32>,
}

/// Exactly one of the first three.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KickRequest {
    /// A key, a member's id, or the name of one peer that is here.
    #[serde(default)]
    pub target: Option<String>,
    /// Everybody who said nothing for so long.
    #[serde(default)]
    pub stale_ms: Option<u64>,
    #[serde(default)]
    pub all: bool,
    #[serde(default)]
    pub mesh: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionOpen {
    /// A uuid by convention; made where absent. Same mesh, same id: same key.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    #[serde(default)]
    pub mesh: Option<String>,
    pub display_name: String,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub cwd: Option<String>,
    /// `session` (default) or `service`.
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    /// Take a live session's name.
    #[serde(default)]
    pub take_over: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendRequest {
    /// A name, 64 hex characters, or a prefix of 4 or more.
    pub to: String,
    pub body: String,
    #[serde(default)]
    pub priority: Option<Priority>,
    #[serde(default)]
    pub meta: Option<Value>,
    #[serde(default)]
    pub reply_to_id: Option<MessageId>,
    #[serde(default)]
    pub mesh: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct InboxQuery {
    pub unread: bool,
    /// 64 hex characters or a name.
    pub from: Option<String>,
    pub after: InboxSeq,
    pub limit: Option<usize>,
    pub all: bool,
}

#[derive(Clone, Debug, Default)]
pub struct OutboxQuery {
    pub status: Option<OutboxStatus>,
    pub after: OutboxSeq,
    pub limit: Option<usize>,
    pub all: bool,
}

/// `GET /v1/events`.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub token: Token,
    /// `Last-Event-ID`: mail after this. Absent: from now on.
    pub last_event_id: Option<InboxSeq>,
    pub all: bool,
    /// For a caller that is the member.
    pub mesh: Option<MeshId>,
}

/// Status and JSON body. An error's body is `{"error":{"code","message",…}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Bearer(_) => "Bearer(..)",
        })
    }
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Parsed {
    Call(Call),
    Subscribe(Subscribe),
}

/// The longest body that is read: a send at its largest, as JSON that escapes every byte.
pub const BODY_BYTES: usize = 1024 * 1024;

/// Total and bounded: whatever does not parse is answered.
pub fn parse(http: &HttpRequest<'_>) -> Result<Parsed, Answer> {
    check_origin(http)?;
    let query = Query::read(http.query.unwrap_or_default())?;
    let token = token_of(http)?;
    if http.body.len() > BODY_BYTES {
        return Err(answers::error(
            413,
            "payload_too_large",
            "the body is too long",
        ));
    }
    let path: Vec<&str> = http.path.split('/').skip(1).collect();
    let request = match (http.method, path.as_slice()) {
        ("GET", ["v1", "version"]) => Request::Version,
        ("GET", ["v1", "health"]) => Request::Health,
        ("GET", ["metrics"]) => Request::Metrics,
        ("GET", ["v1", "meshes"]) => Request::Meshes,
        ("POST", ["v1", "meshes"]) => Request::MeshCreate(body(http)?),
        ("POST", ["v1", "meshes", "join"]) => Request::MeshJoin(body(http)?),
        ("POST", ["v1", "invites"]) => Request::Invite(body(http)?),
        ("POST", ["v1", "kick"]) => Request::Kick(body(http)?),
        ("GET", ["v1", "bans"]) => Request::Bans {
            mesh: query.text("mesh"),
        },
        ("POST", ["v1", "bans"]) => {
            let BanBody { target, mesh } = body(http)?;
            Request::Ban { target, mesh }
        }
        ("DELETE", ["v1", "bans", target]) => Request::Unban {
            target: decoded(target)?,
            mesh: query.text("mesh"),
        },
        ("POST", ["v1", "uplinks", "retry"]) => Request::RetryUplinks,
        ("GET", ["v1", "sessions"]) => Request::Sessions,
        ("GET", ["v1", "sessions", "me"]) => Request::SessionMe,
        ("POST", ["v1", "sessions"]) => Request::SessionOpen(body(http)?),
        ("DELETE", ["v1", "sessions"] | ["v1", "sessions", "me"]) => {
            Request::SessionEnd { session: None }
        }
        ("DELETE", ["v1", "sessions", id]) => Request::SessionEnd {
            session: Some(SessionId::from(decoded(id)?)),
        },
        ("POST", ["v1", "send"]) => Request::Send {
            send: body(http)?,
            id: (http.header)("idempotency-key").map(ClientMessageId::from),
        },
        ("GET", ["v1", "inbox"]) => Request::Inbox(InboxQuery {
            unread: query.flag("unread")?,
            from: query.text("from"),
            after: InboxSeq(query.cursor()?),
            limit: query.limit()?,
            all: query.flag("all")?,
        }),
        ("POST", ["v1", "inbox", "seen"]) => Request::InboxSeen {
            ids: body::<SeenBody>(http)?.ids,
        },
        ("GET", ["v1", "outbox"]) => Request::Outbox(OutboxQuery {
            status: query.status()?,
            after: OutboxSeq(query.cursor()?),
            limit: query.limit()?,
            all: query.flag("all")?,
        }),
        ("GET", ["v1", "outbox", id]) => Request::OutboxGet {
            id: ClientMessageId::from(decoded(id)?),
            mesh: query.text("mesh"),
        },
        ("GET", ["v1", "messages", id]) => Request::Message {
            id: decoded(id)?,
            mesh: query.text("mesh"),
        },
        ("GET", ["v1", "peers"]) => Request::Peers {
            mesh: query.text("mesh"),
            all: query.flag("all")?,
        },
        ("GET", ["v1", "events"]) => {
            return Ok(Parsed::Subscribe(Subscribe {
                token,
                last_event_id: last_event_id(http)?,
                all: query.flag("all")?,
                mesh: query.text("mesh").map(MeshId::from),
            }));
        }
        (_, path) if is_known(path) => {
            return Err(answers::error(
                405,
                "method_not_allowed",
                "this endpoint does not take that method",
            ));
        }
        _ => return Err(answers::not_found("there is no such endpoint")),
    };
    Ok(Parsed::Call(Call { token, request }))
}

#[derive(Deserialize)]
struct BanBody {
    target: String,
    mesh: Option<String>,
}

#[derive(Deserialize)]
struct SeenBody {
    ids: Vec<InboxSeq>,
}

fn is_known(path: &[&str]) -> bool {
    matches!(
        path,
        ["metrics"]
            | [
                "v1",
                "version"
                    | "health"
                    | "meshes"
                    | "invites"
                    | "kick"
                    | "bans"
                    | "sessions"
                    | "send"
                    | "inbox"
                    | "outbox"
                    | "peers"
                    | "events"
            ]
            | ["v1", "meshes", "join"]
            | ["v1", "inbox", "seen"]
            | ["v1", "uplinks", "retry"]
            | ["v1", "sessions" | "outbox" | "messages" | "bans", _]
    )
}

/// A browser's page must not reach this daemon, whatever name its host was given.
fn check_origin(http: &HttpRequest<'_>) -> Result<(), Answer> {
    if (http.header)("origin").is_some() {
        return Err(answers::forbidden("requests with an `Origin` are refused"));
    }
    let Some(host) = (http.header)("host") else {
        return Ok(());
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !matches!(name, "" | "localhost" | "127.0.0.1" | "[::1]") {
        return Err(answers::forbidden(
            "requests for a foreign `Host` are refused",
        ));
    }
    Ok(())
}

/// Over TCP nobody vouches for the caller but its token.
fn token_of(http: &HttpRequest<'_>) -> Result<Token, Answer> {
    let Some(given) = (http.header)("authorization") else {
        return if http.unix {
            Ok(Token::Absent)
        } else {
            Err(answers::unauthorized())
        };
    };
    match given.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Token::Bearer(token.trim().into()))
        }
        _ => Err(answers::unauthorized()),
    }
}

fn body<T: DeserializeOwned>(http: &HttpRequest<'_>) -> Result<T, Answer> {
    let bad = |detail: &dyn core::fmt::Display| {
        let mut detail = alloc::format!("the body: {detail}");
        cut(&mut detail, SUMMARY_BYTES);
        answers::bad_request(detail)
    };
    let text = core::str::from_utf8(http.body).map_err(|e| bad(&e))?;
    // Read as strictly as what is fingerprinted must be: a key twice is a body with two meanings.
    let value = jcs::parse(text).map_err(|e| bad(&e))?;
    serde_json::from_value(value).map_err(|e| bad(&e))
}

fn last_event_id(http: &HttpRequest<'_>) -> Result<Option<InboxSeq>, Answer> {
    let Some(text) = (http.header)("last-event-id").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse()
        .map(|seq| Some(InboxSeq(seq)))
        .map_err(|_| answers::bad_request("`Last-Event-ID` is the number of a message"))
}

/// A query string, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Result<Self, Answer> {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decoded(key)?, decoded(value)?))
            })
            .collect::<Result<Vec<_>, Answer>>()?;
        let is_token = |key: &str| matches!(key, "token" | "access_token" | "authorization");
        if pairs.iter().any(|(key, _)| is_token(key)) {
            return Err(answers::bad_request(
                "a token in a query string ends up in logs: use `Authorization: Bearer`",
            ));
        }
        Ok(Self(pairs))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value.as_str())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.get(key)
            .filter(|value| !value.is_empty())
            .map(String::from)
    }

    fn flag(&self, key: &str) -> Result<bool, Answer> {
        match self.get(key) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(answers::bad_request(alloc::format!(
                "`{key}` is `1` or `0`"
            ))),
        }
    }

    fn number(&self, key: &str) -> Result<Option<u64>, Answer> {
        self.get(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| answers::bad_request(alloc::format!("`{key}` is a number")))
            })
            .transpose()
    }

    fn cursor(&self) -> Result<u64, Answer> {
        let after = self.number("after")?;
        let since = self.number("since")?;
        Ok(self.number("cursor")?.or(after).or(since).unwrap_or(0))
    }

    fn limit(&self) -> Result<Option<usize>, Answer> {
        let limit = self.number("limit")?;
        Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    fn status(&self) -> Result<Option<OutboxStatus>, Answer> {
        let Some(text) = self.get("status") else {
            return Ok(None);
        };
        OutboxStatus::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .map(Some)
            .ok_or_else(|| {
                answers::bad_request(
                    "`status` is `pending`, `inflight`, `done`, `dead` or `aborted`",
                )
            })
    }
}

/// Percent-decoding; `+` is a space.
fn decoded(text: &str) -> Result<String, Answer> {
    let bad = || answers::bad_request("the URL is not well formed");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).map_err(|_| bad())?;
                bytes.push(byte[0]);
                rest = after;
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 0] = [];

    fn request(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Parsed, Answer> {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let header = |name: &str| {
            headers
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, v)| *v)
        };
        parse(&HttpRequest {
            unix: true,
            method,
            path,
            query,
            header: &header,
            body: body.as_bytes(),
        })
    }

    fn code(parsed: Result<Parsed, Answer>) -> (u16, String) {
        let answer = parsed.expect_err("this is refused");
        let code = answer.body["error"]["code"].as_str().unwrap_or_default();
        (answer.status, code.into())
    }

    fn call(parsed: Result<Parsed, Answer>) -> Request {
        match parsed {
            Ok(Parsed::Call(call)) => call.request,
            other => panic!("not a call: {other:?}"),
        }
    }

    #[test]
    fn a_send_is_read_with_its_key() {
        let headers = [("idempotency-key", "k1"), ("host", "localhost")];
        let body = r#"{"to":"bob","body":"hi","priority":"now","meta":{"a":1}}"#;
        let Request::Send { send, id } = call(request("POST", "/v1/send", &headers, body)) else {
            panic!("not a send");
        };
        assert_eq!((send.to.as_str(), send.body.as_str()), ("bob", "hi"));
        assert_eq!(id, Some(ClientMessageId::from("k1")));
        assert_eq!(send.priority, Some(Priority::Now));
    }

    #[test]
    fn bans_are_a_collection_and_a_target_may_be_any_name() {
        let target = |request: Request| match request {
            Request::Ban { target, mesh } | Request::Unban { target, mesh } => (target, mesh),
            other => panic!("neither ban nor unban: {other:?}"),
        };
        let body = r#"{"target":"a b","mesh":"team"}"#;
        let expected = (String::from("a b"), Some(String::from("team")));
        assert_eq!(
            target(call(request("POST", "/v1/bans", &HEADERS, body))),
            expected
        );
        let unban = request("DELETE", "/v1/bans/a%20b?mesh=team", &HEADERS, "");
        assert_eq!(target(call(unban)), expected);
        assert_eq!(code(request("POST", "/v1/bans", &HEADERS, "{}")).0, 400);
        assert_eq!(code(request("PUT", "/v1/bans/x", &HEADERS, "")).0, 405);
        let kick = call(request("POST", "/v1/kick", &HEADERS, r#"{"stale_ms":5}"#));
        assert!(matches!(kick, Request::Kick(kick) if kick.stale_ms == Some(5)));
    }

    #[test]
    fn queries_are_decoded_and_bounded() {
        let Request::Inbox(query) = call(request(
            "GET",
            "/v1/inbox?unread&from=a%20b+c&after=7&limit=5",
            &HEADERS,
            "",
        )) else {
            panic!("not an inbox");
        };
        assert!(query.unread && !query.all);
        assert_eq!(query.from.as_deref(), Some("a b c"));
        assert_eq!((query.after, query.limit), (InboxSeq(7), Some(5)));
        for bad in [
            "/v1/inbox?after=x",
            "/v1/inbox?unread=maybe",
            "/v1/inbox?from=%f",
            "/v1/outbox?status=lost",
        ] {
            assert_eq!(code(request("GET", bad, &HEADERS, "")).0, 400, "{bad}");
        }
    }

    #[test]
    fn browsers_and_tokens_in_urls_are_refused() {
        assert_eq!(
            code(request("GET", "/v1/health", &[("origin", "http://x")], "")).0,
            403
        );
        assert_eq!(
            code(request(
                "GET",
                "/v1/health",
                &[("host", "evil.example:80")],
                ""
            ))
            .0,
            403
        );
        assert_eq!(
            code(request("GET", "/v1/health?token=abc", &HEADERS, "")).0,
            400
        );
        assert!(request("GET", "/v1/health", &[("host", "[::1]:9")], "").is_ok());
    }

    #[test]
    fn over_tcp_a_token_is_required() {
        let header = |_: &str| None;
        let parsed = parse(&HttpRequest {
            unix: false,
            method: "GET",
            path: "/v1/version",
            query: None,
            header: &header,
            body: b"",
        });
        assert_eq!(code(parsed), (401, "unauthorized".into()));
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_the_wrong_method() {
        assert_eq!(code(request("GET", "/v1/nothing", &HEADERS, "")).0, 404);
        assert_eq!(code(request("PUT", "/v1/send", &HEADERS, "")).0, 405);
        assert_eq!(code(request("GET", "", &HEADERS, "")).0, 404);
    }

    #[test]
    fn a_body_with_two_meanings_or_a_lone_surrogate_is_refused() {
        for bad in [
            r#"{"to":"a","to":"b","body":"x"}"#,
            r#"{"to":"a","body":"\ud800"}"#,
            "{",
            "",
        ] {
            assert_eq!(
                code(request("POST", "/v1/send", &HEADERS, bad)).0,
                400,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_token_never_shows() {
        let headers = [("authorization", "Bearer s3cret")];
        let parsed = request("GET", "/v1/version", &headers, "");
        assert!(!alloc::format!("{parsed:?}").contains("s3cret"));
    }
}

//! One request, one connection, one time limit; and a reader of event streams.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::body::{BodyError, read_body};
use super::url::HttpUrl;
use crate::net::{Connector, Tcp};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }

    #[must_use]
    pub fn of(url: &HttpUrl) -> Self {
        Self::Tcp(url.authority())
    }

    fn host(&self) -> &str {
        match self {
            Self::Tcp(authority) => authority,
            Self::Unix(_) => "localhost",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no answer. Unless it is `Connect`, the request may have been carried out.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("cannot connect to {to}: {error}")]
    Connect { to: String, error: io::Error },
    #[error("no answer within {} s", within.as_secs_f32())]
    TooSlow { within: Duration },
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer could not be read: {0}")]
    Body(#[from] BodyError),
    #[error("the request is malformed: {0}")]
    Malformed(#[from] hyper::http::Error),
    #[error("answered {} instead of an event stream", .0.status)]
    NotEvents(Answered),
}

/// Sends one request and reads its answer, `limit` bytes at most, all `within` the time given. An
/// empty `body` is not sent.
///
/// # Errors
/// See [`CallError`].
pub async fn call(
    target: &Target,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    limit: usize,
    within: Duration,
) -> Result<Answered, CallError> {
    let response = request(target, method, path, headers, body);
    answer(response, limit, within).await
}

/// As [`call`], to `authority` over any network.
///
/// # Errors
/// See [`CallError`].
pub async fn call_through<N: Connector>(
    connector: &N,
    authority: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    limit: usize,
    within: Duration,
) -> Result<Answered, CallError> {
    let response = async {
        let request = build(authority, method, path, headers, body)?;
        send(connect(connector, authority).await?, request).await
    };
    answer(response, limit, within).await
}

/// Opens an event stream; the answer's head has to arrive `within` the time given.
///
/// # Errors
/// See [`CallError`]; another status than 200 is [`CallError::NotEvents`].
pub async fn open_events(
    target: &Target,
    path: &str,
    headers: &[(&str, &str)],
    within: Duration,
) -> Result<EventStream, CallError> {
    let headers = accepting_events(headers);
    let response = request(target, Method::GET, path, &headers, Bytes::new());
    event_stream(response, within).await
}

/// As [`open_events`], from `authority` over any network.
///
/// # Errors
/// See [`open_events`].
pub async fn open_events_through<N: Connector>(
    connector: &N,
    authority: &str,
    path: &str,
    headers: &[(&str, &str)],
    within: Duration,
) -> Result<EventStream, CallError> {
    let headers = accepting_events(headers);
    let response = async {
        let request = build(authority, Method::GET, path, &headers, Bytes::new())?;
        send(connect(connector, authority).await?, request).await
    };
    event_stream(response, within).await
}

const ERROR_BYTES: usize = 64 * 1024;
/// An event longer than this is not one of ours.
const EVENT_BYTES: usize = 4 * 1024 * 1024;

fn accepting_events<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![(ACCEPT.as_str(), "text/event-stream")];
    all.extend_from_slice(headers);
    all
}

async fn event_stream(
    response: impl Future<Output = Result<Response<Incoming>, CallError>>,
    within: Duration,
) -> Result<EventStream, CallError> {
    let exchange = async {
        let response = response.await?;
        if response.status() == StatusCode::OK {
            return Ok(EventStream {
                body: response.into_body(),
                buffer: BytesMut::new(),
            });
        }
        let answered = read_answer(response, ERROR_BYTES, within).await?;
        Err(CallError::NotEvents(answered))
    };
    tokio::time::timeout(within, exchange)
        .await
        .unwrap_or(Err(CallError::TooSlow { within }))
}

/// The reading end of an event stream.
pub struct EventStream {
    body: Incoming,
    buffer: BytesMut,
}

/// One event as it was read. Comments are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadEvent {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
}

impl EventStream {
    /// The next event; `None` at the end of the stream. Cancelling it loses nothing.
    ///
    /// # Errors
    /// If the connection breaks, or an event has no end.
    pub async fn next(&mut self) -> Result<Option<ReadEvent>, CallError> {
        loop {
            while let Some(block) = self.take_block() {
                if let Some(event) = parse(&block) {
                    return Ok(Some(event));
                }
            }
            if self.buffer.len() > EVENT_BYTES {
                return Err(BodyError::TooLarge { limit: EVENT_BYTES }.into());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_block(&mut self) -> Option<Bytes> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block = self.buffer.split_to(end).freeze();
        self.buffer.advance(2);
        Some(block)
    }
}

fn parse(block: &[u8]) -> Option<ReadEvent> {
    let text = String::from_utf8_lossy(block);
    let mut event = ReadEvent::default();
    let mut data: Option<String> = None;
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.event = value.to_owned(),
            "data" => match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.to_owned()),
            },
            _ => {}
        }
    }
    event.data = data?;
    Some(event)
}

async fn request(
    target: &Target,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response<Incoming>, CallError> {
    let request = build(target.host(), method, path, headers, body)?;
    match target {
        Target::Tcp(authority) => send(connect(&Tcp, authority).await?, request).await,
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            let stream = stream.map_err(|error| unreachable(&path.display().to_string(), error));
            send(stream?, request).await
        }
    }
}

async fn connect<N: Connector>(connector: &N, authority: &str) -> Result<N::Stream, CallError> {
    let stream = connector.connect(authority.to_owned()).await;
    stream.map_err(|error| unreachable(authority, error))
}

fn build(
    host: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, CallError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    Ok(request.body(Full::new(body))?)
}

async fn answer(
    response: impl Future<Output = Result<Response<Incoming>, CallError>>,
    limit: usize,
    within: Duration,
) -> Result<Answered, CallError> {
    let exchange = async { read_answer(response.await?, limit, within).await };
    tokio::time::timeout(within, exchange)
        .await
        .unwrap_or(Err(CallError::TooSlow { within }))
}

async fn read_answer(
    response: Response<Incoming>,
    limit: usize,
    within: Duration,
) -> Result<Answered, CallError> {
    let status = response.status();
    let body = read_body(response.into_body(), limit, within).await?;
    Ok(Answered { status, body })
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body, or when it is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    });
    Ok(sender.send_request(request).await?)
}

fn unreachable(to: &str, error: io::Error) -> CallError {
    CallError::Connect {
        to: to.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_events_and_skips_comments() {
        let event = parse(b"id: 4\nevent: message\ndata: {\"a\":1}");
        assert_eq!(
            event,
            Some(ReadEvent {
                id: Some("4".into()),
                event: "message".into(),
                data: "{\"a\":1}".into(),
            })
        );
        assert_eq!(parse(b": still here"), None);
    }
}

//! The daemon's end: dials, shakes hands over HTTP, and runs a client link.

use std::future::Future;
use std::io;
use std::pin::pin;

use bowline_core::id::ConnId;
use bowline_core::link::Down;
use bowline_core::link::client::{Input, Output};
use bowline_core::machine::Machine;
use bowline_core::wire::{Close, HelloCode};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::connection::{Connection, End, Sorted};
use super::socket::Socket;
use super::{CommandQueue, FromBroker, Upstream};
use crate::clock::Clock;
use crate::http::{HttpUrl, UrlError};
use crate::net::Connector;

/// `ws://host[:port]/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsUrl(HttpUrl);

impl WsUrl {
    /// # Errors
    /// If `text` is no such URL. `wss://` is refused by name: TLS ends at a proxy for now.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        HttpUrl::parse_with_scheme(text, "ws", "wss").map(Self)
    }

    /// `host:port`, as a connector wants it.
    #[must_use]
    pub fn authority(&self) -> String {
        self.0.authority()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Url(#[from] UrlError),
    #[error("cannot connect to {to}: {error}")]
    Connect { to: String, error: io::Error },
    #[error("the WebSocket handshake failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the broker answered {0} to the WebSocket handshake")]
    Refused(StatusCode),
    #[error("the other side does not speak WebSocket")]
    NotWebSocket,
}

/// A socket that has shaken hands, for [`run_client_connection`].
pub struct Dialled<S>(Socket<S>);

/// Connects through `connector` and shakes hands. How long this may
/// take is the link's to say: its driver drops the future.
///
/// # Errors
/// If there is no such host, nobody listens, or it does not speak WebSocket.
pub async fn dial<N: Connector>(url: &str, connector: &N) -> Result<Dialled<N::Stream>, DialError> {
    let url = WsUrl::parse(url)?;
    let to = url.authority();
    let stream = connector
        .connect(to.clone())
        .await
        .map_err(|error| DialError::Connect { to, error })?;
    let key = generate_key();
    let request = Request::get(url.0.path())
        .header(HOST, url.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .body(Empty::<Bytes>::new())
        .map_err(|_| UrlError::Malformed)?;

    let (mut sender, http) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the upgrade, or when this future is dropped and `sender` with it.
    tokio::spawn(async move {
        if let Err(error) = http.with_upgrades().await {
            tracing::debug!(%error, "a WebSocket handshake ended early");
        }
    });
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(DialError::Refused(response.status()));
    }
    let accepted = response
        .headers()
        .get(SEC_WEBSOCKET_ACCEPT)
        .is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if !accepted {
        return Err(DialError::NotWebSocket);
    }
    let upgraded = hyper::upgrade::on(response).await?;
    let Ok(parts) = upgraded.downcast::<TokioIo<N::Stream>>() else {
        unreachable!("the stream is the one that the connector gave");
    };
    Ok(Dialled(Socket::new(
        parts.io.into_inner(),
        parts.read_buf.to_vec(),
        Role::Client,
    )))
}

/// Runs `link` from the dial to the end of its connection. `Down` is told exactly once, last.
pub async fn run_client_connection<S, L, C, U>(
    conn: ConnId,
    dial: impl Future<Output = Result<Dialled<S>, DialError>>,
    link: L,
    clock: C,
    commands: CommandQueue,
    upstream: U,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    L: Machine<Input = Input, Output = Output>,
    C: Clock,
    U: Upstream<FromBroker>,
{
    let end = ClientEnd {
        link: std::marker::PhantomData,
        is_down: false,
    };
    let mut connection = Connection::new(end, link, clock, commands, upstream);
    let Some(dialled) = connection.await_dial(dial).await else {
        connection.say_last_word().await;
        return;
    };
    let Dialled(mut socket) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => {
            tracing::debug!(%conn, %error, "the dial failed");
            connection.tell_link(Input::Failed(error.to_string())).await;
            connection.say_last_word().await;
            return;
        }
    };
    connection.tell_link(Input::Connected).await;
    connection.run(&mut socket).await;
}

impl<L, C, U> Connection<ClientEnd<L>, C, U>
where
    L: Machine<Input = Input, Output = Output>,
    C: Clock,
    U: Upstream<FromBroker>,
{
    /// `None`: the link ended first, by its own deadline or because its host hung up.
    async fn await_dial<T>(&mut self, dial: impl Future<Output = T>) -> Option<T> {
        let mut dial = pin!(dial);
        loop {
            if self.is_closing() || self.end.is_down {
                return None;
            }
            let wake = tokio::select! {
                biased;
                dialled = &mut dial => return Some(dialled),
                wake = self.wake_without_socket() => wake,
            };
            self.handle_without_socket(wake).await;
        }
    }
}

struct ClientEnd<L> {
    link: std::marker::PhantomData<fn(L)>,
    is_down: bool,
}

impl<L: Machine<Input = Input, Output = Output>> End for ClientEnd<L> {
    type Link = L;
    type Event = FromBroker;

    fn text(text: Bytes) -> Input {
        Input::Text(text)
    }

    fn alive() -> Input {
        Input::Alive
    }

    fn ping_sent() -> Input {
        Input::PingSent
    }

    /// A broker's; we hear of ours by `hello_ack`.
    fn hello(_: Result<(), HelloCode>) -> Option<Input> {
        None
    }

    fn closed(close: Close) -> Input {
        Input::Closed(close)
    }

    fn sort(&mut self, output: Output) -> Sorted<FromBroker> {
        match output {
            Output::Send(frame) => Sorted::Send(frame),
            Output::Ping => Sorted::Ping,
            Output::Up(ack) => Sorted::Up(FromBroker::Up(ack)),
            Output::Frame(frame) => Sorted::Up(FromBroker::Frame(frame)),
            Output::Close(close) => Sorted::Close(close),
            Output::Down(down) => {
                self.is_down = true;
                Sorted::Up(FromBroker::Down(down))
            }
        }
    }

    /// We dialled it: its frames are let in from the start.
    fn is_greeted(&self) -> bool {
        true
    }

    fn is_over(&self) -> bool {
        self.is_down
    }

    /// A link that closed without saying `Down`; the host must hear it all the same.
    fn last_word(&mut self) -> Option<FromBroker> {
        let said = std::mem::replace(&mut self.is_down, true);
        (!said).then(|| FromBroker::Down(Down::Closed(Close::new(Close::ABNORMAL, ""))))
    }
}

//! The broker's end: an HTTP request becomes a WebSocket, and a server link runs over it.

use bowline_core::id::ConnId;
use bowline_core::link::server::{Input, Output};
use bowline_core::machine::Machine;
use bowline_core::wire::{Close, HelloCode};
use bytes::Bytes;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::connection::{Connection, End, Sorted};
use super::socket::Socket;
use super::{CommandQueue, FromClient, Upstream};
use crate::clock::Clock;
use crate::http::Body;

/// The request was a WebSocket handshake; the socket comes once the response is out.
pub struct Upgrade(OnUpgrade);

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    #[error("this endpoint speaks WebSocket: send an upgrade request")]
    NotAnUpgrade,
    #[error("only WebSocket version 13 is spoken here")]
    Version,
}

/// The response that switches protocols, and the promise of the socket.
///
/// # Errors
/// If the request is not a WebSocket handshake; its answer is 426.
pub fn upgrade<B>(request: &mut Request<B>) -> Result<(Response<Body>, Upgrade), UpgradeError> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket");
    if !asks {
        return Err(UpgradeError::NotAnUpgrade);
    }
    if !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(UpgradeError::Version);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or(UpgradeError::NotAnUpgrade)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|_| UpgradeError::NotAnUpgrade)?;

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, Upgrade(hyper::upgrade::on(request))))
}

/// Runs `link` over the socket until either side closes it. `S` is the stream that the HTTP server
/// accepted. Returns when the socket is gone; a handshake that never became a socket is as if it
/// had not been.
pub async fn run_server_connection<S, L, C, U>(
    conn: ConnId,
    upgrade: Upgrade,
    link: L,
    clock: C,
    commands: CommandQueue,
    upstream: U,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    L: Machine<Input = Input, Output = Output>,
    C: Clock,
    U: Upstream<FromClient>,
{
    let mut socket = match upgrade.socket::<S>().await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%conn, %error, "the client went before its upgrade");
            return;
        }
    };
    socket.admit_hello_only();
    let end = ServerEnd {
        link: std::marker::PhantomData,
        attach: Attach::NotYet,
    };
    Connection::new(end, link, clock, commands, upstream)
        .run(&mut socket)
        .await;
}

impl Upgrade {
    pub(super) async fn socket<S>(self) -> hyper::Result<Socket<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(parts) = self.0.await?.downcast::<TokioIo<S>>() else {
            unreachable!("the HTTP server runs over another stream type than its caller says");
        };
        let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
        Ok(Socket::new(stream, read, Role::Server))
    }
}

struct ServerEnd<L> {
    link: std::marker::PhantomData<fn(L)>,
    attach: Attach,
}

#[derive(PartialEq, Eq)]
enum Attach {
    NotYet,
    Told,
    Over,
}

impl<L: Machine<Input = Input, Output = Output>> End for ServerEnd<L> {
    type Link = L;
    type Event = FromClient;

    fn text(text: Bytes) -> Input {
        Input::Text(text)
    }

    fn alive() -> Input {
        Input::Alive
    }

    fn ping_sent() -> Input {
        Input::PingSent
    }

    fn hello(answer: Result<(), HelloCode>) -> Option<Input> {
        Some(match answer {
            Ok(()) => Input::Attached,
            Err(code) => Input::Refused(code),
        })
    }

    fn closed(_: Close) -> Input {
        Input::Closed
    }

    fn sort(&mut self, output: Output) -> Sorted<FromClient> {
        match output {
            Output::Attach(hello) => {
                self.attach = Attach::Told;
                Sorted::Up(FromClient::Attach(hello))
            }
            Output::Frame(frame) => Sorted::Up(FromClient::Frame(frame)),
            Output::Send(frame) => Sorted::Send(frame),
            Output::Ping => Sorted::Ping,
            Output::Pause => Sorted::Pause,
            Output::Resume => Sorted::Resume,
            Output::Close(close) => Sorted::Close(close),
        }
    }

    fn is_greeted(&self) -> bool {
        self.attach == Attach::Told
    }

    fn is_over(&self) -> bool {
        self.attach == Attach::Over
    }

    fn last_word(&mut self) -> Option<FromClient> {
        let told = std::mem::replace(&mut self.attach, Attach::Over) == Attach::Told;
        told.then_some(FromClient::Closed)
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    })
}

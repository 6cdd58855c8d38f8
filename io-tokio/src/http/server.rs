//! Accepts connections and answers their requests by a closure.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bowline_core::time::Now;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::body::Body;
use crate::clock::Clock;
use crate::net::Listener;

/// Numbers of the transport; the defaults are production's.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Connections at once that have not become a WebSocket. More wait in the kernel.
    pub connections: usize,
    /// From the first byte awaited to the end of a request's headers.
    pub headers_within: Duration,
    /// How long answers under way may go on after a stop.
    pub drain_within: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections: bowline_core::limits::HANDSHAKES,
            headers_within: bowline_core::limits::HELLO_WITHIN,
            drain_within: Duration::from_secs(2),
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// The file system has vouched for it.
    Unix,
}

/// What a handler may know of the connection that a request came over.
#[derive(Clone)]
pub struct ConnInfo {
    pub peer: Peer,
    /// A hello has to arrive within its time counted from here.
    pub accepted_at: Now,
    slot: Arc<std::sync::Mutex<Option<OwnedSemaphorePermit>>>,
}

impl ConnInfo {
    /// This connection is under way no more: it has its peer, or became a stream. Another may come
    /// in its place.
    pub fn release_slot(&self) {
        drop(
            self.slot
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
    }
}

/// A connection's buffers, both ways: longer headers are refused, and an event stream has no more
/// than this between its queue and its socket.
const BUFFER_BYTES: usize = 64 * 1024;
/// Out of file descriptors: one may be free after this.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves; then answers under way get `drain_within`. Connections that became
/// WebSockets are not waited for.
pub async fn serve<L, C, H, F>(
    listener: L,
    clock: C,
    config: ServerConfig,
    handler: H,
    stop: impl Future<Output = ()>,
) where
    L: Listener,
    C: Clock,
    H: Fn(Request<Incoming>, ConnInfo) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(config.connections));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let info = ConnInfo {
            peer,
            accepted_at: clock.now(),
            slot: Arc::new(std::sync::Mutex::new(Some(slot))),
        };
        let headers_within = config.headers_within;
        connections.spawn(converse(
            stream,
            info,
            headers_within,
            handler.clone(),
            stopped.clone(),
        ));
    }
    drop(listener);
    stopping.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain_within, drained)
        .await
        .is_err()
    {
        tracing::debug!(
            left = connections.len(),
            "requests were cut off by the stop"
        );
    }
}

async fn accept<L: Listener>(
    listener: &L,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(L::Stream, Peer, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn converse<S, H, F>(
    stream: S,
    info: ConnInfo,
    headers_within: Duration,
    handler: H,
    mut stopped: watch::Receiver<bool>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, ConnInfo) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request, info.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn until(stopped: &mut watch::Receiver<bool>) {
    // An error: the server is gone, which is a stop too.
    let _gone = stopped.wait_for(|stopped| *stopped).await.is_err();
}

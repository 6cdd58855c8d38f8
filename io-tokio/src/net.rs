//! Listening and connecting: TCP and Unix sockets.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::http::Peer;

/// Where connections come from; turmoil brings its own.
pub trait Listener: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // Frames are whole when they are written: waiting for more only delays them. A socket that
        // refuses is about to fail anyway.
        let _refused = stream.set_nodelay(true);
        Ok((stream, Peer::Tcp(address)))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, Peer::Unix))
    }
}

/// How a stream is opened to `authority`, which is `host:port`; turmoil brings its own.
pub trait Connector: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// # Errors
    /// If the name does not resolve or nobody listens.
    fn connect(&self, authority: String) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The connector of production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connector for Tcp {
    type Stream = TcpStream;

    async fn connect(&self, authority: String) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(authority).await?;
        let _refused = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// Listens on a Unix socket that only this user may open. A socket file that nobody answers is left
/// over from a crash and is replaced.
///
/// # Errors
/// `AddrInUse` if somebody answers there; else what the operating system says.
pub async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path).await {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
        }
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

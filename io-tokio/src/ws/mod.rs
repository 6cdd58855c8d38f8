//! WebSocket connections: one task each, running a link of the core over a socket.
//!
//! Towards the machine (mesh or host) a connection is a [`Commands`] handle, which never blocks,
//! and an [`Upstream`], which the task awaits: a peer that stops reading, or a machine that is
//! busy, holds up this task and nobody else.

mod client;
mod connection;
#[cfg(feature = "echo")]
pub mod echo;
mod server;
mod socket;

pub use client::{DialError, WsUrl, dial, run_client_connection};
pub use connection::CLOSE_WITHIN;
pub use server::{Upgrade, UpgradeError, run_server_connection, upgrade};

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline_core::id::ConnId;
use bowline_core::link::{Down, VerifiedHello};
use bowline_core::wire::broker::HelloAck;
use bowline_core::wire::{BrokerFrame, ClientFrame, Close, HelloCode};
use bytes::Bytes;
use tokio::sync::mpsc;

/// A connection id that this process never gave before. For accepted connections; a host names
/// those that it dials itself.
#[must_use]
pub fn next_conn_id() -> ConnId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    ConnId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
}

/// What a machine tells a connection, in order.
#[derive(Debug)]
pub(crate) enum Command {
    /// The hello was taken, or why not.
    Hello(Result<(), HelloCode>),
    Send(Bytes),
    Close(Close),
    Pause,
    Resume,
}

/// The machine's end of a connection. Nothing here waits or fails: a connection that is gone has
/// said so, or is about to.
///
/// The queue behind it is unbounded here because the core bounds it: it learns by `sent` what was
/// taken, and cuts off a consumer for whom too much is queued.
#[derive(Clone, Debug)]
pub struct Commands(mpsc::UnboundedSender<Command>);

impl Commands {
    /// The mesh took the hello.
    pub fn attached(&self) {
        self.tell(Command::Hello(Ok(())));
    }

    /// Nobody here takes the hello. A mesh that refuses says so itself.
    pub fn refused(&self, code: HelloCode) {
        self.tell(Command::Hello(Err(code)));
    }

    pub fn send(&self, frame: Bytes) {
        self.tell(Command::Send(frame));
    }

    /// Last: what was sent before is flushed first, as far as [`CLOSE_WITHIN`] allows.
    pub fn close(&self, close: Close) {
        self.tell(Command::Close(close));
    }

    /// Stops reading from the socket.
    pub fn pause(&self) {
        self.tell(Command::Pause);
    }

    pub fn resume(&self) {
        self.tell(Command::Resume);
    }

    fn tell(&self, command: Command) {
        let _gone = self.0.send(command);
    }
}

/// The connection's end of its [`Commands`].
#[derive(Debug)]
pub struct CommandQueue(mpsc::UnboundedReceiver<Command>);

#[must_use]
pub fn commands() -> (Commands, CommandQueue) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Commands(sender), CommandQueue(receiver))
}

/// The way from a connection to its machine.
pub trait Upstream<E>: Send {
    /// In order. May wait: nothing more is read from the socket meanwhile.
    fn deliver(&mut self, event: E) -> impl Future<Output = ()> + Send;

    /// So many bytes of frames that came by [`Commands::send`] were handed to the operating
    /// system. Must not block.
    fn sent(&mut self, bytes: u64);
}

/// What a broker's connection tells its mesh.
#[derive(Debug)]
pub enum FromClient {
    /// First.
    Attach(Box<VerifiedHello>),
    Frame(ClientFrame),
    /// Last, exactly once if there was an `Attach`; else never.
    Closed,
}

/// What a daemon's connection tells its host.
#[derive(Debug)]
pub enum FromBroker {
    Up(Box<HelloAck>),
    Frame(BrokerFrame),
    /// Last, exactly once.
    Down(Down),
}

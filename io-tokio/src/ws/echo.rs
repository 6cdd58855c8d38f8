//! A WebSocket that gives back what it is told: the connection, socket and closing handshake that
//! production runs, under a link without a protocol of its own. For conformance suites.

use bowline_core::machine::{Machine, Outbox, Timeout};
use bowline_core::time::Now;
use bowline_core::wire::{Close, HelloCode};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, End, Sorted};
use super::{Upgrade, Upstream, commands};
use crate::clock::Clock;

/// The largest message of the suites.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Echoes texts and binary messages until either side closes.
///
/// # Errors
/// If the client went before its upgrade.
pub async fn run_echo<S>(upgrade: Upgrade, clock: impl Clock) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut socket = upgrade.socket::<S>().await?;
    socket.admit(MESSAGE_BYTES);
    // Held to the end: a connection whose machine is gone closes.
    let (_machine, queue) = commands();
    Connection::new(EchoEnd, Echo::default(), clock, queue, Nobody)
        .run(&mut socket)
        .await;
    Ok(())
}

struct EchoEnd;

#[derive(Default)]
struct Echo(Outbox<Message>);

#[derive(Clone)]
enum Message {
    Text(Bytes),
    Binary(Bytes),
}

struct Nobody;

impl Upstream<()> for Nobody {
    async fn deliver(&mut self, (): ()) {}

    fn sent(&mut self, _: u64) {}
}

impl Machine for Echo {
    type Input = Option<Message>;
    type Output = Message;
    type Why = ();

    fn handle_input(&mut self, _: Now, input: Option<Message>) {
        if let Some(message) = input {
            self.0.push(message);
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_output(&mut self) -> Option<Message> {
        self.0.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<()>> {
        None
    }
}

impl End for EchoEnd {
    type Link = Echo;
    type Event = ();

    fn text(text: Bytes) -> Option<Message> {
        Some(Message::Text(text))
    }

    fn binary(bytes: Bytes) -> Option<Message> {
        Some(Message::Binary(bytes))
    }

    fn alive() -> Option<Message> {
        None
    }

    fn ping_sent() -> Option<Message> {
        None
    }

    fn hello(_: Result<(), HelloCode>) -> Option<Option<Message>> {
        None
    }

    fn closed(_: Close) -> Option<Message> {
        None
    }

    fn sort(&mut self, message: Message) -> Sorted<()> {
        match message {
            Message::Text(text) => Sorted::Send(text),
            Message::Binary(bytes) => Sorted::SendBinary(bytes),
        }
    }

    /// Its sizes are set once.
    fn is_greeted(&self) -> bool {
        false
    }

    fn is_over(&self) -> bool {
        false
    }

    fn last_word(&mut self) -> Option<()> {
        None
    }
}

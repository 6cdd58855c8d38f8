//! One connection: socket, link, machine, and the loop between them.
//!
//! The loop is the drive loop with a socket in it: commands, writes, reads, one timer; then the
//! link's outputs are carried out, and only then does it wait again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline_core::machine::Machine;
use bowline_core::wire::{Close, HelloCode};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::socket::{Incoming, Socket, WRITE_BUFFER_BYTES, close_message};
use super::{Command, CommandQueue, Upstream};
use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::drive::{assert_nothing_due, deadline};

/// A closing handshake gets this long: to flush what is queued and the close frame, and to hear
/// the other side's. Hygiene of the socket, not a decision: the link has ended before it begins.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Which end of the wire a link is: how its inputs are made and its outputs are sorted.
pub(super) trait End {
    type Link: Machine;
    type Event;

    fn text(text: Bytes) -> Input<Self>;
    fn alive() -> Input<Self>;
    /// No frame of ours is binary: a sign of life.
    fn binary(_: Bytes) -> Input<Self> {
        Self::alive()
    }
    fn ping_sent() -> Input<Self>;
    fn hello(answer: Result<(), HelloCode>) -> Option<Input<Self>>;
    fn closed(close: Close) -> Input<Self>;

    fn sort(&mut self, output: <Self::Link as Machine>::Output) -> Sorted<Self::Event>;

    /// The handshake is behind us: larger frames are let in.
    fn is_greeted(&self) -> bool;

    /// The link has said its last.
    fn is_over(&self) -> bool;

    /// What the machine must still hear, given that the link says nothing more.
    fn last_word(&mut self) -> Option<Self::Event>;
}

type Input<E> = <<E as End>::Link as Machine>::Input;

pub(super) enum Sorted<E> {
    Up(E),
    Send(Bytes),
    #[cfg(feature = "echo")]
    SendBinary(Bytes),
    Ping,
    Pause,
    Resume,
    Close(Close),
}

pub(super) struct Connection<E: End, C, U> {
    pub(super) end: E,
    pub(super) link: E::Link,
    pub(super) clock: C,
    pub(super) alarm: Alarm<C>,
    pub(super) commands: CommandQueue,
    pub(super) upstream: U,
    /// Frames and pings that have not yet found room in the socket's buffer.
    queue: VecDeque<Queued>,
    /// What stands in the socket's buffer, to be reported when it is flushed.
    buffered: Flushed,
    paused_by_link: bool,
    paused_by_machine: bool,
    closing: Option<Close>,
    told_closed: bool,
    /// What the other side sends cannot be read as frames any more.
    broken: bool,
}

enum Queued {
    /// Of the machine: counts as sent.
    OfMachine(Bytes),
    /// Of the link itself.
    OfLink(Bytes),
    #[cfg(feature = "echo")]
    Binary(Bytes),
    Ping,
}

#[derive(Clone, Copy, Default)]
struct Flushed {
    /// Of the machine's frames.
    bytes: u64,
    pings: u32,
    /// All that was written, as far as it matters for coalescing.
    held: usize,
}

pub(super) struct WakeWithoutSocket {
    command: Option<Command>,
    due: bool,
}

/// Why the loop woke. Any of them may be set.
#[derive(Default)]
struct Wake {
    command: Option<Command>,
    flushed: Option<Flushed>,
    incoming: Option<Incoming>,
    due: bool,
    unwritable: bool,
}

impl<E, C, U> Connection<E, C, U>
where
    E: End,
    C: Clock,
    U: Upstream<E::Event>,
{
    pub(super) fn new(
        end: E,
        link: E::Link,
        clock: C,
        commands: CommandQueue,
        upstream: U,
    ) -> Self {
        Self {
            end,
            link,
            alarm: Alarm::new(clock.clone()),
            clock,
            commands,
            upstream,
            queue: VecDeque::new(),
            buffered: Flushed::default(),
            paused_by_link: false,
            paused_by_machine: false,
            closing: None,
            told_closed: false,
            broken: false,
        }
    }

    /// Runs until the socket is closed by either side.
    pub(super) async fn run<S>(&mut self, socket: &mut Socket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut greeted = false;
        self.settle().await;
        while self.closing.is_none() {
            if !greeted && self.end.is_greeted() {
                greeted = true;
                socket.admit_frames();
            }
            let wake = poll_fn(|cx| self.poll_wake(cx, socket)).await;
            if let Some(flushed) = wake.flushed {
                self.report(flushed).await;
            }
            if let Some(command) = wake.command {
                self.obey(command).await;
            }
            // What comes in behind a close is nobody's.
            let incoming = wake.incoming.filter(|_| self.closing.is_none());
            if let Some(incoming) = incoming
                && !self.take(incoming).await
            {
                break;
            }
            if wake.due {
                self.expire().await;
            }
            if wake.unwritable {
                self.read_out(socket).await;
                break;
            }
        }
        self.say_last_word().await;
        self.hang_up(socket).await;
    }

    /// One look at everything that can happen.
    fn poll_wake<S>(&mut self, cx: &mut Context<'_>, socket: &mut Socket<S>) -> Poll<Wake>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut wake = Wake::default();
        let mut awake = self.poll_commands(cx, &mut wake);
        awake |= self.poll_write(cx, socket, &mut wake);
        if !self.is_paused()
            && !wake.unwritable
            && let Poll::Ready(incoming) = socket.poll_read(cx)
        {
            wake.incoming = Some(incoming);
            awake = true;
        }
        if self.alarm.poll_due(cx, deadline(&self.link)).is_ready() {
            wake.due = true;
            awake = true;
        }
        if awake {
            Poll::Ready(wake)
        } else {
            Poll::Pending
        }
    }

    /// Frames go straight to the queue; the first other command is handed out.
    fn poll_commands(&mut self, cx: &mut Context<'_>, wake: &mut Wake) -> bool {
        while let Poll::Ready(command) = self.commands.0.poll_recv(cx) {
            match command {
                Some(Command::Send(frame)) => self.queue.push_back(Queued::OfMachine(frame)),
                Some(command) => {
                    wake.command = Some(command);
                    return true;
                }
                // Nobody is left who could speak to this connection.
                None => {
                    wake.command = Some(Command::Close(Close::new(Close::GOING_AWAY, "stopping")));
                    return true;
                }
            }
        }
        false
    }

    /// Feeds many, flushes once.
    fn poll_write<S>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket<S>,
        wake: &mut Wake,
    ) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while self.buffered.held < WRITE_BUFFER_BYTES {
            let Some(next) = self.queue.pop_front() else {
                break;
            };
            self.buffered.count(&next);
            if socket.write(cx, next.into_message()).is_err() {
                wake.unwritable = true;
                return true;
            }
        }
        if !socket.has_unflushed() {
            return false;
        }
        match socket.poll_flush(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                wake.flushed = Some(std::mem::take(&mut self.buffered));
                true
            }
            Poll::Ready(Err(_)) => {
                wake.unwritable = true;
                true
            }
        }
    }

    async fn report(&mut self, flushed: Flushed) {
        if flushed.bytes > 0 {
            self.upstream.sent(flushed.bytes);
        }
        for _ in 0..flushed.pings {
            self.feed(E::ping_sent()).await;
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Hello(answer) => {
                if let Some(input) = E::hello(answer) {
                    self.feed(input).await;
                }
            }
            Command::Send(frame) => self.queue.push_back(Queued::OfMachine(frame)),
            Command::Pause => self.paused_by_machine = true,
            Command::Resume => self.paused_by_machine = false,
            Command::Close(close) => self.close(close).await,
        }
    }

    /// False: the socket is gone.
    async fn take(&mut self, incoming: Incoming) -> bool {
        match incoming {
            Incoming::Text(text) => self.feed(E::text(text)).await,
            Incoming::Binary(bytes) => self.feed(E::binary(bytes)).await,
            Incoming::Alive => self.feed(E::alive()).await,
            Incoming::Broken(close) => {
                self.broken = true;
                self.close(close).await;
            }
            // The reply is queued in the socket; hanging up flushes it.
            Incoming::Close(close) => {
                self.lost(close).await;
                return false;
            }
            Incoming::Gone => {
                self.lost(Close::new(Close::ABNORMAL, "")).await;
                return false;
            }
        }
        true
    }

    /// The stream takes no more bytes, but what had come in before, a close frame perhaps, counts.
    async fn read_out<S>(&mut self, socket: &mut Socket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while self.closing.is_none() && !self.is_paused() {
            let next = poll_fn(|cx| {
                Poll::Ready(match socket.poll_read(cx) {
                    Poll::Ready(incoming) => incoming,
                    Poll::Pending => Incoming::Gone,
                })
            });
            let next = next.await;
            if !self.take(next).await {
                return;
            }
        }
        self.lost(Close::new(Close::ABNORMAL, "")).await;
    }

    fn is_paused(&self) -> bool {
        self.paused_by_link || self.paused_by_machine
    }

    /// Not the link's own doing: it hears of it.
    async fn close(&mut self, close: Close) {
        self.tell_closed(close.clone()).await;
        self.closing = Some(close);
    }

    /// There is nobody to say a close to.
    async fn lost(&mut self, close: Close) {
        self.tell_closed(close).await;
        self.closing = None;
    }

    /// The link hears once that its socket goes, also where it closed it itself.
    async fn tell_closed(&mut self, close: Close) {
        if !std::mem::replace(&mut self.told_closed, true) && !self.end.is_over() {
            self.feed(E::closed(close)).await;
        }
    }

    async fn expire(&mut self) {
        let now = self.clock.now();
        if deadline(&self.link).is_none_or(|at| at > now.mono) {
            return;
        }
        self.link.handle_timeout(now);
        self.settle().await;
        assert_nothing_due(&self.link, now.mono);
    }

    async fn feed(&mut self, input: Input<E>) {
        self.link.handle_input(self.clock.now(), input);
        self.settle().await;
    }

    /// Carries out what the link says, to the end.
    async fn settle(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match self.end.sort(output) {
                Sorted::Up(event) => self.upstream.deliver(event).await,
                Sorted::Send(frame) => self.queue.push_back(Queued::OfLink(frame)),
                #[cfg(feature = "echo")]
                Sorted::SendBinary(bytes) => self.queue.push_back(Queued::Binary(bytes)),
                Sorted::Ping => self.queue.push_back(Queued::Ping),
                Sorted::Pause => self.paused_by_link = true,
                Sorted::Resume => self.paused_by_link = false,
                Sorted::Close(close) => {
                    self.closing.get_or_insert(close);
                }
            }
        }
    }

    pub(super) async fn say_last_word(&mut self) {
        if let Some(close) = self.closing.clone() {
            self.tell_closed(close).await;
        }
        if let Some(event) = self.end.last_word() {
            self.upstream.deliver(event).await;
        }
    }

    /// Flushes what is queued and the close frame, and waits for the other side's, all within
    /// [`CLOSE_WITHIN`].
    async fn hang_up<S>(&mut self, socket: &mut Socket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut close = self.closing.take().map(|close| close_message(&close));
        if close.is_none() && !socket.has_unflushed() {
            return;
        }
        let mut incoming = if self.broken {
            Listening::ForEnd
        } else {
            Listening::ForClose
        };
        if close.is_none() {
            // The other side closed, or is gone: only the reply is left to be flushed.
            self.queue.clear();
            incoming = Listening::Done;
        }
        let farewell = poll_fn(|cx| {
            incoming.poll(cx, socket);
            loop {
                let next = match self.queue.pop_front() {
                    Some(queued) => queued.into_message(),
                    None => match close.take() {
                        Some(close) => close,
                        None => break,
                    },
                };
                if socket.write(cx, next).is_err() {
                    return Poll::Ready(());
                }
            }
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) if incoming.is_done() => Poll::Ready(()),
                // It cannot be heard closing: so it is told that nothing more comes from us.
                Poll::Ready(Ok(())) if incoming == Listening::ForEnd => {
                    socket.poll_no_more(cx);
                    Poll::Pending
                }
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(()),
            }
        });
        // Out of time: the socket is dropped as it is.
        let _out_of_time = tokio::time::timeout(CLOSE_WITHIN, farewell).await;
    }

    /// The link alone, while there is no socket yet: wakes at its next deadline, or when the
    /// machine wants it closed. Cancelling it loses nothing.
    pub(super) async fn wake_without_socket(&mut self) -> WakeWithoutSocket {
        poll_fn(|cx| {
            let mut wake = Wake::default();
            let commanded = self.poll_commands(cx, &mut wake);
            wake.due = self.alarm.poll_due(cx, deadline(&self.link)).is_ready();
            if commanded || wake.due {
                Poll::Ready(WakeWithoutSocket {
                    command: wake.command,
                    due: wake.due,
                })
            } else {
                Poll::Pending
            }
        })
        .await
    }

    pub(super) async fn handle_without_socket(&mut self, wake: WakeWithoutSocket) {
        if let Some(command) = wake.command {
            self.obey(command).await;
        }
        if wake.due {
            self.expire().await;
        }
    }

    pub(super) async fn tell_link(&mut self, input: Input<E>) {
        self.feed(input).await;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }
}

/// What is listened for while hanging up: unread bytes would turn our close into a reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listening {
    ForClose,
    /// It broke the protocol: there are no frames to find in what it sends.
    ForEnd,
    Done,
}

impl Listening {
    fn poll<S>(&mut self, cx: &mut Context<'_>, socket: &mut Socket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while *self == Self::ForClose {
            match socket.poll_read(cx) {
                Poll::Pending => return,
                Poll::Ready(Incoming::Text(_) | Incoming::Binary(_) | Incoming::Alive) => {}
                Poll::Ready(Incoming::Broken(_)) => *self = Self::ForEnd,
                Poll::Ready(Incoming::Close(_) | Incoming::Gone) => *self = Self::Done,
            }
        }
        if *self == Self::ForEnd && socket.poll_discard(cx).is_ready() {
            *self = Self::Done;
        }
    }

    fn is_done(self) -> bool {
        self == Self::Done
    }
}

impl Flushed {
    fn count(&mut self, queued: &Queued) {
        match queued {
            Queued::OfMachine(frame) => {
                self.bytes += frame.len() as u64;
                self.held += frame.len();
            }
            Queued::OfLink(frame) => self.held += frame.len(),
            #[cfg(feature = "echo")]
            Queued::Binary(bytes) => self.held += bytes.len(),
            Queued::Ping => self.pings += 1,
        }
    }
}

impl Queued {
    fn into_message(self) -> Message {
        match self {
            // The bytes are shared with every other recipient; only their encoding is checked.
            Self::OfMachine(frame) | Self::OfLink(frame) => match Utf8Bytes::try_from(frame) {
                Ok(text) => Message::Text(text),
                Err(error) => unreachable!("a frame of ours is not utf-8: {error}"),
            },
            #[cfg(feature = "echo")]
            Self::Binary(bytes) => Message::Binary(bytes),
            Self::Ping => Message::Ping(Bytes::new()),
        }
    }
}

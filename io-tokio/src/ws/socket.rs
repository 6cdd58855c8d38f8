//! A WebSocket over any byte stream, as poll functions of one task.
//!
//! The protocol is tungstenite's; the stream is lent to it for the length of one poll. One task
//! reads and writes, so one waker is enough.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bowline_core::limits::{FRAME_BYTES, HELLO_FRAME_BYTES};
use bowline_core::wire::Close;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Message, Role, WebSocketConfig, WebSocketContext,
};

/// Read from the stream at once; a frame larger than this makes the buffer grow while it is read.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are collected up to this before they are handed to the stream.
pub(super) const WRITE_BUFFER_BYTES: usize = 16 * 1024;

pub(super) struct Socket<S> {
    io: S,
    protocol: WebSocketContext,
    /// Bytes may wait in the protocol's buffer: frames of ours, a pong, a close reply.
    unflushed: bool,
}

/// What came in.
pub(super) enum Incoming {
    Text(Bytes),
    Binary(Bytes),
    /// Ping or pong.
    Alive,
    /// The other side's close frame; the reply is queued.
    Close(Close),
    /// No close frame: end of stream, reset, or an I/O error.
    Gone,
    /// It broke the protocol or a limit: to be told this.
    Broken(Close),
}

/// The stream does not take bytes any more.
pub(super) struct Unwritable;

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `already_read` are bytes behind the HTTP handshake.
    pub(super) fn new(io: S, already_read: Vec<u8>, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES);
        let mut socket = Self {
            io,
            protocol: WebSocketContext::from_partially_read(already_read, role, Some(config)),
            unflushed: false,
        };
        socket.admit(FRAME_BYTES);
        socket
    }

    /// Before the handshake nobody has earned much of our memory.
    pub(super) fn admit_hello_only(&mut self) {
        self.admit(HELLO_FRAME_BYTES);
    }

    pub(super) fn admit_frames(&mut self) {
        self.admit(FRAME_BYTES);
    }

    pub(super) fn admit(&mut self, bytes: usize) {
        self.protocol.set_config(|config| {
            config.max_message_size = Some(bytes);
            config.max_frame_size = Some(bytes);
        });
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let mut lent = Lent {
            io: &mut self.io,
            cx,
        };
        let incoming = match self.protocol.read(&mut lent) {
            Ok(Message::Text(text)) => Incoming::Text(text.into()),
            Ok(Message::Ping(_)) => {
                self.unflushed = true;
                Incoming::Alive
            }
            Ok(Message::Binary(bytes)) => Incoming::Binary(bytes),
            Ok(Message::Pong(_) | Message::Frame(_)) => Incoming::Alive,
            Ok(Message::Close(frame)) => {
                self.unflushed = true;
                Incoming::Close(frame.map_or_else(no_status, |frame| {
                    Close::new(frame.code.into(), &frame.reason)
                }))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Poll::Pending;
            }
            Err(Error::Capacity(_)) => {
                Incoming::Broken(Close::new(Close::TOO_BIG, "message_too_big"))
            }
            Err(Error::Utf8(_)) => Incoming::Broken(Close::new(NOT_UTF8, "text is not utf-8")),
            Err(Error::Protocol(error)) if !is_reset(&error) => {
                Incoming::Broken(Close::new(PROTOCOL_ERROR, &error.to_string()))
            }
            Err(_) => Incoming::Gone,
        };
        Poll::Ready(incoming)
    }

    /// Puts a message into the buffer, and what does not fit there into the stream.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        message: Message,
    ) -> Result<(), Unwritable> {
        let mut lent = Lent {
            io: &mut self.io,
            cx,
        };
        self.unflushed = true;
        match self.protocol.write(&mut lent, message) {
            Ok(()) => Ok(()),
            // Taken all the same; the next flush goes on with it.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Unwritable),
        }
    }

    /// Ready when everything written so far was handed to the stream.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwritable>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let mut lent = Lent {
            io: &mut self.io,
            cx,
        };
        match self.protocol.flush(&mut lent) {
            // A server's side ends here, once the close frames are exchanged and written.
            Ok(()) | Err(Error::ConnectionClosed) => {
                self.unflushed = false;
                Poll::Ready(Ok(()))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(_) => Poll::Ready(Err(Unwritable)),
        }
    }

    pub(super) fn has_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Tells the other side that nothing more comes. Where that fails the stream is at its end.
    pub(super) fn poll_no_more(&mut self, cx: &mut Context<'_>) {
        let _at_its_end = Pin::new(&mut self.io).poll_shutdown(cx);
    }

    /// Throws away what still comes in; ready at the end of the stream. Once the protocol is broken
    /// this is the only way to read: tungstenite would collect the whole of a message too long.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

pub(super) fn close_message(close: &Close) -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::from(close.code),
        reason: close.reason.as_str().into(),
    }))
}

const PROTOCOL_ERROR: u16 = 1002;
const NO_STATUS: u16 = 1005;
const NOT_UTF8: u16 = 1007;

/// A close frame without a code; never travels.
fn no_status() -> Close {
    Close::new(NO_STATUS, "")
}

fn is_reset(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, ProtocolError::ResetWithoutClosingHandshake)
}

/// A stream as tungstenite wants it: blocking calls that would block say so.
struct Lent<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncRead + Unpin> Read for Lent<'_, '_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buffer) {
            Poll::Ready(Ok(())) => Ok(buffer.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Lent<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ready_or_would_block(Pin::new(&mut *self.io).poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        ready_or_would_block(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

fn ready_or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

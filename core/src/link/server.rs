//! The broker's end of a connection.

use alloc::boxed::Box;

use bytes::Bytes;

use super::VerifiedHello;
use crate::wire::{ClientFrame, Close};

#[derive(Debug)]
pub enum Input {
    /// A text message, at most [`crate::limits::FRAME_BYTES`] long.
    Text(Bytes),
    /// Any other sign of life: ping, pong, a binary message.
    Alive,
    /// Our ping was handed to the socket: the time for its pong begins.
    PingSent,
    /// The mesh took the hello: frames held since flow on.
    Attached,
    /// The socket is gone, or is being closed by the mesh. Nothing comes out after this.
    Closed,
}

#[derive(Debug)]
pub enum Output {
    /// To the mesh, first.
    Attach(Box<VerifiedHello>),
    /// To the mesh, in order.
    Frame(ClientFrame),
    /// To the socket: an error or a pong of the link's own.
    Send(Bytes),
    Ping,
    /// Stop and start reading from the socket.
    Pause,
    Resume,
    /// To the socket, last. The mesh, if it was told of an attach, is told `Closed` by the driver.
    Close(Close),
}

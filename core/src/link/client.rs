//! The daemon's end of a connection.

use alloc::boxed::Box;

use bytes::Bytes;

use super::Down;
use crate::wire::{BrokerFrame, Close, broker::HelloAck};

#[derive(Debug)]
pub enum Input {
    /// The WebSocket is open: say hello.
    Connected,
    /// The dial failed.
    Failed(alloc::string::String),
    Text(Bytes),
    /// Any other sign of life: ping, pong, a binary message.
    Alive,
    /// Our ping was handed to the socket: the time for its pong begins.
    PingSent,
    /// The socket is gone; without a close frame it is [`Close::ABNORMAL`].
    Closed(Close),
}

#[derive(Debug)]
pub enum Output {
    /// To the socket.
    Send(Bytes),
    Ping,
    /// To the host: the hello was taken.
    Up(Box<HelloAck>),
    /// To the host, in order.
    Frame(BrokerFrame),
    /// To the socket, last.
    Close(Close),
    /// To the host, last, exactly once: whether it was up or not.
    Down(Down),
}

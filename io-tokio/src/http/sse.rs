//! Server-sent events: a body fed through a channel.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use super::body::Body;

/// One event. `data` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseFrame {
    pub id: Option<u64>,
    pub event: &'static str,
    pub data: Bytes,
}

/// The stream has no reader any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event stream is gone")]
pub struct EventsGone;

/// Feeds one event stream; dropping it ends the stream after what was sent.
///
/// The queue behind it is unbounded here because the core bounds it: it learns by `on_taken` what
/// was taken, and ends a stream that falls behind.
#[derive(Clone, Debug)]
pub struct EventSender(mpsc::UnboundedSender<Bytes>);

impl EventSender {
    /// # Errors
    /// If the reader is gone; `on_gone` was or will be called.
    pub fn send(&self, frame: &SseFrame) -> Result<(), EventsGone> {
        self.0.send(encode(frame)).map_err(|_| EventsGone)
    }
}

/// An answer that streams events.
///
/// `on_taken` hears how many events were handed to the connection's write buffer, which holds 64 KiB
/// at most; `on_gone` hears once that the stream is over, whoever ended it. Neither may block.
#[must_use]
pub fn events(
    on_taken: impl FnMut(usize) + Send + 'static,
    on_gone: impl FnOnce() + Send + 'static,
) -> (EventSender, Response<Body>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = EventBody {
        receiver,
        on_taken: Box::new(on_taken),
        on_gone: Some(Box::new(on_gone)),
    };
    let mut response = Response::new(Body::events(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (EventSender(sender), response)
}

pub(super) struct EventBody {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    on_taken: Box<dyn FnMut(usize) + Send>,
    on_gone: Option<Box<dyn FnOnce() + Send>>,
}

impl EventBody {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(_)) = next {
            (self.on_taken)(1);
        }
        next
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        if let Some(on_gone) = self.on_gone.take() {
            on_gone();
        }
    }
}

fn encode(frame: &SseFrame) -> Bytes {
    debug_assert!(!frame.data.contains(&b'\n'), "data is one line");
    let mut bytes = BytesMut::with_capacity(frame.data.len() + 64);
    if let Some(id) = frame.id {
        bytes.put_slice(format!("id: {id}\n").as_bytes());
    }
    bytes.put_slice(b"event: ");
    bytes.put_slice(frame.event.as_bytes());
    bytes.put_slice(b"\ndata: ");
    bytes.put_slice(&frame.data);
    bytes.put_slice(b"\n\n");
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_the_standard_has_it() {
        let frame = SseFrame {
            id: Some(7),
            event: "message",
            data: Bytes::from_static(b"{}"),
        };
        assert_eq!(&encode(&frame)[..], b"id: 7\nevent: message\ndata: {}\n\n");
    }
}

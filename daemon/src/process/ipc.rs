//! The IPC's end in the process: HTTP requests in, answers and event streams out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_core::host::io::{Input, SseEvent};
use bowline_core::host::ipc::{
    Answer, BODY_BYTES, Call, HttpRequest, Parsed, Request as Asked, Subscribe, parse,
};
use bowline_core::id::{RequestId, SubscriberId};
use bowline_core::limits::HELLO_WITHIN;
use bowline_io::drive::Inputs;
use bowline_io::http::{
    Body, BodyError, ConnInfo, EventSender, Peer, SseFrame, events, json, read_body,
};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

#[derive(Clone)]
pub(super) struct Ipc {
    inputs: Inputs<Input>,
    answers: Answers,
    last: Arc<AtomicU64>,
}

/// Where the host's answers and events go.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    requests: HashMap<RequestId, oneshot::Sender<Answer>>,
    streams: HashMap<SubscriberId, Stream>,
}

struct Stream {
    sender: EventSender,
    /// Until the host has granted it, which its first event says.
    granted: Option<oneshot::Sender<Result<(), Answer>>>,
}

impl Ipc {
    pub(super) fn new(inputs: Inputs<Input>) -> Self {
        Self {
            inputs,
            answers: Answers::default(),
            last: Arc::default(),
        }
    }

    pub(super) fn answers(&self) -> Answers {
        self.answers.clone()
    }

    pub(super) async fn answer(self, request: Request<Incoming>, info: ConnInfo) -> Response<Body> {
        let (head, body) = request.into_parts();
        // One byte more than the core takes, so that the core says that it is too long.
        let body = match read_body(body, BODY_BYTES + 1, HELLO_WITHIN).await {
            Ok(body) => body,
            Err(error) => return unreadable(error),
        };
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let parsed = parse(&HttpRequest {
            unix: info.peer == Peer::Unix,
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query(),
            header: &header,
            body: &body,
        });
        match parsed {
            Ok(Parsed::Call(call)) => self.call(call).await,
            Ok(Parsed::Subscribe(subscribe)) => {
                // It stays for long; how many may is the host's to say.
                info.release_slot();
                self.subscribe(subscribe).await
            }
            Err(answer) => told(&answer),
        }
    }

    async fn call(self, call: Call) -> Response<Body> {
        let request = RequestId(self.next());
        let is_metrics = matches!(call.request, Asked::Metrics);
        let (answer, answered) = oneshot::channel();
        self.answers.lock().requests.insert(request, answer);
        let call = Box::new(call);
        // A host that has ended drops the answer's sender.
        let _ended = self.inputs.offer(Input::Ipc { request, call }).await;
        let Ok(answer) = answered.await else {
            return gone();
        };
        match answer.body["text"].as_str() {
            Some(text) if is_metrics => metrics(text),
            _ => told(&answer),
        }
    }

    async fn subscribe(self, subscribe: Subscribe) -> Response<Body> {
        let subscriber = SubscriberId(self.next());
        let taken = self.inputs.clone();
        let over = self.inputs.clone();
        let streams = self.answers.clone();
        let (sender, response) = events(
            move |events| taken.tell(Input::SubscriberSent { subscriber, events }),
            move || {
                streams.lock().streams.remove(&subscriber);
                over.tell(Input::Unsubscribed { subscriber });
            },
        );
        let (granted, answered) = oneshot::channel();
        let stream = Stream {
            sender,
            granted: Some(granted),
        };
        self.answers.lock().streams.insert(subscriber, stream);
        let subscribe = Box::new(subscribe);
        let asked = Input::Subscribe {
            subscriber,
            subscribe,
        };
        let _ended = self.inputs.offer(asked).await;
        match answered.await {
            Ok(Ok(())) => response,
            Ok(Err(refused)) => told(&refused),
            Err(_) => gone(),
        }
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Answers {
    pub(super) fn answer(&self, request: RequestId, answer: Answer) {
        if let Some(asked) = self.lock().requests.remove(&request) {
            // Whoever asked may have gone; what was done stands.
            let _gone = asked.send(answer);
        }
    }

    pub(super) fn refuse_stream(&self, subscriber: SubscriberId, answer: Answer) {
        let stream = self.lock().streams.remove(&subscriber);
        if let Some(granted) = stream.and_then(|stream| stream.granted) {
            let _gone = granted.send(Err(answer));
        }
    }

    pub(super) fn event(&self, subscriber: SubscriberId, event: SseEvent) {
        let mut waiting = self.lock();
        let Some(stream) = waiting.streams.get_mut(&subscriber) else {
            return;
        };
        if let Some(granted) = stream.granted.take() {
            let _gone = granted.send(Ok(()));
        }
        let frame = SseFrame {
            id: event.id.map(|seq| seq.0),
            event: event.event,
            data: event.data,
        };
        // A reader that is gone was or will be reported by its stream's end.
        let _gone = stream.sender.send(&frame);
    }

    pub(super) fn end_stream(&self, subscriber: SubscriberId) {
        // Outside the lock: the end of the stream takes it again.
        let stream = self.lock().streams.remove(&subscriber);
        drop(stream);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(answer: &Answer) -> Response<Body> {
    // The core answers with the statuses of HTTP.
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &answer.body)
}

fn metrics(text: &str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text.to_owned().into()));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

fn unreadable(error: BodyError) -> Response<Body> {
    let (status, code) = match error {
        BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
        BodyError::TooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        BodyError::Gone => (StatusCode::BAD_REQUEST, "bad_request"),
    };
    json(status, &failure(code, &error.to_string()))
}

/// The machine has ended in the middle of the request.
fn gone() -> Response<Body> {
    let message = "the daemon is stopping; whether it was done is unknown";
    json(
        StatusCode::SERVICE_UNAVAILABLE,
        &failure("outcome_unknown", message),
    )
}

fn failure(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

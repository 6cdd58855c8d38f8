//! HTTP over a Unix socket: limits, event streams, stopping.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline_io::clock::SystemClock;
use bowline_io::http::{
    self, Answered, Body, BodyError, CallError, ConnInfo, EventSender, Peer, ServerConfig,
    SseFrame, Target, read_body,
};
use bowline_io::net::bind_unix;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const BODY_LIMIT: usize = 1_000;

struct Server {
    target: Target,
    streams: mpsc::UnboundedReceiver<Stream>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// The serving end of an event stream.
struct Stream {
    sender: EventSender,
    taken: Arc<AtomicUsize>,
    gone: oneshot::Receiver<()>,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("some.sock");
        let listener = bind_unix(&path).await.expect("the path is free");
        let (opened, streams) = mpsc::unbounded_channel();
        let handler = move |request, info| answer(request, info, opened.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let config = ServerConfig {
            drain_within: Duration::from_millis(200),
            ..ServerConfig::default()
        };
        let task = tokio::spawn(http::serve(listener, SystemClock, config, handler, async {
            stopped.await.expect("it is stopped, not dropped");
        }));
        Self {
            target: Target::unix(&path),
            streams,
            stop: Some(stop),
            task,
            _dir: dir,
        }
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<Answered, CallError> {
        let limit = 10 * BODY_LIMIT;
        http::call(&self.target, Method::POST, path, &[], body, limit, PATIENCE).await
    }

    async fn stop(&mut self) {
        let stop = self.stop.take().expect("it is stopped once");
        stop.send(()).expect("it runs");
        within(&mut self.task).await.expect("it did not panic");
    }
}

async fn answer(
    request: Request<Incoming>,
    info: ConnInfo,
    opened: mpsc::UnboundedSender<Stream>,
) -> Response<Body> {
    assert_eq!(info.peer, Peer::Unix);
    match request.uri().path() {
        "/echo" => match read_body(request.into_body(), BODY_LIMIT, PATIENCE).await {
            Ok(body) => Response::new(Body::whole(body)),
            Err(error) => http::json(status_of(error), &error.to_string()),
        },
        "/silence" => std::future::pending().await,
        "/events" => {
            let taken = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&taken);
            let (tell_gone, gone) = oneshot::channel();
            let (sender, response) = http::events(
                move |events| {
                    count.fetch_add(events, Ordering::SeqCst);
                },
                move || tell_gone.send(()).expect("the test listens"),
            );
            let stream = Stream {
                sender,
                taken,
                gone,
            };
            assert!(opened.send(stream).is_ok(), "the test listens");
            response
        }
        _ => http::json(StatusCode::NOT_FOUND, &"no such path"),
    }
}

fn status_of(error: BodyError) -> StatusCode {
    match error {
        BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
        BodyError::Gone => StatusCode::BAD_REQUEST,
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens")
}

fn event(n: u64, data: &str) -> SseFrame {
    SseFrame {
        id: Some(n),
        event: "message",
        data: Bytes::from(data.to_owned()),
    }
}

#[tokio::test]
async fn bodies_go_both_ways_up_to_their_limit() {
    let server = Server::start().await;
    let most = Bytes::from(vec![b'x'; BODY_LIMIT]);
    let answered = server
        .post("/echo", most.clone())
        .await
        .expect("it answers");
    assert_eq!((answered.status, answered.body), (StatusCode::OK, most));

    let more = Bytes::from(vec![b'x'; BODY_LIMIT + 1]);
    let answered = server.post("/echo", more).await.expect("it answers");
    assert_eq!(answered.status, StatusCode::PAYLOAD_TOO_LARGE);

    let answered = server.post("/", Bytes::new()).await.expect("it answers");
    assert_eq!(answered.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_call_has_an_end() {
    let server = Server::start().await;
    let within = Duration::from_millis(50);
    let path = "/silence";
    let body = Bytes::new();
    let called = http::call(&server.target, Method::GET, path, &[], body, 10, within).await;
    assert!(
        matches!(called, Err(CallError::TooSlow { .. })),
        "{called:?}"
    );

    let nowhere = Target::Unix(PathBuf::from("/nonexistent/some.sock"));
    let body = Bytes::new();
    let called = http::call(&nowhere, Method::GET, "/", &[], body, 10, within).await;
    assert!(
        matches!(called, Err(CallError::Connect { .. })),
        "{called:?}"
    );
}

#[tokio::test]
async fn events_arrive_in_order_and_are_counted_when_they_are_taken() {
    let mut server = Server::start().await;
    let mut events = http::open_events(&server.target, "/events", &[], PATIENCE)
        .await
        .expect("it streams");
    let mut stream = within(server.streams.recv()).await.expect("it was opened");
    for n in 0..1_000 {
        let data = format!("{{\"n\":{n}}}");
        stream.sender.send(&event(n, &data)).expect("it is read");
    }
    for n in 0..1_000 {
        let read = within(events.next()).await.expect("it is whole");
        let read = read.expect("it goes on");
        assert_eq!(read.id, Some(n.to_string()));
        assert_eq!(read.event, "message");
        assert_eq!(read.data, format!("{{\"n\":{n}}}"));
    }
    assert_eq!(stream.taken.load(Ordering::SeqCst), 1_000);
    assert!(stream.gone.try_recv().is_err());
    drop(events);
    within(stream.gone).await.expect("it is told once");
    assert!(stream.sender.send(&event(0, "{}")).is_err());
}

#[tokio::test]
async fn a_reader_that_stops_is_not_counted_for_what_it_did_not_take() {
    let mut server = Server::start().await;
    let _unread = http::open_events(&server.target, "/events", &[], PATIENCE)
        .await
        .expect("it streams");
    let stream = within(server.streams.recv()).await.expect("it was opened");
    let data = "x".repeat(16 * 1024);
    for n in 0..1_000 {
        stream.sender.send(&event(n, &data)).expect("it is open");
    }
    // Somebody else is served meanwhile, again and again.
    for _ in 0..20 {
        server
            .post("/echo", Bytes::new())
            .await
            .expect("it answers");
    }
    let taken = stream.taken.load(Ordering::SeqCst);
    assert!(taken < 1_000, "16 MiB were taken unread");
}

#[tokio::test]
async fn the_end_of_a_stream_comes_behind_its_events() {
    let mut server = Server::start().await;
    let mut events = http::open_events(&server.target, "/events", &[], PATIENCE)
        .await
        .expect("it streams");
    let stream = within(server.streams.recv()).await.expect("it was opened");
    stream.sender.send(&event(1, "{}")).expect("it is read");
    drop(stream.sender);
    let last = within(events.next()).await.expect("it is whole");
    assert_eq!(last.and_then(|event| event.id).as_deref(), Some("1"));
    assert_eq!(within(events.next()).await.expect("it is whole"), None);
    within(stream.gone).await.expect("it is told once");
}

#[tokio::test]
async fn what_is_no_stream_is_told_with_its_answer() {
    let server = Server::start().await;
    let opened = http::open_events(&server.target, "/", &[], PATIENCE).await;
    match opened {
        Err(CallError::NotEvents(answered)) => {
            assert_eq!(answered.status, StatusCode::NOT_FOUND);
            assert_eq!(&answered.body[..], b"\"no such path\"");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is no stream"),
    }
}

#[tokio::test]
async fn a_stop_ends_the_streams_and_lets_the_path_go() {
    let mut server = Server::start().await;
    let mut events = http::open_events(&server.target, "/events", &[], PATIENCE)
        .await
        .expect("it streams");
    let stream = within(server.streams.recv()).await.expect("it was opened");
    server.stop().await;
    within(stream.gone).await.expect("it is told");
    let ended = within(events.next()).await;
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    let Target::Unix(path) = &server.target else {
        panic!("it is a Unix socket");
    };
    // What is left of it is nobody's.
    bind_unix(path).await.expect("the path is free again");
}

#[tokio::test]
async fn a_socket_in_use_is_not_taken() {
    let server = Server::start().await;
    let Target::Unix(path) = &server.target else {
        panic!("it is a Unix socket");
    };
    let error = bind_unix(path).await.expect_err("somebody answers there");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

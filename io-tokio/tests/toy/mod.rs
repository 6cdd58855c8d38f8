//! Links without rules, and the ends that hold them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline_core::id::{ConnId, MeshId, PeerKey, PubKey, Role, SessionId, Signature};
use bowline_core::link::{Down, VerifiedHello, client, server};
use bowline_core::machine::{Machine, Outbox, Timeout};
use bowline_core::time::{Mono, Now, Wall};
use bowline_core::wire::client::{About, Offer};
use bowline_core::wire::{ClientFrame, Close, ProtocolVersion};
use bowline_io::clock::{Clock, SystemClock};
use bowline_io::http::{self, Body, ConnInfo, ServerConfig};
use bowline_io::net::Tcp;
use bowline_io::ws::{
    self, CommandQueue, Commands, FromBroker, FromClient, Upstream, commands, dial, next_conn_id,
};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a server's machine, or its link, was told.
#[derive(Debug, PartialEq)]
pub enum Told {
    Frame(String),
    PingSent,
    Alive,
    Closed,
}

/// The first text is a hello; `?` is answered by the link; `ping me` makes it ping.
struct ServerToy {
    greeted: bool,
    told: UnboundedSender<Told>,
    outbox: Outbox<server::Output>,
}

impl Machine for ServerToy {
    type Input = server::Input;
    type Output = server::Output;
    type Why = &'static str;

    fn handle_input(&mut self, _: Now, input: server::Input) {
        self.outbox.assert_drained();
        match input {
            server::Input::Text(_) if !self.greeted => {
                self.greeted = true;
                self.outbox.push(server::Output::Attach(hello()));
            }
            server::Input::Text(text) if text == "?" => {
                self.outbox
                    .push(server::Output::Send(Bytes::from_static(b"!")));
            }
            server::Input::Text(text) if text == "ping me" => {
                self.outbox.push(server::Output::Ping);
            }
            server::Input::Text(text) => {
                let summary = String::from_utf8(text.to_vec()).expect("texts are utf-8");
                self.outbox
                    .push(server::Output::Frame(ClientFrame::SetSummary {
                        summary,
                        req_id: None,
                    }));
            }
            server::Input::PingSent => tell(&self.told, Told::PingSent),
            server::Input::Alive => tell(&self.told, Told::Alive),
            server::Input::Attached | server::Input::Refused(_) | server::Input::Closed => {}
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_output(&mut self) -> Option<server::Output> {
        self.outbox.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<&'static str>> {
        None
    }
}

fn hello() -> Box<VerifiedHello> {
    let key = PubKey([1; 32]);
    Box::new(VerifiedHello {
        mesh: MeshId::from("mesh"),
        key: PeerKey::Session(key),
        role: Role::Session,
        member_pubkey: key,
        member_id: None,
        pubkey: key,
        session_pubkey: None,
        attestation: None,
        session_id: SessionId::from("session"),
        about: About::default(),
        offer: Offer::default(),
        version: ProtocolVersion::V1,
        timestamp: Wall(0),
        signature: Signature([0; 64]),
    })
}

/// A test that has seen enough no longer listens.
fn tell<T>(to: &UnboundedSender<T>, what: T) {
    let _done = to.send(what);
}

/// An HTTP server with `/ws` and `/healthz`.
pub struct Server {
    pub address: SocketAddr,
    accepted: UnboundedReceiver<Accepted>,
    so_far: usize,
}

/// A connection that said hello, as its machine sees it.
pub struct Accepted {
    pub commands: Commands,
    told: UnboundedReceiver<Told>,
    sent: Arc<AtomicU64>,
    hellos: usize,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(ServerConfig::default()).await
    }

    pub async fn start_with(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (accept, accepted) = unbounded_channel();
        let handler = move |request, info| answer(request, info, accept.clone());
        tokio::spawn(http::serve(
            listener,
            SystemClock,
            config,
            handler,
            std::future::pending(),
        ));
        Self {
            address,
            accepted,
            so_far: 0,
        }
    }

    pub async fn next_accepted(&mut self) -> Accepted {
        self.so_far += 1;
        within(self.accepted.recv()).await.expect("the server runs")
    }

    pub fn accepted_so_far(&self) -> usize {
        self.so_far + self.accepted.len()
    }
}

impl Accepted {
    pub async fn next(&mut self) -> Told {
        within(self.told.recv()).await.expect("it goes on")
    }

    pub fn try_next(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    /// Returns when the connection's task has ended.
    pub async fn ended(&mut self) {
        assert_eq!(within(self.told.recv()).await, None);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub async fn await_sent(&self, bytes: u64) {
        within(async {
            while self.sent() < bytes {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(self.sent(), bytes);
    }

    pub fn hellos(&self) -> usize {
        self.hellos
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens")
}

async fn answer(
    mut request: Request<Incoming>,
    info: ConnInfo,
    accept: UnboundedSender<Accepted>,
) -> Response<Body> {
    if request.uri().path() != "/ws" {
        return http::json(StatusCode::OK, &serde_json::json!({ "ok": true }));
    }
    let (response, upgrade) = match ws::upgrade(&mut request) {
        Ok(upgrade) => upgrade,
        Err(error) => {
            let said = serde_json::json!({ "error": error.to_string() });
            return http::json(StatusCode::UPGRADE_REQUIRED, &said);
        }
    };
    let (told, listens) = unbounded_channel();
    let link = ServerToy {
        greeted: false,
        told: told.clone(),
        outbox: Outbox::default(),
    };
    let (commands, queue) = commands();
    let sent = Arc::new(AtomicU64::new(0));
    let upstream = ServerUpstream {
        told,
        sent: Arc::clone(&sent),
        waiting: Some((
            accept,
            Accepted {
                commands,
                told: listens,
                sent,
                hellos: 0,
            },
        )),
        slot: info,
    };
    tokio::spawn(ws::run_server_connection::<TcpStream, _, _, _>(
        next_conn_id(),
        upgrade,
        link,
        SystemClock,
        queue,
        upstream,
    ));
    response
}

struct ServerUpstream {
    told: UnboundedSender<Told>,
    sent: Arc<AtomicU64>,
    /// Handed over at the hello.
    waiting: Option<(UnboundedSender<Accepted>, Accepted)>,
    slot: ConnInfo,
}

impl Upstream<FromClient> for ServerUpstream {
    async fn deliver(&mut self, event: FromClient) {
        match event {
            FromClient::Attach(_) => {
                self.slot.release_slot();
                let (accept, mut accepted) = self.waiting.take().expect("it says hello once");
                accepted.hellos += 1;
                accepted.commands.attached();
                tell(&accept, accepted);
            }
            FromClient::Frame(ClientFrame::SetSummary { summary, .. }) => {
                tell(&self.told, Told::Frame(summary));
            }
            FromClient::Frame(other) => panic!("the toy does not say {other:?}"),
            FromClient::Closed => tell(&self.told, Told::Closed),
        }
    }

    fn sent(&mut self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// What a client's link heard, or its host.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Text(String),
    Down(Down),
}

struct ClientLinkToy {
    heard: UnboundedSender<Heard>,
    dialled_by: Option<Mono>,
    outbox: Outbox<client::Output>,
}

impl Machine for ClientLinkToy {
    type Input = client::Input;
    type Output = client::Output;
    type Why = &'static str;

    fn handle_input(&mut self, _: Now, input: client::Input) {
        self.outbox.assert_drained();
        match input {
            client::Input::Connected => {
                self.dialled_by = None;
                let hello = Bytes::from_static(b"hello");
                self.outbox.push(client::Output::Send(hello));
            }
            client::Input::Failed(detail) => {
                let down = Down::DialFailed { detail };
                self.outbox.push(client::Output::Down(down));
            }
            client::Input::Text(text) => {
                let text = String::from_utf8(text.to_vec()).expect("texts are utf-8");
                tell(&self.heard, Heard::Text(text));
            }
            client::Input::Closed(close) => {
                self.outbox.push(client::Output::Down(Down::Closed(close)));
            }
            client::Input::Alive | client::Input::PingSent => {}
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.dialled_by.take_if(|by| *by <= now.mono).is_some() {
            let close = Close::new(Close::GOING_AWAY, "");
            self.outbox.push(client::Output::Close(close));
            let detail = "no answer".into();
            let down = Down::DialFailed { detail };
            self.outbox.push(client::Output::Down(down));
        }
    }

    fn poll_output(&mut self) -> Option<client::Output> {
        self.outbox.pop()
    }

    fn poll_timeout(&self) -> Option<Timeout<&'static str>> {
        self.dialled_by.map(|at| Timeout { at, why: "dial" })
    }
}

/// A connection of ours, dialled.
pub struct ClientToy {
    pub commands: Commands,
    heard: UnboundedReceiver<Heard>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl ClientToy {
    pub fn dial(url: &str) -> Self {
        Self::dial_within(url, PATIENCE)
    }

    pub fn dial_within(url: &str, within: Duration) -> Self {
        let (heard, hears) = unbounded_channel();
        let link = ClientLinkToy {
            heard: heard.clone(),
            dialled_by: Some(SystemClock.now().mono + within),
            outbox: Outbox::default(),
        };
        let (commands, queue) = commands();
        let sent = Arc::new(AtomicU64::new(0));
        let upstream = ClientUpstream {
            heard,
            sent: Arc::clone(&sent),
        };
        let task = tokio::spawn(run(url.to_owned(), link, queue, upstream));
        Self {
            commands,
            heard: hears,
            sent,
            task,
        }
    }

    pub async fn next(&mut self) -> Heard {
        within(self.heard.recv()).await.expect("it goes on")
    }

    /// Returns when the connection's task has ended, in good order and with nothing more to say.
    pub async fn ended(&mut self) {
        within(&mut self.task).await.expect("it did not panic");
        assert_eq!(self.heard.recv().await, None);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

async fn run(url: String, link: ClientLinkToy, queue: CommandQueue, upstream: ClientUpstream) {
    let dial = dial(&url, &Tcp);
    ws::run_client_connection(ConnId(1), dial, link, SystemClock, queue, upstream).await;
}

struct ClientUpstream {
    heard: UnboundedSender<Heard>,
    sent: Arc<AtomicU64>,
}

impl Upstream<FromBroker> for ClientUpstream {
    async fn deliver(&mut self, event: FromBroker) {
        match event {
            FromBroker::Down(down) => tell(&self.heard, Heard::Down(down)),
            other => panic!("the toy does not say {other:?}"),
        }
    }

    fn sent(&mut self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::SeqCst);
    }
}

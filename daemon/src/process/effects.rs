//! Carrying out what the host says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_core::crypto::Crypto;
use bowline_core::crypto::real::RealCrypto;
use bowline_core::host::io::{HttpCall, HttpOutcome, Input, LogLevel, Output};
use bowline_core::id::{ConnId, RequestId};
use bowline_core::limits::BROKER_ANSWERS_WITHIN;
use bowline_core::link::DialPlan;
use bowline_core::link::client::ClientLink;
use bowline_core::store::host::{Load, Op};
use bowline_io::clock::Clock;
use bowline_io::drive::{Effects, Inputs};
use bowline_io::http::{HttpUrl, call_through};
use bowline_io::net::Connector;
use bowline_io::store::Store;
use bowline_io::ws::{self, Commands, FromBroker, Upstream};
use hyper::Method;

use super::ipc::Answers;

/// `S` commits, `N` connects, `C` tells the time.
pub struct HostEffects<S, N, C> {
    store: S,
    connector: N,
    clock: C,
    crypto: Arc<RealCrypto>,
    inputs: Inputs<Input>,
    conns: Conns,
    answers: Answers,
    stopped: bool,
}

type Conns = Arc<Mutex<HashMap<ConnId, Commands>>>;

/// A broker's answer to a join or a new mesh is small.
const BROKER_ANSWER_BYTES: usize = 64 * 1024;

impl<S, N: Connector, C: Clock> HostEffects<S, N, C> {
    pub(super) fn new(
        store: S,
        connector: N,
        clock: C,
        crypto: Arc<RealCrypto>,
        inputs: Inputs<Input>,
        answers: Answers,
    ) -> Self {
        Self {
            store,
            connector,
            clock,
            crypto,
            inputs,
            conns: Conns::default(),
            answers,
            stopped: false,
        }
    }

    fn dial(&self, conn: ConnId, plan: Box<DialPlan>) {
        let (commands, queue) = ws::commands();
        lock(&self.conns).insert(conn, commands);
        let upstream = ToHost {
            conn,
            inputs: self.inputs.clone(),
            conns: Arc::clone(&self.conns),
        };
        let url = plan.url.clone();
        let crypto: Arc<dyn Crypto> = Arc::clone(&self.crypto) as _;
        let (connector, clock) = (self.connector.clone(), self.clock.clone());
        tokio::spawn(async move {
            let dial = ws::dial(&url, &connector);
            let link = ClientLink::new(clock.now(), plan, crypto);
            ws::run_client_connection(conn, dial, link, clock, queue, upstream).await;
        });
    }

    fn command(&self, conn: ConnId, command: impl FnOnce(&Commands)) {
        // A connection that is not there any more has said so, or is about to.
        if let Some(commands) = lock(&self.conns).get(&conn) {
            command(commands);
        }
    }

    fn ask_broker(&self, request: RequestId, http: HttpCall) {
        let inputs = self.inputs.clone();
        let connector = self.connector.clone();
        tokio::spawn(async move {
            let outcome = ask(&connector, http).await.unwrap_or_else(|detail| {
                tracing::warn!(detail, "a broker gave no answer");
                HttpOutcome::Failed { detail }
            });
            inputs.tell(Input::HttpDone { request, outcome });
        });
    }
}

impl<S: Store<Op, Load>, N: Connector, C: Clock> Effects<Output> for HostEffects<S, N, C> {
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { conn, plan } => self.dial(conn, plan),
            Output::Send { conn, frame } => self.command(conn, |commands| commands.send(frame)),
            Output::Hangup { conn, close } => self.command(conn, |commands| commands.close(close)),
            Output::Persist(txn) => self.store.persist(txn),
            Output::Load { load, what } => self.store.load(load, what),
            Output::Answer { request, answer } => self.answers.answer(request, answer),
            Output::SubscribeRefused { subscriber, answer } => {
                self.answers.refuse_stream(subscriber, answer);
            }
            Output::Event { subscriber, event } => self.answers.event(subscriber, event),
            Output::EndEvents { subscriber } => self.answers.end_stream(subscriber),
            Output::Http { request, http } => self.ask_broker(request, http),
            Output::Log { level, message } => match level {
                LogLevel::Info => tracing::info!("{message}"),
                LogLevel::Warn => tracing::warn!("{message}"),
                LogLevel::Error => tracing::error!("{message}"),
            },
            Output::Stopped => self.stopped = true,
        }
    }

    fn is_done(&self) -> bool {
        self.stopped
    }
}

/// From a connection to the host.
struct ToHost {
    conn: ConnId,
    inputs: Inputs<Input>,
    conns: Conns,
}

impl Upstream<FromBroker> for ToHost {
    async fn deliver(&mut self, event: FromBroker) {
        let conn = self.conn;
        let input = match event {
            FromBroker::Up(ack) => Input::Up { conn, ack },
            FromBroker::Frame(frame) => Input::Frame { conn, frame },
            FromBroker::Down(down) => {
                lock(&self.conns).remove(&conn);
                Input::Down { conn, down }
            }
        };
        // A host that has ended hears nothing more, and misses nothing.
        let _ended = self.inputs.offer(input).await;
    }

    fn sent(&mut self, bytes: u64) {
        self.inputs.tell(Input::Sent {
            conn: self.conn,
            bytes,
        });
    }
}

async fn ask(connector: &impl Connector, http: HttpCall) -> Result<HttpOutcome, String> {
    let url = HttpUrl::parse(&http.url).map_err(|error| error.to_string())?;
    let method: Method = http.method.parse().map_err(|_| "no such method")?;
    let answered = call_through(
        connector,
        &url.authority(),
        method,
        url.path(),
        &[],
        http.body,
        BROKER_ANSWER_BYTES,
        BROKER_ANSWERS_WITHIN,
    )
    .await
    .map_err(|error| error.to_string())?;
    Ok(HttpOutcome::Answered {
        status: answered.status.as_u16(),
        body: answered.body,
    })
}

fn lock(conns: &Conns) -> MutexGuard<'_, HashMap<ConnId, Commands>> {
    conns.lock().unwrap_or_else(PoisonError::into_inner)
}

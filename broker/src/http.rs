//! The one listener's routes. Every answer is JSON, but for `/metrics` and the upgrade of `/ws`.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_core::crypto::Crypto;
use bowline_core::id::{MeshId, PubKey};
use bowline_core::limits::HELLO_WITHIN;
use bowline_core::link::server::{ServerLink, ServerLinkConfig};
use bowline_core::mesh::{self, http as endpoints};
use bowline_core::registry::SignedOnce;
use bowline_core::wire::http::{BODY_BYTES, HttpAnswer, HttpRefusal};
use bowline_io::clock::Clock;
use bowline_io::http::{Body, BodyError, ConnInfo, Peer, json, read_body};
use bowline_io::ws;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::connection::{Connections, ToMesh};
use crate::meshes::{Meshes, OutcomeUnknown};
use crate::metrics::{Commits, render};
use crate::registry::RegistryHandle;

/// What the routes need; shared by all requests.
pub(crate) struct Routes<C> {
    pub(crate) clock: C,
    pub(crate) meshes: Arc<Meshes>,
    pub(crate) registry: RegistryHandle,
    pub(crate) connections: Connections,
    pub(crate) commits: Arc<Commits>,
    pub(crate) crypto: Arc<dyn Crypto>,
    pub(crate) link: ServerLinkConfig,
    /// Signatures under `/invites` that were honoured lately.
    pub(crate) signed_once: Mutex<SignedOnce>,
}

impl<C: Clock> Routes<C> {
    /// `S` is the stream that requests come over.
    pub(crate) async fn answer<S>(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        info: ConnInfo,
    ) -> Response<Body>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        match (&method, path.as_str()) {
            (_, "/ws") => self.upgrade::<S>(&mut request, &info),
            (&Method::GET, "/healthz") => json(StatusCode::OK, &json!({ "ok": true })),
            (&Method::GET, "/readyz") => self.readiness(),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::POST, "/meshes") => {
                let allowed = is_local(&request, &info);
                match body_of(request).await {
                    Ok(body) => answered(self.registry.create(body, allowed).await),
                    Err(refusal) => refused(&refusal),
                }
            }
            (&Method::POST, "/hook/set-status") => {
                let local = is_local(&request, &info);
                match body_of(request).await {
                    Ok(body) => self.hook(&body, local).await,
                    Err(refusal) => refused(&refusal),
                }
            }
            (&Method::POST, "/join") => self.ask(request, Endpoint::Join).await,
            (&Method::POST, "/invites") => self.ask(request, Endpoint::Register).await,
            (&Method::DELETE, path) if path.starts_with("/invites/") => {
                let id = path["/invites/".len()..].to_owned();
                self.ask(request, Endpoint::Revoke(id)).await
            }
            (
                _,
                "/healthz" | "/readyz" | "/metrics" | "/meshes" | "/join" | "/invites"
                | "/hook/set-status",
            ) => {
                let message = format!("{path} does not take {method}");
                refused(&HttpRefusal::new(405, "method_not_allowed", message))
            }
            _ => refused(&HttpRefusal::new(
                404,
                "not_found",
                format!("there is nothing at {path}"),
            )),
        }
    }

    fn upgrade<S>(
        self: Arc<Self>,
        request: &mut Request<Incoming>,
        info: &ConnInfo,
    ) -> Response<Body>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (response, upgrade) = match ws::upgrade(request) {
            Ok(upgraded) => upgraded,
            Err(error) => {
                return refused(&HttpRefusal::new(
                    426,
                    "upgrade_required",
                    error.to_string(),
                ));
            }
        };
        let conn = ws::next_conn_id();
        let (commands, queue) = ws::commands();
        let open = self.connections.add(conn, commands.clone());
        let link = ServerLink::new(info.accepted_at, self.link, Arc::clone(&self.crypto));
        let upstream = ToMesh {
            conn,
            commands,
            meshes: Arc::clone(&self.meshes),
            mesh: None,
            local: is_local(request, info),
            info: info.clone(),
        };
        let clock = self.clock.clone();
        tokio::spawn(async move {
            ws::run_server_connection::<S, _, _, _>(conn, upgrade, link, clock, queue, upstream)
                .await;
            drop(open);
        });
        response
    }

    /// Ready while every mesh's store takes writes.
    fn readiness(&self) -> Response<Body> {
        let meshes = self.meshes.all();
        let stalled: Vec<_> = meshes
            .iter()
            .filter(|mesh| !mesh.gauges.read().ready)
            .map(|mesh| mesh.slug.as_str())
            .collect();
        let status = if stalled.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = json!({
            "ready": stalled.is_empty(),
            "meshes": meshes.len(),
            "stalled": stalled,
        });
        json(status, &body)
    }

    fn metrics(&self) -> Response<Body> {
        let text = render(&self.meshes.all(), self.connections.count(), &self.commits);
        let mut response = Response::new(Body::whole(text.into()));
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        response
    }

    async fn ask(&self, request: Request<Incoming>, endpoint: Endpoint) -> Response<Body> {
        let body = match body_of(request).await {
            Ok(body) => body,
            Err(refusal) => return refused(&refusal),
        };
        let (mesh, what) = match self.verify(&endpoint, &body) {
            Ok(asked) => asked,
            Err(refusal) => return refused(&refusal),
        };
        let Some(mesh) = self.meshes.get(&mesh) else {
            return refused(&outcome_unknown());
        };
        match mesh.ask(what).await {
            Ok(response) => answered(Ok(endpoints::answer(&response))),
            Err(unknown) => answered(Err(unknown)),
        }
    }

    async fn hook(&self, body: &[u8], local: bool) -> Response<Body> {
        let requests = match endpoints::hook_set_status(body, local) {
            Ok(requests) => requests,
            Err(refusal) => return refused(&refusal),
        };
        for request in requests {
            let responses = self.ask_all(&request).await;
            if let Some(answer) = endpoints::hook_answer(&responses) {
                return answered(Ok(answer));
            }
        }
        answered(Ok(endpoints::hook_told(0)))
    }

    /// All meshes at once: one that is stalled keeps no other waiting.
    async fn ask_all(&self, request: &mesh::Request) -> Vec<mesh::Response> {
        let meshes = self.meshes.all().into_iter();
        let asked = meshes.map(|mesh| {
            let request = request.clone();
            async move { mesh.ask(request).await }
        });
        let answers = asked.collect::<JoinSet<_>>().join_all().await;
        let known = |answer: Result<_, OutcomeUnknown>| {
            answer.unwrap_or(mesh::Response::Refused {
                code: "outcome_unknown",
                message: ASK_AGAIN,
            })
        };
        answers.into_iter().map(known).collect()
    }

    fn verify(&self, endpoint: &Endpoint, body: &[u8]) -> Result<endpoints::Asked, HttpRefusal> {
        let now = self.clock.now();
        let crypto = &*self.crypto;
        let owner_of = |mesh: &MeshId| -> Option<PubKey> {
            self.meshes.get(mesh).map(|mesh| mesh.config.owner_pubkey)
        };
        let mut signed_once = self
            .signed_once
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match endpoint {
            Endpoint::Join => endpoints::join(body, crypto, now, owner_of),
            Endpoint::Register => {
                endpoints::register_invite(body, crypto, &mut signed_once, now, owner_of)
            }
            Endpoint::Revoke(id) => {
                endpoints::revoke_invite(id, body, crypto, &mut signed_once, now, owner_of)
            }
        }
    }
}

const ASK_AGAIN: &str = "it is not certain that it was done: ask again";

enum Endpoint {
    Join,
    Register,
    Revoke(String),
}

async fn body_of(request: Request<Incoming>) -> Result<Bytes, HttpRefusal> {
    read_body(request.into_body(), BODY_BYTES, HELLO_WITHIN)
        .await
        .map_err(|error| {
            let (status, code) = match error {
                BodyError::TooLarge { .. } => (413, "payload_too_large"),
                BodyError::TooSlow { .. } => (408, "too_slow"),
                BodyError::Gone => (400, "bad_request"),
            };
            HttpRefusal::new(status, code, error.to_string())
        })
}

fn is_local(request: &Request<Incoming>, info: &ConnInfo) -> bool {
    is_loopback(info.peer) && !was_forwarded(request)
}

/// A proxy on this host speaks for somebody elsewhere.
fn was_forwarded(request: &Request<Incoming>) -> bool {
    ["forwarded", "x-forwarded-for", "via"]
        .iter()
        .any(|name| request.headers().contains_key(*name))
}

fn is_loopback(peer: Peer) -> bool {
    match peer {
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Peer::Unix => true,
    }
}

fn answered(answer: Result<HttpAnswer, OutcomeUnknown>) -> Response<Body> {
    let HttpAnswer { status, body } =
        answer.unwrap_or_else(|OutcomeUnknown| outcome_unknown().answer());
    let mut response = Response::new(Body::whole(body));
    // The core answers with the statuses of HTTP.
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(refusal: &HttpRefusal) -> Response<Body> {
    answered(Ok(refusal.answer()))
}

fn outcome_unknown() -> HttpRefusal {
    HttpRefusal::new(503, "outcome_unknown", ASK_AGAIN)
}

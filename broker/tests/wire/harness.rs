//! A broker process, a mesh in it, and a plain WebSocket client with hand-written frames.

#![allow(dead_code)] // Each test file uses what it needs.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_core::crypto::invite::{InviteTerms, InviteToken};
use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::{Crypto, SecretKey, canonical};
use bowline_core::id::{MemberId, MeshId, PubKey, Role};
use bowline_core::store::mesh::MemberRole;
use bowline_core::time::Wall;
use bowline_io::http::{Target, call};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Nothing here takes longer, unless it is broken.
pub const SOON: Duration = Duration::from_secs(20);

/// Where a broker listens, whatever runs it.
#[derive(Clone, Copy)]
pub struct At {
    pub address: SocketAddr,
}

pub struct BrokerProcess {
    child: Child,
    at: At,
    dir: PathBuf,
    limits: Vec<String>,
    _temp: tempfile::TempDir,
}

impl BrokerProcess {
    pub fn start(limits: &[&str]) -> Self {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = temp.path().join("data");
        let limits: Vec<_> = limits.iter().map(|limit| (*limit).to_owned()).collect();
        let (child, address) = serve(&dir, SocketAddr::from(([127, 0, 0, 1], 0)), &limits);
        Self {
            child,
            at: At { address },
            dir,
            limits,
            _temp: temp,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and a start on the same data at the same address.
    pub fn kill_and_restart(&mut self) {
        // One that has halted is dead already.
        let _halted = self.child.kill();
        self.child.wait().expect("it was killed");
        (self.child, self.at.address) = serve(&self.dir, self.at.address, &self.limits);
    }

    /// Until it ends by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// SIGTERM; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let killed = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(killed.expect("kill is there").success());
        self.child.wait().expect("it ends").code()
    }
}

impl Deref for BrokerProcess {
    type Target = At;

    fn deref(&self) -> &At {
        &self.at
    }
}

impl At {
    pub async fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.request_with(method, path, body, &[]).await
    }

    pub async fn request_with(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let (status, text) = self.exchange(method, path, body, headers).await;
        (
            status,
            serde_json::from_str(&text).expect("every answer is JSON"),
        )
    }

    pub async fn request_text(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        self.exchange(method, path, body, &[]).await
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> (u16, String) {
        let bytes = match body {
            Value::Null => bytes::Bytes::new(),
            body => body.to_string().into(),
        };
        let answered = call(
            &Target::Tcp(self.address.to_string()),
            method.parse().expect("a method"),
            path,
            headers,
            bytes,
            1024 * 1024,
            SOON,
        )
        .await
        .expect("the broker answers");
        let text = String::from_utf8(answered.body.to_vec()).expect("text");
        (answered.status.as_u16(), text)
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn serve(dir: &Path, listen: SocketAddr, limits: &[String]) -> (Child, SocketAddr) {
    let mut command = command(dir, &listen.to_string());
    for limit in limits {
        command.args(["--limit", limit]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the broker starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a first line");
    let said: Value = serde_json::from_str(&line).expect("the first line is JSON");
    let address = said["listening"].as_str().expect("its address");
    (child, address.parse().expect("an address"))
}

pub fn command(dir: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline-broker"));
    command.args(["serve", "--json", "--listen", listen]);
    command.arg("--data").arg(dir);
    command
}

/// A mesh, and the owner's key to it.
pub struct TestMesh {
    pub id: MeshId,
    pub slug: String,
    pub owner: SecretKey,
    address: SocketAddr,
}

pub struct Member {
    pub mesh: MeshId,
    pub id: MemberId,
    pub secret: SecretKey,
}

pub struct Session {
    pub mesh: MeshId,
    pub parent: SecretKey,
    pub secret: SecretKey,
    pub name: String,
}

impl TestMesh {
    pub async fn create(broker: &At, slug: &str) -> Self {
        let owner = secret();
        let body = Self::creation(&owner, slug, now_ms());
        let (status, made) = broker.request("POST", "/meshes", &body).await;
        assert_eq!(status, 200, "{made}");
        Self {
            id: MeshId::from(made["mesh_id"].as_str().expect("an id")),
            slug: slug.to_owned(),
            owner,
            address: broker.address,
        }
    }

    pub fn creation(owner: &SecretKey, slug: &str, timestamp: u64) -> Value {
        let key = public(owner);
        let text = canonical::mesh(slug, &key, "sealed", Wall(timestamp));
        json!({
            "slug": slug,
            "owner_pubkey": key,
            "policy": "sealed",
            "timestamp": timestamp,
            "signature": RealCrypto.sign(owner, text.as_bytes()),
        })
    }

    /// Signed by `owner`, which is the mesh's own unless a test wants a forgery.
    pub fn invite(&self, owner: &SecretKey, expires_in_s: i64) -> InviteToken {
        self.invite_as(owner, expires_in_s, MemberRole::Member)
    }

    fn invite_as(&self, owner: &SecretKey, expires_in_s: i64, role: MemberRole) -> InviteToken {
        let now_s = i64::try_from(now_ms() / 1000).expect("this century");
        let terms = InviteTerms {
            mesh_id: self.id.clone(),
            mesh_slug: self.slug.clone(),
            broker_url: format!("ws://{}/ws", self.address),
            expires_at_s: u64::try_from(now_s + expires_in_s).expect("this century"),
            mesh_root_key: "cm9vdA".into(),
            role,
        };
        InviteToken::sign(&RealCrypto, owner, terms).expect("the terms are well formed")
    }

    pub fn join_body(token: &InviteToken, key: &PubKey) -> Value {
        json!({
            "invite_token": token.encode(),
            "invite_payload": token,
            "peer_pubkey": key,
            "display_name": "member",
        })
    }

    pub async fn member(&self, broker: &At) -> Member {
        self.member_with(broker, MemberRole::Member).await
    }

    /// Its key joins once more.
    pub async fn join_again(&self, broker: &At, member: &Member) -> (u16, Value) {
        let body = Self::join_body(&self.invite(&self.owner, 60), &public(&member.secret));
        broker.request("POST", "/join", &body).await
    }

    pub async fn member_with(&self, broker: &At, role: MemberRole) -> Member {
        let secret = secret();
        let invite = self.invite_as(&self.owner, 60, role);
        let body = Self::join_body(&invite, &public(&secret));
        let (status, joined) = broker.request("POST", "/join", &body).await;
        assert_eq!(status, 200, "{joined}");
        assert_eq!(joined["ok"], true);
        Member {
            mesh: self.id.clone(),
            id: MemberId::from(joined["memberId"].as_str().expect("an id")),
            secret,
        }
    }
}

impl Member {
    pub fn session(&self, name: &str) -> Session {
        Session {
            mesh: self.mesh.clone(),
            parent: self.secret.clone(),
            secret: secret(),
            name: name.to_owned(),
        }
    }

    pub fn hello(&self) -> Value {
        let (key, timestamp) = (public(&self.secret), unique_ms());
        let text = canonical::member_hello(&self.mesh, &self.id, &key, Wall(timestamp));
        json!({
            "type": "hello",
            "meshId": self.mesh,
            "memberId": self.id,
            "pubkey": key,
            "sessionId": "control",
            "pid": 1,
            "cwd": "/",
            "capabilities": capabilities(),
            "timestamp": timestamp,
            "signature": RealCrypto.sign(&self.secret, text.as_bytes()),
        })
    }
}

impl Session {
    pub fn key(&self) -> PubKey {
        public(&self.secret)
    }

    pub fn hello(&self) -> Value {
        self.hello_at(unique_ms())
    }

    pub fn hello_at(&self, timestamp: u64) -> Value {
        let (parent, key) = (public(&self.parent), self.key());
        let expires = Wall(now_ms() + 3_600_000);
        let attested =
            canonical::bowline_attestation(&self.mesh, &parent, &key, Role::Session, expires);
        let hello = canonical::session_hello(&self.mesh, &parent, &key, Wall(timestamp));
        json!({
            "type": "session_hello",
            "meshId": self.mesh,
            "parentMemberPubkey": parent,
            "sessionPubkey": key,
            "parentAttestation": {
                "sessionPubkey": key,
                "parentMemberPubkey": parent,
                "expiresAt": expires.0,
                "signature": RealCrypto.sign(&self.parent, attested.as_bytes()),
            },
            "sessionId": self.name,
            "pid": 1,
            "cwd": "/",
            "displayName": self.name,
            "capabilities": capabilities(),
            "timestamp": timestamp,
            "signature": RealCrypto.sign(&self.secret, hello.as_bytes()),
        })
    }

    /// The hello of one who has seen `count` events of `epoch`.
    pub fn hello_resuming(&self, stream: &Value) -> Value {
        let mut hello = self.hello();
        hello["resume"] = stream.clone();
        hello
    }

    /// For the first time: until others are told of it, which waits for its being durable.
    pub async fn join(&self, broker: &At) -> (Client, Value) {
        self.join_with(broker, &self.hello()).await
    }

    /// As [`Self::join`], by this hello.
    pub async fn join_with(&self, broker: &At, hello: &Value) -> (Client, Value) {
        let (mut client, ack) = Self::attach_with(broker, hello).await;
        let key = json!(self.key());
        let listed = timeout(SOON, async {
            while !client
                .peers()
                .await
                .iter()
                .any(|peer| peer["pubkey"] == key)
            {
                tokio::task::yield_now().await;
            }
        });
        listed.await.expect("it is listed");
        (client, ack)
    }

    pub async fn attach(&self, broker: &At) -> (Client, Value) {
        Self::attach_with(broker, &self.hello()).await
    }

    async fn attach_with(broker: &At, hello: &Value) -> (Client, Value) {
        let mut client = Client::connect(broker).await;
        client.send(hello).await;
        let ack = client.expect("hello_ack").await;
        (client, ack)
    }
}

/// A socket, and frames as JSON.
pub struct Client(WebSocketStream<TcpStream>);

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    Frame(Value),
    Close(u16, String),
    /// Without a close frame.
    Gone,
}

impl Client {
    pub async fn connect(broker: &At) -> Self {
        let stream = TcpStream::connect(broker.address)
            .await
            .expect("it listens");
        Self::upgrade(stream, broker.address).await
    }

    /// With room for few bytes in the receive buffer, so that not reading is felt at the broker.
    pub async fn connect_narrow(broker: &At) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(broker.address).await.expect("it listens");
        Self::upgrade(stream, broker.address).await
    }

    async fn upgrade(stream: TcpStream, address: SocketAddr) -> Self {
        let url = format!("ws://{address}/ws");
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("it speaks WebSocket");
        Self(socket)
    }

    pub async fn send(&mut self, frame: &Value) {
        self.send_text(frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: String) {
        let sent = timeout(SOON, self.0.send(Message::text(text))).await;
        sent.expect("the broker reads").expect("the socket is open");
    }

    pub async fn next(&mut self) -> Incoming {
        loop {
            let message = timeout(SOON, self.0.next()).await.expect("something comes");
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Incoming::Frame(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Incoming::Close(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Incoming::Gone,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        match self.next().await {
            Incoming::Frame(frame) if frame["type"] == kind => frame,
            other => panic!("expected {kind}, got {other:?}"),
        }
    }

    /// As [`Self::expect`]; live events before it are of no interest.
    pub async fn expect_past_events(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Incoming::Frame(frame) if frame["type"] == kind => return frame,
                Incoming::Frame(frame) if frame["type"] == "event" => {}
                other => panic!("expected {kind}, got {other:?}"),
            }
        }
    }

    /// The close, whatever `error` frames come before it.
    pub async fn expect_close_past_errors(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Incoming::Frame(frame) if frame["type"] == "error" => {}
                Incoming::Close(code, reason) => return (code, reason),
                other => panic!("expected a close, got {other:?}"),
            }
        }
    }

    /// The next frame, whatever it is.
    pub async fn frame(&mut self) -> Value {
        match self.next().await {
            Incoming::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The close, whatever live events come before it.
    pub async fn expect_close_past_events(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Incoming::Frame(frame) if frame["type"] == "event" => {}
                Incoming::Close(code, reason) => return (code, reason),
                other => panic!("expected a close, got {other:?}"),
            }
        }
    }

    pub async fn expect_close(&mut self) -> (u16, String) {
        match self.next().await {
            Incoming::Close(code, reason) => (code, reason),
            other => panic!("expected a close, got {other:?}"),
        }
    }

    /// Everything that the broker said before it answers a ping.
    pub async fn drain(&mut self) -> Vec<Value> {
        let n = rand_number();
        self.send(&json!({"type": "ping", "n": n})).await;
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Incoming::Frame(frame) if frame["type"] == "pong" && frame["n"] == n => {
                    return frames;
                }
                Incoming::Frame(frame) => frames.push(frame),
                other => panic!("expected a pong, got {other:?}"),
            }
        }
    }

    pub async fn peers(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "list_peers", "_reqId": "peers"}))
            .await;
        loop {
            match self.next().await {
                Incoming::Frame(frame) if frame["type"] == "peers_list" => {
                    assert_eq!(frame["_reqId"], "peers");
                    return frame["peers"].as_array().expect("a list").clone();
                }
                Incoming::Frame(_) => {}
                other => panic!("expected peers, got {other:?}"),
            }
        }
    }

    /// No close frame, no FIN that says goodbye: the socket is reset.
    pub fn cut(self) {
        let stream = self.0.into_inner();
        stream.set_zero_linger().expect("a socket");
        drop(stream);
    }
}

pub fn send_frame(id: &str, to: &PubKey, body_bytes: usize) -> Value {
    json!({
        "type": "send",
        "id": id,
        "client_message_id": id,
        "targetSpec": to,
        "priority": "next",
        "nonce": base64(&[7; 24]),
        "ciphertext": base64(&vec![b'x'; body_bytes]),
        "seal": "x1",
    })
}

pub fn secret() -> SecretKey {
    let mut bytes = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").expect("randomness");
    std::io::Read::read_exact(&mut random, &mut bytes).expect("randomness");
    SecretKey::from_bytes(bytes)
}

pub fn public(secret: &SecretKey) -> PubKey {
    RealCrypto.public_key(secret)
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("this century");
    u64::try_from(since.as_millis()).expect("this millennium")
}

/// The time as no hello of this process bears it yet: one key in one millisecond signs one hello.
fn unique_ms() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    loop {
        let now = now_ms();
        if LAST.fetch_max(now, Ordering::Relaxed) < now {
            return now;
        }
        std::thread::yield_now();
    }
}

/// Answers of brokers that did not start: exit code and the error object.
pub fn run_to_end(mut command: Command) -> (Option<i32>, Value) {
    let output = command.output().expect("it runs");
    std::io::stderr().write_all(&output.stderr).expect("stderr");
    let said = serde_json::from_slice(&output.stdout).expect("one object of JSON");
    (output.status.code(), said)
}

pub fn capabilities() -> Value {
    json!(["features1", "resume1", "live1", "attest1", "seal-x1"])
}

fn base64(bytes: &[u8]) -> String {
    bowline_core::wire::Base64Body::encode(bytes)
        .as_str()
        .to_owned()
}

fn rand_number() -> u64 {
    u64::from(u32::from_le_bytes(
        secret().expose()[..4].try_into().expect("four bytes"),
    ))
}

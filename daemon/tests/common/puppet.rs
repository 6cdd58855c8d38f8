//! A peer without a daemon: a member of its own, one connection, frames by hand. What a daemon does by
//! itself, it does only when it is told.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::{Crypto, SecretKey, canonical};
use bowline_core::id::{MeshId, PubKey, Role};
use bowline_core::time::Wall;
use bowline_io::http::{Target, call};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::Host;

const SOON: Duration = Duration::from_secs(45);

pub struct Puppet {
    name: String,
    mesh: MeshId,
    broker: SocketAddr,
    member: SecretKey,
    session: SecretKey,
    socket: Option<WebSocket<TcpStream>>,
}

impl Puppet {
    /// Joins the mesh of `host` by an invite of it, and connects.
    pub fn join(host: &Host, broker: SocketAddr, name: &str) -> Self {
        let invite = host.run(&["invite"]);
        let link = invite.one()["invite"].as_str().expect("a link").to_owned();
        let mesh = invite.one()["mesh_id"].as_str().expect("a mesh");
        let token = link.rsplit('/').next().expect("a token");
        let member = secret(1);
        let body = json!({
            "invite_token": token,
            "peer_pubkey": public(&member),
            "display_name": name,
        });
        let joined = post(broker, "/join", &body);
        assert_eq!(joined["ok"], true, "{joined}");
        let mut puppet = Self {
            name: name.to_owned(),
            mesh: MeshId::from(mesh),
            broker,
            member,
            session: secret(2),
            socket: None,
        };
        puppet.connect();
        puppet
    }

    pub fn key(&self) -> PubKey {
        public(&self.session)
    }

    pub fn connect(&mut self) {
        let stream = TcpStream::connect(self.broker).expect("the broker listens");
        stream
            .set_read_timeout(Some(SOON))
            .expect("a socket has a time-out");
        let url = format!("ws://{}/ws", self.broker);
        let (socket, _) = client(url, stream).expect("the broker upgrades");
        self.socket = Some(socket);
        self.say(&self.hello());
        self.until("hello_ack");
    }

    /// Without a word.
    pub fn disconnect(&mut self) {
        self.socket = None;
    }

    pub fn set_status(&mut self, status: &str) {
        self.say(&json!({ "type": "set_status", "status": status, "_reqId": "status" }));
        self.until("ok");
    }

    /// The next frame of this kind; those before it are passed over.
    pub fn until(&mut self, kind: &str) -> Value {
        loop {
            let socket = self.socket.as_mut().expect("it is connected");
            let message = socket.read().expect("the broker says more");
            let Message::Text(text) = message else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    fn say(&mut self, frame: &Value) {
        let socket = self.socket.as_mut().expect("it is connected");
        let text = Message::text(frame.to_string());
        socket.send(text).expect("the broker listens");
    }

    fn hello(&self) -> Value {
        let (parent, key) = (public(&self.member), self.key());
        let now = Wall(now_ms());
        let expires = Wall(now.0 + 3_600_000);
        let attested =
            canonical::bowline_attestation(&self.mesh, &parent, &key, Role::Session, expires);
        let hello = canonical::session_hello(&self.mesh, &parent, &key, now);
        json!({
            "type": "session_hello",
            "meshId": self.mesh,
            "parentMemberPubkey": parent,
            "sessionPubkey": key,
            "parentAttestation": {
                "sessionPubkey": key,
                "parentMemberPubkey": parent,
                "expiresAt": expires.0,
                "signature": RealCrypto.sign(&self.member, attested.as_bytes()),
            },
            "sessionId": self.name,
            "pid": 1,
            "cwd": "/",
            "displayName": self.name,
            "capabilities": ["features1", "live1", "attest1", "seal-x1"],
            "timestamp": now.0,
            "signature": RealCrypto.sign(&self.session, hello.as_bytes()),
        })
    }
}

fn post(broker: SocketAddr, path: &str, body: &Value) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answered = runtime.block_on(call(
        &Target::Tcp(broker.to_string()),
        "POST".parse().expect("a method"),
        path,
        &[],
        body.to_string().into(),
        1024 * 1024,
        SOON,
    ));
    let answered = answered.expect("the broker answers");
    serde_json::from_slice(&answered.body).expect("every answer is JSON")
}

fn secret(of: u8) -> SecretKey {
    // Its own in each test: every test has a broker of its own.
    SecretKey::from_bytes([of; 32])
}

fn public(secret: &SecretKey) -> PubKey {
    RealCrypto.public_key(secret)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.expect("this century").as_millis();
    u64::try_from(ms).expect("this century")
}

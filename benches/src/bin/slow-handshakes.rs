//! Whether handshakes that never end delay those who are there: pairs of sessions exchange messages
//! through a broker, without and then with 10,000 sockets that say nothing or next to nothing. The
//! broker is a process of its own, so that each of the two needs one descriptor a socket. All of it
//! stays on loopback and ends by itself. Prints one JSON object.
//!
//! ```text
//! cargo build --profile sim -p bowline-broker -p benches --bins
//! target/sim/slow-handshakes
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bowline_core::crypto::invite::{InviteTerms, InviteToken};
use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::{Crypto, SecretKey, canonical};
use bowline_core::id::{MeshId, PubKey, Role};
use bowline_core::store::mesh::MemberRole;
use bowline_core::time::Wall;
use bowline_core::wire::Base64Body;
use bowline_io::http::{Target, call};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const SLOW: usize = 10_000;
const PAIRS: usize = 50;
const MEASURED_FOR: Duration = Duration::from_secs(20);
const SENDS_EVERY: Duration = Duration::from_millis(100);
const DRIBBLES_EVERY: Duration = Duration::from_millis(500);
/// What the slow get to fill the broker's handshakes before anything is measured.
const FILLS_FOR: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
type Socket = WebSocketStream<TcpStream>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let descriptors = raise_descriptors()?;
    let data = tempfile::tempdir()?;
    let broker = Broker::start(data.path())?;
    let mut pairs = pairs(broker.address).await?;

    let (without, back) = measure(pairs).await?;
    pairs = back;
    let crowd = Arc::new(Crowd::default());
    let mut slow = JoinSet::new();
    for nth in 0..SLOW {
        slow.spawn(stay_slow(broker.address, nth, Arc::clone(&crowd)));
    }
    sleep(FILLS_FOR).await;
    let (with, _) = measure(pairs).await?;
    slow.shutdown().await;

    let said = json!({
        "pairs": PAIRS,
        "descriptors": descriptors,
        "without": without,
        "with": with,
        "slow": {
            "sockets": SLOW,
            "open_at_once": crowd.most_open.load(Ordering::Relaxed),
            "closed_by_the_broker": crowd.closed.load(Ordering::Relaxed),
        },
    });
    println!("{said}");
    Ok(())
}

/// As many as may be had: the broker inherits it.
fn raise_descriptors() -> Outcome<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    if most < SLOW as u64 + 1_000 {
        return Err(format!("{most} file descriptors are too few for {SLOW} sockets").into());
    }
    Ok(most)
}

struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// The one that lies beside this program.
    fn start(data: &std::path::Path) -> Outcome<Self> {
        let program = std::env::current_exe()?.with_file_name("bowline-broker");
        let mut child = Command::new(program)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)?;
        let address = said["listening"].as_str().ok_or("no address")?.parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How the slow fare.
#[derive(Default)]
struct Crowd {
    open: AtomicUsize,
    most_open: AtomicUsize,
    closed: AtomicUsize,
}

/// Dials, says too little, is closed, and dials again. A third of them says nothing, a third an
/// upgrade request a byte at a time, a third upgrades and says no hello.
async fn stay_slow(broker: SocketAddr, nth: usize, crowd: Arc<Crowd>) {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {broker}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    loop {
        // Not accepted: the kernel's queue is full, or the broker's is. It is dialed again.
        let Ok(mut stream) = TcpStream::connect(broker).await else {
            sleep(DRIBBLES_EVERY).await;
            continue;
        };
        let open = crowd.open.fetch_add(1, Ordering::Relaxed) + 1;
        crowd.most_open.fetch_max(open, Ordering::Relaxed);
        let said = match nth % 3 {
            0 => &[],
            1 => request.as_bytes(),
            _ => {
                // A failure is a close, which is found out below.
                let _closed = stream.write_all(request.as_bytes()).await;
                &[]
            }
        };
        until_closed(&mut stream, said).await;
        crowd.open.fetch_sub(1, Ordering::Relaxed);
        crowd.closed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn until_closed(stream: &mut TcpStream, said: &[u8]) {
    let mut left = said.iter();
    let mut tick = interval(DRIBBLES_EVERY);
    let mut heard = [0; 512];
    loop {
        tokio::select! {
            read = stream.read(&mut heard) => {
                if !read.is_ok_and(|bytes| bytes > 0) {
                    return;
                }
            }
            _ = tick.tick() => {
                if let Some(byte) = left.next()
                    && stream.write_all(&[*byte]).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

/// A sender, and the one it writes to.
struct Pair {
    sender: Socket,
    receiver: Socket,
    to: PubKey,
    sent: u64,
}

/// All pairs at once; from a send to its push.
async fn measure(pairs: Vec<Pair>) -> Outcome<(Value, Vec<Pair>)> {
    let until = Instant::now() + MEASURED_FOR;
    let mut running = JoinSet::new();
    for pair in pairs {
        running.spawn(exchange(pair, until));
    }
    let (mut micros, mut back) = (Vec::new(), Vec::new());
    while let Some(ended) = running.join_next().await {
        let (taken, pair) = ended??;
        micros.extend(taken);
        back.push(pair);
    }
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() - 1) * percent / 100] as f64 / 1_000.0;
    let told = json!({
        "messages": micros.len(),
        "p50_ms": at(50),
        "p99_ms": at(99),
        "max_ms": at(100),
    });
    Ok((told, back))
}

async fn exchange(mut pair: Pair, until: Instant) -> Outcome<(Vec<u64>, Pair)> {
    let mut micros = Vec::new();
    let mut tick = interval(SENDS_EVERY);
    while Instant::now() < until {
        tick.tick().await;
        pair.sent += 1;
        let id = format!("m{}", pair.sent);
        let send = json!({
            "type": "send", "id": id, "client_message_id": id, "first": true,
            "targetSpec": pair.to, "priority": "now", "seal": "x1",
            "nonce": Base64Body::encode(&[7; 24]).as_str(),
            "ciphertext": Base64Body::encode(&[b'x'; 256]).as_str(),
        });
        let begun = Instant::now();
        say(&mut pair.sender, &send).await?;
        let push = hear(&mut pair.receiver, "push").await?;
        micros.push(u64::try_from(begun.elapsed().as_micros())?);
        let taken = json!({"type": "client_ack", "brokerMessageId": push["messageId"]});
        say(&mut pair.receiver, &taken).await?;
        let ack = hear(&mut pair.sender, "ack").await?;
        if ack["queued"] != true {
            return Err(format!("refused: {ack}").into());
        }
    }
    Ok((micros, pair))
}

async fn pairs(broker: SocketAddr) -> Outcome<Vec<Pair>> {
    let (mesh, member) = found_mesh(broker).await?;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let (sender, _) = attach(broker, &mesh, &member).await?;
        let (receiver, to) = attach(broker, &mesh, &member).await?;
        pairs.push(Pair {
            sender,
            receiver,
            to,
            sent: 0,
        });
    }
    Ok(pairs)
}

/// A mesh and a member of it.
async fn found_mesh(broker: SocketAddr) -> Outcome<(MeshId, SecretKey)> {
    let (owner, member) = (secret()?, secret()?);
    let owner_key = RealCrypto.public_key(&owner);
    let now = now_ms()?;
    let signed = canonical::mesh("bench", &owner_key, "sealed", Wall(now));
    let creation = json!({
        "slug": "bench", "owner_pubkey": owner_key, "policy": "sealed", "timestamp": now,
        "signature": RealCrypto.sign(&owner, signed.as_bytes()),
    });
    let made = post(broker, "/meshes", &creation).await?;
    let mesh = MeshId::from(made["mesh_id"].as_str().ok_or("no mesh")?);
    let terms = InviteTerms {
        mesh_id: mesh.clone(),
        mesh_slug: "bench".into(),
        broker_url: format!("ws://{broker}/ws"),
        expires_at_s: now / 1_000 + 60,
        mesh_root_key: "cm9vdA".into(),
        role: MemberRole::Member,
    };
    let token = InviteToken::sign(&RealCrypto, &owner, terms).ok_or("bad terms")?;
    let joining = json!({
        "invite_token": token.encode(), "invite_payload": token,
        "peer_pubkey": RealCrypto.public_key(&member), "display_name": "bench",
    });
    post(broker, "/join", &joining).await?;
    Ok((mesh, member))
}

async fn post(broker: SocketAddr, path: &str, body: &Value) -> Outcome<Value> {
    let target = Target::Tcp(broker.to_string());
    let body = body.to_string().into();
    let answered = call(&target, "POST".parse()?, path, &[], body, 64 * 1024, SOON).await?;
    if answered.status.as_u16() != 200 {
        return Err(format!("{path}: {}", answered.status).into());
    }
    Ok(serde_json::from_slice(&answered.body)?)
}

/// A session of its own, live.
async fn attach(
    broker: SocketAddr,
    mesh: &MeshId,
    member: &SecretKey,
) -> Outcome<(Socket, PubKey)> {
    let session = secret()?;
    let (parent, key) = (
        RealCrypto.public_key(member),
        RealCrypto.public_key(&session),
    );
    let now = now_ms()?;
    let expires = Wall(now + 3_600_000);
    let attested = canonical::bowline_attestation(mesh, &parent, &key, Role::Session, expires);
    let signed = canonical::session_hello(mesh, &parent, &key, Wall(now));
    let hello = json!({
        "type": "session_hello", "meshId": mesh, "parentMemberPubkey": parent,
        "sessionPubkey": key, "sessionId": "bench", "pid": 1, "cwd": "/", "timestamp": now,
        "capabilities": ["features1", "attest1", "live1", "seal-x1"],
        "parentAttestation": {
            "sessionPubkey": key, "parentMemberPubkey": parent, "expiresAt": expires.0,
            "signature": RealCrypto.sign(member, attested.as_bytes()),
        },
        "signature": RealCrypto.sign(&session, signed.as_bytes()),
    });
    let stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{broker}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    say(&mut socket, &hello).await?;
    hear(&mut socket, "hello_ack").await?;
    Ok((socket, key))
}

async fn say(socket: &mut Socket, frame: &Value) -> Outcome<()> {
    Ok(socket.send(Message::text(frame.to_string())).await?)
}

/// The next frame of this kind; live events before it are of no interest.
async fn hear(socket: &mut Socket, kind: &str) -> Outcome<Value> {
    loop {
        let message = timeout(SOON, socket.next())
            .await?
            .ok_or("it is closed")??;
        let Message::Text(text) = message else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text)?;
        if frame["type"] == kind {
            return Ok(frame);
        }
        if frame["type"] == "error" {
            return Err(frame.to_string().into());
        }
    }
}

fn secret() -> Outcome<SecretKey> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(SecretKey::from_bytes(bytes))
}

fn now_ms() -> Outcome<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_millis())?)
}

//! A client of the dialect: sockets, signatures and boxes, driven by a script of frames. It shares no
//! code with what it speaks to: ed25519 and `crypto_box` come from their crates.
//!
//! A script is a file of JSON lines. Strings hold names in braces; values of one key beginning with
//! `$` are made (`$sign`, `$box`, `$nonce`, …) or matched (`$any`, `$absent`, `$has`, `$holds`,
//! `$opens`). What a frame says beyond what is asked of it is ignored, as a client would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Nothing here takes longer, unless it is broken.
const SOON: Duration = Duration::from_secs(20);

pub struct Script {
    address: SocketAddr,
    names: BTreeMap<String, Value>,
    sockets: BTreeMap<String, Socket>,
}

struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// System events that stood between the frames that were waited for.
    told: Vec<Value>,
}

impl Script {
    pub fn new(address: SocketAddr) -> Self {
        let url = json!(format!("ws://{address}/ws"));
        Self {
            address,
            names: [("url".to_owned(), url)].into(),
            sockets: BTreeMap::new(),
        }
    }

    pub async fn play(&mut self, script: &str) {
        for (nth, line) in script.lines().enumerate() {
            let step: Value = serde_json::from_str(line).expect("a line of JSON");
            let taken = timeout(SOON, self.step(&step)).await;
            assert!(taken.is_ok(), "line {}: nothing came: {line}", nth + 1);
            if let Err(why) = taken.unwrap() {
                panic!("line {}: {why}\n  {line}", nth + 1);
            }
        }
    }

    /// Binds a name for the lines to come.
    pub fn bind(&mut self, name: &str, value: Value) {
        self.names.insert(name.to_owned(), value);
    }

    async fn step(&mut self, step: &Value) -> Result<(), String> {
        if let Some(keys) = step["keys"].as_array() {
            for name in keys.iter().filter_map(Value::as_str) {
                let key = hex::encode(signing_key(name).verifying_key());
                self.bind(&format!("{name}_key"), json!(key));
            }
        }
        if let Some(lets) = step["let"].as_object() {
            for (name, value) in lets {
                let value = self.made(value);
                self.bind(name, value);
            }
        }
        if let Some(path) = step["post"].as_str() {
            let body = self.made(&step["body"]);
            let answer = post(self.address, path, &body).await;
            return self.matches(&step["answers"], Some(&answer));
        }
        let Some(who) = step["who"].as_str() else {
            return Ok(());
        };
        if step["dials"] == true {
            let url = self.names["url"].as_str().expect("a text").to_owned();
            let (stream, _) = tokio_tungstenite::connect_async(url)
                .await
                .map_err(|error| error.to_string())?;
            let told = Vec::new();
            self.sockets.insert(who.to_owned(), Socket { stream, told });
        }
        if step["drops"] == true {
            self.sockets.remove(who);
        }
        if step["forgets"] == true {
            self.socket(who).told.clear();
        }
        if let Some(frame) = step.get("says") {
            let text = self.made(frame).to_string();
            let sent = self.socket(who).stream.send(Message::text(text)).await;
            sent.map_err(|error| error.to_string())?;
        }
        if let Some(wanted) = step.get("hears") {
            let since = Instant::now();
            let system = wanted["subtype"] == "system";
            let frame = self.socket(who).next(system).await?;
            self.matches(wanted, Some(&frame))
                .map_err(|why| format!("{why} in {frame}"))?;
            let least = Duration::from_millis(step["after_ms"].as_u64().unwrap_or(0));
            if since.elapsed() < least {
                return Err(format!("it came after {:?} already", since.elapsed()));
            }
        }
        if let Some(events) = step.get("was_told") {
            let told = json!(self.socket(who).told);
            return self.matches(events, Some(&told));
        }
        if let Some(code) = step["is_closed"].as_u64() {
            let (was, reason) = self.socket(who).closed().await?;
            let as_it_should = u64::from(was) == code && step["reason"] == *reason;
            if !as_it_should {
                return Err(format!("closed {was} {reason:?}"));
            }
        }
        Ok(())
    }

    fn socket(&mut self, who: &str) -> &mut Socket {
        self.sockets.get_mut(who).expect("it dialled")
    }

    /// A value of the script with its names filled in and its `$` values made.
    fn made(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.filled(text),
            Value::Array(items) => items.iter().map(|item| self.made(item)).collect(),
            Value::Object(fields) => self.computed(value).unwrap_or_else(|| {
                let made = fields
                    .iter()
                    .map(|(key, one)| (key.clone(), self.made(one)));
                Value::Object(made.collect())
            }),
            other => other.clone(),
        }
    }

    /// A text that is one name is what the name stands for.
    fn filled(&self, text: &str) -> Value {
        let whole = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        if let Some(value) = whole.and_then(|name| self.names.get(name)) {
            return value.clone();
        }
        let mut filled = text.to_owned();
        for (name, value) in &self.names {
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            filled = filled.replace(&format!("{{{name}}}"), &value);
        }
        json!(filled)
    }

    fn computed(&self, value: &Value) -> Option<Value> {
        let text = |value: &Value| self.made(value).as_str().expect("a text").to_owned();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        if let Some(later) = value["$ms"].as_u64() {
            return Some(json!(now.as_millis() as u64 + later));
        }
        if let Some(later) = value["$s"].as_u64() {
            return Some(json!(now.as_secs() + later));
        }
        if let Some(signer) = value["$sign"].as_str() {
            let signature = signing_key(signer).sign(text(&value["text"]).as_bytes());
            return Some(json!(hex::encode(signature.to_bytes())));
        }
        if let Some(inner) = value.get("$base64url") {
            let json = self.made(inner).to_string();
            return Some(json!(Base64UrlUnpadded::encode_string(json.as_bytes())));
        }
        if let Some(name) = value["$nonce"].as_str() {
            return Some(json!(Base64::encode_string(&nonce(name))));
        }
        if let Some(sealing) = value.get("$box") {
            let from = sealing["from"].as_str().expect("a sender");
            let theirs = text(&json!(format!("{{{}_key}}", sealing["to"].as_str()?)));
            let nonce = nonce(sealing["nonce"].as_str().expect("a nonce"));
            let sealed = salsa_box(from, &theirs)
                .encrypt(&nonce.into(), text(&sealing["text"]).as_bytes())
                .expect("it seals");
            return Some(json!(Base64::encode_string(&sealed)));
        }
        let times = value["times"].as_u64()?;
        Some(json!(
            value["$repeat"]
                .as_str()?
                .repeat(usize::try_from(times).ok()?)
        ))
    }

    /// Binds names that are not bound yet.
    fn matches(&mut self, wanted: &Value, given: Option<&Value>) -> Result<(), String> {
        if wanted["$absent"] == true {
            return match given {
                None | Some(Value::Null) => Ok(()),
                Some(given) => Err(format!("{given} should not be there")),
            };
        }
        let given = given.ok_or_else(|| format!("no {wanted}"))?;
        if let Some(least) = wanted["$has"].as_array() {
            let items = given.as_array().ok_or("no list")?.clone();
            for one in least {
                let is_there = items
                    .iter()
                    .any(|item| self.matches(one, Some(item)).is_ok());
                if !is_there {
                    return Err(format!("no {one}"));
                }
            }
            return Ok(());
        }
        if let Some(part) = wanted["$holds"].as_str() {
            let holds = given.as_str().is_some_and(|text| text.contains(part));
            return holds.then_some(()).ok_or(format!("{given} without {part}"));
        }
        match (wanted, given) {
            (Value::Object(fields), _) if fields.contains_key("$any") => Ok(()),
            (Value::Object(fields), Value::Object(_)) => {
                for (key, one) in fields {
                    let field = given.get(key);
                    match one.get("$opens") {
                        Some(opens) => self.opens(opens, given, field)?,
                        None => self
                            .matches(one, field)
                            .map_err(|why| format!("{key}: {why}"))?,
                    }
                }
                Ok(())
            }
            (Value::Array(wanted), Value::Array(given)) if wanted.len() == given.len() => {
                for (one, given) in wanted.iter().zip(given) {
                    self.matches(one, Some(given))?;
                }
                Ok(())
            }
            (Value::String(text), _) => {
                let name = text
                    .strip_prefix('{')
                    .and_then(|text| text.strip_suffix('}'));
                if let Some(name) = name.filter(|name| !self.names.contains_key(*name)) {
                    self.bind(name, given.clone());
                    return Ok(());
                }
                let filled = self.filled(text);
                (filled == *given)
                    .then_some(())
                    .ok_or(format!("{given} and not {filled}"))
            }
            _ if wanted == given => Ok(()),
            _ => Err(format!("{given} and not {wanted}")),
        }
    }

    fn opens(&self, opens: &Value, push: &Value, field: Option<&Value>) -> Result<(), String> {
        let by = opens["by"].as_str().expect("a recipient");
        let from = self.filled(&format!(
            "{{{}_key}}",
            opens["from"].as_str().expect("a sender")
        ));
        let bytes = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str).unwrap_or_default();
            Base64::decode_vec(text).map_err(|error| error.to_string())
        };
        let nonce: [u8; 24] = bytes(push.get("nonce"))?
            .try_into()
            .map_err(|_| "a nonce has 24 bytes")?;
        let opened = salsa_box(by, from.as_str().expect("a key"))
            .decrypt(&nonce.into(), &bytes(field)?[..])
            .map_err(|_| "it does not open")?;
        let wanted = self.filled(opens["text"].as_str().expect("a text"));
        let text = String::from_utf8_lossy(&opened);
        (wanted == *text)
            .then_some(())
            .ok_or(format!("it holds {text:?}"))
    }
}

impl Socket {
    /// The next frame. `system`: those that tell of peers are no interruption.
    async fn next(&mut self, system: bool) -> Result<Value, String> {
        loop {
            let message = self.stream.next().await.ok_or("the socket is gone")?;
            let text = match message.map_err(|error| error.to_string())? {
                Message::Text(text) => text,
                Message::Close(close) => return Err(format!("closed: {close:?}")),
                _ => continue,
            };
            let frame: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if system || frame["subtype"] != "system" {
                return Ok(frame);
            }
            self.told.push(frame);
        }
    }

    async fn closed(&mut self) -> Result<(u16, String), String> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Close(Some(close)))) => {
                    return Ok((close.code.into(), close.reason.to_string()));
                }
                Some(Ok(Message::Text(text))) if !text.contains("\"system\"") => {
                    return Err(format!("heard {text}"));
                }
                Some(Ok(_)) => {}
                other => return Err(format!("{other:?}")),
            }
        }
    }
}

/// Whose key that is follows from the name.
fn signing_key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(name).into())
}

fn nonce(name: &str) -> [u8; 24] {
    let hash: [u8; 32] = Sha256::digest(name).into();
    let (nonce, _) = hash.split_first_chunk().expect("a hash is longer");
    *nonce
}

/// libsodium's `crypto_box` between the X25519 forms of two ed25519 keys.
fn salsa_box(mine: &str, theirs: &str) -> SalsaBox {
    let secret = SecretKey::from(signing_key(mine).to_scalar_bytes());
    let key: [u8; 32] = hex::decode(theirs)
        .ok()
        .and_then(|key| key.try_into().ok())
        .expect("a key in hex");
    let theirs = VerifyingKey::from_bytes(&key).expect("a point");
    SalsaBox::new(&PublicKey::from(theirs.to_montgomery().to_bytes()), &secret)
}

async fn post(to: SocketAddr, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(to).await.expect("somebody listens");
    stream.write_all(head.as_bytes()).await.expect("it is read");
    stream.write_all(body.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

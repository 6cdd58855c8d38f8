//! Bytes to frames, with every limit that belongs to a frame's shape.
//!
//! Two passes: a light borrowed head says what the frame is and to whom an answer goes, then the
//! struct of that type is read. Unknown fields are ignored. What is too long is cut where the wire
//! says so (what a peer calls itself) and refused elsewhere.
//!
//! Deliberately absent: how long a `ciphertext` may be (a setting of the mesh) and how long a frame
//! may be (whoever reads the socket), but for hellos.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::broker::{BrokerFrame, Event, EventData, EventKind};
use super::client::{
    About, ClientAck, ClientFrame, MemberHello, Profile, ReqId, Send, SessionHello,
};
use super::receipt::{Explain, MESSAGE_ID_PREFIX, MessageStatus, Seen};
use super::{HelloCode, Status, moderation};
use crate::id::PubKey;
use crate::limits::{
    HELLO_FRAME_BYTES, HOSTNAME_BYTES, ID_BYTES, MENTIONS, NAME_BYTES, PATH_BYTES,
    SEEN_IDS_PER_FRAME, STATS_BYTES, STATUS_TEXT_BYTES, SUMMARY_BYTES,
};

/// Why a text is no frame, with what an answer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientDecodeError {
    /// Not a JSON object with a string `type`.
    Garbage,
    /// A `type` that is not ours.
    Unknown {
        kind: String,
        id: Option<String>,
        req_id: Option<ReqId>,
    },
    /// A field is missing or not what it should be. A `send` with an `id` is owed a refused `ack`.
    Bad {
        kind: String,
        id: Option<String>,
        req_id: Option<ReqId>,
        detail: String,
    },
    /// The same of either hello.
    BadHello {
        code: HelloCode,
        req_id: Option<ReqId>,
        detail: String,
    },
}

/// Why a broker's text is no frame. There is nobody to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerDecodeError {
    #[error("not a JSON object with a string `type`")]
    Garbage,
    #[error("`{kind}`: {detail}")]
    Bad { kind: String, detail: String },
}

pub fn decode_client(text: &[u8]) -> Result<ClientFrame, ClientDecodeError> {
    let text = str::from_utf8(text).map_err(|_| ClientDecodeError::Garbage)?;
    let head = Head::read(text).ok_or(ClientDecodeError::Garbage)?;
    let kind = head.kind.as_ref();
    let frame = match kind {
        // Reading one takes many times its length: where it would not have come over a socket it is
        // not read here either.
        "hello" | "session_hello" if text.len() > HELLO_FRAME_BYTES => {
            return Err(ClientDecodeError::BadHello {
                code: HelloCode::Malformed,
                req_id: head.req_id(),
                detail: format!("a hello is at most {HELLO_FRAME_BYTES} bytes long"),
            });
        }
        "hello" => return hello(text, &head),
        "session_hello" => return session_hello(text, &head),
        "send" => read::<Send>(text).and_then(checked_send),
        "client_ack" => client_ack(text),
        "list_peers" => list_peers(text, &head),
        "set_status" => read::<SetStatus>(text).map(|f| ClientFrame::SetStatus {
            status: f.status,
            req_id: head.req_id(),
        }),
        "set_summary" => read::<SetSummary>(text).map(|mut f| {
            cut(&mut f.summary, SUMMARY_BYTES);
            ClientFrame::SetSummary {
                summary: f.summary,
                req_id: head.req_id(),
            }
        }),
        "join_group" => join_group(text, &head),
        "leave_group" => leave_group(text, &head),
        "set_visible" => read::<SetVisible>(text).map(|f| ClientFrame::SetVisible {
            visible: f.visible,
            id: head.id(),
            req_id: head.req_id(),
        }),
        "set_profile" => read::<Profile>(text).map(|mut profile| {
            cut_profile(&mut profile);
            ClientFrame::SetProfile {
                profile,
                id: head.id(),
                req_id: head.req_id(),
            }
        }),
        "set_stats" => set_stats(text, &head),
        "seen" => read(text).and_then(checked_seen),
        "message_status" => read(text).and_then(checked_message_status),
        "explain" => read(text).and_then(checked_explain),
        "kick" => moderation::whom(text).map(|whom| ClientFrame::Kick {
            whom,
            req_id: head.req_id(),
        }),
        "disconnect" => moderation::whom(text).map(|whom| ClientFrame::Disconnect {
            whom,
            req_id: head.req_id(),
        }),
        "ban" => moderation::target(text).map(|target| ClientFrame::Ban {
            target,
            req_id: head.req_id(),
        }),
        "unban" => moderation::target(text).map(|target| ClientFrame::Unban {
            target,
            req_id: head.req_id(),
        }),
        "list_bans" => list_bans(text, &head),
        "bye" => Ok(ClientFrame::Bye),
        "ping" => read::<Ping>(text).map(|f| ClientFrame::Ping { n: f.n }),
        unknown => {
            return Err(ClientDecodeError::Unknown {
                kind: shortened(unknown),
                id: head.id(),
                req_id: head.req_id(),
            });
        }
    };
    frame
        .and_then(|frame| head.check(text).map(|()| frame))
        .map_err(|detail| ClientDecodeError::Bad {
            kind: kind.into(),
            id: if kind == "send" {
                head.id.as_deref().map(String::from)
            } else {
                head.id()
            },
            req_id: head.req_id(),
            detail: shortened(&detail),
        })
}

pub fn decode_broker(text: &[u8]) -> Result<BrokerFrame, BrokerDecodeError> {
    let text = str::from_utf8(text).map_err(|_| BrokerDecodeError::Garbage)?;
    let head = Head::read(text).ok_or(BrokerDecodeError::Garbage)?;
    let frame = match head.kind.as_ref() {
        "hello_ack" => read(text).map(|f| BrokerFrame::HelloAck(Box::new(f))),
        "ack" => read(text).map(|f| BrokerFrame::Ack(Box::new(f))),
        "push" if head.is_system => Ok(system_push(text)),
        "push" => read(text).map(|f| BrokerFrame::Push(Box::new(f))),
        "event" => read(text).map(BrokerFrame::Event),
        "stream" => read(text).map(BrokerFrame::Stream),
        "peers_list" => read(text).map(BrokerFrame::PeersList),
        "receipt" => read(text).map(BrokerFrame::Receipt),
        "message_status_result" => read(text).map(BrokerFrame::MessageStatusResult),
        "explain_result" => read(text).map(|f| BrokerFrame::ExplainResult(Box::new(f))),
        "kick_ack" => read(text).map(BrokerFrame::KickAck),
        "disconnect_ack" => read(text).map(BrokerFrame::DisconnectAck),
        "ban_ack" => read(text).map(BrokerFrame::BanAck),
        "unban_ack" => read(text).map(BrokerFrame::UnbanAck),
        "list_bans_result" => read(text).map(BrokerFrame::ListBansResult),
        "error" => read(text).map(BrokerFrame::Error),
        "ok" => Ok(BrokerFrame::Ok {
            req_id: head.req_id(),
        }),
        "pong" => read::<Ping>(text).map(|f| BrokerFrame::Pong { n: f.n }),
        _ => Ok(BrokerFrame::Unknown),
    };
    frame.map_err(|detail| BrokerDecodeError::Bad {
        kind: shortened(&head.kind),
        detail: shortened(&detail),
    })
}

/// Cuts `text` to at most `most` bytes, at a character.
pub fn cut(text: &mut String, most: usize) {
    text.truncate(floor_boundary(text, most));
}

/// The first pass. `id` and `_reqId` count only where they are strings.
#[derive(Default)]
struct Head<'a> {
    kind: Cow<'a, str>,
    id: Option<Cow<'a, str>>,
    req_id: Option<Cow<'a, str>>,
    /// `subtype:"system"` of a push.
    is_system: bool,
}

impl<'a> Head<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // What cannot be held in a string (a lone surrogate) in one of the others must not hide
        // the type.
        serde_json::from_str(text).ok().or_else(|| {
            let only: OnlyKind<'a> = serde_json::from_str(text).ok()?;
            Some(Self {
                kind: only.kind,
                ..Self::default()
            })
        })
    }

    /// As far as an answer may repeat it.
    fn id(&self) -> Option<String> {
        self.id
            .as_deref()
            .filter(|id| id.len() <= ID_BYTES)
            .map(String::from)
    }

    fn req_id(&self) -> Option<ReqId> {
        self.req_id
            .as_deref()
            .filter(|id| id.len() <= ID_BYTES)
            .map(|id| ReqId(id.into()))
    }

    /// What holds for every frame of a client.
    fn check(&self, text: &str) -> Result<(), String> {
        if has_nul(text) {
            return Err("a text holds a NUL".into());
        }
        id("id", self.id.as_deref())?;
        id("_reqId", self.req_id.as_deref())
    }
}

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct HeadVisitor;

        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a frame")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                let mut kind = None;
                while let Some(MaybeText(key)) = map.next_key()? {
                    match key.as_deref().unwrap_or_default() {
                        "type" => MaybeText(kind) = map.next_value()?,
                        "id" => MaybeText(head.id) = map.next_value()?,
                        "_reqId" => MaybeText(head.req_id) = map.next_value()?,
                        "subtype" => {
                            let MaybeText(subtype) = map.next_value()?;
                            head.is_system = subtype.as_deref() == Some("system");
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                head.kind = kind.ok_or_else(|| de::Error::missing_field("type"))?;
                Ok(head)
            }
        }

        d.deserialize_map(HeadVisitor)
    }
}

#[derive(Deserialize)]
struct OnlyKind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// A string, borrowed where it holds no escape; anything else counts as absent.
struct MaybeText<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for MaybeText<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct MaybeTextVisitor;

        impl<'de> Visitor<'de> for MaybeTextVisitor {
            type Value = MaybeText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Owned(text.into()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(seq)?;
                Ok(MaybeText(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_map(map)?;
                Ok(MaybeText(None))
            }
        }

        d.deserialize_any(MaybeTextVisitor)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn hello(text: &str, head: &Head<'_>) -> Result<ClientFrame, ClientDecodeError> {
    let checked = || {
        let mut hello: MemberHello = read(text)?;
        head.check(text)?;
        id("meshId", Some(hello.mesh_id.as_str()))?;
        id("memberId", Some(hello.member_id.as_str()))?;
        id("sessionId", Some(hello.session_id.as_str()))?;
        cut_about(&mut hello.about);
        Ok(ClientFrame::Hello(Box::new(hello)))
    };
    checked().map_err(|detail| bad_hello(text, head, detail))
}

fn session_hello(text: &str, head: &Head<'_>) -> Result<ClientFrame, ClientDecodeError> {
    let checked = || {
        let mut hello: SessionHello = read(text)?;
        head.check(text)?;
        id("meshId", Some(hello.mesh_id.as_str()))?;
        id(
            "parentMemberId",
            hello.parent_member_id.as_ref().map(|id| id.as_str()),
        )?;
        id("sessionId", Some(hello.session_id.as_str()))?;
        if let Some(role) = &mut hello.role {
            cut(role, NAME_BYTES);
        }
        cut_about(&mut hello.about);
        Ok(ClientFrame::SessionHello(Box::new(hello)))
    };
    checked().map_err(|detail| bad_hello(text, head, detail))
}

/// Keys that are no keys have codes of their own.
fn bad_hello(text: &str, head: &Head<'_>, detail: String) -> ClientDecodeError {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Keys {
        session_pubkey: Option<Value>,
        parent_member_pubkey: Option<Value>,
    }

    let is_bad = |field: &Option<Value>| {
        let is_key = |key: &str| key.parse::<PubKey>().is_ok();
        field
            .as_ref()
            .is_some_and(|value| !value.as_str().is_some_and(is_key))
    };
    let code = match serde_json::from_str::<Keys>(text) {
        Ok(keys) if is_bad(&keys.parent_member_pubkey) => HelloCode::BadParentPubkey,
        Ok(keys) if is_bad(&keys.session_pubkey) => HelloCode::BadSessionPubkey,
        _ => HelloCode::Malformed,
    };
    ClientDecodeError::BadHello {
        code,
        req_id: head.req_id(),
        detail: shortened(&detail),
    }
}

fn checked_send(send: Send) -> Result<ClientFrame, String> {
    if send.target_spec.len() > ID_BYTES {
        return Err(too_long("targetSpec", ID_BYTES));
    }
    if let Some(own) = &send.client_message_id {
        id("client_message_id", Some(own.as_str()))?;
        if own.as_str().is_empty() {
            return Err("client_message_id is empty".into());
        }
    }
    id("replyToId", send.reply_to_id.as_ref().map(|id| id.as_str()))?;
    id("seal", send.seal.as_deref())?;
    if send.mentions.len() > MENTIONS {
        return Err(format!("more than {MENTIONS} mentions"));
    }
    send.mentions
        .iter()
        .try_for_each(|mention| id("mentions", Some(mention)))?;
    if !matches!(send.nonce.len(), 0 | NONCE_CHARACTERS) {
        return Err("nonce is not 24 bytes in base64".into());
    }
    Ok(ClientFrame::Send(Box::new(send)))
}

/// 24 bytes in base64.
const NONCE_CHARACTERS: usize = 32;

fn client_ack(text: &str) -> Result<ClientFrame, String> {
    let ack: ClientAck = read(text)?;
    // A recipient may be given a longer id than its sender chose: the message's, and part of a key.
    if let Some(own) = &ack.client_message_id
        && own.as_str().len() > 2 * ID_BYTES
    {
        return Err(too_long("clientMessageId", 2 * ID_BYTES));
    }
    id(
        "brokerMessageId",
        ack.broker_message_id.as_ref().map(|id| id.as_str()),
    )?;
    Ok(ClientFrame::ClientAck(ack))
}

fn checked_seen(seen: Seen) -> Result<ClientFrame, String> {
    if seen.ids.len() > SEEN_IDS_PER_FRAME {
        return Err(format!("more than {SEEN_IDS_PER_FRAME} ids"));
    }
    seen.ids.iter().try_for_each(|own| id("ids", Some(own)))?;
    Ok(ClientFrame::Seen(seen))
}

fn checked_message_status(status: MessageStatus) -> Result<ClientFrame, String> {
    let asked = &status.message_id;
    if !MESSAGE_ID_PREFIX.contains(&asked.len())
        || !asked.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err("messageId is 8 to 32 letters and digits".into());
    }
    Ok(ClientFrame::MessageStatus(status))
}

fn checked_explain(explain: Explain) -> Result<ClientFrame, String> {
    if explain.id.is_empty() {
        return Err("id is empty".into());
    }
    id("id", Some(&explain.id))?;
    Ok(ClientFrame::Explain(explain))
}

fn list_peers(text: &str, head: &Head<'_>) -> Result<ClientFrame, String> {
    #[derive(Deserialize)]
    struct ListPeers {
        after: Option<String>,
        limit: Option<u32>,
    }

    let ListPeers { after, limit } = read(text)?;
    id("after", after.as_deref())?;
    Ok(ClientFrame::ListPeers {
        after,
        limit,
        req_id: head.req_id(),
    })
}

fn list_bans(text: &str, head: &Head<'_>) -> Result<ClientFrame, String> {
    #[derive(Deserialize)]
    struct ListBans {
        after: Option<String>,
    }

    let ListBans { after } = read(text)?;
    id("after", after.as_deref())?;
    Ok(ClientFrame::ListBans {
        after,
        req_id: head.req_id(),
    })
}

fn join_group(text: &str, head: &Head<'_>) -> Result<ClientFrame, String> {
    #[derive(Deserialize)]
    struct JoinGroup {
        name: String,
        role: Option<String>,
    }

    let JoinGroup { name, role } = read(text)?;
    group_name(&name)?;
    if role.as_ref().is_some_and(|role| role.len() > NAME_BYTES) {
        return Err(too_long("role", NAME_BYTES));
    }
    Ok(ClientFrame::JoinGroup {
        name,
        role,
        req_id: head.req_id(),
    })
}

fn leave_group(text: &str, head: &Head<'_>) -> Result<ClientFrame, String> {
    #[derive(Deserialize)]
    struct LeaveGroup {
        name: String,
    }

    let LeaveGroup { name } = read(text)?;
    group_name(&name)?;
    Ok(ClientFrame::LeaveGroup {
        name,
        req_id: head.req_id(),
    })
}

fn set_stats(text: &str, head: &Head<'_>) -> Result<ClientFrame, String> {
    #[derive(Deserialize)]
    struct SetStats {
        stats: Value,
    }

    if text.len() > 2 * STATS_BYTES {
        return Err(too_long("stats", STATS_BYTES));
    }
    let SetStats { stats } = read(text)?;
    if stats.to_string().len() > STATS_BYTES {
        return Err(too_long("stats", STATS_BYTES));
    }
    Ok(ClientFrame::SetStats {
        stats,
        req_id: head.req_id(),
    })
}

#[derive(Deserialize)]
struct SetStatus {
    status: Status,
}

#[derive(Deserialize)]
struct SetSummary {
    summary: String,
}

#[derive(Deserialize)]
struct SetVisible {
    visible: bool,
}

#[derive(Deserialize)]
struct Ping {
    n: Option<u64>,
}

/// What a client without `live1` is told of others. Kinds of other dialects are ignored.
fn system_push(text: &str) -> BrokerFrame {
    #[derive(Deserialize)]
    struct SystemPush {
        event: EventKind,
        #[serde(rename = "eventData")]
        data: EventData,
    }

    match read(text) {
        Ok(SystemPush { event: kind, data }) => BrokerFrame::Event(Event { kind, data }),
        Err(_) => BrokerFrame::Unknown,
    }
}

fn cut_about(about: &mut About) {
    let About {
        pid: _,
        cwd,
        display_name,
        hostname,
        peer_type,
        channel,
        model,
        groups,
    } = about;
    cut(cwd, PATH_BYTES);
    cut_each(hostname, HOSTNAME_BYTES);
    for name in [display_name, peer_type, channel, model] {
        cut_each(name, NAME_BYTES);
    }
    for group in groups {
        cut(&mut group.name, NAME_BYTES);
        cut_each(&mut group.role, NAME_BYTES);
    }
}

fn cut_profile(profile: &mut Profile) {
    let Profile {
        avatar,
        title,
        bio,
        capabilities,
    } = profile;
    cut_each(avatar, SUMMARY_BYTES);
    cut_each(title, STATUS_TEXT_BYTES);
    cut_each(bio, SUMMARY_BYTES);
    cut_each(capabilities, NAME_BYTES);
}

fn cut_each<'a>(texts: impl IntoIterator<Item = &'a mut String>, most: usize) {
    texts.into_iter().for_each(|text| cut(text, most));
}

pub(super) fn id(field: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(value) if value.len() > ID_BYTES => Err(too_long(field, ID_BYTES)),
        _ => Ok(()),
    }
}

/// A group is an address: cut, it would be another.
fn group_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("name is empty".into()),
        length if length > NAME_BYTES => Err(too_long("name", NAME_BYTES)),
        _ => Ok(()),
    }
}

fn too_long(field: &str, most: usize) -> String {
    format!("{field} is longer than {most} bytes")
}

/// Texts of the other side and errors that may quote them, as far as they are repeated.
pub(super) fn shortened(text: &str) -> String {
    text[..floor_boundary(text, ID_BYTES)].into()
}

fn floor_boundary(text: &str, most: usize) -> usize {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

/// JSON has a NUL only as an escape; an escaped backslash before `u0000` is not one.
fn has_nul(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        if escape.starts_with("u0000") {
            return true;
        }
        let mut escaped = escape.chars();
        escaped.next();
        rest = escaped.as_str();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use serde_json::json;

    const KEY: &str = "0a00000000000000000000000000000000000000000000000000000000000000";

    fn decode(json: &Value) -> Result<ClientFrame, ClientDecodeError> {
        decode_client(json.to_string().as_bytes())
    }

    fn send() -> Value {
        json!({
            "type": "send", "id": "s1", "targetSpec": KEY, "priority": "next",
            "nonce": "", "ciphertext": "AAAA", "client_message_id": "c1",
        })
    }

    fn hello() -> Value {
        json!({
            "type": "hello", "meshId": "m1", "memberId": "p1", "pubkey": KEY, "sessionId": "s1",
            "pid": 7, "cwd": "/tmp", "displayName": "alice", "timestamp": 1,
            "signature": "00".repeat(64),
        })
    }

    fn with(mut json: Value, field: &str, value: Value) -> Value {
        json[field] = value;
        json
    }

    fn detail_of(json: &Value) -> String {
        match decode(json) {
            Err(
                ClientDecodeError::Bad { detail, .. } | ClientDecodeError::BadHello { detail, .. },
            ) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_an_object_with_a_string_type_is_a_frame() {
        let texts: [&[u8]; 9] = [
            b"",
            b"hello",
            b"[]",
            b"7",
            b"{}",
            b"{\"type\":7}",
            b"{\"type\":\"ping\"",
            b"{\"type\":\"ping\"} x",
            b"\xff",
        ];
        for text in texts {
            assert_eq!(decode_client(text), Err(ClientDecodeError::Garbage));
            assert_eq!(decode_broker(text), Err(BrokerDecodeError::Garbage));
        }
    }

    #[test]
    fn an_unknown_type_is_told_with_what_its_answer_needs() {
        let json = json!({"type": "mint_coin", "id": "a", "_reqId": "b", "x": [{}]});
        assert_eq!(
            decode(&json),
            Err(ClientDecodeError::Unknown {
                kind: "mint_coin".into(),
                id: Some("a".into()),
                req_id: Some(ReqId("b".into())),
            })
        );
        assert_eq!(
            decode_broker(json.to_string().as_bytes()),
            Ok(BrokerFrame::Unknown)
        );
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert!(decode(&with(send(), "colour", json!({"deep": [1, null]}))).is_ok());
        assert!(decode(&with(hello(), "colour", json!("blue"))).is_ok());
    }

    #[test]
    fn a_bad_send_keeps_the_id_that_its_ack_needs() {
        for json in [
            with(send(), "priority", json!("soon")),
            with(send(), "ciphertext", json!("not base64!")),
            with(send(), "nonce", json!("AAAA")),
            with(send(), "mentions", json!(alloc::vec!["a"; 17])),
            with(send(), "client_message_id", json!("c".repeat(129))),
            with(send(), "client_message_id", json!("")),
            with(send(), "request_fingerprint", json!("abc")),
            with(send(), "targetSpec", Value::Null),
        ] {
            match decode(&json) {
                Err(ClientDecodeError::Bad { kind, id, .. }) => {
                    assert_eq!((kind.as_str(), id.as_deref()), ("send", Some("s1")));
                }
                other => panic!("{json} gave {other:?}"),
            }
        }
    }

    #[test]
    fn an_id_that_is_too_long_is_refused_under_that_id() {
        let long = "i".repeat(ID_BYTES + 1);
        match decode(&with(send(), "id", json!(long))) {
            Err(ClientDecodeError::Bad { id, .. }) => assert_eq!(id, Some(long)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_length_of_a_ciphertext_is_not_judged_here() {
        let json = with(send(), "ciphertext", json!("A".repeat(400_000)));
        assert!(matches!(decode(&json), Ok(ClientFrame::Send(_))));
    }

    #[test]
    fn names_with_a_nul_are_refused() {
        assert_eq!(
            detail_of(&with(hello(), "displayName", json!("a\0b"))),
            "a text holds a NUL"
        );
        for json in [
            json!({"type": "set_summary", "summary": "\0"}),
            json!({"type": "join_group", "name": "a\0"}),
            json!({"type": "set_profile", "title": "a\0"}),
            with(send(), "id", json!("a\0")),
        ] {
            assert_eq!(detail_of(&json), "a text holds a NUL");
        }
    }

    #[test]
    fn an_escaped_backslash_does_not_make_a_nul() {
        let text = br#"{"type":"set_summary","summary":"\\u0000 \n \\\\u0000"}"#;
        assert_eq!(
            decode_client(text),
            Ok(ClientFrame::SetSummary {
                summary: "\\u0000 \n \\\\u0000".into(),
                req_id: None
            })
        );
        let text = br#"{"type":"set_summary","summary":"\\\u0000"}"#;
        assert!(matches!(
            decode_client(text),
            Err(ClientDecodeError::Bad { .. })
        ));
    }

    #[test]
    fn names_with_a_lone_surrogate_are_refused() {
        let broken = |json: Value| json.to_string().replace("HERE", "\\ud800");
        let name = broken(with(hello(), "displayName", json!("HERE")));
        assert!(matches!(
            decode_client(name.as_bytes()),
            Err(ClientDecodeError::BadHello {
                code: HelloCode::Malformed,
                ..
            })
        ));
        let summary = broken(json!({"type": "set_summary", "summary": "HERE", "_reqId": "r"}));
        match decode_client(summary.as_bytes()) {
            Err(ClientDecodeError::Bad { req_id, .. }) => {
                assert_eq!(req_id, Some(ReqId("r".into())));
            }
            other => panic!("{other:?}"),
        }
        let id = broken(with(send(), "id", json!("HERE")));
        match decode_client(id.as_bytes()) {
            Err(ClientDecodeError::Bad { kind, id, .. }) => {
                assert_eq!((kind.as_str(), id), ("send", None));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_that_are_too_long_are_cut_at_a_character() {
        let long = "é".repeat(NAME_BYTES);
        match decode(&with(hello(), "displayName", json!(format!("x{long}")))) {
            Ok(ClientFrame::Hello(hello)) => {
                let name = hello.about.display_name.unwrap();
                assert_eq!(name, format!("x{}", "é".repeat((NAME_BYTES - 1) / 2)));
            }
            other => panic!("{other:?}"),
        }
        match decode(&json!({"type": "set_summary", "summary": "é".repeat(SUMMARY_BYTES)})) {
            Ok(ClientFrame::SetSummary { summary, .. }) => {
                assert_eq!(summary.len(), SUMMARY_BYTES);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            detail_of(&json!({"type": "join_group", "name": "g".repeat(NAME_BYTES + 1)})),
            "name is longer than 64 bytes",
            "a group is an address"
        );
    }

    #[test]
    fn keys_of_a_hello_have_codes_of_their_own() {
        let code_of = |json: Value| match decode(&json) {
            Err(ClientDecodeError::BadHello { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            code_of(with(hello(), "sessionPubkey", json!("abc"))),
            HelloCode::BadSessionPubkey
        );
        let session = with(hello(), "type", json!("session_hello"));
        assert_eq!(
            code_of(with(session.clone(), "parentMemberPubkey", json!(7))),
            HelloCode::BadParentPubkey
        );
        assert_eq!(code_of(session), HelloCode::Malformed);
        assert_eq!(
            code_of(with(hello(), "meshId", json!("m".repeat(129)))),
            HelloCode::Malformed
        );
        assert_eq!(
            code_of(with(hello(), "timestamp", json!(-1))),
            HelloCode::Malformed
        );
    }

    #[test]
    fn stats_are_bounded() {
        let fat: Vec<u32> = (0..2_000).collect();
        assert!(decode(&json!({"type": "set_stats", "stats": {"messagesIn": 1}})).is_ok());
        assert_eq!(
            detail_of(&json!({"type": "set_stats", "stats": fat})),
            "stats is longer than 4096 bytes"
        );
    }

    #[test]
    fn nesting_without_end_is_refused_and_not_followed() {
        let deep = "[".repeat(100_000);
        let text = format!("{{\"type\":\"set_stats\",\"stats\":{deep}");
        assert_eq!(
            decode_client(text.as_bytes()),
            Err(ClientDecodeError::Garbage)
        );
        let closed = format!("{text}{}}}", "]".repeat(100_000));
        assert!(matches!(
            decode_client(closed.as_bytes()),
            Err(ClientDecodeError::Bad { .. })
        ));
        let id = format!("{{\"type\":\"ping\",\"id\":{deep}{}}}", "]".repeat(100_000));
        assert_eq!(
            decode_client(id.as_bytes()),
            Ok(ClientFrame::Ping { n: None })
        );
    }

    #[test]
    fn system_pushes_of_other_dialects_are_ignored() {
        let push = |event: &str| {
            json!({
                "type": "push", "subtype": "system", "senderPubkey": "system", "event": event,
                "eventData": {"name": "alice", "pubkey": KEY},
            })
            .to_string()
        };
        assert!(matches!(
            decode_broker(push("peer_joined").as_bytes()),
            Ok(BrokerFrame::Event(Event {
                kind: EventKind::PeerJoined,
                ..
            }))
        ));
        assert_eq!(
            decode_broker(push("tick").as_bytes()),
            Ok(BrokerFrame::Unknown)
        );
    }
}

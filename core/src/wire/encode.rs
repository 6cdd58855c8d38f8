//! Frames to bytes. What goes to many is encoded once, and the bytes are shared.

use alloc::string::ToString;

use bytes::Bytes;
use serde::Serialize;

use super::broker::{Event, EventData, EventKind};
use super::{BrokerFrame, ClientFrame, Priority};
use crate::id::{MeshId, MessageId};
use crate::time::Wall;

#[must_use]
pub fn encode_client(frame: &ClientFrame) -> Bytes {
    to_bytes(frame)
}

/// # Panics
/// On [`BrokerFrame::Unknown`], which is nothing that anybody says.
#[must_use]
pub fn encode_broker(frame: &BrokerFrame) -> Bytes {
    match frame {
        BrokerFrame::Event(event) => encode_event(event),
        other => to_bytes(other),
    }
}

/// A live event to `live1` clients.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    to_bytes(&LiveEvent {
        tag: "event",
        v: EVENT_VERSION,
        event,
    })
}

/// The same event to all other clients: a system push, which nobody acknowledges.
#[must_use]
pub fn encode_event_plain(
    mesh: &MeshId,
    message_id: &MessageId,
    created_at: Wall,
    event: &Event,
) -> Bytes {
    to_bytes(&SystemPush {
        tag: "push",
        subtype: "system",
        event: event.kind,
        event_data: &event.data,
        message_id,
        mesh_id: mesh,
        sender_pubkey: "system",
        priority: Priority::Low,
        nonce: "",
        ciphertext: "",
        created_at: created_at.iso8601().to_string(),
    })
}

const EVENT_VERSION: u32 = 1;

#[derive(Serialize)]
struct LiveEvent<'a> {
    #[serde(rename = "type")]
    tag: &'static str,
    v: u32,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SystemPush<'a> {
    #[serde(rename = "type")]
    tag: &'static str,
    subtype: &'static str,
    event: EventKind,
    event_data: &'a EventData,
    message_id: &'a MessageId,
    mesh_id: &'a MeshId,
    sender_pubkey: &'static str,
    priority: Priority,
    nonce: &'static str,
    ciphertext: &'static str,
    created_at: alloc::string::String,
}

fn to_bytes(frame: &impl Serialize) -> Bytes {
    serde_json::to_vec(frame)
        .expect("frames are plain fields under string keys")
        .into()
}

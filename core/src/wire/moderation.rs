//! Frames by which an admin puts peers out, and their answers.
//!
//! `target` is a text: who it means is decided by the mesh, which knows who is there.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::client::ReqId;
use crate::id::PubKey;
use crate::limits::ID_BYTES;

/// Whom `kick` and `disconnect` mean: exactly one of `target`, `stale` and `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A key, a member's id or a name.
    Target(String),
    /// Those who said nothing for at least so many ms.
    Stale(u64),
    All,
}

impl Serialize for Whom {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1))?;
        match self {
            Self::Target(target) => map.serialize_entry("target", target)?,
            Self::Stale(ms) => map.serialize_entry("stale", ms)?,
            Self::All => map.serialize_entry("all", &true)?,
        }
        map.end()
    }
}

/// Names, as the dialect has it in both lists; as many as fit a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickAck {
    pub kicked: Vec<String>,
    pub affected: Vec<String>,
    /// Control planes that were meant and not named exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_control_plane: Vec<String>,
    /// How many were affected and are not in the lists.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisconnectAck {
    pub affected: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_control_plane: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

/// The member is banned, durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanAck {
    pub banned: String,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnbanAck {
    pub unbanned: String,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansResult {
    pub bans: Vec<Ban>,
    /// Pass as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<ReqId>,
}

/// A member that is banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    pub name: String,
    /// The member's key.
    pub pubkey: PubKey,
    pub revoked_at: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Of a `kick` or `disconnect`. `all:false` says as little as leaving it out.
pub(super) fn whom(text: &str) -> Result<Whom, String> {
    #[derive(Deserialize)]
    struct Fields {
        target: Option<String>,
        stale: Option<u64>,
        #[serde(default)]
        all: bool,
    }

    let fields: Fields = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match (fields.target, fields.stale, fields.all) {
        (Some(target), None, false) => checked(target).map(Whom::Target),
        (None, Some(ms), false) => Ok(Whom::Stale(ms)),
        (None, None, true) => Ok(Whom::All),
        _ => Err("exactly one of target, stale and all".into()),
    }
}

/// Of a `ban` or `unban`.
pub(super) fn target(text: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Fields {
        target: String,
    }

    let fields: Fields = serde_json::from_str(text).map_err(|error| error.to_string())?;
    checked(fields.target)
}

fn checked(target: String) -> Result<String, String> {
    match target.len() {
        0 => Err("target is empty".into()),
        length if length > ID_BYTES => {
            Err(alloc::format!("target is longer than {ID_BYTES} bytes"))
        }
        _ => Ok(target),
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::wire::{ClientDecodeError, ClientFrame, decode_client};

    fn read(fields: &str) -> Result<Whom, String> {
        let text = format!("{{\"type\":\"kick\"{fields}}}");
        match decode_client(text.as_bytes()) {
            Ok(ClientFrame::Kick { whom, .. }) => Ok(whom),
            Err(ClientDecodeError::Bad { detail, .. }) => Err(detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exactly_one_says_whom() {
        assert_eq!(read(",\"target\":\"bob\""), Ok(Whom::Target("bob".into())));
        assert_eq!(read(",\"stale\":1800000"), Ok(Whom::Stale(1_800_000)));
        assert_eq!(read(",\"all\":true"), Ok(Whom::All));
        assert_eq!(
            read(",\"target\":\"bob\",\"all\":false"),
            Ok(Whom::Target("bob".into()))
        );
        for bad in [
            "",
            ",\"all\":false",
            ",\"target\":\"\"",
            ",\"target\":7",
            ",\"stale\":-1",
            ",\"stale\":1.5",
            ",\"target\":\"bob\",\"all\":true",
            ",\"target\":\"bob\",\"stale\":1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let long = "x".repeat(ID_BYTES + 1);
        assert!(read(&format!(",\"target\":\"{long}\"")).is_err());
    }

    #[test]
    fn they_are_spelled_as_the_dialect_has_them() {
        let ack = KickAck {
            kicked: alloc::vec!["bob".into()],
            affected: alloc::vec!["bob".into()],
            skipped_control_plane: alloc::vec!["host".into()],
            more: 0,
            req_id: Some(ReqId("r".into())),
        };
        let frame = crate::wire::BrokerFrame::KickAck(ack);
        assert_eq!(
            &crate::wire::encode_broker(&frame)[..],
            br#"{"type":"kick_ack","kicked":["bob"],"affected":["bob"],"skipped_control_plane":["host"],"_reqId":"r"}"#
        );
    }
}

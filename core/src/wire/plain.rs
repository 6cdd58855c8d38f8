//! What is special about plain clients: those whose hello offered no `features1`.
//!
//! They are unmodified clients of the dialect. They read the free text of a refusal instead of its
//! code, and an `error` frame that they did not expect confuses them.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;
use serde_json::json;

use super::broker::Push;
use super::client::ReqId;
use super::feature::{Capabilities, FEATURES1};
use super::{SendCode, SendCodeKind, Suite};

#[must_use]
pub fn is_plain(capabilities: &Capabilities) -> bool {
    !capabilities.has(FEATURES1)
}

/// A push as a plain client reads it. One that bears its own member's key it drops, unacknowledged;
/// and it replies to a member's key where it sees one, not to the session that wrote.
#[must_use]
pub fn bare(push: Push) -> Push {
    Push {
        sender_member_pubkey: None,
        sender_member_id: None,
        target_spec: None,
        // It is what absence means. What is sealed otherwise goes to those alone who asked for it.
        seal: push.seal.filter(|seal| seal != Suite::Box.as_str()),
        attempt: None,
        ..push
    }
}

/// Whether a plain client that is past its hello may be told that its frame could not be honoured.
#[must_use]
pub fn hears_errors(req_id: Option<&ReqId>) -> bool {
    req_id.is_some()
}

/// The same of a frame of this `kind`: of topics it is told either way.
#[must_use]
pub fn hears_errors_about(kind: &str, req_id: Option<&ReqId>) -> bool {
    hears_errors(req_id) || kind.starts_with("topic_")
}

/// What the dialect asks for and Bowline has none of: the empty answer.
#[must_use]
pub fn empty_reply(kind: &str, req_id: Option<&ReqId>) -> Option<Bytes> {
    let mut reply = match kind {
        "list_skills" => json!({ "type": "skill_list", "skills": [] }),
        "get_skill" => json!({ "type": "skill_data", "skill": null }),
        "list_state" => json!({ "type": "state_list", "entries": [] }),
        _ => return None,
    };
    if let Some(ReqId(req_id)) = req_id {
        reply["_reqId"] = json!(req_id);
    }
    Some(serde_json::to_vec(&reply).ok()?.into())
}

/// The free text of a refused `ack`, for everybody. Plain clients give a row up where it holds
/// `invalid` or `forbidden`, and on a few words more that no other text may hold.
#[must_use]
pub fn refusal_text(code: SendCode, detail: &str) -> String {
    let lower = detail.to_ascii_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match code.kind() {
        SendCodeKind::Permanent if holds(&PERMANENT) => detail.into(),
        SendCodeKind::Permanent if code == SendCode::Forbidden => format!("forbidden: {detail}"),
        SendCodeKind::Permanent => format!("invalid: {detail}"),
        SendCodeKind::Deferral | SendCodeKind::Transient if holds(&GIVES_UP) => {
            "send again later".into()
        }
        SendCodeKind::Deferral | SendCodeKind::Transient => detail.into(),
    }
}

const PERMANENT: [&str; 2] = ["invalid", "forbidden"];
const GIVES_UP: [&str; 8] = [
    "invalid",
    "forbidden",
    "unknown",
    "schema",
    "auth",
    "signature",
    "not_found",
    "payload_too_large",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_refusal_is_permanent_exactly_where_its_code_is() {
        let details = [
            "no such peer",
            "Unknown suite",
            "an invalid key",
            "the author is busy",
        ];
        for (code, detail) in SendCode::ALL
            .into_iter()
            .flat_map(|code| details.map(|detail| (code, detail)))
        {
            let text = refusal_text(code, detail).to_lowercase();
            let gives_up = GIVES_UP.iter().any(|word| text.contains(word));
            let is_permanent = PERMANENT.iter().any(|word| text.contains(word));
            assert_eq!(
                (is_permanent, gives_up),
                match code.kind() {
                    SendCodeKind::Permanent => (true, true),
                    SendCodeKind::Deferral | SendCodeKind::Transient => (false, false),
                },
                "{code:?}: {text}"
            );
        }
        assert_eq!(
            refusal_text(SendCode::TargetNotFound, "no such peer"),
            "invalid: no such peer"
        );
        assert_eq!(
            refusal_text(SendCode::Busy, "the store is behind"),
            "the store is behind"
        );
    }

    #[test]
    fn empty_replies_echo_the_request() {
        let reply = empty_reply("get_skill", Some(&ReqId("r".into()))).unwrap();
        assert_eq!(
            &reply[..],
            br#"{"_reqId":"r","skill":null,"type":"skill_data"}"#
        );
        assert_eq!(empty_reply("send", None), None);
    }
}

//! What is special about plain clients: those whose hello offered no `features1`.
//!
//! They are unmodified clients of the dialect. They read the free text of a refusal instead of its
//! code, and an `error` frame that they did not expect confuses them.

use bytes::Bytes;
use serde_json::json;

use super::SendCode;
use super::client::ReqId;
use super::feature::{Capabilities, FEATURES1};

#[must_use]
pub fn is_plain(capabilities: &Capabilities) -> bool {
    !capabilities.has(FEATURES1)
}

/// Whether a plain client that is past its hello may be told that its frame could not be honoured.
#[must_use]
pub fn hears_errors_about(kind: &str, req_id: Option<&ReqId>) -> bool {
    req_id.is_some() || kind.starts_with("topic_")
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
/// `invalid` or `forbidden`, and on a few words more that no text of a deferral may hold.
#[must_use]
pub fn error_text(code: SendCode) -> &'static str {
    match code {
        SendCode::RateLimited => "too many messages: send again later",
        SendCode::Busy => "the broker is busy: send again",
        SendCode::StorageFull => "the broker has no room: send again later",
        SendCode::RecipientFull => "too much is waiting for the recipient: send again later",
        SendCode::AudienceChanged => "the audience has changed: send again",
        SendCode::OutcomeUnknown => "it may have been taken: send again with the same id",
        SendCode::PayloadTooLarge => "invalid: the message is too large",
        SendCode::BadRequest => "invalid request",
        SendCode::Forbidden => "forbidden",
        SendCode::TargetNotFound => "invalid target: there is no such peer",
        SendCode::IdempotencyKeyReused => "invalid: its id stands for another message",
        SendCode::AudienceTooLarge => "invalid: too many recipients",
        SendCode::Unsealed => "invalid: this mesh takes only sealed messages",
        SendCode::Loop => "invalid: it has been passed on too often",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SendCodeKind;

    #[test]
    fn the_text_of_a_refusal_is_permanent_exactly_where_its_code_is() {
        const GIVE_UP: [&str; 8] = [
            "invalid",
            "forbidden",
            "unknown",
            "schema",
            "auth",
            "signature",
            "not_found",
            "payload_too_large",
        ];
        for code in SendCode::ALL {
            let text = error_text(code).to_lowercase();
            let is_permanent = text.contains("invalid") || text.contains("forbidden");
            let gives_up = GIVE_UP.iter().any(|word| text.contains(word));
            assert_eq!(
                (is_permanent, gives_up),
                match code.kind() {
                    SendCodeKind::Permanent => (true, true),
                    SendCodeKind::Deferral | SendCodeKind::Transient => (false, false),
                },
                "{text}"
            );
        }
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

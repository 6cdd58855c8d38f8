//! Form 1 of a fingerprint: what a request asked for, so that a repeat can be told from a reuse of
//! its id. It stays on the host: an unkeyed hash in other hands is a dictionary of short bodies.
//! Form 2, which travels, is [`super::Crypto::fingerprint_on_wire`] of form 1.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::jcs;
use crate::id::{Fingerprint, MessageId};
use crate::wire::Priority;

/// How a row's fingerprint is said to a broker: chosen at the row's first time on a wire, and kept
/// for its life. A broker compares; the same row in two forms would be two messages to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As it is: only in an open mesh, and only towards a broker that knows no other.
    One,
    Two,
}

impl Form {
    /// As features name it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        [Self::One, Self::Two]
            .into_iter()
            .find(|form| form.number() == number)
    }
}

/// What kind of target [`Request::reference`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dm,
    Topic,
    Queue,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dm => "dm",
            Self::Topic => "topic",
            Self::Queue => "queue",
        }
    }
}

/// A send, as its fingerprint sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub kind: Kind,
    /// The *resolved* key in hex or topic id: what the sender called it may come to mean another.
    pub reference: &'a str,
    pub reply_to: Option<&'a MessageId>,
    pub priority: Priority,
    /// Read by [`jcs::parse`]. An absent one differs from `null`.
    pub meta: Option<&'a Value>,
    pub body: &'a str,
}

impl Request<'_> {
    /// SHA-256 over `"1" 00 kind 00 ref 00 reply_to_or_empty 00 priority 00 meta_or_empty 00
    /// body_hash`. No field before the last can hold a NUL: ids must not, canonical JSON escapes it.
    #[must_use]
    pub fn form_1(&self) -> Fingerprint {
        let meta = self.meta.map(jcs::canonical).unwrap_or_default();
        let body_hash = hex::encode(Sha256::digest(self.body));
        let mut hasher = Sha256::new_with_prefix("1");
        for field in [
            self.kind.as_str(),
            self.reference,
            self.reply_to.map_or("", MessageId::as_str),
            self.priority.as_str(),
            &meta,
            &body_hash,
        ] {
            hasher.update([0]);
            hasher.update(field);
        }
        Fingerprint(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::real::RealCrypto;
    use crate::crypto::{Crypto, vectors};

    #[test]
    fn both_forms_agree_with_the_vectors() {
        let vectors = vectors::fingerprint();
        for case in &vectors.requests {
            let meta = case.meta.as_deref().map(|text| jcs::parse(text).unwrap());
            let form_1 = Request {
                kind: case.kind(),
                reference: &case.reference,
                reply_to: case.reply_to.as_ref(),
                priority: case.priority,
                meta: meta.as_ref(),
                body: &case.body,
            }
            .form_1();
            assert_eq!(form_1, case.form_1, "{}", case.name);
            let form_2 = RealCrypto.fingerprint_on_wire(&vectors.sender_secret(), &form_1);
            assert_eq!(form_2, case.form_2, "{}", case.name);
        }
    }

    #[test]
    fn every_spelling_of_a_meta_has_one_fingerprint() {
        let vectors = vectors::fingerprint();
        let plain = vectors
            .requests
            .iter()
            .find(|case| case.name == "plain")
            .unwrap();
        for case in &vectors.jcs {
            let meta = jcs::parse(&case.input).unwrap();
            let request = Request {
                kind: plain.kind(),
                reference: &plain.reference,
                reply_to: None,
                priority: plain.priority,
                meta: Some(&meta),
                body: &plain.body,
            };
            assert_eq!(request.form_1(), case.form_1, "{}", case.name);
        }
    }
}

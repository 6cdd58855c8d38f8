//! Whom a message is sealed for, as the broker knows it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Suite;
use crate::id::PubKey;

/// In the refusal of a `send` that is not sealed for those it goes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audience {
    /// Opaque.
    pub version: String,
    /// Everybody it goes to, where the sender's version is none that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<AudienceKey>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudienceKey {
    pub key: PubKey,
    /// Names of [`Suite`]s, and of others that may come.
    pub suites: Vec<String>,
}

impl Audience {
    #[must_use]
    pub fn of_one(key: PubKey, opens: &[Suite]) -> Self {
        let suites: Vec<String> = opens.iter().map(|suite| suite.as_str().into()).collect();
        Self {
            version: suites.join(","),
            all: Some([AudienceKey { key, suites }].into()),
        }
    }
}

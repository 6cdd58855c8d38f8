//! What a hello negotiates: capabilities (the client's), features (the broker's), requirements.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub const FEATURES1: &str = "features1";
pub const RESUME1: &str = "resume1";
pub const LIVE1: &str = "live1";
pub const ATTEST1: &str = "attest1";
pub const SEAL_X1: &str = "seal-x1";

/// The highest protocol version spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a client can do. A client that did not ask for something never sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub Vec<String>);

impl Capabilities {
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    /// What our own clients offer.
    #[must_use]
    pub fn ours() -> Self {
        Self(
            [FEATURES1, RESUME1, LIVE1, ATTEST1, SEAL_X1]
                .map(String::from)
                .to_vec(),
        )
    }
}

/// What a broker can do: a name to its parameters, each with its own `version`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(pub BTreeMap<String, Map<String, Value>>);

/// What a client insists on: a name to `version` and floors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Require(pub BTreeMap<String, Map<String, Value>>);

impl Require {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

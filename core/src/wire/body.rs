//! Nonce and ciphertext: standard base64 with padding, checked at the edge and carried as text.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Valid base64, kept as it travelled: the broker never needs the bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base64Body(Arc<str>);

impl Base64Body {
    #[must_use]
    pub fn encode(bytes: &[u8]) -> Self {
        Self(Base64::encode_string(bytes).into())
    }

    /// # Errors
    /// If `text` is not standard base64 with padding.
    pub fn parse(text: &str) -> Result<Self, base64ct::Error> {
        Base64::decode_vec(text)?;
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn decode(&self) -> Vec<u8> {
        Base64::decode_vec(&self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Characters of base64, the unit of `inline_bytes`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64Body {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Base64Body {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(|_| de::Error::custom("not standard base64"))
    }
}

/// 24 bytes in base64, or empty where nothing is sealed.
pub type Nonce = Base64Body;

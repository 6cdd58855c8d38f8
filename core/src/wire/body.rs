//! Nonce and ciphertext: standard base64 with padding, checked at the edge and carried as text.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

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
        let text_bytes = text.as_bytes();
        if !text_bytes.len().is_multiple_of(4) {
            return Err(base64ct::Error::InvalidLength);
        }
        // A ciphertext is no secret: a look-up will do for all but the last block, which may be
        // padded.
        let (digits, last) = text_bytes.split_at(text_bytes.len().saturating_sub(4));
        if !digits.iter().all(|byte| IS_DIGIT[usize::from(*byte)]) {
            return Err(base64ct::Error::InvalidEncoding);
        }
        Base64::decode(last, &mut [0; 3])?;
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
        d.deserialize_str(BodyVisitor)
    }
}

struct BodyVisitor;

impl de::Visitor<'_> for BodyVisitor {
    type Value = Base64Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64Body, E> {
        Base64Body::parse(text).map_err(|_| E::custom("not standard base64"))
    }
}

const IS_DIGIT: [bool; 256] = {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut table = [false; 256];
    let mut at = 0;
    while at < DIGITS.len() {
        table[DIGITS[at] as usize] = true;
        at += 1;
    }
    table
};

/// 24 bytes in base64, or empty where nothing is sealed.
pub type Nonce = Base64Body;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let body = Base64Body::encode(&bytes);
            prop_assert_eq!(Base64Body::parse(body.as_str()), Ok(body.clone()));
            prop_assert_eq!(body.decode(), bytes);
        }

        #[test]
        fn accepts_exactly_what_can_be_decoded(text in "[A-D9+/=_é ]{0,13}") {
            prop_assert_eq!(Base64Body::parse(&text).is_ok(), Base64::decode_vec(&text).is_ok());
        }
    }
}

//! Canonical JSON, RFC 8785 (JCS): one text for all spellings of a value.
//!
//! Numbers are doubles there: integers beyond 2^53 that round to the same double have the same
//! canonical text.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

/// The text has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JcsError {
    /// Not JSON, a lone surrogate, a number that is not finite, or nested too deep.
    #[error("this is not JSON that can be made canonical")]
    Malformed,
    /// Readers disagree about which of the two counts.
    #[error("an object has the same key twice")]
    DuplicateKey,
}

/// The canonical spelling of `text`.
pub fn canonical_json(text: &str) -> Result<String, JcsError> {
    parse(text).map(|value| canonical(&value))
}

/// Stricter than `serde_json` itself, which lets the last of two equal keys win. Whatever is to be
/// fingerprinted is read by this.
pub fn parse(text: &str) -> Result<Value, JcsError> {
    let strict: Strict = serde_json::from_str(text).map_err(|error| match error.classify() {
        // Any JSON type is welcome, so the data can be wrong in one way only.
        Category::Data => JcsError::DuplicateKey,
        Category::Syntax | Category::Eof | Category::Io => JcsError::Malformed,
    })?;
    Ok(strict.0)
}

/// The canonical spelling of a value that was already read.
#[must_use]
pub fn canonical(value: &Value) -> String {
    serde_jcs::to_string(value).expect("a JSON value has string keys and finite numbers")
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, _>()? {
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("the same key twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors;

    #[test]
    fn the_vectors_of_the_rfc_come_out_as_it_says() {
        for case in vectors::fingerprint().jcs {
            assert_eq!(
                canonical_json(&case.input),
                Ok(case.canonical),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn canonical_text_is_its_own_canonical_form() {
        for case in vectors::fingerprint().jcs {
            assert_eq!(
                canonical_json(&case.canonical).as_ref(),
                Ok(&case.canonical),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        for case in vectors::fingerprint().refused {
            let expected = if case.name.starts_with("same key twice") {
                JcsError::DuplicateKey
            } else {
                JcsError::Malformed
            };
            assert_eq!(canonical_json(&case.input), Err(expected), "{}", case.name);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(canonical_json(&deep), Err(JcsError::Malformed));
    }
}

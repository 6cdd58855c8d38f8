//! What is sealed: `{v:1, body, meta?}`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::Value;

use crate::crypto::jcs;

/// What AEAD adds to a plaintext.
const TAG_BYTES: usize = 16;

/// `meta` is JSON already, or empty.
pub(super) fn write(body: &str, meta: &str) -> Vec<u8> {
    let body = serde_json::to_string(body).expect("a string always serialises");
    let mut text = String::with_capacity(body.len() + meta.len() + 24);
    text.push_str("{\"v\":1,\"body\":");
    text.push_str(&body);
    if !meta.is_empty() {
        text.push_str(",\"meta\":");
        text.push_str(meta);
    }
    text.push('}');
    text.into_bytes()
}

/// Body and canonical meta (empty when absent); `None` if it is not an envelope of this version.
pub(super) fn read(plaintext: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Envelope {
        v: u32,
        body: String,
        #[serde(default)]
        meta: Option<Value>,
    }
    let envelope: Envelope = serde_json::from_slice(plaintext).ok()?;
    let meta = envelope.meta.as_ref().map(jcs::canonical);
    (envelope.v == 1).then(|| (envelope.body, meta.unwrap_or_default()))
}

/// Characters of base64 that the sealed envelope will have: the unit of `inline_bytes`.
pub(super) fn sealed_len(body: &str, meta: &str) -> usize {
    (write(body, meta).len() + TAG_BYTES).div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_written_is_read() {
        let pair = (
            "a \"quoted\"\n\u{0}body".to_string(),
            "{\"k\":[1,2]}".to_string(),
        );
        assert_eq!(read(&write(&pair.0, &pair.1)), Some(pair));
        assert_eq!(
            read(&write("x", "")),
            Some(("x".to_string(), String::new()))
        );
    }

    #[test]
    fn other_versions_and_garbage_are_not_read() {
        assert_eq!(read(b"{\"v\":2,\"body\":\"x\"}"), None);
        assert_eq!(read(b"{\"v\":1}"), None);
        assert_eq!(read(b"\xff"), None);
    }
}

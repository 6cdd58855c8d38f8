//! The broker's HTTP dialect beside `/ws`: every answer is JSON.

use alloc::string::{String, ToString};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decode::shortened;
use crate::time::Wall;

/// An answer as it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    /// JSON.
    pub body: Bytes,
}

impl HttpAnswer {
    #[must_use]
    pub fn new(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into(),
        }
    }
}

/// Why a request is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct HttpRefusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
    /// With `timestamp_skew`, so that the client can correct itself.
    pub broker_time: Option<Wall>,
}

impl HttpRefusal {
    #[must_use]
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            broker_time: None,
        }
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    #[must_use]
    pub fn answer(&self) -> HttpAnswer {
        let mut body = json!({ "ok": false, "error": self.code, "message": self.message });
        if let Some(time) = self.broker_time {
            body["brokerTime"] = json!(time.0);
        }
        HttpAnswer::new(self.status, &body)
    }
}

/// A request's body. Unknown fields are ignored, as on the socket.
pub fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpRefusal> {
    if body.len() > BODY_BYTES {
        let message = alloc::format!("a body is at most {BODY_BYTES} bytes");
        return Err(HttpRefusal::new(413, "payload_too_large", message));
    }
    serde_json::from_slice(body)
        .map_err(|error| HttpRefusal::bad_request(shortened(&error.to_string())))
}

/// Enough for an invite twice over, as a token and spelled out.
pub const BODY_BYTES: usize = 16 * 1024;

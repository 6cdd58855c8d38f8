//! Codes: each error has exactly one on the wire.

use alloc::string::String;

/// Why a `send` was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SendCode {
    RateLimited,
    Busy,
    StorageFull,
    RecipientFull,
    AudienceChanged,
    OutcomeUnknown,
    PayloadTooLarge,
    BadRequest,
    Forbidden,
    TargetNotFound,
    IdempotencyKeyReused,
    AudienceTooLarge,
    Unsealed,
    Loop,
}

/// What a refusal means for the row that was sent. The kind does not travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendCodeKind {
    /// Not now: never an attempt.
    Deferral,
    /// The row is `dead` with this reason.
    Permanent,
    /// A code that this version does not know: an attempt.
    Transient,
}

impl SendCode {
    pub const ALL: [Self; 14] = [
        Self::RateLimited,
        Self::Busy,
        Self::StorageFull,
        Self::RecipientFull,
        Self::AudienceChanged,
        Self::OutcomeUnknown,
        Self::PayloadTooLarge,
        Self::BadRequest,
        Self::Forbidden,
        Self::TargetNotFound,
        Self::IdempotencyKeyReused,
        Self::AudienceTooLarge,
        Self::Unsealed,
        Self::Loop,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::RecipientFull => "recipient_full",
            Self::AudienceChanged => "audience_changed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::PayloadTooLarge => "payload_too_large",
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::TargetNotFound => "target_not_found",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::AudienceTooLarge => "audience_too_large",
            Self::Unsealed => "unsealed",
            Self::Loop => "loop",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    #[must_use]
    pub fn kind(self) -> SendCodeKind {
        match self {
            Self::RateLimited
            | Self::Busy
            | Self::StorageFull
            | Self::RecipientFull
            | Self::AudienceChanged
            | Self::OutcomeUnknown => SendCodeKind::Deferral,
            Self::PayloadTooLarge
            | Self::BadRequest
            | Self::Forbidden
            | Self::TargetNotFound
            | Self::IdempotencyKeyReused
            | Self::AudienceTooLarge
            | Self::Unsealed
            | Self::Loop => SendCodeKind::Permanent,
        }
    }
}

/// Why a hello was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HelloCode {
    BadSessionPubkey,
    BadParentPubkey,
    AttestationMismatch,
    Capacity,
    TimestampSkew,
    BadSignature,
    Malformed,
    Expired,
    TtlTooLong,
    Replayed,
    Unauthorized,
    Revoked,
    ParentMemberIdMismatch,
}

impl HelloCode {
    pub const ALL: [Self; 13] = [
        Self::BadSessionPubkey,
        Self::BadParentPubkey,
        Self::AttestationMismatch,
        Self::Capacity,
        Self::TimestampSkew,
        Self::BadSignature,
        Self::Malformed,
        Self::Expired,
        Self::TtlTooLong,
        Self::Replayed,
        Self::Unauthorized,
        Self::Revoked,
        Self::ParentMemberIdMismatch,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadSessionPubkey => "bad_session_pubkey",
            Self::BadParentPubkey => "bad_parent_pubkey",
            Self::AttestationMismatch => "attestation_mismatch",
            Self::Capacity => "capacity",
            Self::TimestampSkew => "timestamp_skew",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::TtlTooLong => "ttl_too_long",
            Self::Replayed => "replayed",
            Self::Unauthorized => "unauthorized",
            Self::Revoked => "revoked",
            Self::ParentMemberIdMismatch => "parent_member_id_mismatch",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The close that follows the `error` frame: 1008 with the code as its reason, 4002 for a ban.
    #[must_use]
    pub fn close(self) -> Close {
        match self {
            Self::Revoked => Close::new(Close::BANNED, "banned"),
            other => Close::new(Close::POLICY, other.as_str()),
        }
    }
}

/// Why a frame could not be honoured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Code {
    BadRequest,
    UnknownMessageType,
    NoHello,
    AlreadyAuthenticated,
    RateLimited,
    Forbidden,
    Capacity,
    Busy,
    NotFound,
    AmbiguousPrefix,
}

impl Code {
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::UnknownMessageType,
        Self::NoHello,
        Self::AlreadyAuthenticated,
        Self::RateLimited,
        Self::Forbidden,
        Self::Capacity,
        Self::Busy,
        Self::NotFound,
        Self::AmbiguousPrefix,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownMessageType => "unknown_message_type",
            Self::NoHello => "no_hello",
            Self::AlreadyAuthenticated => "already_authenticated",
            Self::RateLimited => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::Capacity => "capacity",
            Self::Busy => "busy",
            Self::NotFound => "not_found",
            Self::AmbiguousPrefix => "ambiguous_prefix",
        }
    }
}

/// A WebSocket close: code and reason, at most 123 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

impl Close {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    /// Never travels: the socket went without a close frame.
    pub const ABNORMAL: u16 = 1006;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL: u16 = 1011;
    pub const RESTART: u16 = 1012;
    pub const TRY_AGAIN: u16 = 1013;
    pub const KICKED: u16 = 4001;
    pub const BANNED: u16 = 4002;
    pub const SLOW_CONSUMER: u16 = 4008;
    pub const FEATURE_UNAVAILABLE: u16 = 4010;
    pub const FEATURE_PARAM_INVALID: u16 = 4011;
    pub const FEATURE_PARAM_BELOW_FLOOR: u16 = 4012;

    /// The longest reason that a close frame holds, in bytes.
    pub const REASON_BYTES: usize = 123;

    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        let mut cut = reason.len().min(Self::REASON_BYTES);
        while !reason.is_char_boundary(cut) {
            cut -= 1;
        }
        Self {
            code,
            reason: reason[..cut].into(),
        }
    }

    #[must_use]
    pub fn session_replaced() -> Self {
        Self::new(Self::NORMAL, "session_replaced")
    }

    #[must_use]
    pub fn slow_consumer() -> Self {
        Self::new(Self::SLOW_CONSUMER, "slow_consumer")
    }

    /// No pong in time: the other side is gone, whatever its socket says.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Self::INTERNAL, "heartbeat_timeout")
    }
}

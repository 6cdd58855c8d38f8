//! Newtypes for every identity, so that one cannot be passed for another.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! string_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d).map(Self::from)
            }
        }
    )*};
}

string_id! {
    /// A mesh: the closed world in which peers meet.
    MeshId,
    /// A person's or host's stable identity in a mesh.
    MemberId,
    /// What a launch of a program calls itself; a uuid by convention, opaque to us.
    SessionId,
    /// The sender's name for a message; the dedupe key together with mesh and sender.
    ClientMessageId,
    /// The broker's name for a message: a ULID.
    MessageId,
    /// One lease, as told in `hello_ack`.
    PresenceId,
    /// SHA-256 of an invite's signature bytes, in hex.
    InviteId,
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

number_id! {
    /// A socket that a peer happens to have. Process-wide, never reused.
    ConnId,
    /// A request that awaits one response: an HTTP call at the broker, an IPC call at the daemon.
    RequestId,
    /// A look-up in the store that awaits one `Loaded`.
    LoadId,
    /// An IPC event stream.
    SubscriberId,
    /// The place of a message in its mesh's order of acceptance. Rising, never reused.
    MessageSeq,
    /// The place of a receipt among those of one sender. Rising, never reused.
    ReceiptNumber,
    /// The place of a row in a daemon's outbox. Rising, never reused.
    OutboxSeq,
    /// The place of a row in a daemon's inbox. Rising, never reused.
    InboxSeq,
}

macro_rules! byte_id {
    ($($(#[$doc:meta])* $name:ident[$len:literal] or $error:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub const LEN: usize = $len;

            fn hex<'a>(&self, buffer: &'a mut [u8; 2 * $len]) -> &'a str {
                hex::encode_to_slice(self.0, buffer).expect("two characters a byte");
                str::from_utf8(buffer).expect("hex is ASCII")
            }
        }

        impl FromStr for $name {
            type Err = BadHex;

            /// Hex of either case.
            fn from_str(text: &str) -> Result<Self, BadHex> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| BadHex($error))?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.hex(&mut [0; 2 * $len]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("…)")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.hex(&mut [0; 2 * $len]))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

byte_id! {
    /// An ed25519 public key.
    PubKey[32] or "a key is 64 hex characters",
    /// An ed25519 signature.
    Signature[64] or "a signature is 128 hex characters",
    /// What a request asked for, so that a repeat can be told from a reuse of its id.
    Fingerprint[32] or "a fingerprint is 64 hex characters",
    /// Names one lease under one owner; a resume is for one epoch.
    Epoch[16] or "an epoch is 32 hex characters",
}

/// What a hex field should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadHex(&'static str);

/// Who holds a lease and is owed deliveries: the session's or service's key, or the member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKey {
    Session(PubKey),
    Member(MemberId),
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(key) => key.fmt(f),
            Self::Member(id) => id.fmt(f),
        }
    }
}

/// A role is a policy over lease, connections and deliveries, not another mechanism.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Session,
    Service,
    ControlPlane,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Service => "service",
            Self::ControlPlane => "control-plane",
        }
    }
}

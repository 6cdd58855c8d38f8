//! The committed vectors, by which an implementation in another language can check itself too.
//! They were made by one: nothing in them was computed by this crate.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::SecretKey;
use super::fingerprint::Kind;
use crate::id::{ClientMessageId, Fingerprint, MeshId, MessageId, PubKey};
use crate::wire::Priority;

pub(super) fn fingerprint() -> FingerprintVectors {
    serde_json::from_str(include_str!("vectors/fingerprint.json")).unwrap()
}

pub(super) fn x1() -> Vec<X1Vector> {
    let file: X1Vectors = serde_json::from_str(include_str!("vectors/x1.json")).unwrap();
    file.vectors
}

pub(super) fn boxes() -> Vec<BoxVector> {
    box_file().vectors
}

pub(super) fn conversions() -> Vec<ConversionVector> {
    box_file().conversions
}

/// The test of NaCl's own distribution, of X25519 keys.
pub(super) fn nacl() -> NaclVector {
    box_file().nacl
}

fn box_file() -> BoxVectors {
    serde_json::from_str(include_str!("vectors/box.json")).unwrap()
}

pub(super) fn secret(hex: &str) -> SecretKey {
    SecretKey::from_bytes(bytes(hex))
}

pub(super) fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[derive(Deserialize)]
pub(super) struct FingerprintVectors {
    sender_secret: String,
    pub(super) requests: Vec<RequestVector>,
    pub(super) jcs: Vec<JcsVector>,
    pub(super) refused: Vec<RefusedVector>,
}

impl FingerprintVectors {
    pub(super) fn sender_secret(&self) -> SecretKey {
        secret(&self.sender_secret)
    }
}

#[derive(Deserialize)]
pub(super) struct RequestVector {
    pub(super) name: String,
    kind: String,
    #[serde(rename = "ref")]
    pub(super) reference: String,
    pub(super) reply_to: Option<MessageId>,
    pub(super) priority: Priority,
    pub(super) meta: Option<String>,
    pub(super) body: String,
    pub(super) form_1: Fingerprint,
    pub(super) form_2: Fingerprint,
}

impl RequestVector {
    pub(super) fn kind(&self) -> Kind {
        [Kind::Dm, Kind::Topic, Kind::Queue]
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
            .unwrap()
    }
}

#[derive(Deserialize)]
pub(super) struct JcsVector {
    pub(super) name: String,
    pub(super) input: String,
    pub(super) canonical: String,
    pub(super) form_1: Fingerprint,
}

#[derive(Deserialize)]
pub(super) struct RefusedVector {
    pub(super) name: String,
    pub(super) input: String,
}

#[derive(Deserialize)]
struct X1Vectors {
    vectors: Vec<X1Vector>,
}

#[derive(Deserialize)]
pub(super) struct X1Vector {
    pub(super) name: String,
    pub(super) sender_secret: String,
    pub(super) sender: PubKey,
    pub(super) recipient_secret: String,
    pub(super) recipient: PubKey,
    pub(super) mesh: MeshId,
    pub(super) client_message_id: ClientMessageId,
    pub(super) priority: Priority,
    pub(super) reply_to: Option<MessageId>,
    pub(super) nonce: String,
    pub(super) plaintext: String,
    pub(super) associated_data: String,
    pub(super) shared_secret: String,
    pub(super) ciphertext: String,
}

#[derive(Deserialize)]
struct BoxVectors {
    nacl: NaclVector,
    conversions: Vec<ConversionVector>,
    vectors: Vec<BoxVector>,
}

#[derive(Deserialize)]
pub(super) struct NaclVector {
    pub(super) alice_secret: String,
    pub(super) alice_public: String,
    pub(super) bob_secret: String,
    pub(super) bob_public: String,
    pub(super) shared_secret: String,
    pub(super) first_key: String,
    pub(super) nonce: String,
    pub(super) plaintext: String,
    pub(super) ciphertext: String,
}

#[derive(Deserialize)]
pub(super) struct ConversionVector {
    pub(super) ed25519_secret: String,
    pub(super) ed25519_public: PubKey,
    pub(super) x25519_public: String,
    pub(super) x25519_secret: String,
}

#[derive(Deserialize)]
pub(super) struct BoxVector {
    pub(super) name: String,
    pub(super) sender_secret: String,
    pub(super) sender: PubKey,
    pub(super) recipient_secret: String,
    pub(super) recipient: PubKey,
    pub(super) shared_secret: String,
    pub(super) nonce: String,
    pub(super) plaintext: String,
    pub(super) ciphertext: String,
}

//! Signatures, fingerprints and sealing.
//!
//! Machines take cryptography as a parameter, so that most simulated seeds can use a stand-in of
//! equal lengths that is cheap and still binds what it must bind.

mod associated_data;
pub mod attestation;
pub mod canonical;
#[cfg(test)]
mod contract;
pub mod fingerprint;
pub mod invite;
pub mod jcs;
pub mod real;
mod secretbox;
pub mod stand_in;
#[cfg(test)]
mod vectors;

use alloc::vec::Vec;

use crate::entropy::Entropy;
use crate::id::{ClientMessageId, Fingerprint, MeshId, MessageId, PubKey, Signature};
use crate::wire::Priority;

/// An ed25519 secret seed. Zeroized on drop, absent from `Debug`.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn generate(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }

    /// For storing the key and for computing with it; nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// What a sealed message is bound to: moved or relabelled, it does not open.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    pub mesh: &'a MeshId,
    pub sender: &'a PubKey,
    pub recipient: &'a PubKey,
    pub client_message_id: &'a ClientMessageId,
    pub priority: Priority,
    pub reply_to: Option<&'a MessageId>,
}

/// A body that only its recipient can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub nonce: [u8; 24],
    pub ciphertext: Vec<u8>,
}

/// The ciphertext is not for this key, or was moved, relabelled or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not open with this key")]
pub struct DoesNotOpen;

pub trait Crypto: Send + Sync {
    fn public_key(&self, secret: &SecretKey) -> PubKey;

    fn sign(&self, secret: &SecretKey, message: &[u8]) -> Signature;

    /// Strict: no small-order keys, no malleable signatures.
    fn verify(&self, key: &PubKey, message: &[u8], signature: &Signature) -> bool;

    /// Suite `x1`. `None` where the recipient's key is not a usable curve point.
    fn seal_x1(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        context: &SealContext<'_>,
        plaintext: &[u8],
    ) -> Option<Sealed>;

    fn open_x1(
        &self,
        recipient: &SecretKey,
        context: &SealContext<'_>,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen>;

    /// Suite `box`, for peers that offer nothing else. It binds the two keys and no more. `None`
    /// where the recipient's key is not a usable curve point.
    fn seal_box(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        recipient: &PubKey,
        plaintext: &[u8],
    ) -> Option<Sealed>;

    fn open_box(
        &self,
        recipient: &SecretKey,
        sender: &PubKey,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen>;

    /// Form 2 of a fingerprint, the one that travels: keyed, so that a broker cannot guess bodies.
    fn fingerprint_on_wire(&self, sender: &SecretKey, form_1: &Fingerprint) -> Fingerprint;
}

//! A cheap stand-in of equal lengths, for simulation, benches and tests.
//!
//! **What it shows:** an honest participant's mistake is caught as with the real primitives. A
//! signature of another key or over another message is refused; a body that was relabelled, moved
//! to another recipient or damaged does not open; a body does not appear in its ciphertext; a key
//! of zeros can neither verify nor be sealed for.
//!
//! **What it does not show:** anything against an adversary. Whoever knows a public key can forge
//! its signatures, and whoever knows both public keys can compute what seals a message. What must
//! not open for outsiders or past members is therefore only shown where the real primitives run.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::associated_data;
use super::{Crypto, DoesNotOpen, SealContext, Sealed, SecretKey};
use crate::entropy::Entropy;
use crate::id::{Fingerprint, PubKey, Signature};

const TAG_BYTES: usize = 16;
/// With the real primitives this is a point of small order, usable for nothing.
const UNUSABLE: PubKey = PubKey([0; 32]);

/// See the module: equal lengths, honest bindings, no secrecy.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandIn;

impl Crypto for StandIn {
    fn public_key(&self, secret: &SecretKey) -> PubKey {
        PubKey(hash(b"public", &[secret.expose()]))
    }

    fn sign(&self, secret: &SecretKey, message: &[u8]) -> Signature {
        signature(&self.public_key(secret), message)
    }

    fn verify(&self, key: &PubKey, message: &[u8], given: &Signature) -> bool {
        *key != UNUSABLE && signature(key, message) == *given
    }

    fn seal_x1(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        context: &SealContext<'_>,
        plaintext: &[u8],
    ) -> Option<Sealed> {
        if *context.recipient == UNUSABLE {
            return None;
        }
        let nonce = entropy.bytes();
        let key = pair_key(&self.public_key(sender), context.recipient, context, &nonce);
        Some(seal(&key, nonce, plaintext))
    }

    fn open_x1(
        &self,
        recipient: &SecretKey,
        context: &SealContext<'_>,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen> {
        let key = pair_key(
            context.sender,
            &self.public_key(recipient),
            context,
            &sealed.nonce,
        );
        open(&key, sealed)
    }

    fn seal_box(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        recipient: &PubKey,
        plaintext: &[u8],
    ) -> Option<Sealed> {
        if *recipient == UNUSABLE {
            return None;
        }
        let nonce = entropy.bytes();
        let key = box_key(&self.public_key(sender), recipient, &nonce);
        Some(seal(&key, nonce, plaintext))
    }

    fn open_box(
        &self,
        recipient: &SecretKey,
        sender: &PubKey,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen> {
        let key = box_key(sender, &self.public_key(recipient), &sealed.nonce);
        open(&key, sealed)
    }

    fn fingerprint_on_wire(&self, sender: &SecretKey, form_1: &Fingerprint) -> Fingerprint {
        Fingerprint(hash(b"fingerprint", &[sender.expose(), &form_1.0]))
    }
}

fn signature(key: &PubKey, message: &[u8]) -> Signature {
    let half = hash(b"signature", &[&key.0, message]);
    let mut bytes = [0; Signature::LEN];
    bytes[..32].copy_from_slice(&half);
    bytes[32..].copy_from_slice(&half);
    Signature(bytes)
}

/// The keys of the two ends stand beside the context, which names them too, so that a sender or
/// recipient that is not the one it claims ends up with another key.
fn pair_key(
    sender: &PubKey,
    recipient: &PubKey,
    context: &SealContext<'_>,
    nonce: &[u8; 24],
) -> [u8; 32] {
    hash(
        b"pair",
        &[
            &sender.0,
            &recipient.0,
            nonce,
            &associated_data::of(context),
        ],
    )
}

/// As with the real one, either end can make what the other opens.
fn box_key(sender: &PubKey, recipient: &PubKey, nonce: &[u8; 24]) -> [u8; 32] {
    let (low, high) = if sender < recipient {
        (sender, recipient)
    } else {
        (recipient, sender)
    };
    hash(b"box", &[&low.0, &high.0, nonce])
}

fn seal(key: &[u8; 32], nonce: [u8; 24], plaintext: &[u8]) -> Sealed {
    let mut ciphertext = Vec::with_capacity(plaintext.len() + TAG_BYTES);
    ciphertext.extend_from_slice(plaintext);
    xor_keystream(key, &mut ciphertext);
    ciphertext.extend_from_slice(&tag(key, plaintext));
    Sealed { nonce, ciphertext }
}

fn open(key: &[u8; 32], sealed: &Sealed) -> Result<Vec<u8>, DoesNotOpen> {
    let (body, given) = sealed
        .ciphertext
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(DoesNotOpen)?;
    let mut plaintext = body.to_vec();
    xor_keystream(key, &mut plaintext);
    if tag(key, &plaintext) != *given {
        return Err(DoesNotOpen);
    }
    Ok(plaintext)
}

fn tag(key: &[u8; 32], plaintext: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hash(b"tag", &[key, plaintext])[..TAG_BYTES]);
    tag
}

/// The fields before the last must be of a fixed length for their `domain`.
fn hash(domain: &[u8], fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(domain);
    fields.iter().for_each(|field| hasher.update(field));
    hasher.finalize().into()
}

/// SplitMix64 from a seed out of the key: enough to keep a body from showing.
fn xor_keystream(key: &[u8; 32], bytes: &mut [u8]) {
    let (seed, _) = key
        .split_first_chunk::<8>()
        .expect("a key is longer than its seed");
    let mut state = u64::from_le_bytes(*seed);
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        chunk
            .iter_mut()
            .zip(word.to_le_bytes())
            .for_each(|(byte, key)| *byte ^= key);
    }
}

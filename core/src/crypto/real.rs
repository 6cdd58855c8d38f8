//! The real primitives: ed25519, and the suites `x1` (X25519, HKDF-SHA256, XChaCha20-Poly1305) and
//! `box` (libsodium's `crypto_box`: X25519, HSalsa20, XSalsa20-Poly1305).

use alloc::vec::Vec;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::associated_data::{self, SUITE_X1};
use super::secretbox::SecretBox;
use super::{Crypto, DoesNotOpen, SealContext, Sealed, SecretKey};
use crate::entropy::Entropy;
use crate::id::{Fingerprint, PubKey, Signature};

/// What HKDF is told when it derives the key of a fingerprint on the wire.
const FINGERPRINT_INFO: &[u8] = b"bowline-fp";

/// What production runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealCrypto;

impl Crypto for RealCrypto {
    fn public_key(&self, secret: &SecretKey) -> PubKey {
        PubKey(signing_key(secret).verifying_key().to_bytes())
    }

    fn sign(&self, secret: &SecretKey, message: &[u8]) -> Signature {
        Signature(signing_key(secret).sign(message).to_bytes())
    }

    fn verify(&self, key: &PubKey, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    fn seal_x1(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        context: &SealContext<'_>,
        plaintext: &[u8],
    ) -> Option<Sealed> {
        seal_x1_with(entropy.bytes(), sender, context, plaintext)
    }

    fn open_x1(
        &self,
        recipient: &SecretKey,
        context: &SealContext<'_>,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen> {
        let aad = associated_data::of(context);
        let cipher = x1_cipher(recipient, context.sender, &aad).ok_or(DoesNotOpen)?;
        let payload = Payload {
            msg: &sealed.ciphertext,
            aad: &aad,
        };
        cipher
            .decrypt(&XNonce::from(sealed.nonce), payload)
            .map_err(|_| DoesNotOpen)
    }

    fn seal_box(
        &self,
        entropy: &mut Entropy,
        sender: &SecretKey,
        recipient: &PubKey,
        plaintext: &[u8],
    ) -> Option<Sealed> {
        seal_box_with(entropy.bytes(), sender, recipient, plaintext)
    }

    fn open_box(
        &self,
        recipient: &SecretKey,
        sender: &PubKey,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, DoesNotOpen> {
        let shared = shared_secret(recipient, sender).ok_or(DoesNotOpen)?;
        SecretBox::between(&shared).open(&sealed.nonce, &sealed.ciphertext)
    }

    fn fingerprint_on_wire(&self, sender: &SecretKey, form_1: &Fingerprint) -> Fingerprint {
        let key = derive_key(sender.expose(), &[FINGERPRINT_INFO]);
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes a key of any length");
        mac.update(&form_1.0);
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

fn signing_key(secret: &SecretKey) -> SigningKey {
    SigningKey::from_bytes(secret.expose())
}

/// The nonce must never repeat for one pair of keys; 24 random bytes do not.
fn seal_x1_with(
    nonce: [u8; 24],
    sender: &SecretKey,
    context: &SealContext<'_>,
    plaintext: &[u8],
) -> Option<Sealed> {
    let aad = associated_data::of(context);
    let payload = Payload {
        msg: plaintext,
        aad: &aad,
    };
    let ciphertext = x1_cipher(sender, context.recipient, &aad)?
        .encrypt(&XNonce::from(nonce), payload)
        .ok()?;
    Some(Sealed { nonce, ciphertext })
}

fn seal_box_with(
    nonce: [u8; 24],
    sender: &SecretKey,
    recipient: &PubKey,
    plaintext: &[u8],
) -> Option<Sealed> {
    let shared = shared_secret(sender, recipient)?;
    let ciphertext = SecretBox::between(&shared).seal(&nonce, plaintext);
    Some(Sealed { nonce, ciphertext })
}

/// The same for both ends of a pair; the associated data says which of them is the sender.
fn x1_cipher(mine: &SecretKey, theirs: &PubKey, aad: &[u8]) -> Option<XChaCha20Poly1305> {
    let shared = shared_secret(mine, theirs)?;
    let key = derive_key(&shared, &[&associated_data::length_prefixed(SUITE_X1), aad]);
    Some(XChaCha20Poly1305::new((&*key).into()))
}

/// X25519 between ed25519 keys. `None` for a key that is no point, or one of small order: the
/// result would not depend on our secret.
fn shared_secret(mine: &SecretKey, theirs: &PubKey) -> Option<Zeroizing<[u8; 32]>> {
    let theirs = VerifyingKey::from_bytes(&theirs.0)
        .ok()
        .filter(|key| !key.is_weak())?;
    let scalar = Zeroizing::new(signing_key(mine).to_scalar_bytes());
    // Clamping is part of the multiplication.
    let shared =
        StaticSecret::from(*scalar).diffie_hellman(&theirs.to_montgomery().to_bytes().into());
    shared
        .was_contributory()
        .then(|| Zeroizing::new(shared.to_bytes()))
}

/// HKDF-SHA256 with an empty salt.
fn derive_key(secret: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret)
        .expand_multi_info(info, &mut *key)
        .expect("32 bytes are within what HKDF-SHA256 can give");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::{self, X1Vector};

    fn context(vector: &X1Vector) -> SealContext<'_> {
        SealContext {
            mesh: &vector.mesh,
            sender: &vector.sender,
            recipient: &vector.recipient,
            client_message_id: &vector.client_message_id,
            priority: vector.priority,
            reply_to: vector.reply_to.as_ref(),
        }
    }

    #[test]
    fn x1_agrees_with_the_vectors_at_every_step() {
        for vector in vectors::x1() {
            let (name, context) = (&vector.name, context(&vector));
            let sender = vectors::secret(&vector.sender_secret);
            let recipient = vectors::secret(&vector.recipient_secret);
            assert_eq!(RealCrypto.public_key(&sender), vector.sender, "{name}");
            assert_eq!(
                RealCrypto.public_key(&recipient),
                vector.recipient,
                "{name}"
            );
            let shared = Some(Zeroizing::new(vectors::bytes(&vector.shared_secret)));
            assert_eq!(shared_secret(&sender, &vector.recipient), shared, "{name}");
            assert_eq!(shared_secret(&recipient, &vector.sender), shared, "{name}");
            let aad = hex::encode(associated_data::of(&context));
            assert_eq!(aad, vector.associated_data, "{name}");

            let nonce = vectors::bytes(&vector.nonce);
            let plaintext = vector.plaintext.as_bytes();
            let sealed = seal_x1_with(nonce, &sender, &context, plaintext).unwrap();
            assert_eq!(hex::encode(&sealed.ciphertext), vector.ciphertext, "{name}");
            let opened = RealCrypto.open_x1(&recipient, &context, &sealed);
            assert_eq!(opened.as_deref(), Ok(plaintext), "{name}");
        }
    }

    #[test]
    fn box_agrees_with_libsodium() {
        for vector in vectors::boxes() {
            let name = &vector.name;
            let sender = vectors::secret(&vector.sender_secret);
            let recipient = vectors::secret(&vector.recipient_secret);
            assert_eq!(RealCrypto.public_key(&sender), vector.sender, "{name}");
            let shared = Some(Zeroizing::new(vectors::bytes(&vector.shared_secret)));
            assert_eq!(shared_secret(&sender, &vector.recipient), shared, "{name}");
            assert_eq!(shared_secret(&recipient, &vector.sender), shared, "{name}");

            let nonce = vectors::bytes(&vector.nonce);
            let plaintext = hex::decode(&vector.plaintext).unwrap();
            let sealed = seal_box_with(nonce, &sender, &vector.recipient, &plaintext).unwrap();
            assert_eq!(hex::encode(&sealed.ciphertext), vector.ciphertext, "{name}");
            let opened = RealCrypto.open_box(&recipient, &vector.sender, &sealed);
            assert_eq!(opened, Ok(plaintext), "{name}");
        }
    }

    #[test]
    fn ed25519_keys_convert_as_libsodium_converts_them() {
        for vector in vectors::conversions() {
            let secret = vectors::secret(&vector.ed25519_secret);
            assert_eq!(RealCrypto.public_key(&secret), vector.ed25519_public);
            let scalar = signing_key(&secret).to_scalar_bytes();
            let clamped = curve25519_dalek::scalar::clamp_integer(scalar);
            assert_eq!(hex::encode(clamped), vector.x25519_secret);
            let public = VerifyingKey::from_bytes(&vector.ed25519_public.0).unwrap();
            let x25519 = public.to_montgomery().to_bytes();
            assert_eq!(hex::encode(x25519), vector.x25519_public);
        }
    }

    #[test]
    fn a_point_of_small_order_is_nobodys_key() {
        let secret = SecretKey::from_bytes([1; 32]);
        for point in curve25519_dalek::constants::EIGHT_TORSION {
            let key = PubKey(point.compress().to_bytes());
            assert_eq!(shared_secret(&secret, &key), None);
            // The forgery that a plain verification takes: R = identity, S = 0.
            let mut forged = Signature([0; 64]);
            forged.0[0] = 1;
            assert!(!RealCrypto.verify(&key, b"message", &forged));
        }
    }

    #[test]
    fn bytes_that_are_no_point_are_nobodys_key() {
        let secret = SecretKey::from_bytes([1; 32]);
        let mut no_point = PubKey([0; 32]);
        no_point.0[0] = 2;
        assert_eq!(shared_secret(&secret, &no_point), None);
    }
}

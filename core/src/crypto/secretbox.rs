//! XSalsa20-Poly1305 as NaCl puts it together: what `crypto_box` seals with once both ends have
//! their shared secret. The tag stands before the ciphertext.

use alloc::vec::Vec;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::cipher::consts::U10;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use salsa20::{XSalsa20, hsalsa};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::DoesNotOpen;

const TAG_BYTES: usize = 16;

pub(super) struct SecretBox(Zeroizing<[u8; 32]>);

impl SecretBox {
    /// `shared`: what X25519 gave.
    pub(super) fn between(shared: &[u8; 32]) -> Self {
        Self(Zeroizing::new(
            hsalsa::<U10>(shared.into(), &[0; 16].into()).into(),
        ))
    }

    pub(super) fn seal(&self, nonce: &[u8; 24], plaintext: &[u8]) -> Vec<u8> {
        let (mut cipher, mac) = self.begin(nonce);
        let mut sealed = Vec::with_capacity(TAG_BYTES + plaintext.len());
        sealed.extend_from_slice(&[0; TAG_BYTES]);
        sealed.extend_from_slice(plaintext);
        let (tag, body) = sealed.split_at_mut(TAG_BYTES);
        cipher.apply_keystream(body);
        tag.copy_from_slice(&mac.compute_unpadded(body));
        sealed
    }

    pub(super) fn open(&self, nonce: &[u8; 24], sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (tag, body) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(DoesNotOpen)?;
        let (mut cipher, mac) = self.begin(nonce);
        let is_ours: bool = mac.compute_unpadded(body).ct_eq(&tag[..]).into();
        if !is_ours {
            return Err(DoesNotOpen);
        }
        let mut plaintext = body.to_vec();
        cipher.apply_keystream(&mut plaintext);
        Ok(plaintext)
    }

    /// The first 32 bytes of the key stream are the key of the tag.
    fn begin(&self, nonce: &[u8; 24]) -> (XSalsa20, Poly1305) {
        let mut cipher = XSalsa20::new((&*self.0).into(), nonce.into());
        let mut mac_key = Zeroizing::new([0; 32]);
        cipher.apply_keystream(&mut *mac_key);
        (cipher, Poly1305::new((&*mac_key).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors;
    use x25519_dalek::{PublicKey, StaticSecret};

    #[test]
    fn it_agrees_with_nacls_own_test() {
        let vector = vectors::nacl();
        let key = |hex: &str| -> [u8; 32] { vectors::bytes(hex) };
        let shared = |mine: &str, theirs: &str| {
            let theirs = PublicKey::from(key(theirs));
            StaticSecret::from(key(mine)).diffie_hellman(&theirs)
        };
        let alice = shared(&vector.alice_secret, &vector.bob_public);
        let bob = shared(&vector.bob_secret, &vector.alice_public);
        assert_eq!(hex::encode(alice.as_bytes()), vector.shared_secret);
        assert_eq!(alice.as_bytes(), bob.as_bytes());

        let secret_box = SecretBox::between(alice.as_bytes());
        assert_eq!(hex::encode(*secret_box.0), vector.first_key);
        let nonce = vectors::bytes(&vector.nonce);
        let plaintext = hex::decode(&vector.plaintext).unwrap();
        let sealed = secret_box.seal(&nonce, &plaintext);
        assert_eq!(hex::encode(&sealed), vector.ciphertext);
        assert_eq!(secret_box.open(&nonce, &sealed), Ok(plaintext));
    }

    #[test]
    fn less_than_a_tag_does_not_open() {
        let secret_box = SecretBox::between(&[7; 32]);
        assert_eq!(secret_box.open(&[0; 24], &[0; 15]), Err(DoesNotOpen));
        let empty = secret_box.seal(&[0; 24], b"");
        assert_eq!(empty.len(), TAG_BYTES);
        assert_eq!(secret_box.open(&[0; 24], &empty), Ok(Vec::new()));
    }
}

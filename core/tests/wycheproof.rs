//! Project Wycheproof's vectors, through the calls that `crypto::real` makes.

use bowline_core::crypto::Crypto;
use bowline_core::crypto::real::RealCrypto;
use bowline_core::id::{PubKey, Signature};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_vectors, mac, xdh};
use x25519_dalek::{PublicKey, StaticSecret};

#[test]
fn ed25519_verifies_strictly() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let key = PubKey(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            // A signature of another length is refused where the frame is decoded.
            let good = <[u8; Signature::LEN]>::try_from(&test.sig[..])
                .is_ok_and(|bytes| RealCrypto.verify(&key, &test.msg, &Signature(bytes)));
            assert_eq!(good, test.result == TestResult::Valid, "{test:?}");
        }
    }
}

#[test]
fn x25519_agrees_and_refuses_what_does_not_contribute() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let secret = StaticSecret::from(array(&test.private_key));
        let shared = secret.diffie_hellman(&PublicKey::from(array(&test.public_key)));
        assert_eq!(shared.as_bytes()[..], test.shared_secret[..], "{test:?}");
        let zero = test.shared_secret.iter().all(|byte| *byte == 0);
        assert_eq!(shared.was_contributory(), !zero, "{test:?}");
    }
}

#[test]
fn hkdf_sha256_expands() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let salt = (!test.salt.is_empty()).then_some(&test.salt[..]);
        let mut output = vec![0; test.size];
        let good = Hkdf::<Sha256>::new(salt, &test.ikm)
            .expand_multi_info(&[&test.info], &mut output)
            .is_ok();
        assert_eq!(good, test.result == TestResult::Valid, "{test:?}");
        assert!(!good || output == test.okm[..], "{test:?}");
    }
}

#[test]
fn hmac_sha256_authenticates() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap();
        mac.update(&test.msg);
        // Some vectors are of a shortened tag; ours is whole.
        let good = mac.finalize().into_bytes()[..test.tag.len()] == test.tag[..];
        assert_eq!(good, test.result == TestResult::Valid, "{test:?}");
    }
}

#[test]
fn xchacha20_poly1305_seals_and_opens() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut checked = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        // Our nonces are arrays of the one right length.
        let Ok(nonce) = <[u8; 24]>::try_from(&test.nonce[..]) else {
            continue;
        };
        let cipher = XChaCha20Poly1305::new_from_slice(&test.key).unwrap();
        let nonce = XNonce::from(nonce);
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let payload = |msg| Payload {
            msg,
            aad: &test.aad,
        };
        let opened = cipher.decrypt(&nonce, payload(&sealed));
        if test.result == TestResult::Valid {
            assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{test:?}");
            assert_eq!(
                cipher.encrypt(&nonce, payload(&test.pt)),
                Ok(sealed),
                "{test:?}"
            );
        } else {
            assert!(opened.is_err(), "{test:?}");
        }
        checked += 1;
    }
    assert!(checked > 200);
}

fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap()
}

//! What every implementation of [`Crypto`] must do, checked for each.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

use proptest::prelude::*;

use super::real::RealCrypto;
use super::stand_in::StandIn;
use super::{Crypto, DoesNotOpen, SealContext, Sealed, SecretKey};
use crate::entropy::Entropy;
use crate::id::{ClientMessageId, Fingerprint, MeshId, MessageId, PubKey, Signature};
use crate::wire::Priority;

/// Which implementation a case is about.
#[derive(Clone, Copy, Debug)]
enum Which {
    Real,
    StandIn,
}

impl Deref for Which {
    type Target = dyn Crypto;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Real => &RealCrypto,
            Self::StandIn => &StandIn,
        }
    }
}

/// A message with everything it is bound to, owned.
#[derive(Clone, Debug)]
struct Message {
    sender: SecretKey,
    recipient: SecretKey,
    mesh: MeshId,
    client_message_id: ClientMessageId,
    priority: Priority,
    reply_to: Option<MessageId>,
    body: Vec<u8>,
    seed: [u8; 32],
}

/// The context that the other end believes in.
struct Claimed {
    sender: PubKey,
    recipient: PubKey,
    mesh: MeshId,
    client_message_id: ClientMessageId,
    priority: Priority,
    reply_to: Option<MessageId>,
}

impl Claimed {
    fn context(&self) -> SealContext<'_> {
        SealContext {
            mesh: &self.mesh,
            sender: &self.sender,
            recipient: &self.recipient,
            client_message_id: &self.client_message_id,
            priority: self.priority,
            reply_to: self.reply_to.as_ref(),
        }
    }
}

impl Message {
    fn claimed(&self, crypto: Which) -> Claimed {
        Claimed {
            sender: crypto.public_key(&self.sender),
            recipient: crypto.public_key(&self.recipient),
            mesh: self.mesh.clone(),
            client_message_id: self.client_message_id.clone(),
            priority: self.priority,
            reply_to: self.reply_to.clone(),
        }
    }

    fn seal(&self, crypto: Which) -> Sealed {
        let claimed = self.claimed(crypto);
        let mut entropy = Entropy::from_seed(self.seed);
        crypto
            .seal_x1(&mut entropy, &self.sender, &claimed.context(), &self.body)
            .unwrap()
    }

    /// Opens by `recipient` with one thing changed.
    fn open_with(
        &self,
        crypto: Which,
        change: impl FnOnce(&mut Claimed),
    ) -> Result<Vec<u8>, DoesNotOpen> {
        let mut claimed = self.claimed(crypto);
        change(&mut claimed);
        crypto.open_x1(&self.recipient, &claimed.context(), &self.seal(crypto))
    }
}

fn secret() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_map(SecretKey::from_bytes)
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![
        Just(Priority::Now),
        Just(Priority::Next),
        Just(Priority::Low)
    ]
}

prop_compose! {
    fn message()(
        sender in secret(),
        recipient in secret(),
        mesh in "[0-9a-z]{1,30}",
        client_message_id in "[ -~]{1,40}",
        priority in priority(),
        reply_to in proptest::option::of("[0-9a-z]{8,32}"),
        body in proptest::collection::vec(any::<u8>(), 0..300),
        seed in any::<[u8; 32]>(),
    ) -> Message {
        Message {
            sender,
            recipient,
            mesh: mesh.into(),
            client_message_id: client_message_id.into(),
            priority,
            reply_to: reply_to.map(MessageId::from),
            body,
            seed,
        }
    }
}

fn both() -> impl Strategy<Value = Which> {
    prop_oneof![Just(Which::Real), Just(Which::StandIn)]
}

/// Moves where a field ends and its neighbour begins, without changing what stands there together.
fn shift_boundary(mesh: &MeshId, id: &ClientMessageId) -> (MeshId, ClientMessageId) {
    let (head, tail) = mesh.as_str().split_at(mesh.as_str().len() - 1);
    (head.into(), format!("{tail}{id}").into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sealed_opens_for_its_recipient(crypto in both(), message in message()) {
        let sealed = message.seal(crypto);
        prop_assert_eq!(sealed.ciphertext.len(), message.body.len() + 16);
        let opened = message.open_with(crypto, |_| ());
        prop_assert_eq!(opened.as_ref(), Ok(&message.body));
    }

    #[test]
    fn whatever_is_changed_it_does_not_open(
        crypto in both(),
        message in message(),
        stranger in secret(),
        text in "[0-9a-z]{1,30}",
        other in priority(),
    ) {
        prop_assume!(text != message.mesh.as_str() && text != message.client_message_id.as_str());
        prop_assume!(message.reply_to.as_ref().is_none_or(|id| id.as_str() != text));
        prop_assume!(other != message.priority);
        let stranger_key = crypto.public_key(&stranger);
        let refused = Err(DoesNotOpen);
        prop_assert_eq!(&message.open_with(crypto, |c| c.sender = stranger_key), &refused);
        prop_assert_eq!(&message.open_with(crypto, |c| c.recipient = stranger_key), &refused);
        prop_assert_eq!(&message.open_with(crypto, |c| c.mesh = text.as_str().into()), &refused);
        prop_assert_eq!(
            &message.open_with(crypto, |c| c.client_message_id = text.as_str().into()),
            &refused
        );
        prop_assert_eq!(&message.open_with(crypto, |c| c.priority = other), &refused);
        prop_assert_eq!(
            &message.open_with(crypto, |c| c.reply_to = Some(text.as_str().into())),
            &refused
        );
        if message.reply_to.is_some() {
            prop_assert_eq!(&message.open_with(crypto, |c| c.reply_to = None), &refused);
        }
        let (mesh, id) = shift_boundary(&message.mesh, &message.client_message_id);
        prop_assert_eq!(
            &message.open_with(crypto, |c| (c.mesh, c.client_message_id) = (mesh, id)),
            &refused
        );
    }

    #[test]
    fn it_opens_neither_for_a_stranger_nor_back_to_front(
        crypto in both(),
        message in message(),
        stranger in secret(),
    ) {
        let (claimed, sealed) = (message.claimed(crypto), message.seal(crypto));
        let as_is = claimed.context();
        let for_stranger = SealContext { recipient: &crypto.public_key(&stranger), ..as_is };
        let reflected = SealContext { sender: as_is.recipient, recipient: as_is.sender, ..as_is };
        prop_assert_eq!(crypto.open_x1(&stranger, &as_is, &sealed), Err(DoesNotOpen));
        prop_assert_eq!(crypto.open_x1(&stranger, &for_stranger, &sealed), Err(DoesNotOpen));
        prop_assert_eq!(crypto.open_x1(&message.sender, &reflected, &sealed), Err(DoesNotOpen));
    }

    #[test]
    fn a_sender_that_claims_another_key_is_not_believed(
        crypto in both(),
        message in message(),
        impostor in secret(),
    ) {
        let claimed = message.claimed(crypto);
        let mut entropy = Entropy::from_seed(message.seed);
        let sealed =
            crypto.seal_x1(&mut entropy, &impostor, &claimed.context(), &message.body).unwrap();
        prop_assert_eq!(
            crypto.open_x1(&message.recipient, &claimed.context(), &sealed),
            Err(DoesNotOpen)
        );
    }

    #[test]
    fn a_damaged_one_does_not_open(
        crypto in both(),
        message in message(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let claimed = message.claimed(crypto);
        let good = message.seal(crypto);
        let mut nonce = good.clone();
        nonce.nonce[at.index(24)] ^= 1 << bit;
        let mut flipped = good.clone();
        let place = at.index(flipped.ciphertext.len());
        flipped.ciphertext[place] ^= 1 << bit;
        let mut cut = good;
        cut.ciphertext.truncate(place);
        for sealed in [nonce, flipped, cut] {
            prop_assert_eq!(
                crypto.open_x1(&message.recipient, &claimed.context(), &sealed),
                Err(DoesNotOpen)
            );
        }
    }

    #[test]
    fn a_body_does_not_show(crypto in both(), message in message()) {
        let sealed = message.seal(crypto);
        for piece in message.body.chunks_exact(8) {
            prop_assert!(!sealed.ciphertext.windows(8).any(|window| window == piece));
        }
    }

    #[test]
    fn the_same_body_twice_is_two_ciphertexts(crypto in both(), message in message()) {
        let claimed = message.claimed(crypto);
        let mut entropy = Entropy::from_seed(message.seed);
        let mut seal =
            || crypto.seal_x1(&mut entropy, &message.sender, &claimed.context(), &message.body);
        prop_assert_ne!(seal(), seal());
    }

    #[test]
    fn a_box_opens_for_its_recipient_and_nobody_else(
        crypto in both(),
        message in message(),
        stranger in secret(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let [sender, recipient, other] = [&message.sender, &message.recipient, &stranger]
            .map(|secret| crypto.public_key(secret));
        let mut entropy = Entropy::from_seed(message.seed);
        let sealed =
            crypto.seal_box(&mut entropy, &message.sender, &recipient, &message.body).unwrap();
        prop_assert_eq!(sealed.ciphertext.len(), message.body.len() + 16);
        let opened = crypto.open_box(&message.recipient, &sender, &sealed);
        prop_assert_eq!(opened.as_ref(), Ok(&message.body));

        prop_assert_eq!(crypto.open_box(&stranger, &sender, &sealed), Err(DoesNotOpen));
        prop_assert_eq!(crypto.open_box(&message.recipient, &other, &sealed), Err(DoesNotOpen));
        let mut nonce = sealed.clone();
        nonce.nonce[at.index(24)] ^= 1 << bit;
        let mut flipped = sealed.clone();
        let place = at.index(flipped.ciphertext.len());
        flipped.ciphertext[place] ^= 1 << bit;
        let mut cut = sealed;
        cut.ciphertext.truncate(place);
        for damaged in [nonce, flipped, cut] {
            prop_assert_eq!(
                crypto.open_box(&message.recipient, &sender, &damaged),
                Err(DoesNotOpen)
            );
        }
    }

    #[test]
    fn a_suite_does_not_open_what_the_other_sealed(crypto in both(), message in message()) {
        let claimed = message.claimed(crypto);
        let x1 = message.seal(crypto);
        prop_assert_eq!(
            crypto.open_box(&message.recipient, &claimed.sender, &x1),
            Err(DoesNotOpen)
        );
        let mut entropy = Entropy::from_seed(message.seed);
        let in_box = crypto
            .seal_box(&mut entropy, &message.sender, &claimed.recipient, &message.body)
            .unwrap();
        prop_assert_eq!(
            crypto.open_x1(&message.recipient, &claimed.context(), &in_box),
            Err(DoesNotOpen)
        );
    }

    #[test]
    fn a_signature_is_for_one_key_and_one_message(
        crypto in both(),
        signer in secret(),
        stranger in secret(),
        text in proptest::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
    ) {
        let key = crypto.public_key(&signer);
        let signature = crypto.sign(&signer, &text);
        prop_assert!(crypto.verify(&key, &text, &signature));
        prop_assert!(!crypto.verify(&crypto.public_key(&stranger), &text, &signature));
        let mut longer = text.clone();
        longer.push(0);
        prop_assert!(!crypto.verify(&key, &longer, &signature));
        let mut damaged = signature;
        damaged.0[at.index(Signature::LEN)] ^= 1;
        prop_assert!(!crypto.verify(&key, &text, &damaged));
    }

    #[test]
    fn a_fingerprint_on_the_wire_depends_on_sender_and_form_1(
        crypto in both(),
        sender in secret(),
        stranger in secret(),
        form_1 in any::<[u8; 32]>().prop_map(Fingerprint),
        other in any::<[u8; 32]>().prop_map(Fingerprint),
    ) {
        let on_wire = crypto.fingerprint_on_wire(&sender, &form_1);
        prop_assert_eq!(on_wire, crypto.fingerprint_on_wire(&sender, &form_1));
        prop_assert_ne!(on_wire, form_1);
        prop_assert_ne!(on_wire, crypto.fingerprint_on_wire(&sender, &other));
        prop_assert_ne!(on_wire, crypto.fingerprint_on_wire(&stranger, &form_1));
    }

    #[test]
    fn a_secret_key_shows_nothing_of_itself(key in secret()) {
        let shown: String = format!("{key:?} {key:#?}");
        prop_assert_eq!(shown, "SecretKey(..) SecretKey(..)");
    }
}

#[test]
fn a_key_that_is_no_usable_point_neither_verifies_nor_is_sealed_for() {
    let secret = SecretKey::from_bytes([1; 32]);
    let unusable = PubKey([0; 32]);
    for crypto in [Which::Real, Which::StandIn] {
        let (mesh, id) = (MeshId::from("m"), ClientMessageId::from("i"));
        let context = SealContext {
            mesh: &mesh,
            sender: &crypto.public_key(&secret),
            recipient: &unusable,
            client_message_id: &id,
            priority: Priority::Next,
            reply_to: None,
        };
        let mut entropy = Entropy::from_seed([0; 32]);
        assert_eq!(
            crypto.seal_x1(&mut entropy, &secret, &context, b"body"),
            None
        );
        assert_eq!(
            crypto.seal_box(&mut entropy, &secret, &unusable, b"body"),
            None
        );
        let forged = Signature([0; 64]);
        assert!(!crypto.verify(&unusable, b"message", &forged));
    }
}

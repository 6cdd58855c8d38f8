//! Sealing what goes out and opening what comes in, by the suite that both ends open.

use alloc::string::String;

use super::context::Context;
use super::envelope;
use super::inbox::Recipient;
use crate::crypto::{SealContext, Sealed, SecretKey};
use crate::id::PubKey;
use crate::mark::Mark;
use crate::store::host::{InboxContent, OutboxRow};
use crate::wire::Suite;
use crate::wire::broker::Push;

/// Why a row cannot be sealed, now or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CannotSeal {
    /// The recipient's key is no usable curve point.
    UnusableKey,
    /// A box holds the body alone.
    Meta,
}

impl CannotSeal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::UnusableKey => "unusable_key",
            Self::Meta => "meta_unsupported",
        }
    }
}

pub(super) fn seal(
    ctx: &mut Context,
    suite: Suite,
    (secret, pubkey): (&SecretKey, PubKey),
    row: &OutboxRow,
) -> Result<Sealed, CannotSeal> {
    let sealed = match suite {
        Suite::X1 => {
            let context = SealContext {
                mesh: &row.mesh,
                sender: &pubkey,
                recipient: &row.target,
                client_message_id: &row.client_message_id,
                priority: row.priority,
                reply_to: row.reply_to.as_ref(),
            };
            let plaintext = envelope::write(&row.body, &row.meta);
            ctx.crypto
                .seal_x1(&mut ctx.entropy, secret, &context, &plaintext)
        }
        Suite::Box if !row.meta.is_empty() => return Err(CannotSeal::Meta),
        Suite::Box => {
            ctx.mark(Mark::SealedInBox);
            let body = row.body.as_bytes();
            ctx.crypto
                .seal_box(&mut ctx.entropy, secret, &row.target, body)
        }
    };
    sealed.ok_or(CannotSeal::UnusableKey)
}

/// What does not open is kept as it is, and never shown as text. With the suite, if it is one that
/// is known here.
pub(super) fn open(
    ctx: &mut Context,
    to: &Recipient<'_>,
    push: &Push,
) -> (Option<Suite>, InboxContent) {
    let suite = Suite::of_message(push.seal.as_deref());
    let opened = suite.and_then(|suite| opened(ctx, suite, to, push));
    let content = match opened {
        Some((body, meta)) => InboxContent::Opened { body, meta },
        None => InboxContent::Undecryptable {
            nonce: push.nonce.clone(),
            ciphertext: push.ciphertext.clone(),
        },
    };
    (suite, content)
}

/// Body and meta.
fn opened(
    ctx: &mut Context,
    suite: Suite,
    to: &Recipient<'_>,
    push: &Push,
) -> Option<(String, String)> {
    let sealed = Sealed {
        nonce: push.nonce.decode().try_into().ok()?,
        ciphertext: push.ciphertext.decode(),
    };
    match suite {
        Suite::X1 => {
            let context = SealContext {
                mesh: &to.identity.mesh,
                sender: &push.sender_pubkey,
                recipient: &to.pubkey,
                client_message_id: &push.client_message_id,
                priority: push.priority,
                reply_to: push.reply_to_id.as_ref(),
            };
            let plaintext = ctx.crypto.open_x1(to.secret, &context, &sealed).ok()?;
            envelope::read(&plaintext)
        }
        Suite::Box => {
            let plaintext = ctx
                .crypto
                .open_box(to.secret, &push.sender_pubkey, &sealed)
                .ok()?;
            let body = String::from_utf8(plaintext).ok()?;
            ctx.mark(Mark::BoxOpened);
            Some((body, String::new()))
        }
    }
}

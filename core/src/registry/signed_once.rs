//! Requests that an owner signs: good for a minute either way, each signature once.

use alloc::collections::{BTreeMap, VecDeque};

use crate::crypto::Crypto;
use crate::id::{PubKey, Signature};
use crate::limits::{HELLO_SKEW, SEEN_HELLO_FOR, SIGNED_REQUESTS};
use crate::time::{Mono, Now, Wall};
use crate::wire::http::HttpRefusal;

/// What a request claims of itself.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub by: &'a PubKey,
    /// The canonical string.
    pub text: &'a str,
    pub timestamp: Wall,
    pub signature: &'a Signature,
}

/// The signatures that were honoured lately. They are not kept over a restart: what owners sign is
/// idempotent, so that a repeat which slips through changes nothing.
#[derive(Debug, Default)]
pub struct SignedOnce {
    seen: BTreeMap<Signature, Mono>,
    in_order: VecDeque<(Mono, Signature)>,
}

impl SignedOnce {
    /// Honours `signed`, once.
    pub fn check(
        &mut self,
        crypto: &dyn Crypto,
        now: Now,
        signed: Signed<'_>,
    ) -> Result<(), HttpRefusal> {
        self.forget_old(now.mono);
        if signed.timestamp.distance(now.wall) > HELLO_SKEW {
            return Err(HttpRefusal {
                broker_time: Some(now.wall),
                ..HttpRefusal::new(
                    400,
                    "timestamp_skew",
                    "the timestamp is not close enough to the broker's clock",
                )
            });
        }
        if !crypto.verify(signed.by, signed.text.as_bytes(), signed.signature) {
            return Err(HttpRefusal::new(
                403,
                "bad_signature",
                "the request is not signed by the owner",
            ));
        }
        if self.seen.contains_key(signed.signature) {
            return Err(HttpRefusal::new(
                409,
                "replayed",
                "this request was made before: sign it anew",
            ));
        }
        if self.in_order.len() >= SIGNED_REQUESTS {
            return Err(HttpRefusal::new(
                503,
                "busy",
                "too many requests: try again",
            ));
        }
        self.seen.insert(*signed.signature, now.mono);
        self.in_order.push_back((now.mono, *signed.signature));
        Ok(())
    }

    fn forget_old(&mut self, now: Mono) {
        while let Some((at, signature)) = self.in_order.front() {
            if now.since(*at) < SEEN_HELLO_FOR {
                return;
            }
            self.seen.remove(signature);
            self.in_order.pop_front();
        }
    }
}

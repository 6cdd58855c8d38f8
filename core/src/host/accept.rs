//! Accepting a send: what is checked, and the table that a known id is looked up in.
//!
//! | row with this id | same fingerprint | other fingerprint |
//! |---|---|---|
//! | none | insert `pending`, 202 | |
//! | `pending`, `inflight` | 202, unchanged | 409 |
//! | `done` | 200 `duplicate` | 409 |
//! | `dead`, `aborted` | 409 with the reason | 409 |
//!
//! Idempotency first, size and target second: the same `to` on an id that exists means the
//! row's own target, whatever that name means by now.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use serde_json::Value;

use super::answers;
use super::context::Identity;
use super::envelope;
use super::ipc::{Answer, SendRequest};
use super::outbox::Settled;
use crate::crypto::fingerprint::{Kind, Request};
use crate::crypto::jcs;
use crate::id::{ClientMessageId, Fingerprint, MessageId, PubKey, RequestId, SessionId};
use crate::limits::{ID_BYTES, NAME_BYTES};
use crate::store::host::OutboxStatus;
use crate::wire::Priority;

/// A send whose shape is good and whose caller is known.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) sender: Identity,
    pub(super) session: Option<SessionId>,
    pub(super) id: ClientMessageId,
    /// Minted here and now: nobody else can have used it.
    pub(super) id_is_ours: bool,
    pub(super) to: String,
    pub(super) priority: Priority,
    pub(super) reply_to: Option<MessageId>,
    pub(super) meta: Option<Value>,
    pub(super) body: String,
}

impl Draft {
    pub(super) fn new(
        sender: Identity,
        session: Option<SessionId>,
        id: Option<ClientMessageId>,
        mint: impl FnOnce() -> String,
        send: SendRequest,
    ) -> Result<Self, Answer> {
        check_target(&send.to)?;
        let given = id.as_ref().map(ClientMessageId::as_str);
        let reply_to = send.reply_to_id.as_ref().map(MessageId::as_str);
        for (what, id) in [("an idempotency key", given), ("reply_to_id", reply_to)] {
            check_id(what, id)?;
        }
        Ok(Self {
            sender,
            session,
            id_is_ours: id.is_none(),
            id: id.unwrap_or_else(|| ClientMessageId::from(mint())),
            to: send.to,
            priority: send.priority.unwrap_or(Priority::Next),
            reply_to: send.reply_to_id,
            meta: send.meta,
            body: send.body,
        })
    }

    /// Behind idempotency: to an id that is known, what is too large is another content.
    pub(super) fn check_size(&self, inline_bytes: usize) -> Result<(), Answer> {
        let sealed = envelope::sealed_len(&self.body, &self.canonical_meta());
        if sealed <= inline_bytes {
            return Ok(());
        }
        Err(answers::error(
            413,
            "payload_too_large",
            alloc::format!("sealed, this has {sealed} characters; {inline_bytes} can be sent"),
        ))
    }

    /// Empty when absent.
    pub(super) fn canonical_meta(&self) -> String {
        self.meta.as_ref().map(jcs::canonical).unwrap_or_default()
    }

    pub(super) fn form_1(&self, target: &PubKey) -> Fingerprint {
        Request {
            kind: Kind::Dm,
            reference: &alloc::format!("{target}"),
            reply_to: self.reply_to.as_ref(),
            priority: self.priority,
            meta: self.meta.as_ref(),
            body: &self.body,
        }
        .form_1()
    }
}

/// What the table says of an id that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// 202, unchanged.
    Queued,
    /// 200.
    Duplicate,
    /// 409; whether the fingerprint is the row's.
    Conflict { same: bool },
}

pub(super) fn decide(row: &Settled, fingerprint: Option<Fingerprint>) -> Decision {
    let same = fingerprint == Some(row.form_1);
    match row.status {
        OutboxStatus::Pending | OutboxStatus::Inflight if same => Decision::Queued,
        OutboxStatus::Done if same => Decision::Duplicate,
        _ => Decision::Conflict { same },
    }
}

/// Sends whose id the store is being asked for. What comes behind one with the same id waits for it.
#[derive(Default)]
pub(super) struct Lookups {
    waiting: BTreeMap<(Identity, ClientMessageId), VecDeque<(RequestId, Draft)>>,
    count: usize,
}

impl Lookups {
    /// True if the store is to be asked.
    pub(super) fn wait(&mut self, request: RequestId, draft: Draft) -> bool {
        let key = (draft.sender.clone(), draft.id.clone());
        let behind = self.waiting.entry(key).or_default();
        behind.push_back((request, draft));
        self.count += 1;
        behind.len() == 1
    }

    pub(super) fn is_pending(&self, sender: &Identity, id: &ClientMessageId) -> bool {
        self.waiting.contains_key(&(sender.clone(), id.clone()))
    }

    /// In the order in which they came.
    pub(super) fn answered(
        &mut self,
        sender: &Identity,
        id: &ClientMessageId,
    ) -> VecDeque<(RequestId, Draft)> {
        let key = (sender.clone(), id.clone());
        let all = self.waiting.remove(&key).unwrap_or_default();
        self.count -= all.len();
        all
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

fn check_target(to: &str) -> Result<(), Answer> {
    if to.starts_with(['*', '@', '#']) {
        return Err(answers::bad_request(
            "`*`, `@group` and `#topic` cannot be sent to yet: name one peer",
        ));
    }
    if to.is_empty() || to.len() > NAME_BYTES || to.contains('\0') {
        return Err(answers::bad_request(alloc::format!(
            "`to` is a name or a key: 1 to {NAME_BYTES} bytes and no NUL"
        )));
    }
    Ok(())
}

fn check_id(what: &str, id: Option<&str>) -> Result<(), Answer> {
    let good = id.is_none_or(|id| !id.is_empty() && id.len() <= ID_BYTES && !id.contains('\0'));
    if !good {
        return Err(answers::bad_request(alloc::format!(
            "{what} has 1 to {ID_BYTES} bytes and no NUL"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: OutboxStatus) -> Settled {
        Settled {
            status,
            form_1: Fingerprint([1; 32]),
            to: "bob".into(),
            target: PubKey([2; 32]),
            broker_message_id: None,
            reason: None,
        }
    }

    #[test]
    fn the_table_has_a_cell_for_every_state() {
        use OutboxStatus::{Aborted, Dead, Done, Inflight, Pending};
        for (status, same) in [
            (Pending, Decision::Queued),
            (Inflight, Decision::Queued),
            (Done, Decision::Duplicate),
            (Dead, Decision::Conflict { same: true }),
            (Aborted, Decision::Conflict { same: true }),
        ] {
            let decided = decide(&row(status), Some(Fingerprint([1; 32])));
            assert_eq!(decided, same, "{status:?}");
            // Another request, or one that means nobody.
            for other in [Some(Fingerprint([9; 32])), None] {
                let decided = decide(&row(status), other);
                assert_eq!(decided, Decision::Conflict { same: false }, "{status:?}");
            }
        }
    }
}

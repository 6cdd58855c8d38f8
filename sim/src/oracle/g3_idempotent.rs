//! G3: same sender and id: the first answer again and no second message. Another fingerprint under
//! a known id: `idempotency_key_reused`, nothing written.

use std::collections::BTreeMap;

use bowline_core::host::ipc::Answer;
use bowline_core::id::{ClientMessageId, Fingerprint, MessageId, PeerKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::broker::Ack;
use bowline_core::wire::{BrokerFrame, SendCode, SendCodeKind};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token, UserCall};

#[derive(Default)]
pub struct Idempotent {
    messages: BTreeMap<(PeerKey, ClientMessageId), (MessageId, Fingerprint)>,
    /// What a sender was told that its id became.
    answers: BTreeMap<(PeerKey, String), String>,
    /// Repeats with another content: under which id.
    altered: BTreeMap<(PeerKey, String), (ClientMessageId, Fingerprint)>,
    /// Per user and key: the send that its daemon has accepted under it.
    accepted: BTreeMap<(usize, String), Token>,
}

impl Oracle for Idempotent {
    fn name(&self) -> &'static str {
        "g3_idempotent"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => ops.iter().try_for_each(|op| self.committed(op)),
            Record::PuppetSent {
                key,
                id,
                altered: Some(of),
                fingerprint,
            } => {
                self.altered
                    .insert(((**key).clone(), id.clone()), (of.clone(), *fingerprint));
                Ok(())
            }
            Record::Answered {
                user,
                call:
                    UserCall::Send {
                        key: Some(key),
                        token,
                        altered,
                    },
                answer,
                ..
            } => self.answered(*user, key, *token, altered.is_some(), answer),
            Record::Frame { key, frame, .. } => {
                let BrokerFrame::Ack(ack) = &**frame else {
                    return Ok(());
                };
                let Some(id) = &ack.id else { return Ok(()) };
                let of = ((**key).clone(), id.clone());
                if let Some((original, fingerprint)) = self.altered.get(&of) {
                    let accepted = self.messages.get(&(of.0.clone(), original.clone()));
                    return judge_altered(id, fingerprint, accepted, ack);
                }
                if !ack.queued {
                    return Ok(());
                }
                let before = self.answers.insert(of, ack.message_id.clone());
                match before {
                    Some(before) if before != ack.message_id => Err(format!(
                        "{key}'s {id} was answered {before} and then {}",
                        ack.message_id
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Idempotent {
    fn answered(
        &mut self,
        user: usize,
        key: &str,
        token: Token,
        altered: bool,
        answer: &Answer,
    ) -> Result<(), String> {
        let of = (user, key.to_owned());
        let status = answer.status;
        match (self.accepted.get(&of), status) {
            (None, 200 | 202) => {
                self.accepted.insert(of, token);
                Ok(())
            }
            (Some(first), 200 | 202) if *first != token => Err(format!(
                "user {user} has {first:?} under {key}, and {token:?} was accepted under it too"
            )),
            // Not now, no such session any more, or its row is dead: that says its own code.
            (Some(first), 409) if *first == token && !altered => {
                let code = answer.body["error"]["code"].as_str().unwrap_or_default();
                if code.ends_with("_fingerprint_match") {
                    return Ok(());
                }
                Err(format!(
                    "user {user} asked again for {key} and was answered {code}"
                ))
            }
            (Some(first), 400 | 404 | 413 | 422) => Err(format!(
                "{first:?} is accepted under {key}, and a repeat was answered {status}"
            )),
            _ => Ok(()),
        }
    }

    fn committed(&mut self, op: &Op) -> Result<(), String> {
        let Op::MessagePut(row) = op else {
            return Ok(());
        };
        let key = (row.sender.clone(), row.client_message_id.clone());
        match self.messages.insert(key, (row.id.clone(), row.fingerprint)) {
            None => Ok(()),
            Some((before, _)) => Err(format!(
                "{}'s {} became {before:?} and then {:?}",
                row.sender, row.client_message_id, row.id
            )),
        }
    }
}

/// What it repeats may never have been accepted, or it came first itself. "Not now" says nothing.
fn judge_altered(
    id: &str,
    fingerprint: &Fingerprint,
    accepted: Option<&(MessageId, Fingerprint)>,
    ack: &Ack,
) -> Result<(), String> {
    let Some((message, of_message)) = accepted else {
        return Ok(());
    };
    if fingerprint == of_message {
        return Ok(());
    }
    let code = ack.code.as_deref().and_then(SendCode::parse);
    let refused_or_deferred = code.is_some_and(|code| {
        code == SendCode::IdempotencyKeyReused || code.kind() == SendCodeKind::Deferral
    });
    if !ack.queued && refused_or_deferred {
        return Ok(());
    }
    Err(format!(
        "{id} has the id of {message:?} and another fingerprint: answered {}, {:?}",
        ack.queued, ack.code
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_second_message_for_one_id_is_found() {
        let history = [
            (s(1), testing::committed(testing::accept(1, 1, 2, "a"))),
            (s(2), testing::committed(testing::accept(2, 1, 2, "b"))),
            (s(3), testing::committed(testing::accept(3, 1, 2, "a"))),
        ];
        assert!(testing::judge(&mut Idempotent::default(), &history[..2]).is_ok());
        assert!(testing::judge(&mut Idempotent::default(), &history).is_err());
    }

    #[test]
    fn another_send_under_a_known_key_is_found() {
        let answered = |nth: u64, status: u16, code: &str| {
            let token = Token {
                sender: 0,
                recipient: 1,
                nth,
            };
            let body = serde_json::json!({"error": {"code": code}});
            let record = Record::Answered {
                node: 2,
                user: 0,
                call: UserCall::Send {
                    key: Some("k".into()),
                    token,
                    altered: None,
                },
                answer: Answer { status, body },
            };
            (s(1), record)
        };
        let judge = |second: (u64, Record)| {
            testing::judge(&mut Idempotent::default(), &[answered(1, 202, ""), second])
        };
        assert!(judge(answered(1, 202, "")).is_ok());
        assert!(judge(answered(2, 202, "")).is_err());
        assert!(judge(answered(2, 409, "outbox_done_fingerprint_mismatch")).is_ok());
        assert!(judge(answered(1, 409, "outbox_done_fingerprint_mismatch")).is_err());
        assert!(judge(answered(1, 409, "outbox_dead_fingerprint_match")).is_ok());
        assert!(judge(answered(1, 422, "target_unknown")).is_err());
    }

    #[test]
    fn another_content_taken_for_the_same_is_found() {
        let answer = |frame| {
            let history = [
                (s(1), testing::committed(testing::accept(1, 1, 2, "p1"))),
                (
                    s(2),
                    Record::PuppetSent {
                        key: testing::key(1),
                        id: "x9".into(),
                        altered: Some("p1".into()),
                        fingerprint: Fingerprint([1; 32]),
                    },
                ),
                (s(3), testing::frame(1, 1, frame)),
            ];
            testing::judge(&mut Idempotent::default(), &history)
        };
        let refused = |code: SendCode| {
            BrokerFrame::Ack(Box::new(Ack {
                id: Some("x9".into()),
                code: Some(code.as_str().into()),
                ..Ack::default()
            }))
        };
        assert!(answer(refused(SendCode::IdempotencyKeyReused)).is_ok());
        assert!(answer(refused(SendCode::Busy)).is_ok());
        assert!(answer(refused(SendCode::BadRequest)).is_err());
        assert!(answer(testing::ack_frame("x9", Some(1))).is_err());
    }

    #[test]
    fn two_answers_for_one_id_are_found() {
        let answer = |seq| testing::frame(1, 1, testing::ack_frame("p1", Some(seq)));
        let same = [(s(1), answer(4)), (s(2), answer(4))];
        let other = [(s(1), answer(4)), (s(2), answer(5))];
        assert!(testing::judge(&mut Idempotent::default(), &same).is_ok());
        assert!(testing::judge(&mut Idempotent::default(), &other).is_err());
    }
}

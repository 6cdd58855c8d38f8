//! G9: nobody sees what belongs to another. Every body names its two ends, so that one that turns up
//! anywhere else is known for what it is.

use bowline_core::id::PeerKey;
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::ledger::Ledger;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token, UserCall};

#[derive(Default)]
pub struct Scoping {
    ledger: Ledger,
}

impl Oracle for Scoping {
    fn name(&self) -> &'static str {
        "g9_scoping"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                ops.iter().for_each(|op| self.ledger.apply(op));
                Ok(())
            }
            Record::Sent { peer, frame, .. } => self.pushed(peer, frame),
            Record::PuppetGot { key, body, .. } => {
                let Some(token) = body.as_deref().and_then(Token::of) else {
                    return Ok(());
                };
                let users = view.profile.users();
                let me = view.cast.puppet_of(key).map(|puppet| users + puppet);
                if me == Some(token.recipient) {
                    return Ok(());
                }
                Err(format!("{key} opened {token:?}, which is not for it"))
            }
            Record::Told { user, event, .. } => {
                let text = String::from_utf8_lossy(&event.data);
                for token in Token::all_in(&text) {
                    if token.recipient != *user {
                        return Err(format!(
                            "user {user} was told of {token:?} by its event stream"
                        ));
                    }
                }
                Ok(())
            }
            Record::ToldStranger { node, event } => Err(format!(
                "node {node} told {event} to one whose token it does not know"
            )),
            Record::Answered {
                call: UserCall::Stranger,
                answer,
                ..
            } if answer.status != 401 => Err(format!(
                "a token that nobody has was answered {}",
                answer.status
            )),
            Record::Answered {
                user, call, answer, ..
            } => {
                let text = answer.body.to_string();
                for token in Token::all_in(&text) {
                    let own = match call {
                        UserCall::Inbox => token.recipient == *user,
                        UserCall::Outbox => token.sender == *user,
                        _ => token.sender == *user || token.recipient == *user,
                    };
                    if !own {
                        return Err(format!("user {user} asked {call:?} and saw {token:?}"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Scoping {
    fn pushed(&self, peer: &PeerKey, frame: &[u8]) -> Result<(), String> {
        if !frame.starts_with(b"{\"type\":\"push\"") {
            return Ok(());
        }
        let Ok(BrokerFrame::Push(push)) = decode_broker(frame) else {
            return Ok(());
        };
        let message = self
            .ledger
            .by_id
            .get(&push.message_id)
            .and_then(|seq| self.ledger.messages.get(seq));
        match message.and_then(|message| message.recipient.as_ref()) {
            Some(recipient) if recipient != peer => Err(format!(
                "{:?} is for {recipient} and was pushed to {peer}",
                push.message_id
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_body_in_other_hands_is_found() {
        let got = |peer: usize| {
            let view = testing::view();
            let key = std::sync::Arc::clone(&view.cast.puppets[peer].key);
            let token = Token {
                sender: 0,
                recipient: 1,
                nth: 1,
            };
            let history = [(
                s(1),
                Record::PuppetGot {
                    node: 2,
                    key,
                    sender: testing::pubkey(1),
                    id: testing::message_id(1),
                    body: Some(token.body(20)),
                },
            )];
            testing::judge_with(&mut Scoping::default(), &view, &history)
        };
        assert!(got(1).is_ok());
        assert!(got(0).is_err());
    }

    #[test]
    fn a_stranger_who_is_told_anything_is_found() {
        let told = Record::ToldStranger {
            node: 2,
            event: "ready",
        };
        assert!(testing::judge(&mut Scoping::default(), &[(s(1), told)]).is_err());
    }

    #[test]
    fn an_answer_with_a_siblings_row_is_found() {
        let answered = |user: usize, call: UserCall| {
            let body = serde_json::json!({"rows": [{"body": "canary-4-5-6;"}]});
            let answer = bowline_core::host::ipc::Answer { status: 200, body };
            let node = 2;
            let history = [(
                s(1),
                Record::Answered {
                    node,
                    user,
                    call,
                    answer,
                },
            )];
            testing::judge(&mut Scoping::default(), &history)
        };
        assert!(answered(5, UserCall::Inbox).is_ok());
        assert!(answered(4, UserCall::Inbox).is_err());
        assert!(answered(4, UserCall::Outbox).is_ok());
        assert!(answered(6, UserCall::Outbox).is_err());
    }
}

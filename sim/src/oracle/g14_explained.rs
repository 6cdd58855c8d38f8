//! G14: who asks where a message is is told what is so. A rung is said when it is durable, and not a
//! lower one than is durable; `claimed` is said of what was pushed; nothing is said of a message to
//! whoever neither sent it nor is its recipient.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{MessageId, PeerKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::receipt::{DeliveryState, ExplainResult, MessageStatusResult, Rung};
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct Explained {
    senders: BTreeMap<MessageId, PeerKey>,
    rungs: BTreeMap<MessageId, (PeerKey, Rung)>,
    pushed: BTreeMap<MessageId, BTreeSet<PeerKey>>,
}

impl Oracle for Explained {
    fn name(&self) -> &'static str {
        "g14_explained"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    match op {
                        Op::MessagePut(row) => {
                            self.senders.insert(row.id.clone(), row.sender.clone());
                        }
                        Op::DeliverySettled(row) => {
                            let rung = (row.recipient.clone(), row.rung);
                            self.rungs.insert(row.message_id.clone(), rung);
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Record::Sent { peer, frame, .. } if says_where(frame) => match decode_broker(frame) {
                Ok(BrokerFrame::Push(push)) => {
                    let to = self.pushed.entry(push.message_id).or_default();
                    to.insert((**peer).clone());
                    Ok(())
                }
                Ok(BrokerFrame::ExplainResult(result)) => self.explained(peer, &result),
                Ok(BrokerFrame::MessageStatusResult(result)) => self.status(peer, &result),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Explained {
    fn explained(&self, asker: &PeerKey, said: &ExplainResult) -> Result<(), String> {
        let id = &said.message_id;
        let is_sender = self.senders.get(id) == Some(asker);
        let is_recipient = self.is_recipient(asker, id);
        if !is_sender && !is_recipient {
            return Err(format!(
                "{asker} is told where {id:?} is, and it is not its own"
            ));
        }
        let durable = self.rungs.get(id).map(|(_, rung)| *rung);
        let told = rung(said.state);
        if told.is_some() && told != durable {
            return Err(format!(
                "{asker} is told {told:?} of {id:?}, which is {durable:?}"
            ));
        }
        if said.state == DeliveryState::Claimed && !self.pushed.contains_key(id) {
            return Err(format!(
                "{asker} is told that {id:?} was pushed, and it was not"
            ));
        }
        Ok(())
    }

    fn status(&self, asker: &PeerKey, said: &MessageStatusResult) -> Result<(), String> {
        let id = &said.message_id;
        if self.senders.get(id) != Some(asker) {
            return Err(format!(
                "{asker} is told the status of {id:?}, which it did not send"
            ));
        }
        let durable = self.rungs.get(id).map(|(_, rung)| *rung);
        if said.delivered && durable < Some(Rung::Delivered) {
            return Err(format!(
                "{asker} is told that {id:?} was delivered, and it is {durable:?}"
            ));
        }
        Ok(())
    }

    fn is_recipient(&self, asker: &PeerKey, id: &MessageId) -> bool {
        let pushed = self.pushed.get(id).is_some_and(|to| to.contains(asker));
        pushed || self.rungs.get(id).is_some_and(|(to, _)| to == asker)
    }
}

fn says_where(frame: &[u8]) -> bool {
    [
        &b"{\"type\":\"push\""[..],
        b"{\"type\":\"explain_result\"",
        b"{\"type\":\"message_status_result\"",
    ]
    .iter()
    .any(|begin| frame.starts_with(begin))
}

fn rung(state: DeliveryState) -> Option<Rung> {
    match state {
        DeliveryState::Ready | DeliveryState::Claimed => None,
        DeliveryState::Delivered => Some(Rung::Delivered),
        DeliveryState::Seen => Some(Rung::Seen),
        DeliveryState::Expired => Some(Rung::Expired),
        DeliveryState::Dead => Some(Rung::Dead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::receipt::WaitsFor;

    fn explained(asker: u8, state: DeliveryState) -> Record {
        let result = ExplainResult {
            message_id: testing::message_id(1),
            client_message_id: "a".into(),
            recipient: testing::pubkey(2),
            state,
            waits_for: WaitsFor::Nothing,
            holder: None,
            attempt: 1,
            next_at: None,
            history: Vec::new(),
            req_id: None,
        };
        testing::sent(asker, 1, &BrokerFrame::ExplainResult(Box::new(result)))
    }

    fn status(asker: u8, delivered: bool) -> Record {
        let result = MessageStatusResult {
            message_id: testing::message_id(1),
            target_spec: String::new(),
            delivered,
            delivered_at: None,
            recipients: Vec::new(),
            req_id: None,
        };
        testing::sent(asker, 1, &BrokerFrame::MessageStatusResult(result))
    }

    fn judge(more: Vec<Record>) -> Result<(), String> {
        let mut history = vec![(s(1), testing::committed(testing::accept(1, 1, 2, "a")))];
        history.extend(more.into_iter().map(|record| (s(2), record)));
        testing::judge(&mut Explained::default(), &history)
    }

    #[test]
    fn a_rung_that_is_not_durable_is_found() {
        let delivered = || testing::settled(1, 2, 1, Rung::Delivered);
        let says = || explained(1, DeliveryState::Delivered);
        assert!(judge(vec![delivered(), says()]).is_ok());
        assert!(judge(vec![says(), delivered()]).is_err());
        assert!(judge(vec![delivered(), status(1, true)]).is_ok());
        assert!(judge(vec![status(1, true), delivered()]).is_err());
    }

    #[test]
    fn a_claim_of_what_was_never_pushed_is_found() {
        let push = testing::sent(2, 2, &testing::push_frame(1, None));
        assert!(judge(vec![push, explained(1, DeliveryState::Claimed)]).is_ok());
        assert!(judge(vec![explained(1, DeliveryState::Claimed)]).is_err());
    }

    #[test]
    fn an_answer_to_a_stranger_is_found() {
        assert!(judge(vec![explained(3, DeliveryState::Ready)]).is_err());
        assert!(judge(vec![status(2, false)]).is_err());
        assert!(judge(vec![status(1, false)]).is_ok());
    }
}

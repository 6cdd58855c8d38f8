//! G12: when all has converged, what is sent then arrives: a world that is merely quiet has not
//! healed. That it converges at all is judged by the world.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{ClientMessageId, PeerKey};
use bowline_core::store::host;
use bowline_core::store::mesh::Op;

use super::{Oracle, Phase, View};
use crate::clock::Moment;
use crate::record::{Record, Token};

#[derive(Default)]
pub struct FreshSends {
    begun: bool,
    /// What sessions asked for and is in no inbox.
    asked: BTreeSet<Token>,
    /// What arrived: whoever had no answer asks for it again all the same.
    arrived: BTreeSet<Token>,
    /// What puppets sent and was not accepted.
    sent: BTreeMap<ClientMessageId, PeerKey>,
}

impl Oracle for FreshSends {
    fn name(&self) -> &'static str {
        "g12_liveness"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::Asked { token, .. } if self.begun && !self.arrived.contains(token) => {
                self.asked.insert(*token);
            }
            Record::PuppetSent { key, id, .. } if self.begun => {
                self.sent.insert(id.as_str().into(), (**key).clone());
            }
            Record::PuppetGot {
                body: Some(body), ..
            } => {
                if let Some(token) = Token::of(body) {
                    self.arrive(token);
                }
            }
            Record::HostCommitted { ops, .. } => {
                for op in ops {
                    if let host::Op::InboxPut(row) = op
                        && let host::InboxContent::Opened { body, .. } = &row.content
                        && let Some(token) = Token::of(body)
                    {
                        self.arrive(token);
                    }
                }
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::MessagePut(row) = op {
                        self.sent.remove(&row.client_message_id);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn phase(&mut self, _: Moment, phase: Phase) {
        self.begun = phase == Phase::Fresh;
    }

    fn unmet(&self, _: Moment, _: &View) -> Option<String> {
        if let Some(token) = self.asked.first() {
            return Some(format!(
                "all had converged, and what user {} then sent to {} did not arrive",
                token.sender, token.recipient
            ));
        }
        let (id, key) = self.sent.first_key_value()?;
        Some(format!(
            "all had converged, and {id:?}, which {key} then sent, was not accepted"
        ))
    }
}

impl FreshSends {
    fn arrive(&mut self, token: Token) {
        self.asked.remove(&token);
        self.arrived.insert(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn what_is_sent_last_and_does_not_arrive_is_found() {
        let token = Token {
            sender: 0,
            recipient: 1,
            nth: 9,
        };
        let asked = Record::Asked {
            node: 2,
            user: 0,
            token,
            altered: None,
        };
        let view = testing::view();
        let mut oracle = FreshSends::default();
        oracle
            .see(Moment(s(1)), &asked, &view)
            .expect("no judgement yet");
        assert_eq!(
            oracle.unmet(Moment(s(2)), &view),
            None,
            "it was sent before"
        );
        oracle.phase(Moment(s(3)), Phase::Fresh);
        oracle
            .see(Moment(s(4)), &asked, &view)
            .expect("no judgement yet");
        assert!(oracle.unmet(Moment(s(5)), &view).is_some());
        let arrived = testing::inbox_put(1, 1, "a", &token.body(40));
        oracle
            .see(Moment(s(6)), &arrived, &view)
            .expect("no judgement yet");
        assert_eq!(oracle.unmet(Moment(s(7)), &view), None);
        oracle
            .see(Moment(s(8)), &asked, &view)
            .expect("no judgement yet");
        assert_eq!(oracle.unmet(Moment(s(9)), &view), None, "asked for again");
    }
}

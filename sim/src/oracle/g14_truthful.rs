//! G14: nobody is told a rung that was not reached. An `ack` is said when the message is durable at
//! the broker, a `push` is of a durable message, and 202 is said when the row is durable at the host.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::ClientMessageId;
use bowline_core::store::host;
use bowline_core::store::mesh::Op;
use bowline_core::wire::{BrokerFrame, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token, UserCall};

#[derive(Default)]
pub struct Truthful {
    durable: BTreeSet<String>,
    /// Per host: ids of durable outbox rows, and the tokens in their bodies.
    outbox: BTreeMap<usize, BTreeSet<ClientMessageId>>,
    queued: BTreeSet<Token>,
}

impl Oracle for Truthful {
    fn name(&self) -> &'static str {
        "g14_truthful"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::MessagePut(row) = op {
                        self.durable.insert(row.id.to_string());
                    }
                }
                Ok(())
            }
            Record::Sent { peer, frame, .. } => match self.promised(frame) {
                Some((what, message)) if !self.durable.contains(&message) => Err(format!(
                    "{peer} was sent {what} of {message}, which is not durable"
                )),
                _ => Ok(()),
            },
            Record::HostCommitted { node, ops, .. } => {
                for op in ops {
                    self.host_committed(*node, op, view)?;
                }
                Ok(())
            }
            Record::Answered {
                call: UserCall::Send { token, .. },
                answer,
                ..
            } if answer.status == 202 || answer.status == 200 => {
                if self.queued.contains(token) {
                    return Ok(());
                }
                Err(format!(
                    "{token:?} was answered {} and is not durable in an outbox",
                    answer.status
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Truthful {
    /// The message that a frame says is durable.
    fn promised(&self, frame: &[u8]) -> Option<(&'static str, String)> {
        if !frame.starts_with(b"{\"type\":\"ack\"") && !frame.starts_with(b"{\"type\":\"push\"") {
            return None;
        }
        match decode_broker(frame).ok()? {
            BrokerFrame::Ack(ack) if ack.queued => Some(("an ack", ack.message_id)),
            BrokerFrame::Push(push) => Some(("a push", push.message_id.to_string())),
            _ => None,
        }
    }

    fn host_committed(&mut self, node: usize, op: &host::Op, _: &View) -> Result<(), String> {
        match op {
            host::Op::OutboxPut(row) => {
                self.outbox
                    .entry(node)
                    .or_default()
                    .insert(row.client_message_id.clone());
                self.queued.extend(Token::of(&row.body));
                Ok(())
            }
            host::Op::OutboxState { state, .. } => {
                let Some(message) = &state.broker_message_id else {
                    return Ok(());
                };
                if self.durable.contains(message.as_str()) {
                    return Ok(());
                }
                Err(format!(
                    "an outbox row is done as {message}, which is not durable at the broker"
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn an_ack_before_its_message_is_durable_is_found() {
        let ack = || testing::sent(1, 1, &testing::ack_frame("p1", Some(1)));
        let accept = || testing::committed(testing::accept(1, 1, 2, "p1"));
        let truthful = [(s(1), accept()), (s(2), ack())];
        let early = [(s(1), ack()), (s(2), accept())];
        assert!(testing::judge(&mut Truthful::default(), &truthful).is_ok());
        assert!(testing::judge(&mut Truthful::default(), &early).is_err());
    }
}

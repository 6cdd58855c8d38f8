//! G1: what was accepted is delivered. A delivery is settled only when its recipient has it (a
//! puppet: it opened the push; a session: its inbox row is durable), and in the end nothing is owed
//! to anybody and every accepted send is in an inbox, or its sender knows why not.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{ClientMessageId, MessageId, PeerKey, PubKey};
use bowline_core::store::host;
use bowline_core::store::host::OutboxStatus;
use bowline_core::store::mesh::{Op, ReceiptRow};
use bowline_core::time::Wall;
use bowline_core::wire::receipt::Rung;

use super::ledger::Ledger;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token, UserCall};

#[derive(Default)]
pub struct NoLoss {
    ledger: Ledger,
    /// Messages that a puppet was pushed and could open.
    opened: BTreeSet<(PeerKey, MessageId)>,
    inboxes: BTreeSet<(PeerKey, PubKey, ClientMessageId)>,
    /// What reached an inbox, or a puppet, by its canary.
    arrived: BTreeSet<Token>,
    /// Of whose messages retention was over, and which.
    expired: BTreeSet<(PeerKey, ClientMessageId)>,
    /// Sends that were answered 2xx.
    promised: BTreeMap<Token, usize>,
}

impl Oracle for NoLoss {
    fn name(&self) -> &'static str {
        "g1_no_loss"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    self.settled(op, view)?;
                    self.ledger.apply(op);
                }
            }
            Record::PuppetGot { key, id, body, .. } => {
                let Some(body) = body else {
                    return Err(format!("{key} cannot open {id:?}"));
                };
                self.arrived.extend(Token::of(body));
                self.opened.insert(((**key).clone(), id.clone()));
            }
            Record::HostCommitted { ops, .. } => {
                for op in ops {
                    if let host::Op::InboxPut(row) = op {
                        let id = row.client_message_id.clone();
                        self.inboxes.insert((row.recipient.clone(), row.sender, id));
                        if let host::InboxContent::Opened { body, .. } = &row.content {
                            self.arrived.extend(Token::of(body));
                        }
                    }
                }
            }
            Record::Answered {
                node,
                call: UserCall::Send { token, .. },
                answer,
                ..
            } if answer.status == 202 || answer.status == 200 => {
                self.promised.insert(*token, *node);
            }
            _ => {}
        }
        Ok(())
    }

    fn unmet(&self, _: Moment, view: &View) -> Option<String> {
        if let Some((recipient, seq)) = self.ledger.owed.first() {
            return Some(format!("{recipient} is still owed message {}", seq.0));
        }
        for (token, node) in &self.promised {
            if !self.arrived.contains(token) && !self.sender_knows(token, *node, view) {
                return Some(format!(
                    "{token:?} was accepted by its daemon, is in no inbox, and its sender was told nothing"
                ));
            }
        }
        None
    }
}

impl NoLoss {
    fn settled(&mut self, op: &Op, view: &View) -> Result<(), String> {
        let Op::DeliverySettled(receipt) = op else {
            return Ok(());
        };
        let (seq, recipient) = (receipt.seq, &receipt.recipient);
        let Some(message) = self.ledger.messages.get(&seq) else {
            return Err(format!("message {} was settled and never accepted", seq.0));
        };
        if receipt.rung == Rung::Expired {
            return self.expired(receipt, message.created_at, view);
        }
        let opened = self
            .opened
            .contains(&(recipient.clone(), message.id.clone()));
        let row = (
            recipient.clone(),
            message.sender_pubkey,
            message.client_message_id.clone(),
        );
        if opened || self.inboxes.contains(&row) {
            return Ok(());
        }
        Err(format!(
            "{recipient} is no longer owed {:?}, and it does not have it",
            message.id
        ))
    }

    /// Retention is over, and not before.
    fn expired(
        &mut self,
        receipt: &ReceiptRow,
        accepted_at: Wall,
        view: &View,
    ) -> Result<(), String> {
        let kept_for = receipt.at.since(accepted_at);
        if kept_for < view.limits.undelivered_for {
            return Err(format!(
                "{} is no longer owed {:?} after {kept_for:?}, before retention is over",
                receipt.recipient, receipt.message_id
            ));
        }
        self.expired
            .insert((receipt.sender.clone(), receipt.client_message_id.clone()));
        Ok(())
    }

    /// The row says, durably, that and why it will not arrive.
    fn sender_knows(&self, token: &Token, node: usize, view: &View) -> bool {
        let Some(host) = view.host_at(node).and_then(|host| view.hosts.get(host)) else {
            return false;
        };
        let held = host.borrow();
        held.image.outbox.values().any(|row| {
            let is_final = matches!(row.state.status, OutboxStatus::Dead | OutboxStatus::Aborted);
            let of = (row.sender.clone(), row.client_message_id.clone());
            (is_final || self.expired.contains(&of)) && Token::of(&row.body) == Some(*token)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    fn got(peer: u8, seq: u64) -> Record {
        Record::PuppetGot {
            node: peer.into(),
            key: testing::key(peer),
            sender: testing::pubkey(1),
            id: testing::message_id(seq),
            body: Some("canary-0-1-1;".into()),
        }
    }

    #[test]
    fn a_delivery_settled_for_one_who_does_not_have_it_is_found() {
        let accept = || testing::committed(testing::accept(1, 1, 2, "a"));
        let good = [
            (s(1), accept()),
            (s(2), got(2, 1)),
            (s(3), testing::done(1, 2)),
        ];
        let claimed_is_not_delivered = [(s(1), accept()), (s(3), testing::done(1, 2))];
        let another_has_it = [
            (s(1), accept()),
            (s(2), got(3, 1)),
            (s(3), testing::done(1, 2)),
        ];
        assert!(testing::judge(&mut NoLoss::default(), &good).is_ok());
        assert!(testing::judge(&mut NoLoss::default(), &claimed_is_not_delivered).is_err());
        assert!(testing::judge(&mut NoLoss::default(), &another_has_it).is_err());
    }

    #[test]
    fn what_is_owed_in_the_end_is_found() {
        let mut oracle = NoLoss::default();
        let accept = testing::committed(testing::accept(1, 1, 2, "a"));
        assert!(testing::judge(&mut oracle, &[(s(1), accept)]).is_ok());
        assert!(oracle.unmet(Moment(s(9)), &testing::view()).is_some());
    }
}

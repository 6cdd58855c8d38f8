//! G14 at the hosts: a sender is told of no rung that was not reached, what it was told stands in its
//! store, and `seen` is said of what somebody looked at. When all has healed, what is in the
//! recipient's inbox is `delivered` at its sender, and what was read there is `seen`.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{ClientMessageId, InboxSeq, MessageId, OutboxSeq, PeerKey, PubKey};
use bowline_core::store::host::{InboxContent, Op, OutboxRow, OutboxState, OutboxStatus};
use bowline_core::store::mesh;
use bowline_core::wire::feature::RECEIPTS;
use bowline_core::wire::receipt::{Receipt, Rung};
use bowline_core::wire::{ClientFrame, decode_client};
use serde_json::Value;

use super::ledger::Ledger;
use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::{Record, UserCall};

/// A message, as its sender and its recipient both name it.
type Name = (PubKey, ClientMessageId);

#[derive(Default)]
pub struct AtTheSender {
    ledger: Ledger,
    /// Durable at the broker.
    accepted: BTreeSet<Name>,
    users: BTreeMap<usize, PubKey>,
    inbox: BTreeMap<(NodeId, InboxSeq), Row>,
    /// Durable in an inbox, or with a puppet, which keeps none.
    delivered: BTreeSet<Name>,
    /// Somebody asked that it be marked as seen; or a puppet, which looks at everything, has it.
    looked_at: BTreeSet<Name>,
    /// And that it was, is durable there.
    marked: BTreeSet<Name>,
    /// Of a host's rows: whose they are.
    outbox: BTreeMap<(NodeId, OutboxSeq), Name>,
    /// What hosts hold durably: the highest number of each sender, the rungs of each message.
    numbers: BTreeMap<PeerKey, u64>,
    ladders: BTreeMap<Name, BTreeSet<&'static str>>,
    /// There was a broker that keeps no receipts: it cannot be asked for them afterwards.
    without: bool,
}

struct Row {
    name: Name,
    opened: bool,
    looked_at: bool,
}

impl Oracle for AtTheSender {
    fn name(&self) -> &'static str {
        "g14_at_the_sender"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::MeshCommitted { ops, .. } => {
                ops.iter().for_each(|op| self.mesh_committed(op));
                Ok(())
            }
            Record::PuppetGot { id, .. } => {
                if let Some(name) = self.name_of(id) {
                    self.looked_at.insert(name.clone());
                    self.delivered.insert(name);
                }
                Ok(())
            }
            Record::Opened { user, pubkey, .. } => {
                self.users.insert(*user, *pubkey);
                Ok(())
            }
            Record::LookedAt { node, ids, .. } => {
                for id in ids {
                    if let Some(row) = self.inbox.get_mut(&(*node, *id)) {
                        row.looked_at = true;
                        if row.opened {
                            self.looked_at.insert(row.name.clone());
                        }
                    }
                }
                Ok(())
            }
            Record::HostCommitted { node, ops, .. } => {
                ops.iter().try_for_each(|op| self.committed(*node, op))
            }
            Record::Reached { bytes } => self.reached(bytes),
            Record::Attached { peer, hello, .. }
                if !view.puppets().any(|puppet| puppet.key == *peer) =>
            {
                let durable = self.numbers.get(&**peer).copied().unwrap_or_default();
                match hello.offer.receipts {
                    Some(receipts) if receipts.after > durable => Err(format!(
                        "{peer} asks for receipts after {}, and has durably {durable}",
                        receipts.after
                    )),
                    _ => Ok(()),
                }
            }
            Record::Up { ack, .. } => {
                let features = ack.features.as_ref();
                self.without |= !features.is_some_and(|all| all.0.contains_key(RECEIPTS));
                Ok(())
            }
            Record::Told { user, event, .. } if event.event == "receipt" => {
                let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
                self.told(*user, &data)
            }
            Record::Answered {
                user,
                call: UserCall::Explain,
                answer,
                ..
            } if answer.status == 200 => self.explained(*user, &answer.body),
            _ => Ok(()),
        }
    }

    fn unmet(&self, _: Moment, view: &View) -> Option<String> {
        if self.without {
            return None;
        }
        view.hosts.iter().enumerate().find_map(|(host, store)| {
            let held = store.borrow();
            let mut rows = held.image.outbox.values();
            rows.find_map(|row| self.behind(host, row, view))
        })
    }
}

impl AtTheSender {
    fn name_of(&self, id: &MessageId) -> Option<Name> {
        let message = self.ledger.messages.get(self.ledger.by_id.get(id)?)?;
        Some((message.sender_pubkey, message.client_message_id.clone()))
    }

    fn mesh_committed(&mut self, op: &mesh::Op) {
        self.ledger.apply(op);
        if let mesh::Op::MessagePut(row) = op {
            let name = (row.sender_pubkey, row.client_message_id.clone());
            self.accepted.insert(name);
        }
    }

    fn committed(&mut self, node: NodeId, op: &Op) -> Result<(), String> {
        match op {
            Op::InboxPut(row) => {
                let name = (row.sender, row.client_message_id.clone());
                self.delivered.insert(name.clone());
                let here = Row {
                    name,
                    opened: matches!(row.content, InboxContent::Opened { .. }),
                    looked_at: false,
                };
                self.inbox.insert((node, row.seq), here);
                Ok(())
            }
            Op::InboxSeen { seq, .. } | Op::SeenOwed { seq } => {
                let row = self.inbox.get(&(node, *seq));
                if let Some(row) = row.filter(|row| row.looked_at) {
                    if row.opened {
                        self.marked.insert(row.name.clone());
                    }
                    return Ok(());
                }
                Err(format!(
                    "host at {node} marks row {seq} of its inbox, which nobody looked at"
                ))
            }
            Op::OutboxPut(row) => {
                if let PeerKey::Session(key) = &row.sender {
                    let name = (*key, row.client_message_id.clone());
                    self.outbox.insert((node, row.seq), name);
                }
                Ok(())
            }
            Op::OutboxState { seq, state } => {
                let end = end_of(state);
                if let (Some(name), Some(end)) = (self.outbox.get(&(node, *seq)), end) {
                    self.ladders.entry(name.clone()).or_default().insert(end);
                }
                Ok(())
            }
            Op::Receipt {
                sender, receipt, ..
            } => self.receipt(sender, receipt),
            _ => Ok(()),
        }
    }

    fn receipt(&mut self, sender: &PeerKey, receipt: &Receipt) -> Result<(), String> {
        let before = self.numbers.insert(sender.clone(), receipt.n);
        if before.is_some_and(|before| before >= receipt.n) {
            return Err(format!(
                "{sender} wrote receipt {} when it had {before:?}",
                receipt.n
            ));
        }
        let PeerKey::Session(key) = sender else {
            return Ok(());
        };
        let name = (*key, receipt.client_message_id.clone());
        self.check(&name, receipt.rung.as_str())?;
        let ladder = self.ladders.entry(name).or_default();
        ladder.insert(receipt.rung.as_str());
        Ok(())
    }

    /// Was this rung reached?
    fn check(&self, name: &Name, rung: &str) -> Result<(), String> {
        let reached = match rung {
            "accepted" => &self.accepted,
            "delivered" => &self.delivered,
            "seen" => &self.looked_at,
            // That it ended is its broker's or its host's to say.
            _ => return Ok(()),
        };
        if reached.contains(name) {
            return Ok(());
        }
        Err(format!("{name:?} is said to be {rung}, and is not"))
    }

    /// What a host or a puppet says to the broker.
    fn reached(&self, bytes: &[u8]) -> Result<(), String> {
        if !bytes.starts_with(b"{\"type\":\"seen\"") {
            return Ok(());
        }
        let Ok(ClientFrame::Seen(seen)) = decode_client(bytes) else {
            return Ok(());
        };
        // Of another mesh's messages this one knows nothing.
        let names = seen.ids.iter().map(|id| MessageId::from(id.as_str()));
        let mut names = names.filter_map(|id| self.name_of(&id));
        names.try_for_each(|name| self.check(&name, "seen"))
    }

    fn told(&self, user: usize, data: &Value) -> Result<(), String> {
        let text = |field: &str| data[field].as_str().unwrap_or_default();
        let own = self.users.get(&user);
        let Some(own) = own.filter(|own| own.to_string() == text("sender")) else {
            return Err(format!(
                "user {user} was told what became of a message of {}",
                text("sender")
            ));
        };
        let name = (*own, ClientMessageId::from(text("id")));
        let ladder = self.ladders.get(&name);
        if ladder.is_some_and(|ladder| ladder.contains(text("rung"))) {
            return Ok(());
        }
        Err(format!(
            "user {user} was told that {name:?} is {}, which is not durable at its host",
            text("rung")
        ))
    }

    fn explained(&self, user: usize, body: &Value) -> Result<(), String> {
        let text = |field: &str| body[field].as_str().unwrap_or_default();
        let (Some(own), "sent") = (self.users.get(&user), text("direction")) else {
            return Ok(());
        };
        let name = (*own, ClientMessageId::from(text("id")));
        self.check(&name, text("state"))
    }

    /// What is still to be told to the sender of this row, in words.
    fn behind(&self, host: usize, row: &OutboxRow, view: &View) -> Option<String> {
        let PeerKey::Session(key) = &row.sender else {
            return None;
        };
        if row.mesh != view.cast.mesh || row.state.status != OutboxStatus::Done {
            return None;
        }
        let name = (*key, row.client_message_id.clone());
        let due = if self.marked.contains(&name) {
            Rung::Seen
        } else if self.delivered.contains(&name) {
            Rung::Delivered
        } else {
            return None;
        };
        let reached = row.rungs.iter().map(|rung| rung.rung).max();
        // Its acknowledgement may have been lost, and the recipient not have come back in time.
        let expired = reached == Some(Rung::Expired);
        (reached < Some(due) && !expired)
            .then(|| format!("host {host} was told {reached:?} of {name:?}, which is {due:?}"))
    }
}

fn end_of(state: &OutboxState) -> Option<&'static str> {
    match state.status {
        OutboxStatus::Pending | OutboxStatus::Inflight => None,
        OutboxStatus::Done => Some("accepted"),
        OutboxStatus::Dead if state.last_error.as_deref() == Some("expired") => Some("expired"),
        OutboxStatus::Dead => Some("dead"),
        OutboxStatus::Aborted => Some("aborted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::id::MeshId;
    use bowline_core::store::TxnId;

    const HOST: NodeId = 2;

    fn host(op: Op) -> Record {
        Record::HostCommitted {
            node: HOST,
            txn: TxnId(1),
            ops: vec![op],
        }
    }

    /// What user 1 is told of its message `a` to user 0.
    fn receipt(n: u64, rung: Rung) -> Record {
        host(Op::Receipt {
            mesh: MeshId::from("m"),
            sender: PeerKey::Session(testing::pubkey(1)),
            receipt: Box::new(Receipt {
                n,
                client_message_id: ClientMessageId::from("a"),
                recipient: testing::pubkey(0),
                rung,
                reason: None,
                at: String::new(),
            }),
        })
    }

    fn arrived() -> Record {
        testing::inbox_put(1, 1, "a", "body")
    }

    fn looked_at() -> Record {
        Record::LookedAt {
            node: HOST,
            user: 0,
            ids: vec![InboxSeq(1)],
        }
    }

    fn marked() -> Record {
        host(Op::SeenOwed { seq: InboxSeq(1) })
    }

    fn says_seen() -> Record {
        let frame = ClientFrame::Seen(bowline_core::wire::receipt::Seen {
            ids: vec![testing::message_id(1).to_string()],
            req_id: None,
        });
        Record::Reached {
            bytes: bowline_core::wire::encode_client(&frame),
        }
    }

    fn accepted() -> Record {
        testing::committed(testing::accept(1, 1, 0, "a"))
    }

    fn opened(user: usize) -> Record {
        Record::Opened {
            node: HOST,
            user,
            pubkey: testing::pubkey(user as u8),
        }
    }

    fn told(user: usize, rung: &str) -> Record {
        let data = format!(
            "{{\"id\":\"a\",\"sender\":\"{}\",\"rung\":\"{rung}\"}}",
            testing::pubkey(1)
        );
        testing::told_event(user, 1, "receipt", data)
    }

    fn judge(history: Vec<Record>) -> Result<(), String> {
        let history: Vec<_> = history.into_iter().map(|record| (s(1), record)).collect();
        testing::judge(&mut AtTheSender::default(), &history)
    }

    #[test]
    fn a_rung_that_was_not_reached_is_found() {
        let (delivered, seen) = (|| receipt(1, Rung::Delivered), || receipt(2, Rung::Seen));
        assert!(judge(vec![arrived(), delivered(), looked_at(), marked(), seen()]).is_ok());
        assert!(judge(vec![delivered()]).is_err());
        assert!(judge(vec![arrived(), delivered(), seen()]).is_err());
        assert!(judge(vec![delivered(), arrived()]).is_err());
    }

    #[test]
    fn what_is_marked_or_told_and_was_not_looked_at_is_found() {
        assert!(
            judge(vec![
                accepted(),
                arrived(),
                looked_at(),
                marked(),
                says_seen()
            ])
            .is_ok()
        );
        assert!(judge(vec![accepted(), arrived(), marked()]).is_err());
        assert!(judge(vec![accepted(), arrived(), says_seen()]).is_err());
    }

    #[test]
    fn a_number_that_is_written_twice_is_found() {
        let twice = [
            arrived(),
            receipt(4, Rung::Delivered),
            receipt(4, Rung::Delivered),
        ];
        assert!(judge(twice.to_vec()).is_err());
    }

    #[test]
    fn an_event_before_its_receipt_is_durable_or_to_another_is_found() {
        let durable = || vec![opened(0), opened(1), arrived(), receipt(1, Rung::Delivered)];
        let with = |last: Record| durable().into_iter().chain([last]).collect::<Vec<_>>();
        assert!(judge(with(told(1, "delivered"))).is_ok());
        assert!(judge(with(told(1, "seen"))).is_err());
        assert!(judge(with(told(0, "delivered"))).is_err());
    }
}

//! What the broker's store holds of messages, kept as an index by oracles that need it.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{ClientMessageId, MessageId, MessageSeq, PeerKey, PubKey};
use bowline_core::store::mesh::Op;
use bowline_core::time::Wall;
use bowline_core::wire::Priority;

#[derive(Default)]
pub struct Ledger {
    pub messages: BTreeMap<MessageSeq, Message>,
    pub by_id: BTreeMap<MessageId, MessageSeq>,
    pub owed: BTreeSet<(PeerKey, MessageSeq)>,
}

pub struct Message {
    pub id: MessageId,
    pub sender_pubkey: PubKey,
    pub priority: Priority,
    pub client_message_id: ClientMessageId,
    pub recipient: Option<PeerKey>,
    pub created_at: Wall,
}

impl Ledger {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MessagePut(row) => {
                self.by_id.insert(row.id.clone(), row.seq);
                self.messages.insert(
                    row.seq,
                    Message {
                        id: row.id.clone(),
                        sender_pubkey: row.sender_pubkey,
                        priority: row.priority,
                        client_message_id: row.client_message_id.clone(),
                        recipient: None,
                        created_at: row.created_at,
                    },
                );
            }
            Op::DeliveryPut { seq, recipient, .. } => {
                self.owed.insert((recipient.clone(), *seq));
                if let Some(message) = self.messages.get_mut(seq) {
                    message.recipient = Some(recipient.clone());
                }
            }
            Op::DeliverySettled(row) => {
                self.owed.remove(&(row.recipient.clone(), row.seq));
            }
            _ => {}
        }
    }
}

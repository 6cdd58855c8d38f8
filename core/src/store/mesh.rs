//! What a mesh remembers: rows, the ops that change them, and what recovery reads back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Owner;
use crate::crypto::attestation::Attestation;
use crate::id::{
    ClientMessageId, ConnId, Fingerprint, InviteId, MemberId, MessageId, MessageSeq, PeerKey,
    PubKey, ReceiptNumber, Role, SessionId,
};
use crate::time::Wall;
use crate::wire::client::{About, Group, Profile};
use crate::wire::feature::Capabilities;
use crate::wire::receipt::Rung;
use crate::wire::{Base64Body, Nonce, Priority, Status};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Each `…Put` replaces the row of its key.
    MemberPut(MemberRow),
    InvitePut(InviteRow),
    PeerPut(alloc::boxed::Box<PeerRow>),
    PeerForget(PeerKey),
    /// Dedupe record, message and delivery of one accept stand in one transaction.
    MessagePut(alloc::boxed::Box<MessageRow>),
    /// `ON CONFLICT DO NOTHING`: never a constraint violation.
    DedupePut(DedupeRow),
    DeliveryPut {
        seq: MessageSeq,
        recipient: PeerKey,
        claim: Option<ClaimRow>,
    },
    /// A further attempt. Of a delivery that is not owed: nothing.
    DeliveryClaimed {
        seq: MessageSeq,
        recipient: PeerKey,
        claim: ClaimRow,
    },
    /// The delivery's row goes, and what its sender is to be told takes its place; a receipt of the
    /// same delivery is replaced.
    DeliverySettled(alloc::boxed::Box<ReceiptRow>),
}

/// What an operator reads of a delivery under way. It never decides: memory does, and a restart
/// voids every claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// The connection that it goes out on.
    pub id: ConnId,
    /// Pushes so far, with this one.
    pub attempts: u32,
    pub claimed_at: Wall,
    /// If its push leaves at once.
    pub expires_at: Wall,
}

/// How far a delivery came, for its sender: one a delivery, of its highest rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiptRow {
    pub sender: PeerKey,
    pub n: ReceiptNumber,
    pub recipient: PeerKey,
    /// The key by which its sender knows the recipient.
    pub recipient_pubkey: PubKey,
    pub seq: MessageSeq,
    pub message_id: MessageId,
    pub client_message_id: ClientMessageId,
    pub rung: Rung,
    pub reason: Option<String>,
    pub at: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    Admin,
    Member,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberRow {
    pub id: MemberId,
    pub pubkey: PubKey,
    pub display_name: String,
    pub role: MemberRole,
    pub joined_at: Wall,
    pub revoked_at: Option<Wall>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InviteRow {
    pub id: InviteId,
    /// `None`: as many as the invite lives.
    pub uses_left: Option<u32>,
    pub expires_at: Wall,
    pub revoked: bool,
}

/// What is persisted of a lease: joining, leaving and what the peer registered. A connection
/// coming or going is not. The row outlives the lease, so that mail can wait for the absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    pub key: PeerKey,
    pub role: Role,
    pub member: MemberId,
    /// The key by which others address it and which seals: the session's, or the member's.
    pub pubkey: PubKey,
    /// The lease stands: live, or in grace.
    pub present: bool,
    pub joined_at: Wall,
    pub last_seen: Wall,
    pub registration: Registration,
}

/// Goes when the lease goes, not when a socket does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub session_id: Option<SessionId>,
    pub about: About,
    /// As the last hello had them; `about.groups` also holds those joined since.
    #[serde(default)]
    pub hello_groups: Vec<Group>,
    pub status: Status,
    pub summary: Option<String>,
    pub visible: bool,
    pub profile: Option<Profile>,
    pub attestation: Option<Attestation>,
    pub capabilities: Capabilities,
}

/// The message row is the history. The ciphertext is never read by us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageRow {
    pub seq: MessageSeq,
    pub id: MessageId,
    pub sender: PeerKey,
    pub sender_pubkey: PubKey,
    pub sender_member: MemberId,
    pub sender_name: String,
    pub target_spec: String,
    pub priority: Priority,
    pub nonce: Nonce,
    pub ciphertext: Base64Body,
    pub client_message_id: ClientMessageId,
    pub fingerprint: Fingerprint,
    pub reply_to: Option<MessageId>,
    pub body_version: Option<u32>,
    pub seal: Option<String>,
    pub created_at: Wall,
}

impl MessageRow {
    /// What it counts against a recipient's cap.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.ciphertext.len() + self.nonce.len() + 256
    }

    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            seq: self.seq,
            id: self.id.clone(),
            sender: self.sender.clone(),
            target_spec: self.target_spec.clone(),
            priority: self.priority,
            client_message_id: self.client_message_id.clone(),
            seal: self.seal.clone(),
            created_at: self.created_at,
            weight: self.weight(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DedupeRow {
    pub sender: PeerKey,
    pub client_message_id: ClientMessageId,
    pub fingerprint: Fingerprint,
    pub message_id: MessageId,
    pub seq: MessageSeq,
    pub first_seen_at: Wall,
}

/// What a machine asks its store to read. Reads never decide, with these exceptions.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    Dedupe {
        sender: PeerKey,
        client_message_id: ClientMessageId,
    },
    /// The next owed messages of one recipient after `after`, in order of `seq`.
    Backlog {
        recipient: PeerKey,
        after: MessageSeq,
        limit: usize,
    },
    /// What a recipient was or is owed, of these messages.
    Deliveries {
        recipient: PeerKey,
        ids: Vec<MessageId>,
    },
    /// A sender's receipts after a number, in order.
    Receipts {
        sender: PeerKey,
        after: ReceiptNumber,
        limit: usize,
    },
    /// The messages that `asker` sent or was owed under this name: two where it is ambiguous.
    Message { asker: PeerKey, name: MessageName },
}

/// What a message can be asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageName {
    /// The beginning of its id.
    Prefix(String),
    /// What the asker, who sent it, called it.
    Own(ClientMessageId),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    Dedupe(Option<DedupeRow>),
    Backlog(Vec<MessageRow>),
    Deliveries(Vec<(Head, Standing)>),
    Receipts(Vec<ReceiptRow>),
    Message(Vec<(Head, Vec<(PeerKey, Standing)>)>),
}

/// A message without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: MessageSeq,
    pub id: MessageId,
    pub sender: PeerKey,
    pub target_spec: String,
    pub priority: Priority,
    pub client_message_id: ClientMessageId,
    pub seal: Option<String>,
    pub created_at: Wall,
    /// [`MessageRow::weight`].
    pub weight: usize,
}

/// What the store says of one delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    Owed(Option<ClaimRow>),
    Settled(ReceiptRow),
}

/// What an owner reads at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    pub owner: Owner,
    /// The highest message ever accepted: numbers are never reused.
    pub last_seq: MessageSeq,
    pub members: Vec<MemberRow>,
    pub invites: Vec<InviteRow>,
    pub peers: Vec<PeerRow>,
    /// Who is owed how much. The messages themselves are paged in by `Load::Backlog`.
    pub owed: Vec<OwedSummary>,
    /// The last number that each sender's receipts were given: numbers are never reused.
    pub receipts: Vec<(PeerKey, ReceiptNumber)>,
    /// The same of the senders that were forgotten.
    pub receipts_floor: ReceiptNumber,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedSummary {
    pub recipient: PeerKey,
    pub messages: usize,
    /// Sum of [`MessageRow::weight`].
    pub bytes: usize,
    /// When the first of them was accepted.
    pub oldest: Wall,
}

/// A store of one mesh as plain maps: the reference against which drivers are tested, and the
/// simulator's store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub last_seq: MessageSeq,
    pub members: BTreeMap<MemberId, MemberRow>,
    pub invites: BTreeMap<InviteId, InviteRow>,
    pub peers: BTreeMap<PeerKey, PeerRow>,
    pub messages: BTreeMap<MessageSeq, MessageRow>,
    pub dedupe: BTreeMap<(PeerKey, ClientMessageId), DedupeRow>,
    pub deliveries: BTreeMap<(PeerKey, MessageSeq), Option<ClaimRow>>,
    pub receipts: BTreeMap<(PeerKey, MessageSeq), ReceiptRow>,
    pub receipt_numbers: BTreeMap<PeerKey, ReceiptNumber>,
    pub receipts_floor: ReceiptNumber,
}

impl Image {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MemberPut(row) => {
                self.members.insert(row.id.clone(), row.clone());
            }
            Op::InvitePut(row) => {
                self.invites.insert(row.id.clone(), row.clone());
            }
            Op::PeerPut(row) => {
                self.peers.insert(row.key.clone(), (**row).clone());
            }
            Op::PeerForget(key) => {
                self.peers.remove(key);
                if let Some(last) = self.receipt_numbers.remove(key) {
                    self.receipts_floor = self.receipts_floor.max(last);
                }
            }
            Op::MessagePut(row) => {
                self.last_seq = self.last_seq.max(row.seq);
                self.messages.insert(row.seq, (**row).clone());
            }
            Op::DedupePut(row) => {
                let key = (row.sender.clone(), row.client_message_id.clone());
                self.dedupe.entry(key).or_insert_with(|| row.clone());
            }
            Op::DeliveryPut {
                seq,
                recipient,
                claim,
            } => {
                self.deliveries.insert((recipient.clone(), *seq), *claim);
            }
            Op::DeliveryClaimed {
                seq,
                recipient,
                claim,
            } => {
                if let Some(row) = self.deliveries.get_mut(&(recipient.clone(), *seq)) {
                    *row = Some(*claim);
                }
            }
            Op::DeliverySettled(row) => {
                let key = (row.recipient.clone(), row.seq);
                self.deliveries.remove(&key);
                let last = self.receipt_numbers.entry(row.sender.clone()).or_default();
                *last = row.n.max(*last);
                self.receipts.insert(key, (**row).clone());
            }
        }
    }

    #[must_use]
    pub fn load(&self, load: &Load) -> Loaded {
        match load {
            Load::Dedupe {
                sender,
                client_message_id,
            } => {
                let key = (sender.clone(), client_message_id.clone());
                Loaded::Dedupe(self.dedupe.get(&key).cloned())
            }
            Load::Backlog {
                recipient,
                after,
                limit,
            } => Loaded::Backlog(
                self.owed_to(recipient)
                    .filter(|row| row.seq > *after)
                    .take(*limit)
                    .cloned()
                    .collect(),
            ),
            Load::Deliveries { recipient, ids } => Loaded::Deliveries(
                self.messages
                    .values()
                    .filter(|row| ids.contains(&row.id))
                    .filter_map(|row| Some((row.head(), self.standing(recipient, row.seq)?)))
                    .collect(),
            ),
            Load::Receipts {
                sender,
                after,
                limit,
            } => {
                let mut rows: Vec<ReceiptRow> = self
                    .receipts
                    .values()
                    .filter(|row| row.sender == *sender && row.n > *after)
                    .cloned()
                    .collect();
                rows.sort_by_key(|row| row.n);
                rows.truncate(*limit);
                Loaded::Receipts(rows)
            }
            Load::Message { asker, name } => Loaded::Message(
                self.messages
                    .values()
                    .filter(|row| match name {
                        MessageName::Prefix(prefix) => row.id.as_str().starts_with(prefix.as_str()),
                        MessageName::Own(id) => {
                            let known = self.dedupe.get(&(asker.clone(), id.clone()));
                            known.is_some_and(|known| known.seq == row.seq)
                        }
                    })
                    .map(|row| (row, self.standings(row.seq)))
                    .filter(|(row, standings)| {
                        row.sender == *asker || standings.iter().any(|(key, _)| key == asker)
                    })
                    .map(|(row, standings)| (row.head(), standings))
                    .take(2)
                    .collect(),
            ),
        }
    }

    fn standing(&self, recipient: &PeerKey, seq: MessageSeq) -> Option<Standing> {
        let key = (recipient.clone(), seq);
        let owed = self.deliveries.get(&key).copied().map(Standing::Owed);
        owed.or_else(|| self.receipts.get(&key).cloned().map(Standing::Settled))
    }

    /// Of all recipients, in order of their keys.
    fn standings(&self, seq: MessageSeq) -> Vec<(PeerKey, Standing)> {
        let owed = self.deliveries.keys().filter(|(_, own)| *own == seq);
        let settled = self.receipts.keys().filter(|(_, own)| *own == seq);
        let recipients: BTreeSet<&PeerKey> = owed.chain(settled).map(|(key, _)| key).collect();
        recipients
            .into_iter()
            .filter_map(|key| Some((key.clone(), self.standing(key, seq)?)))
            .collect()
    }

    #[must_use]
    pub fn recover(&self, owner: Owner) -> Recovered {
        let mut owed: BTreeMap<&PeerKey, OwedSummary> = BTreeMap::new();
        for (recipient, seq) in self.deliveries.keys() {
            let Some(message) = self.messages.get(seq) else {
                continue;
            };
            let entry = owed.entry(recipient).or_insert_with(|| OwedSummary {
                recipient: recipient.clone(),
                messages: 0,
                bytes: 0,
                oldest: message.created_at,
            });
            entry.messages += 1;
            entry.oldest = entry.oldest.min(message.created_at);
            entry.bytes += message.weight();
        }
        Recovered {
            owner,
            last_seq: self.last_seq,
            members: self.members.values().cloned().collect(),
            invites: self.invites.values().cloned().collect(),
            peers: self.peers.values().cloned().collect(),
            owed: owed.into_values().collect(),
            receipts: self
                .receipt_numbers
                .iter()
                .map(|(sender, last)| (sender.clone(), *last))
                .collect(),
            receipts_floor: self.receipts_floor,
        }
    }

    /// What `recipient` is owed, in order of acceptance.
    pub fn owed_to<'a>(&'a self, recipient: &'a PeerKey) -> impl Iterator<Item = &'a MessageRow> {
        self.deliveries
            .range((recipient.clone(), MessageSeq(0))..=(recipient.clone(), MessageSeq(u64::MAX)))
            .filter_map(|((_, seq), _)| self.messages.get(seq))
    }
}

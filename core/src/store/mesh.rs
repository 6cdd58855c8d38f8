//! What a mesh remembers: rows, the ops that change them, and what recovery reads back.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Owner;
use crate::crypto::attestation::Attestation;
use crate::id::{
    ClientMessageId, Fingerprint, InviteId, MemberId, MessageId, MessageSeq, PeerKey, PubKey, Role,
    SessionId,
};
use crate::time::Wall;
use crate::wire::client::{About, Group, Profile};
use crate::wire::feature::Capabilities;
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
    },
    /// The delivery is settled and its row goes.
    DeliveryDone {
        seq: MessageSeq,
        recipient: PeerKey,
    },
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
}

#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    Dedupe(Option<DedupeRow>),
    Backlog(Vec<MessageRow>),
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedSummary {
    pub recipient: PeerKey,
    pub messages: usize,
    /// Sum of [`MessageRow::weight`].
    pub bytes: usize,
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
    pub deliveries: BTreeMap<(PeerKey, MessageSeq), ()>,
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
            }
            Op::MessagePut(row) => {
                self.last_seq = self.last_seq.max(row.seq);
                self.messages.insert(row.seq, (**row).clone());
            }
            Op::DedupePut(row) => {
                let key = (row.sender.clone(), row.client_message_id.clone());
                self.dedupe.entry(key).or_insert_with(|| row.clone());
            }
            Op::DeliveryPut { seq, recipient } => {
                self.deliveries.insert((recipient.clone(), *seq), ());
            }
            Op::DeliveryDone { seq, recipient } => {
                self.deliveries.remove(&(recipient.clone(), *seq));
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
        }
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
            });
            entry.messages += 1;
            entry.bytes += message.weight();
        }
        Recovered {
            owner,
            last_seq: self.last_seq,
            members: self.members.values().cloned().collect(),
            invites: self.invites.values().cloned().collect(),
            peers: self.peers.values().cloned().collect(),
            owed: owed.into_values().collect(),
        }
    }

    /// What `recipient` is owed, in order of acceptance.
    pub fn owed_to<'a>(&'a self, recipient: &'a PeerKey) -> impl Iterator<Item = &'a MessageRow> {
        self.deliveries
            .range((recipient.clone(), MessageSeq(0))..=(recipient.clone(), MessageSeq(u64::MAX)))
            .filter_map(|((_, seq), ())| self.messages.get(seq))
    }
}

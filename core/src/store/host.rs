//! What a host remembers: rows, the ops that change them, and what recovery and people read back.
//!
//! **Secret keys stand in rows.** A key and the session or membership that needs it become durable
//! in one transaction; two files could not. The database is 0600 in a 0700 directory.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Owner;
use crate::crypto::SecretKey;
use crate::crypto::fingerprint::Form;
use crate::id::{
    ClientMessageId, Fingerprint, InboxSeq, MemberId, MeshId, MessageId, OutboxSeq, PeerKey,
    PubKey, Role, SessionId,
};
use crate::time::Wall;
use crate::wire::receipt::{Receipt, Rung};
use crate::wire::{Base64Body, Priority, Suite};

#[derive(Clone, Debug)]
pub enum Op {
    /// Each `…Put` replaces the row of its key.
    MeshPut(alloc::boxed::Box<MeshRow>),
    MeshDelete(MeshId),
    SessionPut(alloc::boxed::Box<SessionRow>),
    PeerPut(DirectoryRow),
    /// Beyond what a daemon keeps of a mesh.
    PeerForget {
        mesh: MeshId,
        pubkey: PubKey,
    },
    /// A new row; its number is never reused.
    OutboxPut(alloc::boxed::Box<OutboxRow>),
    OutboxState {
        seq: OutboxSeq,
        state: OutboxState,
    },
    /// A new row; its number is never reused. `ON CONFLICT DO NOTHING` on its dedupe key.
    InboxPut(alloc::boxed::Box<InboxRow>),
    InboxSeen {
        seq: InboxSeq,
        at: Wall,
    },
    /// What the broker told `sender`. Its number is known from here on, and never a lower one.
    /// Where the outbox has its message, the ladder gets the rung, unless it has a higher one of that
    /// recipient. A message that is not (any longer) here has no ladder to put it on, and its
    /// number counts all the same: it would be told again at every hello.
    Receipt {
        mesh: MeshId,
        sender: PeerKey,
        receipt: alloc::boxed::Box<Receipt>,
    },
    /// The sender of this row is to be told that it was read.
    SeenOwed {
        seq: InboxSeq,
    },
    /// Its broker knows it.
    SeenTold {
        seq: InboxSeq,
    },
}

/// Of a mesh that was joined by an invite, until its broker says.
pub const POLICY_UNKNOWN: &str = "unknown";

/// A mesh that this host's user joined.
#[derive(Clone, Debug)]
pub struct MeshRow {
    pub id: MeshId,
    pub slug: String,
    /// Complete: `ws(s)://host[:port]/ws`.
    pub broker_url: String,
    /// `sealed`, `open`, or [`POLICY_UNKNOWN`] until its broker says.
    pub policy: String,
    pub display_name: String,
    pub member_id: MemberId,
    pub member_secret: SecretKey,
    pub owner_pubkey: PubKey,
    /// Of the one who created the mesh: signs meshes and invites, nothing else.
    pub owner_secret: Option<SecretKey>,
    pub mesh_root_key: String,
    pub joined_at: Wall,
}

#[derive(Clone, Debug)]
pub struct SessionRow {
    pub id: SessionId,
    pub mesh: MeshId,
    pub name: String,
    pub role: Role,
    /// Same mesh, same id: same key, also after relaunch and restart.
    pub secret: SecretKey,
    /// SHA-256 of its token; the token itself is told once.
    pub token_sha256: [u8; 32],
    pub pid: Option<u32>,
    pub cwd: String,
    pub groups: Vec<String>,
    pub opened_at: Wall,
    pub ended_at: Option<Wall>,
}

/// A peer as the daemon last saw it, so that names resolve while the broker is away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryRow {
    pub mesh: MeshId,
    pub pubkey: PubKey,
    pub member_pubkey: PubKey,
    pub name: String,
    /// `session`, `service` or `control-plane`.
    pub role: String,
    /// Our sessions were last told that it is here.
    pub present: bool,
    pub last_seen: Wall,
    /// What to seal with for it, where that is known.
    pub suite: Option<Suite>,
}

/// `pending → inflight → done | dead`, `pending | dead → aborted`.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    pub seq: OutboxSeq,
    pub mesh: MeshId,
    /// Whose identity sends it; there is no fallback to another.
    pub sender: PeerKey,
    pub session: Option<SessionId>,
    pub client_message_id: ClientMessageId,
    pub form_1: Fingerprint,
    pub form_2: Fingerprint,
    /// As the caller gave it.
    pub to: String,
    /// What it resolved to at accept.
    pub target: PubKey,
    pub priority: Priority,
    pub reply_to: Option<MessageId>,
    /// Canonical JSON, empty when absent.
    pub meta: String,
    pub body: String,
    pub accepted_at: Wall,
    pub state: OutboxState,
    /// How far it came beyond its acceptance, in order. Written by receipts, never by a put.
    pub rungs: Vec<RungReached>,
}

/// That a message came so far at one of its recipients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RungReached {
    pub recipient: PubKey,
    pub rung: Rung,
    /// As the broker told it: ISO 8601.
    pub at: String,
    pub reason: Option<String>,
}

impl RungReached {
    #[must_use]
    pub fn of(receipt: &Receipt) -> Self {
        Self {
            recipient: receipt.recipient,
            rung: receipt.rung,
            at: receipt.at.clone(),
            reason: receipt.reason.clone(),
        }
    }

    /// A ladder is climbed: what is not above all that was reached there is no news.
    #[must_use]
    pub fn is_news(&self, reached: impl IntoIterator<Item = Rung>) -> bool {
        reached.into_iter().all(|rung| self.rung > rung)
    }
}

impl OutboxRow {
    /// As it is said to a broker.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        match self.state.form {
            Some(Form::One) => self.form_1,
            Some(Form::Two) | None => self.form_2,
        }
    }

    #[must_use]
    pub fn weight(&self) -> usize {
        self.body.len() + self.meta.len() + 512
    }
}

/// What changes of an outbox row after its accept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxState {
    pub status: OutboxStatus,
    pub attempts: u32,
    /// It was on a wire, or may have been: its next send does not say `first`.
    pub on_wire: bool,
    /// How its fingerprint is said, since its first time on a wire; form 1 is durable before it.
    pub form: Option<Form>,
    pub next_attempt_at: Option<Wall>,
    pub last_error: Option<String>,
    pub broker_message_id: Option<MessageId>,
    pub settled_at: Option<Wall>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxStatus {
    Pending,
    Inflight,
    Done,
    Dead,
    Aborted,
}

impl OutboxStatus {
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Inflight,
        Self::Done,
        Self::Dead,
        Self::Aborted,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Inflight => "inflight",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Aborted => "aborted",
        }
    }

    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Aborted)
    }
}

/// One row per (mesh, recipient, sender, client message id).
#[derive(Clone, Debug, PartialEq)]
pub struct InboxRow {
    pub seq: InboxSeq,
    pub mesh: MeshId,
    pub recipient: PeerKey,
    pub session: Option<SessionId>,
    pub sender: PubKey,
    pub sender_name: String,
    pub client_message_id: ClientMessageId,
    pub message_id: MessageId,
    pub priority: Priority,
    pub reply_to: Option<MessageId>,
    /// By what it came sealed. `None`: by none that is known here.
    pub seal: Option<Suite>,
    pub content: InboxContent,
    pub sent_at: String,
    pub received_at: Wall,
    pub seen_at: Option<Wall>,
}

impl InboxRow {
    #[must_use]
    pub fn weight(&self) -> usize {
        512 + match &self.content {
            InboxContent::Opened { body, meta } => body.len() + meta.len(),
            InboxContent::Undecryptable { ciphertext, .. } => ciphertext.len(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum InboxContent {
    /// `meta` is canonical JSON, empty when absent.
    Opened { body: String, meta: String },
    /// Kept, never shown as text.
    Undecryptable {
        nonce: Base64Body,
        ciphertext: Base64Body,
    },
}

/// What the machine asks its store to read.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Was this id accepted from this sender before?
    OutboxDedupe {
        mesh: MeshId,
        sender: PeerKey,
        client_message_id: ClientMessageId,
    },
    /// Is this message in the inbox already?
    InboxDedupe {
        mesh: MeshId,
        recipient: PeerKey,
        sender: PubKey,
        client_message_id: ClientMessageId,
    },
    /// For people's pages; the scope is filled in by the core.
    Inbox {
        scope: Scope,
        filter: InboxFilter,
    },
    Outbox {
        scope: Scope,
        filter: OutboxFilter,
    },
    /// A message by its sender's id for it, by the broker's, or by the beginning of one of these.
    Message {
        sent_by: Scope,
        received_by: Scope,
        id: MessageName,
        limit: usize,
    },
    /// What was read and its broker was not told, oldest first.
    SeenOwed {
        mesh: MeshId,
        recipient: PeerKey,
        limit: usize,
    },
}

/// What somebody calls a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageName {
    pub text: String,
    /// The beginning of an id is enough.
    pub or_prefix: bool,
}

impl MessageName {
    #[must_use]
    pub fn names(&self, id: &str) -> bool {
        id == self.text || (self.or_prefix && id.starts_with(&self.text))
    }
}

/// Whose rows a caller may see.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// The machine token with `?all=1`.
    Everything,
    /// These identities in this mesh.
    Peers { mesh: MeshId, peers: Vec<PeerKey> },
    /// The member's own rows in every mesh.
    Members(Vec<(MeshId, PeerKey)>),
}

impl Scope {
    #[must_use]
    pub fn includes(&self, mesh: &MeshId, peer: &PeerKey) -> bool {
        match self {
            Self::Everything => true,
            Self::Peers { mesh: own, peers } => own == mesh && peers.contains(peer),
            Self::Members(pairs) => pairs.iter().any(|(own, key)| own == mesh && key == peer),
        }
    }
}

/// Oldest first, rows after `after`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InboxFilter {
    pub after: InboxSeq,
    pub unread: bool,
    pub from: Option<PubKey>,
    pub limit: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboxFilter {
    pub after: OutboxSeq,
    pub status: Option<OutboxStatus>,
    pub id: Option<ClientMessageId>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    OutboxDedupe(Option<alloc::boxed::Box<OutboxRow>>),
    InboxDedupe(bool),
    Inbox(Vec<InboxRow>),
    Outbox(Vec<OutboxRow>),
    Message {
        sent: Vec<OutboxRow>,
        received: Vec<InboxRow>,
    },
    SeenOwed(Vec<(InboxSeq, MessageId)>),
}

/// What an owner reads at its start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    pub owner: Owner,
    /// The highest ever given: numbers are never reused.
    pub last_outbox_seq: OutboxSeq,
    pub last_inbox_seq: InboxSeq,
    pub meshes: Vec<MeshRow>,
    pub sessions: Vec<SessionRow>,
    pub directory: Vec<DirectoryRow>,
    /// `pending` and `inflight` only, in order of `seq`.
    pub outbox: Vec<OutboxRow>,
    /// The highest number of a receipt that each sender has.
    pub receipts: Vec<(MeshId, PeerKey, u64)>,
    /// Who has read what its broker does not know of.
    pub seen_owed: Vec<(MeshId, PeerKey)>,
    /// Rows and bytes of each, against the disk cap.
    pub outbox_bytes: u64,
    pub inbox_bytes: u64,
}

/// A host's store as plain maps: the reference against which drivers are tested, and the
/// simulator's store.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub last_outbox_seq: OutboxSeq,
    pub last_inbox_seq: InboxSeq,
    pub meshes: BTreeMap<MeshId, MeshRow>,
    pub sessions: BTreeMap<(MeshId, SessionId), SessionRow>,
    pub directory: BTreeMap<(MeshId, PubKey), DirectoryRow>,
    pub outbox: BTreeMap<OutboxSeq, OutboxRow>,
    pub inbox: BTreeMap<InboxSeq, InboxRow>,
    pub receipts: BTreeMap<(MeshId, PeerKey), u64>,
    pub seen_owed: BTreeSet<(MeshId, PeerKey, InboxSeq)>,
    inbox_keys: BTreeMap<InboxKey, InboxSeq>,
    outbox_keys: BTreeMap<(MeshId, PeerKey, ClientMessageId), OutboxSeq>,
}

/// G2: one inbox row per (mesh, recipient, sender, client message id).
pub type InboxKey = (MeshId, PeerKey, PubKey, ClientMessageId);

impl Image {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MeshPut(row) => {
                self.meshes.insert(row.id.clone(), (**row).clone());
            }
            Op::MeshDelete(id) => {
                self.meshes.remove(id);
            }
            Op::SessionPut(row) => {
                self.sessions
                    .insert((row.mesh.clone(), row.id.clone()), (**row).clone());
            }
            Op::PeerPut(row) => {
                self.directory
                    .insert((row.mesh.clone(), row.pubkey), row.clone());
            }
            Op::PeerForget { mesh, pubkey } => {
                self.directory.remove(&(mesh.clone(), *pubkey));
            }
            Op::OutboxPut(row) => {
                self.last_outbox_seq = self.last_outbox_seq.max(row.seq);
                let key = (
                    row.mesh.clone(),
                    row.sender.clone(),
                    row.client_message_id.clone(),
                );
                self.outbox_keys.insert(key, row.seq);
                self.outbox.insert(row.seq, (**row).clone());
            }
            Op::OutboxState { seq, state } => {
                if let Some(row) = self.outbox.get_mut(seq) {
                    row.state = state.clone();
                }
            }
            Op::InboxPut(row) => {
                self.last_inbox_seq = self.last_inbox_seq.max(row.seq);
                let key = (
                    row.mesh.clone(),
                    row.recipient.clone(),
                    row.sender,
                    row.client_message_id.clone(),
                );
                if let alloc::collections::btree_map::Entry::Vacant(free) =
                    self.inbox_keys.entry(key)
                {
                    free.insert(row.seq);
                    self.inbox.insert(row.seq, (**row).clone());
                }
            }
            Op::InboxSeen { seq, at } => {
                if let Some(row) = self.inbox.get_mut(seq) {
                    row.seen_at.get_or_insert(*at);
                }
            }
            Op::Receipt {
                mesh,
                sender,
                receipt,
            } => self.apply_receipt(mesh, sender, receipt),
            Op::SeenOwed { seq } => {
                if let Some(row) = self.inbox.get(seq) {
                    let owed = (row.mesh.clone(), row.recipient.clone(), *seq);
                    self.seen_owed.insert(owed);
                }
            }
            Op::SeenTold { seq } => {
                self.seen_owed.retain(|(_, _, owed)| owed != seq);
            }
        }
    }

    fn apply_receipt(&mut self, mesh: &MeshId, sender: &PeerKey, receipt: &Receipt) {
        let known = (mesh.clone(), sender.clone());
        let known = self.receipts.entry(known).or_default();
        *known = receipt.n.max(*known);
        let key = (
            mesh.clone(),
            sender.clone(),
            receipt.client_message_id.clone(),
        );
        let seq = self.outbox_keys.get(&key);
        let Some(row) = seq.and_then(|seq| self.outbox.get_mut(seq)) else {
            return;
        };
        let reached = RungReached::of(receipt);
        let here = row.rungs.iter();
        let here = here.filter(|rung| rung.recipient == reached.recipient);
        if reached.is_news(here.map(|rung| rung.rung)) {
            row.rungs.push(reached);
            row.rungs.sort();
        }
    }

    #[must_use]
    pub fn load(&self, load: &Load) -> Loaded {
        match load {
            Load::OutboxDedupe {
                mesh,
                sender,
                client_message_id,
            } => {
                let key = (mesh.clone(), sender.clone(), client_message_id.clone());
                let row = self
                    .outbox_keys
                    .get(&key)
                    .and_then(|seq| self.outbox.get(seq));
                Loaded::OutboxDedupe(row.cloned().map(alloc::boxed::Box::new))
            }
            Load::InboxDedupe {
                mesh,
                recipient,
                sender,
                client_message_id,
            } => {
                let key = (
                    mesh.clone(),
                    recipient.clone(),
                    *sender,
                    client_message_id.clone(),
                );
                Loaded::InboxDedupe(self.inbox_keys.contains_key(&key))
            }
            Load::Inbox { scope, filter } => Loaded::Inbox(
                self.inbox
                    .range(filter.after.next()..)
                    .map(|(_, row)| row)
                    .filter(|row| scope.includes(&row.mesh, &row.recipient))
                    .filter(|row| !filter.unread || row.seen_at.is_none())
                    .filter(|row| filter.from.is_none_or(|from| from == row.sender))
                    .take(filter.limit)
                    .cloned()
                    .collect(),
            ),
            Load::Outbox { scope, filter } => Loaded::Outbox(
                self.outbox
                    .range(filter.after.next()..)
                    .map(|(_, row)| row)
                    .filter(|row| scope.includes(&row.mesh, &row.sender))
                    .filter(|row| {
                        filter
                            .status
                            .is_none_or(|status| status == row.state.status)
                    })
                    .filter(|row| {
                        filter
                            .id
                            .as_ref()
                            .is_none_or(|id| *id == row.client_message_id)
                    })
                    .take(filter.limit)
                    .cloned()
                    .collect(),
            ),
            Load::Message {
                sent_by,
                received_by,
                id,
                limit,
            } => Loaded::Message {
                sent: self
                    .outbox
                    .values()
                    .filter(|row| sent_by.includes(&row.mesh, &row.sender))
                    .filter(|row| {
                        let broker_id = row.state.broker_message_id.as_ref();
                        id.names(row.client_message_id.as_str())
                            || broker_id.is_some_and(|broker_id| id.names(broker_id.as_str()))
                    })
                    .take(*limit)
                    .cloned()
                    .collect(),
                received: self
                    .inbox
                    .values()
                    .filter(|row| received_by.includes(&row.mesh, &row.recipient))
                    .filter(|row| id.names(row.message_id.as_str()))
                    .take(*limit)
                    .cloned()
                    .collect(),
            },
            Load::SeenOwed {
                mesh,
                recipient,
                limit,
            } => Loaded::SeenOwed(
                self.seen_owed
                    .iter()
                    .filter(|(own, peer, _)| own == mesh && peer == recipient)
                    .filter_map(|(_, _, seq)| {
                        let row = self.inbox.get(seq)?;
                        Some((*seq, row.message_id.clone()))
                    })
                    .take(*limit)
                    .collect(),
            ),
        }
    }

    #[must_use]
    pub fn recover(&self, owner: Owner) -> Recovered {
        Recovered {
            owner,
            last_outbox_seq: self.last_outbox_seq,
            last_inbox_seq: self.last_inbox_seq,
            meshes: self.meshes.values().cloned().collect(),
            sessions: self.sessions.values().cloned().collect(),
            directory: self.directory.values().cloned().collect(),
            outbox: self
                .outbox
                .values()
                .filter(|row| !row.state.status.is_settled())
                .cloned()
                .collect(),
            receipts: self
                .receipts
                .iter()
                .map(|((mesh, peer), n)| (mesh.clone(), peer.clone(), *n))
                .collect(),
            seen_owed: self
                .seen_owed
                .iter()
                .map(|(mesh, peer, _)| (mesh.clone(), peer.clone()))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            outbox_bytes: self.outbox.values().map(|row| row.weight() as u64).sum(),
            inbox_bytes: self.inbox.values().map(|row| row.weight() as u64).sum(),
        }
    }
}

//! What an outside observer can see: frames, answers, events and what stores hold. Oracles judge
//! these and nothing else.

use std::sync::Arc;

use bowline_core::host::io::{LogLevel, SseEvent};
use bowline_core::host::ipc::Answer;
use bowline_core::id::{
    ClientMessageId, ConnId, Fingerprint, InboxSeq, MessageId, PeerKey, PubKey, SubscriberId,
};
use bowline_core::link::{Down, VerifiedHello};
use bowline_core::store::TxnId;
use bowline_core::store::{host, mesh};
use bowline_core::wire::broker::HelloAck;
use bowline_core::wire::client::Resume;
use bowline_core::wire::feature::Terms;
use bowline_core::wire::{BrokerFrame, ClientFrame, Close, Status};
use bytes::Bytes;

use crate::kernel::NodeId;

#[derive(Clone, Debug)]
pub enum Record {
    // At the broker.
    OwnerStarted {
        node: NodeId,
    },
    OwnerStopped {
        node: NodeId,
    },
    OwnerPaused {
        node: NodeId,
    },
    OwnerContinued {
        node: NodeId,
    },
    /// The mesh's store begins or ends to fail.
    StoreFault {
        broken: bool,
    },
    /// A count of its stream that is not so was written to this node.
    Lied {
        node: NodeId,
    },
    /// A text from a client reached the broker's host.
    Reached {
        bytes: Bytes,
    },
    /// Anything of an attached connection reached the broker's process.
    Heard {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
    },
    /// The mesh took a hello.
    Attached {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
        hello: Arc<VerifiedHello>,
    },
    /// The mesh took a hello for sending only.
    QuietAttached {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
        hello: Arc<VerifiedHello>,
    },
    /// The mesh took a frame by which a peer wants others put out.
    Moderation {
        node: NodeId,
        peer: Arc<PeerKey>,
        frame: Box<ClientFrame>,
    },
    /// The mesh closed a connection, of whom its hello said.
    Dismissed {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
        quiet: bool,
        close: Close,
    },
    /// The mesh was told that a connection is gone.
    Detached {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
    },
    /// The mesh took the frame that ends a lease.
    Bye {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
    },
    /// The mesh was told what a peer's status is.
    StatusHeard {
        peer: Arc<PeerKey>,
        status: Status,
    },
    /// The mesh gave a frame to a connection.
    Sent {
        node: NodeId,
        conn: ConnId,
        peer: Arc<PeerKey>,
        frame: Bytes,
        queued_bytes: u64,
    },
    /// What the mesh holds: a name, a size, its limit.
    Sizes {
        node: NodeId,
        sizes: Vec<(&'static str, u64, u64)>,
    },
    MeshCommitted {
        node: NodeId,
        txn: TxnId,
        ops: Vec<mesh::Op>,
    },

    // At a client: one identity over one connection.
    Dialled {
        node: NodeId,
        conn: ConnId,
        key: Arc<PeerKey>,
        resume: Option<Resume>,
        terms: Arc<Terms>,
    },
    Up {
        node: NodeId,
        conn: ConnId,
        key: Arc<PeerKey>,
        ack: Box<HelloAck>,
    },
    Frame {
        node: NodeId,
        conn: ConnId,
        key: Arc<PeerKey>,
        frame: Box<BrokerFrame>,
    },
    Down {
        node: NodeId,
        conn: ConnId,
        key: Arc<PeerKey>,
        down: Down,
    },
    /// A puppet changed its profile and everybody is to be told.
    Tagged {
        key: Arc<PeerKey>,
        tag: u64,
    },
    /// What a puppet saw in a whole list of peers, taken on one connection.
    Listed {
        node: NodeId,
        conn: ConnId,
        key: Arc<PeerKey>,
        present: Vec<PubKey>,
    },
    /// A puppet sent a message of its own.
    /// `altered`: it has another content under this id, which it gave before.
    PuppetSent {
        key: Arc<PeerKey>,
        id: String,
        altered: Option<ClientMessageId>,
        fingerprint: Fingerprint,
    },
    /// A puppet says that it has seen these.
    PuppetSaw {
        key: Arc<PeerKey>,
        ids: Vec<MessageId>,
    },
    PuppetAcked {
        key: Arc<PeerKey>,
        id: MessageId,
    },
    /// What a puppet opened from a push.
    PuppetGot {
        node: NodeId,
        key: Arc<PeerKey>,
        sender: PubKey,
        id: MessageId,
        body: Option<String>,
    },

    // At a host.
    /// Its user asked that what has stopped is tried again.
    TriedAgain {
        node: NodeId,
    },
    HostStarted {
        node: NodeId,
    },
    HostStopped {
        node: NodeId,
    },
    HostCommitted {
        node: NodeId,
        txn: TxnId,
        ops: Vec<host::Op>,
    },
    /// A session has its key.
    Opened {
        node: NodeId,
        user: usize,
        pubkey: PubKey,
    },
    /// A program asked for a send: `token` stands in its body.
    Asked {
        node: NodeId,
        user: usize,
        token: Token,
        altered: Option<Token>,
    },
    Answered {
        node: NodeId,
        user: usize,
        call: UserCall,
        answer: Answer,
    },
    /// No answer came: nothing is known.
    Unanswered {
        node: NodeId,
        user: usize,
        call: UserCall,
    },
    /// A program looked at these rows of its inbox, and asks that they be marked.
    LookedAt {
        node: NodeId,
        user: usize,
        ids: Vec<InboxSeq>,
    },
    Followed {
        node: NodeId,
        user: usize,
        after: Option<InboxSeq>,
    },
    Told {
        node: NodeId,
        user: usize,
        subscriber: SubscriberId,
        event: SseEvent,
    },
    /// An event went to a stream whose token nobody has.
    ToldStranger {
        node: NodeId,
        event: &'static str,
    },
    Log {
        node: NodeId,
        level: LogLevel,
        message: String,
    },
}

/// What a user asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum UserCall {
    Open,
    End,
    /// `altered`: the send that had this key first.
    Send {
        key: Option<String>,
        token: Token,
        altered: Option<Token>,
    },
    Inbox,
    /// What is unread of it, to be read now.
    Unread,
    /// These have been read.
    Seen(Vec<InboxSeq>),
    /// Where one of its messages is.
    Explain,
    Outbox,
    Peers,
    /// Uplinks that have stopped are to try again.
    Up,
    Health,
    /// With a token that nobody has.
    Stranger,
}

/// Stands in the clear text of a body and names its two ends, so that whoever finds it where it
/// does not belong knows whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token {
    pub sender: usize,
    pub recipient: usize,
    pub nth: u64,
}

/// Begins every token. Nothing else in the world contains it.
pub const CANARY: &str = "canary-";

impl Token {
    /// A body of about `bytes` bytes that begins with this token.
    #[must_use]
    pub fn body(&self, bytes: usize) -> String {
        let mut body = format!("{CANARY}{}-{}-{};", self.sender, self.recipient, self.nth);
        while body.len() < bytes {
            body.push_str("the bight of the rope ");
        }
        body
    }

    /// The token that `body` begins with.
    #[must_use]
    pub fn of(body: &str) -> Option<Self> {
        let (numbers, _) = body.strip_prefix(CANARY)?.split_once(';')?;
        let mut numbers = numbers.split('-');
        Some(Self {
            sender: numbers.next()?.parse().ok()?,
            recipient: numbers.next()?.parse().ok()?,
            nth: numbers.next()?.parse().ok()?,
        })
    }

    /// Every token in `text`.
    #[must_use]
    pub fn all_in(text: &str) -> Vec<Self> {
        text.match_indices(CANARY)
            .filter_map(|(at, _)| Self::of(&text[at..]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_again_wherever_it_stands() {
        let token = Token {
            sender: 1,
            recipient: 22,
            nth: 333,
        };
        let body = token.body(100);
        assert!(body.len() >= 100);
        assert_eq!(Token::of(&body), Some(token));
        assert_eq!(Token::all_in(&format!("[{body},{body}]")), [token, token]);
        assert_eq!(Token::of("canary-1-2"), None);
    }
}

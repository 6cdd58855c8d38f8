//! What goes into a mesh and what comes out.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;

use crate::crypto::invite::InviteToken;
use crate::id::{ConnId, InviteId, LoadId, MemberId, MeshId, PubKey, RequestId, SessionId};
use crate::limits::Limits;
use crate::link::VerifiedHello;
use crate::store;
use crate::store::mesh::{Load, Loaded, Op};
use crate::time::Wall;
use crate::wire::feature::Features;
use crate::wire::{ClientFrame, Close, Status};

#[derive(Clone, Debug)]
pub struct Config {
    pub mesh: MeshId,
    /// Signs invites; fixed at creation.
    pub owner_pubkey: PubKey,
    /// The broker may read bodies.
    pub open: bool,
    pub limits: Limits,
    /// Said in the place of what this broker can do, for tests of what clients make of it: a name
    /// to parameters, `null` for nothing at all.
    pub offered_instead: Features,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// From a connection's link, first. `conn` was never used before.
    Attach {
        conn: ConnId,
        hello: Box<VerifiedHello>,
        /// It comes from the broker's own host.
        local: bool,
    },
    /// From a connection's link, in order. Of a connection that is not attached: ignored.
    Frame {
        conn: ConnId,
        frame: ClientFrame,
    },
    /// The connection is gone. Comes once, perhaps long after it was replaced.
    Closed {
        conn: ConnId,
    },
    /// `bytes` of what this mesh sent to `conn` were handed to the socket.
    Sent {
        conn: ConnId,
        bytes: u64,
    },
    Store(store::Event<Loaded>),
    /// From the broker's HTTP endpoints; signatures verified.
    Request {
        request: RequestId,
        what: Request,
    },
}

#[derive(Debug)]
pub enum Output {
    /// To the connection's link: the hello was taken.
    Attached {
        conn: ConnId,
    },
    /// To the socket. Shared with other recipients.
    Send {
        conn: ConnId,
        frame: Bytes,
    },
    /// To the socket, last.
    Close {
        conn: ConnId,
        close: Close,
    },
    /// Stop and start reading from the socket.
    Pause {
        conn: ConnId,
    },
    Resume {
        conn: ConnId,
    },
    Persist(store::Txn<Op>),
    Load {
        load: LoadId,
        what: Load,
    },
    Response {
        request: RequestId,
        response: Response,
    },
}

#[derive(Clone, Debug)]
pub enum Request {
    /// `POST /join`. The invite's signature is by [`Config::owner_pubkey`] and it names this mesh.
    Join {
        invite: Box<InviteToken>,
        pubkey: PubKey,
        display_name: String,
    },
    /// `POST /invites`, owner-signed.
    RegisterInvite {
        id: InviteId,
        uses: u32,
        expires_at: Wall,
    },
    /// `DELETE /invites/ID`, owner-signed.
    RevokeInvite { id: InviteId },
    /// `POST /hook/set-status`, from the broker's own host.
    SetStatus { whose: Whose, status: Status },
}

/// Whose status a program next to a session sets: among the peers on the broker's own host, and
/// where it is said of several, the newest connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Session(SessionId),
    Process { cwd: String, pid: u64 },
    Directory(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Joined {
        member: MemberId,
        already_member: bool,
    },
    InviteRegistered,
    InviteRevoked,
    /// Also where the peer's own `dnd` was left as it is.
    StatusSet,
    NobodyThere,
    /// One of the codes of `/join`, or `busy`.
    Refused {
        code: &'static str,
        message: &'static str,
    },
}

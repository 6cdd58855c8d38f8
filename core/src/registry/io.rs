//! What goes into a registry and what comes out.

use bytes::Bytes;

use crate::id::RequestId;
use crate::store;
use crate::store::registry::{Loaded, MeshRow, Op};
use crate::wire::http::HttpAnswer;

#[derive(Debug)]
pub enum Input {
    /// `POST /meshes`.
    Create {
        request: RequestId,
        body: Bytes,
        /// From loopback, or with the operator's token.
        allowed: bool,
    },
    Store(store::Event<Loaded>),
}

#[derive(Debug)]
pub enum Output {
    Persist(store::Txn<Op>),
    /// A new mesh is durable: it is to be run from here on. Before its `Answer`.
    Open(MeshRow),
    Answer {
        request: RequestId,
        answer: HttpAnswer,
    },
}

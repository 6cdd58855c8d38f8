//! Questions of where a message is, asked of its broker over the sender's own uplink.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::context::Identity;
use super::under_way::UnderWay;
use crate::id::{MessageId, RequestId};
use crate::store::host::OutboxRow;
use crate::wire::ClientFrame;
use crate::wire::client::ReqId;
use crate::wire::receipt::{Explain, ExplainResult};

#[derive(Default)]
pub(super) struct Explains {
    under_way: UnderWay<'e', Asked>,
}

struct Asked {
    who: Identity,
    row: Box<OutboxRow>,
}

impl Explains {
    pub(super) fn begin(
        &mut self,
        request: RequestId,
        who: Identity,
        message: &MessageId,
        row: OutboxRow,
    ) -> ClientFrame {
        let row = Box::new(row);
        let req_id = Some(self.under_way.begin(request, Asked { who, row }));
        ClientFrame::Explain(Explain {
            id: String::from(message.as_str()),
            req_id,
        })
    }

    /// Which request this answers, and the row that it asked about.
    pub(super) fn answered(
        &mut self,
        who: &Identity,
        result: &ExplainResult,
    ) -> Option<(RequestId, Box<OutboxRow>)> {
        self.failed(who, result.req_id.as_ref())
    }

    /// The broker has no answer to this one.
    pub(super) fn failed(
        &mut self,
        who: &Identity,
        req_id: Option<&ReqId>,
    ) -> Option<(RequestId, Box<OutboxRow>)> {
        let (request, asked) = self.under_way.of(req_id?)?;
        let is_its = asked.who == *who;
        is_its.then(|| self.end(request)).flatten()
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Box<OutboxRow>)> {
        let (request, asked) = self.under_way.end(request)?;
        Some((request, asked.row))
    }

    /// The uplink of `who` is gone.
    pub(super) fn link_lost(&mut self, who: &Identity) -> Vec<(RequestId, Box<OutboxRow>)> {
        let theirs = self.under_way.end_all(|asked| asked.who == *who);
        let rows = theirs.into_iter();
        rows.map(|(request, asked)| (request, asked.row)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

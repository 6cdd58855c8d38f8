//! Questions of where a message is, asked of its broker over the sender's own uplink.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::context::Identity;
use crate::id::{MessageId, RequestId};
use crate::store::host::OutboxRow;
use crate::wire::ClientFrame;
use crate::wire::client::ReqId;
use crate::wire::receipt::{Explain, ExplainResult};

#[derive(Default)]
pub(super) struct Explains {
    under_way: BTreeMap<RequestId, Asked>,
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
        self.under_way.insert(request, Asked { who, row });
        ClientFrame::Explain(Explain {
            id: String::from(message.as_str()),
            req_id: Some(ReqId(alloc::format!("e{request}"))),
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
        let request = RequestId(req_id?.0.strip_prefix('e')?.parse().ok()?);
        let is_its = self.under_way.get(&request)?.who == *who;
        if !is_its {
            return None;
        }
        self.end(request)
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Box<OutboxRow>)> {
        Some((request, self.under_way.remove(&request)?.row))
    }

    /// The uplink of `who` is gone.
    pub(super) fn link_lost(&mut self, who: &Identity) -> Vec<(RequestId, Box<OutboxRow>)> {
        let theirs: Vec<RequestId> = self
            .under_way
            .iter()
            .filter(|(_, asked)| asked.who == *who)
            .map(|(request, _)| *request)
            .collect();
        theirs
            .into_iter()
            .filter_map(|request| self.end(request))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

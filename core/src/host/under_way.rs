//! What was asked of a broker for a request of the IPC that waits for its answer. `TAG` tells the
//! questions of one part from those of another by their `_reqId`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::RequestId;
use crate::wire::client::ReqId;

pub(super) struct UnderWay<const TAG: char, A> {
    asked: BTreeMap<RequestId, A>,
}

impl<const TAG: char, A> Default for UnderWay<TAG, A> {
    fn default() -> Self {
        Self {
            asked: BTreeMap::new(),
        }
    }
}

impl<const TAG: char, A> UnderWay<TAG, A> {
    pub(super) fn begin(&mut self, request: RequestId, asked: A) -> ReqId {
        self.asked.insert(request, asked);
        Self::req_id(request)
    }

    pub(super) fn req_id(request: RequestId) -> ReqId {
        ReqId(alloc::format!("{TAG}{request}"))
    }

    /// What an answer is to.
    pub(super) fn of(&mut self, req_id: &ReqId) -> Option<(RequestId, &mut A)> {
        let request = RequestId(req_id.0.strip_prefix(TAG)?.parse().ok()?);
        Some((request, self.asked.get_mut(&request)?))
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, A)> {
        Some((request, self.asked.remove(&request)?))
    }

    /// Those that will not be answered any more.
    pub(super) fn end_all(&mut self, which: impl Fn(&A) -> bool) -> Vec<(RequestId, A)> {
        self.asked.extract_if(.., |_, asked| which(asked)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }
}

//! What an admin asks of its mesh: put to the broker over the control plane, answered when the
//! broker has answered.
//!
//! A kick or a ban asked for twice is done once, so that one without an answer may be repeated.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{MeshId, RequestId};
use crate::limits::MEMBERS_PER_MESH;
use crate::wire::ClientFrame;
use crate::wire::client::ReqId;
use crate::wire::moderation::{Ban, BansResult, Whom};

#[derive(Default)]
pub(super) struct Asked {
    under_way: BTreeMap<RequestId, Ask>,
}

pub(super) struct Ask {
    pub(super) mesh: MeshId,
    pub(super) what: What,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum What {
    Kick(Whom),
    Ban(String),
    Unban(String),
    /// The pages that came.
    ListBans(Vec<Ban>),
}

impl What {
    /// Whether it may have been done where no answer came.
    pub(super) fn changes_something(&self) -> bool {
        !matches!(self, Self::ListBans(_))
    }
}

pub(super) enum Page {
    /// Of nothing that was asked here.
    NotOurs,
    More(ClientFrame),
    Complete(RequestId, MeshId, Vec<Ban>),
}

impl Asked {
    pub(super) fn begin(&mut self, request: RequestId, mesh: MeshId, what: What) -> ClientFrame {
        let req_id = Some(ReqId(alloc::format!("m{request}")));
        let frame = match what.clone() {
            What::Kick(whom) => ClientFrame::Kick { whom, req_id },
            What::Ban(target) => ClientFrame::Ban { target, req_id },
            What::Unban(target) => ClientFrame::Unban { target, req_id },
            What::ListBans(_) => list(None, req_id),
        };
        self.under_way.insert(request, Ask { mesh, what });
        frame
    }

    /// The broker has answered, or will not.
    pub(super) fn answered(
        &mut self,
        mesh: &MeshId,
        req_id: Option<&ReqId>,
    ) -> Option<(RequestId, Ask)> {
        let request = request_of(req_id?)?;
        let ours = self.under_way.get(&request)?.mesh == *mesh;
        ours.then(|| self.end(request)).flatten()
    }

    pub(super) fn page(&mut self, mesh: &MeshId, page: BansResult) -> Page {
        let request = page.req_id.as_ref().and_then(request_of);
        let ask = request.and_then(|request| Some((request, self.under_way.get_mut(&request)?)));
        let Some((request, ask)) = ask.filter(|(_, ask)| ask.mesh == *mesh) else {
            return Page::NotOurs;
        };
        let What::ListBans(bans) = &mut ask.what else {
            return Page::NotOurs;
        };
        let leads_on = !page.bans.is_empty();
        bans.extend(page.bans);
        let next = page
            .next
            .filter(|_| leads_on && bans.len() < MEMBERS_PER_MESH);
        if next.is_some() {
            return Page::More(list(next, page.req_id));
        }
        let bans = core::mem::take(bans);
        self.under_way.remove(&request);
        Page::Complete(request, mesh.clone(), bans)
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Ask)> {
        Some((request, self.under_way.remove(&request)?))
    }

    /// The control plane of this mesh is gone.
    pub(super) fn link_lost(&mut self, mesh: &MeshId) -> Vec<(RequestId, Ask)> {
        let theirs = |(request, ask): (&RequestId, &Ask)| (ask.mesh == *mesh).then_some(*request);
        let theirs: Vec<RequestId> = self.under_way.iter().filter_map(theirs).collect();
        theirs
            .into_iter()
            .filter_map(|request| self.end(request))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

fn list(after: Option<String>, req_id: Option<ReqId>) -> ClientFrame {
    ClientFrame::ListBans { after, req_id }
}

fn request_of(req_id: &ReqId) -> Option<RequestId> {
    req_id.0.strip_prefix('m')?.parse().ok().map(RequestId)
}

//! What an admin asks of its mesh: put to the broker over the control plane, answered when the
//! broker has answered.
//!
//! A kick or a ban asked for twice is done once, so that one without an answer may be repeated.

use alloc::string::String;
use alloc::vec::Vec;

use super::under_way::UnderWay;
use crate::id::{MeshId, RequestId};
use crate::limits::MEMBERS_PER_MESH;
use crate::wire::ClientFrame;
use crate::wire::client::ReqId;
use crate::wire::moderation::{Ban, BansResult, Whom};

#[derive(Default)]
pub(super) struct Asked {
    under_way: UnderWay<'m', Ask>,
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
        let asked = what.clone();
        let req_id = Some(self.under_way.begin(request, Ask { mesh, what }));
        match asked {
            What::Kick(whom) => ClientFrame::Kick { whom, req_id },
            What::Ban(target) => ClientFrame::Ban { target, req_id },
            What::Unban(target) => ClientFrame::Unban { target, req_id },
            What::ListBans(_) => list(None, req_id),
        }
    }

    /// The broker has answered, or will not.
    pub(super) fn answered(
        &mut self,
        mesh: &MeshId,
        req_id: Option<&ReqId>,
    ) -> Option<(RequestId, Ask)> {
        let (request, ask) = self.under_way.of(req_id?)?;
        let ours = ask.mesh == *mesh;
        ours.then(|| self.end(request)).flatten()
    }

    pub(super) fn page(&mut self, mesh: &MeshId, page: BansResult) -> Page {
        let ask = page.req_id.as_ref().and_then(|id| self.under_way.of(id));
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
        self.under_way.end(request);
        Page::Complete(request, mesh.clone(), bans)
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Ask)> {
        self.under_way.end(request)
    }

    /// The control plane of this mesh is gone.
    pub(super) fn link_lost(&mut self, mesh: &MeshId) -> Vec<(RequestId, Ask)> {
        self.under_way.end_all(|ask| ask.mesh == *mesh)
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

fn list(after: Option<String>, req_id: Option<ReqId>) -> ClientFrame {
    ClientFrame::ListBans { after, req_id }
}

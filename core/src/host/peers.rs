//! `GET /v1/peers`: asked of the broker, page by page, over the mesh's control plane.

use alloc::string::String;
use alloc::vec::Vec;

use super::under_way::UnderWay;
use crate::id::{MeshId, RequestId};
use crate::limits::{PEERS_PAGE, PEERS_PER_MESH};
use crate::wire::ClientFrame;
use crate::wire::broker::{Peer, PeersList};
use crate::wire::client::ReqId;

#[derive(Default)]
pub(super) struct Listings {
    under_way: UnderWay<'p', Listing>,
}

pub(super) struct Listing {
    pub(super) mesh: MeshId,
    /// Control planes too.
    pub(super) all: bool,
    pub(super) peers: Vec<Peer>,
    after: Option<String>,
}

pub(super) enum Page {
    /// Of no listing of ours.
    NotOurs,
    More(ClientFrame),
    Complete(RequestId, Listing),
}

impl Listings {
    pub(super) fn begin(&mut self, request: RequestId, mesh: MeshId, all: bool) -> ClientFrame {
        let listing = Listing {
            mesh,
            all,
            peers: Vec::new(),
            after: None,
        };
        let req_id = self.under_way.begin(request, listing);
        ask(None, req_id)
    }

    pub(super) fn page(&mut self, mesh: &MeshId, page: PeersList) -> Page {
        let Some(req_id) = page.req_id else {
            return Page::NotOurs;
        };
        let Some((request, listing)) = self.under_way.of(&req_id) else {
            return Page::NotOurs;
        };
        if listing.mesh != *mesh {
            return Page::NotOurs;
        }
        let leads_on = !page.peers.is_empty() && page.next != listing.after;
        listing.peers.extend(page.peers);
        let next = page
            .next
            .filter(|_| leads_on && listing.peers.len() < PEERS_PER_MESH);
        if next.is_some() {
            listing.after.clone_from(&next);
            return Page::More(ask(next, req_id));
        }
        match self.under_way.end(request) {
            Some((request, listing)) => Page::Complete(request, listing),
            None => Page::NotOurs,
        }
    }

    /// The broker will not answer this one: what was asked.
    pub(super) fn failed(&mut self, req_id: Option<&ReqId>) -> Option<(RequestId, Listing)> {
        let (request, _) = self.under_way.of(req_id?)?;
        self.end(request)
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Listing)> {
        self.under_way.end(request)
    }

    /// The control plane of this mesh is gone.
    pub(super) fn link_lost(&mut self, mesh: &MeshId) -> Vec<(RequestId, Listing)> {
        self.under_way.end_all(|listing| listing.mesh == *mesh)
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

fn ask(after: Option<String>, req_id: ReqId) -> ClientFrame {
    ClientFrame::ListPeers {
        after,
        limit: u32::try_from(PEERS_PAGE).ok(),
        req_id: Some(req_id),
    }
}

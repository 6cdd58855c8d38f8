//! `GET /v1/peers`: asked of the broker, page by page, over the mesh's control plane.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{MeshId, RequestId};
use crate::limits::{PEERS_PAGE, PEERS_PER_MESH};
use crate::wire::ClientFrame;
use crate::wire::broker::{Peer, PeersList};
use crate::wire::client::ReqId;

#[derive(Default)]
pub(super) struct Listings {
    under_way: BTreeMap<RequestId, Listing>,
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
        let ask = listing.ask(request);
        self.under_way.insert(request, listing);
        ask
    }

    pub(super) fn page(&mut self, mesh: &MeshId, page: PeersList) -> Page {
        let Some(request) = page.req_id.as_ref().and_then(request_of) else {
            return Page::NotOurs;
        };
        let Some(listing) = self.under_way.get_mut(&request) else {
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
            listing.after = next;
            return Page::More(listing.ask(request));
        }
        match self.under_way.remove(&request) {
            Some(listing) => Page::Complete(request, listing),
            None => Page::NotOurs,
        }
    }

    /// The broker will not answer this one: what was asked.
    pub(super) fn failed(&mut self, req_id: Option<&ReqId>) -> Option<(RequestId, Listing)> {
        self.end(req_id.and_then(request_of)?)
    }

    pub(super) fn end(&mut self, request: RequestId) -> Option<(RequestId, Listing)> {
        Some((request, self.under_way.remove(&request)?))
    }

    /// The control plane of this mesh is gone.
    pub(super) fn link_lost(&mut self, mesh: &MeshId) -> Vec<(RequestId, Listing)> {
        let theirs: Vec<RequestId> = self
            .under_way
            .iter()
            .filter(|(_, listing)| listing.mesh == *mesh)
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

impl Listing {
    fn ask(&self, request: RequestId) -> ClientFrame {
        ClientFrame::ListPeers {
            after: self.after.clone(),
            limit: u32::try_from(PEERS_PAGE).ok(),
            req_id: Some(ReqId(alloc::format!("p{request}"))),
        }
    }
}

fn request_of(req_id: &ReqId) -> Option<RequestId> {
    req_id.0.strip_prefix('p')?.parse().ok().map(RequestId)
}

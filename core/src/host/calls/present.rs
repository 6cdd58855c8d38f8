//! `GET /v1/peers`: as the broker says, or as far as the directory knows.

use alloc::vec::Vec;

use serde_json::{Value, json};

use super::Caller;
use crate::host::context::Identity;
use crate::host::ipc::Answer;
use crate::host::peers::{Listing, Page};
use crate::host::{Host, answers};
use crate::id::{MeshId, RequestId};
use crate::wire::broker::{Peer, PeerState, PeersList};

impl Host {
    pub(super) fn query_peers(
        &mut self,
        request: RequestId,
        caller: &Caller,
        mesh: Option<&str>,
        all: bool,
    ) -> Result<Option<Answer>, Answer> {
        let mesh = self.mesh_of(caller, mesh)?;
        let joined = self.meshes.get(&mesh);
        let member = joined
            .ok_or_else(|| answers::mesh_not_joined(None))?
            .member();
        if self.uplinks.conn(&member).is_none() {
            return Ok(Some(self.stale_peers(&mesh)));
        }
        let ask = self.listings.begin(request, mesh, all);
        self.uplinks.send(&mut self.ctx, &member, &ask);
        Ok(None)
    }

    pub(in crate::host) fn listing_page(&mut self, who: &Identity, page: PeersList) {
        match self.listings.page(&who.mesh, page) {
            Page::NotOurs => {}
            Page::More(ask) => {
                self.uplinks.send(&mut self.ctx, who, &ask);
            }
            Page::Complete(request, listing) => {
                self.directory
                    .noticed(&mut self.ctx, &listing.mesh, &listing.peers);
                let slug = self.meshes.slug(&listing.mesh);
                let shown = listing
                    .peers
                    .iter()
                    .filter(|peer| listing.all || peer.peer_role != "control-plane");
                let peers: Vec<Value> = shown
                    .map(|peer| live_peer(peer, &slug, &listing.mesh))
                    .collect();
                let body = peers_body(&listing.mesh, &slug, false, peers);
                self.ctx.answer(request, answers::ok(body));
            }
        }
    }

    pub(in crate::host) fn answer_stale_peers(&mut self, request: RequestId, listing: &Listing) {
        let answer = self.stale_peers(&listing.mesh);
        self.ctx.answer(request, answer);
    }

    /// As far as the directory knows.
    fn stale_peers(&self, mesh: &MeshId) -> Answer {
        let slug = self.meshes.slug(mesh);
        let peers: Vec<Value> = self
            .directory
            .present(mesh)
            .map(|row| answers::known_peer(row, &slug))
            .collect();
        answers::ok(peers_body(mesh, &slug, true, peers))
    }
}

fn peers_body(mesh: &MeshId, slug: &str, stale: bool, peers: Vec<Value>) -> Value {
    json!({ "mesh": slug, "mesh_id": mesh, "stale": stale, "peers": peers })
}

fn live_peer(peer: &Peer, slug: &str, mesh: &MeshId) -> Value {
    let state = match peer.state {
        Some(PeerState::Grace) => "grace",
        Some(PeerState::Live) | None => "live",
    };
    json!({
        "name": peer.display_name,
        "pubkey": peer.pubkey,
        "member_pubkey": peer.member_pubkey,
        "role": peer.peer_role,
        "state": state,
        "away_ms": peer.away_ms,
        "status": peer.status,
        "summary": peer.summary,
        "mesh": slug,
        "mesh_id": mesh,
    })
}

//! `kick`, `bans` and their answers; and `up` for uplinks that have stopped.

use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::host::context::Identity;
use crate::host::ipc::{Answer, KickRequest};
use crate::host::moderation::{Ask, Page, What};
use crate::host::{Host, answers};
use crate::id::{MeshId, PeerKey, RequestId};
use crate::mark::Mark;
use crate::wire::broker::ErrorFrame;
use crate::wire::moderation::{Ban, BanAck, BansResult, KickAck, UnbanAck, Whom};

impl Host {
    pub(super) fn kick(
        &mut self,
        request: RequestId,
        kick: KickRequest,
    ) -> Result<Option<Answer>, Answer> {
        let whom = match (kick.target, kick.stale_ms, kick.all) {
            (Some(target), None, false) if !target.is_empty() => Whom::Target(target),
            (None, Some(ms), false) => Whom::Stale(ms),
            (None, None, true) => Whom::All,
            _ => {
                let detail = "say exactly one of `target`, `stale_ms` and `all`";
                return Err(answers::bad_request(detail));
            }
        };
        self.moderate(request, kick.mesh.as_deref(), What::Kick(whom))
    }

    /// Over the control plane, or not at all: nothing of this is queued.
    pub(super) fn moderate(
        &mut self,
        request: RequestId,
        mesh: Option<&str>,
        what: What,
    ) -> Result<Option<Answer>, Answer> {
        let mesh = self.meshes.find(mesh)?;
        let (member, mesh) = (mesh.member(), mesh.row.id.clone());
        if self.uplinks.conn(&member).is_none() {
            return Err(self.mesh_away(&mesh));
        }
        if what.changes_something() {
            self.ctx.may_stand(request, None);
        }
        let frame = self.asked.begin(request, mesh, what);
        self.uplinks.send(&mut self.ctx, &member, &frame);
        Ok(None)
    }

    /// Every uplink that has stopped is dialled again.
    pub(super) fn retry_uplinks(&mut self) -> Answer {
        let mut stopped: Vec<Identity> = self
            .uplinks
            .shown()
            .filter(|shown| shown.state == "stopped")
            .map(|shown| shown.identity.clone())
            .collect();
        // Members before the sessions that stopped with them.
        stopped.sort_by_key(|who| matches!(who.peer, PeerKey::Session(_)));
        for who in &stopped {
            self.ctx.mark(Mark::UplinkAskedFor);
            self.want(who);
        }
        answers::ok(json!({ "retried": stopped.len() }))
    }

    pub(in crate::host) fn kicked(&mut self, who: &Identity, ack: KickAck) {
        let Some((request, ask)) = self.asked.answered(&who.mesh, ack.req_id.as_ref()) else {
            return;
        };
        let body = json!({
            "kicked": ack.kicked,
            "skipped_control_plane": ack.skipped_control_plane,
            "more": ack.more,
        });
        self.answer_moderation(request, &ask.mesh, body);
    }

    pub(in crate::host) fn banned(&mut self, who: &Identity, ack: BanAck) {
        if let Some((request, ask)) = self.asked.answered(&who.mesh, ack.req_id.as_ref()) {
            self.answer_moderation(request, &ask.mesh, json!({ "banned": ack.banned }));
        }
    }

    pub(in crate::host) fn unbanned(&mut self, who: &Identity, ack: UnbanAck) {
        if let Some((request, ask)) = self.asked.answered(&who.mesh, ack.req_id.as_ref()) {
            self.answer_moderation(request, &ask.mesh, json!({ "unbanned": ack.unbanned }));
        }
    }

    pub(in crate::host) fn bans_page(&mut self, who: &Identity, page: BansResult) {
        match self.asked.page(&who.mesh, page) {
            Page::NotOurs => {}
            Page::More(ask) => {
                self.uplinks.send(&mut self.ctx, who, &ask);
            }
            Page::Complete(request, mesh, bans) => {
                let ban = |ban: &Ban| -> Value {
                    json!({
                        "name": ban.name,
                        "pubkey": ban.pubkey,
                        "banned_at": ban.revoked_at,
                    })
                };
                let bans: Vec<Value> = bans.iter().map(ban).collect();
                self.answer_moderation(request, &mesh, json!({ "bans": bans }));
            }
        }
    }

    /// True if the error answers something that was asked here.
    pub(in crate::host) fn moderation_refused(
        &mut self,
        who: &Identity,
        error: &ErrorFrame,
    ) -> bool {
        let asked = self.asked.answered(&who.mesh, error.req_id.as_ref());
        let Some((request, _)) = asked else {
            return false;
        };
        let answer = match error.code.as_str() {
            "forbidden" => answers::forbidden(error.message.clone()),
            // The target means nobody, or several.
            "bad_request" => answers::error(422, "bad_request", error.message.clone()),
            "unknown_message_type" => answers::error(
                501,
                "unsupported",
                "the broker of this mesh does not know how to do this",
            ),
            code => answers::error(502, code, error.message.clone()),
        };
        self.ctx.answer(request, answer);
        true
    }

    /// The broker said nothing in time, or its connection is gone.
    pub(in crate::host) fn moderation_unanswered(&mut self, request: RequestId, ask: &Ask) {
        let answer = if ask.what.changes_something() {
            answers::error(
                503,
                "broker_silent",
                "the broker has not answered; it may have been done",
            )
        } else {
            self.mesh_away(&ask.mesh)
        };
        self.ctx.answer(request, answer);
    }

    fn answer_moderation(&mut self, request: RequestId, mesh: &MeshId, mut body: Value) {
        body["mesh"] = self.meshes.slug(mesh).as_str().into();
        body["mesh_id"] = json!(mesh);
        self.ctx.answer(request, answers::ok(body));
    }

    /// With the reason, where the uplink knows one.
    fn mesh_away(&self, mesh: &MeshId) -> Answer {
        let of_mesh = |identity: &Identity| {
            identity.mesh == *mesh && matches!(identity.peer, PeerKey::Member(_))
        };
        let mut shown = self.uplinks.shown();
        let why = shown
            .find(|shown| of_mesh(shown.identity) && !shown.reason.is_empty())
            .map(|shown| alloc::format!(": {}", shown.reason))
            .unwrap_or_default();
        let slug = self.meshes.slug(mesh);
        let message = alloc::format!("the broker of `{slug}` cannot be reached{why}");
        answers::error(503, "mesh_away", message)
    }
}

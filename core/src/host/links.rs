//! What comes from brokers, and what goes to them: the wiring between uplinks and the parts.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::context::{Identity, Told};
use super::directory::Change;
use super::inbox::{Recipient, Taken};
use super::io::LogLevel;
use super::meshes::Meshes;
use super::sealing::{self, CannotSeal};
use super::sessions::Sessions;
use super::uplink::{Ended, PUT_OUT, ProbeOverdue, Resumption};
use super::{Host, Phase, answers, outbox};
use crate::crypto::SecretKey;
use crate::id::{ConnId, InboxSeq, MeshId, MessageId, OutboxSeq, PeerKey, PubKey, SessionId};
use crate::limits::UNPERSISTED_TXNS;
use crate::link::{DialPlan, Down, SessionIdentity};
use crate::store::host::{InboxRow, Op, OutboxRow};
use crate::wire::broker::{HelloAck, Push};
use crate::wire::client::{About, Group};
use crate::wire::feature::Features;
use crate::wire::{Base64Body, BrokerFrame, ClientFrame, Close, Send};

impl Host {
    pub(super) fn up(&mut self, conn: ConnId, ack: &HelloAck) {
        let Some((who, resumption)) = self.uplinks.up(&mut self.ctx, conn, ack) else {
            return;
        };
        if resumption == Resumption::Mismatch {
            self.uplinks.mismatch(&mut self.ctx, &who);
            self.lost(&who);
            return;
        }
        self.receipts.connected(&who);
        self.stirred.insert(who.clone());
        if !matches!(who.peer, PeerKey::Member(_)) {
            return;
        }
        self.learn_policy(&who.mesh, ack);
        if resumption == Resumption::Gap {
            self.directory.missed(&who.mesh);
        }
        if let Some(ask) = self.directory.connected(&mut self.ctx, &who.mesh) {
            self.uplinks.send(&mut self.ctx, &who, &ask);
        }
    }

    pub(super) fn down(&mut self, conn: ConnId, down: &Down) {
        let Ended::Current { who, whole_mesh } = self.uplinks.ended(&mut self.ctx, conn, down)
        else {
            return;
        };
        self.lost(&who);
        if !whole_mesh {
            return;
        }
        let same_mesh = |other: &&Identity| other.mesh == who.mesh && **other != who;
        let others: Vec<Identity> = self
            .uplinks
            .identities()
            .filter(same_mesh)
            .cloned()
            .collect();
        for other in others {
            self.uplinks.stop(&mut self.ctx, &other, PUT_OUT);
            self.lost(&other);
        }
    }

    pub(super) fn frame(&mut self, conn: ConnId, frame: BrokerFrame) {
        let Some(who) = self.uplinks.whose(conn).cloned() else {
            return;
        };
        let is_member = matches!(who.peer, PeerKey::Member(_));
        match frame {
            BrokerFrame::Ack(ack) => {
                if let Some(all) = ack.audience.as_ref().and_then(|told| told.all.as_ref()) {
                    self.directory.told_suites(&mut self.ctx, &who.mesh, all);
                }
                self.outbox.acked(&mut self.ctx, &who, conn, &ack);
                self.stirred.insert(who);
            }
            BrokerFrame::Push(push) => self.pushed(&who, push),
            BrokerFrame::Event(event) => {
                self.uplinks.counted(&who);
                if !is_member {
                    return;
                }
                // Each event is a write. When the store is behind by as much as is kept, they are
                // passed over, and a snapshot makes up for them.
                if self.ctx.ledger.unpersisted() >= UNPERSISTED_TXNS {
                    self.directory.missed(&who.mesh);
                } else {
                    self.directory.event(&mut self.ctx, &who.mesh, &event);
                }
            }
            BrokerFrame::Stream(at) => {
                if !self.uplinks.agrees(&who, &at) {
                    self.uplinks.mismatch(&mut self.ctx, &who);
                    self.lost(&who);
                }
            }
            BrokerFrame::PeersList(page) => {
                if !is_member {
                    return;
                }
                match self.directory.page(&mut self.ctx, &who.mesh, &page) {
                    None => self.listing_page(&who, page),
                    Some(None) => {}
                    Some(Some(ask)) => {
                        self.uplinks.send(&mut self.ctx, &who, &ask);
                    }
                }
            }
            BrokerFrame::Receipt(receipt) => {
                self.receipts.told(&mut self.ctx, &who, receipt);
            }
            BrokerFrame::ExplainResult(result) => self.explained(&who, &result),
            BrokerFrame::Ok { req_id } => {
                self.seen.taken(&mut self.ctx, &who, req_id.as_ref());
            }
            BrokerFrame::Error(error) => {
                if self.moderation_refused(&who, &error) {
                    return;
                }
                self.explain_failed(&who, error.req_id.as_ref(), &error.code);
                self.seen
                    .refused(&mut self.ctx, &who, error.req_id.as_ref());
                if let Some((request, listing)) = self.listings.failed(error.req_id.as_ref()) {
                    self.answer_stale_peers(request, &listing);
                }
                let message = alloc::format!("a broker answered with an error: {}", error.code);
                self.ctx.log(LogLevel::Warn, message);
            }
            BrokerFrame::Pong { n } => {
                if self.uplinks.pong(&mut self.ctx, &who, n) {
                    self.outbox.probe_answered(&mut self.ctx, &who);
                    self.stirred.insert(who);
                }
            }
            BrokerFrame::KickAck(ack) => self.kicked(&who, ack),
            BrokerFrame::BanAck(ack) => self.banned(&who, ack),
            BrokerFrame::UnbanAck(ack) => self.unbanned(&who, ack),
            BrokerFrame::ListBansResult(page) => self.bans_page(&who, page),
            BrokerFrame::HelloAck(_)
            | BrokerFrame::MessageStatusResult(_)
            | BrokerFrame::DisconnectAck(_)
            | BrokerFrame::Unknown => {}
        }
    }

    pub(super) fn push_looked_up(&mut self, who: &Identity, ticket: u64, in_store: bool) {
        let Some(recipient) = recipient(&self.sessions, &self.meshes, who) else {
            self.inbox.forget(who);
            return;
        };
        let taken = self
            .inbox
            .looked_up(&mut self.ctx, &recipient, ticket, in_store);
        self.taken(who, taken);
    }

    /// `Why::Dial` is due.
    pub(super) fn dial(&mut self, who: &Identity) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(plan) = self.plan(who) else {
            self.uplinks.drop_uplink(&mut self.ctx, who, false);
            return;
        };
        self.uplinks.dial(&mut self.ctx, who, plan);
    }

    /// There is to be an uplink of this identity.
    pub(super) fn want(&mut self, who: &Identity) {
        if self.phase == Phase::Running {
            self.uplinks.want(&mut self.ctx, who);
        }
    }

    pub(super) fn probe_overdue(&mut self, who: &Identity) {
        match self.uplinks.probe_overdue(&mut self.ctx, who) {
            ProbeOverdue::NotProbing | ProbeOverdue::Moving => {}
            ProbeOverdue::Dead => {
                self.uplinks.redial(&mut self.ctx, who, Close::silent());
                self.lost(who);
            }
        }
    }

    pub(super) fn ask_snapshot_again(&mut self, mesh: &MeshId) {
        let Some(who) = self.meshes.get(mesh).map(super::meshes::Joined::member) else {
            return;
        };
        // Without a connection the next one asks.
        if self.uplinks.conn(&who).is_none() {
            return;
        }
        if let Some(ask) = self.directory.ask_again(&mut self.ctx, mesh) {
            self.uplinks.send(&mut self.ctx, &who, &ask);
        }
    }

    /// The store took something: what was passed over while it was behind can be made up for.
    pub(super) fn make_up(&mut self) {
        if self.ctx.ledger.unpersisted() > UNPERSISTED_TXNS / 2 {
            return;
        }
        for who in self.receipts.take_missed() {
            self.uplinks.renew(&mut self.ctx, &who, "receipts_missed");
            self.lost(&who);
        }
        for mesh in self.directory.to_make_up() {
            let member = self.meshes.get(&mesh).map(super::meshes::Joined::member);
            let Some(who) = member.filter(|who| self.uplinks.conn(who).is_some()) else {
                continue;
            };
            if let Some(ask) = self.directory.connected(&mut self.ctx, &mesh) {
                self.uplinks.send(&mut self.ctx, &who, &ask);
            }
        }
    }

    /// The connection of this identity is gone.
    pub(super) fn lost(&mut self, who: &Identity) {
        self.outbox.link_lost(&mut self.ctx, who);
        self.seen.link_lost(&mut self.ctx, who);
        for (request, row) in self.explains.link_lost(who) {
            self.explain_unanswered(request, &row);
        }
        if !matches!(who.peer, PeerKey::Member(_)) {
            return;
        }
        for (request, listing) in self.listings.link_lost(&who.mesh) {
            self.answer_stale_peers(request, &listing);
        }
        for (request, ask) in self.asked.link_lost(&who.mesh) {
            self.moderation_unanswered(request, &ask);
        }
    }

    /// Sends what may go now over this identity's own uplink. Not being up is nobody's attempt.
    pub(super) fn drain(&mut self, who: &Identity) {
        while self.uplinks.has_room(&self.ctx, who) {
            let Some(seq) = self.outbox.next(&mut self.ctx, who) else {
                return;
            };
            let Some(offered) = self.uplinks.form(who) else {
                return;
            };
            if !self.outbox.choose_form(&mut self.ctx, seq, offered) {
                continue;
            }
            let frame = match self.sealed(who, seq) {
                Ok(frame) => frame,
                Err(why) => {
                    self.outbox.cannot_seal(&mut self.ctx, seq, why);
                    continue;
                }
            };
            let Some(conn) = self.uplinks.send(&mut self.ctx, who, &frame) else {
                return;
            };
            self.outbox.sent(&mut self.ctx, seq, conn);
        }
    }

    /// An ended session whose rows are settled, and whose reading is told, says `bye`: its lease ends
    /// at once. One whose uplink is away is not dialled for that: the lease runs out.
    pub(super) fn leave_if_done(&mut self, who: &Identity) {
        if !self.leaving.contains(who) || self.outbox.rows_of(who) > 0 {
            return;
        }
        // A broker that takes no `seen` is told none.
        let can_tell = self.uplinks.conn(who).is_none() || self.uplinks.takes_receipts(who);
        if self.seen.owes(who) && can_tell {
            return;
        }
        self.leaving.remove(who);
        self.uplinks.drop_uplink(&mut self.ctx, who, true);
        self.inbox.forget(who);
    }

    pub(super) fn disk_free(&mut self, bytes: u64) {
        self.ctx.disk_free = Some(bytes);
        if !self.inbox.has_room(&self.ctx) {
            return;
        }
        for who in self.uplinks.deaf() {
            self.uplinks.renew(&mut self.ctx, &who, "room_again");
            self.lost(&who);
        }
    }

    pub(super) fn tell_mail(&mut self, row: &InboxRow) {
        if self.events.len() == 0 {
            return;
        }
        let slug = self.meshes.slug(&row.mesh);
        let data = answers::line(&answers::inbox_row(row, &slug));
        self.events.mail(&mut self.ctx, row, &data);
    }

    /// To the streams of the one who sent it, and of nobody else.
    pub(super) fn tell_sender(&mut self, told: &Told) {
        if self.events.len() == 0 {
            return;
        }
        let slug = self.meshes.slug(&told.sender.mesh);
        let data = answers::line(&answers::told(told, &slug));
        self.events.receipt(&mut self.ctx, &told.sender, &data);
    }

    /// What the store holds for this reader's broker.
    pub(super) fn tell_seen(&mut self, who: &Identity, rows: Vec<(InboxSeq, MessageId)>) {
        let is_up = self.uplinks.takes_receipts(who);
        if let Some(frame) = self.seen.batch(&mut self.ctx, who, rows, is_up) {
            self.uplinks.send(&mut self.ctx, who, &frame);
        }
        self.stirred.insert(who.clone());
    }

    pub(super) fn tell_presence(&mut self, mesh: &MeshId, changes: &[Change]) {
        let slug = self.meshes.slug(mesh);
        for change in changes {
            let data = answers::line(&answers::known_peer(&change.peer, &slug));
            let event = change.kind.event();
            self.events
                .presence(&mut self.ctx, mesh, &change.peer.pubkey, event, &data);
        }
    }

    fn pushed(&mut self, who: &Identity, push: Box<Push>) {
        if self.uplinks.is_deaf(who) {
            return;
        }
        if push.mesh_id != who.mesh {
            let message = "a broker pushed a message of another mesh: not taken";
            self.ctx.log(LogLevel::Warn, message.into());
            return;
        }
        let Some(recipient) = recipient(&self.sessions, &self.meshes, who) else {
            return;
        };
        let taken = self.inbox.pushed(&mut self.ctx, &recipient, push);
        self.taken(who, taken);
    }

    fn taken(&mut self, who: &Identity, taken: Taken) {
        match taken {
            Taken::Well => {}
            Taken::TooMuch => {
                self.inbox.forget(who);
                self.uplinks
                    .redial(&mut self.ctx, who, Close::slow_consumer());
                self.lost(who);
            }
            // Sending goes on over the same connection; what is pushed meanwhile is passed over and
            // comes again, in order, over the next.
            Taken::Full => {
                let message = "the inbox has no room: taking no more mail until it has";
                self.ctx.log(LogLevel::Warn, message.into());
                self.uplinks.deafen(who);
            }
        }
    }

    /// Sealed for the recipient's key by what it opens, as far as that is known.
    fn sealed(&mut self, who: &Identity, seq: OutboxSeq) -> Result<ClientFrame, CannotSeal> {
        let own = keys(&self.sessions, &self.meshes, who).ok_or(CannotSeal::UnusableKey)?;
        let first = self.outbox.is_first(seq);
        let row: &OutboxRow = self.outbox.row(seq).ok_or(CannotSeal::UnusableKey)?;
        let suite = self.directory.suite(&row.mesh, &row.target);
        let sealed = sealing::seal(&mut self.ctx, suite, own, row)?;
        Ok(ClientFrame::Send(Box::new(Send {
            id: Some(outbox::wire_id(seq)),
            client_message_id: Some(row.client_message_id.clone()),
            request_fingerprint: Some(row.fingerprint()),
            target_spec: alloc::format!("{}", row.target),
            priority: row.priority,
            nonce: Base64Body::encode(&sealed.nonce),
            ciphertext: Base64Body::encode(&sealed.ciphertext),
            mentions: Vec::new(),
            reply_to_id: row.reply_to.clone(),
            body_version: None,
            first,
            seal: Some(suite.as_str().into()),
        })))
    }

    fn plan(&self, who: &Identity) -> Option<DialPlan> {
        let mesh = self.meshes.get(&who.mesh)?;
        let hostname = Some(self.ctx.config.hostname.clone());
        let (session, session_id, about) = match &who.peer {
            PeerKey::Member(_) => {
                let about = About {
                    display_name: Some(mesh.row.display_name.clone()),
                    hostname,
                    ..About::default()
                };
                // One for each member: a session id is one member's.
                let id = alloc::format!("daemon-{}", mesh.row.member_id);
                (None, SessionId::from(id), about)
            }
            PeerKey::Session(_) => {
                let row = &self.sessions.by_identity(who)?.row;
                let group = |name: &alloc::string::String| Group {
                    name: name.clone(),
                    role: None,
                };
                let about = About {
                    pid: u64::from(row.pid.unwrap_or(0)),
                    cwd: row.cwd.clone(),
                    display_name: Some(row.name.clone()),
                    hostname,
                    groups: row.groups.iter().map(group).collect(),
                    ..About::default()
                };
                let identity = SessionIdentity {
                    secret: row.secret.clone(),
                    role: row.role,
                };
                (Some(identity), row.id.clone(), about)
            }
        };
        Some(DialPlan {
            url: mesh.row.broker_url.clone(),
            mesh: who.mesh.clone(),
            member_id: mesh.row.member_id.clone(),
            member_secret: mesh.secret().clone(),
            session,
            session_id,
            about,
            receipts: Some(self.receipts.after(who)),
            terms: self.ctx.config.terms.clone(),
            sealed: mesh.row.policy == "sealed",
            // The uplink knows what it saw, and its broker's clock.
            resume: None,
            quiet: false,
            clock_offset_ms: 0,
        })
    }

    /// An invite does not say whether the broker may read bodies; the broker does. A mesh that is
    /// known to be sealed stays so: its link goes on with nobody who says otherwise.
    fn learn_policy(&mut self, mesh: &MeshId, ack: &HelloAck) {
        let told = ack.features.as_ref().and_then(Features::policy);
        let Some(joined) = self.meshes.get_mut(mesh) else {
            return;
        };
        if let Some(policy) = told.filter(|policy| *policy != joined.row.policy) {
            joined.row.policy = policy.into();
            let row = joined.row.clone();
            self.ctx.persist(Op::MeshPut(Box::new(row)));
        }
    }
}

/// Whose secret seals and opens for this identity; no other's ever does.
pub(super) fn keys<'a>(
    sessions: &'a Sessions,
    meshes: &'a Meshes,
    who: &Identity,
) -> Option<(&'a SecretKey, PubKey)> {
    match &who.peer {
        PeerKey::Session(_) => {
            let session = sessions.by_identity(who)?;
            Some((&session.row.secret, session.pubkey))
        }
        PeerKey::Member(_) => {
            let mesh = meshes.get(&who.mesh)?;
            Some((mesh.secret(), mesh.pubkey))
        }
    }
}

fn recipient<'a>(
    sessions: &'a Sessions,
    meshes: &'a Meshes,
    who: &'a Identity,
) -> Option<Recipient<'a>> {
    let (secret, pubkey) = keys(sessions, meshes, who)?;
    Some(Recipient {
        identity: who,
        session: sessions.by_identity(who).map(|session| &session.row.id),
        secret,
        pubkey,
    })
}

//! Quiet connections: they authenticate a key for sending, and nothing else.
//!
//! One for each key, beside whatever lease that key has or has not. It is no connection of that
//! lease: it joins nobody, is in no list, is pushed nothing and starts no grace. What it sends is
//! accepted under the key's own limits. `first` does not count there: a session that comes back
//! while its quiet connection stands sends over another, and only one may be believed.

use alloc::string::{String, ToString};

use super::conn::{Conn, Quiet};
use super::{Mesh, Output};
use crate::id::{ConnId, Epoch, PeerKey, Role};
use crate::limits::{KNOWN_ABSENT_PER_MESH, MEMBERS_PER_MESH, SESSIONS_PER_MEMBER};
use crate::link::VerifiedHello;
use crate::mark::Mark;
use crate::store::mesh::MemberRow;
use crate::time::{Now, Wall};
use crate::wire::broker::{HelloAck, MemberProfile};
use crate::wire::feature::Features;
use crate::wire::{BrokerFrame, ClientFrame, Close, Code};

impl Mesh {
    /// Quiet connections that are open now.
    #[must_use]
    pub fn quiet_connections(&self) -> usize {
        self.quiet.len()
    }

    pub(super) fn attach_quiet(
        &mut self,
        now: Now,
        id: ConnId,
        hello: &VerifiedHello,
        member: &MemberRow,
        features: Features,
    ) {
        let key = &hello.key;
        self.marks.hit(Mark::QuietAttached);
        self.stats.quiet_hellos += 1;
        if let Some(older) = self.quiet.get(key).copied() {
            self.marks.hit(Mark::QuietReplaced);
            self.stats.replacements += 1;
            self.close_quiet(older, Close::session_replaced());
        }
        let name = self.quiet_name(hello, member);
        let peer = self.peer_entry(key, now.mono);
        peer.heard_at = now.mono;
        let groups = peer.row.as_ref().map_or_else(
            || hello.about.groups.clone(),
            |row| row.registration.about.groups.clone(),
        );
        self.quiet.insert(key.clone(), id);
        self.members.entry(member.id.clone()).or_default().quiet += 1;
        let mut conn = Conn::new(id, key.clone(), &self.offered(hello), now.mono);
        conn.quiet = Some(Quiet {
            pubkey: hello.pubkey,
            member: member.id.clone(),
            name,
        });
        let features1 = conn.features;
        self.conns.insert(id, conn);
        self.out.push(Output::Attached { conn: id });
        let ack = HelloAck {
            presence_id: Epoch(self.entropy.bytes()).to_string().into(),
            member_display_name: member.display_name.clone(),
            member_profile: MemberProfile {
                role_tag: None,
                groups,
                message_mode: "push".into(),
            },
            services: (hello.role == Role::ControlPlane).then(alloc::vec::Vec::new),
            protocol_version: features1.then_some(hello.version.number()),
            features: features1.then_some(features),
            lease_ttl_ms: None,
            stream: None,
            resumed: None,
        };
        self.send(id, &BrokerFrame::HelloAck(alloc::boxed::Box::new(ack)));
        self.pump_receipts(id);
    }

    /// The socket is gone. False if it was no quiet one.
    pub(super) fn quiet_closed(&mut self, id: ConnId) -> bool {
        let Some(quiet) = self.conns.get(&id).and_then(|conn| conn.quiet.as_ref()) else {
            return false;
        };
        if let Some(of_member) = self.members.get_mut(&quiet.member) {
            of_member.quiet = of_member.quiet.saturating_sub(1);
        }
        if let Some(conn) = self.conns.remove(&id)
            && self.quiet.get(&conn.peer) == Some(&id)
        {
            self.quiet.remove(&conn.peer);
        }
        true
    }

    pub(super) fn close_quiet(&mut self, id: ConnId, close: Close) {
        if self.quiet_closed(id) {
            self.out.push(Output::Close { conn: id, close });
        }
    }

    /// What may be said on this connection: the frame back, or it was answered.
    pub(super) fn heard_on(&mut self, id: ConnId, frame: ClientFrame) -> Option<ClientFrame> {
        let is_quiet = self.conns.get(&id).is_some_and(|conn| conn.quiet.is_some());
        if !is_quiet {
            return Some(frame);
        }
        match frame {
            // What it sent is its to ask about.
            ClientFrame::Send(_) | ClientFrame::MessageStatus(_) | ClientFrame::Explain(_) => {
                return Some(frame);
            }
            ClientFrame::Bye => {
                self.close_quiet(id, super::closed_by_bye());
                return None;
            }
            // Nothing was pushed to it that it could acknowledge, and no answer is owed.
            ClientFrame::ClientAck(_) => return None,
            _ => {}
        }
        let req_id = frame.req_id().cloned();
        self.marks.hit(Mark::QuietFrameRefused);
        let message = "a quiet connection sends, and does nothing else";
        self.refuse_frame(id, Code::Forbidden, message.into(), req_id);
        None
    }

    /// As [`Mesh::admit`] asks: a key that was never seen counts like one that joins.
    pub(super) fn has_room_for_quiet(
        &mut self,
        now: Wall,
        member: &MemberRow,
        hello: &VerifiedHello,
    ) -> bool {
        if self.quiet.contains_key(&hello.key) {
            return true;
        }
        let of_member = self.members.entry(member.id.clone()).or_default();
        if of_member.quiet >= SESSIONS_PER_MEMBER {
            return false;
        }
        if hello.role == Role::ControlPlane || self.peers.contains_key(&hello.key) {
            return true;
        }
        let has_place =
            self.peers.len() < KNOWN_ABSENT_PER_MESH + MEMBERS_PER_MESH || self.forget_one();
        has_place && self.may_bring_new_key(now, member)
    }

    fn quiet_name(&self, hello: &VerifiedHello, member: &MemberRow) -> String {
        let row = self
            .peers
            .get(&hello.key)
            .and_then(|peer| peer.row.as_ref());
        let registered = row.and_then(|row| row.registration.about.display_name.clone());
        let of_member =
            matches!(hello.key, PeerKey::Member(_)).then(|| member.display_name.clone());
        hello
            .about
            .display_name
            .clone()
            .or(registered)
            .or(of_member)
            .unwrap_or_else(|| super::presence::short_name(&hello.pubkey))
    }
}

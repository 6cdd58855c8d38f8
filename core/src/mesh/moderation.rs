//! Admins: who is put out, and what of it lasts.
//!
//! | frame | what ends | close | remembered |
//! |---|---|---|---|
//! | `disconnect` | the connections; grace begins, as at every close | 1000 `disconnected` | – |
//! | `kick` | the lease | 4001 `kicked` | one lease term, for those who were in grace |
//! | `ban` | the leases of all of the member's peers | 4002 `banned` | until `unban` |
//!
//! A *target* is, in this order: a session's or service's key; a member's key or id, which names
//! that member's control plane exactly; the name of one peer that is here. By name, by `stale` and
//! by `all` no control plane is reached: a close 4001 puts a whole host out. `stale` and `all`
//! spare whoever belongs to the asking member: its sessions ask through their control plane.
//!
//! Mail owed to those who are put out stays owed.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::lease::Lease;
use super::{Mesh, Output, presence};
use crate::id::{ConnId, MemberId, PeerKey, PubKey};
use crate::limits::REPLY_BYTES;
use crate::mark::Mark;
use crate::store::mesh::{MemberRole, MemberRow, Op};
use crate::time::{Mono, Now};
use crate::wire::broker::ErrorFrame;
use crate::wire::client::ReqId;
use crate::wire::moderation::{Ban, BanAck, BansResult, DisconnectAck, KickAck, UnbanAck, Whom};
use crate::wire::{BrokerFrame, Close, Code, plain};

/// Why nothing was done.
struct Refused {
    code: Code,
    message: String,
}

/// Whom a `kick` or `disconnect` reaches.
#[derive(Default)]
struct Meant {
    reached: Vec<PeerKey>,
    /// Control planes that were not named exactly.
    skipped: Vec<PeerKey>,
}

impl Mesh {
    pub(super) fn on_kick(&mut self, now: Now, id: ConnId, whom: &Whom, req_id: Option<ReqId>) {
        let meant = match self.meant(now.mono, id, whom) {
            Ok(meant) => meant,
            Err(refused) => return self.refuse_moderation(id, refused, req_id),
        };
        let close = Close::new(Close::KICKED, "kicked");
        let mut kicked = Vec::new();
        for key in &meant.reached {
            let (name, unheard) = (self.name_of(key), self.is_unheard(key));
            if !self.put_out(now, key, &close) {
                continue;
            }
            self.stats.kicks += 1;
            self.marks.hit(Mark::LeaseKicked);
            if unheard {
                self.marks.hit(Mark::KickedInGrace);
                let term = self.config.limits.lease_grace;
                self.kicked.remember(key.clone(), now.mono, term);
            }
            kicked.push(name);
        }
        let (affected, more) = fitting(kicked);
        let skipped = self.skipped(&meant);
        let ack = KickAck {
            kicked: affected.clone(),
            affected,
            skipped_control_plane: skipped,
            more,
            req_id,
        };
        self.reply_when_durable(now, id, BrokerFrame::KickAck(ack));
    }

    pub(super) fn on_disconnect(
        &mut self,
        now: Now,
        id: ConnId,
        whom: &Whom,
        req_id: Option<ReqId>,
    ) {
        let meant = match self.meant(now.mono, id, whom) {
            Ok(meant) => meant,
            Err(refused) => return self.refuse_moderation(id, refused, req_id),
        };
        let close = Close::new(Close::NORMAL, "disconnected");
        let mut affected = Vec::new();
        for key in &meant.reached {
            let lease = self.peers.get(key).map(|peer| peer.lease.connections());
            let mut conns = lease.unwrap_or_default().to_vec();
            conns.extend(self.quiet.get(key));
            if conns.is_empty() {
                continue;
            }
            self.marks.hit(Mark::Disconnected);
            self.stats.disconnects += 1;
            affected.push(self.name_of(key));
            for conn in conns {
                self.out.push(Output::Close {
                    conn,
                    close: close.clone(),
                });
                self.closed(now, conn);
            }
        }
        let (affected, more) = fitting(affected);
        let skipped_control_plane = self.skipped(&meant);
        self.send(
            id,
            &BrokerFrame::DisconnectAck(DisconnectAck {
                affected,
                skipped_control_plane,
                more,
                req_id,
            }),
        );
    }

    /// The answer waits until the ban is durable; its effect does not.
    pub(super) fn on_ban(&mut self, now: Now, id: ConnId, target: &str, req_id: Option<ReqId>) {
        let member = match self.may_ban(id, target) {
            Ok(member) => member,
            Err(refused) => return self.refuse_moderation(id, refused, req_id),
        };
        if let Some(row) = self.roster.set_revoked(&member.id, Some(now.wall)) {
            self.marks.hit(Mark::MemberBanned);
            self.stats.bans += 1;
            self.ledger.push(Op::MemberPut(row), 256);
        }
        let close = Close::new(Close::BANNED, "banned");
        for key in self.peers_of(&member.id) {
            self.put_out(now, &key, &close);
        }
        let banned = member.display_name;
        self.reply_when_durable(now, id, BrokerFrame::BanAck(BanAck { banned, req_id }));
    }

    pub(super) fn on_unban(&mut self, now: Now, id: ConnId, target: &str, req_id: Option<ReqId>) {
        let member = match self.may_unban(id, target) {
            Ok(member) => member,
            Err(refused) => return self.refuse_moderation(id, refused, req_id),
        };
        if let Some(row) = self.roster.set_revoked(&member.id, None) {
            self.marks.hit(Mark::MemberUnbanned);
            self.stats.unbans += 1;
            self.ledger.push(Op::MemberPut(row), 256);
        }
        let unbanned = member.display_name;
        let ack = BrokerFrame::UnbanAck(UnbanAck { unbanned, req_id });
        self.reply_when_durable(now, id, ack);
    }

    /// In order of the members' keys, in pages to Bowline clients.
    pub(super) fn on_list_bans(&mut self, id: ConnId, after: Option<&str>, req_id: Option<ReqId>) {
        if let Err(refused) = self.admin(id) {
            return self.refuse_moderation(id, refused, req_id);
        }
        let after: Option<PubKey> = after.and_then(|key| key.parse().ok());
        let in_pages = self.conns.get(&id).is_some_and(|conn| conn.features);
        let mut bans: Vec<Ban> = self
            .roster
            .banned()
            .filter(|(member, _)| after.is_none_or(|after| member.pubkey > after))
            .map(|(member, at)| Ban {
                name: member.display_name.clone(),
                pubkey: member.pubkey,
                revoked_at: at.iso8601().to_string(),
            })
            .collect();
        bans.sort_unstable_by_key(|ban| ban.pubkey);
        let mut next = None;
        if in_pages && bans.len() > BANS_PAGE {
            bans.truncate(BANS_PAGE);
            next = bans.last().map(|ban| ban.pubkey.to_string());
        }
        self.send(
            id,
            &BrokerFrame::ListBansResult(BansResult { bans, next, req_id }),
        );
    }

    /// Whether the member behind this peer is banned: nothing new may go to it.
    pub(super) fn is_banned(&self, key: &PeerKey) -> bool {
        let member = self.member_of(key);
        member.is_some_and(|member| member.revoked_at.is_some())
    }

    /// An error to whoever is told errors: to a plain client only where it asked.
    pub(super) fn refuse_frame(
        &mut self,
        id: ConnId,
        code: Code,
        message: String,
        req_id: Option<ReqId>,
    ) {
        let is_plain = self.conns.get(&id).is_none_or(|conn| !conn.features);
        if is_plain && !plain::hears_errors(req_id.as_ref()) {
            return;
        }
        self.send(
            id,
            &BrokerFrame::Error(ErrorFrame {
                code: code.as_str().into(),
                message,
                id: None,
                req_id,
                broker_time_ms: None,
            }),
        );
    }

    /// The lease ends at once, with its connections and a quiet one. False where there was nothing.
    fn put_out(&mut self, now: Now, key: &PeerKey, close: &Close) -> bool {
        let quiet = self.quiet.get(key).copied();
        if let Some(conn) = quiet {
            self.close_quiet(conn, close.clone());
        }
        let ended = self.end_lease(now, key, close);
        ended || quiet.is_some()
    }

    fn refuse_moderation(&mut self, id: ConnId, refused: Refused, req_id: Option<ReqId>) {
        if refused.code == Code::Forbidden {
            self.marks.hit(Mark::ModerationForbidden);
        }
        self.refuse_frame(id, refused.code, refused.message, req_id);
    }

    /// The member behind a connection, if it may do this.
    fn admin(&self, id: ConnId) -> Result<(PeerKey, MemberRow), Refused> {
        let peer = self.conns.get(&id).map(|conn| &conn.peer);
        let asker = peer.and_then(|key| Some((key.clone(), self.member_of(key)?.clone())));
        asker
            .filter(|(_, member)| member.role == MemberRole::Admin)
            .ok_or_else(|| Refused {
                code: Code::Forbidden,
                message: "only members with the role admin can do this".into(),
            })
    }

    fn meant(&self, now: Mono, id: ConnId, whom: &Whom) -> Result<Meant, Refused> {
        let (asker, member) = self.admin(id)?;
        let idle_for = match whom {
            Whom::Target(target) => return self.named(&asker, target),
            Whom::Stale(ms) => Duration::from_millis(*ms),
            Whom::All => Duration::ZERO,
        };
        let others = self.reachable().into_iter().filter(|key| {
            let peer = self.peers.get(*key);
            let idle = peer.is_some_and(|peer| now.since(peer.heard_at) >= idle_for);
            idle && self.member_id_of(key) != Some(&member.id)
        });
        Ok(Meant::of(others))
    }

    fn named(&self, asker: &PeerKey, target: &str) -> Result<Meant, Refused> {
        let meant = match self.exactly(target) {
            Some(key) => Meant {
                reached: [key].into(),
                skipped: Vec::new(),
            },
            None => {
                let alike = |key: &&PeerKey| self.name_of(key) == target;
                Meant::of(self.reachable().into_iter().filter(alike))
            }
        };
        if meant.reached.contains(asker) {
            return Err(bad_request("that is the one who asks: say bye instead"));
        }
        match (meant.reached.as_slice(), meant.skipped.as_slice()) {
            ([], []) => Err(bad_request(format!("nobody here is called `{target}`"))),
            ([_], _) | ([], _) => Ok(meant),
            _ => Err(ambiguous(target)),
        }
    }

    /// A key or a member's id. The peer need not be here.
    fn exactly(&self, target: &str) -> Option<PeerKey> {
        let of_member = |member: &MemberRow| PeerKey::Member(member.id.clone());
        let Ok(pubkey) = target.parse::<PubKey>() else {
            return self.roster.member(&target.into()).map(of_member);
        };
        let session = PeerKey::Session(pubkey);
        if self.peers.contains_key(&session) {
            return Some(session);
        }
        self.roster.by_pubkey(&pubkey).map(of_member)
    }

    fn may_ban(&self, id: ConnId, target: &str) -> Result<MemberRow, Refused> {
        let (_, asker) = self.admin(id)?;
        let mut meant: BTreeSet<&MemberId> = BTreeSet::new();
        match self.exactly(target) {
            Some(key) => meant.extend(self.member_of(&key).map(|member| &member.id)),
            None => {
                let peers = self.reachable().into_iter();
                let alike = peers.filter(|key| self.name_of(key) == target);
                meant.extend(alike.filter_map(|key| self.member_id_of(key)));
                meant.extend(self.roster.called(target).map(|member| &member.id));
            }
        }
        let member = self.only_one(target, &meant)?;
        if member.id == asker.id {
            return Err(bad_request("a member cannot ban itself"));
        }
        Ok(member)
    }

    /// A name is looked for among the banned only.
    fn may_unban(&self, id: ConnId, target: &str) -> Result<MemberRow, Refused> {
        self.admin(id)?;
        let mut meant: BTreeSet<&MemberId> = BTreeSet::new();
        match self.exactly(target) {
            Some(key) => meant.extend(self.member_of(&key).map(|member| &member.id)),
            None => {
                let banned = self.roster.banned().map(|(member, _)| member);
                let alike = banned.filter(|member| member.display_name == target);
                meant.extend(alike.map(|member| &member.id));
            }
        }
        self.only_one(target, &meant)
    }

    fn only_one(&self, target: &str, meant: &BTreeSet<&MemberId>) -> Result<MemberRow, Refused> {
        let mut meant = meant.iter().filter_map(|id| self.roster.member(id));
        match (meant.next(), meant.next()) {
            (None, _) => Err(bad_request(format!("no member is called `{target}`"))),
            (Some(member), None) => Ok(member.clone()),
            (Some(_), Some(_)) => Err(ambiguous(target)),
        }
    }

    /// Whoever holds a lease or has a quiet connection.
    fn reachable(&self) -> BTreeSet<&PeerKey> {
        self.present.iter().chain(self.quiet.keys()).collect()
    }

    fn peers_of(&self, member: &MemberId) -> Vec<PeerKey> {
        let theirs = |key: &&PeerKey| self.member_id_of(key) == Some(member);
        self.reachable()
            .into_iter()
            .filter(theirs)
            .cloned()
            .collect()
    }

    fn member_of(&self, key: &PeerKey) -> Option<&MemberRow> {
        self.roster.member(self.member_id_of(key)?)
    }

    fn member_id_of<'a>(&'a self, key: &'a PeerKey) -> Option<&'a MemberId> {
        let session = match key {
            PeerKey::Member(id) => return Some(id),
            PeerKey::Session(_) => key,
        };
        let row = self.peers.get(session).and_then(|peer| peer.row.as_ref());
        row.map(|row| &row.member)
            .or_else(|| self.quiet_of(session).map(|quiet| &quiet.member))
    }

    pub(super) fn name_of(&self, key: &PeerKey) -> String {
        let row = self.peers.get(key).and_then(|peer| peer.row.as_ref());
        row.map(presence::display_name)
            .or_else(|| self.quiet_of(key).map(|quiet| quiet.name.clone()))
            .or_else(|| Some(self.member_of(key)?.display_name.clone()))
            .unwrap_or_else(|| key.to_string())
    }

    fn quiet_of(&self, key: &PeerKey) -> Option<&super::conn::Quiet> {
        self.conns.get(self.quiet.get(key)?)?.quiet.as_ref()
    }

    /// No connection of it is told what happens to its lease: it is in grace, or its hello waits.
    fn is_unheard(&self, key: &PeerKey) -> bool {
        let lease = self.peers.get(key).map(|peer| &peer.lease);
        let waits = self.waiting.values().any(|one| one.hello.key == *key);
        waits || matches!(lease, Some(Lease::Grace { .. }))
    }

    fn skipped(&mut self, meant: &Meant) -> Vec<String> {
        if !meant.skipped.is_empty() {
            self.marks.hit(Mark::ControlPlaneSkipped);
        }
        let names = meant.skipped.iter().map(|key| self.name_of(key)).collect();
        fitting(names).0
    }
}

impl Meant {
    fn of<'a>(keys: impl Iterator<Item = &'a PeerKey>) -> Self {
        let mut meant = Self::default();
        for key in keys {
            match key {
                PeerKey::Session(_) => meant.reached.push(key.clone()),
                PeerKey::Member(_) => meant.skipped.push(key.clone()),
            }
        }
        meant
    }
}

/// A page of bans, whatever the names: 64 bytes, a key and a date each.
const BANS_PAGE: usize = 250;

/// As many names as fit a third of a reply, and how many more there are.
fn fitting(mut names: Vec<String>) -> (Vec<String>, u64) {
    let all = names.len();
    let mut bytes = 0;
    let fit = names.iter().take_while(|name| {
        // A character may take six bytes once escaped.
        bytes += 6 * name.len() + 3;
        bytes <= REPLY_BYTES / 3
    });
    let fit = fit.count();
    names.truncate(fit);
    (names, (all - fit) as u64)
}

fn bad_request(message: impl Into<String>) -> Refused {
    Refused {
        code: Code::BadRequest,
        message: message.into(),
    }
}

fn ambiguous(target: &str) -> Refused {
    bad_request(format!("several are called `{target}`: name a key"))
}

//! Hellos, closes and the end of leases: from the lease's facts to what follows from them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::conn::{Conn, Offered};
use super::hellos::Verdict;
use super::lease::{self, Attached};
use super::presence::{Announcement, display_name};
use super::receipts::ToldUpto;
use super::stream::{Continue, Stream};
use super::waiting::Greeting;
use super::{MemberUse, Mesh, Output, Promise, Why, closed_by_bye};
use crate::id::{ConnId, Epoch, PeerKey, ReceiptNumber, Role};
use crate::limits::{
    KNOWN_ABSENT_PER_MESH, MEMBERS_PER_MESH, PEERS_PER_MESH, SESSION_KEYS_PER_MEMBER_A_DAY,
    SESSIONS_PER_MEMBER,
};
use crate::link::VerifiedHello;
use crate::mark::Mark;
use crate::store::mesh::{MemberRow, Op, PeerRow, Registration};
use crate::time::{Now, Wall};
use crate::wire::broker::{ErrorFrame, EventKind, HelloAck, MemberProfile, Resumed, StreamAt};
use crate::wire::client::{About, Group};
use crate::wire::encode::encode_broker;
use crate::wire::feature::{ATTEST1, FEATURES1, Features, LIVE1, RECEIPTS1, RESUME1, SEAL_X1};
use crate::wire::{BrokerFrame, Close, HelloCode, Status, plain};

impl Mesh {
    pub(super) fn attach(&mut self, now: Now, id: ConnId, greeting: Greeting) {
        let Greeting { hello, local } = greeting;
        let member = match self.admit(now, &hello) {
            Ok(member) => member,
            Err(code) => return self.refuse_hello(now, id, code),
        };
        let features = self.features();
        if let Err(mismatch) = hello.offer.require.check(&features) {
            self.marks.hit(Mark::RequireNotMet);
            self.out.push(Output::Close {
                conn: id,
                close: mismatch.close(),
            });
            return;
        }
        if self.kicked.take(&hello.key, now.mono) {
            self.marks.hit(Mark::KickToldLate);
            let close = Close::new(Close::KICKED, "kicked");
            self.out.push(Output::Close { conn: id, close });
            return;
        }
        if hello.offer.is_quiet() {
            return self.attach_quiet(now, id, &hello, &member, features);
        }
        let key = hello.key.clone();
        let offered = self.offered(&hello);
        let most = lease::connections_most(hello.role);
        let peer = self.peer_entry(&key, now.mono);
        let Some(attached) = peer.lease.attach(id, most) else {
            return self.refuse_hello(now, id, HelloCode::Capacity);
        };
        self.timers.cancel(&Why::Grace(key.clone()));
        let was = self.peers.get(&key).and_then(|peer| peer.row.clone());
        let row = registered(
            was.as_ref().filter(|_| attached != Attached::Joined),
            &hello,
            &member,
            now.wall,
        );
        match attached {
            Attached::Joined => self.joined(&key, row, &member, was.is_none(), now),
            Attached::Reattached | Attached::Replaced { .. } | Attached::Added => {
                self.reattached(&key, was, row, &member, attached);
            }
        }
        if let Attached::Replaced { older } = attached {
            self.marks.hit(Mark::LeaseReplaced);
            self.drop_conn(older);
            let is_plain = plain::is_plain(&hello.offer.capabilities);
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.replaced_at = is_plain.then_some(now.mono);
            }
            self.out.push(Output::Close {
                conn: older,
                close: Close::session_replaced(),
            });
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.passed_over = 0;
            peer.heard_at = now.mono;
        }
        let mut conn = Conn::new(id, key.clone(), &offered, now.mono);
        conn.local = local;
        self.conns.insert(id, conn);
        self.out.push(Output::Attached { conn: id });
        self.acknowledge_hello(id, &hello, &member, features);
        self.pump_stream(now, id);
        self.pump_receipts(id);
        self.page(&key);
        self.deliver(&key);
    }

    /// The connection is gone. If it was replaced, or cut off by us, nobody is interested.
    pub(super) fn closed(&mut self, now: Now, id: ConnId) {
        if self.quiet_closed(id) || self.waiting_closed(id) {
            return;
        }
        let Some(key) = self.drop_conn(id) else {
            self.marks.hit(Mark::LateClose);
            return;
        };
        let grace = self.config.limits.lease_grace;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        match peer.lease.close(id, now.mono, grace) {
            lease::Closed::NotOurs => self.marks.hit(Mark::LateClose),
            lease::Closed::StillLive => self.deliver(&key),
            lease::Closed::GraceBegun { until } => {
                self.marks.hit(Mark::LeaseGraceBegun);
                self.stats.graces += 1;
                self.timers.set(Why::Grace(key.clone()), until);
                self.nobody_to_duel(now, &key);
            }
        }
    }

    /// The frame `bye`: the only thing a peer can say that ends its own lease at once.
    pub(super) fn bye(&mut self, now: Now, id: ConnId) {
        let Some(key) = self.conns.get(&id).map(|conn| conn.peer.clone()) else {
            return;
        };
        self.marks.hit(Mark::LeaseBye);
        self.end_lease(now, &key, &closed_by_bye());
    }

    /// At once, with its connections. False where there was none.
    pub(super) fn end_lease(&mut self, now: Now, key: &PeerKey, close: &Close) -> bool {
        let ended = self.peers.get_mut(key).and_then(|peer| peer.lease.end());
        let Some(conns) = ended else { return false };
        for conn in conns {
            self.drop_conn(conn);
            self.out.push(Output::Close {
                conn,
                close: close.clone(),
            });
        }
        self.timers.cancel(&Why::Grace(key.clone()));
        self.left(now, key);
        true
    }

    pub(super) fn grace_ended(&mut self, now: Now, key: &PeerKey) {
        let expired = self
            .peers
            .get_mut(key)
            .is_some_and(|peer| peer.lease.expire(now.mono));
        if expired {
            self.marks.hit(Mark::LeaseGraceExpired);
            self.left(now, key);
        }
    }

    pub(super) fn cut_slow_consumers(&mut self, now: Now) {
        while let Some(id) = self.slow.pop_first() {
            if self.conns.contains_key(&id) {
                self.marks.hit(Mark::SlowConsumer);
                self.out.push(Output::Close {
                    conn: id,
                    close: Close::slow_consumer(),
                });
                self.closed(now, id);
            }
        }
    }

    fn admit(&mut self, now: Now, hello: &VerifiedHello) -> Result<MemberRow, HelloCode> {
        let member = self
            .roster
            .by_pubkey(&hello.member_pubkey)
            .cloned()
            .ok_or(HelloCode::Unauthorized)?;
        if member.revoked_at.is_some() {
            return Err(HelloCode::Revoked);
        }
        if hello
            .member_id
            .as_ref()
            .is_some_and(|claimed| *claimed != member.id)
        {
            return Err(match hello.role {
                Role::ControlPlane => HelloCode::Unauthorized,
                Role::Session | Role::Service => HelloCode::ParentMemberIdMismatch,
            });
        }
        // A session's key belongs to the member that first used it.
        let taken = |key: &PeerKey| {
            let row = self.peers.get(key).and_then(|peer| peer.row.as_ref());
            row.is_some_and(|row| row.member != member.id)
        };
        if taken(&hello.key) {
            return Err(HelloCode::Unauthorized);
        }
        if hello
            .session_pubkey
            .is_some_and(|key| taken(&PeerKey::Session(key)))
        {
            return Err(HelloCode::BadSessionPubkey);
        }
        match self.hellos.take(now.mono, hello.timestamp, hello.signature) {
            Verdict::New => {}
            Verdict::Replayed => {
                self.marks.hit(Mark::HelloReplayed);
                return Err(HelloCode::Replayed);
            }
            Verdict::TooOld => {
                self.marks.hit(Mark::HelloSkewed);
                return Err(HelloCode::TimestampSkew);
            }
        }
        let present = self
            .peers
            .get(&hello.key)
            .is_some_and(|peer| peer.lease.is_present());
        // A reattach is never refused for capacity.
        let has_room = match hello.offer.is_quiet() {
            true => self.has_room_for_quiet(now.wall, &member, hello),
            false => present || self.has_room(now.wall, &member, hello),
        };
        if !has_room {
            return Err(HelloCode::Capacity);
        }
        Ok(member)
    }

    fn has_room(&mut self, now: Wall, member: &MemberRow, hello: &VerifiedHello) -> bool {
        if self.present.len() >= PEERS_PER_MESH {
            return false;
        }
        if hello.role == Role::ControlPlane {
            return true;
        }
        let known = self
            .peers
            .get(&hello.key)
            .is_some_and(|peer| peer.row.is_some());
        if !known
            && self.peers.len() >= KNOWN_ABSENT_PER_MESH + MEMBERS_PER_MESH
            && !self.forget_one()
        {
            return false;
        }
        let of_member: &mut MemberUse = self.members.entry(member.id.clone()).or_default();
        if of_member.present_sessions >= SESSIONS_PER_MEMBER {
            return false;
        }
        known || self.may_bring_new_key(now, member)
    }

    pub(super) fn may_bring_new_key(&mut self, now: Wall, member: &MemberRow) -> bool {
        let of_member = self.members.entry(member.id.clone()).or_default();
        let day = now.0 / 86_400_000;
        if of_member.day != day {
            (of_member.day, of_member.new_keys) = (day, 0);
        }
        of_member.new_keys += 1;
        of_member.new_keys <= SESSION_KEYS_PER_MEMBER_A_DAY
    }

    /// Forgets the peer that has been away for longest and is owed nothing, those before all that
    /// only ever sent quietly. False: there is none.
    pub(super) fn forget_one(&mut self) -> bool {
        let oldest = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.lease.is_present() && peer.owed.messages() == 0)
            .filter(|(key, _)| !self.quiet.contains_key(key))
            .map(|(key, peer)| (peer.row.as_ref().map(|row| row.last_seen), key.clone()))
            .min();
        let Some((_, key)) = oldest else { return false };
        if let Some(peer) = self.peers.remove(&key) {
            self.receipts_floor = self.receipts_floor.max(peer.receipts.last);
            if let Some(row) = peer.row {
                self.by_pubkey.remove(&row.pubkey);
            }
        }
        self.ledger.push(Op::PeerForget(key), 64);
        true
    }

    fn refuse_hello(&mut self, now: Now, id: ConnId, code: HelloCode) {
        let frame = BrokerFrame::Error(ErrorFrame {
            code: code.as_str().into(),
            message: String::from("the hello was refused"),
            id: None,
            req_id: None,
            broker_time_ms: (code == HelloCode::TimestampSkew).then_some(now.wall.0),
        });
        self.out.push(Output::Send {
            conn: id,
            frame: encode_broker(&frame),
        });
        self.out.push(Output::Close {
            conn: id,
            close: code.close(),
        });
    }

    fn joined(&mut self, key: &PeerKey, row: PeerRow, member: &MemberRow, is_new: bool, now: Now) {
        self.marks.hit(Mark::LeaseJoined);
        self.stats.joins += 1;
        if is_new && matches!(key, PeerKey::Session(_)) {
            self.by_pubkey.insert(row.pubkey, key.clone());
        }
        if row.role != Role::ControlPlane {
            self.members
                .entry(member.id.clone())
                .or_default()
                .present_sessions += 1;
        }
        self.present.insert(key.clone());
        let epoch = Epoch(self.entropy.bytes());
        let peer = self.peer_entry(key, now.mono);
        peer.stream = Some(Stream::new(epoch));
        peer.row = Some(row.clone());
        if peer.owed.is_cold() {
            self.paging.insert(key.clone());
        }
        self.store_peer(&row);
        self.announce(EventKind::PeerJoined, row, member);
    }

    /// Nobody is told, but of another name or other groups.
    fn reattached(
        &mut self,
        key: &PeerKey,
        was: Option<PeerRow>,
        row: PeerRow,
        member: &MemberRow,
        attached: Attached,
    ) {
        self.stats.reattaches += 1;
        self.stats.replacements += u64::from(matches!(attached, Attached::Replaced { .. }));
        self.marks.hit(match attached {
            Attached::Reattached => Mark::LeaseReattached,
            _ => Mark::LeaseAdded,
        });
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.owed.is_cold() {
            self.paging.insert(key.clone());
        }
        peer.row = Some(row.clone());
        let Some(was) = was else { return };
        let seen = |row: &PeerRow| (display_name(row), row.registration.about.groups.clone());
        let changed = seen(&was) != seen(&row);
        if was != row {
            self.store_peer(&row);
        }
        if changed {
            self.announce(EventKind::ProfileUpdated, row, member);
        }
    }

    /// The lease is gone: one leave is told, what the peer registered goes, and what it is owed
    /// stays.
    fn left(&mut self, now: Now, key: &PeerKey) {
        self.stats.leaves += 1;
        self.present.remove(key);
        self.leaving.insert(key.clone());
        self.paging.remove(key);
        self.timers.cancel(&Why::Working(key.clone()));
        self.timers.cancel(&Why::Claim(key.clone()));
        let newest = self.ledger.current();
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.stream = None;
        peer.stats = None;
        peer.owed.chill(newest);
        let Some(row) = peer.row.as_mut() else { return };
        let was = row.clone();
        let about = About {
            display_name: row.registration.about.display_name.clone(),
            ..About::default()
        };
        row.registration = Registration {
            about,
            visible: true,
            // What it opens: mail for it is sealed meanwhile.
            capabilities: core::mem::take(&mut row.registration.capabilities),
            ..Registration::default()
        };
        row.present = false;
        row.last_seen = now.wall;
        let row = row.clone();
        if row.role != Role::ControlPlane
            && let Some(of_member) = self.members.get_mut(&row.member)
        {
            of_member.present_sessions = of_member.present_sessions.saturating_sub(1);
        }
        self.store_peer(&row);
        let Some(member) = self.roster.member(&row.member).cloned() else {
            return;
        };
        self.announce(EventKind::PeerLeft, was, &member);
    }

    /// Takes the connection out: whose it was. What was claimed on it is `ready` again.
    fn drop_conn(&mut self, id: ConnId) -> Option<PeerKey> {
        let conn = self.conns.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&conn.peer) {
            peer.owed.release(id);
        }
        self.arm_claim(&conn.peer);
        Some(conn.peer)
    }

    pub(super) fn store_peer(&mut self, row: &PeerRow) {
        self.ledger.push(Op::PeerPut(Box::new(row.clone())), 1024);
    }

    /// Others hear of it when it is durable.
    pub(super) fn announce(&mut self, kind: EventKind, about: PeerRow, member: &MemberRow) {
        let announcement = Box::new(Announcement {
            kind,
            about,
            member_pubkey: member.pubkey,
        });
        self.gate
            .hold(self.ledger.current(), Promise::Announce(announcement));
    }

    pub(super) fn offered(&self, hello: &VerifiedHello) -> Offered {
        let capabilities = &hello.offer.capabilities;
        // Who does not say what it has is told from here on.
        let durable = self
            .peers
            .get(&hello.key)
            .map_or(self.receipts_floor, |peer| peer.receipts.durable);
        let after = hello.offer.receipts.map(|has| ReceiptNumber(has.after));
        let told = ToldUpto {
            n: after.map_or(durable, |after| after.min(durable)),
            loading: false,
        };
        Offered {
            session_pubkey: hello.session_pubkey,
            features: capabilities.has(FEATURES1),
            live1: capabilities.has(LIVE1),
            resume1: capabilities.has(RESUME1),
            seal_x1: capabilities.has(SEAL_X1),
            receipts: capabilities.has(RECEIPTS1).then_some(told),
        }
    }

    fn features(&self) -> Features {
        Features::of_mesh(&self.config.limits, self.config.open).with(&self.config.offered_instead)
    }

    /// Not gated: it promises nothing. A hit continues at the client's own count.
    fn acknowledge_hello(
        &mut self,
        id: ConnId,
        hello: &VerifiedHello,
        member: &MemberRow,
        features: Features,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let Some(peer) = self.peers.get(&conn.peer) else {
            return;
        };
        let (Some(row), Some(stream)) = (&peer.row, &peer.stream) else {
            return;
        };
        let (at, resumed) = match stream.resume(hello.offer.resume.filter(|_| conn.resume1)) {
            Continue::Hit { at } => (at, Resumed::Hit),
            Continue::Miss { at } => (at, Resumed::Miss),
            Continue::Fresh { at } => (at, Resumed::Fresh),
        };
        conn.stream_at = at;
        let presence_id = alloc::format!("{}", stream.epoch()).into();
        let (features1, resume1) = (conn.features, conn.resume1);
        match resumed {
            Resumed::Hit => {
                self.stats.resume_hits += 1;
                self.marks.hit(Mark::ResumeHit);
                if at < stream.count() {
                    self.marks.hit(Mark::ResumeHitWithReplay);
                }
            }
            Resumed::Miss => {
                self.stats.resume_misses += 1;
                self.marks.hit(Mark::ResumeMiss);
                if hello
                    .offer
                    .resume
                    .is_some_and(|resume| resume.epoch == stream.epoch())
                {
                    self.marks.hit(Mark::RingOverrun);
                }
            }
            Resumed::Fresh => self.marks.hit(Mark::ResumeFresh),
        }
        let ack = HelloAck {
            presence_id,
            member_display_name: member.display_name.clone(),
            member_profile: MemberProfile {
                role_tag: None,
                groups: row.registration.about.groups.clone(),
                message_mode: "push".into(),
            },
            services: (hello.role == Role::ControlPlane).then(Vec::new),
            protocol_version: features1.then_some(hello.version.number()),
            features: features1.then_some(features),
            lease_ttl_ms: features1.then(|| {
                u64::try_from(self.config.limits.lease_grace.as_millis()).unwrap_or(u64::MAX)
            }),
            stream: resume1.then(|| StreamAt {
                epoch: stream.epoch(),
                count: at,
            }),
            resumed: resume1.then_some(resumed),
        };
        self.send(id, &BrokerFrame::HelloAck(Box::new(ack)));
    }
}

/// The row that a hello makes of what was registered. What the peer registered since its last
/// hello stays.
fn registered(
    was: Option<&PeerRow>,
    hello: &VerifiedHello,
    member: &MemberRow,
    now: Wall,
) -> PeerRow {
    let mut about = hello.about.clone();
    let hello_groups = core::mem::take(&mut about.groups);
    let mut registration = was.map_or_else(
        || Registration {
            status: Status::Idle,
            visible: true,
            ..Registration::default()
        },
        |row| row.registration.clone(),
    );
    about.groups = groups(&registration, &hello_groups);
    about.display_name = about
        .display_name
        .or_else(|| registration.about.display_name.take())
        .or_else(|| (hello.role == Role::ControlPlane).then(|| member.display_name.clone()));
    registration.about = about;
    registration.hello_groups = hello_groups;
    registration.session_id = Some(hello.session_id.clone());
    registration.attestation = hello
        .attestation
        .clone()
        .filter(|_| hello.offer.capabilities.has(ATTEST1));
    registration.capabilities = hello.offer.capabilities.clone();
    PeerRow {
        key: hello.key.clone(),
        role: hello.role,
        member: member.id.clone(),
        pubkey: hello.pubkey,
        present: true,
        joined_at: was.map_or(now, |row| row.joined_at),
        last_seen: was.map_or(now, |row| row.last_seen),
        registration,
    }
}

/// The hello's groups, and those that were joined since the last hello.
fn groups(registration: &Registration, of_hello: &[Group]) -> Vec<Group> {
    let joined_since = registration
        .about
        .groups
        .iter()
        .filter(|group| !registration.hello_groups.contains(group));
    let mut groups: Vec<Group> = of_hello.to_vec();
    for group in joined_since {
        if !groups.iter().any(|own| own.name == group.name) {
            groups.push(group.clone());
        }
    }
    groups.truncate(crate::limits::GROUPS_PER_PEER);
    groups
}

//! Who is put out is out, and nobody else: only an admin is obeyed; a kick ends the lease and reaches no
//! control plane that it did not name exactly; from the answer to a ban until somebody asks to take it
//! back the member holds no lease, is taken no hello, and nothing is accepted from or to it.
//!
//! That each leaves exactly once is judged with all other leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bowline_core::id::{MemberId, PeerKey, PubKey};
use bowline_core::link::VerifiedHello;
use bowline_core::store::mesh::{MessageRow, Op, PeerRow};
use bowline_core::wire::moderation::{KickAck, Whom};
use bowline_core::wire::{BrokerFrame, ClientFrame, Close, decode_broker};

use super::{Oracle, View};
use crate::cast::Cast;
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct Moderation {
    /// What peers are called, as their hellos said.
    names: BTreeMap<String, BTreeSet<Arc<PeerKey>>>,
    /// Whose sessions these are.
    members: BTreeMap<PeerKey, MemberId>,
    /// As the store has it.
    present: BTreeMap<PeerKey, bool>,
    /// Whose leave became durable since somebody's kick that is not answered was heard.
    left: BTreeSet<PeerKey>,
    kicking: BTreeSet<PeerKey>,
    /// Control planes that a kick named exactly.
    named: BTreeSet<PeerKey>,
    banned: BTreeSet<MemberId>,
    /// Whose ban was taken back, perhaps before it was acknowledged.
    unbanned: BTreeSet<MemberId>,
}

impl Oracle for Moderation {
    fn name(&self) -> &'static str {
        "moderation"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        let cast = &*view.cast;
        match record {
            Record::OwnerStarted { .. } => self.kicking.clear(),
            Record::Attached { peer, hello, .. } | Record::QuietAttached { peer, hello, .. } => {
                return self.attached(peer, hello, cast);
            }
            Record::Moderation { peer, frame, .. } if self.is_admin(peer, cast) => {
                if matches!(**frame, ClientFrame::Kick { .. }) {
                    self.kick_heard(peer);
                }
                self.asked(frame, cast);
            }
            Record::Sent { peer, frame, .. } => return self.sent(peer, frame, cast),
            Record::Dismissed { peer, close, .. }
                if close.code == Close::KICKED
                    && matches!(**peer, PeerKey::Member(_))
                    && !self.named.contains(&**peer) =>
            {
                return Err(format!("no kick named {peer}, and it was kicked"));
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    match op {
                        Op::PeerPut(row) => self.put(row)?,
                        Op::MessagePut(row) => self.accepted_from(row)?,
                        Op::DeliveryPut { seq, recipient, .. } => {
                            if let Some(member) = self.banned_behind(recipient) {
                                return Err(format!(
                                    "message {} to {recipient} was accepted, and {member} is banned",
                                    seq.0
                                ));
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Moderation {
    fn attached(
        &mut self,
        peer: &Arc<PeerKey>,
        hello: &VerifiedHello,
        cast: &Cast,
    ) -> Result<(), String> {
        let mut members = cast.members.iter();
        if let Some(member) = members.find(|member| member.pubkey == hello.member_pubkey) {
            self.members.insert((**peer).clone(), member.id.clone());
        }
        if let Some(name) = &hello.about.display_name {
            let alike = self.names.entry(name.clone()).or_default();
            alike.insert(Arc::clone(peer));
        }
        match self.banned_behind(peer) {
            Some(member) => Err(format!(
                "a hello of {peer} was taken, and {member} is banned"
            )),
            None => Ok(()),
        }
    }

    fn asked(&mut self, frame: &ClientFrame, cast: &Cast) {
        match frame {
            ClientFrame::Kick {
                whom: Whom::Target(target),
                ..
            } => {
                let member = member_called(target, cast);
                self.named.extend(member.cloned().map(PeerKey::Member));
            }
            ClientFrame::Ban { target, .. } => {
                if let Some(member) = self.member_meant(target, cast) {
                    self.unbanned.remove(&member);
                }
            }
            ClientFrame::Unban { target, .. } => {
                if let Some(member) = self.member_meant(target, cast) {
                    self.banned.remove(&member);
                    self.unbanned.insert(member);
                }
            }
            _ => {}
        }
    }

    fn member_meant(&self, target: &str, cast: &Cast) -> Option<MemberId> {
        let key: Option<PubKey> = target.parse().ok();
        let of_session = key.and_then(|key| self.members.get(&PeerKey::Session(key)));
        of_session.or_else(|| member_called(target, cast)).cloned()
    }

    fn sent(&mut self, peer: &PeerKey, frame: &[u8], cast: &Cast) -> Result<(), String> {
        let answers = [
            &b"{\"type\":\"kick_ack\""[..],
            b"{\"type\":\"disconnect_ack\"",
            b"{\"type\":\"ban_ack\"",
            b"{\"type\":\"unban_ack\"",
            b"{\"type\":\"list_bans_result\"",
        ];
        if !answers.iter().any(|answer| frame.starts_with(answer)) {
            return Ok(());
        }
        if !self.is_admin(peer, cast) {
            return Err(format!("{peer} is no admin, and was obeyed"));
        }
        match decode_broker(frame) {
            Ok(BrokerFrame::KickAck(ack)) => self.kicked(peer, &ack),
            Ok(BrokerFrame::BanAck(ack)) => self.ban(&ack.banned.as_str().into()),
            _ => Ok(()),
        }
    }

    fn kick_heard(&mut self, by: &PeerKey) {
        if self.kicking.is_empty() {
            self.left.clear();
        }
        self.kicking.insert(by.clone());
    }

    fn kicked(&mut self, by: &PeerKey, ack: &KickAck) -> Result<(), String> {
        // Of two that were heard before the first answer only that one is judged.
        if !self.kicking.remove(by) {
            return Ok(());
        }
        for name in &ack.kicked {
            // Where several are called so, it is not known which.
            let mut alike = self.names.get(name).into_iter().flatten();
            let (Some(key), None) = (alike.next(), alike.next()) else {
                continue;
            };
            if matches!(**key, PeerKey::Member(_)) && !self.named.contains(&**key) {
                return Err(format!("no kick named {key}, and it was kicked"));
            }
            if !self.left.contains(&**key) {
                return Err(format!(
                    "{key} is said to be kicked, and its leave is not durable"
                ));
            }
        }
        Ok(())
    }

    fn ban(&mut self, member: &MemberId) -> Result<(), String> {
        if self.unbanned.contains(member) {
            return Ok(());
        }
        self.banned.insert(member.clone());
        let mut here = self.present.iter().filter(|(_, present)| **present);
        match here.find(|(key, _)| self.banned_behind(key) == Some(member)) {
            Some((key, _)) => Err(format!("{member} is banned, and {key} holds a lease")),
            None => Ok(()),
        }
    }

    fn put(&mut self, row: &PeerRow) -> Result<(), String> {
        self.members.insert(row.key.clone(), row.member.clone());
        self.present.insert(row.key.clone(), row.present);
        if !row.present {
            self.left.insert(row.key.clone());
            return Ok(());
        }
        match self.banned_behind(&row.key) {
            Some(member) => Err(format!("{member} is banned, and {} holds a lease", row.key)),
            None => Ok(()),
        }
    }

    fn accepted_from(&self, row: &MessageRow) -> Result<(), String> {
        if self.banned.contains(&row.sender_member) {
            return Err(format!(
                "message {} of {} was accepted, and {} is banned",
                row.seq.0, row.sender, row.sender_member
            ));
        }
        Ok(())
    }

    fn banned_behind(&self, key: &PeerKey) -> Option<&MemberId> {
        let member = match key {
            PeerKey::Member(id) => self.banned.get(id)?,
            PeerKey::Session(_) => self.banned.get(self.members.get(key)?)?,
        };
        Some(member)
    }

    fn is_admin(&self, peer: &PeerKey, cast: &Cast) -> bool {
        let admin = cast.admin.and_then(|admin| cast.members.get(admin));
        let member = match peer {
            PeerKey::Member(id) => Some(id),
            PeerKey::Session(_) => self.members.get(peer),
        };
        admin.is_some_and(|admin| Some(&admin.id) == member)
    }
}

/// By its key or id.
fn member_called<'a>(target: &str, cast: &'a Cast) -> Option<&'a MemberId> {
    let mut members = cast.members.iter();
    let named = members.find(|it| it.id.as_str() == target || it.pubkey.to_string() == target);
    named.map(|member| &member.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::id::ConnId;
    use bowline_core::wire::moderation::BanAck;

    /// Peer 1 is the admin; of all others the store says whose they are.
    fn judge(history: &[Record]) -> Result<(), String> {
        let mut oracle = Moderation::default();
        let view = testing::view();
        let admin = view.cast.members[view.cast.admin.expect("a puppet")]
            .id
            .clone();
        oracle.members.insert((*testing::key(1)).clone(), admin);
        for peer in 2..=3 {
            let member = format!("m{peer}").as_str().into();
            oracle.members.insert((*testing::key(peer)).clone(), member);
            let called = format!("peer {peer}");
            oracle
                .names
                .entry(called)
                .or_default()
                .insert(testing::key(peer));
        }
        let history: Vec<(u64, Record)> = history.iter().map(|it| (s(1), it.clone())).collect();
        testing::judge(&mut oracle, &history)
    }

    fn put(peer: u8, present: bool) -> Record {
        let Record::MeshCommitted {
            node,
            txn,
            ops: mut rows,
        } = testing::peer_put(peer, present)
        else {
            unreachable!("committed")
        };
        for op in &mut rows {
            if let Op::PeerPut(row) = op {
                row.member = format!("m{peer}").as_str().into();
            }
        }
        Record::MeshCommitted {
            node,
            txn,
            ops: rows,
        }
    }

    fn kick_ack(to: u8, name: &str) -> Record {
        let ack = KickAck {
            kicked: vec![name.into()],
            ..KickAck::default()
        };
        testing::sent(to, 1, &BrokerFrame::KickAck(ack))
    }

    fn ban_ack(member: &str) -> Record {
        let (banned, req_id) = (member.into(), None);
        testing::sent(1, 1, &BrokerFrame::BanAck(BanAck { banned, req_id }))
    }

    fn asked(frame: ClientFrame) -> Record {
        Record::Moderation {
            node: 0,
            peer: testing::key(1),
            frame: Box::new(frame),
        }
    }

    #[test]
    fn one_that_is_obeyed_and_no_admin_is_found() {
        assert!(judge(&[kick_ack(1, "peer 2")]).is_ok());
        assert!(judge(&[kick_ack(2, "peer 3")]).is_err());
    }

    #[test]
    fn a_kicked_lease_that_survives_is_found() {
        let history = |leaves: bool| {
            let kick = asked(ClientFrame::Kick {
                whom: Whom::All,
                req_id: None,
            });
            let mut history = vec![put(2, true), kick];
            history.extend(leaves.then(|| put(2, false)));
            history.push(kick_ack(1, "peer 2"));
            judge(&history)
        };
        assert!(history(true).is_ok());
        assert!(history(false).is_err());
    }

    #[test]
    fn a_control_plane_that_was_kicked_and_not_named_is_found() {
        let view = testing::view();
        let member = view.cast.members[0].id.clone();
        let dismissed = Record::Dismissed {
            node: 0,
            conn: ConnId(4),
            peer: Arc::new(PeerKey::Member(member.clone())),
            quiet: false,
            close: Close::new(Close::KICKED, "kicked"),
        };
        let kick = |whom| asked(ClientFrame::Kick { whom, req_id: None });
        let named = kick(Whom::Target(member.to_string()));
        assert!(judge(&[named, dismissed.clone()]).is_ok());
        assert!(judge(&[kick(Whom::All), dismissed]).is_err());
    }

    #[test]
    fn whatever_a_banned_member_still_has_is_found() {
        let ban = || vec![put(2, true), put(2, false), put(3, true), ban_ack("m2")];
        assert!(judge(&ban()).is_ok());
        assert!(judge(&[put(2, true), ban_ack("m2")]).is_err(), "a lease");
        let accepted = |from: u8, to: u8| {
            let mut ops = testing::accept(1, from, to, "a");
            for op in &mut ops {
                if let Op::MessagePut(row) = op {
                    row.sender_member = format!("m{from}").as_str().into();
                }
            }
            testing::committed(ops)
        };
        for (more, bad) in [
            (put(2, true), true),
            (accepted(2, 3), true),
            (accepted(3, 2), true),
            (accepted(3, 1), false),
            (put(3, true), false),
        ] {
            let mut history = ban();
            history.push(more.clone());
            assert_eq!(judge(&history).is_err(), bad, "{more:?}");
            let target = testing::pubkey(2).to_string();
            let unban = asked(ClientFrame::Unban {
                target,
                req_id: None,
            });
            history.insert(4, unban);
            assert!(judge(&history).is_ok(), "{more:?}");
        }
    }
}

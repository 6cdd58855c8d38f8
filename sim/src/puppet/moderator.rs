//! A puppet that wants others put out. What it banned it takes back, sooner or later; who was
//! kicked comes back when somebody at its host asks for it.

use bowline_core::id::PubKey;
use bowline_core::wire::broker::ErrorFrame;
use bowline_core::wire::client::ReqId;
use bowline_core::wire::moderation::{UnbanAck, Whom};
use bowline_core::wire::{BrokerFrame, ClientFrame};

use super::{Puppet, WAKE_UNBAN};
use crate::host::UP;
use crate::kernel::{Kernel, NodeEvent};
use crate::plan::{Moderation, StepId};
use crate::stage::FIRST_CLIENT;

/// After healing, when somebody at each host asks once more: a kick is remembered for 90 s.
const UP_AFTER_HEALING_S: [u64; 5] = [1, 10, 35, 100, 140];

impl Puppet {
    pub(super) fn moderate(
        &mut self,
        k: &mut Kernel,
        id: StepId,
        what: Moderation,
        of: usize,
        for_ms: u64,
    ) {
        let Some((key, name)) = self.party(k, of) else {
            return;
        };
        let target = key.to_string();
        let req_id = Some(ReqId(format!("k{}", id.0)));
        let kick = |whom: Whom| ClientFrame::Kick {
            whom,
            req_id: req_id.clone(),
        };
        let frame = match what {
            Moderation::Kick => kick(Whom::Target(target)),
            Moderation::KickByName => kick(Whom::Target(name)),
            Moderation::KickStale => kick(Whom::Stale(for_ms)),
            Moderation::KickAll => kick(Whom::All),
            Moderation::Disconnect => ClientFrame::Disconnect {
                whom: Whom::Target(target),
                req_id,
            },
            Moderation::Ban => {
                self.bans.insert(target.clone());
                ClientFrame::Ban { target, req_id }
            }
            Moderation::ListBans => ClientFrame::ListBans {
                after: None,
                req_id,
            },
        };
        self.moderated = true;
        if !self.say_now(k, &frame) {
            return;
        }
        let later_us = for_ms * 1_000;
        match what {
            Moderation::Ban => k.tell_later(later_us, self.node, NodeEvent::Process(WAKE_UNBAN)),
            _ => self.hosts_up(k, later_us),
        }
    }

    pub(super) fn unban_all(&mut self, k: &mut Kernel) {
        for target in self.bans.clone() {
            let req_id = Some(ReqId(format!("u{target}")));
            self.say_now(k, &ClientFrame::Unban { target, req_id });
        }
    }

    /// Answers to what it wanted.
    pub(super) fn moderated(&mut self, k: &mut Kernel, frame: &BrokerFrame) {
        let req_id = match frame {
            BrokerFrame::UnbanAck(UnbanAck { req_id, .. })
            | BrokerFrame::Error(ErrorFrame { req_id, .. }) => req_id,
            _ => return,
        };
        let Some(target) = req_id.as_ref().and_then(|id| id.0.strip_prefix('u')) else {
            return;
        };
        if self.bans.remove(target) {
            self.hosts_up(k, 500_000);
        }
    }

    pub(super) fn moderation_heals(&mut self, k: &mut Kernel) {
        if !self.moderated {
            return;
        }
        self.unban_all(k);
        for after_s in UP_AFTER_HEALING_S {
            self.hosts_up(k, after_s * 1_000_000);
        }
    }

    fn hosts_up(&self, k: &mut Kernel, later_us: u64) {
        for host in 0..self.profile.hosts {
            k.tell_later(later_us, FIRST_CLIENT + host, NodeEvent::Beside(UP));
        }
    }

    /// Users first, then puppets, then control planes: how they are named.
    fn party(&self, k: &Kernel, of: usize) -> Option<(PubKey, String)> {
        let users = self.profile.users();
        if of < users + self.profile.puppets {
            let name = match of.checked_sub(users) {
                None => format!("user-{of}"),
                Some(puppet) => format!("puppet-{puppet}"),
            };
            return Some((self.address(k, of)?, name));
        }
        let client = of - users - self.profile.puppets;
        let member = self.cast.members.get(client)?;
        Some((member.pubkey, member.id.to_string()))
    }
}

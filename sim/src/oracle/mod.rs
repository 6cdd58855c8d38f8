//! What must be true, one property a file. Oracles judge records and stores: what an outside
//! observer could see. A call without an answer is *unknown*, never "did not happen".

pub mod g10_attribution;
pub mod g11_bounded;
pub mod g12_liveness;
pub mod g13_forms;
pub mod g13_privacy;
pub mod g14_at_the_sender;
pub mod g14_explained;
pub mod g14_receipts;
pub mod g14_truthful;
pub mod g1_no_loss;
pub mod g2_once;
pub mod g3_idempotent;
pub mod g4_atomic_accept;
pub mod g5_silent_reconnect;
pub mod g6_one_leave_one_join;
pub mod g6_sessions;
pub mod g7_claims;
pub mod g8_order;
pub mod g9_meshes;
pub mod g9_scoping;
pub mod hello_once;
pub mod idle_quiet;
mod ledger;
pub mod limiter;
pub mod moderation;
pub mod no_error_log;
pub mod owed_is_pushed;
pub mod priorities;
pub mod quiet_hello;
pub mod registration_stays;
pub mod terms_kept;
#[cfg(test)]
mod testing;
mod truth;
pub mod unsuited_stops;
pub mod waiting_is_no_attempt;

use std::rc::Rc;

use bowline_core::limits::Limits;
use bowline_core::store::{host, mesh};

use crate::cast::{Cast, Puppet};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::plan::Profile;
use crate::record::Record;
use crate::store::Shared;

/// What oracles may look at beside the records: of one mesh.
pub struct View {
    pub profile: Profile,
    pub limits: Limits,
    pub cast: Rc<Cast>,
    pub mesh: Shared<mesh::Image>,
    /// By host.
    pub hosts: Vec<Shared<host::Image>>,
    pub first_client: NodeId,
}

impl View {
    /// Those who act in this mesh.
    pub fn puppets(&self) -> impl Iterator<Item = &Puppet> {
        let users = self.profile.users();
        let is_here = move |nth: &usize| self.profile.mesh_of(users + nth) == self.cast.index;
        let all = self.cast.puppets.iter().enumerate();
        all.filter(move |(nth, _)| is_here(nth))
            .map(|(_, puppet)| puppet)
    }

    /// The host at `node`, counted from 0.
    #[must_use]
    pub fn host_at(&self, node: NodeId) -> Option<usize> {
        node.checked_sub(self.first_client)
            .filter(|host| *host < self.profile.hosts)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Faults have ended.
    Healed,
    /// All has converged, and everybody sends once more.
    Fresh,
    /// All has converged and nobody does anything.
    Quiet,
}

pub trait Oracle {
    fn name(&self) -> &'static str;

    /// # Errors
    /// What is wrong, in words.
    fn see(&mut self, at: Moment, record: &Record, view: &View) -> Result<(), String>;

    fn phase(&mut self, _at: Moment, _phase: Phase) {}

    /// What has to become true after healing and is not, in words.
    fn unmet(&self, _at: Moment, _view: &View) -> Option<String> {
        None
    }

    /// # Errors
    /// What is wrong, in words.
    fn end(&mut self, _at: Moment, _view: &View) -> Result<(), String> {
        Ok(())
    }
}

/// Whether a message that was durable at `accepted` may be owed no longer: its accept was up to a
/// store's outage earlier, and brokers' clocks differ.
pub(crate) fn retention_may_be_over(at: Moment, accepted: Moment, view: &View) -> bool {
    let kept_for_us = u64::try_from(view.limits.undelivered_for.as_micros()).unwrap_or(u64::MAX);
    at.since_us(accepted) + ACCEPTED_BEFORE_US >= kept_for_us - kept_for_us / 50
}

const ACCEPTED_BEFORE_US: u64 = 45_000_000;

/// What the world itself judges: that a restart finds what was there, that no machine panics, and
/// that each asks of its store only what an owner in its right mind asks.
pub const OF_THE_WORLD: [&str; 3] = ["recovered_equals_live", "no_panic", "store"];

/// The names of all properties that are judged.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let own = all().into_iter().map(|oracle| oracle.name());
    own.chain(OF_THE_WORLD).collect()
}

/// Every oracle that judges by records.
#[must_use]
pub fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::<g12_liveness::FreshSends>::default(),
        Box::<g1_no_loss::NoLoss>::default(),
        Box::<g2_once::Once>::default(),
        Box::<g3_idempotent::Idempotent>::default(),
        Box::<g4_atomic_accept::AtomicAccept>::default(),
        Box::<g5_silent_reconnect::SilentReconnect>::default(),
        Box::<g6_one_leave_one_join::OneLeaveOneJoin>::default(),
        Box::<g6_sessions::Sessions>::default(),
        Box::<g7_claims::Claims>::default(),
        Box::<g8_order::Order>::default(),
        Box::<g9_meshes::Meshes>::default(),
        Box::<g9_scoping::Scoping>::default(),
        Box::<g10_attribution::Attribution>::default(),
        Box::<g11_bounded::Bounded>::default(),
        Box::<g13_forms::Forms>::default(),
        Box::<g13_privacy::Privacy>::default(),
        Box::<g14_at_the_sender::AtTheSender>::default(),
        Box::<g14_truthful::Truthful>::default(),
        Box::<g14_receipts::Receipts>::default(),
        Box::<g14_explained::Explained>::default(),
        Box::<hello_once::HelloOnce>::default(),
        Box::<idle_quiet::IdleQuiet>::default(),
        Box::<moderation::Moderation>::default(),
        Box::<no_error_log::NoErrorLog>::default(),
        Box::<owed_is_pushed::OwedIsPushed>::default(),
        Box::<quiet_hello::QuietHello>::default(),
        Box::<limiter::Limiter>::default(),
        Box::<priorities::Priorities>::default(),
        Box::<registration_stays::RegistrationStays>::default(),
        Box::<terms_kept::TermsKept>::default(),
        Box::<unsuited_stops::UnsuitedStops>::default(),
        Box::<waiting_is_no_attempt::WaitingIsNoAttempt>::default(),
    ]
}

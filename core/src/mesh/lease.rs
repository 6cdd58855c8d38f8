//! The lease: keeps a peer present while its connections come and go.
//!
//! | state \ event | hello accepted | its connection closed | grace timer | `bye`, kick, ban | owner late |
//! |---|---|---|---|---|---|
//! | gone | → live: joined | – | – | – | – |
//! | live(conns) | one allowed: replace; many: add | last one: → grace | impossible | → gone: left | stays live |
//! | grace(until) | → live: reattached | not its connection | → gone: left | → gone: left | until anew |
//!
//! At exactly `until` the timer wins. Facts are returned; telling anybody is not done here.

use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{ConnId, Role};
use crate::limits::{CONNECTIONS_PER_PEER, GRACE_AFTER_START};
use crate::time::Mono;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    #[default]
    Gone,
    /// Oldest first, never empty.
    Live(Vec<ConnId>),
    Grace {
        since: Mono,
        until: Mono,
    },
}

/// What a hello did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Joined,
    /// From grace: it never left.
    Reattached,
    /// The older connection is to be closed `session_replaced`.
    Replaced {
        older: ConnId,
    },
    /// Beside the others.
    Added,
}

/// What a closed connection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It was replaced, or belongs to a lease that ended: changes nothing.
    NotOurs,
    StillLive,
    GraceBegun {
        until: Mono,
    },
}

/// One connection, or one for each program that shares the identity.
#[must_use]
pub fn connections_most(role: Role) -> usize {
    match role {
        Role::Session | Role::Service => 1,
        Role::ControlPlane => CONNECTIONS_PER_PEER,
    }
}

impl Lease {
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self, Self::Gone)
    }

    #[must_use]
    pub fn connections(&self) -> &[ConnId] {
        match self {
            Self::Live(conns) => conns,
            Self::Gone | Self::Grace { .. } => &[],
        }
    }

    /// `None`: as many connections as there may be.
    pub fn attach(&mut self, conn: ConnId, most: usize) -> Option<Attached> {
        match self {
            Self::Gone => {
                *self = Self::Live([conn].into());
                Some(Attached::Joined)
            }
            Self::Grace { .. } => {
                *self = Self::Live([conn].into());
                Some(Attached::Reattached)
            }
            Self::Live(conns) if most == 1 => {
                let older = core::mem::replace(&mut conns[0], conn);
                Some(Attached::Replaced { older })
            }
            Self::Live(conns) if conns.len() < most => {
                conns.push(conn);
                Some(Attached::Added)
            }
            Self::Live(_) => None,
        }
    }

    pub fn close(&mut self, conn: ConnId, now: Mono, grace: Duration) -> Closed {
        let Self::Live(conns) = self else {
            return Closed::NotOurs;
        };
        let Some(at) = conns.iter().position(|own| *own == conn) else {
            return Closed::NotOurs;
        };
        conns.remove(at);
        if !conns.is_empty() {
            return Closed::StillLive;
        }
        let until = now + grace;
        *self = Self::Grace { since: now, until };
        Closed::GraceBegun { until }
    }

    /// The grace timer. True if the peer left.
    pub fn expire(&mut self, now: Mono) -> bool {
        let Self::Grace { until, .. } = self else {
            return false;
        };
        if now < *until {
            return false;
        }
        *self = Self::Gone;
        true
    }

    /// `bye`, kick or ban: the connections that are to be closed, or `None` where it was gone.
    pub fn end(&mut self) -> Option<Vec<ConnId>> {
        match core::mem::take(self) {
            Self::Gone => None,
            Self::Live(conns) => Some(conns),
            Self::Grace { .. } => Some(Vec::new()),
        }
    }

    /// The owner started, or did not run for a while: that time counts against nobody.
    pub fn owner_resumed(&mut self, now: Mono, grace: Duration) -> Option<Mono> {
        let Self::Grace { until, .. } = self else {
            return None;
        };
        *until = now + grace.max(GRACE_AFTER_START);
        Some(*until)
    }

    /// A lease that an earlier owner left behind.
    #[must_use]
    pub fn recovered(now: Mono, grace: Duration) -> Self {
        Self::Grace {
            since: now,
            until: now + grace.max(GRACE_AFTER_START),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(90);

    #[test]
    fn the_newest_connection_wins_and_the_late_close_of_the_older_changes_nothing() {
        let mut lease = Lease::Gone;
        assert_eq!(lease.attach(ConnId(1), 1), Some(Attached::Joined));
        assert_eq!(
            lease.attach(ConnId(2), 1),
            Some(Attached::Replaced { older: ConnId(1) })
        );
        assert_eq!(lease.close(ConnId(1), Mono(5), GRACE), Closed::NotOurs);
        assert_eq!(lease.connections(), [ConnId(2)]);
    }

    #[test]
    fn at_exactly_until_the_timer_wins() {
        let mut lease = Lease::Live([ConnId(1)].into());
        let Closed::GraceBegun { until } = lease.close(ConnId(1), Mono(0), GRACE) else {
            panic!("its only connection closed");
        };
        assert!(!lease.expire(until - Duration::from_micros(1)));
        assert!(lease.expire(until));
        assert_eq!(lease, Lease::Gone);
        assert!(!lease.expire(until), "a peer leaves once");
    }

    #[test]
    fn a_grace_timer_that_fires_after_a_reattach_evicts_nobody() {
        let mut lease = Lease::Grace {
            since: Mono(0),
            until: Mono(10),
        };
        assert_eq!(lease.attach(ConnId(2), 1), Some(Attached::Reattached));
        assert!(!lease.expire(Mono(11)));
        assert_eq!(lease.connections(), [ConnId(2)]);
    }

    #[test]
    fn an_owner_that_did_not_run_gives_a_full_term() {
        let mut lease = Lease::Grace {
            since: Mono(0),
            until: Mono(10),
        };
        let now = Mono(50_000_000);
        assert_eq!(
            lease.owner_resumed(now, Duration::from_secs(2)),
            Some(now + GRACE_AFTER_START)
        );
        assert_eq!(
            Lease::Live([ConnId(1)].into()).owner_resumed(now, GRACE),
            None
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Attach,
        Close(u64),
        Expire(u64),
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Attach),
            (0u64..20).prop_map(Step::Close),
            (0u64..300_000_000).prop_map(Step::Expire),
            Just(Step::End),
        ]
    }

    proptest! {
        /// Joins and leaves alternate, and presence is exactly "joined more often than left".
        #[test]
        fn joins_and_leaves_alternate(steps in prop::collection::vec(step(), 0..64), most in 1usize..4) {
            let mut lease = Lease::Gone;
            let (mut joins, mut leaves, mut next_conn, mut now) = (0, 0, 0, Mono(0));
            for step in steps {
                match step {
                    Step::Attach => {
                        next_conn += 1;
                        joins += u32::from(lease.attach(ConnId(next_conn), most) == Some(Attached::Joined));
                    }
                    Step::Close(conn) => {
                        lease.close(ConnId(conn), now, GRACE);
                    }
                    Step::Expire(later) => {
                        now = now + Duration::from_micros(later);
                        leaves += u32::from(lease.expire(now));
                    }
                    Step::End => leaves += u32::from(lease.end().is_some()),
                }
                prop_assert_eq!(joins - leaves, u32::from(lease.is_present()));
                prop_assert!(lease.connections().len() <= most);
                prop_assert!(!matches!(&lease, Lease::Live(conns) if conns.is_empty()));
            }
        }
    }
}

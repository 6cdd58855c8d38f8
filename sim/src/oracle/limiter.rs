//! The limiter charges what is accepted, once, and nothing else. An id that was accepted is never
//! refused `rate_limited`, and a sender that is has had as many sends accepted as its burst, in the
//! time in which a spent burst is earned anew.
//!
//! An accept happened between its send and its commit: whatever may have fallen into that time
//! counts in the broker's favour.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_core::id::{ClientMessageId, PeerKey};
use bowline_core::store::mesh::Op;
use bowline_core::wire::{BrokerFrame, SendCode, decode_broker};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

/// Clocks run up to 1 % fast or slow, and timers late.
const SLACK_US: u64 = 1_000_000;

#[derive(Default)]
pub struct Limiter {
    sent: BTreeMap<(Arc<PeerKey>, String), Moment>,
    accepted: BTreeMap<PeerKey, BTreeMap<ClientMessageId, Moment>>,
    refused: Vec<(Arc<PeerKey>, Moment)>,
}

impl Oracle for Limiter {
    fn name(&self) -> &'static str {
        "limiter"
    }

    fn see(&mut self, at: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::PuppetSent { key, id, .. } => {
                let sent = (Arc::clone(key), id.clone());
                self.sent.entry(sent).or_insert(at);
            }
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::DedupePut(row) = op {
                        let of_sender = self.accepted.entry(row.sender.clone()).or_default();
                        of_sender.insert(row.client_message_id.clone(), at);
                    }
                }
            }
            Record::Sent { peer, frame, .. } if frame.starts_with(b"{\"type\":\"ack\"") => {
                if let Ok(BrokerFrame::Ack(ack)) = decode_broker(frame)
                    && ack.code.as_deref() == Some(SendCode::RateLimited.as_str())
                {
                    return self.refused(at, peer, ack.id.unwrap_or_default());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: Moment, view: &View) -> Result<(), String> {
        // Brokers that know other numbers are more generous.
        let (rate, burst) = (view.limits.sends_per_second, view.limits.sends_burst);
        let window_us = u64::from(burst) * 1_000_000 / u64::from(rate);
        let earned_anew_us = window_us + window_us / 50 + SLACK_US;
        for (peer, at) in self
            .refused
            .iter()
            .filter(|(peer, _)| is_puppet(view, peer))
        {
            let all = self.accepted.get(&**peer);
            let may_have_spent = all.into_iter().flatten().filter(|(id, committed)| {
                let sent = self.sent.get(&(Arc::clone(peer), id.to_string()));
                let began = sent.is_none_or(|sent| sent <= at);
                began && committed.plus_us(earned_anew_us) >= *at
            });
            let spent = may_have_spent.count();
            if spent < burst as usize {
                return Err(format!(
                    "{peer} is refused as too fast at {:.1} s, and {spent} of its sends were \
                     accepted in the time in which {burst} may be",
                    at.seconds()
                ));
            }
        }
        Ok(())
    }
}

impl Limiter {
    fn refused(&mut self, at: Moment, peer: &Arc<PeerKey>, id: String) -> Result<(), String> {
        let known = self.accepted.get(&**peer);
        if known.is_some_and(|known| known.contains_key(&ClientMessageId::from(id.clone()))) {
            return Err(format!(
                "{peer} is refused {id:?} as too fast, which was accepted"
            ));
        }
        self.refused.push((Arc::clone(peer), at));
        Ok(())
    }
}

/// Of others nobody records when they sent.
fn is_puppet(view: &View, peer: &PeerKey) -> bool {
    view.puppets().any(|puppet| *puppet.key == *peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::broker::Ack;

    fn too_fast(id: &str) -> Record {
        let ack = Ack {
            id: Some(id.into()),
            code: Some("rate_limited".into()),
            ..Ack::default()
        };
        testing::sent(1, 1, &BrokerFrame::Ack(Box::new(ack)))
    }

    #[test]
    fn a_refusal_of_what_was_accepted_is_found() {
        let accept = || testing::committed(testing::accept(1, 1, 2, "a"));
        let new = [(s(1), accept()), (s(2), too_fast("b"))];
        let known = [(s(1), accept()), (s(2), too_fast("a"))];
        assert!(testing::judge(&mut Limiter::default(), &new).is_ok());
        assert!(testing::judge(&mut Limiter::default(), &known).is_err());
    }

    #[test]
    fn a_refusal_of_one_who_spent_nothing_is_found() {
        let mut view = testing::view();
        let key = Arc::clone(&view.cast.puppets[0].key);
        view.limits.sends_burst = 2;
        view.limits.sends_per_second = 2;
        let judge = |accepted: usize| {
            let mut limiter = Limiter::default();
            let of_sender = limiter.accepted.entry((*key).clone()).or_default();
            for nth in 0..accepted {
                of_sender.insert(format!("p{nth}").into(), Moment(s(1)));
            }
            limiter.refused.push((Arc::clone(&key), Moment(s(1))));
            limiter.end(Moment(s(9)), &view)
        };
        assert!(judge(2).is_ok());
        assert!(judge(1).is_err());
    }
}

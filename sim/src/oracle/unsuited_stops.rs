//! A daemon does not go on with a broker that offers less than it needs: it stops, says so, and
//! leaves that broker alone for an hour, unless its user asks. What it keeps meanwhile arrives in
//! the end, or another oracle says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_core::id::PeerKey;
use bowline_core::link::Down;
use bowline_core::store::host::Op;
use bowline_core::wire::feature::Features;
use serde_json::Value;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::{Record, UserCall};

/// An hour by a clock that is a little fast.
const ALONE_FOR_US: u64 = 3_600_000_000 * 98 / 100;
/// Of an answer that was made before the daemon stopped.
const TOLD_WITHIN_US: u64 = 10_000_000;

#[derive(Default)]
pub struct UnsuitedStops {
    /// Since when, with which close.
    stopped: BTreeMap<(NodeId, Arc<PeerKey>), (Moment, u16)>,
}

impl Oracle for UnsuitedStops {
    fn name(&self) -> &'static str {
        "unsuited_stops"
    }

    fn see(&mut self, at: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::Up { node, key, ack, .. } if view.host_at(*node).is_some() => {
                let features = ack.features.as_ref();
                match falls_short(features, view.profile.ages.open) {
                    Some(of) => Err(format!(
                        "{key} went on with a broker whose {of} falls short"
                    )),
                    None => Ok(()),
                }
            }
            Record::Down {
                node, key, down, ..
            } if view.host_at(*node).is_some() => {
                let (Down::FeatureMismatch(close) | Down::Closed(close)) = down else {
                    return Ok(());
                };
                if (4010..=4012).contains(&close.code) {
                    let of = (*node, Arc::clone(key));
                    self.stopped.insert(of, (at, close.code));
                }
                Ok(())
            }
            Record::Dialled { node, key, .. } => {
                let of = (*node, Arc::clone(key));
                match self.stopped.remove(&of) {
                    Some((since, code)) if at.since_us(since) < ALONE_FOR_US => Err(format!(
                        "{key} was closed {code} at {:.1} s and dials again, unasked",
                        since.seconds()
                    )),
                    _ => Ok(()),
                }
            }
            Record::HostStarted { node } | Record::TriedAgain { node } => {
                self.forget(*node);
                Ok(())
            }
            // A session that is opened anew is to be connected anew.
            Record::HostCommitted { node, ops, .. }
                if ops.iter().any(|op| matches!(op, Op::SessionPut(_))) =>
            {
                self.forget(*node);
                Ok(())
            }
            Record::Answered {
                node,
                call: UserCall::Health,
                answer,
                ..
            } => self.told(at, *node, &answer.body),
            _ => Ok(()),
        }
    }
}

impl UnsuitedStops {
    fn forget(&mut self, node: NodeId) {
        self.stopped.retain(|(of, _), _| *of != node);
    }

    /// What `status` is made of.
    fn told(&self, at: Moment, node: NodeId, health: &Value) -> Result<(), String> {
        for ((of, key), (since, code)) in &self.stopped {
            if *of != node || at.since_us(*since) < TOLD_WITHIN_US {
                continue;
            }
            let uplinks = health["uplinks"].as_array().into_iter().flatten();
            let says_so = uplinks
                .filter(|uplink| uplink["state"] == "stopped" && uplink["next"].is_string())
                .filter(|uplink| uplink["mismatch"]["code"] == *code)
                .any(|uplink| {
                    let feature = uplink["mismatch"]["feature"].as_str().unwrap_or_default();
                    let reason = uplink["reason"].as_str().unwrap_or_default();
                    !feature.is_empty() && reason.contains(feature)
                });
            if !says_so {
                return Err(format!(
                    "{key} has stopped with {code}, and its status does not say what it lacks"
                ));
            }
        }
        Ok(())
    }
}

/// By hand: what judges must not be what is judged. The feature that does not do.
fn falls_short(features: Option<&Features>, open: bool) -> Option<&'static str> {
    let params = |name: &str| features.and_then(|features| features.0.get(name));
    let is = |name: &str, good: &dyn Fn(&Value) -> bool| {
        params(name).is_some_and(|params| params["version"] == 1 && good(params))
    };
    let dedupe = is("client_message_id_dedupe", &|dedupe| {
        let forms = dedupe["fingerprint"].as_array();
        let knows = |form: u64| forms.is_some_and(|forms| forms.contains(&form.into()));
        dedupe["dedupe_retention_days"].as_u64() >= Some(4)
            && dedupe["request_fingerprint"] == true
            && (knows(2) || open && knows(1))
    });
    let payload = is("max_payload", &|payload| {
        payload["inline_bytes"].as_u64() >= Some(1_024)
    });
    let sealing = is("sealing", &|sealing| {
        let suites = sealing["suites"].as_array();
        let policy = &sealing["policy"];
        suites.is_some_and(|suites| suites.contains(&"x1".into()))
            && (policy == "sealed" || open && policy == "open")
    });
    [
        (dedupe, "client_message_id_dedupe"),
        (payload, "max_payload"),
        (sealing, "sealing"),
    ]
    .into_iter()
    .find_map(|(good, name)| (!good).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::Offers;
    use crate::oracle::testing::{self, s};
    use crate::plan::Profile;
    use bowline_core::host::ipc::Answer;
    use bowline_core::limits::Limits;
    use bowline_core::wire::Close;
    use bowline_core::wire::broker::Resumed;
    use serde_json::json;

    const NODE: u8 = 2;

    fn view() -> View {
        View {
            profile: Profile::calm(1, 1, 2),
            ..testing::view()
        }
    }

    fn judge(history: &[(u64, Record)]) -> Result<(), String> {
        testing::judge_with(&mut UnsuitedStops::default(), &view(), history)
    }

    fn up(offers: Offers) -> Record {
        let mut record = testing::up(NODE, 1, 1, 0, Resumed::Fresh);
        if let Record::Up { ack, .. } = &mut record {
            let limits = Limits::default();
            let instead = offers.instead(&limits, false);
            ack.features = Some(Features::of_mesh(&limits, false).with(&instead));
        }
        record
    }

    fn stopped() -> Record {
        let mut record = testing::down(NODE, 1);
        if let Record::Down { down, .. } = &mut record {
            *down = Down::FeatureMismatch(Close::new(4010, "{}"));
        }
        record
    }

    fn dialled() -> Record {
        testing::dialled(NODE, 2, 1, 0)
    }

    #[test]
    fn whoever_goes_on_below_its_floors_is_found() {
        for offers in [Offers::All, Offers::NoFrills, Offers::MoreThanIsKnown] {
            assert_eq!(judge(&[(s(1), up(offers))]), Ok(()));
        }
        for offers in [
            Offers::Form1Only,
            Offers::NoSealing,
            Offers::NoDedupe,
            Offers::NoSuites,
            Offers::SealingIsAWord,
            Offers::DedupeOfTomorrow,
            Offers::InlineBytesBelow,
            Offers::OtherSuitesOnly,
            Offers::RetentionBelow,
        ] {
            assert!(judge(&[(s(1), up(offers))]).is_err(), "{offers:?}");
        }
    }

    #[test]
    fn whoever_dials_again_unasked_is_found() {
        let node = NODE.into();
        assert!(judge(&[(s(1), stopped()), (s(9), dialled())]).is_err());
        assert!(judge(&[(s(1), stopped()), (s(3_599), dialled())]).is_ok());
        let asked = (s(5), Record::TriedAgain { node });
        assert!(judge(&[(s(1), stopped()), asked, (s(9), dialled())]).is_ok());
        assert!(judge(&[(s(1), testing::down(NODE, 1)), (s(2), dialled())]).is_ok());
    }

    #[test]
    fn a_status_that_keeps_it_to_itself_is_found() {
        let told = |uplink: Value| {
            let answered = Record::Answered {
                node: NODE.into(),
                user: 0,
                call: UserCall::Health,
                answer: Answer {
                    status: 200,
                    body: json!({ "uplinks": [uplink] }),
                },
            };
            judge(&[(s(1), stopped()), (s(20), answered)])
        };
        let says = json!({
            "state": "stopped",
            "reason": "the broker does not offer `sealing`",
            "next": "do something",
            "mismatch": { "code": 4010, "feature": "sealing" },
        });
        assert!(told(says.clone()).is_ok());
        for (name, value) in [
            ("state", json!("waiting")),
            ("reason", json!("closed")),
            ("next", Value::Null),
            ("mismatch", Value::Null),
        ] {
            let mut says = says.clone();
            says[name] = value;
            assert!(told(says).is_err(), "{name}");
        }
    }
}

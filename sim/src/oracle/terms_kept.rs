//! Two sides go on in what both of them are: the lower of their versions, and of what the broker
//! has only what the client asked for. A client that insists on more than is offered is never let
//! in; and whoever breaks off says, in a reason that fits a close, what it misses.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_core::id::ConnId;
use bowline_core::link::{Down, VerifiedHello};
use bowline_core::wire::Close;
use bowline_core::wire::feature::{FEATURES1, RESUME1};
use serde_json::Value;

use super::{Oracle, View};
use crate::age::Requires;
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::plan::Spare;
use crate::record::Record;

#[derive(Default)]
pub struct TermsKept {
    hellos: BTreeMap<(NodeId, ConnId), Arc<VerifiedHello>>,
}

impl Oracle for TermsKept {
    fn name(&self) -> &'static str {
        "terms_kept"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::Attached {
                node, conn, hello, ..
            }
            | Record::QuietAttached {
                node, conn, hello, ..
            } => {
                self.hellos.insert((*node, *conn), Arc::clone(hello));
                Ok(())
            }
            Record::Detached { node, conn, .. } => {
                self.hellos.remove(&(*node, *conn));
                Ok(())
            }
            Record::Sent {
                node, conn, frame, ..
            } if frame.starts_with(b"{\"type\":\"hello_ack\"") => {
                let Some(hello) = self.hellos.get(&(*node, *conn)) else {
                    return Err("a hello_ack to a connection that is not attached".into());
                };
                let ack: Value = serde_json::from_slice(frame).map_err(|e| e.to_string())?;
                let highest = view.profile.ages.broker(*node).version().number();
                judge_ack(&ack, hello, highest)
            }
            Record::Down { key, down, .. } => match down {
                Down::Closed(close) | Down::FeatureMismatch(close) => {
                    judge_close(close, view).map_err(|what| format!("{key}: {what}"))
                }
                Down::DialFailed { .. } | Down::Refused { .. } => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn judge_ack(ack: &Value, hello: &VerifiedHello, highest: u32) -> Result<(), String> {
    let (key, offer) = (&hello.key, &hello.offer);
    let asked = offer.capabilities.has(FEATURES1);
    let expected = match asked {
        true => Some(u64::from(offer.protocol_version.unwrap_or(1).min(highest))),
        false => None,
    };
    let told = ack["protocolVersion"].as_u64();
    if told != expected || told == Some(0) {
        return Err(format!(
            "{key} said version {:?} to a broker of version {highest}, and was told {told:?}",
            offer.protocol_version
        ));
    }
    if ack.get("features").is_some() != asked {
        return Err(format!("features are told to {key}, or not, unasked"));
    }
    if ack.get("stream").is_some() && !offer.capabilities.has(RESUME1) {
        return Err(format!("a stream is told to {key}, unasked"));
    }
    // A plain client is told no features, and has none to insist on.
    for (name, floors) in offer.require.0.iter().filter(|_| asked) {
        let offered = &ack["features"][name];
        if !reaches(offered, floors) {
            return Err(format!(
                "{key} insists on {name} {floors}, was offered {offered}, and was let in"
            ));
        }
    }
    Ok(())
}

/// By hand: what judges must not be what is judged.
fn reaches(offered: &Value, floors: &Value) -> bool {
    let Some(floors) = floors.as_object() else {
        return false;
    };
    offered.is_object()
        && floors.iter().all(|(param, floor)| match &offered[param] {
            value if param == "version" => value == floor,
            Value::Number(value) => value.as_u64() >= floor.as_u64() && floor.is_u64(),
            Value::Array(values) => floor
                .as_array()
                .is_some_and(|all| all.iter().all(|one| values.contains(one))),
            value => !value.is_null() && value == floor,
        })
}

/// Of a close that says that the two cannot go on.
fn judge_close(close: &Close, view: &View) -> Result<(), String> {
    let kind = match close.code {
        4010 => "feature_unavailable",
        4011 => "feature_param_invalid",
        4012 => "feature_param_below_floor",
        _ => return Ok(()),
    };
    let reason: Value = serde_json::from_str(&close.reason)
        .map_err(|_| format!("closed {} without a reason: {:?}", close.code, close.reason))?;
    if reason["kind"] != kind || !reason["detail"].is_string() || close.reason.len() > 123 {
        return Err(format!("closed {} because {}", close.code, close.reason));
    }
    let feature = reason["feature"].as_str().unwrap_or_default();
    if expected(view).contains(&(close.code, feature)) {
        return Ok(());
    }
    Err(format!(
        "closed {} for {feature:?}, which nobody lacks",
        close.code
    ))
}

/// Whatever somebody in this run may break off for.
fn expected(view: &View) -> Vec<(u16, &'static str)> {
    let ages = &view.profile.ages;
    let mut all: Vec<_> = (0..2)
        .filter_map(|node| ages.broker(node).offers.refused_with(ages.open))
        .collect();
    if view.profile.spare == Spare::BelowTheFloors {
        all.push((4012, "max_payload"));
    }
    for age in ages.hosts.iter().chain(&ages.puppets) {
        if let Some(code) = age.requires.refused_with() {
            let feature = match age.requires {
                Requires::AFeatureOfTomorrow => "telekinesis",
                _ => "max_payload",
            };
            all.push((code, feature));
        }
        if age.requires == Requires::WhatThereIs || age.misspeaks {
            all.push((4012, "protocol_version"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::feature::{Capabilities, Require};
    use serde_json::json;

    /// What a client said, and what it was told.
    fn judge(change: impl FnOnce(&mut VerifiedHello), ack: &Value) -> Result<(), String> {
        let Record::Attached {
            node,
            conn,
            peer,
            hello,
        } = testing::attached(1, 1)
        else {
            unreachable!("it makes one");
        };
        let mut hello = (*hello).clone();
        hello.offer.protocol_version = Some(2);
        change(&mut hello);
        let hello = Arc::new(hello);
        let attached = Record::Attached {
            node,
            conn,
            peer,
            hello,
        };
        let frame = ack.to_string().replacen('{', "{\"type\":\"hello_ack\",", 1);
        let Record::Sent { peer, .. } = testing::sent(1, 1, &testing::ack_frame("a", None)) else {
            unreachable!("it makes one");
        };
        let sent = Record::Sent {
            node,
            conn,
            peer,
            frame: frame.into(),
            queued_bytes: 0,
        };
        let history = [(s(1), attached), (s(2), sent)];
        testing::judge(&mut TermsKept::default(), &history)
    }

    fn ack() -> Value {
        json!({ "protocolVersion": 1, "features": { "max_payload": { "version": 1, "inline_bytes": 9 } } })
    }

    fn requires(floors: Value) -> impl FnOnce(&mut VerifiedHello) {
        move |hello| hello.offer.require = Require([("max_payload".into(), floors)].into())
    }

    #[test]
    fn the_higher_version_is_found() {
        let with = |version: Value| {
            let mut ack = ack();
            ack["protocolVersion"] = version;
            judge(|_| {}, &ack)
        };
        assert!(with(json!(1)).is_ok());
        assert!(with(json!(2)).is_err());
        assert!(with(json!(0)).is_err());
        assert!(with(Value::Null).is_err());
    }

    #[test]
    fn what_a_plain_client_did_not_ask_for_is_found() {
        let plain = |hello: &mut VerifiedHello| hello.offer.capabilities = Capabilities::default();
        assert!(judge(plain, &json!({ "presenceId": "p" })).is_ok());
        assert!(judge(plain, &ack()).is_err());
        assert!(judge(plain, &json!({ "presenceId": "p", "stream": {} })).is_err());
    }

    #[test]
    fn one_that_is_let_in_below_its_floor_is_found() {
        assert!(judge(requires(json!({ "version": 1, "inline_bytes": 9 })), &ack()).is_ok());
        for floors in [
            json!({ "version": 2 }),
            json!({ "inline_bytes": 10 }),
            json!({ "colours": 1 }),
            json!(7),
        ] {
            assert!(judge(requires(floors), &ack()).is_err());
        }
    }

    #[test]
    fn a_close_for_what_nobody_lacks_or_without_words_is_found() {
        let mut view = testing::view();
        view.profile.spare = Spare::BelowTheFloors;
        let judge = |code: u16, reason: &str| {
            let Record::Down {
                node, conn, key, ..
            } = testing::down(1, 1)
            else {
                unreachable!("it makes one");
            };
            let down = Down::FeatureMismatch(Close::new(code, reason));
            let record = Record::Down {
                node,
                conn,
                key,
                down,
            };
            testing::judge_with(&mut TermsKept::default(), &view, &[(s(1), record)])
        };
        let reason = |kind: &str, feature: &str| {
            json!({ "kind": kind, "feature": feature, "detail": "d" }).to_string()
        };
        let below = "feature_param_below_floor";
        assert!(judge(4012, &reason(below, "max_payload")).is_ok());
        assert!(judge(4012, &reason(below, "sealing")).is_err());
        assert!(judge(4010, &reason(below, "max_payload")).is_err());
        assert!(judge(4012, "below").is_err());
        assert!(judge(1000, "below").is_ok());
    }
}

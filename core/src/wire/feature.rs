//! What a hello negotiates: capabilities (the client's), features (the broker's), requirements.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Close;
use crate::limits::Limits;

pub const FEATURES1: &str = "features1";
pub const RESUME1: &str = "resume1";
pub const LIVE1: &str = "live1";
pub const ATTEST1: &str = "attest1";
pub const RECEIPTS1: &str = "receipts1";
pub const QUIET1: &str = "quiet1";
pub const SEAL_X1: &str = "seal-x1";
pub const SEAL_BOX: &str = "seal-box";

/// The highest protocol version spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a client can do. A client that did not ask for something never sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub Vec<String>);

impl Capabilities {
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    /// What our own clients offer.
    #[must_use]
    pub fn ours() -> Self {
        Self(
            [
                FEATURES1, RESUME1, LIVE1, ATTEST1, QUIET1, RECEIPTS1, SEAL_X1, SEAL_BOX,
            ]
            .map(String::from)
            .to_vec(),
        )
    }
}

/// What a broker can do: a name to its parameters, each with its own `version`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(pub BTreeMap<String, Map<String, Value>>);

/// What a client insists on: a name to `version` and floors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Require(pub BTreeMap<String, Map<String, Value>>);

impl Require {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names of features, and what each means here.
pub const DEDUPE: &str = "client_message_id_dedupe";
pub const MAX_PAYLOAD: &str = "max_payload";
pub const RESUME: &str = "resume";
pub const SEALING: &str = "sealing";
pub const RECEIPTS: &str = "receipts";

/// Below this no daemon could keep a row until its peer is back from a long weekend.
pub const DEDUPE_RETENTION_DAYS_LEAST: u32 = 4;
/// Below this no sealed message of any use fits.
pub const INLINE_BYTES_LEAST: usize = 1_024;

impl Features {
    /// What a mesh of this broker offers.
    #[must_use]
    pub fn of_mesh(limits: &Limits, open: bool) -> Self {
        Self(named([
            (
                DEDUPE,
                json!({
                    "version": 1,
                    "mode": "retention_scoped",
                    "dedupe_retention_days": limits.dedupe_retention_days,
                    "request_fingerprint": true,
                    "fingerprint": [1, 2],
                }),
            ),
            (
                MAX_PAYLOAD,
                json!({ "version": 1, "inline_bytes": limits.inline_bytes }),
            ),
            (
                RESUME,
                json!({ "version": 1, "ring_events": limits.ring_events }),
            ),
            (
                SEALING,
                json!({
                    "version": 1,
                    "policy": if open { "open" } else { "sealed" },
                    "suites": ["x1", "box"],
                }),
            ),
            (RECEIPTS, json!({ "version": 1 })),
        ]))
    }

    /// A number that a feature says.
    #[must_use]
    pub fn number(&self, feature: &str, param: &str) -> Option<u64> {
        self.0.get(feature)?.get(param)?.as_u64()
    }

    /// A word that a feature says.
    #[must_use]
    pub fn text(&self, feature: &str, param: &str) -> Option<&str> {
        self.0.get(feature)?.get(param)?.as_str()
    }

    /// What a daemon cannot do without, checked on a broker's offer.
    pub fn suit_daemon(&self) -> Result<(), FeatureMismatch> {
        Require::ours().check(self)?;
        match self.text(SEALING, "policy") {
            Some("sealed" | "open") => Ok(()),
            _ => Err(FeatureMismatch::new(
                FeatureKind::ParamInvalid,
                SEALING,
                "policy".into(),
            )),
        }
    }
}

impl Require {
    /// The floors of a daemon.
    #[must_use]
    pub fn ours() -> Self {
        Self(named([
            (
                DEDUPE,
                json!({
                    "version": 1,
                    "dedupe_retention_days": DEDUPE_RETENTION_DAYS_LEAST,
                    "request_fingerprint": true,
                    "fingerprint": [2],
                }),
            ),
            (
                MAX_PAYLOAD,
                json!({ "version": 1, "inline_bytes": INLINE_BYTES_LEAST }),
            ),
            (SEALING, json!({ "version": 1, "suites": ["x1"] })),
        ]))
    }

    /// Whether `features` reach these floors: a number at least as high, a list that holds all, a
    /// word or a flag the same. The first that does not, in order of names.
    pub fn check(&self, features: &Features) -> Result<(), FeatureMismatch> {
        for (feature, floors) in &self.0 {
            let Some(offered) = features.0.get(feature) else {
                return Err(FeatureMismatch::new(
                    FeatureKind::Unavailable,
                    feature,
                    String::new(),
                ));
            };
            for (param, floor) in floors {
                let reached = match offered.get(param) {
                    Some(value) => reaches(value, floor),
                    None => None,
                };
                match reached {
                    Some(true) => {}
                    Some(false) => {
                        return Err(FeatureMismatch::new(
                            FeatureKind::ParamBelowFloor,
                            feature,
                            format!("{param} {floor}"),
                        ));
                    }
                    None => {
                        return Err(FeatureMismatch::new(
                            FeatureKind::ParamInvalid,
                            feature,
                            param.clone(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What one side cannot go on without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {feature} {detail}", kind.as_str())]
pub struct FeatureMismatch {
    pub kind: FeatureKind,
    pub feature: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    Unavailable,
    /// A parameter that the other side does not have, or of another type.
    ParamInvalid,
    ParamBelowFloor,
}

impl FeatureKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "feature_unavailable",
            Self::ParamInvalid => "feature_param_invalid",
            Self::ParamBelowFloor => "feature_param_below_floor",
        }
    }

    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Unavailable => Close::FEATURE_UNAVAILABLE,
            Self::ParamInvalid => Close::FEATURE_PARAM_INVALID,
            Self::ParamBelowFloor => Close::FEATURE_PARAM_BELOW_FLOOR,
        }
    }
}

impl FeatureMismatch {
    fn new(kind: FeatureKind, feature: &str, detail: String) -> Self {
        Self {
            kind,
            feature: feature.into(),
            detail,
        }
    }

    /// Its reason is JSON; `detail` (and a name that is none of ours) is cut until it fits.
    #[must_use]
    pub fn close(&self) -> Close {
        let mut feature = self.feature.clone();
        let mut detail = self.detail.clone();
        // A character of either may be longer once escaped, so it is measured and not reckoned.
        loop {
            let reason =
                json!({ "kind": self.kind.as_str(), "feature": feature, "detail": detail })
                    .to_string();
            if reason.len() <= Close::REASON_BYTES {
                return Close::new(self.kind.close_code(), &reason);
            }
            if detail.pop().is_none() {
                feature.pop();
            }
        }
    }
}

/// `None` where the two are not of one type.
fn reaches(value: &Value, floor: &Value) -> Option<bool> {
    match (value, floor) {
        (Value::Number(value), Value::Number(floor)) => Some(value.as_u64()? >= floor.as_u64()?),
        (Value::Array(values), Value::Array(floors)) => {
            Some(floors.iter().all(|floor| values.contains(floor)))
        }
        (Value::String(value), Value::String(floor)) => Some(value == floor),
        (Value::Bool(value), Value::Bool(floor)) => Some(*value || !floor),
        _ => None,
    }
}

fn named<const N: usize>(features: [(&str, Value); N]) -> BTreeMap<String, Map<String, Value>> {
    features
        .into_iter()
        .filter_map(|(name, params)| match params {
            Value::Object(params) => Some((name.into(), params)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn require(json: Value) -> Require {
        serde_json::from_value(json).unwrap()
    }

    fn kind_of(json: Value) -> Option<(FeatureKind, u16)> {
        let features = Features::of_mesh(&Limits::default(), false);
        let mismatch = require(json).check(&features).err()?;
        Some((mismatch.kind, mismatch.close().code))
    }

    #[test]
    fn what_a_broker_offers_suits_a_daemon() {
        for open in [true, false] {
            let offered = Features::of_mesh(&Limits::default(), open);
            assert_eq!(offered.suit_daemon(), Ok(()));
            // As it arrives: from JSON.
            let json = serde_json::to_string(&offered).unwrap();
            let read: Features = serde_json::from_str(&json).unwrap();
            assert_eq!(read, offered);
        }
    }

    #[test]
    fn each_shortfall_has_its_close() {
        use FeatureKind::*;
        let none = |kind: FeatureKind, code| Some((kind, code));
        assert_eq!(kind_of(json!({})), None);
        assert_eq!(kind_of(json!({"max_payload": {}})), None);
        assert_eq!(
            kind_of(json!({"telepathy": {"version": 1}})),
            none(Unavailable, 4010)
        );
        assert_eq!(
            kind_of(json!({"max_payload": {"shape": 1}})),
            none(ParamInvalid, 4011)
        );
        assert_eq!(
            kind_of(json!({"max_payload": {"inline_bytes": "many"}})),
            none(ParamInvalid, 4011)
        );
        assert_eq!(
            kind_of(json!({"max_payload": {"inline_bytes": 1_000_000}})),
            none(ParamBelowFloor, 4012)
        );
        assert_eq!(
            kind_of(json!({"max_payload": {"version": 2}})),
            none(ParamBelowFloor, 4012)
        );
        assert_eq!(
            kind_of(json!({"sealing": {"policy": "open"}})),
            none(ParamBelowFloor, 4012)
        );
        assert_eq!(
            kind_of(json!({"sealing": {"suites": ["m1"]}})),
            none(ParamBelowFloor, 4012)
        );
    }

    #[test]
    fn a_broker_that_falls_short_of_a_daemons_floors_is_refused() {
        let without = |name: &str| {
            let mut features = Features::of_mesh(&Limits::default(), false);
            features.0.remove(name);
            features.suit_daemon().map_err(|mismatch| mismatch.kind)
        };
        for name in [DEDUPE, MAX_PAYLOAD, SEALING] {
            assert_eq!(without(name), Err(FeatureKind::Unavailable));
        }
        assert_eq!(without(RESUME), Ok(()), "a daemon takes snapshots instead");

        let with = |name: &str, param: &str, value: Value| {
            let mut features = Features::of_mesh(&Limits::default(), false);
            features
                .0
                .get_mut(name)
                .unwrap()
                .insert(param.into(), value);
            features.suit_daemon().map_err(|mismatch| mismatch.kind)
        };
        assert_eq!(
            with(DEDUPE, "dedupe_retention_days", json!(3)),
            Err(FeatureKind::ParamBelowFloor)
        );
        assert_eq!(
            with(DEDUPE, "fingerprint", json!([1])),
            Err(FeatureKind::ParamBelowFloor)
        );
        assert_eq!(
            with(SEALING, "policy", json!("secret")),
            Err(FeatureKind::ParamInvalid)
        );
    }

    proptest! {
        #[test]
        fn the_reason_of_a_close_is_json_that_fits(feature in ".{0,200}", detail in ".{0,200}") {
            let close = FeatureMismatch::new(FeatureKind::ParamBelowFloor, &feature, detail).close();
            prop_assert!(close.reason.len() <= Close::REASON_BYTES);
            let reason: Value = serde_json::from_str(&close.reason).unwrap();
            prop_assert_eq!(&reason["kind"], "feature_param_below_floor");
            prop_assert!(feature.starts_with(reason["feature"].as_str().unwrap()));
        }
    }
}

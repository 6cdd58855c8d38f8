//! What a hello negotiates: capabilities (the client's), features (the broker's), requirements.
//!
//! | | says | judged by | who cannot go on closes |
//! |---|---|---|---|
//! | features | the broker, in `hello_ack` | the daemon, by [`Features::suit_daemon`] | the daemon |
//! | `require` | the client, in its hello | the broker, by [`Require::check`] | the broker |
//!
//! **A version that the reader does not know is not a high number, it is another language**: it
//! never reaches a floor. Parameters can be added to a feature without a new version; those that
//! nobody asks about are ignored.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Close;
use super::version::ProtocolVersion;
use crate::crypto::fingerprint::Form;
use crate::limits::Limits;

pub const FEATURES1: &str = "features1";
pub const RESUME1: &str = "resume1";
pub const LIVE1: &str = "live1";
pub const ATTEST1: &str = "attest1";
pub const RECEIPTS1: &str = "receipts1";
pub const QUIET1: &str = "quiet1";
pub const SEAL_X1: &str = "seal-x1";
pub const SEAL_BOX: &str = "seal-box";

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

/// What one side says of itself when it connects, and insists on. Given at construction, so that
/// sides of different ages can be put together.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The highest that it speaks.
    pub version: ProtocolVersion,
    pub capabilities: Capabilities,
    /// For the broker to judge. What a daemon cannot do without it judges itself.
    pub require: Require,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            version: ProtocolVersion::SPOKEN,
            capabilities: Capabilities::ours(),
            require: Require::default(),
        }
    }
}

/// What a broker can do: a name to its parameters, each with its own `version`. What is no object is
/// malformed, and only whoever needs that feature minds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(pub BTreeMap<String, Value>);

/// What a client insists on: a name to `version` and floors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Require(pub BTreeMap<String, Value>);

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

/// The forms of fingerprint that a broker compares, in [`DEDUPE`].
const FINGERPRINT: &str = "fingerprint";
const VERSION: &str = "version";
const POLICY: &str = "policy";

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

    /// The same with other parameters for the features that `instead` names; `null` offers none.
    #[must_use]
    pub fn with(mut self, instead: &Self) -> Self {
        for (name, params) in &instead.0 {
            if params.is_null() {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), params.clone());
            }
        }
        self
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

    /// `sealed` or `open`, as the broker has it.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.text(SEALING, POLICY)
            .filter(|policy| matches!(*policy, "sealed" | "open"))
    }

    /// What a daemon cannot do without, checked on a broker's offer. `sealed`: it knows that the
    /// mesh is, and believes nobody who says otherwise.
    pub fn suit_daemon(&self, sealed: bool) -> Result<(), FeatureMismatch> {
        Require::ours().check(self)?;
        let policy = self.policy().filter(|told| !sealed || *told == "sealed");
        let Some(policy) = policy else {
            return Err(FeatureMismatch::new(
                FeatureKind::ParamInvalid,
                SEALING,
                POLICY.into(),
            ));
        };
        self.suitable_form(policy == "sealed").map(|_| ())
    }

    /// How a fingerprint is said to this broker, which suits. Form 2 wherever it is known: form 1 is
    /// a dictionary of short bodies to whoever reads it.
    #[must_use]
    pub fn fingerprint_form(&self) -> Form {
        if self.knows(Form::Two) {
            Form::Two
        } else {
            Form::One
        }
    }

    /// Privacy before reach: in a sealed mesh there is form 2 or nothing.
    fn suitable_form(&self, sealed: bool) -> Result<Form, FeatureMismatch> {
        let forms = self
            .0
            .get(DEDUPE)
            .and_then(|params| params.get(FINGERPRINT));
        if !forms.is_some_and(Value::is_array) {
            return Err(FeatureMismatch::new(
                FeatureKind::ParamInvalid,
                DEDUPE,
                FINGERPRINT.into(),
            ));
        }
        let form = self.fingerprint_form();
        if !self.knows(form) {
            let detail = format!("{FINGERPRINT} [1] or [2]");
            return Err(FeatureMismatch::new(
                FeatureKind::ParamBelowFloor,
                DEDUPE,
                detail,
            ));
        }
        if sealed && form == Form::One {
            let detail = format!("{FINGERPRINT} [2], in a sealed mesh");
            return Err(FeatureMismatch::new(
                FeatureKind::Unavailable,
                DEDUPE,
                detail,
            ));
        }
        Ok(form)
    }

    fn knows(&self, form: Form) -> bool {
        let forms = self
            .0
            .get(DEDUPE)
            .and_then(|params| params.get(FINGERPRINT));
        forms
            .and_then(Value::as_array)
            .is_some_and(|forms| forms.contains(&json!(form.number())))
    }
}

impl Require {
    /// The floors of a daemon. The form of fingerprints depends on the mesh's policy:
    /// [`Features::suit_daemon`].
    #[must_use]
    pub fn ours() -> Self {
        Self(named([
            (
                DEDUPE,
                json!({
                    "version": 1,
                    "dedupe_retention_days": DEDUPE_RETENTION_DAYS_LEAST,
                    "request_fingerprint": true,
                }),
            ),
            (
                MAX_PAYLOAD,
                json!({ "version": 1, "inline_bytes": INLINE_BYTES_LEAST }),
            ),
            (SEALING, json!({ "version": 1, "suites": ["x1"] })),
        ]))
    }

    /// Whether `features` reach these floors: the same version, a number at least as high, a list
    /// that holds all, a word or a flag the same. The first that does not, in order of names, its
    /// version before its other parameters.
    pub fn check(&self, features: &Features) -> Result<(), FeatureMismatch> {
        self.0
            .iter()
            .try_for_each(|(feature, floors)| check(feature, floors, features.0.get(feature)))
    }
}

fn check(feature: &str, floors: &Value, offered: Option<&Value>) -> Result<(), FeatureMismatch> {
    let Some(offered) = offered else {
        return Err(FeatureMismatch::new(
            FeatureKind::Unavailable,
            feature,
            String::new(),
        ));
    };
    let invalid = |detail: String| {
        Err(FeatureMismatch::new(
            FeatureKind::ParamInvalid,
            feature,
            detail,
        ))
    };
    let (Some(offered), Some(floors)) = (offered.as_object(), floors.as_object()) else {
        return invalid(String::from("not an object"));
    };
    if let Some(version) = floors.get(VERSION)
        && (offered.get(VERSION) != Some(version) || !version.is_u64())
    {
        return invalid(format!("{VERSION} {version}"));
    }
    for (param, floor) in floors.iter().filter(|(param, _)| *param != VERSION) {
        match offered.get(param).and_then(|value| reaches(value, floor)) {
            Some(true) => {}
            Some(false) => {
                return Err(FeatureMismatch::new(
                    FeatureKind::ParamBelowFloor,
                    feature,
                    format!("{param} {floor}"),
                ));
            }
            None => return invalid(param.clone()),
        }
    }
    Ok(())
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
    /// A parameter that the other side does not have, or of another type; a version that it does
    /// not know.
    ParamInvalid,
    ParamBelowFloor,
}

impl FeatureKind {
    pub const ALL: [Self; 3] = [Self::Unavailable, Self::ParamInvalid, Self::ParamBelowFloor];

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
    pub(super) fn new(kind: FeatureKind, feature: &str, detail: String) -> Self {
        Self {
            kind,
            feature: feature.into(),
            detail,
        }
    }

    /// A `hello_ack` that cannot be read: what its broker offers is anybody's guess.
    #[must_use]
    pub fn unreadable_answer(detail: &str) -> Self {
        Self::new(FeatureKind::ParamInvalid, "hello_ack", detail.into())
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

    /// What a close 4010 to 4012 says, whoever said it. One of another make may give its reason in
    /// words, or none.
    #[must_use]
    pub fn of_close(close: &Close) -> Option<Self> {
        let kind = FeatureKind::ALL
            .into_iter()
            .find(|kind| kind.close_code() == close.code)?;
        let reason: Value = serde_json::from_str(&close.reason).unwrap_or(Value::Null);
        let text = |name: &str| reason.get(name).and_then(Value::as_str).map(String::from);
        Some(Self {
            kind,
            feature: text("feature").unwrap_or_default(),
            detail: text("detail").unwrap_or_else(|| close.reason.clone()),
        })
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

fn named<const N: usize>(features: [(&str, Value); N]) -> BTreeMap<String, Value> {
    features.map(|(name, params)| (name.into(), params)).into()
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
            assert_eq!(offered.suit_daemon(false), Ok(()));
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
            none(ParamInvalid, 4011)
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
            features
                .suit_daemon(false)
                .map_err(|mismatch| mismatch.kind)
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
                .as_object_mut()
                .unwrap()
                .insert(param.into(), value);
            features
                .suit_daemon(false)
                .map_err(|mismatch| mismatch.kind)
        };
        assert_eq!(
            with(DEDUPE, "dedupe_retention_days", json!(3)),
            Err(FeatureKind::ParamBelowFloor)
        );
        assert_eq!(
            with(DEDUPE, "fingerprint", json!([3])),
            Err(FeatureKind::ParamBelowFloor)
        );
        assert_eq!(
            with(SEALING, "policy", json!("secret")),
            Err(FeatureKind::ParamInvalid)
        );
    }

    /// A version is no number that could be high enough.
    #[test]
    fn a_version_is_known_or_it_is_not() {
        use FeatureKind::ParamInvalid;
        let required = |version: Value| {
            kind_of(json!({"max_payload": {"version": version, "inline_bytes": 1}}))
        };
        assert_eq!(required(json!(1)), None);
        for unknown in [json!(0), json!(2), json!(1.0), json!("1"), json!(null)] {
            assert_eq!(required(unknown), Some((ParamInvalid, 4011)));
        }
        for unknown in [json!(0), json!(2), json!("1"), json!([1])] {
            for name in [DEDUPE, MAX_PAYLOAD, SEALING] {
                assert_eq!(
                    offering(name, "version", unknown.clone()).suit_daemon(true),
                    Err(FeatureMismatch::new(ParamInvalid, name, "version 1".into()))
                );
            }
        }
    }

    #[test]
    fn what_is_no_object_is_malformed_for_whoever_needs_it() {
        let features = |name: &str, params: Value| {
            let instead = Features([(name.into(), params)].into());
            Features::of_mesh(&Limits::default(), false).with(&instead)
        };
        for params in [json!(7), json!("x1"), json!([]), json!(true)] {
            let refused = features(SEALING, params.clone()).suit_daemon(true);
            assert_eq!(refused.unwrap_err().kind, FeatureKind::ParamInvalid);
            assert_eq!(features(RESUME, params.clone()).suit_daemon(true), Ok(()));
            let required = require(json!({ "sealing": params }));
            let refused = required.check(&Features::of_mesh(&Limits::default(), false));
            assert_eq!(refused.unwrap_err().kind, FeatureKind::ParamInvalid);
        }
        let without = features(SEALING, Value::Null).suit_daemon(true);
        assert_eq!(without.unwrap_err().kind, FeatureKind::Unavailable);
    }

    #[test]
    fn a_floor_is_reached_by_what_stands_on_it() {
        let days = |days: u32| offering(DEDUPE, "dedupe_retention_days", json!(days));
        let bytes = |bytes: usize| offering(MAX_PAYLOAD, "inline_bytes", json!(bytes));
        let code = |features: Features| {
            let refused = features.suit_daemon(true).err();
            refused.map(|mismatch| mismatch.close().code)
        };
        assert_eq!(code(days(DEDUPE_RETENTION_DAYS_LEAST)), None);
        assert_eq!(code(days(DEDUPE_RETENTION_DAYS_LEAST - 1)), Some(4012));
        assert_eq!(code(bytes(INLINE_BYTES_LEAST)), None);
        assert_eq!(code(bytes(INLINE_BYTES_LEAST - 1)), Some(4012));
        for malformed in [json!(-1), json!(1e300), json!(4096.5), json!("4096")] {
            let offered = offering(MAX_PAYLOAD, "inline_bytes", malformed);
            assert_eq!(code(offered), Some(4011));
        }
    }

    #[test]
    fn form_1_is_for_open_meshes_of_brokers_that_know_no_other() {
        let knows = |forms: Value, open: bool| {
            let mut features = offering(DEDUPE, "fingerprint", forms);
            features.0.get_mut(SEALING).unwrap()["policy"] =
                json!(if open { "open" } else { "sealed" });
            features
        };
        let suits = |forms: Value, open: bool| {
            let features = knows(forms, open);
            let form = features.fingerprint_form();
            features
                .suit_daemon(!open)
                .map(|()| form)
                .map_err(|mismatch| mismatch.close().code)
        };
        for open in [false, true] {
            assert_eq!(suits(json!([1, 2]), open), Ok(Form::Two));
            assert_eq!(suits(json!([2]), open), Ok(Form::Two));
            assert_eq!(suits(json!([2, 3]), open), Ok(Form::Two));
            assert_eq!(suits(json!([]), open), Err(4012));
            assert_eq!(suits(json!([3]), open), Err(4012));
            for malformed in [json!(2), json!("2"), json!({"2": true}), Value::Null] {
                assert_eq!(suits(malformed, open), Err(4011));
            }
        }
        assert_eq!(suits(json!([1]), true), Ok(Form::One));
        assert_eq!(suits(json!([1]), false), Err(4010));
        // Who calls a sealed mesh open wants to read what it may not.
        let refused = knows(json!([1]), true).suit_daemon(true).unwrap_err();
        assert_eq!(
            (refused.kind, &*refused.feature),
            (FeatureKind::ParamInvalid, SEALING)
        );
    }

    #[test]
    fn a_close_says_again_what_it_was_made_of() {
        for kind in FeatureKind::ALL {
            let mismatch = FeatureMismatch::new(kind, SEALING, "suites [\"x1\"]".into());
            assert_eq!(FeatureMismatch::of_close(&mismatch.close()), Some(mismatch));
        }
        let words = Close::new(4010, "no such feature");
        let read = FeatureMismatch::of_close(&words).unwrap();
        assert_eq!((&*read.feature, &*read.detail), ("", "no such feature"));
        assert_eq!(FeatureMismatch::of_close(&Close::slow_consumer()), None);
    }

    /// What a broker of ours offers, but for this.
    fn offering(name: &str, param: &str, value: Value) -> Features {
        let mut features = Features::of_mesh(&Limits::default(), false);
        features.0.get_mut(name).unwrap()[param] = value;
        features
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

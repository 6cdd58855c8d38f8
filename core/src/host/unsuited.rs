//! A broker and this daemon that cannot go on with one another: what is said of it, and what helps.

use alloc::format;
use alloc::string::String;

use serde_json::{Value, json};

use crate::link::Down;
use crate::wire::Close;
use crate::wire::feature::{FeatureKind, FeatureMismatch};
use crate::wire::version::PROTOCOL_VERSION;

/// Why an uplink stopped that could not agree with its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsuited {
    code: u16,
    mismatch: FeatureMismatch,
    by: By,
}

/// Who could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Daemon,
    Broker,
}

impl Unsuited {
    pub(super) fn of(down: &Down) -> Option<Self> {
        let (close, by): (&Close, By) = match down {
            Down::FeatureMismatch(close) => (close, By::Daemon),
            Down::Closed(close) => (close, By::Broker),
            Down::DialFailed { .. } | Down::Refused { .. } => return None,
        };
        Some(Self {
            code: close.code,
            mismatch: FeatureMismatch::of_close(close)?,
            by,
        })
    }

    /// In words, with the feature's name.
    pub(super) fn reason(&self) -> String {
        let FeatureMismatch {
            kind,
            feature,
            detail,
        } = &self.mismatch;
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!(" ({detail})")
        };
        let who = match self.by {
            By::Daemon => "the broker",
            By::Broker => "by its own word the broker",
        };
        let falls_short = match kind {
            FeatureKind::Unavailable => {
                format!("{who} does not offer `{feature}`{detail}, which this daemon needs")
            }
            FeatureKind::ParamInvalid => {
                format!("{who} has another `{feature}`{detail} than this daemon knows")
            }
            FeatureKind::ParamBelowFloor => {
                format!("{who} offers less of `{feature}`{detail} than this daemon needs")
            }
        };
        format!("{} {}: {falls_short}", self.code, kind.as_str())
    }

    /// What to do about it.
    pub(super) fn next(&self) -> &'static str {
        if self.mismatch.feature == PROTOCOL_VERSION {
            return "update the older of daemon and broker, then `bowline up`; nothing is lost \
                    meanwhile, and it is tried again every hour";
        }
        match self.mismatch.kind {
            FeatureKind::Unavailable | FeatureKind::ParamBelowFloor => {
                "ask whoever runs the broker to update or configure it, then `bowline up`; nothing \
                 is lost meanwhile, and it is tried again every hour"
            }
            FeatureKind::ParamInvalid => {
                "update the older of daemon and broker, then `bowline up`; nothing is lost \
                 meanwhile, and it is tried again every hour"
            }
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "kind": self.mismatch.kind.as_str(),
            "feature": self.mismatch.feature,
            "detail": self.mismatch.detail,
            "by": match self.by {
                By::Daemon => "daemon",
                By::Broker => "broker",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::feature::SEALING;

    fn closes() -> impl Iterator<Item = Close> {
        FeatureKind::ALL.into_iter().map(|kind| {
            FeatureMismatch {
                kind,
                feature: SEALING.into(),
                detail: "suites [\"x1\"]".into(),
            }
            .close()
        })
    }

    #[test]
    fn whoever_said_it_the_feature_is_named_and_what_to_do() {
        for close in closes() {
            for (down, by) in [
                (Down::FeatureMismatch(close.clone()), "daemon"),
                (Down::Closed(close.clone()), "broker"),
            ] {
                let unsuited = Unsuited::of(&down).unwrap();
                assert!(unsuited.reason().contains("`sealing`"));
                assert!(unsuited.reason().starts_with(&format!("{} ", close.code)));
                assert!(unsuited.next().contains("`bowline up`"));
                assert_eq!(unsuited.to_json()["by"], by);
            }
        }
    }

    #[test]
    fn other_ends_are_no_mismatch() {
        for down in [
            Down::Closed(Close::slow_consumer()),
            Down::DialFailed {
                detail: String::new(),
            },
        ] {
            assert_eq!(Unsuited::of(&down), None);
        }
    }
}

//! How old each side of a run is: which version of the protocol it speaks, what it can do, what it
//! insists on. Sides of different ages have to get on, or to say that they cannot.

use bowline_core::limits::Limits;
use bowline_core::wire::ProtocolVersion;
use bowline_core::wire::feature::{
    ATTEST1, Capabilities, DEDUPE, FEATURES1, Features, INLINE_BYTES_LEAST, LIVE1, MAX_PAYLOAD,
    RECEIPTS, RESUME, RESUME1, Require, SEAL_X1, SEALING, Terms,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::random::Stream;

/// Of all sides; who is not named is of today.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ages {
    /// The owner, and the one that waits for a take-over.
    pub brokers: Vec<BrokerAge>,
    pub hosts: Vec<ClientAge>,
    pub puppets: Vec<ClientAge>,
    /// Brokers may read bodies in the meshes of this run.
    pub open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerAge {
    pub newer: bool,
    pub offers: Offers,
}

/// What a broker says that it can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offers {
    #[default]
    All,
    /// Without what a daemon can do without.
    NoFrills,
    /// More than is known today, which nobody has to mind.
    MoreThanIsKnown,
    /// No other form of fingerprint: suits open meshes only.
    Form1Only,
    NoSealing,
    NoDedupe,
    /// A parameter is missing.
    NoSuites,
    /// A feature is no object.
    SealingIsAWord,
    /// A version of a feature that nobody knows yet.
    DedupeOfTomorrow,
    /// One below the floor.
    InlineBytesBelow,
    OtherSuitesOnly,
    RetentionBelow,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientAge {
    pub newer: bool,
    pub speaks: Speaks,
    pub requires: Requires,
    /// Says a version that is none before it says one.
    pub misspeaks: bool,
}

/// What a client says that it can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    #[default]
    All,
    NoResume,
    NoLive,
    /// Cannot open what is sealed today, until it is updated.
    NoSealX1,
    /// An unmodified client of the dialect, until it is updated.
    Plain,
}

/// What a client cannot do without. Whoever is refused for it does without all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requires {
    #[default]
    Nothing,
    WhatThereIs,
    AFeatureOfTomorrow,
    AVersionOfTomorrow,
    AnUnknownParameter,
    TooMuch,
}

impl Ages {
    #[must_use]
    pub fn broker(&self, node: usize) -> BrokerAge {
        self.brokers.get(node).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn host(&self, host: usize) -> ClientAge {
        self.hosts.get(host).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn puppet(&self, puppet: usize) -> ClientAge {
        self.puppets.get(puppet).copied().unwrap_or_default()
    }

    /// Whether a daemon can work with the broker at `node`.
    #[must_use]
    pub fn suits(&self, node: usize) -> bool {
        self.broker(node).offers.refused_with(self.open).is_none()
    }

    #[must_use]
    pub fn has_two_versions(&self) -> bool {
        let clients = self.hosts.iter().chain(&self.puppets);
        let newer = || self.brokers.iter().map(|age| age.newer);
        let all: Vec<bool> = newer().chain(clients.map(|age| age.newer)).collect();
        all.contains(&true) && all.contains(&false)
    }

    /// Whether a take-over would change what is said to a broker, or whether anything is.
    #[must_use]
    pub fn brokers_differ(&self) -> bool {
        let forms = |node| self.broker(node).offers == Offers::Form1Only;
        !self.suits(1) || forms(0) != forms(1)
    }

    /// In half of all runs somebody is of another age than the others.
    pub fn draw(draws: &mut Stream, hosts: usize, puppets: usize) -> Self {
        let open = draws.chance(250);
        if draws.chance(500) {
            return Self {
                open,
                ..Self::default()
            };
        }
        Self {
            open,
            brokers: vec![
                BrokerAge::draw(draws, open, false),
                BrokerAge::draw(draws, open, true),
            ],
            hosts: (0..hosts).map(|_| ClientAge::draw_host(draws)).collect(),
            puppets: (0..puppets)
                .map(|_| ClientAge::draw_puppet(draws))
                .collect(),
        }
    }
}

impl BrokerAge {
    fn draw(draws: &mut Stream, open: bool, waits: bool) -> Self {
        use Offers::*;
        let suit: &[Offers] = if open {
            &[
                All,
                NoFrills,
                MoreThanIsKnown,
                Form1Only,
                Form1Only,
                Form1Only,
            ]
        } else {
            &[All, All, NoFrills, MoreThanIsKnown]
        };
        // Only one that takes over: otherwise daemons would see no other.
        let unsuited = [
            Form1Only,
            Form1Only,
            Form1Only,
            InlineBytesBelow,
            NoSealing,
            NoDedupe,
            NoSuites,
            SealingIsAWord,
            DedupeOfTomorrow,
            InlineBytesBelow,
            OtherSuitesOnly,
            RetentionBelow,
        ];
        Self {
            newer: draws.chance(500),
            offers: if waits && draws.chance(if open { 100 } else { 300 }) {
                *draws.pick(&unsuited)
            } else {
                *draws.pick(suit)
            },
        }
    }

    #[must_use]
    pub fn version(self) -> ProtocolVersion {
        version(self.newer)
    }
}

impl ClientAge {
    fn draw_host(draws: &mut Stream) -> Self {
        Self {
            newer: draws.chance(500),
            speaks: *draws.pick(&[Speaks::All, Speaks::All, Speaks::NoResume, Speaks::NoLive]),
            requires: *draws.pick(&[Requires::Nothing, Requires::WhatThereIs]),
            misspeaks: false,
        }
    }

    fn draw_puppet(draws: &mut Stream) -> Self {
        let speaks = *draws.pick(&[
            Speaks::All,
            Speaks::All,
            Speaks::NoResume,
            Speaks::NoLive,
            Speaks::NoSealX1,
            Speaks::Plain,
        ]);
        if speaks == Speaks::Plain {
            return Self {
                speaks,
                ..Self::default()
            };
        }
        Self {
            newer: draws.chance(500),
            speaks,
            requires: *draws.pick(&[
                Requires::Nothing,
                Requires::Nothing,
                Requires::WhatThereIs,
                Requires::AFeatureOfTomorrow,
                Requires::AVersionOfTomorrow,
                Requires::AnUnknownParameter,
                Requires::TooMuch,
            ]),
            misspeaks: draws.chance(100),
        }
    }

    #[must_use]
    pub fn terms(self) -> Terms {
        Terms {
            version: version(self.newer),
            capabilities: self.speaks.capabilities(),
            require: self.requires.require(),
        }
    }

    /// As it is after an update, which whoever cannot do without one gets when all heals.
    #[must_use]
    pub fn updated(self) -> Self {
        match self.speaks {
            Speaks::NoSealX1 | Speaks::Plain => Self {
                speaks: Speaks::All,
                ..self
            },
            Speaks::All | Speaks::NoResume | Speaks::NoLive => self,
        }
    }
}

impl Offers {
    /// What is said in the place of what can be done.
    #[must_use]
    pub fn instead(self, limits: &Limits, open: bool) -> Features {
        let changed = |feature: &'static str, param: &str, value: Value| {
            let mut params = Features::of_mesh(limits, open).0[feature].clone();
            params[param] = value;
            vec![(feature, params)]
        };
        let instead = match self {
            Self::All => vec![],
            Self::NoFrills => vec![(RESUME, Value::Null), (RECEIPTS, Value::Null)],
            Self::MoreThanIsKnown => [
                vec![("telepathy", json!({ "version": 3, "range_km": 9 }))],
                changed(DEDUPE, "fingerprint", json!([1, 2, 3])),
                changed(MAX_PAYLOAD, "compressed", json!(["zstd"])),
            ]
            .concat(),
            Self::Form1Only => changed(DEDUPE, "fingerprint", json!([1])),
            Self::NoSealing => vec![(SEALING, Value::Null)],
            Self::NoDedupe => vec![(DEDUPE, Value::Null)],
            Self::NoSuites => changed(SEALING, "suites", Value::Null),
            Self::SealingIsAWord => vec![(SEALING, json!("x1"))],
            Self::DedupeOfTomorrow => changed(DEDUPE, "version", json!(2)),
            Self::InlineBytesBelow => {
                changed(MAX_PAYLOAD, "inline_bytes", json!(INLINE_BYTES_LEAST - 1))
            }
            Self::OtherSuitesOnly => changed(SEALING, "suites", json!(["box"])),
            Self::RetentionBelow => changed(DEDUPE, "dedupe_retention_days", json!(3)),
        };
        let named = |(name, params): (&str, Value)| (name.to_owned(), params);
        Features(instead.into_iter().map(named).collect())
    }

    /// The close with which every daemon of today leaves such a broker, and the feature that it
    /// names.
    #[must_use]
    pub fn refused_with(self, open: bool) -> Option<(u16, &'static str)> {
        match self {
            Self::All | Self::NoFrills | Self::MoreThanIsKnown => None,
            Self::Form1Only if open => None,
            Self::Form1Only | Self::NoDedupe => Some((4010, DEDUPE)),
            Self::NoSealing => Some((4010, SEALING)),
            Self::NoSuites | Self::SealingIsAWord => Some((4011, SEALING)),
            Self::DedupeOfTomorrow => Some((4011, DEDUPE)),
            Self::InlineBytesBelow => Some((4012, MAX_PAYLOAD)),
            Self::OtherSuitesOnly => Some((4012, SEALING)),
            Self::RetentionBelow => Some((4012, DEDUPE)),
        }
    }
}

impl Speaks {
    fn capabilities(self) -> Capabilities {
        let without = |name: &str| {
            let mut capabilities = Capabilities::ours();
            capabilities.0.retain(|own| own != name);
            capabilities
        };
        match self {
            Self::All => Capabilities::ours(),
            Self::NoResume => without(RESUME1),
            Self::NoLive => without(LIVE1),
            Self::NoSealX1 => without(SEAL_X1),
            Self::Plain => Capabilities::default(),
        }
    }

    /// Whether the broker tells it what it can do.
    #[must_use]
    pub fn asks_for_features(self) -> bool {
        self.capabilities().has(FEATURES1)
    }

    #[must_use]
    pub fn attests_its_role(self) -> bool {
        self.capabilities().has(ATTEST1)
    }
}

impl Requires {
    fn require(self) -> Require {
        let require = match self {
            Self::Nothing => json!({}),
            Self::WhatThereIs => json!({
                "client_message_id_dedupe": { "version": 1, "dedupe_retention_days": 1 },
                "max_payload": { "version": 1, "inline_bytes": 1 },
            }),
            Self::AFeatureOfTomorrow => json!({ "telekinesis": { "version": 1 } }),
            Self::AVersionOfTomorrow => json!({ "max_payload": { "version": 2 } }),
            Self::AnUnknownParameter => json!({ "max_payload": { "colours": 16 } }),
            Self::TooMuch => json!({ "max_payload": { "inline_bytes": 1_000_000_000 } }),
        };
        serde_json::from_value(require).expect("a name to parameters")
    }

    /// The close with which a broker leaves such a client.
    #[must_use]
    pub fn refused_with(self) -> Option<u16> {
        match self {
            Self::Nothing | Self::WhatThereIs => None,
            Self::AFeatureOfTomorrow => Some(4010),
            Self::AVersionOfTomorrow | Self::AnUnknownParameter => Some(4011),
            Self::TooMuch => Some(4012),
        }
    }
}

fn version(newer: bool) -> ProtocolVersion {
    if newer {
        ProtocolVersion::V2
    } else {
        ProtocolVersion::V1
    }
}

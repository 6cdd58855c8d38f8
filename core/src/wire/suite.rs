//! How a body to one key is sealed.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::feature::{Capabilities, SEAL_BOX, SEAL_X1};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// Ours: bound to mesh, keys, id, priority and reply-to.
    X1,
    /// libsodium's `crypto_box`: bound to the two keys. For and from peers that offer nothing else.
    Box,
}

impl Suite {
    /// Best first.
    pub const ALL: [Self; 2] = [Self::X1, Self::Box];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X1 => "x1",
            Self::Box => "box",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == text)
    }

    /// Of a message to one key: absent means `box`. `None`: a suite that is not known here.
    #[must_use]
    pub fn of_message(seal: Option<&str>) -> Option<Self> {
        seal.map_or(Some(Self::Box), Self::parse)
    }

    /// What a peer opens that said this of itself: who names no suite is `box`.
    #[must_use]
    pub fn opened_by(capabilities: &Capabilities) -> Vec<Self> {
        let (x1, in_box) = (capabilities.has(SEAL_X1), capabilities.has(SEAL_BOX));
        let opens = |suite: &Self| match suite {
            Self::X1 => x1,
            Self::Box => in_box || !x1,
        };
        Self::ALL.into_iter().filter(opens).collect()
    }

    /// What to seal with for a peer that opens these. `None`: nothing that is known here.
    #[must_use]
    pub fn best_of(names: &[String]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|suite| names.iter().any(|name| name == suite.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(names: &[&str]) -> Vec<Suite> {
        let names = names.iter().map(|name| String::from(*name)).collect();
        Suite::opened_by(&Capabilities(names))
    }

    #[test]
    fn who_names_no_suite_opens_a_box() {
        assert_eq!(opened(&[]), [Suite::Box]);
        assert_eq!(opened(&["live1"]), [Suite::Box]);
        assert_eq!(opened(&["seal-box"]), [Suite::Box]);
        assert_eq!(opened(&["seal-x1"]), [Suite::X1]);
        assert_eq!(opened(&["seal-box", "seal-x1"]), Suite::ALL);
    }

    #[test]
    fn the_best_of_what_a_peer_opens_is_chosen() {
        let best = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| String::from(*name)).collect();
            Suite::best_of(&names)
        };
        assert_eq!(best(&["box", "x1"]), Some(Suite::X1));
        assert_eq!(best(&["later", "box"]), Some(Suite::Box));
        assert_eq!(best(&["later"]), None);
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn a_message_that_names_no_suite_is_a_box() {
        assert_eq!(Suite::of_message(None), Some(Suite::Box));
        assert_eq!(Suite::of_message(Some("box")), Some(Suite::Box));
        assert_eq!(Suite::of_message(Some("x1")), Some(Suite::X1));
        assert_eq!(Suite::of_message(Some("x9")), None);
    }
}

//! Whom a `send` names.

use alloc::string::String;

use crate::id::PubKey;
use crate::limits::{ID_BYTES, NAME_BYTES};

/// A `targetSpec`, read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A session's key, or any key of a member.
    Key(PubKey),
    /// `*` or `@all`: everybody.
    All,
    /// `@name`: the group and the groups below it. Without the `@`.
    Group(String),
    /// `#id`. Without the `#`.
    Topic(String),
}

/// The text names nobody that there could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a target is 64 hex characters, `*`, `@group` or `#topic`")]
pub struct BadTarget;

impl Target {
    /// A key is taken in either case.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        if matches!(text, "*" | "@all") {
            return Ok(Self::All);
        }
        if let Some(group) = text.strip_prefix('@') {
            return name(group, NAME_BYTES).map(Self::Group);
        }
        if let Some(topic) = text.strip_prefix('#') {
            return name(topic, ID_BYTES).map(Self::Topic);
        }
        text.parse().map(Self::Key).map_err(|_| BadTarget)
    }

    /// One peer, or several.
    #[must_use]
    pub fn is_key(&self) -> bool {
        matches!(self, Self::Key(_))
    }
}

fn name(text: &str, most: usize) -> Result<String, BadTarget> {
    if text.is_empty() || text.len() > most || text.contains('\0') {
        return Err(BadTarget);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_by_its_first_character() {
        let key = "AB".repeat(32);
        assert_eq!(
            Target::parse(&key),
            Ok(Target::Key(PubKey([0xab; 32]))),
            "keys are taken in any case"
        );
        assert_eq!(Target::parse("*"), Ok(Target::All));
        assert_eq!(Target::parse("@all"), Ok(Target::All));
        assert_eq!(
            Target::parse("@dev/core"),
            Ok(Target::Group("dev/core".into()))
        );
        assert_eq!(Target::parse("#t1"), Ok(Target::Topic("t1".into())));
    }

    #[test]
    fn what_names_nobody_is_refused() {
        let long = "@".to_owned() + &"x".repeat(NAME_BYTES + 1);
        for text in ["", "@", "#", "bob", "abcd", "@a\0b", long.as_str()] {
            assert_eq!(Target::parse(text), Err(BadTarget), "{text:?}");
        }
    }

    use alloc::borrow::ToOwned;
}

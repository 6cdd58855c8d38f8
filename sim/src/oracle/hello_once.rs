//! The same hello is taken once, by this owner and by every later one.

use std::collections::BTreeSet;

use bowline_core::id::Signature;
use bowline_core::wire::plain;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

#[derive(Default)]
pub struct HelloOnce {
    taken: BTreeSet<Signature>,
    /// Of plain clients, by this owner: one of theirs that is ahead of its clock is taken, and can
    /// be taken again behind a restart.
    taken_of_plain: BTreeSet<Signature>,
}

impl Oracle for HelloOnce {
    fn name(&self) -> &'static str {
        "hello_once"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        if matches!(record, Record::OwnerStarted { .. }) {
            self.taken_of_plain.clear();
        }
        let (Record::Attached { peer, hello, .. } | Record::QuietAttached { peer, hello, .. }) =
            record
        else {
            return Ok(());
        };
        let taken = if plain::is_plain(&hello.offer.capabilities) {
            &mut self.taken_of_plain
        } else {
            &mut self.taken
        };
        if taken.insert(hello.signature) {
            return Ok(());
        }
        Err(format!("a hello of {peer} was taken twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_replayed_hello_is_found() {
        let history = [
            (s(1), testing::attached_by(1, 1, 1)),
            (s(2), testing::attached_by(1, 2, 2)),
            (s(3), testing::attached_by(1, 3, 1)),
        ];
        assert!(testing::judge(&mut HelloOnce::default(), &history[..2]).is_ok());
        assert!(testing::judge(&mut HelloOnce::default(), &history).is_err());
    }
}

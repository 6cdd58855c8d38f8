//! G2: one inbox row per (mesh, recipient, sender, client message id), and a program is told of a
//! message under one number only, in rising order, once on each of its streams.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::id::{InboxSeq, SubscriberId};
use bowline_core::store::host::{self, InboxKey};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token};

#[derive(Default)]
pub struct Once {
    rows: BTreeSet<InboxKey>,
    /// The canary of each inbox row.
    bodies: BTreeSet<Token>,
    told: BTreeMap<(usize, Token), InboxSeq>,
    last: BTreeMap<(usize, SubscriberId), InboxSeq>,
    /// Rows of each user that are durable, and those that it was told of.
    durable: BTreeMap<Token, InboxSeq>,
}

impl Oracle for Once {
    fn name(&self) -> &'static str {
        "g2_once"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::HostCommitted { ops, .. } => ops.iter().try_for_each(|op| self.committed(op)),
            Record::Told {
                node,
                user,
                subscriber,
                event,
            } => {
                let Some(id) = event.id else { return Ok(()) };
                if let Some(before) = self.last.insert((*user, *subscriber), id)
                    && before >= id
                {
                    return Err(format!(
                        "user {user} of node {node} was told of row {id} after row {before}"
                    ));
                }
                let text = String::from_utf8_lossy(&event.data);
                for token in Token::all_in(&text) {
                    if !self.durable.contains_key(&token) {
                        return Err(format!(
                            "user {user} was told of {token:?} before it was durable"
                        ));
                    }
                    let before = self.told.insert((*user, token), id);
                    if before.is_some_and(|before| before != id) {
                        return Err(format!(
                            "user {user} was told of {token:?} as row {before:?} and as row {id}"
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn unmet(&self, _: Moment, _: &View) -> Option<String> {
        let told: BTreeSet<Token> = self.told.keys().map(|(_, token)| *token).collect();
        let untold = self.durable.keys().find(|token| !told.contains(token))?;
        Some(format!(
            "{untold:?} is in an inbox, and no event stream told of it"
        ))
    }
}

impl Once {
    fn committed(&mut self, op: &host::Op) -> Result<(), String> {
        let host::Op::InboxPut(row) = op else {
            return Ok(());
        };
        let key = (
            row.mesh.clone(),
            row.recipient.clone(),
            row.sender,
            row.client_message_id.clone(),
        );
        if !self.rows.insert(key) {
            return Err(format!(
                "{} of {:?} was put into {}'s inbox twice",
                row.client_message_id, row.sender, row.recipient
            ));
        }
        let host::InboxContent::Opened { body, .. } = &row.content else {
            return Ok(());
        };
        let Some(token) = Token::of(body) else {
            return Ok(());
        };
        self.durable.insert(token, row.seq);
        if self.bodies.insert(token) {
            return Ok(());
        }
        Err(format!(
            "{token:?} is in {}'s inbox twice, under two ids",
            row.recipient
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_second_row_under_the_same_or_another_id_is_found() {
        let judge = |ids: [&str; 2], bodies: [&str; 2]| {
            let history = [
                (s(1), testing::inbox_put(1, 1, ids[0], bodies[0])),
                (s(2), testing::inbox_put(2, 1, ids[1], bodies[1])),
            ];
            testing::judge(&mut Once::default(), &history)
        };
        assert!(judge(["a", "b"], ["canary-1-0-1;", "canary-1-0-2;"]).is_ok());
        assert!(judge(["a", "a"], ["canary-1-0-1;", "canary-1-0-2;"]).is_err());
        assert!(judge(["a", "b"], ["canary-1-0-1;", "canary-1-0-1;"]).is_err());
    }

    #[test]
    fn being_told_out_of_order_twice_or_too_early_is_found() {
        let put = |seq: u64| {
            let (id, body) = (format!("i{seq}"), format!("canary-1-0-{seq};"));
            (s(1), testing::inbox_put(seq, 1, &id, &body))
        };
        let told = |stream: u64, id: u64, nth: u64| {
            (
                s(2),
                testing::told(0, stream, Some(id), &format!("canary-1-0-{nth};")),
            )
        };
        let judge = |history: &[(u64, Record)]| testing::judge(&mut Once::default(), history);
        assert!(judge(&[put(1), put(2), told(1, 1, 1), told(1, 2, 2), told(2, 2, 2)]).is_ok());
        assert!(judge(&[put(1), put(2), told(1, 2, 2), told(1, 1, 1)]).is_err());
        assert!(judge(&[put(1), told(1, 1, 1), told(2, 2, 1)]).is_err());
        assert!(judge(&[told(1, 1, 1)]).is_err());
    }
}

//! G10: what a session sends is attributed to that session; there is no fallback to another key.

use std::collections::BTreeMap;

use bowline_core::id::PubKey;
use bowline_core::store::host;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{Record, Token};

#[derive(Default)]
pub struct Attribution {
    /// A user's keys: one, for as long as it opens the same session.
    users: BTreeMap<usize, PubKey>,
}

impl Oracle for Attribution {
    fn name(&self) -> &'static str {
        "g10_attribution"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::Opened { user, pubkey, .. } => match self.users.insert(*user, *pubkey) {
                Some(before) if before != *pubkey => Err(format!(
                    "user {user} opened its session again and has the key {pubkey:?}, not {before:?}"
                )),
                _ => Ok(()),
            },
            Record::PuppetGot {
                key, sender, body, ..
            } => self.judge(&format!("{key}"), *sender, body.as_deref(), view),
            Record::HostCommitted { ops, .. } => ops.iter().try_for_each(|op| match op {
                host::Op::InboxPut(row) => {
                    let body = match &row.content {
                        host::InboxContent::Opened { body, .. } => Some(body.as_str()),
                        host::InboxContent::Undecryptable { .. } => None,
                    };
                    self.judge(&format!("{}", row.recipient), row.sender, body, view)
                }
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }
}

impl Attribution {
    fn judge(
        &self,
        recipient: &str,
        sender: PubKey,
        body: Option<&str>,
        view: &View,
    ) -> Result<(), String> {
        let Some(token) = body.and_then(Token::of) else {
            return Ok(());
        };
        let users = view.profile.users();
        let expected = match token.sender.checked_sub(users) {
            Some(puppet) => view.cast.puppets.get(puppet).map(|puppet| puppet.pubkey),
            None => self.users.get(&token.sender).copied(),
        };
        if expected == Some(sender) {
            return Ok(());
        }
        Err(format!(
            "{recipient} got {token:?} as from {sender:?}; its sender's key is {expected:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};

    #[test]
    fn a_message_under_another_name_is_found() {
        let view = testing::view();
        let got = |sender: PubKey| {
            let history = [(
                s(1),
                Record::PuppetGot {
                    node: 2,
                    key: testing::key(1),
                    sender,
                    id: testing::message_id(1),
                    body: Some("canary-0-1-1;".into()),
                },
            )];
            testing::judge_with(&mut Attribution::default(), &view, &history)
        };
        assert!(got(view.cast.puppets[0].pubkey).is_ok());
        assert!(got(view.cast.members[0].pubkey).is_err());
    }
}

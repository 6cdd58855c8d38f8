//! G13: form 1 of a fingerprint, from which a short body can be guessed, leaves a host only in an
//! open mesh. And a row that was said in one form is never said in the other, which to a broker
//! would be another message.

use std::collections::BTreeMap;

use bowline_core::id::{Fingerprint, OutboxSeq};
use bowline_core::store::host::Op;
use bowline_core::wire::{ClientFrame, decode_client};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct Forms {
    rows: BTreeMap<Fingerprint, Vec<(Row, u8)>>,
    said: BTreeMap<Row, u8>,
}

type Row = (NodeId, OutboxSeq);

impl Oracle for Forms {
    fn name(&self) -> &'static str {
        "g13_forms"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::HostCommitted { node, ops, .. } => {
                for op in ops {
                    if let Op::OutboxPut(row) = op {
                        let own = (*node, row.seq);
                        self.rows.entry(row.form_1).or_default().push((own, 1));
                        self.rows.entry(row.form_2).or_default().push((own, 2));
                    }
                }
                Ok(())
            }
            Record::Reached { bytes } if bytes.starts_with(b"{\"type\":\"send\"") => {
                let Ok(ClientFrame::Send(send)) = decode_client(bytes) else {
                    return Ok(());
                };
                match send.request_fingerprint {
                    Some(fingerprint) => self.said(fingerprint, view.profile.ages.open),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Forms {
    fn said(&mut self, fingerprint: Fingerprint, open: bool) -> Result<(), String> {
        // One of a client without a host: it has a form of its own.
        let Some(rows) = self.rows.get(&fingerprint) else {
            return Ok(());
        };
        for (row, form) in rows {
            let (node, seq) = row;
            if *form == 1 && !open {
                return Err(format!(
                    "node {node} says row {seq} in form 1, in a sealed mesh"
                ));
            }
            let first = *self.said.entry(*row).or_insert(*form);
            // Two requests that ask for the same have the same form 1.
            if first != *form && rows.len() == 1 {
                return Err(format!(
                    "node {node} said row {seq} in form {first} once, and says it in form {form}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::wire::encode_client;

    const ROW: u64 = 1;

    fn judge(open: bool, forms: &[u8]) -> Result<(), String> {
        let mut view = testing::view();
        view.profile.ages.open = open;
        let mut history = vec![(s(1), testing::outbox_put(ROW))];
        for form in forms {
            let said = testing::send_frame(Fingerprint([*form; 32]));
            let bytes = encode_client(&said);
            history.push((s(2), Record::Reached { bytes }));
        }
        testing::judge_with(&mut Forms::default(), &view, &history)
    }

    #[test]
    fn form_1_in_a_sealed_mesh_is_found() {
        assert!(judge(false, &[2, 2]).is_ok());
        assert!(judge(false, &[1]).is_err());
        assert!(judge(true, &[1, 1]).is_ok());
    }

    #[test]
    fn a_row_in_two_forms_is_found() {
        assert!(judge(true, &[1, 2]).is_err());
        assert!(judge(true, &[2, 1]).is_err());
        assert!(judge(true, &[2, 9]).is_ok(), "9 is no row's");
    }
}

//! Waiting for an uplink, and "not now", are no attempts: a row has no more attempts than sends of
//! it reached a broker. Otherwise a long outage would kill the mail.

use std::collections::BTreeMap;

use bowline_core::id::{ClientMessageId, OutboxSeq};
use bowline_core::store::host::{Op, OutboxState};
use bowline_core::wire::{ClientFrame, decode_client};

use super::{Oracle, View};
use crate::clock::Moment;
use crate::kernel::NodeId;
use crate::record::Record;

#[derive(Default)]
pub struct WaitingIsNoAttempt {
    reached: BTreeMap<ClientMessageId, u32>,
    rows: BTreeMap<(NodeId, OutboxSeq), ClientMessageId>,
}

impl Oracle for WaitingIsNoAttempt {
    fn name(&self) -> &'static str {
        "waiting_is_no_attempt"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::Reached { bytes } if bytes.starts_with(b"{\"type\":\"send\"") => {
                if let Ok(ClientFrame::Send(send)) = decode_client(bytes)
                    && let Some(id) = send.client_message_id
                {
                    *self.reached.entry(id).or_default() += 1;
                }
            }
            Record::HostCommitted { node, ops, .. } => {
                for op in ops {
                    match op {
                        Op::OutboxPut(row) => {
                            let id = row.client_message_id.clone();
                            self.rows.insert((*node, row.seq), id);
                            self.judge(*node, row.seq, &row.state)?;
                        }
                        Op::OutboxState { seq, state } => self.judge(*node, *seq, state)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl WaitingIsNoAttempt {
    fn judge(&self, node: NodeId, seq: OutboxSeq, state: &OutboxState) -> Result<(), String> {
        let id = self.rows.get(&(node, seq));
        let reached = id.and_then(|id| self.reached.get(id)).copied().unwrap_or(0);
        if state.attempts <= reached {
            return Ok(());
        }
        Err(format!(
            "outbox row {} of node {node} counts {} attempts, and {reached} sends of it reached a broker",
            seq.0, state.attempts
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use bowline_core::store::TxnId;
    use bowline_core::store::host::OutboxStatus;

    #[test]
    fn an_attempt_without_a_send_is_found() {
        let state = |attempts: u32| Record::HostCommitted {
            node: 2,
            txn: TxnId(1),
            ops: vec![Op::OutboxState {
                seq: OutboxSeq(1),
                state: OutboxState {
                    status: OutboxStatus::Pending,
                    attempts,
                    on_wire: false,
                    form: None,
                    next_attempt_at: None,
                    last_error: None,
                    broker_message_id: None,
                    settled_at: None,
                },
            }],
        };
        let judge = |attempts| {
            testing::judge(
                &mut WaitingIsNoAttempt::default(),
                &[(s(1), state(attempts))],
            )
        };
        assert!(judge(0).is_ok());
        assert!(judge(1).is_err());
    }
}

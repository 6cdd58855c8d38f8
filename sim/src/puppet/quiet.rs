//! Connections of a puppet for sending only, under its own key or under one that never holds a
//! lease.

use std::sync::Arc;

use bowline_core::id::{ClientMessageId, ConnId, Role};
use bowline_core::link::{DialPlan, SessionIdentity};
use bowline_core::wire::client::{ReqId, Send};
use bowline_core::wire::feature::Terms;
use bowline_core::wire::{BrokerFrame, ClientFrame, Close, Priority, encode_client};

use super::{Outgoing, Puppet, SendState, WAKE_QUIET, fingerprint};
use crate::client_shell::FromLink;
use crate::kernel::{Kernel, NodeEvent};
use crate::plan::StepId;
use crate::record::{Record, Token};

const BODY_BYTES: usize = 50;

/// What is said on a quiet connection once it is up.
pub(super) struct Quiet {
    send: Option<Send>,
    nosy: bool,
}

/// What a plan wants of it.
pub(super) struct Wanted {
    pub(super) to: usize,
    pub(super) stranger: bool,
    pub(super) twice: bool,
    pub(super) nosy: bool,
    pub(super) for_ms: u64,
}

impl Puppet {
    pub(super) fn be_quiet(&mut self, k: &mut Kernel, id: StepId, wanted: &Wanted) {
        let send = if wanted.stranger {
            self.send_as_stranger(k, id, wanted.to)
        } else {
            self.send_as_itself(k, id, wanted.to)
        };
        let says = |send: Option<Send>| Quiet {
            send,
            nosy: wanted.nosy,
        };
        if wanted.twice {
            self.dial_quietly(k, wanted.stranger, says(send.clone()));
        }
        self.dial_quietly(k, wanted.stranger, says(send));
        let later_us = wanted.for_ms * 1_000;
        k.tell_later(later_us, self.node, NodeEvent::Process(WAKE_QUIET));
    }

    /// True where it was said by a quiet connection.
    pub(super) fn said_quietly(&mut self, k: &mut Kernel, id: ConnId, said: &FromLink) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let Some(quiet) = process.quiet.get_mut(&id.0) else {
            return false;
        };
        match said {
            FromLink::Up(_) => {
                let send = quiet.send.take();
                if quiet.nosy {
                    let list = ClientFrame::ListPeers {
                        after: None,
                        limit: None,
                        req_id: Some(ReqId("nosy".into())),
                    };
                    process.shell.send(k, id, encode_client(&list));
                }
                if let Some(send) = send {
                    let send = ClientFrame::Send(Box::new(send));
                    process.shell.send(k, id, encode_client(&send));
                }
            }
            FromLink::Frame(BrokerFrame::Ack(ack)) => self.acked(ack),
            FromLink::Down(_) => {
                process.quiet.remove(&id.0);
            }
            FromLink::Frame(_) | FromLink::Sent(_) => {}
        }
        true
    }

    pub(super) fn hang_up_quiet(&mut self, k: &mut Kernel) {
        let Some(process) = &mut self.process else {
            return;
        };
        let ids: Vec<u64> = process.quiet.keys().copied().collect();
        for id in ids {
            let close = Close::new(Close::NORMAL, "done");
            process.shell.hang_up(k, ConnId(id), close);
        }
    }

    fn dial_quietly(&mut self, k: &mut Kernel, stranger: bool, quiet: Quiet) {
        let me = self.me();
        let mut plan = DialPlan {
            quiet: true,
            // Plain clients know of no such hello.
            terms: Terms::default(),
            ..self.dial_plan()
        };
        let mut key = Arc::clone(&me.key);
        if stranger {
            key = Arc::clone(&me.silent_key);
            plan.session = Some(SessionIdentity {
                secret: me.silent.clone(),
                role: Role::Session,
            });
        }
        let Some(process) = &mut self.process else {
            return;
        };
        process.next_conn += 1;
        let id = ConnId(process.next_conn);
        process.quiet.insert(id.0, quiet);
        process
            .shell
            .dial(k, id, self.cast.index, key, Box::new(plan));
    }

    /// Sent again over its lease, where it stays without an answer.
    fn send_as_itself(&mut self, k: &mut Kernel, id: StepId, to: usize) -> Option<Send> {
        let token = Token {
            sender: self.profile.users() + self.index,
            recipient: to,
            nth: u64::from(id.0),
        };
        let target = self.address(k, to)?;
        let send = self.seal(&token.body(BODY_BYTES), id, &target, Priority::Next)?;
        self.sent.push(Outgoing {
            send: send.clone(),
            state: SendState::Unknown,
            message_id: None,
        });
        let sent = Record::PuppetSent {
            key: Arc::clone(&self.me().key),
            id: format!("p{}", id.0),
            altered: None,
            fingerprint: fingerprint(id, false),
        };
        k.record_in(self.cast.index, sent);
        Some(Send {
            first: true,
            ..send
        })
    }

    fn send_as_stranger(&mut self, k: &Kernel, id: StepId, to: usize) -> Option<Send> {
        let target = self.address(k, to)?;
        let secret = self.me().silent.clone();
        let own = ClientMessageId::from(format!("q{}", id.0));
        let body = "from one who holds no lease";
        self.seal_as(
            &secret,
            own,
            body,
            fingerprint(id, false),
            &target,
            Priority::Next,
        )
    }
}

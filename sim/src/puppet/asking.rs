//! What a puppet says and asks of messages after they were taken: that it has seen them, and where
//! they are.

use std::sync::Arc;

use bowline_core::id::MessageId;
use bowline_core::limits::SEEN_IDS_PER_FRAME;
use bowline_core::wire::ClientFrame;
use bowline_core::wire::client::ReqId;
use bowline_core::wire::receipt::{Explain, MESSAGE_ID_PREFIX, MessageStatus, Seen};

use super::Puppet;
use crate::kernel::Kernel;
use crate::plan::Ask;
use crate::record::Record;

impl Puppet {
    pub(super) fn say_seen(&mut self, k: &mut Kernel) {
        let ids: Vec<MessageId> = self
            .got
            .iter()
            .rev()
            .take(SEEN_IDS_PER_FRAME)
            .cloned()
            .collect();
        if ids.is_empty() || self.current().is_none() {
            return;
        }
        let key = Arc::clone(&self.me().key);
        k.record_in(
            self.cast.index,
            Record::PuppetSaw {
                key,
                ids: ids.clone(),
            },
        );
        let frame = ClientFrame::Seen(Seen {
            ids: ids.iter().map(ToString::to_string).collect(),
            req_id: Some(ReqId("seen".into())),
        });
        self.say_now(k, &frame);
    }

    pub(super) fn ask(&mut self, k: &mut Kernel, nth: usize, what: Ask) {
        let sent = self.sent.get(nth % self.sent.len().max(1));
        let by_itself = sent.and_then(|outgoing| outgoing.send.client_message_id.as_ref());
        let by_broker = sent.and_then(|outgoing| outgoing.message_id.as_deref());
        let pushed = self.got.get(nth % self.got.len().max(1));
        let req_id = Some(ReqId("ask".into()));
        let why = |id: &str| {
            let (id, req_id) = (id.to_owned(), req_id.clone());
            ClientFrame::Explain(Explain { id, req_id })
        };
        let status = |id: &str| {
            let (message_id, req_id) = (id.to_owned(), req_id.clone());
            ClientFrame::MessageStatus(MessageStatus { message_id, req_id })
        };
        let frame = match what {
            Ask::WhySent => by_itself.map(|id| why(id.as_str())),
            Ask::WhyPushed => pushed.map(|id| why(id.as_str())),
            Ask::WhyNothing => Some(why("nobody-sent-this")),
            Ask::Status => by_broker.map(status),
            Ask::StatusPushed => pushed.map(|id| status(id.as_str())),
            // As little as may be: messages of one second begin alike.
            Ask::StatusOfPrefix => by_broker.map(|id| status(&id[..*MESSAGE_ID_PREFIX.start()])),
        };
        if let Some(frame) = frame {
            self.say_now(k, &frame);
        }
    }
}

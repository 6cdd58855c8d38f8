//! `seen`: brokers are told what was read here, over the reader's own uplink, until they know it.
//!
//! What is owed stands in the store, written together with the mark that it was read; of each reader
//! one batch of it is in memory. It is taken from the store when the uplink is up, told, and struck
//! off when the broker's `ok` came; whatever comes between, the same is told again, which changes
//! nothing at the broker.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::context::{Context, Identity, Promise, Waiter, Why};
use crate::id::{InboxSeq, MeshId, MessageId, PeerKey};
use crate::limits::{BUSY_RETRY_AFTER, SEEN_IDS_PER_FRAME, SEND_ACK_WITHIN};
use crate::mark::Mark;
use crate::store::host::{Load, Op};
use crate::wire::ClientFrame;
use crate::wire::client::ReqId;
use crate::wire::receipt::Seen;

#[derive(Default)]
pub(super) struct SeenMail {
    /// By reader. One that owes nothing is not here.
    owing: BTreeMap<Identity, Owing>,
    last_batch: u64,
}

struct Owing {
    step: Step,
    /// Something was read since the store was asked.
    more: bool,
}

enum Step {
    /// The store has it; the uplink may not be up.
    Waiting,
    /// The store is being asked for a batch.
    Asking,
    Telling {
        batch: u64,
        rows: Vec<InboxSeq>,
    },
    /// It was told; that is being written.
    StrikingOff,
}

impl SeenMail {
    pub(super) fn recover(readers: Vec<(MeshId, PeerKey)>) -> Self {
        let mut seen = Self::default();
        for (mesh, peer) in readers {
            seen.read(&Identity { mesh, peer });
        }
        seen
    }

    /// `who` has read something, durably.
    pub(super) fn read(&mut self, who: &Identity) {
        let owing = self.owing.entry(who.clone()).or_insert(Owing {
            step: Step::Waiting,
            more: false,
        });
        owing.more = true;
    }

    /// The uplink of `who` is up, at a broker that takes it: whatever waits for that goes on.
    pub(super) fn go_on(&mut self, ctx: &mut Context, who: &Identity) {
        let Some(owing) = self.owing.get_mut(who) else {
            return;
        };
        if !matches!(owing.step, Step::Waiting) || ctx.timers.get(&Why::Seen(who.clone())).is_some()
        {
            return;
        }
        owing.step = Step::Asking;
        owing.more = false;
        let what = Load::SeenOwed {
            mesh: who.mesh.clone(),
            recipient: who.peer.clone(),
            limit: SEEN_IDS_PER_FRAME,
        };
        ctx.load(what, Waiter::SeenOwed(who.clone()));
    }

    /// What is to be told next, if anything is. `is_up`: it can be told now.
    pub(super) fn batch(
        &mut self,
        ctx: &mut Context,
        who: &Identity,
        rows: Vec<(InboxSeq, MessageId)>,
        is_up: bool,
    ) -> Option<ClientFrame> {
        let owing = self.owing.get_mut(who)?;
        if rows.is_empty() && !owing.more {
            self.owing.remove(who);
            return None;
        }
        if rows.is_empty() || !is_up {
            owing.step = Step::Waiting;
            return None;
        }
        self.last_batch += 1;
        let batch = self.last_batch;
        let (rows, ids): (Vec<InboxSeq>, Vec<String>) = rows
            .into_iter()
            .map(|(seq, message)| (seq, String::from(message.as_str())))
            .unzip();
        owing.step = Step::Telling { batch, rows };
        ctx.mark(Mark::SeenSaid);
        ctx.after(Why::Seen(who.clone()), SEND_ACK_WITHIN);
        Some(ClientFrame::Seen(Seen {
            ids,
            req_id: Some(ReqId(alloc::format!("s{batch}"))),
        }))
    }

    /// The broker has it durably.
    pub(super) fn taken(&mut self, ctx: &mut Context, who: &Identity, req_id: Option<&ReqId>) {
        let Some(owing) = self.telling(who, req_id) else {
            return;
        };
        let Step::Telling { rows, .. } = core::mem::replace(&mut owing.step, Step::StrikingOff)
        else {
            return;
        };
        ctx.mark(Mark::SeenTaken);
        ctx.timers.cancel(&Why::Seen(who.clone()));
        for seq in rows {
            ctx.persist(Op::SeenTold { seq });
        }
        ctx.promise(Promise::SeenTold(who.clone()));
    }

    /// The broker did not take it: later.
    pub(super) fn refused(&mut self, ctx: &mut Context, who: &Identity, req_id: Option<&ReqId>) {
        if let Some(owing) = self.telling(who, req_id) {
            owing.step = Step::Waiting;
            ctx.after(Why::Seen(who.clone()), BUSY_RETRY_AFTER);
        }
    }

    /// `Why::Seen` is due: there was no answer, or it is later now.
    pub(super) fn overdue(&mut self, who: &Identity) {
        if let Some(owing) = self.owing.get_mut(who)
            && matches!(owing.step, Step::Telling { .. })
        {
            owing.step = Step::Waiting;
        }
    }

    pub(super) fn struck_off(&mut self, who: &Identity) {
        if let Some(owing) = self.owing.get_mut(who) {
            owing.step = Step::Waiting;
        }
    }

    pub(super) fn link_lost(&mut self, ctx: &mut Context, who: &Identity) {
        self.overdue(who);
        ctx.timers.cancel(&Why::Seen(who.clone()));
    }

    pub(super) fn owes(&self, who: &Identity) -> bool {
        self.owing.contains_key(who)
    }

    pub(super) fn owing(&self) -> impl Iterator<Item = &Identity> {
        self.owing.keys()
    }

    fn telling(&mut self, who: &Identity, req_id: Option<&ReqId>) -> Option<&mut Owing> {
        let named: u64 = req_id?.0.strip_prefix('s')?.parse().ok()?;
        let owing = self.owing.get_mut(who)?;
        let is_it = matches!(owing.step, Step::Telling { batch, .. } if batch == named);
        is_it.then_some(owing)
    }
}

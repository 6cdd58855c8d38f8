//! What one recipient is owed: `ready` → `claimed` → settled; an expired claim is `ready` again.
//!
//! Memory holds the oldest part, bounded; the rest is *cold* and is paged in from the store. While
//! there is a cold part, new messages queue behind it, so that order holds. What the recipient does
//! not take now is passed over rather than kept, where it would keep out of memory what it takes.
//! Claims are void after a restart; **a claim is never given to a peer without a connection**.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{ClientMessageId, ConnId, MessageId, MessageSeq};
use crate::limits::REDELIVER_AFTER;
use crate::store::TxnId;
use crate::store::mesh::MessageRow;
use crate::time::Mono;
use crate::wire::{Priority, Status};

/// Bytes of message kept in memory for one recipient before the rest is left to the store.
const WARM_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub struct Owed {
    /// The warm part, in order of acceptance.
    rows: BTreeMap<MessageSeq, Delivery>,
    by_id: BTreeMap<MessageId, MessageSeq>,
    ready: BTreeSet<MessageSeq>,
    claimed: BTreeSet<MessageSeq>,
    warm_bytes: usize,
    /// Everything owed, warm and cold.
    messages: usize,
    bytes: usize,
    cold: Option<Cold>,
    /// The highest number that was ever warm.
    warm_upto: MessageSeq,
    /// The transaction of the latest settlement.
    settled: TxnId,
    last_ticket: u64,
    /// What was not taken when memory let go of it: to be read again when more is taken.
    passed_over: Option<Takes>,
}

/// Which messages a recipient takes for the first time. What was pushed once is pushed again
/// whatever it takes by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    pub status: Status,
    /// The connection that its mail goes to opens suite x1.
    pub opens_x1: bool,
}

impl Takes {
    #[must_use]
    pub fn status_lets(self, priority: Priority, attempts: u32) -> bool {
        attempts > 0 || self.status.takes(priority)
    }

    #[must_use]
    pub fn suite_lets(self, seal: Option<&str>) -> bool {
        self.opens_x1 || seal != Some("x1")
    }

    #[must_use]
    pub fn lets(self, message: &MessageRow, attempts: u32) -> bool {
        self.status_lets(message.priority, attempts) && self.suite_lets(message.seal.as_deref())
    }
}

#[derive(Debug)]
struct Delivery {
    message: Arc<MessageRow>,
    /// The transaction that makes it durable: it is not pushed before.
    txn: TxnId,
    /// Pushes so far.
    attempts: u32,
    claim: Option<Claim>,
    /// The connection of which the row says already that the first push goes out on it.
    foretold: Option<ConnId>,
}

/// What memory knows of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub attempts: u32,
    pub claimed: bool,
    /// When the claim ends, if its push has left.
    pub until: Option<Mono>,
}

#[derive(Debug)]
struct Claim {
    conn: ConnId,
    /// From when its last byte left; `None` until then.
    until: Option<Mono>,
}

/// The part that only the store holds.
#[derive(Clone, Copy, Debug)]
struct Cold {
    /// It begins after this number.
    after: MessageSeq,
    /// The transaction of its newest message.
    newest: TxnId,
    /// Not to be read before this is durable: the store would return what was settled already.
    not_before: TxnId,
    loading: Option<Loading>,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
struct Loading {
    ticket: u64,
    /// What the store held by then.
    durable: TxnId,
}

/// A page of the cold part to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub after: MessageSeq,
    pub limit: usize,
    /// Tells the answer to this question from one to an earlier.
    ticket: u64,
}

/// The next message to push.
#[derive(Clone, Debug)]
pub struct Next {
    pub message: Arc<MessageRow>,
    /// 1 for the first push.
    pub attempt: u32,
}

impl Owed {
    /// What an earlier owner left behind: all of it cold.
    #[must_use]
    pub fn recovered(messages: usize, bytes: usize, durable: TxnId) -> Self {
        let mut owed = Self {
            messages,
            bytes,
            ..Self::default()
        };
        owed.chill_from(MessageSeq(0), durable);
        owed
    }

    /// A message accepted now. `keep`: the recipient is present, so memory may hold it.
    /// `foretold`: see [`Self::claim`].
    pub fn accept(
        &mut self,
        message: Arc<MessageRow>,
        txn: TxnId,
        keep: bool,
        most_warm: usize,
        foretold: Option<ConnId>,
    ) {
        let weight = message.weight();
        self.messages += 1;
        self.bytes += weight;
        if let Some(cold) = &mut self.cold {
            cold.newest = txn;
            return;
        }
        if !keep || self.rows.len() >= most_warm || self.warm_bytes + weight > WARM_BYTES {
            self.chill_from(self.warm_upto, txn);
            return;
        }
        self.insert(message, txn, foretold);
    }

    /// Lets go of what is not taken, where it keeps out the cold part. How many messages.
    pub fn pass_over(&mut self, takes: Takes, most_warm: usize) -> usize {
        let reads = self.cold.is_some_and(|cold| cold.loading.is_none());
        if !reads || self.has_room(most_warm) {
            return 0;
        }
        let passed = self.let_go(|delivery| !takes.lets(&delivery.message, delivery.attempts));
        if passed > 0 {
            self.passed_over = Some(takes);
        }
        passed
    }

    /// Where something was passed over that may be taken now: reads on from the beginning, so that
    /// order holds. True if so.
    pub fn rewind(&mut self, takes: Takes, newest: TxnId) -> bool {
        if self.passed_over.is_none_or(|before| before == takes) {
            return false;
        }
        self.passed_over = None;
        self.let_go(|delivery| delivery.attempts == 0);
        self.chill_from(MessageSeq(0), newest);
        true
    }

    /// The next page to load, if the warm part has room. `durable`: what the store holds by now.
    pub fn page(&mut self, durable: TxnId, most_warm: usize) -> Option<Page> {
        if !self.has_room(most_warm) {
            return None;
        }
        let room = most_warm - self.rows.len();
        let cold = self.cold.as_mut()?;
        if cold.loading.is_some() || durable < cold.not_before {
            return None;
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        cold.loading = Some(Loading { ticket, durable });
        Some(Page {
            after: cold.after,
            limit: room.max(1),
            ticket,
        })
    }

    /// A page of the cold part. It may be warm now; if not, another page is due.
    pub fn paged(&mut self, page: Page, messages: Vec<MessageRow>) {
        let Some(cold) = self.cold else { return };
        let Some(loading) = cold.loading.filter(|loading| loading.ticket == page.ticket) else {
            return;
        };
        let complete = messages.len() < page.limit && loading.durable >= cold.newest;
        let mut after = cold.after;
        for message in messages {
            after = message.seq;
            if !self.rows.contains_key(&after) {
                // What the store returned is durable.
                self.insert(Arc::new(message), TxnId(0), None);
            }
        }
        self.cold = (!complete).then_some(Cold {
            after,
            loading: None,
            ..cold
        });
    }

    /// Lets go of what memory holds: the peer left. Nothing owed is forgotten.
    pub fn chill(&mut self, newest: TxnId) {
        self.rows.clear();
        self.by_id.clear();
        self.ready.clear();
        self.claimed.clear();
        self.warm_bytes = 0;
        self.passed_over = None;
        self.chill_from(MessageSeq(0), newest);
    }

    /// The oldest message that is durable and that `takes` lets through; `None` if there is none
    /// or the window is full.
    #[must_use]
    pub fn next(
        &self,
        durable: TxnId,
        window: usize,
        mut takes: impl FnMut(&MessageRow, u32) -> bool,
    ) -> Option<Next> {
        if self.claimed.len() >= window {
            return None;
        }
        self.ready
            .iter()
            .filter_map(|seq| self.rows.get(seq))
            .take_while(|delivery| delivery.txn <= durable)
            .find(|delivery| takes(&delivery.message, delivery.attempts))
            .map(|delivery| Next {
                message: Arc::clone(&delivery.message),
                attempt: delivery.attempts + 1,
            })
    }

    /// It goes out on `conn`. Its time begins with [`Self::left`]. True where the row has to be told:
    /// it was not foretold with the accept.
    pub fn claim(&mut self, seq: MessageSeq, conn: ConnId) -> bool {
        let Some(delivery) = self.rows.get_mut(&seq) else {
            return false;
        };
        delivery.attempts += 1;
        delivery.claim = Some(Claim { conn, until: None });
        self.ready.remove(&seq);
        self.claimed.insert(seq);
        delivery.foretold.take() != Some(conn)
    }

    /// Whether a message accepted now would be pushed as soon as it is durable, as far as what is
    /// owed decides it.
    #[must_use]
    pub fn is_next(&self, window: usize) -> bool {
        self.cold.is_none() && self.ready.is_empty() && self.claimed.len() < window
    }

    /// `None`: memory does not hold it.
    #[must_use]
    pub fn known(&self, seq: MessageSeq) -> Option<Known> {
        let delivery = self.rows.get(&seq)?;
        Some(Known {
            attempts: delivery.attempts,
            claimed: delivery.claim.is_some(),
            until: delivery.claim.as_ref().and_then(|claim| claim.until),
        })
    }

    /// Its last byte was handed to the socket of `conn`: the claim's time begins.
    pub fn left(&mut self, seq: MessageSeq, conn: ConnId, now: Mono, first: Duration) {
        let Some(delivery) = self.rows.get_mut(&seq) else {
            return;
        };
        let term = claim_term(delivery.attempts, first);
        if let Some(claim) = delivery.claim.as_mut().filter(|claim| claim.conn == conn) {
            claim.until = Some(now + term);
        }
    }

    /// When the earliest claim ends.
    #[must_use]
    pub fn claim_ends(&self) -> Option<Mono> {
        self.claimed
            .iter()
            .filter_map(|seq| self.rows.get(seq)?.claim.as_ref()?.until)
            .min()
    }

    /// Claims that ended are `ready` again. How many.
    pub fn expire_claims(&mut self, now: Mono) -> usize {
        self.unclaim(|claim| claim.until.is_some_and(|until| until <= now))
    }

    /// The connection is gone: what it held is `ready` again.
    pub fn release(&mut self, conn: ConnId) -> usize {
        self.unclaim(|claim| claim.conn == conn)
    }

    /// Settles a delivery, whatever its state: an acknowledgement that comes after its claim
    /// expired is still true. `txn`: the transaction that will say so.
    pub fn settle(&mut self, id: &MessageId, txn: TxnId) -> Option<Arc<MessageRow>> {
        let seq = self.by_id.remove(id)?;
        let delivery = self.rows.remove(&seq)?;
        self.ready.remove(&seq);
        self.claimed.remove(&seq);
        let weight = delivery.message.weight();
        self.warm_bytes -= weight;
        self.bytes -= weight;
        self.messages -= 1;
        self.note_settled(seq, txn);
        Some(delivery.message)
    }

    /// The same for one that only the store holds: a page of it says that it is owed.
    pub fn settle_cold(&mut self, seq: MessageSeq, weight: usize, txn: TxnId) {
        self.bytes = self.bytes.saturating_sub(weight);
        self.messages = self.messages.saturating_sub(1);
        self.note_settled(seq, txn);
    }

    /// The one message pushed to `conn` and unacknowledged that has this sender's id, if exactly
    /// one has.
    #[must_use]
    pub fn pushed_with_client_id(&self, conn: ConnId, id: &ClientMessageId) -> Option<MessageId> {
        let mut matching = self
            .claimed
            .iter()
            .filter_map(|seq| self.rows.get(seq))
            .filter(|delivery| {
                delivery
                    .claim
                    .as_ref()
                    .is_some_and(|claim| claim.conn == conn)
            })
            .filter(|delivery| delivery.message.client_message_id == *id);
        let found = matching.next()?;
        matching.next().is_none().then(|| found.message.id.clone())
    }

    /// Messages owed, warm and cold.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn warm(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn claimed(&self) -> usize {
        self.claimed.len()
    }

    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.cold.is_some()
    }

    fn note_settled(&mut self, seq: MessageSeq, txn: TxnId) {
        self.settled = txn;
        if let Some(cold) = self.cold.as_mut().filter(|cold| seq > cold.after) {
            // A page that is under way may hold it still.
            cold.loading = None;
            cold.not_before = txn;
        }
    }

    fn has_room(&self, most_warm: usize) -> bool {
        let room = most_warm.saturating_sub(self.rows.len());
        room * 2 >= most_warm && self.warm_bytes * 2 <= WARM_BYTES
    }

    /// Of what is ready; the store keeps it.
    fn let_go(&mut self, which: impl Fn(&Delivery) -> bool) -> usize {
        let rows = &self.rows;
        let gone: Vec<MessageSeq> = self
            .ready
            .iter()
            .copied()
            .filter(|seq| rows.get(seq).is_some_and(&which))
            .collect();
        for seq in &gone {
            self.ready.remove(seq);
            if let Some(delivery) = self.rows.remove(seq) {
                self.warm_bytes -= delivery.message.weight();
                self.by_id.remove(&delivery.message.id);
            }
        }
        gone.len()
    }

    fn chill_from(&mut self, after: MessageSeq, newest: TxnId) {
        let not_before = self.settled;
        self.cold = (self.messages > 0).then_some(Cold {
            after,
            newest,
            not_before,
            loading: None,
        });
    }

    fn insert(&mut self, message: Arc<MessageRow>, txn: TxnId, foretold: Option<ConnId>) {
        let seq = message.seq;
        self.warm_upto = self.warm_upto.max(seq);
        self.warm_bytes += message.weight();
        self.by_id.insert(message.id.clone(), seq);
        self.ready.insert(seq);
        self.rows.insert(
            seq,
            Delivery {
                message,
                txn,
                attempts: 0,
                claim: None,
                foretold,
            },
        );
    }

    fn unclaim(&mut self, mut which: impl FnMut(&Claim) -> bool) -> usize {
        let rows = &mut self.rows;
        let freed: Vec<MessageSeq> = self
            .claimed
            .iter()
            .copied()
            .filter(|seq| {
                rows.get(seq)
                    .and_then(|row| row.claim.as_ref())
                    .is_some_and(&mut which)
            })
            .collect();
        for seq in &freed {
            if let Some(delivery) = rows.get_mut(seq) {
                delivery.claim = None;
            }
            self.claimed.remove(seq);
            self.ready.insert(*seq);
        }
        freed.len()
    }
}

/// The first claim, then 1, 2, 4, then every 5 min: a live peer that does not acknowledge is not
/// helped by being flooded.
#[must_use]
pub fn claim_term(attempts: u32, first: Duration) -> Duration {
    match attempts {
        0 | 1 => first,
        n => {
            let index = (n as usize - 2).min(REDELIVER_AFTER.len() - 1);
            REDELIVER_AFTER[index].max(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Fingerprint, PeerKey, PubKey};
    use crate::time::Wall;
    use crate::wire::Base64Body;

    const CLAIM: Duration = Duration::from_secs(30);
    const CONN: ConnId = ConnId(1);

    fn message(seq: u64) -> MessageRow {
        MessageRow {
            seq: MessageSeq(seq),
            id: alloc::format!("m{seq}").into(),
            sender: PeerKey::Session(PubKey([1; 32])),
            sender_pubkey: PubKey([1; 32]),
            sender_member: "member".into(),
            sender_name: "sender".into(),
            target_spec: "target".into(),
            priority: Priority::Next,
            nonce: Base64Body::encode(&[0; 24]),
            ciphertext: Base64Body::encode(b"x"),
            client_message_id: alloc::format!("c{seq}").into(),
            fingerprint: Fingerprint([0; 32]),
            reply_to: None,
            body_version: None,
            seal: None,
            created_at: Wall(0),
        }
    }

    fn warm(n: u64) -> Owed {
        let mut owed = Owed::default();
        for seq in 1..=n {
            owed.accept(Arc::new(message(seq)), TxnId(seq), true, 100, None);
        }
        owed
    }

    fn next(owed: &Owed) -> Option<u64> {
        owed.next(TxnId(u64::MAX), 256, |_, _| true)
            .map(|next| next.message.seq.0)
    }

    #[test]
    fn a_message_that_is_not_durable_is_not_pushed_nor_overtaken() {
        let owed = warm(3);
        assert!(owed.next(TxnId(0), 256, |_, _| true).is_none());
        assert_eq!(
            owed.next(TxnId(1), 256, |_, _| true)
                .map(|n| n.message.seq.0),
            Some(1)
        );
    }

    #[test]
    fn what_a_status_holds_back_does_not_keep_out_what_it_lets_through() {
        let dnd = Takes {
            status: Status::Dnd,
            opens_x1: true,
        };
        let idle = Takes {
            status: Status::Idle,
            ..dnd
        };
        let mut store: Vec<MessageRow> = (1..=5).map(message).collect();
        store[4].priority = Priority::Now;
        let bytes = store.iter().map(MessageRow::weight).sum();
        let mut owed = Owed::recovered(5, bytes, TxnId(1));
        let read = |owed: &mut Owed| {
            while let Some(page) = owed.page(TxnId(1), 2) {
                let from_store = store.iter().filter(|row| row.seq > page.after);
                let rows = from_store.take(page.limit).cloned().collect();
                owed.paged(page, rows);
            }
        };
        read(&mut owed);
        while owed.pass_over(dnd, 2) > 0 {
            read(&mut owed);
        }
        let urgent = owed.next(TxnId(1), 9, |row, n| dnd.lets(row, n));
        assert_eq!(urgent.map(|next| next.message.seq.0), Some(5));
        owed.claim(MessageSeq(5), CONN);
        assert!(!owed.rewind(dnd, TxnId(1)), "no more is taken than before");
        assert!(owed.rewind(idle, TxnId(1)));
        let mut order = Vec::new();
        loop {
            read(&mut owed);
            let Some(next) = owed.next(TxnId(1), 9, |row, n| idle.lets(row, n)) else {
                break;
            };
            order.push(next.message.seq.0);
            owed.claim(next.message.seq, CONN);
            owed.settle(&next.message.id, TxnId(1));
        }
        assert_eq!(
            order,
            [1, 2, 3, 4],
            "the one that is claimed is not read again"
        );
        assert_eq!(owed.messages(), 1);
    }

    #[test]
    fn an_expired_claim_is_ready_again_and_the_claim_begins_when_the_push_left() {
        let mut owed = warm(1);
        owed.claim(MessageSeq(1), CONN);
        assert_eq!(owed.claim_ends(), None, "its push has not left");
        assert_eq!(next(&owed), None);
        owed.left(MessageSeq(1), CONN, Mono(5), CLAIM);
        assert_eq!(owed.claim_ends(), Some(Mono(5) + CLAIM));
        assert_eq!(owed.expire_claims(Mono(4) + CLAIM), 0);
        assert_eq!(owed.expire_claims(Mono(5) + CLAIM), 1);
        assert_eq!(next(&owed), Some(1));
        assert_eq!(owed.messages(), 1, "claiming is not settling");
    }

    #[test]
    fn an_acknowledgement_after_the_claim_expired_still_settles() {
        let mut owed = warm(2);
        owed.claim(MessageSeq(1), CONN);
        owed.left(MessageSeq(1), CONN, Mono(0), CLAIM);
        owed.expire_claims(Mono(0) + CLAIM);
        assert!(owed.settle(&"m1".into(), TxnId(9)).is_some());
        assert_eq!(owed.settle(&"m1".into(), TxnId(9)), None);
        assert_eq!(next(&owed), Some(2));
    }

    #[test]
    fn the_window_is_refilled_by_an_acknowledgement() {
        let mut owed = warm(3);
        owed.claim(MessageSeq(1), CONN);
        owed.claim(MessageSeq(2), CONN);
        assert!(owed.next(TxnId(9), 2, |_, _| true).is_none());
        owed.settle(&"m1".into(), TxnId(9));
        assert!(owed.next(TxnId(9), 2, |_, _| true).is_some());
    }

    #[test]
    fn a_client_id_settles_only_if_exactly_one_push_has_it() {
        let mut owed = warm(1);
        assert_eq!(
            owed.pushed_with_client_id(CONN, &"c1".into()),
            None,
            "not pushed yet"
        );
        owed.claim(MessageSeq(1), CONN);
        assert_eq!(
            owed.pushed_with_client_id(CONN, &"c1".into()),
            Some("m1".into())
        );
        assert_eq!(owed.pushed_with_client_id(ConnId(2), &"c1".into()), None);
        let twin = MessageRow {
            client_message_id: "c1".into(),
            ..message(2)
        };
        owed.accept(Arc::new(twin), TxnId(2), true, 100, None);
        owed.claim(MessageSeq(2), CONN);
        assert_eq!(owed.pushed_with_client_id(CONN, &"c1".into()), None);
    }

    #[test]
    fn a_cold_backlog_is_paged_in_order_and_new_messages_queue_behind_it() {
        let mut owed = Owed::default();
        let mut store: Vec<MessageRow> = Vec::new();
        for seq in 1..=5 {
            owed.accept(Arc::new(message(seq)), TxnId(seq), false, 2, None);
            store.push(message(seq));
        }
        assert!(owed.is_cold() && next(&owed).is_none());
        let mut seen = Vec::new();
        // What the store holds when it is asked lags by one: the machine must ask again.
        let mut durable = TxnId(4);
        while seen.len() < 5 {
            if let Some(page) = owed.page(durable, 2) {
                let rows = store
                    .iter()
                    .filter(|row| row.seq > page.after && row.seq.0 <= durable.0)
                    .take(page.limit)
                    .cloned()
                    .collect();
                owed.paged(page, rows);
                durable = TxnId(5);
            }
            let Some(seq) = next(&owed) else { continue };
            seen.push(seq);
            owed.claim(MessageSeq(seq), CONN);
            owed.settle(&alloc::format!("m{seq}").into(), TxnId(5));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!((owed.messages(), owed.bytes()), (0, 0));
        // One more look finds nothing left, and the recipient is warm again.
        if let Some(page) = owed.page(durable, 2) {
            owed.paged(page, Vec::new());
        }
        assert!(!owed.is_cold());
    }

    #[test]
    fn leaving_is_not_forgetting() {
        let mut owed = warm(3);
        owed.claim(MessageSeq(1), CONN);
        owed.chill(TxnId(3));
        assert_eq!((owed.messages(), owed.warm(), owed.claimed()), (3, 0, 0));
        assert!(owed.page(TxnId(3), 100).is_some());
    }

    #[test]
    fn what_was_settled_is_not_read_back_before_the_settlement_is_durable() {
        let mut owed = warm(2);
        owed.settle(&"m1".into(), TxnId(7));
        owed.chill(TxnId(7));
        assert_eq!(owed.page(TxnId(6), 100), None);
        assert!(owed.page(TxnId(7), 100).is_some());
    }

    #[test]
    fn redelivery_slows_down() {
        let terms: Vec<u64> = (1..=7).map(|n| claim_term(n, CLAIM).as_secs()).collect();
        assert_eq!(terms, [30, 60, 120, 240, 300, 300, 300]);
    }
}

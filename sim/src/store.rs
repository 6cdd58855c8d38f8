//! A store that loses what was not committed: the reference images of core behind a driver that is
//! slow, groups commits, is away, is full, commits without saying so, and finds itself fenced.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use bowline_core::id::LoadId;
use bowline_core::store::{self, Owner, Stall, Term, Txn, TxnId};

use crate::cast::MeshIndex;
use crate::fault_mark::FaultMark;
use crate::kernel::{Kernel, NodeEvent, NodeId};
use crate::random::{Purpose, Stream};

/// What core calls the image of a store, under one face.
pub trait Image: Default {
    type Op: Clone;
    type Load;
    type Loaded;
    type Recovered;

    fn apply(&mut self, op: &Self::Op);
    fn load(&self, load: &Self::Load) -> Self::Loaded;
    fn recover(&self, owner: Owner) -> Self::Recovered;
}

macro_rules! image {
    ($module:ident) => {
        impl Image for store::$module::Image {
            type Op = store::$module::Op;
            type Load = store::$module::Load;
            type Loaded = store::$module::Loaded;
            type Recovered = store::$module::Recovered;

            fn apply(&mut self, op: &Self::Op) {
                self.apply(op);
            }

            fn load(&self, load: &Self::Load) -> Self::Loaded {
                self.load(load)
            }

            fn recover(&self, owner: Owner) -> Self::Recovered {
                self.recover(owner)
            }
        }
    };
}

image!(mesh);
image!(host);

impl Image for store::registry::Image {
    type Op = store::registry::Op;
    type Load = Infallible;
    type Loaded = store::registry::Loaded;
    type Recovered = store::registry::Recovered;

    fn apply(&mut self, op: &Self::Op) {
        self.apply(op);
    }

    fn load(&self, load: &Infallible) -> Self::Loaded {
        match *load {}
    }

    fn recover(&self, owner: Owner) -> Self::Recovered {
        self.recover(owner)
    }
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct StoreProfile {
    pub commit_least_us: u64,
    pub commit_most_us: u64,
    /// Transactions to one commit.
    pub group_most: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFault {
    /// Every commit and look-up fails.
    Unavailable,
    /// Every commit fails, look-ups are answered.
    Full,
    /// Commits go through; the driver hears an error.
    Unheard,
    /// Commits take this many times as long.
    Slow,
}

/// What survives a crash: the image and the owner row.
#[derive(Debug, Default)]
pub struct Durable<I> {
    pub image: I,
    pub owner: Owner,
    pub fault: Option<StoreFault>,
}

/// Why a batch was not committed, ever: the process halts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Another owner.
    Fenced,
    Broken(String),
}

impl<I: Image> Durable<I> {
    /// A new owner takes over: whoever was it before is fenced.
    pub fn take_over(&mut self) -> (Term, I::Recovered) {
        self.owner.term = Term(self.owner.term.0 + 1);
        (self.owner.term, self.image.recover(self.owner))
    }

    /// One database transaction behind `UPDATE owner`, as core's `store` describes it. Answers how
    /// many of the batch had been there before.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn commit(&mut self, term: Term, batch: &[Txn<I::Op>]) -> Result<usize, Refused> {
        if self.owner.term != term {
            return Err(Refused::Fenced);
        }
        let mut expected = batch[0].id;
        for txn in batch {
            if txn.id != expected {
                return Err(Refused::Broken(format!(
                    "transaction {} follows {}",
                    txn.id.0,
                    expected.0.saturating_sub(1)
                )));
            }
            expected = expected.next();
        }
        let watermark = self.owner.last_txn;
        if watermark.next() < batch[0].id {
            return Err(Refused::Broken(format!(
                "transaction {} was emitted, the store holds {}",
                batch[0].id.0, watermark.0
            )));
        }
        let were_there = batch.iter().filter(|txn| txn.id <= watermark).count();
        for txn in &batch[were_there..] {
            for op in txn.ops.iter() {
                self.image.apply(op);
            }
            self.owner.last_txn = txn.id;
        }
        Ok(were_there)
    }
}

/// The durable part, shared by whoever believes that it owns it.
pub type Shared<I> = Rc<RefCell<Durable<I>>>;

/// One process's driver of a store. Dies with its process.
#[derive(Debug)]
pub struct Driver<I: Image> {
    durable: Shared<I>,
    profile: StoreProfile,
    node: NodeId,
    /// A broker has one for each mesh.
    which: MeshIndex,
    term: Term,
    queue: VecDeque<Txn<I::Op>>,
    /// So many of the queue's front are being committed.
    committing: usize,
    loads: VecDeque<(u64, LoadId, I::Load)>,
    loads_begun: u64,
    draws: Stream,
}

/// What a driver has to say after an event of its own.
pub enum Said<I: Image> {
    Nothing,
    Event(store::Event<I::Loaded>),
    /// The process halts: another owner, or a transaction that can never be applied.
    Fenced,
    Broken(String),
}

impl<I: Image> Driver<I> {
    /// Starts an owner: raises the term.
    pub fn start(
        durable: &Shared<I>,
        profile: StoreProfile,
        node: NodeId,
        which: MeshIndex,
        k: &Kernel,
    ) -> (Self, I::Recovered) {
        let (term, recovered) = durable.borrow_mut().take_over();
        let entity = (which as u64) << 56 | (node as u64) << 32 | term.0;
        let driver = Self {
            durable: Rc::clone(durable),
            profile,
            node,
            which,
            term,
            queue: VecDeque::new(),
            committing: 0,
            loads: VecDeque::new(),
            loads_begun: 0,
            draws: k.random.stream(Purpose::Commit, entity),
        };
        (driver, recovered)
    }

    pub fn submit(&mut self, k: &mut Kernel, txn: Txn<I::Op>) {
        self.queue.push_back(txn);
        self.commit_next(k);
    }

    pub fn load(&mut self, k: &mut Kernel, load: LoadId, what: I::Load) {
        self.loads_begun += 1;
        self.loads.push_back((self.loads_begun, load, what));
        let us = self.latency_us();
        let (store, nth) = (self.which, self.loads_begun);
        k.tell_later(us, self.node, NodeEvent::Loaded { store, nth });
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    #[must_use]
    pub fn loads_in_flight(&self) -> usize {
        self.loads.len()
    }

    /// The commit in hand is through, or is not.
    pub fn committed(&mut self, k: &mut Kernel, ops: &mut Vec<(TxnId, Vec<I::Op>)>) -> Said<I> {
        let count = std::mem::take(&mut self.committing);
        if count == 0 {
            return Said::Nothing;
        }
        let fault = self.durable.borrow().fault;
        match fault {
            Some(StoreFault::Unavailable) => return self.stall(k, Stall::Unavailable),
            Some(StoreFault::Full) => return self.stall(k, Stall::Full),
            Some(StoreFault::Unheard | StoreFault::Slow) | None => {}
        }
        let batch: Vec<Txn<I::Op>> = self.queue.drain(..count).collect();
        let upto = match self.apply(k, &batch, ops) {
            Ok(upto) => upto,
            Err(said) => return said,
        };
        if fault == Some(StoreFault::Unheard) {
            k.fault_marks.hit(FaultMark::CommitUnheard);
            return self.stall(k, Stall::Unavailable);
        }
        self.commit_next(k);
        Said::Event(store::Event::Persisted { upto })
    }

    pub fn loaded(&mut self, k: &mut Kernel, nth: u64) -> Said<I> {
        let Some(at) = self.loads.iter().position(|(own, ..)| *own == nth) else {
            return Said::Nothing;
        };
        if self.durable.borrow().fault == Some(StoreFault::Unavailable) {
            return self.stall(k, Stall::Unavailable);
        }
        let (_, load, what) = self.loads.remove(at).expect("its position was just found");
        let loaded = self.durable.borrow().image.load(&what);
        Said::Event(store::Event::Loaded { load, loaded })
    }

    /// The process dies: a random prefix of what it had emitted is durable.
    pub fn crash(mut self, k: &mut Kernel, ops: &mut Vec<(TxnId, Vec<I::Op>)>) {
        let fault = self.durable.borrow().fault;
        if self.queue.is_empty()
            || matches!(fault, Some(StoreFault::Unavailable | StoreFault::Full))
        {
            return;
        }
        let of = (self.which as u64) << 32 | self.node as u64;
        let draw = k.random.draw(Purpose::CrashPrefix, of, k.now.0);
        let survive = (draw % (self.queue.len() as u64 + 1)) as usize;
        k.fault_marks.hit(match survive {
            0 => FaultMark::CrashLostAllInFlight,
            n if n == self.queue.len() => FaultMark::CrashKeptAllInFlight,
            _ => FaultMark::CrashKeptSomeInFlight,
        });
        let batch: Vec<Txn<I::Op>> = self.queue.drain(..survive).collect();
        if !batch.is_empty() {
            // A fenced driver leaves nothing behind.
            let _ = self.apply(k, &batch, ops);
        }
    }

    fn apply(
        &mut self,
        k: &mut Kernel,
        batch: &[Txn<I::Op>],
        ops: &mut Vec<(TxnId, Vec<I::Op>)>,
    ) -> Result<TxnId, Said<I>> {
        let mut held = self.durable.borrow_mut();
        let were_there = match held.commit(self.term, batch) {
            Ok(were_there) => were_there,
            Err(Refused::Fenced) => {
                k.fault_marks.hit(FaultMark::Fenced);
                return Err(Said::Fenced);
            }
            Err(Refused::Broken(why)) => return Err(Said::Broken(why)),
        };
        if were_there > 0 {
            k.fault_marks.hit(FaultMark::WatermarkFound);
        }
        for txn in &batch[were_there..] {
            k.trace.fold(&[0xc0, self.node as u64, txn.id.0]);
            ops.push((txn.id, txn.ops.to_vec()));
        }
        Ok(held.owner.last_txn)
    }

    fn stall(&mut self, k: &mut Kernel, stall: Stall) -> Said<I> {
        k.fault_marks.hit(match stall {
            Stall::Full => FaultMark::StoreFull,
            Stall::Unavailable => FaultMark::StoreUnavailable,
        });
        self.queue.clear();
        self.loads.clear();
        self.committing = 0;
        Said::Event(store::Event::Stalled(stall))
    }

    fn commit_next(&mut self, k: &mut Kernel) {
        if self.committing > 0 || self.queue.is_empty() {
            return;
        }
        self.committing = self.queue.len().min(self.profile.group_most);
        let us = self.latency_us();
        let store = self.which;
        k.tell_later(us, self.node, NodeEvent::Committed { store });
    }

    fn latency_us(&mut self) -> u64 {
        let slow = match self.durable.borrow().fault {
            Some(StoreFault::Slow) => 20,
            _ => 1,
        };
        slow * self
            .draws
            .magnitude(self.profile.commit_least_us, self.profile.commit_most_us)
    }
}

//! One owner at the writer: what it waits for, its watermark, and what it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bowline_core::id::LoadId;
use bowline_core::store::{Event, Owner, Stall, Term, Txn, TxnId};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, Halt};

/// The tables of one kind of owner.
pub trait Rows: Send + 'static {
    type Op: Send + Sync + 'static;
    type Load: Send + 'static;
    type Loaded: Send + 'static;
    type Recovered: Send + 'static;

    /// # Errors
    /// Whatever SQLite says.
    fn apply(db: &Connection, owner: &str, op: &Self::Op) -> rusqlite::Result<()>;

    /// # Errors
    /// Whatever SQLite says.
    fn load(db: &Connection, owner: &str, what: &Self::Load) -> rusqlite::Result<Self::Loaded>;

    /// # Errors
    /// Whatever SQLite says.
    fn recover(db: &Connection, owner: &str, found: Owner) -> rusqlite::Result<Self::Recovered>;
}

/// What a machine handed over and the writer has not picked up yet.
pub(super) struct Waiting<R: Rows> {
    txns: VecDeque<Txn<R::Op>>,
    loads: VecDeque<(LoadId, R::Load)>,
}

/// Shared by an owner's handle and its desk.
pub(super) type Tray<R> = Arc<Mutex<Waiting<R>>>;

pub(super) fn tray<R: Rows>() -> Tray<R> {
    Arc::new(Mutex::new(Waiting {
        txns: VecDeque::new(),
        loads: VecDeque::new(),
    }))
}

pub(super) fn put_txn<R: Rows>(tray: &Tray<R>, txn: Txn<R::Op>) {
    let mut waiting = tray.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.txns.push_back(txn);
}

pub(super) fn put_load<R: Rows>(tray: &Tray<R>, load: LoadId, what: R::Load) {
    let mut waiting = tray.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.loads.push_back((load, what));
}

/// An owner of any kind, as the writer sees it.
pub(super) trait Desk: Send {
    /// Picks up what waits.
    fn collect(&mut self);
    fn has_txns(&self) -> bool;
    fn has_loads(&self) -> bool;
    /// Inside the group's transaction: moves the owner row and applies what follows it.
    fn write(&mut self, db: &Connection) -> Result<(), Fault>;
    /// The group's transaction is durable.
    fn committed(&mut self);
    /// Forgets all and says so.
    fn stalled(&mut self, stall: Stall);
    fn read(&mut self, db: &Connection) -> Result<(), Fault>;
}

pub(super) struct OwnerDesk<R: Rows> {
    owner: String,
    term: Term,
    tray: Tray<R>,
    txns: VecDeque<Txn<R::Op>>,
    loads: VecDeque<(LoadId, R::Load)>,
    /// How many of `txns` are in the group under way, and what they reach.
    writing: usize,
    reached: TxnId,
    /// Since a stall: transactions beyond this one were emitted by a machine that had not heard of
    /// it yet. They are forgotten with the others, until it begins again from here.
    resumes_at: Option<TxnId>,
    events: Box<dyn FnMut(Event<R::Loaded>) + Send>,
}

impl<R: Rows> OwnerDesk<R> {
    pub(super) fn new(
        owner: String,
        found: Owner,
        tray: Tray<R>,
        events: Box<dyn FnMut(Event<R::Loaded>) + Send>,
    ) -> Self {
        Self {
            owner,
            term: found.term,
            tray,
            txns: VecDeque::new(),
            loads: VecDeque::new(),
            writing: 0,
            reached: found.last_txn,
            resumes_at: None,
            events,
        }
    }

    /// The transactions at the front that follow one another. A machine that sends again begins
    /// anew behind what it sent before: that is the next group's.
    fn run_length(&self) -> usize {
        let ids = self.txns.iter().map(|txn| txn.id);
        let following = ids.clone().skip(1);
        1 + ids
            .zip(following)
            .take_while(|(one, two)| *two == one.next())
            .count()
    }

    /// Moves the owner row from `from` to `to` under our term.
    fn advance(&self, db: &Connection, from: TxnId, to: TxnId) -> Result<bool, Fault> {
        db.prepare_cached(
            "UPDATE owner SET last_txn = ?4 WHERE mesh = ?1 AND term = ?2 AND last_txn = ?3",
        )
        .and_then(|mut update| {
            update.execute(params![
                self.owner,
                int(self.term.0),
                int(from.0),
                int(to.0)
            ])
        })
        .map(|rows| rows == 1)
        .map_err(|error| self.fault(&error))
    }

    /// Where the owner row stands, given that it did not move.
    fn watermark(&self, db: &Connection) -> Result<TxnId, Fault> {
        let row = db
            .prepare_cached("SELECT term, last_txn FROM owner WHERE mesh = ?1")
            .and_then(|mut select| {
                select
                    .query_row([&self.owner], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                    })
                    .optional()
            })
            .map_err(|error| self.fault(&error))?;
        let Some((term, last_txn)) = row else {
            return Err(Fault::broken(&self.owner, "its owner row is gone"));
        };
        if uint(term) != self.term.0 {
            return Err(Fault::Halt(Halt::Fenced {
                owner: self.owner.clone(),
                ours: self.term,
                found: Term(uint(term)),
            }));
        }
        Ok(TxnId(uint(last_txn)))
    }

    fn fault(&self, error: &rusqlite::Error) -> Fault {
        Fault::of(&self.owner, error)
    }
}

impl<R: Rows> Desk for OwnerDesk<R> {
    fn collect(&mut self) {
        let mut waiting = self.tray.lock().unwrap_or_else(PoisonError::into_inner);
        for txn in waiting.txns.drain(..) {
            if self.resumes_at.is_some_and(|at| txn.id > at) {
                continue;
            }
            self.resumes_at = None;
            self.txns.push_back(txn);
        }
        self.loads.append(&mut waiting.loads);
    }

    fn has_txns(&self) -> bool {
        !self.txns.is_empty()
    }

    fn has_loads(&self) -> bool {
        !self.loads.is_empty()
    }

    fn write(&mut self, db: &Connection) -> Result<(), Fault> {
        self.writing = self.run_length();
        let group = self.txns.iter().take(self.writing);
        let Some(first) = group.clone().next().map(|txn| txn.id) else {
            return Ok(());
        };
        let last = TxnId(first.0 + self.writing as u64 - 1);
        let before = TxnId(first.0 - 1);

        let mut applied = before;
        if !self.advance(db, before, last)? {
            let found = self.watermark(db)?;
            if found < first {
                return Err(Fault::broken(
                    &self.owner,
                    format!(
                        "transaction {} came, but the last one held is {}",
                        first.0, found.0
                    ),
                ));
            }
            // An earlier commit went through unheard.
            applied = found;
            if found < last && !self.advance(db, found, last)? {
                return Err(Fault::broken(&self.owner, "its owner row moved under us"));
            }
        }
        for txn in group.filter(|txn| txn.id > applied) {
            for op in txn.ops.iter() {
                R::apply(db, &self.owner, op).map_err(|error| self.fault(&error))?;
            }
        }
        self.reached = last.max(applied);
        Ok(())
    }

    fn committed(&mut self) {
        self.txns.drain(..self.writing);
        self.writing = 0;
        (self.events)(Event::Persisted { upto: self.reached });
    }

    fn stalled(&mut self, stall: Stall) {
        self.collect();
        if let Some(first) = self.txns.front() {
            self.resumes_at = Some(first.id);
        }
        self.txns.clear();
        self.loads.clear();
        self.writing = 0;
        (self.events)(Event::Stalled(stall));
    }

    fn read(&mut self, db: &Connection) -> Result<(), Fault> {
        while let Some((load, what)) = self.loads.pop_front() {
            let loaded = R::load(db, &self.owner, &what).map_err(|error| self.fault(&error))?;
            (self.events)(Event::Loaded { load, loaded });
        }
        Ok(())
    }
}

/// SQLite's integers are signed; what does not fit is further away than any clock or count of ours.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Nothing negative is ever written.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

//! The writer: one thread, one connection, group commit.
//!
//! Everything that waits goes into one database transaction, each owner behind its own savepoint and
//! its own owner row; one fsync serves them all. Reads run behind the writes that came before them.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bowline_core::id::LoadId;
use bowline_core::store::{Event, Owner, Stall, Term, Txn, TxnId};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::Store;
use super::desk::{Desk, OwnerDesk, Rows, Tray, put_load, put_txn, tray, uint};
use super::fault::{Fault, Halt};

/// Owns the writer's thread. Dropping it stops the thread after what waits is committed.
pub(super) struct Driver {
    signals: mpsc::Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// Why an owner could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenOwnerError {
    #[error("the database did not take the new term: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("the store has stopped")]
    Stopped,
}

impl Driver {
    /// `on_halt` is called at most once, on the writer's thread; after it nothing is written.
    pub(super) fn start(
        db: Connection,
        on_halt: impl FnOnce(Halt) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (signals, received) = mpsc::channel();
        let writer = Writer {
            db,
            desks: Vec::new(),
            busy: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("bowline-store".into())
            .spawn(move || {
                if let Err(halt) = writer.run(&received) {
                    tracing::error!(%halt, "the store halts the process");
                    on_halt(halt);
                }
            })?;
        Ok(Self {
            signals,
            thread: Some(thread),
        })
    }

    /// Raises the owner's term by one, durably, and reads back what it remembers. Whoever opened it
    /// before is fenced from here on.
    pub(super) async fn open<R: Rows>(
        &self,
        owner: &str,
        events: impl FnMut(Event<R::Loaded>) + Send + 'static,
    ) -> Result<(Handle<R>, R::Recovered), OpenOwnerError> {
        let (answer, answered) = oneshot::channel();
        let owner = owner.to_owned();
        let tray = tray::<R>();
        let desk_tray = tray.clone();
        let opening: Opening = Box::new(move |writer| {
            let opened = writer.open::<R>(owner, desk_tray, Box::new(events));
            // The caller has gone: so has its machine.
            let _caller_gone = answer.send(opened);
        });
        self.signals
            .send(Signal::Open(opening))
            .map_err(|_| OpenOwnerError::Stopped)?;
        let (slot, recovered) = answered.await.map_err(|_| OpenOwnerError::Stopped)??;
        let handle = Handle {
            slot,
            tray,
            signals: self.signals.clone(),
            rows: PhantomData,
        };
        Ok((handle, recovered))
    }

    /// Commits what waits and ends the thread.
    pub(super) fn stop(&mut self) {
        let _halted_before = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own thread.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An owner's end of the driver.
pub struct Handle<R: Rows> {
    slot: usize,
    tray: Tray<R>,
    signals: mpsc::Sender<Signal>,
    rows: PhantomData<R>,
}

impl<R: Rows> Handle<R> {
    fn wake(&self) {
        // A driver that has halted is ending the process.
        let _halted = self.signals.send(Signal::Work(self.slot));
    }
}

impl<R: Rows> Store<R::Op, R::Load> for Handle<R> {
    fn persist(&mut self, txn: Txn<R::Op>) {
        put_txn(&self.tray, txn);
        self.wake();
    }

    fn load(&mut self, load: LoadId, what: R::Load) {
        put_load(&self.tray, load, what);
        self.wake();
    }
}

enum Signal {
    Open(Opening),
    /// Something lies in the tray of this desk.
    Work(usize),
    Stop,
}

type Opening = Box<dyn FnOnce(&mut Writer) + Send>;

struct Writer {
    db: Connection,
    desks: Vec<Box<dyn Desk>>,
    /// Desks with something to do.
    busy: BTreeSet<usize>,
}

impl Writer {
    fn run(mut self, signals: &mpsc::Receiver<Signal>) -> Result<(), Halt> {
        let mut stopping = false;
        while !stopping {
            let Ok(first) = signals.recv() else {
                return Ok(());
            };
            // Everything that waits goes into one group.
            for signal in std::iter::once(first).chain(signals.try_iter()) {
                match signal {
                    Signal::Open(opening) => opening(&mut self),
                    Signal::Work(slot) => {
                        self.busy.insert(slot);
                    }
                    Signal::Stop => stopping = true,
                }
            }
            while !self.busy.is_empty() {
                self.serve()?;
            }
        }
        Ok(())
    }

    fn open<R: Rows>(
        &mut self,
        owner: String,
        tray: Tray<R>,
        events: Box<dyn FnMut(Event<R::Loaded>) + Send>,
    ) -> Result<(usize, R::Recovered), OpenOwnerError> {
        let txn = self.db.transaction()?;
        let found = raise_term(&txn, &owner)?;
        txn.commit()?;
        let recovered = R::recover(&self.db, &owner, found)?;
        self.desks
            .push(Box::new(OwnerDesk::<R>::new(owner, found, tray, events)));
        Ok((self.desks.len() - 1, recovered))
    }

    /// One group commit, and the reads that waited behind it.
    fn serve(&mut self) -> Result<(), Halt> {
        let mut writers = Vec::new();
        for slot in std::mem::take(&mut self.busy) {
            let desk = &mut self.desks[slot];
            desk.collect();
            if desk.has_txns() {
                writers.push(slot);
            }
            if desk.has_txns() || desk.has_loads() {
                self.busy.insert(slot);
            }
        }
        if !writers.is_empty() {
            match self.commit(&writers) {
                Ok(()) => writers
                    .iter()
                    .for_each(|slot| self.desks[*slot].committed()),
                Err(fault) => {
                    let stall = stall_or_halt(fault)?;
                    writers
                        .iter()
                        .for_each(|slot| self.desks[*slot].stalled(stall));
                }
            }
        }
        for slot in std::mem::take(&mut self.busy) {
            let desk = &mut self.desks[slot];
            // Written in two groups: its reads wait for the second.
            if desk.has_txns() {
                self.busy.insert(slot);
                continue;
            }
            if let Err(fault) = desk.read(&self.db) {
                desk.stalled(stall_or_halt(fault)?);
            }
        }
        Ok(())
    }

    fn commit(&mut self, writers: &[usize]) -> Result<(), Fault> {
        let outcome = self.write_all(writers);
        if outcome.is_err() && !self.db.is_autocommit() {
            // SQLite rolls back by itself after some errors, and not after others. Should this one
            // fail too, the next BEGIN says so.
            if let Err(error) = self.db.execute_batch("ROLLBACK") {
                tracing::warn!(%error, "a failed transaction could not be rolled back");
            }
        }
        outcome
    }

    fn write_all(&mut self, writers: &[usize]) -> Result<(), Fault> {
        let group = |error: rusqlite::Error| Fault::of("the database", &error);
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(group)?;
        for slot in writers {
            self.db
                .execute_batch("SAVEPOINT one_owner")
                .map_err(group)?;
            self.desks[*slot].write(&self.db)?;
            self.db.execute_batch("RELEASE one_owner").map_err(group)?;
        }
        self.db.execute_batch("COMMIT").map_err(group)
    }
}

fn stall_or_halt(fault: Fault) -> Result<Stall, Halt> {
    match fault {
        Fault::Halt(halt) => Err(halt),
        Fault::Stall { stall, detail } => {
            tracing::warn!(?stall, detail, "the store stalled");
            Ok(stall)
        }
    }
}

fn raise_term(db: &Connection, owner: &str) -> rusqlite::Result<Owner> {
    db.execute(
        "INSERT INTO owner (mesh, term, last_txn) VALUES (?1, 0, 0) ON CONFLICT DO NOTHING",
        [owner],
    )?;
    db.query_row(
        "UPDATE owner SET term = term + 1 WHERE mesh = ?1 RETURNING term, last_txn",
        params![owner],
        |row| {
            Ok(Owner {
                term: Term(uint(row.get(0)?)),
                last_txn: TxnId(uint(row.get(1)?)),
            })
        },
    )
}

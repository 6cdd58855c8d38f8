//! The simulator's store, driven by a task: what is committed survives a crash, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_core::id::{LoadId, MeshId};
use bowline_core::store::{Event, Term, Txn, host, mesh, registry};
use bowline_io::store::{BrokerStores, HostStores, OpenOwnerError, Store};
use sim::store::{Durable, Image};
use tokio::sync::{mpsc, oneshot};

/// How long the disk takes; can be changed while it is in use.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub commit: Duration,
    pub load: Duration,
}

const PACE: Pace = Pace {
    commit: Duration::from_millis(5),
    load: Duration::from_millis(2),
};

/// The disk of a broker.
#[derive(Clone)]
pub struct BrokerDisk {
    registry: Disk<registry::Image>,
    meshes: Arc<Mutex<BTreeMap<MeshId, Disk<mesh::Image>>>>,
    pace: Arc<Mutex<Pace>>,
}

/// The disk of a daemon.
#[derive(Clone)]
pub struct HostDisk(Disk<host::Image>);

/// The durable part of one owner, and how fast it is written.
struct Disk<I> {
    durable: Arc<Mutex<Durable<I>>>,
    pace: Arc<Mutex<Pace>>,
}

impl BrokerDisk {
    pub fn new() -> Self {
        let pace = Arc::new(Mutex::new(PACE));
        Self {
            registry: Disk::new(Arc::clone(&pace)),
            meshes: Arc::default(),
            pace,
        }
    }

    pub fn set_pace(&self, pace: impl FnOnce(&mut Pace)) {
        pace(&mut lock(&self.pace));
    }

    fn mesh(&self, id: &MeshId) -> Disk<mesh::Image> {
        lock(&self.meshes)
            .entry(id.clone())
            .or_insert_with(|| Disk::new(Arc::clone(&self.pace)))
            .clone()
    }
}

impl HostDisk {
    pub fn new() -> Self {
        Self(Disk::new(Arc::new(Mutex::new(PACE))))
    }

    pub fn set_pace(&self, pace: impl FnOnce(&mut Pace)) {
        pace(&mut lock(&self.0.pace));
    }
}

/// What a broker's process holds of its disk.
pub struct OpenBroker {
    disk: BrokerDisk,
    writers: Writers,
}

/// What a daemon's process holds of its disk.
pub struct OpenHost {
    disk: HostDisk,
    writers: Writers,
}

impl OpenBroker {
    pub fn of(disk: &BrokerDisk) -> Self {
        Self {
            disk: disk.clone(),
            writers: Writers::default(),
        }
    }
}

impl OpenHost {
    pub fn of(disk: &HostDisk) -> Self {
        Self {
            disk: disk.clone(),
            writers: Writers::default(),
        }
    }
}

impl BrokerStores for OpenBroker {
    type Mesh = Writer<mesh::Image>;
    type Registry = Writer<registry::Image>;

    async fn open_mesh(
        &self,
        mesh: &MeshId,
        events: impl FnMut(Event<mesh::Loaded>) + Send + 'static,
    ) -> Result<(Self::Mesh, mesh::Recovered), OpenOwnerError> {
        Ok(self.disk.mesh(mesh).open(&self.writers, events))
    }

    async fn open_registry(
        &self,
        events: impl FnMut(Event<registry::Loaded>) + Send + 'static,
    ) -> Result<(Self::Registry, registry::Recovered), OpenOwnerError> {
        Ok(self.disk.registry.open(&self.writers, events))
    }

    async fn finish(self) -> io::Result<()> {
        self.writers.finish().await
    }
}

impl HostStores for OpenHost {
    type Host = Writer<host::Image>;

    async fn open_host(
        &self,
        events: impl FnMut(Event<host::Loaded>) + Send + 'static,
    ) -> Result<(Self::Host, host::Recovered), OpenOwnerError> {
        Ok(self.disk.0.open(&self.writers, events))
    }

    async fn finish(self) -> io::Result<()> {
        self.writers.finish().await
    }
}

/// An owner's end of its writer's task.
pub struct Writer<I: Image> {
    orders: mpsc::UnboundedSender<Order<I>>,
}

enum Order<I: Image> {
    Txn(Txn<I::Op>),
    Load(LoadId, I::Load),
    Finish(oneshot::Sender<()>),
}

impl<I> Store<I::Op, I::Load> for Writer<I>
where
    I: Image + 'static,
    I::Op: Send + Sync,
    I::Load: Send,
{
    fn persist(&mut self, txn: Txn<I::Op>) {
        self.tell(Order::Txn(txn));
    }

    fn load(&mut self, load: LoadId, what: I::Load) {
        self.tell(Order::Load(load, what));
    }
}

impl<I: Image> Writer<I> {
    /// A writer that has halted took the process with it.
    fn tell(&self, order: Order<I>) {
        let _halted = self.orders.send(order);
    }
}

/// How each writer of a process is told to come to its end.
#[derive(Default)]
struct Writers(Mutex<Vec<Box<dyn Fn(oneshot::Sender<()>) + Send + Sync>>>);

impl Writers {
    async fn finish(self) -> io::Result<()> {
        let writers = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for finish in writers {
            let (done, finished) = oneshot::channel();
            finish(done);
            finished.await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl<I> Disk<I>
where
    I: Image + Send + 'static,
    I::Op: Send + Sync,
    I::Load: Send,
    I::Loaded: Send,
{
    fn open(
        &self,
        writers: &Writers,
        events: impl FnMut(Event<I::Loaded>) + Send + 'static,
    ) -> (Writer<I>, I::Recovered) {
        let (term, recovered) = lock(&self.durable).take_over();
        let (orders, received) = mpsc::unbounded_channel();
        let finish = orders.clone();
        let finish = move |done| {
            let _halted = finish.send(Order::Finish(done));
        };
        lock(&writers.0).push(Box::new(finish));
        tokio::spawn(self.clone().write(term, received, events));
        (Writer { orders }, recovered)
    }

    /// Everything that waits goes into one commit; what is read is read behind it.
    async fn write(
        self,
        term: Term,
        mut orders: mpsc::UnboundedReceiver<Order<I>>,
        mut events: impl FnMut(Event<I::Loaded>) + Send + 'static,
    ) {
        while let Some(first) = orders.recv().await {
            let mut batch = Vec::new();
            let mut behind = None;
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Txn(txn) => batch.push(txn),
                    other => {
                        behind = Some(other);
                        break;
                    }
                }
                next = orders.try_recv().ok();
            }
            if !batch.is_empty() {
                let commit = lock(&self.pace).commit;
                tokio::time::sleep(commit).await;
                let committed = lock(&self.durable).commit(term, &batch);
                committed.expect("it is the owner, and its transactions come in order");
                let upto = batch.last().expect("it is not empty").id;
                events(Event::Persisted { upto });
            }
            match behind {
                Some(Order::Load(load, what)) => {
                    let read = lock(&self.pace).load;
                    tokio::time::sleep(read).await;
                    let loaded = lock(&self.durable).image.load(&what);
                    events(Event::Loaded { load, loaded });
                }
                Some(Order::Finish(done)) => {
                    let _gone = done.send(());
                    return;
                }
                Some(Order::Txn(_)) | None => {}
            }
        }
    }
}

impl<I: Image> Disk<I> {
    fn new(pace: Arc<Mutex<Pace>>) -> Self {
        Self {
            durable: Arc::new(Mutex::new(Durable::default())),
            pace,
        }
    }
}

impl<I> Clone for Disk<I> {
    fn clone(&self) -> Self {
        Self {
            durable: Arc::clone(&self.durable),
            pace: Arc::clone(&self.pace),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

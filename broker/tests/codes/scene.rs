//! Two sessions in a mesh, and a store that can be taken away.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bowline_broker::Running;
use bowline_core::id::{LoadId, MeshId};
use bowline_core::limits::Limits;
use bowline_core::store::mesh::{Load, Loaded, MemberRole, Op, Recovered};
use bowline_core::store::{Event, Stall, Txn, registry};
use bowline_io::clock::{Clock, SystemClock};
use bowline_io::store::{
    BROKER_DATABASE, BrokerDatabase, BrokerStores, Handle, MeshRows, OpenOwnerError, RegistryRows,
    Store,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::{At, BrokerProcess, Client, Member, SOON, Session, TestMesh, send_frame};

/// Ada of an admin's and bob of a member's, both live.
pub struct Scene {
    pub broker: BrokerProcess,
    pub admin: Member,
    pub member: Member,
    pub ada: Session,
    pub bob: Session,
    pub a: Client,
    pub b: Client,
}

impl Scene {
    pub async fn start(limits: &[&str]) -> Self {
        let broker = BrokerProcess::start(limits);
        let mesh = TestMesh::create(&broker, "team").await;
        let admin = mesh.member_with(&broker, MemberRole::Admin).await;
        let member = mesh.member(&broker).await;
        let (ada, bob) = (admin.session("ada"), member.session("bob"));
        let (mut a, _) = ada.join(&broker).await;
        let (b, _) = bob.join(&broker).await;
        assert_eq!(a.expect("event").await["event"], "peer_joined");
        Self {
            broker,
            admin,
            member,
            ada,
            bob,
            a,
            b,
        }
    }
}

/// A send under an id that was never used: the broker need not look it up.
pub fn first_send(id: &str, to: &Session) -> Value {
    let mut send = send_frame(id, &to.key(), 20);
    send["first"] = json!(true);
    send
}

/// Until `/readyz` says so.
pub async fn until_ready(broker: &At, is_ready: bool) {
    let status = if is_ready { 200 } else { 503 };
    let said = timeout(SOON, async {
        while broker.request("GET", "/readyz", &Value::Null).await.0 != status {
            tokio::task::yield_now().await;
        }
    });
    said.await
        .unwrap_or_else(|_| panic!("/readyz never was {status}"));
}

/// Another connection writes to the broker's database, and does not come to an end.
pub struct WriteLock {
    _held: rusqlite::Connection,
}

impl WriteLock {
    pub fn take(dir: &Path) -> Self {
        let held = rusqlite::Connection::open(dir.join(BROKER_DATABASE)).expect("opened");
        held.busy_timeout(SOON).expect("a timeout can be set");
        held.execute_batch("BEGIN IMMEDIATE").expect("locked");
        Self { _held: held }
    }
}

/// A broker in this process over a disk that can be full.
pub struct OnFullDisk {
    pub at: At,
    pub is_full: Arc<AtomicBool>,
    pub running: Running<FullableStores>,
    _temp: tempfile::TempDir,
}

impl OnFullDisk {
    pub async fn start() -> Self {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let clock = SystemClock;
        let on_halt = |why| panic!("the store halted: {why}");
        let database =
            BrokerDatabase::open(temp.path(), clock.now().wall, on_halt).expect("opened");
        let is_full = Arc::new(AtomicBool::new(false));
        let stores = FullableStores {
            database,
            is_full: Arc::clone(&is_full),
        };
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let seeds = bowline_broker::seed::from_system;
        let running = Running::start(socket, clock, stores, seeds, Limits::default())
            .await
            .expect("it starts");
        Self {
            at: At { address },
            is_full,
            running,
            _temp: temp,
        }
    }
}

pub struct FullableStores {
    database: BrokerDatabase,
    is_full: Arc<AtomicBool>,
}

/// Says `Full` to every write while its disk is.
pub struct FullableStore {
    store: Handle<MeshRows>,
    is_full: Arc<AtomicBool>,
    events: Events,
}

type Events = Arc<Mutex<dyn FnMut(Event<Loaded>) + Send>>;

impl BrokerStores for FullableStores {
    type Mesh = FullableStore;
    type Registry = Handle<RegistryRows>;

    async fn open_mesh(
        &self,
        mesh: &MeshId,
        events: impl FnMut(Event<Loaded>) + Send + 'static,
    ) -> Result<(FullableStore, Recovered), OpenOwnerError> {
        let events: Events = Arc::new(Mutex::new(events));
        let of_database = {
            let events = Arc::clone(&events);
            move |event| tell(&events, event)
        };
        let (store, recovered) = self.database.open_mesh(mesh, of_database).await?;
        let store = FullableStore {
            store,
            is_full: Arc::clone(&self.is_full),
            events,
        };
        Ok((store, recovered))
    }

    async fn open_registry(
        &self,
        events: impl FnMut(Event<registry::Loaded>) + Send + 'static,
    ) -> Result<(Self::Registry, registry::Recovered), OpenOwnerError> {
        self.database.open_registry(events).await
    }

    async fn finish(self) -> io::Result<()> {
        self.database.finish().await
    }
}

impl Store<Op, Load> for FullableStore {
    fn persist(&mut self, txn: Txn<Op>) {
        if self.is_full.load(Ordering::Relaxed) {
            tell(&self.events, Event::Stalled(Stall::Full));
        } else {
            self.store.persist(txn);
        }
    }

    fn load(&mut self, load: LoadId, what: Load) {
        self.store.load(load, what);
    }
}

fn tell(events: &Events, event: Event<Loaded>) {
    events.lock().unwrap_or_else(PoisonError::into_inner)(event);
}

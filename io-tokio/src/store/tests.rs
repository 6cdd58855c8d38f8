//! The SQLite drivers against the core's images, and what they do when the disk, a lost answer or a
//! second owner gets in the way.

mod broker;
mod daemon;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bowline_core::entropy::Entropy;
use bowline_core::id::{Fingerprint, LoadId, MemberId, PeerKey, PubKey};
use bowline_core::store::{Event, Stall, Txn, TxnId};
use bowline_core::time::Wall;
use bowline_core::wire::{Base64Body, Priority, Suite};

use super::Store;
use super::desk::Rows;
use super::driver::{Driver, Handle};
use super::fault::Halt;
use super::file::{self, Kind, OpenError};

const PATIENCE: Duration = Duration::from_secs(20);
const NOW: Wall = Wall(1_767_225_600_000);

/// A driver over a file, and what it says.
struct Bench {
    driver: Driver,
    halts: Receiver<Halt>,
}

/// One owner of it.
struct Client<R: Rows> {
    handle: Handle<R>,
    recovered: R::Recovered,
    events: Receiver<Event<R::Loaded>>,
}

impl Bench {
    fn open(path: &Path, kind: &Kind) -> Self {
        Self::open_limited(path, kind, None)
    }

    /// `pages`: the disk is full beyond these.
    fn open_limited(path: &Path, kind: &Kind, pages: Option<u32>) -> Self {
        let db = file::open(path, kind, NOW).expect("the database opens");
        if let Some(pages) = pages {
            db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .expect("the limit is taken");
        }
        let (halted, halts) = mpsc::channel();
        let driver = Driver::start(db, move |halt| {
            halted.send(halt).expect("the test listens");
        })
        .expect("a thread starts");
        Self { driver, halts }
    }

    async fn client<R: Rows>(&self, owner: &str) -> Client<R> {
        let (said, events) = mpsc::channel();
        let (handle, recovered) = self
            .driver
            .open::<R>(owner, tell(said))
            .await
            .expect("the owner opens");
        Client {
            handle,
            recovered,
            events,
        }
    }
}

fn tell<T: Send + 'static>(to: Sender<T>) -> impl FnMut(T) + Send + 'static {
    move |event| {
        // A test that has seen enough no longer listens.
        let _done = to.send(event);
    }
}

impl<R: Rows> Client<R> {
    fn persist(&mut self, id: u64, ops: Vec<R::Op>) {
        self.handle.persist(Txn {
            id: TxnId(id),
            ops: Arc::new(ops),
        });
    }

    fn load(&mut self, what: R::Load) -> R::Loaded {
        self.handle.load(LoadId(7), what);
        loop {
            match self.next() {
                Event::Loaded { load, loaded } => {
                    assert_eq!(load, LoadId(7));
                    return loaded;
                }
                Event::Persisted { .. } => {}
                Event::Stalled(stall) => panic!("stalled: {stall:?}"),
            }
        }
    }

    fn next(&self) -> Event<R::Loaded> {
        self.events
            .recv_timeout(PATIENCE)
            .expect("the driver answers")
    }

    /// Waits for the watermark to reach `upto`; never beyond.
    fn await_persisted(&self, upto: u64) {
        loop {
            match self.next() {
                Event::Persisted { upto: reached } if reached == TxnId(upto) => return,
                Event::Persisted { upto: reached } => assert!(reached < TxnId(upto)),
                Event::Stalled(stall) => panic!("stalled: {stall:?}"),
                Event::Loaded { .. } => {}
            }
        }
    }

    fn await_stall(&self) -> Stall {
        loop {
            match self.next() {
                Event::Stalled(stall) => return stall,
                Event::Persisted { .. } => {}
                Event::Loaded { load, .. } => panic!("{load} was answered"),
            }
        }
    }
}

/// Values for rows, from a seed.
struct Draw(Entropy);

impl Draw {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(Entropy::from_seed(bytes))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.coin() { Some(make(self)) } else { None }
    }

    /// One of `of` names, so that rows meet.
    fn id<T: From<String>>(&mut self, prefix: &str, of: u64) -> T {
        format!("{prefix}{}", self.below(of)).into()
    }

    fn pubkey(&mut self, of: u64) -> PubKey {
        PubKey([self.below(of) as u8 * 37; 32])
    }

    fn peer(&mut self, of: u64) -> PeerKey {
        if self.coin() {
            PeerKey::Session(self.pubkey(of))
        } else {
            PeerKey::Member(self.id::<MemberId>("member:", of))
        }
    }

    fn fingerprint(&mut self) -> Fingerprint {
        Fingerprint(self.0.bytes())
    }

    /// Also what SQL, JSON and C strings would stumble over.
    fn text(&mut self) -> String {
        const PARTS: [&str; 6] = ["o'clock", "\"", "\0", "ünïcode ☃", "", "\\u0000;--"];
        (0..self.below(4))
            .map(|_| PARTS[self.0.below(PARTS.len() as u64) as usize])
            .collect()
    }

    fn wall(&mut self) -> Wall {
        Wall(NOW.0 + self.below(1 << 40))
    }

    fn base64(&mut self) -> Base64Body {
        let len = self.below(64) as usize;
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        Base64Body::encode(&bytes)
    }

    fn suite(&mut self) -> Option<Suite> {
        self.some(|draw| Suite::ALL[draw.below(2) as usize])
    }

    fn priority(&mut self) -> Priority {
        [Priority::Now, Priority::Next, Priority::Low][self.below(3) as usize]
    }
}

fn new_path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("some.db");
    (dir, path)
}

const STRANGER: Kind = Kind {
    file: "stranger.db",
    lock: "stranger.lock",
    application_id: 0x1234_5678,
    migrations: &[],
};

#[test]
fn a_foreign_database_is_left_alone() {
    let (_dir, path) = new_path();
    drop(file::open(&path, &STRANGER, NOW).expect("a new file is anybody's"));
    let before = std::fs::read(&path).expect("it is readable");
    assert!(matches!(
        file::open(&path, &broker::KIND, NOW),
        Err(OpenError::Foreign { .. })
    ));
    assert_eq!(before, std::fs::read(&path).expect("it is readable"));
}

#[test]
fn what_is_no_database_or_is_damaged_is_refused_with_the_command_that_helps() {
    let (_dir, path) = new_path();
    std::fs::write(&path, vec![b'x'; 8192]).expect("it is writable");
    let error = file::open(&path, &broker::KIND, NOW).expect_err("it is no database");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");

    let (_dir, path) = new_path();
    drop(file::open(&path, &broker::KIND, NOW).expect("a new file"));
    let mut bytes = std::fs::read(&path).expect("it is readable");
    // Behind the header page: the pages of the tables.
    for byte in &mut bytes[4096..3 * 4096] {
        *byte = 0x5a;
    }
    std::fs::write(&path, &bytes).expect("it is writable");
    let error = file::open(&path, &broker::KIND, NOW).expect_err("it is damaged");
    assert!(error.to_string().contains(".recover"), "{error}");
    assert_eq!(bytes, std::fs::read(&path).expect("it is readable"));
}

#[test]
fn a_database_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("data");
    file::private_dir(&dir).expect("it is made");
    let path = dir.join("some.db");
    let db = file::open(&path, &broker::KIND, NOW).expect("it opens");
    db.execute("INSERT INTO owner VALUES ('m', 1, 0)", [])
        .expect("a write makes the -wal file");
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("it exists")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&dir), 0o700);
    for file in ["some.db", "some.db-wal", "some.db-shm"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}

//! The SQLite drivers in real time: a process commits batches and says so, and is killed at any
//! moment. What it said is there, and every batch is there whole or not at all.
//!
//! The writer is this test binary again ([`the_process_that_is_killed`]). What it left is copied and
//! judged in the copy, so that the next writer finds exactly what the kill left behind.

#[path = "sqlite_kills/batches.rs"]
mod batches;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bowline_core::entropy::Entropy;
use bowline_core::id::{LoadId, MessageSeq, ReceiptNumber};
use bowline_core::store::host::{InboxFilter, OutboxFilter, Scope};
use bowline_core::store::{Event, Txn, TxnId, host, mesh, registry};
use bowline_core::time::Wall;
use bowline_io::store::{
    BROKER_DATABASE, BrokerDatabase, BrokerStores, DAEMON_DATABASE, DaemonDatabase, HostStores,
    Store,
};
use rusqlite::Connection;

const SEED: u64 = 1;
const LIVES: u64 = 24;
/// Lives that are to end before the database is open, and lives that may be spent on them.
const UNFINISHED: u64 = 8;
const BEGINNINGS: u64 = 80;
/// Batches of one owner that may be handed over and not durable.
const WINDOW: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(20);
const NOW: Wall = Wall(1_767_225_600_000);

/// How the writer is told what to do.
const PARTY: &str = "BOWLINE_KILLS_PARTY";
const DIR: &str = "BOWLINE_KILLS_DIR";
/// Before each line of the writer, in whatever else a test binary prints.
const SAYS: &str = "> ";
const OPENING: &str = "opening";
const OPENED: &str = "opened";

#[test]
fn a_broker_killed_at_any_moment_keeps_what_it_said_it_has() {
    killed_again_and_again::<Broker>();
}

#[test]
fn a_daemon_killed_at_any_moment_keeps_what_it_said_it_has() {
    killed_again_and_again::<Daemon>();
}

#[test]
fn a_broker_killed_while_it_makes_its_database_makes_it_the_next_time() {
    killed_at_the_beginning::<Broker>();
}

#[test]
fn a_daemon_killed_while_it_makes_its_database_makes_it_the_next_time() {
    killed_at_the_beginning::<Daemon>();
}

/// Not a test by itself: it is what the others start and kill.
#[test]
fn the_process_that_is_killed() {
    let (Ok(party), Ok(dir)) = (std::env::var(PARTY), std::env::var(DIR)) else {
        return;
    };
    match party.as_str() {
        Broker::NAME => Broker::write(Path::new(&dir)),
        Daemon::NAME => Daemon::write(Path::new(&dir)),
        other => panic!("{other:?} does not write"),
    }
}

fn killed_again_and_again<P: Party>() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut draw = Entropy::from_seed([SEED as u8; 32]);
    let mut party = P::default();
    let mut said = Said::default();
    let mut logs_left = 0;
    for life in 0..LIVES {
        let moment = if draw.below(4) == 0 {
            Moment::opening(draw.below(10_000))
        } else {
            Moment {
                lines: 2 + draw.below(16),
                and_us: draw.below(10_000),
            }
        };
        let writer = Writer::start::<P>(dir.path());
        said.hear(writer.kill_at(moment));
        logs_left += u64::from(has_log::<P>(dir.path()));
        let context = format!("{}, seed {SEED}, life {life}, {moment:?}", P::NAME);
        judge(&mut party, dir.path(), &said, &context);
    }
    assert!(
        logs_left > LIVES / 2,
        "only {logs_left} of {LIVES} kills left a log to recover from"
    );
    eprintln!(
        "{}: {LIVES} kills, {logs_left} with a log: {said:?}",
        P::NAME
    );
}

fn killed_at_the_beginning<P: Party>() {
    let mut draw = Entropy::from_seed([SEED as u8; 32]);
    let mut open_within = {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Writer::start::<P>(dir.path()).time_to_open().as_micros() as u64
    };
    let mut unfinished = 0;
    for life in 0..BEGINNINGS {
        if unfinished == UNFINISHED {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut party = P::default();
        let mut said = Said::default();
        let moment = Moment::opening(draw.below(open_within));
        let context = format!("{}, seed {SEED}, life {life}, {moment:?}", P::NAME);
        let lines = Writer::start::<P>(dir.path()).kill_at(moment);
        if lines.iter().any(|line| line == OPENED) {
            open_within = moment.and_us;
        } else {
            unfinished += 1;
        }
        said.hear(lines);
        judge(&mut party, dir.path(), &said, &context);

        let moment = Moment {
            lines: 6,
            and_us: 0,
        };
        said.hear(Writer::start::<P>(dir.path()).kill_at(moment));
        judge(&mut party, dir.path(), &said, &context);
    }
    panic!("only {unfinished} of {BEGINNINGS} were killed before the database was open");
}

/// Recovers from a copy of what the kill left, and holds it to what the writer said.
fn judge<P: Party>(party: &mut P, dir: &Path, said: &Said, context: &str) {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for file in fs::read_dir(dir).expect("the directory is there") {
        let file = file.expect("it is readable");
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("it can be copied");
    }
    party.judge(copy.path(), said, context);

    let db = Connection::open(copy.path().join(P::DATABASE)).expect("it opens");
    let verdict: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it is checked");
    assert_eq!(verdict, "ok", "{context}");
    let orphans = db
        .prepare("PRAGMA foreign_key_check")
        .and_then(|mut check| check.exists([]))
        .expect("it is checked");
    assert!(!orphans, "a row refers to none: {context}");
    for (owner, table, expected) in party.rows() {
        let whose = match P::OWNED_BY {
            Some(column) => format!("WHERE {column} = '{owner}'"),
            None => String::new(),
        };
        let found: i64 = db
            .query_row(
                &format!("SELECT count(*) FROM {table} {whose}"),
                [],
                |row| row.get(0),
            )
            .expect("it is counted");
        assert_eq!(found, expected as i64, "{owner}'s {table}: {context}");
    }
}

fn has_log<P: Party>(dir: &Path) -> bool {
    fs::metadata(dir.join(format!("{}-wal", P::DATABASE))).is_ok_and(|log| log.len() > 0)
}

/// Which batches of which owner were said to be durable.
#[derive(Debug, Default)]
struct Said(BTreeMap<String, u64>);

impl Said {
    fn hear(&mut self, lines: Vec<String>) {
        for line in lines {
            let Some((owner, upto)) = line.split_once(' ') else {
                continue;
            };
            let upto = upto.parse().expect("a batch has a number");
            let before = self.0.insert(owner.to_owned(), upto);
            assert!(before < Some(upto), "{line} after {before:?}");
        }
    }

    fn of(&self, owner: &str) -> u64 {
        self.0.get(owner).copied().unwrap_or(0)
    }
}

/// When to kill: so long after so many lines.
#[derive(Clone, Copy, Debug)]
struct Moment {
    lines: u64,
    and_us: u64,
}

impl Moment {
    /// So long after the writer began to open its database.
    fn opening(and_us: u64) -> Self {
        Self { lines: 1, and_us }
    }
}

/// A writer's process. It does not outlive this.
struct Writer {
    process: Child,
    lines: Receiver<String>,
}

impl Writer {
    fn start<P: Party>(dir: &Path) -> Self {
        let this = std::env::current_exe().expect("this is a program");
        let mut process = Command::new(this)
            .args(["the_process_that_is_killed", "--exact", "--nocapture"])
            .env(PARTY, P::NAME)
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts again");
        let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
        let (heard, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).expect("it speaks in text") > 0 {
                let said = line
                    .strip_suffix('\n')
                    .and_then(|line| line.split_once(SAYS));
                if let Some((_, said)) = said {
                    // A test that has failed no longer listens.
                    let _done = heard.send(said.to_owned());
                }
                line.clear();
            }
        });
        Self { process, lines }
    }

    fn next_line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the writer says nothing"),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the writer ended by itself: {:?}", self.process.wait())
            }
        }
    }

    /// All that it said.
    fn kill_at(mut self, moment: Moment) -> Vec<String> {
        let mut lines: Vec<String> = (0..moment.lines).map(|_| self.next_line()).collect();
        // There is no event to wait for: the moment is meant to be any.
        std::thread::sleep(Duration::from_micros(moment.and_us));
        self.process.kill().expect("it can be killed");
        let status = self.process.wait().expect("it has ended");
        assert_eq!(
            status.signal(),
            Some(9),
            "the writer ended by itself: {status}"
        );
        lines.extend(self.lines.iter());
        lines
    }

    fn time_to_open(mut self) -> Duration {
        while self.next_line() != OPENING {}
        let began = Instant::now();
        while self.next_line() != OPENED {}
        began.elapsed()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Most have been killed by now.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn say(what: std::fmt::Arguments<'_>) {
    let line = format!("{SAYS}{what}\n");
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("somebody listens");
}

/// Tells the parent what is durable, then the one who hands over the next.
fn telling<L>(owner: &'static str, to: Sender<TxnId>) -> impl FnMut(Event<L>) + Send + 'static {
    move |event| match event {
        Event::Persisted { upto } => {
            say(format_args!("{owner} {}", upto.0));
            to.send(upto).expect("the writer goes on");
        }
        Event::Stalled(stall) => panic!("{owner} stalled: {stall:?}"),
        Event::Loaded { .. } => panic!("{owner} asked for nothing"),
    }
}

/// Hands batches over as long as the process lives, between one and [`WINDOW`] ahead.
fn write_on<Op, Load>(
    mut store: impl Store<Op, Load>,
    found: TxnId,
    persisted: &Receiver<TxnId>,
    batch: fn(u64) -> Vec<Op>,
) {
    let (mut handed, mut durable) = (found, found);
    loop {
        while handed.0 - durable.0 < 1 + handed.0 % WINDOW {
            handed = handed.next();
            store.persist(Txn {
                id: handed,
                ops: Arc::new(batch(handed.0)),
            });
        }
        durable = persisted.recv().expect("the store goes on");
    }
}

/// What an owner must hold: every batch up to one.
struct Expected<I> {
    image: I,
    upto: TxnId,
}

impl<I: Default> Default for Expected<I> {
    fn default() -> Self {
        Self {
            image: I::default(),
            upto: TxnId(0),
        }
    }
}

impl<I> Expected<I> {
    /// The store was found to hold every batch up to `found`: so it must hold all of their rows.
    fn reach<Op>(
        &mut self,
        found: TxnId,
        said: u64,
        context: &str,
        batch: fn(u64) -> Vec<Op>,
        apply: fn(&mut I, &Op),
    ) {
        assert!(
            found >= self.upto,
            "{found:?}, and before that {:?}: {context}",
            self.upto
        );
        assert!(
            found.0 >= said,
            "{said} was said to be durable, {found:?} is: {context}"
        );
        // A life begins behind what the one before it had in truth, said or not.
        assert!(
            found.0 <= said.max(self.upto.0) + WINDOW,
            "{found:?} was never handed over: {context}"
        );
        for number in self.upto.0 + 1..=found.0 {
            batch(number)
                .iter()
                .for_each(|op| apply(&mut self.image, op));
        }
        self.upto = found;
    }
}

/// Reads what a store answers to `what`.
fn load<Op, Load, L>(
    store: &mut impl Store<Op, Load>,
    events: &Receiver<Event<L>>,
    what: Load,
) -> L {
    store.load(LoadId(1), what);
    match events.recv_timeout(PATIENCE).expect("the store answers") {
        Event::Loaded { loaded, .. } => loaded,
        Event::Persisted { upto } => panic!("{upto:?} is durable, and nothing was written"),
        Event::Stalled(stall) => panic!("stalled: {stall:?}"),
    }
}

fn listening<L: Send + 'static>() -> (impl FnMut(Event<L>) + Send + 'static, Receiver<Event<L>>) {
    let (told, events) = mpsc::channel();
    // A test that has seen enough no longer listens.
    let tell = move |event| drop(told.send(event));
    (tell, events)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}

/// Whose driver it is.
trait Party: Default {
    const NAME: &'static str;
    const DATABASE: &'static str;
    /// The column that tells one owner's rows from another's.
    const OWNED_BY: Option<&'static str>;

    /// In the writer's process: opens, says so, and commits until it is killed.
    fn write(dir: &Path);

    /// Opens what a kill left and compares it with every batch up to the one that it says it has.
    fn judge(&mut self, dir: &Path, said: &Said, context: &str);

    /// How many rows each table of each owner must have: `(owner, table, rows)`.
    fn rows(&self) -> Vec<(&'static str, &'static str, usize)>;
}

const MESHES: [&str; 2] = ["a", "b"];
const REGISTRY: &str = "registry";

/// A registry and two meshes: their batches share commits.
#[derive(Default)]
struct Broker {
    registry: Expected<registry::Image>,
    meshes: [Expected<mesh::Image>; MESHES.len()],
}

impl Party for Broker {
    const NAME: &'static str = "broker";
    const DATABASE: &'static str = BROKER_DATABASE;
    const OWNED_BY: Option<&'static str> = Some("mesh");

    fn write(dir: &Path) {
        say(format_args!("{OPENING}"));
        let database = BrokerDatabase::open(dir, NOW, |halt| panic!("{halt}")).expect("it opens");
        let (told, registry_persisted) = mpsc::channel();
        let (registry, registry_found) =
            block_on(database.open_registry(telling(REGISTRY, told))).expect("it opens");
        let meshes = MESHES.map(|name| {
            let (told, persisted) = mpsc::channel();
            let opened = block_on(database.open_mesh(&name.into(), telling(name, told)));
            let (mesh, found) = opened.expect("it opens");
            (mesh, found.owner.last_txn, persisted)
        });
        say(format_args!("{OPENED}"));
        std::thread::scope(|threads| {
            for (mesh, found, persisted) in meshes {
                threads.spawn(move || write_on(mesh, found, &persisted, batches::of_mesh));
            }
            let found = registry_found.owner.last_txn;
            write_on(registry, found, &registry_persisted, batches::of_registry);
        });
    }

    fn judge(&mut self, dir: &Path, said: &Said, context: &str) {
        let database = BrokerDatabase::open(dir, NOW, |halt| panic!("{halt}"))
            .unwrap_or_else(|error| panic!("{error}: {context}"));
        let (tell, _) = listening();
        let (_registry, found) = block_on(database.open_registry(tell)).expect("it opens");
        self.registry.reach(
            found.owner.last_txn,
            said.of(REGISTRY),
            context,
            batches::of_registry,
            registry::Image::apply,
        );
        // Not `assert_eq`: it would fill pages.
        assert!(
            found == self.registry.image.recover(found.owner),
            "the registry recovers otherwise: {context}"
        );

        for (name, expected) in MESHES.into_iter().zip(&mut self.meshes) {
            let (tell, events) = listening();
            let (mut mesh, found) =
                block_on(database.open_mesh(&name.into(), tell)).expect("it opens");
            expected.reach(
                found.owner.last_txn,
                said.of(name),
                context,
                batches::of_mesh,
                mesh::Image::apply,
            );
            assert_eq!(found, expected.image.recover(found.owner), "{context}");
            let backlogs = batches::recipients().map(|recipient| mesh::Load::Backlog {
                recipient,
                after: MessageSeq(0),
                limit: usize::MAX,
            });
            let look_ups = expected
                .image
                .dedupe
                .keys()
                .map(|(sender, id)| mesh::Load::Dedupe {
                    sender: sender.clone(),
                    client_message_id: id.clone(),
                });
            let receipts =
                expected
                    .image
                    .receipt_numbers
                    .keys()
                    .map(|sender| mesh::Load::Receipts {
                        sender: sender.clone(),
                        after: ReceiptNumber(0),
                        limit: usize::MAX,
                    });
            for what in backlogs.chain(look_ups).chain(receipts) {
                let loaded = load(&mut mesh, &events, what.clone());
                assert!(
                    loaded == expected.image.load(&what),
                    "{what:?} of {name} is answered otherwise: {context}"
                );
            }
        }
        block_on(database.finish()).expect("it ends in good order");
    }

    fn rows(&self) -> Vec<(&'static str, &'static str, usize)> {
        MESHES
            .into_iter()
            .zip(&self.meshes)
            .flat_map(|(name, Expected { image, .. })| {
                [
                    (name, "messages", image.messages.len()),
                    (name, "dedupe", image.dedupe.len()),
                    (name, "deliveries", image.deliveries.len()),
                    (name, "peers", image.peers.len()),
                    (name, "members", image.members.len()),
                ]
            })
            .collect()
    }
}

const HOST: &str = "host";

#[derive(Default)]
struct Daemon(Expected<host::Image>);

impl Party for Daemon {
    const NAME: &'static str = "daemon";
    const DATABASE: &'static str = DAEMON_DATABASE;
    const OWNED_BY: Option<&'static str> = None;

    fn write(dir: &Path) {
        say(format_args!("{OPENING}"));
        let database = DaemonDatabase::open(dir, NOW, |halt| panic!("{halt}")).expect("it opens");
        let (told, persisted) = mpsc::channel();
        let opened = block_on(database.open_host(telling(HOST, told)));
        let (store, found) = opened.expect("it opens");
        say(format_args!("{OPENED}"));
        write_on(store, found.owner.last_txn, &persisted, batches::of_host);
    }

    fn judge(&mut self, dir: &Path, said: &Said, context: &str) {
        let database = DaemonDatabase::open(dir, NOW, |halt| panic!("{halt}"))
            .unwrap_or_else(|error| panic!("{error}: {context}"));
        let (tell, events) = listening();
        let (mut store, found) = block_on(database.open_host(tell)).expect("it opens");
        let Self(expected) = self;
        expected.reach(
            found.owner.last_txn,
            said.of(HOST),
            context,
            batches::of_host,
            host::Image::apply,
        );
        let should = expected.image.recover(found.owner);
        // Secrets have no equality and no `Debug`: they are compared below.
        assert!(
            format!("{found:?}") == format!("{should:?}"),
            "it recovers otherwise: {context}"
        );
        let secrets = |recovered: &host::Recovered| {
            let sessions = recovered.sessions.iter();
            sessions.map(|row| *row.secret.expose()).collect::<Vec<_>>()
        };
        assert!(secrets(&found) == secrets(&should), "{context}");
        let boxes = [
            host::Load::Inbox {
                scope: Scope::Everything,
                filter: InboxFilter {
                    limit: usize::MAX,
                    ..InboxFilter::default()
                },
            },
            host::Load::Outbox {
                scope: Scope::Everything,
                filter: OutboxFilter {
                    limit: usize::MAX,
                    ..OutboxFilter::default()
                },
            },
        ];
        for what in boxes {
            let loaded = load(&mut store, &events, what.clone());
            assert!(
                loaded == expected.image.load(&what),
                "{what:?} is answered otherwise: {context}"
            );
        }
        block_on(database.finish()).expect("it ends in good order");
    }

    fn rows(&self) -> Vec<(&'static str, &'static str, usize)> {
        let Self(Expected { image, .. }) = self;
        vec![
            (HOST, "outbox", image.outbox.len()),
            (HOST, "inbox", image.inbox.len()),
            (HOST, "sessions", image.sessions.len()),
            (HOST, "directory", image.directory.len()),
        ]
    }
}

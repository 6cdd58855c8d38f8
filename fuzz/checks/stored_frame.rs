//! What a client may say can be remembered: a mesh takes whatever decodes, and the broker's database
//! gives back what the mesh put into it.

use bowline_core::id::{ConnId, MessageSeq, PeerKey, PubKey, Role, Signature};
use bowline_core::limits::Limits;
use bowline_core::link::VerifiedHello;
use bowline_core::machine::Machine;
use bowline_core::mesh::{Config, Input, Mesh, Output};
use bowline_core::store::mesh::{Image, Load, MemberRole, MemberRow, Op};
use bowline_core::store::{Event, Owner, Term, TxnId};
use bowline_core::time::{Mono, Now, Wall};
use bowline_core::wire::client::{About, Offer};
use bowline_core::wire::feature::{Capabilities, Features};
use bowline_core::wire::{ClientFrame, ProtocolVersion, decode_client};
use bowline_io::store::{MeshRows, Rows};
use rusqlite::Connection;

const MESH: &str = "m1";
const NOW: Now = Now {
    mono: Mono(1_000_000),
    wall: Wall(1_700_000_000_000),
};
const CONN: ConnId = ConnId(1);
const SPEAKER: PubKey = PubKey([1; 32]);
const MEMBER: PubKey = PubKey([2; 32]);

thread_local! {
    static DATABASE: Connection = {
        let db = Connection::open_in_memory().expect("memory");
        for schema in [
            include_str!("../../migrations/broker/sqlite/0001_foundation.sql"),
            include_str!("../../migrations/broker/sqlite/0002_receipts.sql"),
        ] {
            db.execute_batch(schema).expect("our own schema");
        }
        db
    };
}

/// True where there was anything to remember.
///
/// # Panics
/// If the mesh does, if the database refuses a row, or gives back another.
pub fn stored_frame(bytes: &[u8]) -> bool {
    let Ok(frame) = decode_client(bytes) else {
        return false;
    };
    DATABASE.with(|db| {
        db.execute_batch("SAVEPOINT one_frame")
            .expect("a savepoint");
        let mut store = Stores::new(db);
        let mut mesh = store.mesh();
        match frame {
            ClientFrame::Hello(hello) => {
                let hello = VerifiedHello {
                    role: Role::ControlPlane,
                    key: PeerKey::Member("member".into()),
                    pubkey: MEMBER,
                    session_pubkey: hello.session_pubkey,
                    session_id: hello.session_id,
                    ..of(hello.about, hello.offer)
                };
                store.feed(&mut mesh, attach(hello));
            }
            ClientFrame::SessionHello(hello) => {
                let hello = VerifiedHello {
                    attestation: Some(hello.parent_attestation),
                    session_id: hello.session_id,
                    ..of(hello.about, hello.offer)
                };
                store.feed(&mut mesh, attach(hello));
            }
            mut frame => {
                store.feed(&mut mesh, attach(of(About::default(), ours())));
                // To somebody who is there, or it is refused before anything is remembered.
                if let ClientFrame::Send(send) = &mut frame {
                    send.target_spec = MEMBER.to_string();
                }
                store.rows = 0;
                store.feed(&mut mesh, Input::Frame { conn: CONN, frame });
            }
        }
        let rows = store.rows;
        store.compare();
        db.execute_batch("ROLLBACK TO one_frame; RELEASE one_frame")
            .expect("the savepoint");
        rows > 0
    })
}

/// The database, and the reference beside it.
struct Stores<'d> {
    db: &'d Connection,
    image: Image,
    upto: TxnId,
    rows: usize,
}

impl<'d> Stores<'d> {
    fn new(db: &'d Connection) -> Self {
        let mut stores = Self {
            db,
            image: Image::default(),
            upto: TxnId(0),
            rows: 0,
        };
        stores.put(&Op::MemberPut(MemberRow {
            id: "member".into(),
            pubkey: MEMBER,
            display_name: "member".into(),
            role: MemberRole::Member,
            joined_at: Wall(1),
            revoked_at: None,
        }));
        stores
    }

    fn mesh(&self) -> Mesh {
        let config = Config {
            mesh: MESH.into(),
            owner_pubkey: PubKey([9; 32]),
            open: false,
            limits: Limits::default(),
            offered_instead: Features::default(),
        };
        Mesh::new(config, [0; 32], self.image.recover(self.owner()), NOW)
    }

    fn owner(&self) -> Owner {
        Owner {
            term: Term(1),
            last_txn: self.upto,
        }
    }

    fn put(&mut self, op: &Op) {
        self.image.apply(op);
        MeshRows::apply(self.db, MESH, op).expect("whatever decodes can be stored");
        self.rows += 1;
    }

    /// Until nothing more comes of it.
    fn feed(&mut self, mesh: &mut Mesh, input: Input) {
        mesh.handle_input(NOW, input);
        loop {
            let before = self.upto;
            let mut loaded = None;
            while let Some(output) = mesh.poll_output() {
                match output {
                    Output::Persist(txn) => {
                        txn.ops.iter().for_each(|op| self.put(op));
                        self.upto = txn.id;
                    }
                    Output::Load { load, what } => {
                        let there = MeshRows::load(self.db, MESH, &what).expect("it can be read");
                        assert_eq!(there, self.image.load(&what));
                        loaded = Some(Event::Loaded {
                            load,
                            loaded: there,
                        });
                    }
                    _ => {}
                }
            }
            if let Some(loaded) = loaded {
                mesh.handle_input(NOW, Input::Store(loaded));
            } else if self.upto > before {
                let upto = self.upto;
                mesh.handle_input(NOW, Input::Store(Event::Persisted { upto }));
            } else {
                return;
            }
        }
    }

    fn compare(&self) {
        let recovered = MeshRows::recover(self.db, MESH, self.owner()).expect("it can be read");
        assert_eq!(recovered, self.image.recover(self.owner()));
        for recipient in [PeerKey::Session(SPEAKER), PeerKey::Member("member".into())] {
            let backlog = Load::Backlog {
                recipient,
                after: MessageSeq(0),
                limit: 10,
            };
            let there = MeshRows::load(self.db, MESH, &backlog).expect("it can be read");
            assert_eq!(there, self.image.load(&backlog));
        }
    }
}

fn attach(hello: VerifiedHello) -> Input {
    Input::Attach {
        conn: CONN,
        hello: Box::new(hello),
        local: false,
    }
}

/// A session of the member, whose signature was found to be right.
fn of(about: About, offer: Offer) -> VerifiedHello {
    VerifiedHello {
        mesh: MESH.into(),
        key: PeerKey::Session(SPEAKER),
        role: Role::Session,
        member_pubkey: MEMBER,
        member_id: None,
        pubkey: SPEAKER,
        session_pubkey: None,
        attestation: None,
        session_id: "session".into(),
        about,
        offer,
        version: ProtocolVersion::SPOKEN,
        timestamp: NOW.wall,
        signature: Signature([3; 64]),
    }
}

fn ours() -> Offer {
    Offer {
        capabilities: Capabilities::ours(),
        ..Offer::default()
    }
}

//! The sessions of this host: names, keys, tokens.
//!
//! Same mesh, same id: same key, also after relaunch and restart. A name belongs to one session id
//! of its mesh, so that a relaunch under a name gets its key, and its mail, back.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::answers;
use super::context::{Context, Identity, Promise};
use super::ipc::{Answer, SessionOpen};
use crate::crypto::{Crypto, SecretKey};
use crate::id::{MeshId, PubKey, Role, SessionId};
use crate::limits::{GROUPS_PER_PEER, ID_BYTES, NAME_BYTES, SESSIONS_PER_MEMBER};
use crate::store::host::{Op, SessionRow};

type Key = (MeshId, SessionId);

pub(super) struct Sessions {
    rows: BTreeMap<Key, Session>,
    /// Of those that have not ended.
    by_token: BTreeMap<[u8; 32], Key>,
    by_pubkey: BTreeMap<(MeshId, PubKey), SessionId>,
}

pub(super) struct Session {
    pub(super) row: SessionRow,
    pub(super) pubkey: PubKey,
}

impl Session {
    pub(super) fn identity(&self) -> Identity {
        Identity::session(&self.row.mesh, self.pubkey)
    }

    pub(super) fn is_live(&self) -> bool {
        self.row.ended_at.is_none()
    }
}

/// A session stands, durable when its promise is released.
pub(super) struct Opened {
    pub(super) key: Key,
    /// Told once.
    pub(super) token: String,
    /// Had the name, and lost it.
    pub(super) displaced: Option<Key>,
    /// What it says of itself is not what it said before.
    pub(super) changed: bool,
}

impl Sessions {
    pub(super) fn new(rows: Vec<SessionRow>, crypto: &dyn Crypto) -> Self {
        let mut sessions = Self {
            rows: BTreeMap::new(),
            by_token: BTreeMap::new(),
            by_pubkey: BTreeMap::new(),
        };
        for row in rows {
            let pubkey = crypto.public_key(&row.secret);
            sessions.put(Session { row, pubkey });
        }
        sessions
    }

    pub(super) fn by_token(&self, token: &str) -> Option<&Session> {
        let key = self.by_token.get(&token_hash(token))?;
        self.rows.get(key)
    }

    pub(super) fn by_identity(&self, who: &Identity) -> Option<&Session> {
        let crate::id::PeerKey::Session(pubkey) = &who.peer else {
            return None;
        };
        let id = self.by_pubkey.get(&(who.mesh.clone(), *pubkey))?;
        self.get(&who.mesh, id)
    }

    pub(super) fn get(&self, mesh: &MeshId, id: &SessionId) -> Option<&Session> {
        self.rows.get(&(mesh.clone(), id.clone()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.rows.values()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Session> {
        self.iter().filter(|session| session.is_live())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn open(
        &mut self,
        ctx: &mut Context,
        mesh: &MeshId,
        open: SessionOpen,
    ) -> Result<Opened, Answer> {
        let role = check(&open)?;
        let holder = self.holder_of(mesh, &open.display_name).map(|session| {
            let live = session.is_live();
            (session.row.id.clone(), live)
        });
        let explicit = open.session_id.clone();
        let id = match (&explicit, &holder) {
            (Some(id), _) => id.clone(),
            (None, Some((id, _))) => id.clone(),
            (None, None) => SessionId::from(ctx.new_ulid()),
        };
        // Who names its own id takes nothing from anybody.
        let taken = holder.filter(|(holder, live)| *live && explicit.as_ref() != Some(holder));
        if let (Some((holder, _)), false) = (&taken, open.take_over) {
            return Err(session_live(&open.display_name, holder));
        }
        let key = (mesh.clone(), id.clone());
        let is_live = self.rows.get(&key).is_some_and(Session::is_live);
        let live_here = self.live().filter(|s| s.row.mesh == *mesh).count();
        if !is_live && live_here >= SESSIONS_PER_MEMBER {
            return Err(answers::error(
                429,
                "capacity",
                alloc::format!("{SESSIONS_PER_MEMBER} sessions are open in this mesh; end one"),
            ));
        }
        let displaced = taken
            .map(|(holder, _)| (mesh.clone(), holder))
            .filter(|holder| *holder != key);
        let secret = match self.rows.get(&key) {
            Some(known) => known.row.secret.clone(),
            None => SecretKey::generate(&mut ctx.entropy),
        };
        let token = hex::encode(ctx.entropy.bytes::<32>());
        let row = SessionRow {
            id,
            mesh: mesh.clone(),
            name: open.display_name,
            role,
            secret,
            token_sha256: token_hash(&token),
            pid: open.pid,
            cwd: open.cwd.unwrap_or_default(),
            groups: open.groups,
            opened_at: ctx.now.wall,
            ended_at: None,
        };
        let changed = self.rows.get(&key).is_some_and(|known| {
            let said = |row: &SessionRow| (row.name.clone(), row.role, row.groups.clone());
            said(&known.row) != said(&row) || known.row.cwd != row.cwd || known.row.pid != row.pid
        });
        let pubkey = ctx.crypto.public_key(&row.secret);
        ctx.persist(Op::SessionPut(alloc::boxed::Box::new(row.clone())));
        self.put(Session { row, pubkey });
        Ok(Opened {
            key,
            token,
            displaced,
            changed,
        })
    }

    /// False if it is not there or has ended already. The token dies at once.
    pub(super) fn end(&mut self, ctx: &mut Context, key: &Key) -> bool {
        let Some(session) = self.rows.get_mut(key).filter(|s| s.is_live()) else {
            return false;
        };
        session.row.ended_at = Some(ctx.now.wall);
        self.by_token.remove(&session.row.token_sha256);
        let row = session.row.clone();
        let identity = session.identity();
        ctx.persist(Op::SessionPut(alloc::boxed::Box::new(row)));
        ctx.promise(Promise::SessionEnded(identity));
        true
    }

    /// Live sessions of a process that is gone.
    pub(super) fn of_process(&self, pid: u32) -> Vec<Key> {
        self.live()
            .filter(|session| session.row.pid == Some(pid))
            .map(|session| (session.row.mesh.clone(), session.row.id.clone()))
            .collect()
    }

    /// Who last had this name, the living before the ended.
    fn holder_of(&self, mesh: &MeshId, name: &str) -> Option<&Session> {
        self.iter()
            .filter(|session| session.row.mesh == *mesh && session.row.name == name)
            .max_by_key(|session| (session.is_live(), session.row.opened_at))
    }

    fn put(&mut self, session: Session) {
        let key = (session.row.mesh.clone(), session.row.id.clone());
        if let Some(old) = self.rows.get(&key) {
            self.by_token.remove(&old.row.token_sha256);
        }
        if session.is_live() {
            self.by_token.insert(session.row.token_sha256, key.clone());
        }
        self.by_pubkey
            .insert((key.0.clone(), session.pubkey), key.1.clone());
        self.rows.insert(key, session);
    }
}

pub(super) fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Of the IPC a wrong name is refused; only a hello cuts it.
pub(super) fn check_name(name: &str) -> Result<(), Answer> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        return Err(answers::bad_request(alloc::format!(
            "a name has 1 to {NAME_BYTES} bytes and no NUL"
        )));
    }
    Ok(())
}

fn check(open: &SessionOpen) -> Result<Role, Answer> {
    check_name(&open.display_name)?;
    let id = open.session_id.as_ref().map_or("x", SessionId::as_str);
    if id.is_empty() || id.len() > ID_BYTES || id.contains('\0') {
        return Err(answers::bad_request(alloc::format!(
            "a session id has 1 to {ID_BYTES} bytes and no NUL"
        )));
    }
    if open.groups.len() > GROUPS_PER_PEER {
        return Err(answers::bad_request(alloc::format!(
            "a session is in at most {GROUPS_PER_PEER} groups"
        )));
    }
    open.groups.iter().try_for_each(|name| check_name(name))?;
    match open.role.as_deref() {
        None | Some("session") => Ok(Role::Session),
        Some("service") => Ok(Role::Service),
        Some(_) => Err(answers::bad_request("a role is `session` or `service`")),
    }
}

fn session_live(name: &str, holder: &SessionId) -> Answer {
    let mut answer = answers::error(
        409,
        "session_live",
        alloc::format!("a session called `{name}` is open; take it over, or take another name"),
    );
    answer.body["error"]["session_id"] = serde_json::json!(holder);
    answer
}

//! A program beside a session says what the session is doing: it knows no key, only where it runs.

use super::peer::Peer;
use super::{Mesh, Response, Whose};
use crate::id::ConnId;
use crate::store::mesh::Registration;
use crate::time::Now;
use crate::wire::Status;

impl Mesh {
    pub(super) fn on_hook(&mut self, now: Now, whose: &Whose, status: Status) -> Response {
        let meant = |peer: &Peer| {
            let registration = &peer.row.as_ref()?.registration;
            let newest = self.newest_local(peer)?;
            whose
                .means(registration)
                .then_some((newest, registration.status))
        };
        let present = self.present.iter();
        let found = present
            .filter_map(|key| meant(self.peers.get(key)?))
            .max_by_key(|(conn, _)| *conn);
        let Some((conn, was)) = found else {
            return Response::NobodyThere;
        };
        // Whoever wants no disturbance says so, and takes it back, himself.
        if was != Status::Dnd {
            self.set_status(now, conn, status);
        }
        Response::StatusSet
    }

    fn newest_local(&self, peer: &Peer) -> Option<ConnId> {
        let conns = peer.lease.connections().iter();
        let is_local = |id: &&ConnId| self.conns.get(id).is_some_and(|conn| conn.local);
        conns.filter(is_local).max().copied()
    }
}

impl Whose {
    fn means(&self, registration: &Registration) -> bool {
        let about = &registration.about;
        match self {
            Self::Session(id) => registration.session_id.as_ref() == Some(id),
            Self::Process { cwd, pid } => about.cwd == *cwd && about.pid == *pid,
            Self::Directory(cwd) => about.cwd == *cwd,
        }
    }
}

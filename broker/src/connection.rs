//! WebSocket connections: which mesh each belongs to, and how all of them are closed at a stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_core::id::ConnId;
use bowline_core::mesh::Input;
use bowline_core::wire::{Close, HelloCode};
use bowline_io::http::ConnInfo;
use bowline_io::ws::{Commands, FromClient, Upstream};
use tokio::sync::mpsc;

use crate::meshes::{MeshHandle, Meshes};

/// Every connection of this process, attached or not.
#[derive(Clone)]
pub(crate) struct Connections {
    open: Arc<Mutex<HashMap<ConnId, Commands>>>,
    /// Each connection holds a clone; nothing is ever sent.
    _alive: mpsc::Sender<()>,
}

/// Resolves when every connection is gone.
pub(crate) struct AllGone(mpsc::Receiver<()>);

/// One of them, until it is dropped.
pub(crate) struct Open {
    conn: ConnId,
    connections: Connections,
}

impl Connections {
    pub(crate) fn new() -> (Self, AllGone) {
        let (alive, gone) = mpsc::channel(1);
        let connections = Self {
            open: Arc::default(),
            _alive: alive,
        };
        (connections, AllGone(gone))
    }

    pub(crate) fn add(&self, conn: ConnId, commands: Commands) -> Open {
        self.lock().insert(conn, commands);
        Open {
            conn,
            connections: self.clone(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The broker stops: clients redial, and find the next one.
    pub(crate) fn close_all(&self) {
        for commands in self.lock().values() {
            commands.close(Close::new(Close::GOING_AWAY, "the broker stops"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnId, Commands>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.conn);
    }
}

impl AllGone {
    /// `connections` must be the last handle beside those of the connections themselves.
    pub(crate) async fn wait(mut self, connections: Connections) {
        drop(connections);
        let _none = self.0.recv().await;
    }
}

/// From a connection to the mesh that its hello names.
pub(crate) struct ToMesh {
    pub(crate) conn: ConnId,
    pub(crate) commands: Commands,
    pub(crate) meshes: Arc<Meshes>,
    /// Known once the hello was verified.
    pub(crate) mesh: Option<Arc<MeshHandle>>,
    pub(crate) info: ConnInfo,
    /// It comes from this host.
    pub(crate) local: bool,
}

impl Upstream<FromClient> for ToMesh {
    async fn deliver(&mut self, event: FromClient) {
        let conn = self.conn;
        match event {
            FromClient::Attach(hello) => {
                let Some(mesh) = self.meshes.get(&hello.mesh) else {
                    self.commands.refused(HelloCode::Unauthorized);
                    return;
                };
                // No longer a handshake under way.
                self.info.release_slot();
                mesh.add(conn, self.commands.clone());
                let local = self.local;
                mesh.offer(Input::Attach { conn, hello, local }).await;
                self.mesh = Some(mesh);
            }
            FromClient::Frame(frame) => {
                if let Some(mesh) = &self.mesh {
                    mesh.offer(Input::Frame { conn, frame }).await;
                }
            }
            FromClient::Closed => {
                if let Some(mesh) = self.mesh.take() {
                    mesh.offer(Input::Closed { conn }).await;
                    mesh.remove(conn);
                }
            }
        }
    }

    fn sent(&mut self, bytes: u64) {
        if let Some(mesh) = &self.mesh {
            mesh.tell(Input::Sent {
                conn: self.conn,
                bytes,
            });
        }
    }
}

//! The daemon's machine: one host, its meshes, its sessions.

pub mod io;
pub mod ipc;

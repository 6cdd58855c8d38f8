//! The broker's machine: one mesh.

mod io;

pub use io::{Config, Input, Output, Request, Response};

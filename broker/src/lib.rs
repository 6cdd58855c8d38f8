//! The broker as a library, with a thin binary.
//!
//! A connection runs its link in a task of its own; its hello names a mesh, and from there on it
//! speaks with that mesh's machine, which runs in one task too. The store is one writer for all.
//! **Nothing is decided here.**

mod broker;
pub mod config;
mod connection;
pub mod exit;
mod http;
pub mod log;
mod meshes;
mod metrics;
mod registry;
mod running;
pub mod seed;

use std::io::Write;

pub use broker::Broker;
use config::ServeArgs;
use exit::Failure;
pub use running::{Running, Seeds};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// `serve`: until SIGTERM or SIGINT, or until the store halts. The first line on standard output
/// says that it listens, and where.
///
/// # Errors
/// See [`exit::EXIT_CODES`].
pub fn serve_until_signalled(args: ServeArgs, json: bool) -> Result<(), Failure> {
    log::init_stderr(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut broker = Broker::start(args.listen, &args.data, args.settings()).await?;
        say_ready(&broker, json)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            failure = broker.halted() => return Err(failure),
        }
        broker.stop().await
    })
}

fn say_ready(broker: &Broker, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let address = broker.address();
    if json {
        let ready = json!({ "listening": address, "pid": std::process::id() });
        writeln!(out, "{ready}")?;
    } else {
        writeln!(
            out,
            "listening on {address}; clients dial ws://{address}/ws"
        )?;
    }
    Ok(out.flush()?)
}

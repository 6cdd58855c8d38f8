//! Bowline's tokio shells: they move bytes, arm one timer, commit transactions and count.
//!
//! **No rules live in this crate.** When to expire, retry, dedupe, route, redial or cut off is
//! decided by a machine of `bowline-core`; a shell carries it out.
//!
//! A binary is wired like this:
//!
//! ```text
//! let (inputs, inbox) = drive::channel();                     // into a machine
//! let events = { let inputs = inputs.clone(); move |event| inputs.tell(Input::Store(event)) };
//! let (store, recovered) = database.open_mesh(&mesh, events).await?;
//! let machine = Mesh::new(clock.now(), config, recovered, …);
//! let task = drive::spawn_machine(machine, clock, inbox, effects);   // effects: an `Effects<Output>`
//!
//! // a broker's connection, inside the handler of `http::serve`
//! let (response, upgrade) = ws::upgrade(&mut request)?;
//! let (commands, queue) = ws::commands();                     // the mesh keeps `commands`
//! spawn(ws::run_server_connection::<TcpStream, …>(
//!     ws::next_conn_id(), upgrade, ServerLink::new(info.accepted_at, …), clock, queue, upstream));
//!
//! // a daemon's connection, on `Output::Dial { conn, plan }`
//! let (commands, queue) = ws::commands();                     // the host's effects keep `commands`
//! let dial = ws::dial(&plan.url, &net::Tcp);
//! spawn(ws::run_client_connection(conn, dial, ClientLink::new(…), clock, queue, upstream));
//! ```
//!
//! `upstream` is an [`ws::Upstream`]: it turns what a connection says into inputs of the machine,
//! by [`drive::Inputs::offer`] (waits while the machine is behind) for what comes from the other
//! side and by [`drive::Inputs::tell`] (never waits) for `Sent`.

mod alarm;
pub mod clock;
pub mod drive;
pub mod http;
pub mod net;
pub mod store;
pub mod ws;

pub use alarm::SLEEP_AT_MOST;

//! What ends a play before its end: Ctrl-C, a request to terminate, a terminal that is gone. Whoever
//! has started processes has to end them then.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals([Signal; 3]);

impl Signals {
    /// From now on these no longer end this process by themselves.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Resolves with the next of them.
    pub async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

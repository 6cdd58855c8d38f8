//! What a restart has to find again, in words: for whoever compares a live host with a recovered
//! one. Not for reading back; secrets are left out by their own `Debug`.

use alloc::format;
use alloc::string::String;

use super::Host;

impl Host {
    #[must_use]
    pub fn durable(&self) -> String {
        let mut text = String::new();
        for session in self.sessions.iter() {
            text += &format!("{} {:#?}\n", session.pubkey, session.row);
        }
        text += &self.outbox.durable();
        text += &self.receipts.in_words();
        for who in self.seen.owing() {
            text += &format!("{who:?} has read what is not told\n");
        }
        text += &self.directory.durable();
        text
    }
}

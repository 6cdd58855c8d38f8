//! What a restart has to find again, in words: for whoever compares a live mesh with a recovered
//! one. Not for reading back.

use alloc::format;
use alloc::string::String;

use super::Mesh;

impl Mesh {
    #[must_use]
    pub fn durable(&self) -> String {
        let mut text = format!("last message {}\n{:#?}\n", self.last_seq.0, self.roster);
        for (key, peer) in &self.peers {
            // Who only ever sent, over a quiet connection.
            if peer.row.is_none() && peer.owed.messages() == 0 {
                continue;
            }
            let (messages, bytes) = (peer.owed.messages(), peer.owed.bytes());
            text += &format!("{key} is owed {messages} messages, {bytes} bytes\n");
            text += &format!("{:#?}\n", peer.row);
        }
        text
    }
}

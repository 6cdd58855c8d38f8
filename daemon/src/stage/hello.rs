//! Who speaks on a connection: read from the hello that passes through the proxy.

use serde_json::Value;

/// The peer behind a connection, by its display name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    Session(String),
    Member(String),
}

/// Listens to what a client says until its hello was heard.
#[derive(Default)]
pub struct WhoSpeaks {
    heard: Vec<u8>,
    done: bool,
}

/// A hello is no longer than 8 KiB, and the upgrade before it is shorter.
const LISTENS_TO_BYTES: usize = 16 * 1024;

impl WhoSpeaks {
    /// Once, when the hello is complete.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<Who> {
        if self.done {
            return None;
        }
        self.heard.extend_from_slice(bytes);
        let who = hello_in(&self.heard);
        if who.is_some() || self.heard.len() > LISTENS_TO_BYTES {
            self.done = true;
            self.heard = Vec::new();
        }
        who
    }
}

fn hello_in(heard: &[u8]) -> Option<Who> {
    let upgraded = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let hello: Value = serde_json::from_slice(&first_text(&heard[upgraded..])?).ok()?;
    let name = hello["displayName"].as_str().unwrap_or_default().to_owned();
    match hello["type"].as_str()? {
        "session_hello" => Some(Who::Session(name)),
        "hello" => Some(Who::Member(name)),
        _ => None,
    }
}

/// The payload of the first WebSocket frame of a client: always masked (RFC 6455, 5.2).
fn first_text(frame: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = match *frame.get(1)? & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(frame.get(2..4)?.try_into().ok()?)),
            frame.get(4..)?,
        ),
        // Longer than a hello may be.
        127 => return None,
        short => (usize::from(short), frame.get(2..)?),
    };
    let mask = rest.get(..4)?;
    let payload = rest.get(4..4 + length)?;
    Some(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let length = u16::try_from(text.len()).unwrap();
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend(mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    #[test]
    fn the_hello_behind_the_upgrade_names_the_speaker_whatever_the_pieces() {
        let mut said = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        said.extend(masked(r#"{"type":"session_hello","displayName":"ada"}"#));
        said.extend(masked(r#"{"type":"bye"}"#));
        for piece in [1, 7, said.len()] {
            let mut speaks = WhoSpeaks::default();
            let heard: Vec<_> = said
                .chunks(piece)
                .filter_map(|bytes| speaks.hear(bytes))
                .collect();
            assert_eq!(heard, [Who::Session("ada".into())]);
        }
    }
}

//! G13: in a sealed mesh no body reaches the broker in clear, nor does one stand in its store. Every
//! body begins with a canary, so that it is enough to look for that, as text and as base64.

use bowline_core::store::mesh::Op;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::{CANARY, Record};

pub struct Privacy {
    needles: Vec<Vec<u8>>,
}

impl Default for Privacy {
    fn default() -> Self {
        let text = CANARY.as_bytes();
        let mut needles = vec![text.to_vec()];
        // In base64 a text shows in one of three ways; what its neighbours decide is left out.
        for shift in 0..3usize {
            let mut padded = vec![b' '; shift];
            padded.extend_from_slice(text);
            let encoded = bowline_core::wire::Base64Body::encode(&padded);
            let from = (shift * 8).div_ceil(6);
            let to = padded.len() * 8 / 6;
            needles.push(encoded.as_str().as_bytes()[from..to].to_vec());
        }
        Self { needles }
    }
}

impl Oracle for Privacy {
    fn name(&self) -> &'static str {
        "g13_privacy"
    }

    fn see(&mut self, _: Moment, record: &Record, _: &View) -> Result<(), String> {
        match record {
            Record::Reached { bytes } => self.look("a frame to the broker", bytes),
            Record::MeshCommitted { ops, .. } => {
                for op in ops {
                    if let Op::MessagePut(row) = op {
                        self.look("the broker's store", row.ciphertext.as_str().as_bytes())?;
                        self.look("the broker's store", &row.ciphertext.decode())?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Privacy {
    fn look(&self, place: &str, bytes: &[u8]) -> Result<(), String> {
        let shown = self.needles.iter().any(|needle| contains(bytes, needle));
        if shown {
            return Err(format!("a body stands in clear in {place}"));
        }
        Ok(())
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        let rest = &haystack[from + at..];
        if rest.starts_with(needle) {
            return true;
        }
        from += at + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::testing::{self, s};
    use crate::record::Token;
    use bowline_core::wire::Base64Body;

    #[test]
    fn a_body_is_found_in_clear_and_in_base64_at_any_place() {
        let token = Token {
            sender: 0,
            recipient: 1,
            nth: 2,
        };
        let judge = |bytes: Vec<u8>| {
            let bytes = bytes.into();
            let history = [(s(1), Record::Reached { bytes })];
            testing::judge(&mut Privacy::default(), &history)
        };
        for shift in 0..6 {
            let text = format!("{}{}", &"{body:"[..shift], token.body(50));
            assert!(judge(text.clone().into_bytes()).is_err());
            let encoded = Base64Body::encode(text.as_bytes());
            assert!(judge(encoded.as_str().as_bytes().to_vec()).is_err());
        }
        assert!(judge(b"{\"ciphertext\":\"bm90aGluZyB0byBzZWU=\"}".to_vec()).is_ok());
    }
}

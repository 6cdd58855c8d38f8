//! What happened: a rolling hash over everything, and the last events in words.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use crate::clock::Moment;

const KEPT: usize = 4000;

/// Two runs of one plan have the same hash, or the simulator is not deterministic.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    keep: bool,
    last: VecDeque<String>,
    scratch: String,
}

impl Trace {
    /// `keep`: the last events are also kept as text, for people.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            keep,
            last: VecDeque::new(),
            scratch: String::new(),
        }
    }

    /// Numbers only: cheap enough for every event.
    pub fn fold(&mut self, numbers: &[u64]) {
        self.lines += 1;
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash ^= self.hash >> 29;
        }
    }

    pub fn fold_bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash ^= self.hash >> 29;
        }
        for byte in chunks.remainder() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A line for people. Not part of the hash, so that it costs nothing where nobody reads it.
    pub fn say(&mut self, at: Moment, line: fmt::Arguments<'_>) {
        if !self.keep {
            return;
        }
        self.scratch.clear();
        let _ = write!(self.scratch, "{:>12.6} {line}", at.seconds());
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last
            .push_back(self.scratch.chars().take(600).collect());
    }

    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keep
    }

    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_order_and_content() {
        let hash_of = |pairs: &[[u64; 2]]| {
            let mut trace = Trace::new(false);
            pairs.iter().for_each(|pair| trace.fold(pair));
            trace.hash()
        };
        assert_eq!(hash_of(&[[1, 2], [3, 4]]), hash_of(&[[1, 2], [3, 4]]));
        assert_ne!(hash_of(&[[1, 2], [3, 4]]), hash_of(&[[3, 4], [1, 2]]));
        let mut trace = Trace::new(false);
        trace.fold_bytes(b"twelve bytes");
        assert_ne!(trace.hash(), Trace::new(false).hash());
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut trace = Trace::new(true);
        (0..KEPT + 5).for_each(|n| trace.say(Moment(0), format_args!("{n}")));
        assert_eq!(trace.last().count(), KEPT);
        assert!(trace.last().next().is_some_and(|line| line.ends_with(" 5")));
    }
}

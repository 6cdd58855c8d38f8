//! Reads a script out of the fuzzer's bytes: numbers and pieces of text, whatever the bytes are.

pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// 0 beyond the end.
    pub fn number(&mut self) -> u16 {
        let (high, low) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        u16::from_be_bytes([high, low])
    }

    /// As many bytes as the next number says, or as there are.
    pub fn piece(&mut self) -> &'a [u8] {
        let wanted = usize::from(self.number());
        let (piece, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        piece
    }
}

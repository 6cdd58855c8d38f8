//! WebSocket frames in a stream of bytes (RFC 6455, 5.2): found, taken apart and made.

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub is_last: bool,
    pub opcode: u8,
    /// A client's is masked.
    pub masked: bool,
    /// Without its mask.
    pub payload: Vec<u8>,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// Finds the frames behind the HTTP handshake.
#[derive(Default)]
pub struct Frames {
    unread: Vec<u8>,
    begun: Begun,
}

#[derive(Default, PartialEq, Eq)]
enum Begun {
    #[default]
    NotYet,
    WebSocket,
    /// Another conversation over HTTP: there are no frames in it.
    Other,
}

impl Frames {
    /// What has become whole with these bytes. The handshake itself is not shown.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.unread.extend_from_slice(bytes);
        if self.begun == Begun::NotYet {
            let Some(end) = end_of_head(&self.unread) else {
                return Vec::new();
            };
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let head = String::from_utf8_lossy(&head).to_lowercase();
            self.begun = if head.contains("upgrade: websocket") {
                Begun::WebSocket
            } else {
                Begun::Other
            };
        }
        if self.begun == Begun::Other {
            self.unread.clear();
        }
        let mut frames = Vec::new();
        while let Some((frame, length)) = parse(&self.unread) {
            frames.push(frame);
            self.unread.drain(..length);
        }
        frames
    }

    pub fn are_there(&self) -> bool {
        self.begun == Begun::WebSocket
    }

    /// The bytes of the handshake that stand in front of `bytes`, the first of this stream.
    pub fn head(bytes: &[u8]) -> &[u8] {
        &bytes[..end_of_head(bytes).unwrap_or(bytes.len())]
    }
}

impl Frame {
    pub fn text(masked: bool, text: &str) -> Self {
        Self {
            is_last: true,
            opcode: TEXT,
            masked,
            payload: text.as_bytes().to_vec(),
        }
    }

    /// The code of a close frame.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.get(..2)?;
        (self.opcode == CLOSE).then(|| u16::from_be_bytes([code[0], code[1]]))
    }

    /// The same message in `parts` frames; what is no text stays whole.
    pub fn fragments(self, parts: usize) -> Vec<Self> {
        if self.opcode != TEXT || self.payload.len() < parts {
            return vec![self];
        }
        let size = self.payload.len().div_ceil(parts);
        let pieces: Vec<&[u8]> = self.payload.chunks(size).collect();
        let last = pieces.len() - 1;
        let fragment = |(nth, piece): (usize, &&[u8])| Self {
            is_last: nth == last,
            opcode: if nth == 0 { TEXT } else { CONTINUATION },
            masked: self.masked,
            payload: piece.to_vec(),
        };
        pieces.iter().enumerate().map(fragment).collect()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.is_last, self.opcode, self.masked, self.payload.len());
        // Its mask is zero.
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The beginning of a frame of so many bytes, with a mask of zero where it has one.
pub fn head(is_last: bool, opcode: u8, masked: bool, length: usize) -> Vec<u8> {
    let mut bytes = vec![u8::from(is_last) << 7 | opcode];
    let mask = u8::from(masked) << 7;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => bytes.push(mask | short),
        (_, Ok(medium)) => {
            bytes.push(mask | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The frame at the beginning, and its length.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let mask = if masked {
        let mask: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        at += 4;
        mask
    } else {
        [0; 4]
    };
    let payload = bytes.get(at..at + length)?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    let frame = Frame {
        is_last: first & 0x80 != 0,
        opcode: first & 0x0f,
        masked,
        payload,
    };
    Some((frame, at + length))
}

#[test]
fn a_frame_that_was_taken_apart_says_the_same() {
    let text = "x".repeat(70_000);
    let mut frames = Frames::default();
    assert_eq!(frames.feed(b"HTTP/1.1 101\r\nUpgrade: websocket\r\n\r"), []);
    assert_eq!(frames.feed(b"\n"), []);
    let mut found = Vec::new();
    for fragment in Frame::text(true, &text).fragments(3) {
        for piece in fragment.encode().chunks(999) {
            found.extend(frames.feed(piece));
        }
    }
    assert_eq!(found.len(), 3);
    assert!(found[2].is_last && !found[1].is_last);
    let said: Vec<u8> = found.into_iter().flat_map(|frame| frame.payload).collect();
    assert_eq!(said, text.as_bytes());
}

//! The frames of a connection, and header blocks without compression.

use anyhow::{Context as _, Result};

use crate::http::Stream;

/// RFC 9113 section 3.4: the client connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113 section 6: the types of frames, and their flags.
/// The type of a frame with a part of a body.
pub const DATA: u8 = 0;
/// The type of a frame with a header block.
pub const HEADERS: u8 = 1;
/// The type of a frame that cancels a stream.
pub const RST_STREAM: u8 = 3;
/// The type of a frame with settings.
pub const SETTINGS: u8 = 4;
/// The type of a frame after which the sender accepts no more streams.
pub const GOAWAY: u8 = 7;
/// The type of a frame that permits the other side to send more bytes.
pub const WINDOW_UPDATE: u8 = 8;
/// The flag of an acknowledgment.
pub const ACK: u8 = 1;
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a header block.
pub const END_HEADERS: u8 = 4;

/// RFC 7541 appendix A: `:status: 200`, indexed.
pub const STATUS_200: u8 = 0x88;

/// A frame.
#[derive(Debug)]
pub struct Frame {
    /// The type.
    pub kind: u8,
    /// The flags.
    pub flags: u8,
    /// The number of the stream.
    pub stream: u32,
    /// The bytes after the frame's header.
    pub payload: Vec<u8>,
}

/// The frames of a connection.
pub struct Frames(Box<dyn Stream>);

impl Frames {
    /// Creates the frames of a connection on which the next byte starts a frame.
    #[must_use]
    pub fn on(stream: Box<dyn Stream>) -> Self {
        Self(stream)
    }

    /// Sends bytes, which are whole frames.
    ///
    /// # Errors
    /// Returns an error if the connection is closed.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Returns the next frame, and acknowledges settings before it.
    ///
    /// # Errors
    /// Returns an error if the connection is closed.
    pub fn read(&mut self) -> Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).context("the connection was closed")?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
            self.0.read_exact(&mut payload)?;
            if kind != SETTINGS {
                return Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
            }
            if flags & ACK == 0 {
                self.send(&frame(SETTINGS, ACK, 0, &[]))?;
            }
        }
    }
}

/// Returns a frame.
///
/// # Panics
/// Panics if the payload has 4 GiB or more.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541 section 6.2.2: returns a literal field without indexing, with a new name and no Huffman coding.
///
/// # Panics
/// Panics if a string has more than 126 bytes.
#[must_use]
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        // The length of every string here fits in seven bits.
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short string");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], string(name), string(value)].concat()
}

//! A small HTTP/2 client, frame by frame: for requests on one connection, and for CONNECT streams.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use crate::authority::{Leaf, client_config};
use crate::http::{Client, Stream};

/// RFC 9113 section 3.4: the client connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The number of the first stream of a client.
const STREAM: u32 = 1;

// RFC 9113 section 6: the types of frames, and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// RFC 9113 section 7: the stream is no longer needed.
const CANCEL: u32 = 8;
/// RFC 9113 section 6.5: `SETTINGS_HEADER_TABLE_SIZE` is 0, so that no field refers to an earlier one.
const NO_HEADER_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];
/// RFC 7541 appendix A: `:status: 200`, indexed.
const STATUS_200: u8 = 0x88;

/// A connection for one request after another.
pub struct Connection {
    frames: Frames,
    next_stream: u32,
    /// Whether the server has sent GOAWAY. The streams that are open are completed.
    is_going_away: bool,
}

impl Connection {
    /// Opens a connection with this certificate.
    ///
    /// # Errors
    /// Returns an error if the handshake or the write fails.
    pub fn open(address: SocketAddr, leaf: &Leaf) -> Result<Self> {
        let mut stream = connect(address, leaf)?;
        stream.write_all(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, &NO_HEADER_TABLE)].concat())?;
        stream.flush()?;
        Ok(Self { frames: Frames(stream), next_stream: STREAM, is_going_away: false })
    }

    /// Sends a GET. Returns `true` if the status is 200.
    ///
    /// # Errors
    /// Returns an error if the server ends the connection or the stream.
    pub fn get(&mut self, path: &str) -> Result<bool> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "httpbin")];
        let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        self.frames.0.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields))?;
        self.frames.0.flush()?;
        let mut is_ok = None;
        loop {
            let (kind, flags, payload) = self.frames.next()?;
            if kind == GOAWAY {
                self.is_going_away = true;
                continue;
            }
            if kind == HEADERS {
                // RFC 7541 section 6.3: an update of the table's size can come first.
                let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                is_ok = is_ok.or(Some(first == Some(&STATUS_200)));
            }
            if flags & END_STREAM != 0 {
                return is_ok.context("the response has no headers");
            }
        }
    }

    /// Waits for GOAWAY. After it, the server accepts no more requests.
    ///
    /// # Errors
    /// Returns an error if there is another frame first.
    pub fn wait_for_goaway(&mut self) -> Result<()> {
        if !self.is_going_away {
            let (kind, ..) = self.frames.next()?;
            ensure!(kind == GOAWAY, "the server sent a frame of a request");
        }
        Ok(())
    }
}

/// The frames of a connection.
struct Frames(Box<dyn Stream>);

/// An open CONNECT stream. The bytes that are written to it reach the inner listener.
pub struct Tunnel {
    frames: Frames,
    received: Vec<u8>,
}

/// Opens a connection with this certificate, and sends CONNECT and its cancellation in one write.
///
/// # Errors
/// Returns an error if the handshake or the write fails.
pub fn canceled_connect(address: SocketAddr, leaf: &Leaf, authority: &str) -> Result<impl Stream> {
    let mut stream = connect(address, leaf)?;
    let bytes = [opening(authority), frame(RST_STREAM, 0, STREAM, &CANCEL.to_be_bytes())].concat();
    stream.write_all(&bytes)?;
    stream.flush()?;
    Ok(stream)
}

impl Tunnel {
    /// Opens a CONNECT stream over a new connection with this certificate.
    ///
    /// # Errors
    /// Returns an error if the handshake fails, or the response to CONNECT is not 200.
    pub fn open(address: SocketAddr, leaf: &Leaf, authority: &str) -> Result<Self> {
        let mut stream = connect(address, leaf)?;
        stream.write_all(&opening(authority))?;
        stream.flush()?;
        let mut tunnel = Self { frames: Frames(stream), received: Vec::new() };
        loop {
            let (kind, flags, payload) = tunnel.frames.next()?;
            ensure!(kind != GOAWAY, "the server ended the connection");
            if kind == HEADERS {
                ensure!(flags & END_HEADERS != 0, "the header block continues in another frame");
                ensure!(payload.first() == Some(&STATUS_200), "CONNECT failed");
                return Ok(tunnel);
            }
        }
    }

    /// Returns an HTTP/1 client on the stream.
    #[must_use]
    pub fn client(self) -> Client {
        Client::over(Box::new(self))
    }
}

impl Frames {
    /// Returns the next frame that does not manage the connection.
    fn next(&mut self) -> Result<(u8, u8, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).context("the connection was closed")?;
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
            self.0.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.0.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                    self.0.flush()?;
                }
                RST_STREAM => bail!("the server ended the stream: {payload:?}"),
                DATA | HEADERS | GOAWAY => return Ok((kind, flags, payload)),
                _ => {}
            }
        }
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.received.is_empty() {
            let (kind, _, payload) = self.frames.next().map_err(std::io::Error::other)?;
            if kind == GOAWAY {
                return Err(std::io::Error::other("the server ended the connection"));
            }
            if kind == DATA {
                self.received = payload;
            }
        }
        let count = buffer.len().min(self.received.len());
        for (to, from) in buffer.iter_mut().zip(self.received.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.frames.0.write_all(&frame(DATA, 0, STREAM, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.frames.0.flush()
    }
}

fn connect(address: SocketAddr, leaf: &Leaf) -> Result<Box<dyn Stream>> {
    let mut config = client_config(Some(leaf))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Client::tls(address, config)?.into_stream().into_inner())
}

/// The preface, empty settings, and HEADERS of a CONNECT request that keep the stream open.
fn opening(authority: &str) -> Vec<u8> {
    let fields = [literal(":method", "CONNECT"), literal(":authority", authority)].concat();
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, STREAM, &fields)].concat()
}

/// RFC 7541 section 6.2.2: a literal field without indexing, with a new name and no Huffman coding.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        // The length of every string here fits in seven bits.
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short string");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], string(name), string(value)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

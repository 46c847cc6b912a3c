//! A small HTTP/2 client, frame by frame: for requests on one connection, and for CONNECT streams.

pub mod frames;

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use self::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, STATUS_200, frame,
    literal,
};
use crate::authority::{Leaf, client_config};
use crate::http::{Client, Stream};

/// The number of the first stream of a client.
const STREAM: u32 = 1;
/// RFC 9113 section 7: the stream is no longer needed.
const CANCEL: u32 = 8;
/// RFC 9113 section 6.5: `SETTINGS_HEADER_TABLE_SIZE` is 0, so that no field refers to an earlier one.
const NO_HEADER_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

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
        Ok(Self { frames: Frames::on(stream), next_stream: STREAM, is_going_away: false })
    }

    /// Sends a GET. Returns `true` if the status is 200.
    ///
    /// # Errors
    /// Returns an error if the server ends the connection or the stream.
    pub fn get(&mut self, path: &str) -> Result<bool> {
        Ok(self.get_at_once(path, 1)? == 1)
    }

    /// Sends this number of GETs in one write, each on its own stream. Returns the number of responses with status 200.
    ///
    /// # Errors
    /// Returns an error if the server ends the connection or a stream.
    pub fn get_at_once(&mut self, path: &str, count: u32) -> Result<u32> {
        let fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "httpbin")];
        let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.extend(frame(HEADERS, END_HEADERS | END_STREAM, self.next_stream, &fields));
            self.next_stream += 2;
        }
        self.frames.send(&requests)?;
        let (mut responses, mut successes) = (0, 0);
        while responses < count {
            let Frame { kind, flags, payload, .. } = next_of_requests(&mut self.frames)?;
            if kind == GOAWAY {
                self.is_going_away = true;
                continue;
            }
            // RFC 7541 section 6.3: an update of the table's size can come first.
            if kind == HEADERS && payload.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&STATUS_200) {
                successes += 1;
            }
            if flags & END_STREAM != 0 {
                responses += 1;
            }
        }
        Ok(successes)
    }

    /// Waits for GOAWAY. After it, the server accepts no more requests.
    ///
    /// # Errors
    /// Returns an error if there is another frame first.
    pub fn wait_for_goaway(&mut self) -> Result<()> {
        if !self.is_going_away {
            let Frame { kind, .. } = next_of_requests(&mut self.frames)?;
            ensure!(kind == GOAWAY, "the server sent a frame of a request");
        }
        Ok(())
    }
}

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
        let mut tunnel = Self { frames: Frames::on(stream), received: Vec::new() };
        loop {
            let Frame { kind, flags, payload, .. } = next_of_requests(&mut tunnel.frames)?;
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

/// Returns the next frame that does not manage the connection.
fn next_of_requests(frames: &mut Frames) -> Result<Frame> {
    loop {
        let frame = frames.read()?;
        match frame.kind {
            RST_STREAM => bail!("the server ended the stream: {:?}", frame.payload),
            DATA | HEADERS | GOAWAY => return Ok(frame),
            _ => {}
        }
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.received.is_empty() {
            let Frame { kind, payload, .. } = next_of_requests(&mut self.frames).map_err(std::io::Error::other)?;
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
        self.frames.send(&frame(DATA, 0, STREAM, bytes))?;
        Ok(bytes.len())
    }

    /// Does nothing, because each write is flushed.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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

//! Protocols over TCP other than HTTP: a database with or without a greeting, its clients, and the examples' server for
//! it.

use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, bail};

use crate::bootstrap::Bootstrap;
use crate::fixture::Fixture;
use crate::http::{Client, Stream};

/// The greeting of a database that speaks first.
pub const GREETING: &str = "220 ready";

/// The side that sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The client. The database echoes every line.
    Client,
    /// The database, with its greeting. Then it echoes every line.
    Server,
}

/// A listening database. Its threads end with the process.
#[derive(Debug)]
pub struct Database {
    port: u16,
    connections: Arc<AtomicU64>,
    lines: Arc<AtomicU64>,
}

impl Database {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn start(first: First) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let lines = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lines);
        let connections = Arc::new(AtomicU64::new(0));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let counter = Arc::clone(&counter);
                // A broken connection does not affect others.
                thread::spawn(move || drop(serve(&stream, first, &counter)));
            }
        });
        Ok(Self { port, connections, lines })
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of connections that have arrived.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of lines that have arrived.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: &TcpStream, first: First, lines: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    if first == First::Server {
        stream.write_all(format!("{GREETING}\n").as_bytes())?;
    }
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        lines.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&line)?;
    }
}

/// A client's connection.
pub struct Session(BufReader<Box<dyn Stream>>);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl From<Client> for Session {
    fn from(client: Client) -> Self {
        Self(client.into_stream())
    }
}

impl Session {
    /// Reads the next line. Returns `None` if the connection is closed.
    ///
    /// # Errors
    /// Returns an error if neither happens in time.
    pub fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Ok(Some(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())),
            Ok(0) => Ok(None),
            Ok(_) => bail!("closed within a line: {line:?}"),
            Err(error) if is_closed(error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a line. If the connection is closed, reading shows it.
    ///
    /// # Errors
    /// Returns an error if the line cannot be sent for another reason.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stream = self.0.get_mut();
        match stream.write_all(format!("{text}\n").as_bytes()).and_then(|()| stream.flush()) {
            Err(error) if is_closed(error.kind()) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Sends a line. Returns `true` if it is echoed, and `false` if the connection is closed.
    ///
    /// # Errors
    /// Returns an error if neither happens in time, or the echo differs.
    pub fn echoes(&mut self, text: &str) -> Result<bool> {
        self.send(text)?;
        match self.line()? {
            None => Ok(false),
            Some(line) if line == text => Ok(true),
            Some(line) => bail!("expected {text:?}, got {line:?}"),
        }
    }
}

/// Returns `true` if this error means a closed connection, with or without TLS or pending data.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

impl Fixture {
    /// Returns the examples' TCP server with this database, adapted to this fixture.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tcp_bootstrap(&self, database: &Database) -> Result<Bootstrap> {
        Bootstrap::tcp(self.adapter, database.port())?
            .secrets(&self.scratch.join("certificate.json"), &self.scratch.join("validation.json"))
    }
}

/// Sends a line. Returns `true` if it is echoed, and `false` if the connection is closed.
///
/// # Errors
/// Returns an error if neither happens in time, or the connection fails.
pub fn echoes(client: Client) -> Result<bool> {
    Session::from(client).echoes("select 1")
}

/// Connects over plain TCP.
///
/// # Errors
/// Returns an error if the connection fails.
pub fn plain(address: SocketAddr) -> Result<Session> {
    Ok(Client::plain(address)?.into())
}

//! Protocols over TCP that are not HTTP: a database that greets or waits, its clients, and the examples' server before
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

/// What a database that speaks first says.
pub const GREETING: &str = "220 ready";

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The client; the database sends every line back.
    Client,
    /// The database, with its greeting; then it sends every line back.
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
                // A connection that breaks off concerns nobody else.
                thread::spawn(move || drop(serve(&stream, first, &counter)));
            }
        });
        Ok(Self { port, connections, lines })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many connections have reached it.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many lines have reached it.
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
    /// The next line; `None` when the connection was closed instead.
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

    /// Sends a line. That the connection is closed shows when one is read.
    ///
    /// # Errors
    /// Returns an error if it cannot be sent for another reason.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stream = self.0.get_mut();
        match stream.write_all(format!("{text}\n").as_bytes()).and_then(|()| stream.flush()) {
            Err(error) if is_closed(error.kind()) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Sends a line, and whether it comes back, or the connection was closed instead.
    ///
    /// # Errors
    /// Returns an error if neither happens in time, or something else comes back.
    pub fn echoes(&mut self, text: &str) -> Result<bool> {
        self.send(text)?;
        match self.line()? {
            None => Ok(false),
            Some(line) if line == text => Ok(true),
            Some(line) => bail!("{line:?} came back for {text:?}"),
        }
    }
}

/// Whether that is what a closed connection looks like: by TLS or without it, with or without data on the way.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

impl Fixture {
    /// The examples' server of TCP, fitted to this fixture, before this database.
    ///
    /// # Errors
    /// Returns an error if the example does not have what is to be fitted.
    pub fn tcp_bootstrap(&self, database: &Database) -> Result<Bootstrap> {
        Bootstrap::tcp_with(self.adapter, database.port())?
            .secrets(&self.scratch.join("certificate.json"), &self.scratch.join("validation.json"))
    }
}

/// Whether a line that this client sends comes back.
///
/// # Errors
/// Returns an error if it neither does nor is the connection closed, or nobody listens.
pub fn echoes(client: Client) -> Result<bool> {
    Session::from(client).echoes("select 1")
}

/// Connects by plain TCP.
///
/// # Errors
/// Returns an error if nobody listens.
pub fn plain(address: SocketAddr) -> Result<Session> {
    Ok(Client::plain(address)?.into())
}

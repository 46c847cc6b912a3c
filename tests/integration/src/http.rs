//! A small HTTP/1.1 client that sends the given bytes unchanged, over plain TCP or mutual TLS, on one connection.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use crate::bootstrap::SERVER_HOST;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as a string.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The transport of a connection.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// An open connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Connects over plain TCP.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub fn plain(address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: BufReader::new(Box::new(connect(address)?)) })
    }

    /// Connects over TLS.
    ///
    /// # Errors
    /// Returns an error if the connection or the handshake fails.
    pub fn tls(address: SocketAddr, config: rustls::ClientConfig) -> Result<Self> {
        let name = ServerName::IpAddress(address.ip().into());
        Self::handshake(connect(address)?, config, name)
    }

    /// Connects over TLS from a local address, with or without a server name (SNI).
    ///
    /// # Errors
    /// Returns an error if the connection or the handshake fails.
    pub fn tls_from(
        source: IpAddr,
        address: SocketAddr,
        config: rustls::ClientConfig,
        server: Option<&str>,
    ) -> Result<Self> {
        let name = match server {
            Some(name) => ServerName::try_from(name.to_owned())?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        Self::handshake(connect_from(source, address)?, config, name)
    }

    fn handshake(stream: TcpStream, config: rustls::ClientConfig, name: ServerName<'static>) -> Result<Self> {
        let connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name)?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        stream.flush().context("the TLS handshake failed")?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Connects over plain TCP from a local address.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub fn plain_from(source: IpAddr, address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: BufReader::new(Box::new(connect_from(source, address)?)) })
    }

    /// Creates a client on an open connection.
    #[must_use]
    pub fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Returns the connection, for another protocol.
    #[must_use]
    pub fn into_stream(self) -> BufReader<Box<dyn Stream>> {
        self.stream
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.request("GET", path, &[])
    }

    /// Sends a request without a body. `headers` are whole lines.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn request(&mut self, method: &str, path: &str, headers: &[&[u8]]) -> Result<Response> {
        self.request_of(SERVER_HOST, method, path, headers)
    }

    /// Sends a request without a body to this host.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn request_of(&mut self, host: &str, method: &str, path: &str, headers: &[&[u8]]) -> Result<Response> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        for header in headers {
            text.extend([header, b"\r\n".as_slice()].concat());
        }
        text.extend(b"\r\n");
        self.raw(&text)
    }

    /// Sends these bytes, and reads one response.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<Response> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()?;
        self.read_response()
    }

    fn read_response(&mut self) -> Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status line: {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(self.line()?.trim(), 16)?;
                let mut chunk = vec![0; size];
                self.stream.read_exact(&mut chunk)?;
                self.line()?;
                if size == 0 {
                    break;
                }
                response.body.extend(chunk);
            }
        } else {
            let length = response.header("content-length").map_or(Ok(0), str::parse)?;
            response.body.resize(length, 0);
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        anyhow::ensure!(line.ends_with(b"\n"), "the connection was closed");
        Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    configured(TcpStream::connect(address).with_context(|| format!("{address}: cannot connect"))?)
}

fn connect_from(source: IpAddr, address: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&address.into()).with_context(|| format!("{address}: cannot connect"))?;
    configured(socket.into())
}

fn configured(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

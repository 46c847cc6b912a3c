//! The client of Envoy's admin interface: HTTP/1.1 without TLS, over TCP or a UNIX socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The time limit for a page. Envoy responds from its main thread, which can be busy with an update.
const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 64;

/// The address of an admin interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// Host and port.
    Tcp(String),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl AdminAddress {
    /// Parses `host:port`, `http://host:port`, `unix:path` or an absolute path.
    ///
    /// # Errors
    /// Returns the forms that are expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() && !address.contains('/') => {
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => {
                Err("expected `host:port`, `http://host:port`, the path of a UNIX socket, or the name of a pod"
                    .to_owned())
            }
        }
    }

    /// Returns the body of a page.
    ///
    /// # Errors
    /// Returns an error if the admin interface does not respond, or does not respond with the page.
    pub(crate) fn get(&self, page: &str) -> io::Result<Vec<u8>> {
        let body = self.request(page).and_then(|response| body(&response));
        body.map_err(|error| io::Error::new(error.kind(), format!("{self}/{page}: {error}")))
    }

    fn request(&self, page: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                exchange(stream, page)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                exchange(stream, page)
            }
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn exchange(mut stream: impl Read + Write, page: &str) -> io::Result<Vec<u8>> {
    // In one write, so that a server that answers early does not break the rest of the request.
    stream.write_all(format!("GET /{page} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Returns the body of a complete response.
fn body(answer: &[u8]) -> io::Result<Vec<u8>> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(start)) = response.parse(answer) else {
        return Err(broken("expected an HTTP response, found other data"));
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value)
    };
    if response.code != Some(200) {
        return Err(broken(&format!("expected status 200, found {}", response.code.unwrap_or_default())));
    }
    let body = &answer[start..];
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return dechunked(body).ok_or_else(|| broken("the response is incomplete"));
    }
    let length = header("content-length").and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(broken("the response is incomplete"));
    }
    Ok(body.to_vec())
}

/// Returns the content of the chunks, or `None` if the last one is missing.
fn dechunked(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(chunks) else { return None };
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunks.get(start..end)?);
        chunks = chunks.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::{AdminAddress, body};

    #[test]
    fn pages_are_read_from_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let admin = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let address = AdminAddress::parse(path.to_str().unwrap()).unwrap();
        assert_eq!(address.get("certs").unwrap(), b"{}");
        assert!(admin.join().unwrap().starts_with("GET /certs HTTP/1.1\r\n"));
        assert!(
            AdminAddress::parse("/nowhere")
                .unwrap()
                .get("certs")
                .unwrap_err()
                .to_string()
                .starts_with("unix:/nowhere/certs: ")
        );
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("127.0.0.1:9901", "http://127.0.0.1:9901"),
            ("http://localhost:15000/", "http://localhost:15000"),
            ("http://[::1]:9901", "http://[::1]:9901"),
            ("unix:admin.sock", "unix:admin.sock"),
            ("/run/admin.sock", "unix:/run/admin.sock"),
        ] {
            assert_eq!(AdminAddress::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "localhost", ":9901", "https://localhost:9901", "localhost:9901/config_dump", "localhost:x"] {
            assert!(AdminAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bodies() {
        let text = |answer: &str| body(answer.as_bytes()).map(|body| String::from_utf8(body).unwrap());
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(text(chunked).unwrap(), "abcd");
        assert_eq!(text("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab").unwrap(), "ab");
        for (answer, error) in [
            (&chunked[..chunked.len() - 9], "the response is incomplete"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", "the response is incomplete"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "expected status 200, found 404"),
            ("hello", "expected an HTTP response, found other data"),
        ] {
            assert_eq!(text(answer).unwrap_err().to_string(), error, "{answer}");
        }
    }
}

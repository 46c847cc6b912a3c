//! The workload of the server's Envoy. It responds to every request with the method and path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

/// A listening workload. Its threads end with the process.
#[derive(Debug)]
pub struct Upstream {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A broken connection does not affect others.
                thread::spawn(move || drop(serve(&stream, &counter)));
            }
        });
        Ok(Self { port, requests })
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of requests that have arrived.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: &TcpStream, requests: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request_line = String::new();
        if reader.read_line(&mut request_line)? == 0 {
            return Ok(());
        }
        loop {
            // Header values do not have to be UTF-8.
            let mut header = Vec::new();
            if reader.read_until(b'\n', &mut header)? <= 2 {
                break;
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let body = request_line.trim_end().trim_end_matches(" HTTP/1.1");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    }
}

//! The HTTP endpoints for Kubernetes and Prometheus.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::lease::Lease;
use super::metrics::Metrics;

/// The longest request.
const LIMIT: usize = 8192;
/// The time for a request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `/healthz`, `/readyz` and `/metrics`, one request on each connection.
pub(super) async fn serve(listener: &TcpListener, metrics: &Arc<Metrics>, lease: &Arc<Lease>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (metrics, lease) = (Arc::clone(metrics), Arc::clone(lease));
                // A client that ends early, or that sends too slowly, gets no response.
                tokio::spawn(async move { timeout(PATIENCE, respond(stream, &metrics, &lease)).await });
            }
            // The client has gone, or the process has no free file descriptor.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn respond(mut stream: TcpStream, metrics: &Metrics, lease: &Lease) -> io::Result<()> {
    let mut request = vec![0; LIMIT];
    let mut length = 0;
    let path = loop {
        let read = stream.read(&mut request[length..]).await?;
        length += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request[..length]) {
            Ok(httparse::Status::Complete(_)) => break parsed.path.map(str::to_owned),
            // A read into an empty slice would wait for data.
            Ok(httparse::Status::Partial) if read > 0 && length < LIMIT => {}
            _ => break None,
        }
    };
    let (status, body) = match path.as_deref() {
        Some("/healthz") => ("200 OK", "ok\n".to_owned()),
        Some("/readyz") if lease.is_known() => ("200 OK", "ok\n".to_owned()),
        Some("/readyz") => ("503 Service Unavailable", "the API server has not answered yet\n".to_owned()),
        Some("/metrics") => ("200 OK", metrics.text(lease.is_held())),
        Some(_) => ("404 Not Found", "expected /healthz, /readyz or /metrics\n".to_owned()),
        None => ("400 Bad Request", "expected an HTTP/1.1 request\n".to_owned()),
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use kube::{Client, Config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::{LIMIT, PATIENCE, serve};
    use crate::controller::lease::Lease;
    use crate::controller::metrics::Metrics;

    /// Returns the first line of the response and the body.
    async fn response(stream: &mut TcpStream) -> io::Result<(String, String)> {
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    }

    #[tokio::test]
    async fn slow_and_broken_clients_do_not_delay_others() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // There is no API server, so the lease is not known.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().expect("a URL"))).expect("a client");
        let lease = Arc::new(Lease::new(client, "spiffe-authz", "first", Arc::new(Notify::new())));
        let metrics = Arc::new(Metrics::default());
        let requests = async {
            let mut slow = TcpStream::connect(address).await?;
            slow.write_all(b"GET /healthz HTTP/1.1\r\n").await?;
            drop(TcpStream::connect(address).await?);
            let (status, _) = ask(address, b"nonsense\r\n\r\n").await?;
            assert_eq!(status, "HTTP/1.1 400 Bad Request");
            let (status, _) = ask(address, &[b'G'; LIMIT]).await?;
            assert_eq!(status, "HTTP/1.1 400 Bad Request");
            let cases = [
                ("/healthz", "200 OK", "ok"),
                ("/readyz", "503 Service Unavailable", "the API server has not answered yet"),
                ("/metrics", "200 OK", "# HELP spiffe_authz_controller_reconciles_total"),
                ("/other", "404 Not Found", "expected /healthz"),
            ];
            for (path, status, beginning) in cases {
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
                let (line, body) = ask(address, request.as_bytes()).await?;
                assert_eq!(line, format!("HTTP/1.1 {status}"));
                assert!(body.starts_with(beginning), "{path}: {body}");
            }
            // The slow client was served by none of them, and continues.
            slow.write_all(b"\r\n").await?;
            assert_eq!(response(&mut slow).await?.0, "HTTP/1.1 200 OK");
            Ok(())
        };
        tokio::select! {
            () = serve(&listener, &metrics, &lease) => unreachable!("the server ended"),
            result = timeout(PATIENCE, requests) => result?,
        }
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> io::Result<(String, String)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        response(&mut stream).await
    }
}

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

/// Serves `/healthz`, `/readyz` and `/metrics`, one request on each connection.
pub(super) async fn serve(listener: &TcpListener, metrics: &Arc<Metrics>, lease: &Arc<Lease>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (metrics, lease) = (Arc::clone(metrics), Arc::clone(lease));
                // A client that ends early, or that sends too slowly, gets no response.
                tokio::spawn(async move { timeout(PATIENCE, respond(stream, &metrics, &lease)).await });
            }
            // The process has no free file descriptor.
            Err(_) => sleep(PATIENCE).await,
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
            Ok(httparse::Status::Partial) if read > 0 => {}
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

//! The HTTP endpoints for Kubernetes and Prometheus.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::net::TcpListener;

use super::lease::Lease;
use super::metrics::Metrics;
use super::server::{self, Answer, Asked};

/// Serves `/healthz`, `/readyz` and `/metrics`, and never ends.
pub(super) async fn serve(listener: &TcpListener, metrics: &Arc<Metrics>, lease: &Arc<Lease>) {
    let (metrics, lease) = (Arc::clone(metrics), Arc::clone(lease));
    let answer = move |Asked { path, .. }| {
        let answer = answer(&path, &metrics, &lease);
        async { answer }
    };
    server::serve(listener, None, answer).await;
}

fn answer(path: &str, metrics: &Metrics, lease: &Lease) -> Answer {
    match path {
        "/healthz" => Answer::text(StatusCode::OK, "ok\n"),
        "/readyz" if lease.is_known() => Answer::text(StatusCode::OK, "ok\n"),
        "/readyz" => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet\n"),
        "/metrics" => Answer::text(StatusCode::OK, &metrics.text(lease.is_held())),
        _ => Answer::text(StatusCode::NOT_FOUND, "expected /healthz, /readyz or /metrics\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use kube::{Client, Config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::serve;
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
            let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
            let (status, _) = ask(address, long.as_bytes()).await?;
            assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
            let cases = [
                ("/healthz", "200 OK", "ok"),
                ("/readyz", "503 Service Unavailable", "the API server has not answered yet"),
                ("/metrics", "200 OK", "# HELP spiffe_authz_controller_reconciles_total"),
                ("/other", "404 Not Found", "expected /healthz"),
            ];
            for (path, status, beginning) in cases {
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                let (line, body) = ask(address, request.as_bytes()).await?;
                assert_eq!(line, format!("HTTP/1.1 {status}"));
                assert!(body.starts_with(beginning), "{path}: {body}");
            }
            // The slow client was served by none of them, and continues.
            slow.write_all(b"connection: close\r\n\r\n").await?;
            assert_eq!(response(&mut slow).await?.0, "HTTP/1.1 200 OK");
            Ok(())
        };
        tokio::select! {
            () = serve(&listener, &metrics, &lease) => unreachable!("the server ended"),
            result = timeout(Duration::from_secs(20), requests) => result?,
        }
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> io::Result<(String, String)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        response(&mut stream).await
    }
}

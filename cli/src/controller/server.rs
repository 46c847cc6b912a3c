//! An HTTP server for a few clients, with and without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use super::log;

/// The longest body: two objects of the API server, which has a limit of 1.5 MiB, with the fields around them.
const LIMIT: usize = 4 << 20;
/// The longest head of a request in bytes: the request line and the headers.
const MAX_HEADERS: usize = 16 << 10;
/// The time for a handshake, for the headers of a request, and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// The connections at one time. Others wait.
const CONNECTIONS: usize = 64;
/// The time after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The files with the certificate chain of a server and its key, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Reads the files. Each connection does, so that a renewed certificate needs no restart.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key is not that of the certificate.
    pub(super) fn read(&self) -> io::Result<TlsAcceptor> {
        let named =
            |path: &PathBuf, error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect)
            .map_err(|error| named(&self.chain, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| named(&self.key, &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| named(&self.chain, &error))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The request to a server.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) body: Bytes,
}

/// The response of a server.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// Returns a response in plain text.
    pub(super) fn text(status: StatusCode, body: &str) -> Self {
        Self { status, content_type: "text/plain; version=0.0.4", body: body.to_owned() }
    }
}

/// Listens on an address.
///
/// # Errors
/// Returns an error with the address.
pub(super) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Responds to the requests of every connection, and never ends.
pub(super) async fn serve<F, R>(listener: &TcpListener, certificate: Option<&Certificate>, answer: F)
where
    F: Fn(Asked) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            // The client has gone, or the process has no free file descriptor.
            sleep(PAUSE).await;
            continue;
        };
        let (certificate, answer) = (certificate.cloned(), answer.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let Some(certificate) = certificate else { return respond(stream, answer).await };
            match certificate.read() {
                Ok(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await {
                        respond(stream, answer).await;
                    }
                }
                Err(error) => log::error("the certificate cannot be used", &[("error", &error.to_string())]),
            }
        });
    }
}

async fn respond<S, F, R>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked) -> R,
    R: Future<Output = Answer>,
{
    let service = service_fn(async |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let body = timeout(PATIENCE, Limited::new(request.into_body(), LIMIT).collect()).await;
        let Answer { status, content_type, body } = match body {
            Ok(Ok(body)) => answer(Asked { path, body: body.to_bytes() }).await,
            Ok(Err(_)) => Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or has an error\n"),
            Err(_) => Answer::text(StatusCode::REQUEST_TIMEOUT, "the body has not arrived in time\n"),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok::<_, Infallible>(response)
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // A connection has one request. A client could send another one while an idle connection is closed, and the API server
    // does not repeat a review.
    server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEADERS);
    // A client that ends early, or that sends too slowly, gets no response.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use hyper::StatusCode;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

    use super::{Answer, Asked, Certificate, LIMIT, listen, serve};

    /// Writes a new certificate, and returns it.
    fn issue(certificate: &Certificate) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&certificate.chain, cert.pem()).unwrap();
        fs::write(&certificate.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    /// Sends a request to a server with this certificate, and returns the response.
    async fn post(address: SocketAddr, trusted: &CertificateDer<'static>, body: &[u8]) -> io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let head =
            format!("POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        // A server that rejects the body does not read it.
        let _ = stream.write_all(body).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn in_directory(directory: &Path) -> Certificate {
        Certificate { chain: directory.join("tls.crt"), key: directory.join("tls.key") }
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_used() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let certificate = in_directory(directory.path());
        let first = issue(&certificate);
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let echo =
            |Asked { path, body }| async move { Answer::text(StatusCode::OK, &format!("{path} {}", body.len())) };
        let requests = async {
            assert!(post(address, &first, b"abc").await?.ends_with("\r\n\r\n/x 3"));
            let second = issue(&certificate);
            assert!(post(address, &first, b"abc").await.is_err(), "the first certificate is still used");
            assert!(post(address, &second, b"").await?.ends_with("\r\n\r\n/x 0"));
            let long = vec![b'a'; LIMIT + 1];
            assert!(post(address, &second, &long).await?.starts_with("HTTP/1.1 413 "));
            fs::write(&certificate.key, "no key")?;
            assert!(post(address, &second, b"").await.is_err(), "a certificate without a key is used");
            let third = issue(&certificate);
            assert!(post(address, &third, b"").await?.starts_with("HTTP/1.1 200 "));
            Ok(())
        };
        tokio::select! {
            () = serve(&listener, Some(&certificate), echo) => unreachable!("the server ended"),
            result = timeout(Duration::from_secs(60), requests) => result?,
        }
    }

    #[test]
    fn an_unusable_certificate_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = in_directory(directory.path());
        let error =
            |certificate: &Certificate| certificate.read().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error(&certificate).contains("tls.crt: "), "{}", error(&certificate));
        issue(&certificate);
        assert_eq!(error(&certificate), "");
        let other = directory.path().join("other");
        fs::create_dir(&other).unwrap();
        issue(&in_directory(&other));
        fs::copy(other.join("tls.key"), &certificate.key).unwrap();
        assert!(error(&certificate).contains("tls.crt: "), "the key of another certificate: {}", error(&certificate));
    }
}

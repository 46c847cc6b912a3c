//! A small HTTP/3 client that presents a certificate and chooses the first connection ID.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::authority::{Leaf, client_config};
use crate::bootstrap::SERVER_HOST;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The destination connection ID of a client's first packet, from which Envoy derives the number of the connection.
pub type ConnectionId = [u8; 8];

/// A connection. Dropping it closes it.
pub struct Client {
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, bytes::Bytes>,
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    driver: JoinHandle<()>,
    runtime: Runtime,
}

impl Client {
    /// Connects to `address` with this certificate. Without an `id`, the connection ID is random.
    ///
    /// # Errors
    /// Returns an error if the handshake fails or takes too long.
    pub fn connect(address: SocketAddr, leaf: &Leaf, id: Option<ConnectionId>) -> Result<Self> {
        let mut tls = client_config(Some(leaf))?;
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        if let Some(id) = id {
            config.initial_dst_cid_provider(Arc::new(move || quinn::ConnectionId::new(&id)));
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (requests, connection, endpoint, driver) = runtime.block_on(async {
            let endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let connecting = endpoint.connect_with(config, address, SERVER_HOST)?;
            let connection = timeout(TIMEOUT, connecting).await.context("no QUIC handshake in time")??;
            let transport = h3_quinn::Connection::new(connection.clone());
            let (mut driver, requests) = timeout(TIMEOUT, h3::client::new(transport)).await??;
            let driver = tokio::spawn(async move {
                // The request that fails reports the reason.
                poll_fn(|context| driver.poll_close(context)).await;
            });
            anyhow::Ok((requests, connection, endpoint, driver))
        })?;
        Ok(Self { requests, connection, endpoint, driver, runtime })
    }

    /// Sends a GET, and returns the status.
    ///
    /// # Errors
    /// Returns an error if there is no response in time.
    pub fn get(&mut self, path: &str) -> Result<u16> {
        let request = http::Request::get(format!("https://{SERVER_HOST}{path}")).body(())?;
        let exchange = async {
            let mut stream = self.requests.send_request(request).await?;
            stream.finish().await?;
            let status = stream.recv_response().await?.status();
            while stream.recv_data().await?.is_some() {}
            anyhow::Ok(status.as_u16())
        };
        self.runtime.block_on(async { timeout(TIMEOUT, exchange).await.context("no response over HTTP/3 in time")? })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
        // RFC 9114 section 8.1: H3_NO_ERROR.
        self.connection.close(quinn::VarInt::from_u32(0x100), b"");
        // The server does not have to respond.
        let _ = self.runtime.block_on(async { timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await });
    }
}

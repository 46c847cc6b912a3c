//! Envoy's attributes of the connection and the request that are being served.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use spiffe_authz::filter::Connection;
use spiffe_authz::metadata::Object;
use spiffe_authz::request::{AddressOf, Attributes, Headers as _, HostFailure};

use crate::header_map::HeaderMap;
use crate::host;

/// Whether the current context is a request's, before anything was called for it.
pub(crate) fn is_request() -> bool {
    text(b"request\0protocol").is_ok_and(|protocol| protocol.is_some())
}

/// The connection that the current request came in on.
pub(crate) struct CurrentConnection;

impl CurrentConnection {
    /// Whether TLS is spoken on it, from its very beginning. This end's certificate shows before the handshake; the
    /// version of TLS is asked for last, since asking early makes Envoy remember a wrong one.
    pub(crate) fn is_tls() -> bool {
        let attributes: [&[u8]; 4] = [
            b"connection\0uri_san_local_certificate",
            b"connection\0dns_san_local_certificate",
            b"connection\0subject_local_certificate",
            b"connection\0tls_version",
        ];
        attributes.into_iter().any(|path| text(path) != Ok(None))
    }

    /// Whether the caller's certificate shows. Nothing else of it may be asked for before, since Envoy would remember
    /// that there is none.
    pub(crate) fn shows_certificate() -> bool {
        Self.is_mutual_tls() == Ok(Some(true))
    }

    /// Whether Envoy has validated that certificate on this very handshake.
    pub(crate) fn is_validated() -> bool {
        Self.peer_certificate_valid() == Ok(Some(true))
    }

    /// Whether the bootstrap says so.
    pub(crate) fn is_handshake_complete() -> bool {
        text(HANDSHAKE_COMPLETE).is_ok_and(|value| value.is_some())
    }
}

impl Connection for CurrentConnection {
    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        boolean(b"connection\0mtls")
    }

    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        // Of the releases of Envoy, each exposes the certificates of all connections or of none.
        Ok(true)
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"connection\0peer_certificate")
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"connection\0uri_san_peer_certificate")
    }

    fn peer_certificate_digest(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"connection\0sha256_peer_certificate_digest")
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        boolean(b"connection\0peer_certificate_valid")
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"filter_state\0io.istio.peer_principal")
    }
}

/// The request that is being served.
#[derive(Default)]
pub(crate) struct CurrentRequest {
    headers: OnceCell<Result<HeaderMap, HostFailure>>,
}

impl CurrentRequest {
    /// A pseudo-header. All headers in one host call cost little more than one of them, and rules mostly ask for several.
    fn pseudo_header(&self, name: &str) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.headers()?.lines(name).next().map(<[u8]>::to_vec))
    }
}

impl Attributes for CurrentRequest {
    type Text = Vec<u8>;
    type Headers = HeaderMap;

    fn method(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.pseudo_header(":method")
    }

    fn path(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.pseudo_header(":path")
    }

    fn authority(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.pseudo_header(":authority")
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        destination_port()
    }

    fn headers(&self) -> Result<HeaderMap, HostFailure> {
        self.headers.get_or_init(|| HeaderMap::new(host::request_headers()?)).clone()
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        address(of)
    }

    fn server_name(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(SERVER_NAME)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        metadata()
    }
}

/// The connection that is being served, where it is not asked for requests.
#[derive(Debug)]
pub(crate) struct TcpConnection;

impl Attributes for TcpConnection {
    type Text = Vec<u8>;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(None)
    }

    fn path(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(None)
    }

    fn authority(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(None)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        destination_port()
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        Ok(Vec::new())
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        address(of)
    }

    fn server_name(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(SERVER_NAME)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        metadata()
    }
}

const SERVER_NAME: &[u8] = b"connection\0requested_server_name";
/// Set by the network filter `set_filter_state` of a bootstrap, when a TLS handshake is complete.
const HANDSHAKE_COMPLETE: &[u8] = b"filter_state\0spiffe_authz.handshake";

fn destination_port() -> Result<Option<u64>, HostFailure> {
    number(host::property(b"destination\0port")?)
}

fn address(of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
    let with_port = |path: &[u8]| -> Result<Option<IpAddr>, HostFailure> {
        let Some(text) = text(path)? else { return Ok(None) };
        let address: SocketAddr = parse(&text)?;
        Ok(Some(address.ip()))
    };
    match of {
        // Envoy has no attribute for the other end of the connection, so the bootstrap keeps it in filter state.
        AddressOf::Source => parse(&text(DIRECT_ADDRESS)?.ok_or(HostFailure)?).map(Some),
        AddressOf::Remote => with_port(b"source\0address"),
        AddressOf::Destination => with_port(b"destination\0address"),
    }
}

fn metadata() -> Result<Object, HostFailure> {
    // The whole message: of a part of it Envoy would not tell the types.
    let message = host::property(b"metadata")?.unwrap_or_default();
    Object::from_metadata(&message).map_err(|_| HostFailure)
}

/// Set by the network filter `set_filter_state` of a bootstrap.
const DIRECT_ADDRESS: &[u8] = b"filter_state\0spiffe_authz.source_ip";

fn parse<T: FromStr>(text: &[u8]) -> Result<T, HostFailure> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(HostFailure)
}

/// An attribute of text; Envoy gives an empty one where there is none.
fn text(path: &[u8]) -> Result<Option<Vec<u8>>, HostFailure> {
    Ok(host::property(path)?.filter(|value| !value.is_empty()))
}

/// Booleans come as one byte.
fn boolean(path: &[u8]) -> Result<Option<bool>, HostFailure> {
    match host::property(path)?.as_deref() {
        None => Ok(None),
        Some([0]) => Ok(Some(false)),
        Some([1]) => Ok(Some(true)),
        Some(_) => Err(HostFailure),
    }
}

/// Numbers come as eight bytes, little endian.
fn number(value: Option<Vec<u8>>) -> Result<Option<u64>, HostFailure> {
    value.map(|bytes| bytes.try_into().map(u64::from_le_bytes).map_err(|_| HostFailure)).transpose()
}

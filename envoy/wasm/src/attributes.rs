//! Envoy's attributes of the current connection and request.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use spiffe_authz::filter_state;
use spiffe_authz::host::{AddressOf, Connection, Headers as _, HostFailure, NoHeaders, RequestAttributes};
use spiffe_authz::metadata::Object;

use crate::header_map::HeaderMap;
use crate::host;

/// Returns `true` if the current context belongs to a request.
pub(crate) fn is_request() -> bool {
    text(b"request\0protocol").is_ok_and(|protocol| protocol.is_some())
}

/// The connection of the current request.
pub(crate) struct CurrentConnection;

impl CurrentConnection {
    /// Returns `true` if the connection uses TLS. Envoy exposes the local certificate before the handshake. The TLS version is read
    /// last, because Envoy caches a wrong value if it is read too early.
    pub(crate) fn is_tls() -> bool {
        let attributes: [&[u8]; 4] = [
            b"connection\0uri_san_local_certificate",
            b"connection\0dns_san_local_certificate",
            b"connection\0subject_local_certificate",
            b"connection\0tls_version",
        ];
        attributes.into_iter().any(|path| text(path) != Ok(None))
    }

    /// Returns `true` if Envoy exposes the client's certificate. Nothing else of it can be read before, because Envoy would cache that
    /// there is none.
    pub(crate) fn exposes_certificate() -> bool {
        Self.is_mutual_tls() == Ok(Some(true))
    }

    /// Returns `true` if Envoy validated the certificate in this handshake.
    pub(crate) fn is_validated() -> bool {
        Self.peer_certificate_valid() == Ok(Some(true))
    }

    /// Returns `true` if the bootstrap's filter state says that the handshake is complete.
    pub(crate) fn is_handshake_complete() -> bool {
        filter_state(filter_state::HANDSHAKE).is_ok_and(|value| value.is_some())
    }
}

impl Connection for CurrentConnection {
    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        boolean(b"connection\0mtls")
    }

    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        // A release of Envoy exposes the certificates of all connections, or of none.
        Ok(true)
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"connection\0peer_certificate")
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        text(b"connection\0uri_san_peer_certificate")
    }

    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure> {
        text(b"connection\0sha256_peer_certificate_digest")
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        boolean(b"connection\0peer_certificate_valid")
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        filter_state(filter_state::PEER_PRINCIPAL)
    }
}

/// The current request.
#[derive(Default)]
pub(crate) struct CurrentRequest {
    headers: OnceCell<Result<HeaderMap, HostFailure>>,
}

impl CurrentRequest {
    /// A pseudo-header. One host call for all headers costs little more than one for a single header, and rules mostly need several.
    fn pseudo_header(&self, name: &str) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.headers()?.lines(name).next().map(<[u8]>::to_vec))
    }
}

impl RequestAttributes for CurrentRequest {
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

/// The current connection, of the network filter.
#[derive(Debug)]
pub(crate) struct TcpConnection;

impl RequestAttributes for TcpConnection {
    type Text = Vec<u8>;
    type Headers = NoHeaders;

    fn headers(&self) -> Result<NoHeaders, HostFailure> {
        Ok(NoHeaders)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        destination_port()
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
        // Envoy has no attribute for the direct remote address, so the bootstrap writes it to filter state.
        AddressOf::Source => parse(&filter_state(filter_state::SOURCE_IP)?.ok_or(HostFailure)?).map(Some),
        AddressOf::Remote => with_port(b"source\0address"),
        AddressOf::Destination => with_port(b"destination\0address"),
    }
}

fn metadata() -> Result<Object, HostFailure> {
    // The whole message, because Envoy does not report the types of a part of it.
    let message = host::property(b"metadata")?.unwrap_or_default();
    Object::from_metadata(&message).map_err(|_| HostFailure)
}

fn filter_state(key: &str) -> Result<Option<Vec<u8>>, HostFailure> {
    text(&[b"filter_state\0", key.as_bytes()].concat())
}

fn parse<T: FromStr>(text: &[u8]) -> Result<T, HostFailure> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(HostFailure)
}

/// A string attribute. Envoy returns an empty string if there is none.
fn text(path: &[u8]) -> Result<Option<Vec<u8>>, HostFailure> {
    Ok(host::property(path)?.filter(|value| !value.is_empty()))
}

/// A boolean attribute, which is one byte.
fn boolean(path: &[u8]) -> Result<Option<bool>, HostFailure> {
    match host::property(path)?.as_deref() {
        None => Ok(None),
        Some([0]) => Ok(Some(false)),
        Some([1]) => Ok(Some(true)),
        Some(_) => Err(HostFailure),
    }
}

/// A number attribute, which is eight bytes in little-endian order.
fn number(value: Option<Vec<u8>>) -> Result<Option<u64>, HostFailure> {
    value.map(|bytes| bytes.try_into().map(u64::from_le_bytes).map_err(|_| HostFailure)).transpose()
}

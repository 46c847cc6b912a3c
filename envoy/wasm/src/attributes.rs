//! Envoy's attributes of the connection and the request that are being served.

use spiffe_authz::filter::Connection;
use spiffe_authz::request::{Attributes, HostFailure};

use crate::host;

/// The connection that the current request came in on.
pub(crate) struct CurrentConnection;

impl Connection for CurrentConnection {
    fn id(&self) -> Result<Option<u64>, HostFailure> {
        number(host::property(b"connection\0id")?)
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
        match host::property(b"connection\0peer_certificate_valid")?.as_deref() {
            None => Ok(None),
            Some([0]) => Ok(Some(false)),
            Some([1]) => Ok(Some(true)),
            Some(_) => Err(HostFailure),
        }
    }
}

/// The request that is being served.
#[derive(Debug)]
pub(crate) struct CurrentRequest;

impl Attributes for CurrentRequest {
    type Text = Vec<u8>;

    fn method(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        host::request_header(":method")
    }

    fn path(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        host::request_header(":path")
    }

    fn authority(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        host::request_header(":authority")
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        number(host::property(b"destination\0port")?)
    }
}

/// An attribute of text; Envoy gives an empty one where there is none.
fn text(path: &[u8]) -> Result<Option<Vec<u8>>, HostFailure> {
    Ok(host::property(path)?.filter(|value| !value.is_empty()))
}

/// Numbers come as eight bytes, little endian.
fn number(value: Option<Vec<u8>>) -> Result<Option<u64>, HostFailure> {
    value.map(|bytes| bytes.try_into().map(u64::from_le_bytes).map_err(|_| HostFailure)).transpose()
}

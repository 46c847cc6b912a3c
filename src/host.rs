//! The traits that an adapter implements for its host: the credentials of a connection, and the attributes of a request.

use std::net::IpAddr;

use crate::metadata::Object;

/// The host did not provide an attribute. The attribute is unknown, which is different from absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFailure;

/// The credentials of the connection of a request, as the host reports them. `Ok(None)` is an absent attribute.
///
/// Deliberately, there is no number of the connection. Over HTTP/3 a client can choose it, and a caller that was cached by
/// number could be taken for another one.
pub trait Connection {
    /// The SHA-256 digest of the DER of the client's leaf certificate, as hexadecimal digits.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure>;

    /// The client's leaf certificate, as PEM, plain or URL-encoded.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// Returns `true` if the host exposes the client's certificate. It is evaluated on every request, so that the verdict does not
    /// depend on what another connection has left in the cache.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure>;

    /// Returns `true` if the client presented a certificate, and `None` if the host does not know.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure>;

    /// The first URI subject alternative name of the certificate.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// Returns `true` if Envoy validated the certificate in this handshake. It does not if a TLS session was resumed.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure>;

    /// The filter state `io.istio.peer_principal`, in which an HBONE listener keeps the URI SANs of its client certificate.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure>;
}

/// The attributes of a request, as the host reports them. `Ok(None)` is an absent attribute.
///
/// A TCP connection has no method, path, authority and headers, which is what the methods return by default.
pub trait RequestAttributes {
    /// A string: owned, or borrowed from the host.
    type Text: AsRef<[u8]>;
    /// The headers: owned, or borrowed from the host.
    type Headers: Headers;

    /// The `:method`.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn method(&self) -> Result<Option<Self::Text>, HostFailure> {
        Ok(None)
    }

    /// The `:path`, with its query.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn path(&self) -> Result<Option<Self::Text>, HostFailure> {
        Ok(None)
    }

    /// The `:authority`, with its port.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn authority(&self) -> Result<Option<Self::Text>, HostFailure> {
        Ok(None)
    }

    /// The headers.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read them.
    fn headers(&self) -> Result<Self::Headers, HostFailure>;

    /// The local port of the connection.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn destination_port(&self) -> Result<Option<u64>, HostFailure>;

    /// An address of the connection or the request.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure>;

    /// The server name of the TLS handshake (SNI).
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn server_name(&self) -> Result<Option<Self::Text>, HostFailure>;

    /// The dynamic metadata of every filter.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read it.
    fn metadata(&self) -> Result<Object, HostFailure>;
}

/// The headers of a request.
pub trait Headers {
    /// Returns the value of each line with this name, which is in lower case.
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone;
}

impl Headers for Vec<(String, Vec<u8>)> {
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// The headers of a TCP connection, which has none.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn lines<'h>(&'h self, _: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone {
        std::iter::empty()
    }
}

/// Selects an address of a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressOf {
    /// The direct remote address: the peer of the TCP connection.
    Source,
    /// The client, as trusted proxies report it (`x-forwarded-for`, PROXY protocol).
    Remote,
    /// The local address of the connection.
    Destination,
}

//! A request: everything that a decision may look at, fetched from the host only when asked for, and at most once.

use std::cell::OnceCell;
use std::net::IpAddr;

use crate::metadata::Object;
use crate::timestamp::Timestamp;

/// The host would not or could not answer; what was asked for is unknown, which is not the same as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFailure;

/// What a host can tell of a request. `Ok(None)` is an absent attribute.
pub trait Attributes {
    /// Text as the host hands it over: owned, or borrowed from the host.
    type Text: AsRef<[u8]>;
    /// Header lines as the host hands them over.
    type Headers: Headers;

    /// The `:method`.
    ///
    /// # Errors
    /// When the host fails.
    fn method(&self) -> Result<Option<Self::Text>, HostFailure>;

    /// The `:path`, with query.
    ///
    /// # Errors
    /// When the host fails.
    fn path(&self) -> Result<Option<Self::Text>, HostFailure>;

    /// The `:authority`, port included.
    ///
    /// # Errors
    /// When the host fails.
    fn authority(&self) -> Result<Option<Self::Text>, HostFailure>;

    /// The port that the connection came in on.
    ///
    /// # Errors
    /// When the host fails.
    fn destination_port(&self) -> Result<Option<u64>, HostFailure>;

    /// Every header line.
    ///
    /// # Errors
    /// When the host fails.
    fn headers(&self) -> Result<Self::Headers, HostFailure>;

    /// An address of the connection or the request.
    ///
    /// # Errors
    /// When the host fails.
    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure>;

    /// The server name that the client asked for in TLS (SNI).
    ///
    /// # Errors
    /// When the host fails.
    fn server_name(&self) -> Result<Option<Self::Text>, HostFailure>;

    /// The dynamic metadata of every filter.
    ///
    /// # Errors
    /// When the host fails.
    fn metadata(&self) -> Result<Object, HostFailure>;
}

/// Header lines as a host hands them over.
pub trait Headers {
    /// The values of the lines of this name, which is in lower case; each line by itself.
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone;
}

impl Headers for Vec<(String, Vec<u8>)> {
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Whose address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOf {
    /// The other end of the connection.
    Source,
    /// The client, as trusted proxies tell (`x-forwarded-for`, PROXY protocol).
    Remote,
    /// This end of the connection.
    Destination,
}

type Fetched<T> = OnceCell<Result<Option<T>, HostFailure>>;

/// A request with what was fetched of it so far.
pub struct Request<A: Attributes> {
    attributes: A,
    now: Timestamp,
    method: Fetched<A::Text>,
    path: Fetched<A::Text>,
    authority: Fetched<A::Text>,
    host: OnceCell<Box<[u8]>>,
    port: Fetched<u64>,
    headers: OnceCell<Result<A::Headers, HostFailure>>,
    source: Fetched<IpAddr>,
    remote: Fetched<IpAddr>,
    destination: Fetched<IpAddr>,
    server_name: Fetched<A::Text>,
    metadata: OnceCell<Result<Object, HostFailure>>,
}

impl<A: Attributes> Request<A> {
    /// A request that is decided at this moment, of which nothing was fetched yet.
    pub const fn new(attributes: A, now: Timestamp) -> Self {
        Self {
            attributes,
            now,
            method: OnceCell::new(),
            path: OnceCell::new(),
            authority: OnceCell::new(),
            host: OnceCell::new(),
            port: OnceCell::new(),
            headers: OnceCell::new(),
            source: OnceCell::new(),
            remote: OnceCell::new(),
            destination: OnceCell::new(),
            server_name: OnceCell::new(),
            metadata: OnceCell::new(),
        }
    }

    /// The moment at which the request is decided.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The HTTP method.
    ///
    /// # Errors
    /// When the host fails.
    pub fn method(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.method, || self.attributes.method())
    }

    /// The path as it came, query included.
    ///
    /// # Errors
    /// When the host fails.
    pub fn path_and_query(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.path, || self.attributes.path())
    }

    /// The path without query and fragment.
    ///
    /// # Errors
    /// When the host fails.
    pub fn path(&self) -> Result<Option<&[u8]>, HostFailure> {
        Ok(self.path_and_query()?.map(|path| path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or(path)))
    }

    /// The authority as it came.
    ///
    /// # Errors
    /// When the host fails.
    pub fn authority(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.authority, || self.attributes.authority())
    }

    /// The authority in lower case: hosts compare without regard to case (RFC 9110 section 4.2.3).
    ///
    /// # Errors
    /// When the host fails.
    pub fn host(&self) -> Result<Option<&[u8]>, HostFailure> {
        Ok(self.authority()?.map(|authority| {
            if authority.iter().any(u8::is_ascii_uppercase) {
                self.host.get_or_init(|| authority.to_ascii_lowercase().into())
            } else {
                authority
            }
        }))
    }

    /// The port that the connection came in on.
    ///
    /// # Errors
    /// When the host fails.
    pub fn port(&self) -> Result<Option<u64>, HostFailure> {
        *self.port.get_or_init(|| self.attributes.destination_port())
    }

    /// Every header line.
    ///
    /// # Errors
    /// When the host fails.
    pub fn headers(&self) -> Result<&A::Headers, HostFailure> {
        self.headers.get_or_init(|| self.attributes.headers()).as_ref().map_err(|failure| *failure)
    }

    /// An address of the connection or the request; IPv4 in IPv6 as IPv4.
    ///
    /// # Errors
    /// When the host fails.
    pub fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        let cell = match of {
            AddressOf::Source => &self.source,
            AddressOf::Remote => &self.remote,
            AddressOf::Destination => &self.destination,
        };
        Ok(cell
            .get_or_init(|| self.attributes.address(of))
            .as_ref()
            .map_err(|failure| *failure)?
            .map(|ip| ip.to_canonical()))
    }

    /// The server name that the client asked for in TLS (SNI).
    ///
    /// # Errors
    /// When the host fails.
    pub fn server_name(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.server_name, || self.attributes.server_name())
    }

    /// The dynamic metadata of every filter.
    ///
    /// # Errors
    /// When the host fails.
    pub fn metadata(&self) -> Result<&Object, HostFailure> {
        self.metadata.get_or_init(|| self.attributes.metadata()).as_ref().map_err(|failure| *failure)
    }
}

fn text<T: AsRef<[u8]>>(
    cell: &Fetched<T>,
    fetch: impl FnOnce() -> Result<Option<T>, HostFailure>,
) -> Result<Option<&[u8]>, HostFailure> {
    match cell.get_or_init(fetch) {
        Ok(value) => Ok(value.as_ref().map(AsRef::as_ref)),
        Err(failure) => Err(*failure),
    }
}

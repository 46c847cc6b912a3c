//! A request: everything that a decision may look at, fetched from the host only when asked for, and at most once.

use std::cell::OnceCell;

/// The host would not or could not answer; what was asked for is unknown, which is not the same as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFailure;

/// What a host can tell of a request. `Ok(None)` is an absent attribute.
pub trait Attributes {
    /// Text as the host hands it over: owned, or borrowed from the host.
    type Text: AsRef<[u8]>;

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
}

type Fetched<T> = OnceCell<Result<Option<T>, HostFailure>>;

/// A request with what was fetched of it so far.
#[derive(Debug)]
pub struct Request<A: Attributes> {
    attributes: A,
    method: Fetched<A::Text>,
    path: Fetched<A::Text>,
    authority: Fetched<A::Text>,
    host: OnceCell<Box<[u8]>>,
    port: Fetched<u64>,
}

impl<A: Attributes> Request<A> {
    /// A request of which nothing was fetched yet.
    pub const fn new(attributes: A) -> Self {
        Self {
            attributes,
            method: OnceCell::new(),
            path: OnceCell::new(),
            authority: OnceCell::new(),
            host: OnceCell::new(),
            port: OnceCell::new(),
        }
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

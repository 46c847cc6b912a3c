//! A request, whose attributes are fetched from the host on first use, and at most once.

use std::cell::OnceCell;
use std::net::IpAddr;

use crate::host::{AddressOf, HostFailure, RequestAttributes};
use crate::metadata::Object;
use crate::timestamp::Timestamp;

type Fetched<T> = OnceCell<Result<Option<T>, HostFailure>>;

/// A request, with the attributes that were fetched.
pub struct Request<A: RequestAttributes> {
    attributes: A,
    now: Timestamp,
    method: Fetched<A::Text>,
    path: Fetched<A::Text>,
    authority: Fetched<A::Text>,
    /// The readings of a path with parameters that differ from the path.
    paths: OnceCell<Box<[Box<[u8]>]>>,
    host: OnceCell<Box<[u8]>>,
    /// The host without user information and trailing dot, or `None` if it has neither.
    bare_host: OnceCell<Option<Box<[u8]>>>,
    port: Fetched<u64>,
    headers: OnceCell<Result<A::Headers, HostFailure>>,
    source: Fetched<IpAddr>,
    remote: Fetched<IpAddr>,
    destination: Fetched<IpAddr>,
    server_name: Fetched<A::Text>,
    metadata: OnceCell<Result<Object, HostFailure>>,
}

impl<A: RequestAttributes> Request<A> {
    /// Creates a request that is decided at this moment.
    pub const fn new(attributes: A, now: Timestamp) -> Self {
        Self {
            attributes,
            now,
            method: OnceCell::new(),
            path: OnceCell::new(),
            authority: OnceCell::new(),
            paths: OnceCell::new(),
            host: OnceCell::new(),
            bare_host: OnceCell::new(),
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
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn method(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.method, || self.attributes.method())
    }

    /// The path as it was sent, with its query.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn path_and_query(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.path, || self.attributes.path())
    }

    /// The path without its query and fragment, in every reading: as it was sent, and without path parameters.
    ///
    /// Servers read `/a;x=y/b` in three ways: as it is, as `/a/b` (RFC 3986 section 3.3 leaves parameters to the server; Tomcat,
    /// Jetty and Spring drop them), and as `/a` (a route table with `ignore_path_parameters_in_path_matching`). An absent path
    /// has no reading.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the path.
    pub fn paths(&self) -> Result<impl Iterator<Item = &[u8]> + Clone, HostFailure> {
        let path = self.path_and_query()?.map(|path| before(path, |byte| matches!(byte, b'?' | b'#')));
        let others = match path {
            Some(path) if path.contains(&b';') => &**self.paths.get_or_init(|| without_parameters(path)),
            _ => &[],
        };
        Ok(path.into_iter().chain(others.iter().map(|path| &**path)))
    }

    /// The authority as it was sent.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn authority(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.authority, || self.attributes.authority())
    }

    /// The authority in lower case, because hosts compare case-insensitively (RFC 9110 section 4.2.3), in every reading: as it
    /// was sent, and without user information and a trailing dot. An absent authority has no reading.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the authority.
    pub fn hosts(&self) -> Result<impl Iterator<Item = &[u8]> + Clone, HostFailure> {
        let authority = self.authority()?;
        let host = authority.map(|authority| {
            if authority.iter().any(u8::is_ascii_uppercase) {
                self.host.get_or_init(|| authority.to_ascii_lowercase().into())
            } else {
                authority
            }
        });
        let bare = host.and_then(|host| self.bare_host.get_or_init(|| bare_host(host)).as_deref());
        Ok(host.into_iter().chain(bare))
    }

    /// The local port of the connection.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn port(&self) -> Result<Option<u64>, HostFailure> {
        *self.port.get_or_init(|| self.attributes.destination_port())
    }

    /// The headers.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn headers(&self) -> Result<&A::Headers, HostFailure> {
        self.headers.get_or_init(|| self.attributes.headers()).as_ref().map_err(|failure| *failure)
    }

    /// An address of the connection or the request. An IPv4-mapped IPv6 address is returned as IPv4.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
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

    /// The server name of the TLS handshake (SNI).
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub fn server_name(&self) -> Result<Option<&[u8]>, HostFailure> {
        text(&self.server_name, || self.attributes.server_name())
    }

    /// The dynamic metadata of every filter.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
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

fn before(text: &[u8], end: impl FnMut(&u8) -> bool) -> &[u8] {
    text.split(end).next().unwrap_or(text)
}

/// The readings of a path with parameters that differ from the path: without those of every segment, and up to the first one.
fn without_parameters(path: &[u8]) -> Box<[Box<[u8]>]> {
    let cut = before(path, |byte| *byte == b';');
    let mut stripped = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        stripped.extend_from_slice(before(segment, |byte| *byte == b';'));
        // A segment of parameters alone leaves nothing, and servers merge the slashes around it.
        if segments.peek().is_some() && !segment.starts_with(b";") {
            stripped.push(b'/');
        }
    }
    if stripped == cut { [cut.into()].into() } else { [stripped.into(), cut.into()].into() }
}

/// A host without user information and trailing dots; `None` if it has neither.
fn bare_host(host: &[u8]) -> Option<Box<[u8]>> {
    let address = host.rsplit(|byte| *byte == b'@').next().unwrap_or(host);
    // The colons of an IPv6 address are within brackets.
    let colon = address.iter().rposition(|byte| matches!(byte, b':' | b']'));
    let port = colon.filter(|colon| address.get(*colon) == Some(&b':')).unwrap_or(address.len());
    let (name, port) = address.split_at_checked(port)?;
    let dots = name.iter().rev().take_while(|byte| **byte == b'.').count();
    let name = name.get(..name.len().saturating_sub(dots))?;
    (address.len() < host.len() || dots > 0).then(|| [name, port].concat().into())
}

#[cfg(test)]
mod tests {
    use super::{bare_host, without_parameters};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn readings_of_paths() {
        for (path, readings) in [
            ("/admin;x=y", ["/admin"].as_slice()),
            ("/admin;", &["/admin"]),
            ("/admin;a/b", &["/admin/b", "/admin"]),
            ("/a;x=1/b;y=2/c", &["/a/b/c", "/a"]),
            ("/a/;x/b", &["/a/b", "/a/"]),
            ("/;x/admin", &["/admin", "/"]),
            ("/admin/;a", &["/admin/"]),
            (";", &[""]),
        ] {
            let found = without_parameters(path.as_bytes());
            let found: Vec<_> = found.iter().map(|reading| str::from_utf8(reading).unwrap()).collect();
            assert_eq!(found, readings, "{path}");
        }
    }

    #[test]
    fn readings_of_hosts() {
        for (host, bare) in [
            ("a.example", None),
            ("a.example:80", None),
            ("a.example.", Some("a.example")),
            ("a.example..:80", Some("a.example:80")),
            ("x@a.example", Some("a.example")),
            ("x:y@z@a.example.:80", Some("a.example:80")),
            ("[::1]:80", None),
            ("x@[::1]", Some("[::1]")),
            ("", None),
            (".", Some("")),
        ] {
            let found = bare_host(host.as_bytes());
            assert_eq!(found.as_deref().map(|found| str::from_utf8(found).unwrap()), bare, "{host}");
        }
    }
}

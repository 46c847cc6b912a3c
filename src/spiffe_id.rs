//! SPIFFE IDs and trust domains.
//!
//! Source: SPIFFE-ID specification, sections 2 to 2.3. Upper case in the scheme or the trust domain is rejected and never
//! converted: section 2.1 takes precedence over the case-insensitive comparison of section 2.4.

mod grammar;

pub(crate) use grammar::is_segment_byte;

use std::fmt;

use crate::slugs;

/// The maximum length of a SPIFFE ID, in bytes. SPIFFE-ID section 2.3 requires support for this length; longer IDs are rejected.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// The maximum length of a trust domain name, in bytes (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A valid SPIFFE ID, borrowed. If it has no path, it is the ID of a trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpiffeId<'a> {
    text: &'a str,
    trust_domain: TrustDomain<'a>,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Parses a SPIFFE ID without allocating.
    ///
    /// # Errors
    /// Returns the first broken rule and its byte offset.
    pub fn parse(input: &'a [u8]) -> Result<Self, SpiffeIdError> {
        if input.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError { reason: SpiffeIdReason::TooLong, offset: MAX_SPIFFE_ID_BYTES });
        }
        grammar::spiffe_id(input)
    }

    /// Parses the SPIFFE ID of a workload, which has a path (X509-SVID section 5.2).
    ///
    /// # Errors
    /// Returns the first broken rule and its byte offset.
    pub fn parse_workload(input: &'a [u8]) -> Result<Self, SpiffeIdError> {
        let id = Self::parse(input)?;
        if id.path.is_empty() {
            return Err(SpiffeIdError { reason: SpiffeIdReason::NoPath, offset: input.len() });
        }
        Ok(id)
    }

    /// The whole ID, with `spiffe://`.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> TrustDomain<'a> {
        self.trust_domain
    }

    /// The path, which is empty or starts with `/`.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// Returns `true` if SPIRE reserves this path: `/spire` and every path below it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.path.strip_prefix("/spire").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for SpiffeId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// A valid SPIFFE ID, owned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeIdBuf {
    text: Box<str>,
    /// The offset of the path, in bytes.
    path: usize,
}

impl SpiffeIdBuf {
    /// Parses a SPIFFE ID.
    ///
    /// # Errors
    /// Returns the first broken rule and its byte offset.
    pub fn parse(input: &[u8]) -> Result<Self, SpiffeIdError> {
        SpiffeId::parse(input).map(Self::from)
    }

    /// The ID, borrowed.
    #[must_use]
    pub fn borrow(&self) -> SpiffeId<'_> {
        SpiffeId { text: &self.text, trust_domain: TrustDomain(self.trust_domain()), path: self.path() }
    }

    /// The whole ID, with `spiffe://`.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// The ID without `spiffe://`.
    #[must_use]
    pub fn without_scheme(&self) -> &str {
        self.text.get(SCHEME.len()..).unwrap_or_default()
    }

    /// The name of the trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// The path, which is empty or starts with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }
}

impl From<SpiffeId<'_>> for SpiffeIdBuf {
    fn from(id: SpiffeId<'_>) -> Self {
        Self { text: id.text.into(), path: id.text.len().saturating_sub(id.path.len()) }
    }
}

impl fmt::Display for SpiffeIdBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const SCHEME: &str = "spiffe://";

/// A valid trust domain name, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain<'a>(&'a str);

impl<'a> TrustDomain<'a> {
    /// Parses a trust domain name, without `spiffe://`.
    ///
    /// # Errors
    /// Returns the first broken rule and its byte offset.
    pub fn parse(input: &'a [u8]) -> Result<Self, SpiffeIdError> {
        grammar::trust_domain(input)
    }

    /// The name.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

impl fmt::Display for TrustDomain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The error of parsing a SPIFFE ID or a trust domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeIdError {
    reason: SpiffeIdReason,
    offset: usize,
}

impl SpiffeIdError {
    /// The broken rule.
    #[must_use]
    pub const fn reason(&self) -> SpiffeIdReason {
        self.reason
    }

    /// The byte offset at which the rule is broken.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason.description(), self.offset)
    }
}

impl std::error::Error for SpiffeIdError {}

slugs! {
    /// A rule of the SPIFFE-ID specification, or of the X509-SVID specification for the ID of a workload.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum SpiffeIdReason {
        TooLong = "spiffe-id-too-long", "The SPIFFE ID is longer than 2,048 bytes (SPIFFE-ID section 2.3).";
        Scheme = "spiffe-id-scheme", "The SPIFFE ID does not start with `spiffe://` in lower case (SPIFFE-ID section 2).";
        TrustDomainEmpty = "spiffe-id-trust-domain-empty", "The trust domain is empty (SPIFFE-ID section 2.1).";
        TrustDomainTooLong = "spiffe-id-trust-domain-too-long",
            "The trust domain is longer than 255 bytes (SPIFFE-ID section 2.3).";
        TrustDomainCharacter = "spiffe-id-trust-domain-character",
            "The trust domain contains a byte other than `a-z`, `0-9`, `.`, `-`, `_` (SPIFFE-ID section 2.1).";
        NoPath = "spiffe-id-no-path",
            "The SPIFFE ID has no path, which a workload requires (X509-SVID section 5.2).";
        PathEmptySegment = "spiffe-id-path-empty-segment", "The path contains an empty segment (SPIFFE-ID section 2.2).";
        PathTrailingSlash = "spiffe-id-path-trailing-slash", "The path ends with a slash (SPIFFE-ID section 2.2).";
        PathDotSegment = "spiffe-id-path-dot-segment",
            "The path contains a segment `.` or `..` (SPIFFE-ID section 2.2).";
        PathCharacter = "spiffe-id-path-character",
            "The path contains a byte other than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_` and `/` (SPIFFE-ID section 2.2).";
    }
}

impl SpiffeIdReason {
    const fn description(self) -> &'static str {
        match self {
            Self::TooLong => "longer than 2048 bytes",
            Self::Scheme => "expected `spiffe://`",
            Self::TrustDomainEmpty => "the trust domain is empty",
            Self::TrustDomainTooLong => "the trust domain is longer than 255 bytes",
            Self::TrustDomainCharacter => "the trust domain contains a byte other than `a-z`, `0-9`, `.`, `-`, `_`",
            Self::NoPath => "the path is missing",
            Self::PathEmptySegment => "empty path segment",
            Self::PathTrailingSlash => "trailing slash",
            Self::PathDotSegment => "path segment `.` or `..`",
            Self::PathCharacter => "the path contains a byte other than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SpiffeId, SpiffeIdBuf, SpiffeIdReason as Reason, TrustDomain};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rejection(input: &[u8]) -> Option<(Reason, usize)> {
        SpiffeId::parse(input).err().map(|error| (error.reason(), error.offset()))
    }

    #[test]
    fn an_id_has_the_parts_of_its_text() {
        let id = SpiffeId::parse(b"spiffe://example.org/ns/default/sa/sleep").unwrap();
        assert_eq!(id.trust_domain().as_str(), "example.org");
        assert_eq!(id.path(), "/ns/default/sa/sleep");
        assert_eq!(id.to_string(), "spiffe://example.org/ns/default/sa/sleep");
        assert_eq!(SpiffeId::parse(b"spiffe://example.org").unwrap().path(), "");
        for id in ["spiffe://example.org/ns/default/sa/sleep", "spiffe://example.org"] {
            let (borrowed, owned) =
                (SpiffeId::parse(id.as_bytes()).unwrap(), SpiffeIdBuf::parse(id.as_bytes()).unwrap());
            assert_eq!(owned.borrow(), borrowed);
            assert_eq!((owned.as_str(), owned.trust_domain(), owned.path()), (id, "example.org", borrowed.path()));
            assert_eq!(owned.without_scheme(), id.trim_start_matches("spiffe://"));
        }
    }

    #[test]
    fn unusual_and_valid() {
        for id in [
            "spiffe://1.2.3.4/x",
            "spiffe://_/x",
            "spiffe://-x/x",
            "spiffe://.x/x",
            "spiffe://a..b/x",
            "spiffe://td/...",
            "spiffe://td/.a",
            "spiffe://td/a./_-",
        ] {
            assert_eq!(rejection(id.as_bytes()), None, "{id}");
        }
    }

    #[test]
    fn every_rule_with_its_offset() {
        for (id, reason, offset) in [
            ("", Reason::Scheme, 0),
            ("spiffe", Reason::Scheme, 0),
            ("spiffe:/td/x", Reason::Scheme, 0),
            ("SPIFFE://td/x", Reason::Scheme, 0),
            ("https://td/x", Reason::Scheme, 0),
            (" spiffe://td/x", Reason::Scheme, 0),
            ("spiffe://", Reason::TrustDomainEmpty, 9),
            ("spiffe:///x", Reason::TrustDomainEmpty, 9),
            ("spiffe://Td/x", Reason::TrustDomainCharacter, 9),
            ("spiffe://tD/x", Reason::TrustDomainCharacter, 10),
            ("spiffe://u@td/x", Reason::TrustDomainCharacter, 10),
            ("spiffe://td:80/x", Reason::TrustDomainCharacter, 11),
            ("spiffe://[::1]/x", Reason::TrustDomainCharacter, 9),
            ("spiffe://t%64/x", Reason::TrustDomainCharacter, 10),
            ("spiffe://t\u{212a}/x", Reason::TrustDomainCharacter, 10),
            ("spiffe://td?q", Reason::TrustDomainCharacter, 11),
            ("spiffe://td#f", Reason::TrustDomainCharacter, 11),
            ("spiffe://td/", Reason::PathTrailingSlash, 11),
            ("spiffe://td/a/", Reason::PathTrailingSlash, 13),
            ("spiffe://td//a", Reason::PathEmptySegment, 12),
            ("spiffe://td/a//", Reason::PathEmptySegment, 14),
            ("spiffe://td/.", Reason::PathDotSegment, 12),
            ("spiffe://td/a/../b", Reason::PathDotSegment, 14),
            ("spiffe://td/a%2fb", Reason::PathCharacter, 13),
            ("spiffe://td/a?q", Reason::PathCharacter, 13),
            ("spiffe://td/a#f", Reason::PathCharacter, 13),
            ("spiffe://td/a b", Reason::PathCharacter, 13),
        ] {
            assert_eq!(rejection(id.as_bytes()), Some((reason, offset)), "{id}");
        }
    }

    #[test]
    fn the_lengths_of_the_specification_are_the_limits() {
        for (length, rejected) in [(255, false), (256, true)] {
            let id = format!("spiffe://{}/x", "a".repeat(length));
            let expected = rejected.then_some((Reason::TrustDomainTooLong, 9 + 255));
            assert_eq!(rejection(id.as_bytes()), expected, "trust domain of {length} bytes");
            assert_eq!(TrustDomain::parse("a".repeat(length).as_bytes()).is_err(), rejected);
        }
        for (length, rejected) in [(2047, false), (2048, false), (2049, true)] {
            let id = format!("spiffe://td/{}", "a".repeat(length - 12));
            assert_eq!(rejection(id.as_bytes()), rejected.then_some((Reason::TooLong, 2048)), "{length} bytes");
        }
    }

    #[test]
    fn every_byte_is_accepted_or_rejected_in_its_place() {
        for byte in 0..=u8::MAX {
            let in_trust_domain = [b"spiffe://a".as_slice(), &[byte], b"/x"].concat();
            let legal = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
            let expected = match byte {
                b'/' => Some((Reason::PathEmptySegment, 11)),
                _ if legal => None,
                _ => Some((Reason::TrustDomainCharacter, 10)),
            };
            assert_eq!(rejection(&in_trust_domain), expected, "byte {byte:#04x} in the trust domain");

            let in_path = [b"spiffe://td/a".as_slice(), &[byte], b"b"].concat();
            let legal = byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
            let expected = (!legal).then_some((Reason::PathCharacter, 13));
            assert_eq!(rejection(&in_path), expected, "byte {byte:#04x} in the path");
        }
    }

    #[test]
    fn paths_below_spire_are_reserved() {
        for (path, reserved) in
            [("/spire", true), ("/spire/agent/x", true), ("/spire2", false), ("/Spire/x", false), ("/x/spire", false)]
        {
            let id = format!("spiffe://td{path}");
            assert_eq!(SpiffeId::parse(id.as_bytes()).unwrap().is_reserved(), reserved, "{path}");
        }
    }
}

//! SPIFFE IDs and trust domains, borrowed from the bytes that they were parsed from.
//!
//! Source: SPIFFE-ID specification, sections 2 to 2.3. Upper case in the scheme or the trust domain is refused, never
//! folded (section 2.1 over the case-insensitive comparison of section 2.4).

mod grammar;

use std::fmt;

/// The longest SPIFFE ID, in bytes: SPIFFE-ID section 2.3 asks for support of that many, and we take no more.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// The longest trust domain name, in bytes: SPIFFE-ID section 2.3.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A valid SPIFFE ID. Its path may be absent: the ID then names the trust domain itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpiffeId<'a> {
    text: &'a str,
    trust_domain: TrustDomain<'a>,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Parses a whole SPIFFE ID, allocating nothing.
    ///
    /// # Errors
    /// The first rule broken, with the byte offset where it is broken.
    pub fn parse(input: &'a [u8]) -> Result<Self, SpiffeIdError> {
        if input.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError { reason: SpiffeIdReason::TooLong, offset: MAX_SPIFFE_ID_BYTES });
        }
        grammar::spiffe_id(input)
    }

    /// The whole ID, `spiffe://` included.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> TrustDomain<'a> {
        self.trust_domain
    }

    /// Empty, or starts with `/`.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// Whether SPIRE keeps this path for itself: `/spire` and everything below.
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

/// A valid trust domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain<'a>(&'a str);

impl<'a> TrustDomain<'a> {
    /// Parses a trust domain name, without `spiffe://`.
    ///
    /// # Errors
    /// The first rule broken, with the byte offset where it is broken.
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

/// Why bytes are no SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeIdError {
    reason: SpiffeIdReason,
    offset: usize,
}

impl SpiffeIdError {
    /// The rule that is broken.
    #[must_use]
    pub const fn reason(&self) -> SpiffeIdReason {
        self.reason
    }

    /// Where it is broken, in bytes from the start.
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

/// The rules of a SPIFFE ID, each by the section of the SPIFFE-ID specification that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpiffeIdReason {
    /// More than 2,048 bytes (section 2.3).
    TooLong,
    /// It does not start with `spiffe://` in lower case (section 2).
    Scheme,
    /// The trust domain is empty (section 2.1).
    TrustDomainEmpty,
    /// The trust domain is longer than 255 bytes (section 2.3).
    TrustDomainTooLong,
    /// The trust domain holds another byte than `a-z`, `0-9`, `.`, `-`, `_` (section 2.1).
    TrustDomainCharacter,
    /// There is no path, and a workload needs one (X509-SVID section 5.2).
    NoPath,
    /// Two slashes in a row (section 2.2).
    PathEmptySegment,
    /// A slash at the end (section 2.2).
    PathTrailingSlash,
    /// A segment `.` or `..` (section 2.2).
    PathDotSegment,
    /// The path holds another byte than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_` and `/` (section 2.2).
    PathCharacter,
}

impl SpiffeIdReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::TooLong,
        Self::Scheme,
        Self::TrustDomainEmpty,
        Self::TrustDomainTooLong,
        Self::TrustDomainCharacter,
        Self::NoPath,
        Self::PathEmptySegment,
        Self::PathTrailingSlash,
        Self::PathDotSegment,
        Self::PathCharacter,
    ];

    /// The stable name of this reason in metrics, logs and the command's output.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::TooLong => "spiffe-id-too-long",
            Self::Scheme => "spiffe-id-scheme",
            Self::TrustDomainEmpty => "spiffe-id-trust-domain-empty",
            Self::TrustDomainTooLong => "spiffe-id-trust-domain-too-long",
            Self::TrustDomainCharacter => "spiffe-id-trust-domain-character",
            Self::NoPath => "spiffe-id-no-path",
            Self::PathEmptySegment => "spiffe-id-path-empty-segment",
            Self::PathTrailingSlash => "spiffe-id-path-trailing-slash",
            Self::PathDotSegment => "spiffe-id-path-dot-segment",
            Self::PathCharacter => "spiffe-id-path-character",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::TooLong => "longer than 2048 bytes",
            Self::Scheme => "does not start with `spiffe://`",
            Self::TrustDomainEmpty => "the trust domain is empty",
            Self::TrustDomainTooLong => "the trust domain is longer than 255 bytes",
            Self::TrustDomainCharacter => "the trust domain holds a byte other than `a-z`, `0-9`, `.`, `-`, `_`",
            Self::NoPath => "there is no path",
            Self::PathEmptySegment => "an empty path segment",
            Self::PathTrailingSlash => "a slash at the end",
            Self::PathDotSegment => "a path segment `.` or `..`",
            Self::PathCharacter => "the path holds a byte other than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SpiffeId, SpiffeIdReason as Reason, TrustDomain};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn refusal(input: &[u8]) -> Option<(Reason, usize)> {
        SpiffeId::parse(input).err().map(|error| (error.reason(), error.offset()))
    }

    #[test]
    fn parts() {
        let id = SpiffeId::parse(b"spiffe://example.org/ns/default/sa/sleep").unwrap();
        assert_eq!(id.trust_domain().as_str(), "example.org");
        assert_eq!(id.path(), "/ns/default/sa/sleep");
        assert_eq!(id.to_string(), "spiffe://example.org/ns/default/sa/sleep");
        assert_eq!(SpiffeId::parse(b"spiffe://example.org").unwrap().path(), "");
    }

    #[test]
    fn legal_though_odd() {
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
            assert_eq!(refusal(id.as_bytes()), None, "{id}");
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
            assert_eq!(refusal(id.as_bytes()), Some((reason, offset)), "{id}");
        }
    }

    #[test]
    fn lengths() {
        for (length, refused) in [(255, false), (256, true)] {
            let id = format!("spiffe://{}/x", "a".repeat(length));
            let expected = refused.then_some((Reason::TrustDomainTooLong, 9 + 255));
            assert_eq!(refusal(id.as_bytes()), expected, "trust domain of {length} bytes");
            assert_eq!(TrustDomain::parse("a".repeat(length).as_bytes()).is_err(), refused);
        }
        for (length, refused) in [(2047, false), (2048, false), (2049, true)] {
            let id = format!("spiffe://td/{}", "a".repeat(length - 12));
            assert_eq!(refusal(id.as_bytes()), refused.then_some((Reason::TooLong, 2048)), "{length} bytes");
        }
    }

    #[test]
    fn every_byte() {
        for byte in 0..=u8::MAX {
            let in_trust_domain = [b"spiffe://a".as_slice(), &[byte], b"/x"].concat();
            let legal = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
            let expected = match byte {
                b'/' => Some((Reason::PathEmptySegment, 11)),
                _ if legal => None,
                _ => Some((Reason::TrustDomainCharacter, 10)),
            };
            assert_eq!(refusal(&in_trust_domain), expected, "byte {byte:#04x} in the trust domain");

            let in_path = [b"spiffe://td/a".as_slice(), &[byte], b"b"].concat();
            let legal = byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
            let expected = (!legal).then_some((Reason::PathCharacter, 13));
            assert_eq!(refusal(&in_path), expected, "byte {byte:#04x} in the path");
        }
    }

    #[test]
    fn reserved_paths() {
        for (path, reserved) in
            [("/spire", true), ("/spire/agent/x", true), ("/spire2", false), ("/Spire/x", false), ("/x/spire", false)]
        {
            let id = format!("spiffe://td{path}");
            assert_eq!(SpiffeId::parse(id.as_bytes()).unwrap().is_reserved(), reserved, "{path}");
        }
    }
}

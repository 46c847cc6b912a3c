//! The productions of a SPIFFE ID.
//!
//! ```abnf
//! spiffe-id    = %s"spiffe://" trust-domain [path]
//! trust-domain = 1*255( %x61-7A / DIGIT / "." / "-" / "_" )
//! path         = 1*( "/" segment )
//! segment      = 1*( ALPHA / DIGIT / "." / "-" / "_" )     ; neither "." nor ".."
//! ```

use nom::bytes::complete::{tag, take_while};
use nom::error::{ErrorKind, ParseError};
use nom::{Err, IResult};

use super::{MAX_TRUST_DOMAIN_BYTES, SCHEME, SpiffeId, SpiffeIdError, SpiffeIdReason as Reason, TrustDomain};

/// A broken rule, and the number of bytes from there to the end of the input.
#[derive(Clone, Copy)]
struct Rejection {
    reason: Reason,
    remaining: usize,
}

impl ParseError<&[u8]> for Rejection {
    /// The only combinator that fails on its own is the `tag` of the scheme.
    fn from_error_kind(input: &[u8], _: ErrorKind) -> Self {
        Self { reason: Reason::Scheme, remaining: input.len() }
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T, Rejection>;

/// Parses a whole SPIFFE ID.
pub(super) fn spiffe_id(input: &[u8]) -> Result<SpiffeId<'_>, SpiffeIdError> {
    let (after_scheme, _) = tag(SCHEME)(input).map_err(|error| located(input, error))?;
    let (path, trust_domain) = trust_domain_part(after_scheme).map_err(|error| located(input, error))?;
    let (_, path) = path_part(path).map_err(|error| located(input, error))?;
    let text = ascii(input).map_err(|error| located(input, error))?;
    Ok(SpiffeId { text, trust_domain, path })
}

/// Parses a whole trust domain name.
pub(super) fn trust_domain(input: &[u8]) -> Result<TrustDomain<'_>, SpiffeIdError> {
    let (rest, name) = trust_domain_part(input).map_err(|error| located(input, error))?;
    if rest.is_empty() { Ok(name) } else { Err(located(input, reject(Reason::TrustDomainCharacter, rest))) }
}

/// Parses up to the first `/` or the end (sections 2.1 and 2.3).
fn trust_domain_part(input: &[u8]) -> Parsed<'_, TrustDomain<'_>> {
    let (rest, name) = take_while(|byte| byte != b'/')(input)?;
    let (foreign, legal) = take_while(is_trust_domain_byte)(name)?;
    if let Some(over @ [_, ..]) = legal.get(MAX_TRUST_DOMAIN_BYTES..) {
        let after = over.len().saturating_add(foreign.len()).saturating_add(rest.len());
        return Err(Err::Error(Rejection { reason: Reason::TrustDomainTooLong, remaining: after }));
    }
    if !foreign.is_empty() {
        let after = foreign.len().saturating_add(rest.len());
        return Err(Err::Error(Rejection { reason: Reason::TrustDomainCharacter, remaining: after }));
    }
    if name.is_empty() {
        return Err(reject(Reason::TrustDomainEmpty, input));
    }
    Ok((rest, TrustDomain(ascii(name)?)))
}

/// Parses the segments, of which there can be none, up to the end (section 2.2).
fn path_part(input: &[u8]) -> Parsed<'_, &str> {
    let mut remainder = input;
    while let [b'/', after @ ..] = remainder {
        let (next, segment) = take_while(is_segment_byte)(after)?;
        match (segment, next) {
            ([], []) => return Err(reject(Reason::PathTrailingSlash, remainder)),
            ([], [b'/', ..]) => return Err(reject(Reason::PathEmptySegment, after)),
            (_, [byte, ..]) if *byte != b'/' => return Err(reject(Reason::PathCharacter, next)),
            (b"." | b"..", _) => return Err(reject(Reason::PathDotSegment, after)),
            _ => remainder = next,
        }
    }
    Ok((remainder, ascii(input)?))
}

const fn is_trust_domain_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

/// Returns `true` for a byte of a path segment (SPIFFE-ID section 2.2).
pub(crate) const fn is_segment_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

/// The productions accept ASCII only; if one is wrong, this rejects its input.
fn ascii(input: &[u8]) -> Result<&str, Err<Rejection>> {
    str::from_utf8(input).map_err(|_| reject(Reason::PathCharacter, input))
}

const fn reject(reason: Reason, from: &[u8]) -> Err<Rejection> {
    Err::Error(Rejection { reason, remaining: from.len() })
}

fn located(input: &[u8], error: Err<Rejection>) -> SpiffeIdError {
    match error {
        Err::Error(rejection) | Err::Failure(rejection) => {
            SpiffeIdError { reason: rejection.reason, offset: input.len().saturating_sub(rejection.remaining) }
        }
        // `complete` parsers never ask for more input.
        Err::Incomplete(_) => SpiffeIdError { reason: Reason::Scheme, offset: input.len() },
    }
}

//! The header `x-forwarded-client-cert` (XFCC), in which a proxy reports the certificate of its client.
//!
//! Envoy writes one element for each hop. A header that a single proxy has overwritten is one line with one element. Any other
//! form can contain text from the client, and is rejected.
//!
//! ```abnf
//! xfcc    = element *( "," element )
//! element = pair *( ";" pair )
//! pair    = key "=" ( quoted / token )
//! key     = "By" / "Hash" / "Cert" / "Chain" / "Subject" / "Issuer" / "URI" / "DNS"      ; case-insensitive
//! quoted  = DQUOTE *( %x20-21 / %x23-5B / %x5D-7E / "\" %x20-7E ) DQUOTE
//! token   = *( %x21 / %x23-2B / %x2D-3A / %x3C / %x3E-5B / %x5D-7E )      ; not `,` `;` `=` `"` `\`
//! ```
//! Source: Envoy's documentation, "HTTP header manipulation", x-forwarded-client-cert.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::combinator::{all_consuming, map_opt, recognize};
use nom::multi::{many0_count, separated_list1};
use nom::sequence::{delimited, preceded, separated_pair};

use crate::slugs;

/// The name of the header.
pub const HEADER: &str = "x-forwarded-client-cert";

slugs! {
    /// The reason why the header does not identify the caller.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum XfccReason {
        Missing = "xfcc-missing", "The header `x-forwarded-client-cert` is missing.";
        Unreadable = "xfcc-unreadable", "Envoy did not expose the headers.";
        SeveralLines = "xfcc-several-lines", "The header `x-forwarded-client-cert` has several lines.";
        Malformed = "xfcc-malformed", "The header `x-forwarded-client-cert` does not follow its grammar.";
        SeveralElements = "xfcc-several-elements",
            "The header `x-forwarded-client-cert` has several elements: the proxy appended its own to the client's.";
        NoUri = "xfcc-no-uri", "The element of the header `x-forwarded-client-cert` has no URI.";
        SeveralUris = "xfcc-several-uris", "The element of the header `x-forwarded-client-cert` has several URIs.";
        NotByProxy = "xfcc-not-by-proxy",
            "The field `By` of the header `x-forwarded-client-cert` is not the proxy that sent the header.";
    }
}

/// Returns the URI of the caller in the lines of the header, which the proxy with this SPIFFE ID has sent. The URI itself is not
/// checked.
///
/// # Errors
/// Returns the reason why the lines do not identify exactly one caller.
pub fn caller<'h>(lines: impl IntoIterator<Item = &'h [u8]>, proxy: &str) -> Result<&'h [u8], XfccReason> {
    let mut lines = lines.into_iter();
    let line = lines.next().ok_or(XfccReason::Missing)?;
    if lines.next().is_some() {
        return Err(XfccReason::SeveralLines);
    }
    let (_, elements) = all_consuming(separated_list1(tag(","), element))(line).map_err(|_| XfccReason::Malformed)?;
    let [element] = elements.as_slice() else { return Err(XfccReason::SeveralElements) };
    let values = |wanted: Key| element.iter().filter(move |(key, _)| *key == wanted).map(|(_, value)| *value);
    if Key::ONCE.into_iter().any(|key| values(key).nth(1).is_some()) {
        return Err(XfccReason::Malformed);
    }
    // Envoy writes the URI of its own certificate, if the certificate has one.
    if values(Key::By).any(|by| by != proxy.as_bytes()) {
        return Err(XfccReason::NotByProxy);
    }
    let mut uris = values(Key::Uri);
    // Envoy writes `URI=` for a certificate without a URI.
    let uri = uris.next().filter(|uri| !uri.is_empty()).ok_or(XfccReason::NoUri)?;
    if uris.next().is_some() {
        return Err(XfccReason::SeveralUris);
    }
    Ok(uri)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    By,
    Hash,
    Cert,
    Chain,
    Subject,
    Issuer,
    Uri,
    Dns,
}

impl Key {
    /// The keys that an element has at most once.
    const ONCE: [Self; 5] = [Self::Hash, Self::Cert, Self::Chain, Self::Subject, Self::Issuer];

    fn named(name: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 8] = [
            (b"by", Self::By),
            (b"hash", Self::Hash),
            (b"cert", Self::Cert),
            (b"chain", Self::Chain),
            (b"subject", Self::Subject),
            (b"issuer", Self::Issuer),
            (b"uri", Self::Uri),
            (b"dns", Self::Dns),
        ];
        names.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, key)| key)
    }
}

type Parsed<'h, T> = nom::IResult<&'h [u8], T>;

fn element(input: &[u8]) -> Parsed<'_, Vec<(Key, &[u8])>> {
    separated_list1(tag(";"), separated_pair(key, tag("="), value))(input)
}

fn key(input: &[u8]) -> Parsed<'_, Key> {
    map_opt(take_while1(|byte: u8| byte.is_ascii_alphabetic()), Key::named)(input)
}

/// A quoted value is not unescaped, because a SPIFFE ID contains no character that is escaped.
fn value(input: &[u8]) -> Parsed<'_, &[u8]> {
    let token = take_while(|byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'=' | b'"' | b'\\'));
    alt((delimited(tag("\""), quoted, tag("\"")), token))(input)
}

fn quoted(input: &[u8]) -> Parsed<'_, &[u8]> {
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let plain = take_while1(move |byte| is_text(byte) && !matches!(byte, b'"' | b'\\'));
    let escape = preceded(tag("\\"), take_while_m_n(1, 1, is_text));
    recognize(many0_count(alt((plain, escape))))(input)
}

#[cfg(test)]
mod tests {
    use super::{XfccReason, caller};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PROXY: &str = "spiffe://example.org/ns/istio-system/sa/gateway";
    const CALLER: &str = "spiffe://example.org/ns/default/sa/sleep";

    fn of(line: &str) -> Result<&str, XfccReason> {
        caller([line.as_bytes()], PROXY).map(|uri| str::from_utf8(uri).unwrap())
    }

    #[test]
    fn one_uri_in_one_element_is_the_caller() {
        for line in [
            format!("URI={CALLER}"),
            format!("By={PROXY};Hash=0a1b;URI={CALLER}"),
            format!("by={PROXY};hash=0a1b;uri=\"{CALLER}\";DNS=a.example;dns=b.example"),
            format!(r#"Hash=0a1b;Subject="CN=a\"b\\,URI=x;O=\\";Cert="-----BEGIN%0A";URI={CALLER}"#),
            format!(r#"Subject="";Issuer="CN=x";URI={CALLER}"#),
        ] {
            assert_eq!(of(&line), Ok(CALLER), "{line}");
        }
    }

    #[test]
    fn anything_else_is_rejected_with_its_reason() {
        use XfccReason::{Malformed, NoUri, NotByProxy, SeveralElements, SeveralUris};
        for (line, reason) in [
            ("Hash=0a1b".to_owned(), NoUri),
            ("Hash=0a1b;URI=".to_owned(), NoUri),
            (format!("By={PROXY}"), NoUri),
            (format!("URI={CALLER};URI={CALLER}"), SeveralUris),
            (format!("URI={CALLER};URI="), SeveralUris),
            (format!("URI={CALLER},URI={CALLER}"), SeveralElements),
            (format!("Hash=00,By={PROXY};URI={CALLER}"), SeveralElements),
            (format!("By=spiffe://example.org/x;URI={CALLER}"), NotByProxy),
            (format!("By={PROXY};By=spiffe://example.org/x;URI={CALLER}"), NotByProxy),
            (format!("Subject=\"a,b\";By={CALLER};URI={CALLER}"), NotByProxy),
        ] {
            assert_eq!(of(&line), Err(reason), "{line}");
        }
        for line in [
            "",
            ",",
            ";",
            "URI",
            "=",
            "URI=a,",
            "URI=a;",
            ",URI=a",
            ";URI=a",
            "URI=a;;Hash=b",
            "URI=a b",
            "URI =a",
            " URI=a",
            "URI=a=b",
            "URI=a\\",
            "URI=\"a",
            "URI=\"a\"b",
            "URI=a\"b\"",
            "URI=\"a\\\"",
            "URI=a\0",
            "URI=é",
            "URI=\"é\"",
            "URI=\"a\tb\"",
            "Url=a",
            "URI=a;X=b",
            "Hash=a;Hash=b;URI=c",
            "Subject=\"a\";Subject=\"b\";URI=c",
            "[{\"uri\":[\"spiffe://example.org/a\"]}]",
        ] {
            assert_eq!(of(line), Err(Malformed), "{line}");
        }
    }

    #[test]
    fn exactly_one_line_is_accepted() {
        let line = format!("URI={CALLER}");
        assert_eq!(caller([], PROXY), Err(XfccReason::Missing));
        assert_eq!(caller([line.as_bytes(), line.as_bytes()], PROXY), Err(XfccReason::SeveralLines));
        assert_eq!(caller([b"".as_slice(), line.as_bytes()], PROXY), Err(XfccReason::SeveralLines));
    }

    #[test]
    fn no_byte_of_a_quoted_text_ends_it_but_a_quote() {
        for byte in 0..=u8::MAX {
            let line = [b"Subject=\"".as_slice(), &[byte], b"\";URI=a"].concat();
            let expected = match byte {
                b'"' | b'\\' | 0..0x20 | 0x7f.. => Err(Malformed),
                _ => Ok(b"a".as_slice()),
            };
            assert_eq!(caller([line.as_slice()], PROXY), expected, "{byte:#x}");
        }
        use XfccReason::Malformed;
    }
}

//! The header `x-forwarded-client-cert` (XFCC), in which a proxy tells whose certificate it has seen.
//!
//! Envoy writes one element for each hop, so one that a single named proxy has written anew is one line of one element. Whatever
//! is more, less or otherwise than that may hold what a client has written, and is refused.
//!
//! ```abnf
//! xfcc    = element *( "," element )
//! element = pair *( ";" pair )
//! pair    = key "=" ( quoted / token )
//! key     = "By" / "Hash" / "Cert" / "Chain" / "Subject" / "Issuer" / "URI" / "DNS"      ; without regard to case
//! quoted  = DQUOTE *( %x20-21 / %x23-5B / %x5D-7E / "\" %x20-7E ) DQUOTE
//! token   = *( %x21 / %x23-2B / %x2D-3A / %x3C / %x3E-5B / %x5D-7E )      ; neither `,` `;` `=` nor `"` `\`
//! ```
//! Source: Envoy's documentation, "HTTP header manipulation", x-forwarded-client-cert.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::combinator::{all_consuming, map_opt, recognize};
use nom::multi::{many0_count, separated_list1};
use nom::sequence::{delimited, preceded, separated_pair};

/// The header's name.
pub const HEADER: &str = "x-forwarded-client-cert";

/// Why the header tells no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XfccReason {
    /// There is no such header.
    Missing,
    /// Envoy did not tell the headers.
    Unreadable,
    /// The header has several lines.
    SeveralLines,
    /// It is not of the grammar above.
    Malformed,
    /// It has several elements: another wrote before the proxy did.
    SeveralElements,
    /// Its element names no URI.
    NoUri,
    /// Its element names several URIs.
    SeveralUris,
    /// `By` names another than the proxy that sent it.
    NotByProxy,
}

impl XfccReason {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Missing,
            Self::Unreadable,
            Self::SeveralLines,
            Self::Malformed,
            Self::SeveralElements,
            Self::NoUri,
            Self::SeveralUris,
            Self::NotByProxy,
        ]
        .into_iter()
    }

    /// The stable name of this reason.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Missing => "xfcc-missing",
            Self::Unreadable => "xfcc-unreadable",
            Self::SeveralLines => "xfcc-several-lines",
            Self::Malformed => "xfcc-malformed",
            Self::SeveralElements => "xfcc-several-elements",
            Self::NoUri => "xfcc-no-uri",
            Self::SeveralUris => "xfcc-several-uris",
            Self::NotByProxy => "xfcc-not-by-proxy",
        }
    }
}

/// The URI that the lines of the header name as the caller's, where they are of the proxy whose SPIFFE ID is `proxy`. The
/// URI itself is not looked at.
///
/// # Errors
/// When they name none, or not surely one.
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
    // Envoy writes the URI of its own certificate, if that has one.
    if values(Key::By).any(|by| by != proxy.as_bytes()) {
        return Err(XfccReason::NotByProxy);
    }
    let mut uris = values(Key::Uri);
    // Envoy writes `URI=` for a certificate that has none.
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
    /// Those that stand once in an element.
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

/// What stands between quotes is not unescaped: no SPIFFE ID holds what would be escaped.
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
    fn one_uri_of_one_element_is_the_caller() {
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
    fn anything_else_is_refused_by_its_name() {
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
    fn one_line() {
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

//! The path of a request as Envoy's connection manager normalizes it, before any filter runs.

use clap::ValueEnum;

/// The normalization of paths, with the names of `pathNormalization` in Istio's mesh configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum PathNormalization {
    /// The path as received
    None,
    /// `normalize_path`: dot segments, backslashes and unnecessary escapes. The default of Istio
    Base,
    /// Also `merge_slashes`
    MergeSlashes,
    /// Also the escaped slashes `%2F` and `%5C`
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    /// The name of the value in options.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Returns the path that filters get, or `None` if Envoy responds with 400.
    ///
    /// The steps and their order are those of `ConnectionManagerUtility::maybeNormalizePath` in Envoy.
    pub(crate) fn apply(self, path: &str) -> Option<String> {
        if path.contains('#') {
            return None;
        }
        let (before, query) = path.find('?').map_or((path, ""), |at| path.split_at(at));
        // A path in another form, such as `*`, has no segments.
        if self == Self::None || !before.starts_with('/') {
            return Some(path.to_owned());
        }
        let decoded = if self == Self::DecodeAndMergeSlashes { decode_slashes(before) } else { before.to_owned() };
        let mut normalized = canonical(dot_segments(&decoded).as_bytes())?;
        if self >= Self::MergeSlashes {
            normalized = merge_slashes(&normalized);
        }
        normalized.push_str(query);
        Some(normalized)
    }
}

fn decode_slashes(path: &str) -> String {
    [("%2F", "/"), ("%2f", "/"), ("%5C", "\\"), ("%5c", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (escape, slash)| path.replace(escape, slash))
}

fn merge_slashes(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // Envoy passes `//` for a path of several slashes only.
    let end = if path.ends_with('/') && path.len() > 1 { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Returns the path with dot segments that have no parameters. Envoy does this first, so only a `/` separates segments.
fn dot_segments(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots,
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Returns the path in the form of Chromium's `CanonicalizePath`, which Envoy uses, or `None` if it has a NUL byte.
fn canonical(path: &[u8]) -> Option<String> {
    let mut segments: Vec<String> = Vec::new();
    let mut parts = path.split(|byte| matches!(byte, b'/' | b'\\')).skip(1).peekable();
    while let Some(part) = parts.next() {
        let segment = canonical_segment(part)?;
        let is_last = parts.peek().is_none();
        match segment.as_str() {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push(String::new());
                }
            }
            _ => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Returns a segment with each escape of an unreserved character decoded, and other special characters escaped.
fn canonical_segment(segment: &[u8]) -> Option<String> {
    let mut canonical = String::new();
    // The offset of the last `%` that begins no escape. Decoding must not complete it to an escape.
    let mut lone_percent = None;
    let mut rest = segment;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, escaped(rest)) {
            (0, _) | (b'%', Some((0, _))) => return None,
            (b'%', Some((decoded, _))) if is_unreserved(decoded) => {
                rest = rest.get(2..).unwrap_or_default();
                canonical.push(char::from(decoded));
                if let Some(at) = lone_percent {
                    keep_lone(&mut canonical, at, rest);
                }
            }
            (b'%', Some((_, digits))) => {
                rest = rest.get(2..).unwrap_or_default();
                canonical.push('%');
                canonical.extend(digits.map(char::from));
            }
            (b'%', None) => {
                lone_percent = Some(canonical.len());
                canonical.push('%');
            }
            (byte, _) if is_special(*byte) => canonical.push_str(&format!("%{byte:02X}")),
            (byte, _) => canonical.push(char::from(*byte)),
        }
    }
    Some(canonical)
}

/// Escapes a lone `%` as `%25` if the text after it looks like an escape now, also with the next byte of the input.
fn keep_lone(canonical: &mut String, at: usize, rest: &[u8]) {
    let after: Vec<u8> = canonical.bytes().skip(at + 1).collect();
    let looks_escaped = match *after {
        [digit] => rest.first().is_some_and(|next| escaped(&[digit, *next]).is_some()),
        [_, _] => escaped(&after).is_some(),
        _ => false,
    };
    if looks_escaped {
        canonical.insert_str(at + 1, "25");
    }
}

/// Returns the byte that two hexadecimal digits after a `%` escape, with the digits.
fn escaped(digits: &[u8]) -> Option<(u8, [u8; 2])> {
    let digits = *digits.first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some((u8::try_from(high? * 16 + low?).ok()?, digits))
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn is_special(byte: u8) -> bool {
    !matches!(byte, 0x21..=0x7e) || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::PathNormalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes};

    #[test]
    fn paths_are_normalized_as_in_envoy() {
        // A test in `tests/integration` compares more paths with a real Envoy.
        for (path, base, merged, decoded) in [
            ("/", "/", "/", "/"),
            ("/a/b/?x=//", "/a/b/?x=//", "/a/b/?x=//", "/a/b/?x=//"),
            ("//admin", "//admin", "/admin", "/admin"),
            ("/a//", "/a//", "/a/", "/a/"),
            ("//", "//", "//", "//"),
            ("/a/../b/./c", "/b/c", "/b/c", "/b/c"),
            ("/a/%2E%2e/b", "/b", "/b", "/b"),
            ("/a//../b", "/a/b", "/a/b", "/a/b"),
            ("/../..", "/", "/", "/"),
            ("/a/.", "/a/", "/a/", "/a/"),
            ("/a/..;x\\y/b", "/b", "/b", "/b"),
            ("/a\\..;/b", "/a/..;/b", "/a/..;/b", "/a/..;/b"),
            ("/a/./b.", "/a/b.", "/a/b.", "/a/b."),
            ("/a\\b", "/a/b", "/a/b", "/a/b"),
            ("/%61%2d", "/a-", "/a-", "/a-"),
            ("/a%2fb%5Cc", "/a%2fb%5Cc", "/a%2fb%5Cc", "/a/b/c"),
            ("/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"),
            ("/%zz%", "/%zz%", "/%zz%", "/%zz%"),
            ("/%%300", "/%2500", "/%2500", "/%2500"),
            ("/{ü}", "/%7B%C3%BC%7D", "/%7B%C3%BC%7D", "/%7B%C3%BC%7D"),
            ("*", "*", "*", "*"),
        ] {
            for (normalization, expected) in [(Base, base), (MergeSlashes, merged), (DecodeAndMergeSlashes, decoded)] {
                assert_eq!(normalization.apply(path).as_deref(), Some(expected), "{path} with {normalization:?}");
            }
            assert_eq!(PathNormalization::None.apply(path).as_deref(), Some(path));
        }
        for path in ["/a%00", "/#a"] {
            assert_eq!(Base.apply(path), None, "{path}");
        }
    }
}

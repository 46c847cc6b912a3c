//! Path templates with `{*}` and `{**}`, which match like Envoy's `uri_template` with the template that Istio generates.
//!
//! ```abnf
//! template = 1*( "/" segment )
//! segment  = "{*}" / "{**}" / *literal    ; at most one "{**}", and no operator after it
//! literal  = ALPHA / DIGIT / "-" / "." / "_" / "~" / "%" / "!" / "$" / "&" / "'" / "(" / ")" / "+" / "," / ";" / ":" / "@" / "="
//! ```

use std::fmt;

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PathTemplate {
    /// The segments before `{**}`, or all of them.
    pub(crate) head: Box<[Segment]>,
    /// The end of the path after `{**}`, if the template contains it.
    pub(crate) tail: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(Box<str>),
    /// `{*}`: one segment that is not empty.
    One,
}

/// The error of parsing a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathTemplateError(&'static str);

impl fmt::Display for PathTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl PathTemplate {
    /// Returns `true` if a value of `paths` is parsed as a template, because it contains a brace. As in Istio
    /// (`CheckValidPathTemplate`), a brace is only allowed in `{*}` and `{**}`: `/users/{id}` would match its own text only.
    pub(crate) fn recognizes(value: &str) -> bool {
        value.contains(['{', '}'])
    }

    pub(crate) fn new(value: &str) -> Result<Self, PathTemplateError> {
        if !value.starts_with('/') {
            return Err(PathTemplateError("expected a template that starts with `/`"));
        }
        let (head, tail) = match value.split_once("/{**}") {
            Some((_, tail)) if tail.contains(['{', '}', '*']) => {
                return Err(PathTemplateError("`{**}` must be the last operator"));
            }
            Some((_, tail)) if !tail.is_empty() && !tail.starts_with('/') => return Err(OPERATOR_FILLS_SEGMENT),
            Some((head, tail)) => (head, Some(tail)),
            None => (value, None),
        };
        if tail.is_some_and(|tail| !tail.bytes().all(|byte| byte == b'/' || is_path_byte(byte))) {
            return Err(FOREIGN_CHARACTER);
        }
        Ok(Self {
            head: head.split('/').skip(1).map(Segment::new).collect::<Result<_, _>>()?,
            tail: tail.map(Box::from),
        })
    }

    /// The literal segments before `{**}`, each with its position from 0.
    pub(crate) fn literals(&self) -> impl Iterator<Item = (usize, &str)> {
        self.head.iter().enumerate().filter_map(|(position, segment)| match segment {
            Segment::Literal(literal) => Some((position, &**literal)),
            Segment::One => None,
        })
    }

    /// The suffix of every matching path, if the template contains `{**}`.
    pub(crate) fn tail(&self) -> Option<&str> {
        self.tail.as_deref()
    }

    /// Returns `true` if `path`, which has no query and no fragment, matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut remainder = path;
        for segment in &self.head {
            let Some(stripped) = remainder.strip_prefix(b"/") else { return false };
            let end = stripped.iter().position(|&byte| byte == b'/').unwrap_or(stripped.len());
            let Some((found, after)) = stripped.split_at_checked(end) else { return false };
            if !segment.matches(found) {
                return false;
            }
            remainder = after;
        }
        match &self.tail {
            None => remainder.is_empty(),
            Some(tail) => remainder
                .strip_prefix(b"/")
                .and_then(|rest| rest.strip_suffix(tail.as_bytes()))
                .is_some_and(|rest| rest.iter().all(|&byte| byte == b'/' || byte == b'*' || is_path_byte(byte))),
        }
    }
}

impl Segment {
    fn new(segment: &str) -> Result<Self, PathTemplateError> {
        match segment {
            "{*}" => Ok(Self::One),
            operator if operator.contains(['{', '}', '*']) => Err(OPERATOR_FILLS_SEGMENT),
            literal if literal.bytes().all(is_path_byte) => Ok(Self::Literal(literal.into())),
            _ => Err(FOREIGN_CHARACTER),
        }
    }

    fn matches(&self, segment: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => segment == literal.as_bytes(),
            // A `*` in the request is an ordinary character.
            Self::One => !segment.is_empty() && segment.iter().all(|&byte| byte == b'*' || is_path_byte(byte)),
        }
    }
}

const OPERATOR_FILLS_SEGMENT: PathTemplateError =
    PathTemplateError("expected `{*}` or `{**}` as a whole segment, and no other `{`, `}` or `*`");
const FOREIGN_CHARACTER: PathTemplateError =
    PathTemplateError("a segment contains a character that is not allowed in a path");

/// The `pchar` of RFC 3986 section 3.3, as Envoy's templates define it.
pub(crate) const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::PathTemplate;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn matches_as_istio_documents() {
        for (template, path, expected) in [
            ("/allow/admin/{**}", "/allow/admin/", true),
            ("/allow/admin/{**}", "/allow/admin/temp.txt", true),
            ("/allow/admin/{**}", "/allow/admin/foo/temp.txt", true),
            ("/allow/admin/{**}", "/allow/admin", false),
            ("/allow/admin/{**}", "/allow/user/", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/bat.txt", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/bat/fuzz.txt", true),
            ("/foo/{*}/bar/{**}", "/foo/bar/bat.txt", false),
            ("/foo/{*}/bar/{**}", "/foo//bar/bat.txt", false),
            ("/store/{**}/cart", "/store/foo/bar/cart", true),
            ("/store/{**}/cart", "/store//cart", true),
            ("/store/{**}/cart", "/store/cart", false),
            ("/{*}", "/", false),
            ("/{*}", "/a", true),
            ("/{*}", "/a/b", false),
            ("/{*}", "/a;x=%20*", true),
            ("/{*}", "/a\"b", false),
            ("/{**}", "/", true),
            ("/{**}", "", false),
            ("/{**}", "/a\"b", false),
        ] {
            let compiled = PathTemplate::new(template).unwrap();
            assert_eq!(compiled.matches(path.as_bytes()), expected, "{template} on {path}");
        }
    }

    #[test]
    fn refuses_what_is_no_template() {
        for (template, message) in [
            ("a/{*}", "starts with"),
            ("/{**}/{*}", "last operator"),
            ("/{**}/{**}", "last operator"),
            ("/a{*}", "as a whole segment"),
            ("/{*}b", "as a whole segment"),
            ("/{**}b", "as a whole segment"),
            ("/{*}/*", "as a whole segment"),
            ("/{x}/{*}", "as a whole segment"),
            ("/a b/{*}", "not allowed in a path"),
            ("/{**}/a b", "not allowed in a path"),
        ] {
            let error = PathTemplate::new(template).unwrap_err().to_string();
            assert!(error.contains(message), "{template}: {error}");
        }
    }
}

//! Path templates with `{*}` and `{**}`, matched as Envoy's `uri_template` matches what Istio makes of them.
//!
//! ```abnf
//! template = 1*( "/" segment )
//! segment  = "{*}" / "{**}" / *literal    ; at most one "{**}", and no operator after it
//! literal  = ALPHA / DIGIT / "-" / "." / "_" / "~" / "%" / "!" / "$" / "&" / "'" / "(" / ")" / "+" / "," / ";" / ":" / "@" / "="
//! ```

use std::fmt;

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    /// The segments before `{**}`, or all of them.
    head: Box<[Segment]>,
    /// What the path must end with behind `{**}`, if there is one.
    tail: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// `{*}`: one segment that is not empty.
    One,
}

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathTemplateError(&'static str);

impl fmt::Display for PathTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl PathTemplate {
    /// Whether a value of `paths` is a template: it holds `{*}` or `{**}`.
    pub(crate) fn recognizes(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    pub(crate) fn new(value: &str) -> Result<Self, PathTemplateError> {
        if !value.starts_with('/') {
            return Err(PathTemplateError("a template starts with `/`"));
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

    /// What every matching path starts with.
    pub(crate) fn literal_prefix(&self) -> String {
        let literals = self.head.iter().map_while(|segment| match segment {
            Segment::Literal(literal) => Some(&**literal),
            Segment::One => None,
        });
        literals.fold(String::new(), |prefix, literal| prefix + "/" + literal)
    }

    /// Whether `path`, without query and fragment, has this form.
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
            // A `*` that a client sends is an ordinary character of the segment.
            Self::One => !segment.is_empty() && segment.iter().all(|&byte| byte == b'*' || is_path_byte(byte)),
        }
    }
}

const OPERATOR_FILLS_SEGMENT: PathTemplateError =
    PathTemplateError("an operator, `{*}` or `{**}`, fills its segment, and nothing else holds `{`, `}` or `*`");
const FOREIGN_CHARACTER: PathTemplateError = PathTemplateError("a segment holds a character that no path may hold");

/// RFC 3986 section 3.3 `pchar`, as Envoy's templates spell it out.
const fn is_path_byte(byte: u8) -> bool {
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
            ("/a{*}", "fills its segment"),
            ("/{*}b", "fills its segment"),
            ("/{**}b", "fills its segment"),
            ("/{*}/*", "fills its segment"),
            ("/{x}/{*}", "fills its segment"),
            ("/a b/{*}", "no path may hold"),
            ("/{**}/a b", "no path may hold"),
        ] {
            let error = PathTemplate::new(template).unwrap_err().to_string();
            assert!(error.contains(message), "{template}: {error}");
        }
    }
}

//! The form that a workload's SPIFFE ID must have, and the parts of its path.

use std::fmt;

use crate::spiffe_id::is_segment_byte;

/// The form of a workload's SPIFFE ID: `istio`, a path template, or `any`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub(crate) Form);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Any,
    Template(Box<[Segment]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(Box<str>),
    Placeholder(Box<str>),
}

pub(crate) const NAMESPACE: &str = "namespace";
pub(crate) const SERVICE_ACCOUNT: &str = "serviceAccount";

/// The parts of a workload's path. A part is `None` if the pattern does not contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workload<'a> {
    /// The Kubernetes namespace.
    pub namespace: Option<&'a str>,
    /// The Kubernetes service account.
    pub service_account: Option<&'a str>,
}

impl Pattern {
    /// The form that Istio requires: `/ns/<namespace>/sa/<service account>`.
    #[must_use]
    pub fn istio() -> Self {
        Self(Form::Template(
            [
                Segment::Literal("ns".into()),
                Segment::Placeholder(NAMESPACE.into()),
                Segment::Literal("sa".into()),
                Segment::Placeholder(SERVICE_ACCOUNT.into()),
            ]
            .into(),
        ))
    }

    /// Accepts any path.
    #[must_use]
    pub const fn any() -> Self {
        Self(Form::Any)
    }

    /// Parses `istio`, `any`, or a template such as `/{cluster}/ns/{namespace}/sa/{serviceAccount}`, in which `{name}` matches one
    /// segment.
    ///
    /// # Errors
    /// Returns [`PatternError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "istio" => return Ok(Self::istio()),
            "any" => return Ok(Self::any()),
            _ => {}
        }
        let Some(path) = text.strip_prefix('/') else {
            return Err(PatternError {
                offset: 0,
                rule: "expected `istio`, `any`, or a template that starts with `/`",
            });
        };
        let mut segments: Vec<Segment> = Vec::new();
        let mut offset: usize = 1;
        for text in path.split('/') {
            let segment = Segment::parse(text).map_err(|rule| PatternError { offset, rule })?;
            if matches!(segment, Segment::Placeholder(_)) && segments.contains(&segment) {
                return Err(PatternError { offset, rule: "duplicate placeholder" });
            }
            segments.push(segment);
            offset = offset.saturating_add(text.len()).saturating_add(1);
        }
        Ok(Self(Form::Template(segments.into())))
    }

    /// Returns the parts of the path of a valid SPIFFE ID, or `None` if the path does not have this form.
    #[must_use]
    pub fn read<'a>(&self, path: &'a str) -> Option<Workload<'a>> {
        match &self.0 {
            Form::Any => Some(Self::istio().read(path).unwrap_or_default()),
            Form::Template(segments) => {
                let mut workload = Workload::default();
                let mut found = path.strip_prefix('/')?.split('/');
                for segment in segments {
                    let text = found.next()?;
                    match segment {
                        Segment::Literal(literal) if **literal != *text => return None,
                        Segment::Placeholder(name) if **name == *NAMESPACE => workload.namespace = Some(text),
                        Segment::Placeholder(name) if **name == *SERVICE_ACCOUNT => {
                            workload.service_account = Some(text);
                        }
                        Segment::Literal(_) | Segment::Placeholder(_) => {}
                    }
                }
                found.next().is_none().then_some(workload)
            }
        }
    }

    /// Returns `true` if IDs of this form contain a namespace.
    #[must_use]
    pub fn has_namespace(&self) -> bool {
        self.has(NAMESPACE)
    }

    /// Returns `true` if IDs of this form contain a service account.
    #[must_use]
    pub fn has_service_account(&self) -> bool {
        self.has(SERVICE_ACCOUNT)
    }

    fn has(&self, part: &str) -> bool {
        match &self.0 {
            Form::Any => true,
            Form::Template(segments) => {
                segments.iter().any(|segment| matches!(segment, Segment::Placeholder(name) if **name == *part))
            }
        }
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic());
            return if starts_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                Ok(Self::Placeholder(name.into()))
            } else {
                Err("expected a placeholder of letters and digits that starts with a letter, such as `{cluster}`")
            };
        }
        match text {
            "" => Err("empty segment"),
            "." | ".." => Err("no SPIFFE ID contains a segment `.` or `..`"),
            literal if literal.bytes().all(is_segment_byte) => Ok(Self::Literal(literal.into())),
            _ => Err("expected one `{placeholder}`, or only `a-z`, `A-Z`, `0-9`, `.`, `-`, `_`"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Any => f.write_str("any"),
            Form::Template(segments) => segments.iter().try_for_each(|segment| match segment {
                Segment::Literal(literal) => write!(f, "/{literal}"),
                Segment::Placeholder(name) => write!(f, "/{{{name}}}"),
            }),
        }
    }
}

/// The error of parsing a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternError {
    offset: usize,
    rule: &'static str,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.rule, self.offset)
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::{Pattern, Workload};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const fn workload<'a>(namespace: &'a str, service_account: &'a str) -> Workload<'a> {
        Workload { namespace: Some(namespace), service_account: Some(service_account) }
    }

    #[test]
    fn istio_is_exact() {
        assert_eq!(Pattern::istio().to_string(), "/ns/{namespace}/sa/{serviceAccount}");
        assert_eq!(Pattern::parse(&Pattern::istio().to_string()).unwrap(), Pattern::istio());
        assert_eq!(Pattern::parse("istio").unwrap(), Pattern::istio());
        for (path, expected) in [
            ("/ns/default/sa/sleep", Some(workload("default", "sleep"))),
            ("/ns/default/sa", None),
            ("/ns/default/sa/sleep/x", None),
            ("/x/ns/default/sa/sleep", None),
            ("/NS/default/sa/sleep", None),
            ("/ns/default/SA/sleep", None),
            ("/sa/sleep/ns/default", None),
            ("/sleep", None),
            ("", None),
        ] {
            assert_eq!(Pattern::istio().read(path), expected, "{path}");
        }
    }

    #[test]
    fn a_template_reads_its_placeholders_and_nothing_else() {
        let pattern = Pattern::parse("/{cluster}/ns/{namespace}/sa/{serviceAccount}").unwrap();
        assert_eq!(pattern.read("/east/ns/default/sa/sleep"), Some(workload("default", "sleep")));
        assert_eq!(pattern.read("/ns/default/sa/sleep"), None);
        let pattern = Pattern::parse("/workload/{name}").unwrap();
        assert_eq!(pattern.read("/workload/x"), Some(Workload::default()));
        assert!(!pattern.has_namespace() && !pattern.has_service_account());
    }

    #[test]
    fn any_tells_the_parts_of_istios_form_only() {
        let any = Pattern::parse("any").unwrap();
        assert_eq!(any.read("/ns/default/sa/sleep"), Some(workload("default", "sleep")));
        assert_eq!(any.read("/east/ns/default/sa/sleep"), Some(Workload::default()));
        assert_eq!(any.to_string(), "any");
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for (text, offset) in [
            ("", 0),
            ("Istio", 0),
            ("/", 1),
            ("/a/", 3),
            ("/a//b", 3),
            ("/a/../b", 3),
            ("/a/{}", 3),
            ("/a/{1}", 3),
            ("/a/x{b}", 3),
            ("/{a}/{a}", 5),
            ("/a b", 1),
            ("/a%2f", 1),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err().offset, offset, "{text}");
        }
    }
}

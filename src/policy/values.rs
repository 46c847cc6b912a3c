//! The compiled values of a field, and how they match.
//!
//! Source: "value matching" in Istio's AuthorizationPolicy reference, for the forms and their precedence.

use super::action::Action;
use super::path_template::PathTemplate;

/// The values of a field, and of its negated form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Values<M> {
    pub(crate) any_of: Box<[M]>,
    pub(crate) none_of: Box<[M]>,
}

impl<M> Values<M> {
    /// Returns `true` if the attribute, for which `matches` compares a value, passes. An absent attribute matches no value, and
    /// passes only if all values are negated.
    pub(crate) fn admit(&self, matches: impl Fn(&M) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&matches)) && !self.none_of.iter().any(&matches)
    }
}

/// `*`, `*suffix`, `prefix*`, or an exact string. A `*` in any other place is an ordinary character.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Text {
    /// Parses a value. The leading `*` takes precedence, as in Istio: `*a*` ends with the character `*`.
    pub(crate) fn new(value: &str) -> Self {
        if value == "*" {
            Self::Present
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(value.into())
        }
    }

    /// The string without its wildcard.
    pub(crate) const fn literal(&self) -> &str {
        match self {
            Self::Present => "",
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }

    /// Matches like `matches`, but `*` requires at least one byte.
    pub(crate) fn matches_some(&self, value: &[u8]) -> bool {
        !value.is_empty() && self.matches(value)
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
        }
    }
}

/// A string in which every `*` matches any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Glob {
    pub(crate) first: Box<str>,
    pub(crate) rest: Box<[Box<str>]>,
}

impl Glob {
    pub(crate) fn new(value: &str) -> Self {
        let mut parts = value.split('*').map(Box::from);
        Self { first: parts.next().unwrap_or_default(), rest: parts.collect() }
    }

    /// The string, if it contains no `*`.
    pub(crate) const fn exact(&self) -> Option<&str> {
        if self.rest.is_empty() { Some(&self.first) } else { None }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        let Some((last, middle)) = self.rest.split_last() else { return value == &*self.first };
        let Some(mut remainder) = value.strip_prefix(&*self.first) else { return false };
        for part in middle {
            let Some((_, after)) = remainder.split_once(&**part) else { return false };
            remainder = after;
        }
        remainder.ends_with(&**last)
    }
}

/// The trust domains that a namespace or service account applies to. If a rule does not name one, the reading that grants less
/// applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The local trust domain and its aliases.
    Local,
    /// Every trust domain, because `trustDomains` names one, or because the wider reading denies more.
    Any,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Namespace {
    pub(crate) name: Glob,
    pub(crate) scope: Scope,
}

/// A service account in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServiceAccount {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) scope: Scope,
}

/// A path, without its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Path {
    Text(Text),
    Template(PathTemplate),
}

impl Path {
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.matches_some(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

/// The rule for attributes that servers can read in several ways: the reading that grants less applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// In ALLOW policies: every reading must match a value, and none may match a negated value.
    Strict,
    /// In DENY and AUDIT policies: one reading must match a value, and one must not match a negated value.
    Lenient,
}

impl Reading {
    pub(crate) const fn of(action: Action) -> Self {
        match action {
            Action::Allow => Self::Strict,
            Action::Deny | Action::Audit => Self::Lenient,
        }
    }

    /// Returns `true` if every reading of an attribute must match these values.
    pub(crate) const fn needs_every(self, negated: bool) -> bool {
        matches!((self, negated), (Self::Strict, false) | (Self::Lenient, true))
    }
}

impl<M> Values<M> {
    /// Returns `true` if an attribute with these readings passes. An absent attribute has none. `matches` compares one of them.
    pub(crate) fn admit_readings<'r>(
        &self,
        readings: impl Iterator<Item = &'r [u8]> + Clone,
        reading: Reading,
        matches: impl Fn(&M, &[u8]) -> bool,
    ) -> bool {
        let one_of = |values: &[M], text: &[u8]| values.iter().any(|value| matches(value, text));
        let some = |values: &[M]| readings.clone().any(|text| one_of(values, text));
        let every =
            |values: &[M]| readings.clone().next().is_some() && readings.clone().all(|text| one_of(values, text));
        self.decide(reading, some, every)
    }

    /// `some` and `every` compare some or every reading with values.
    fn decide(&self, reading: Reading, some: impl Fn(&[M]) -> bool, every: impl Fn(&[M]) -> bool) -> bool {
        match reading {
            Reading::Strict => (self.any_of.is_empty() || every(&self.any_of)) && !some(&self.none_of),
            Reading::Lenient => (self.any_of.is_empty() || some(&self.any_of)) && !every(&self.none_of),
        }
    }
}

impl Values<Text> {
    /// Returns `true` if the lines of a header pass. A line is read as a whole and as the list of its members, because several lines
    /// and one line with commas are equivalent (RFC 9110 section 5.3). Envoy joins the lines of some headers before any filter.
    pub(crate) fn admit_lines<'l>(&self, lines: impl Iterator<Item = &'l [u8]> + Clone, reading: Reading) -> bool {
        let one_of = |values: &[Text], text: &[u8]| values.iter().any(|value| value.matches(text));
        let some = |values: &[Text]| {
            lines.clone().any(|line| one_of(values, line) || members(line).any(|member| one_of(values, member)))
        };
        // A value with a comma matches the whole line.
        let is_written = |values: &[Text], line: &[u8]| {
            values.iter().any(|value| matches!(value, Text::Exact(_)) && value.matches(line))
        };
        let all = |values: &[Text], line: &[u8]| {
            is_written(values, line) || (one_of(values, line) && members(line).all(|member| one_of(values, member)))
        };
        let every = |values: &[Text]| lines.clone().next().is_some() && lines.clone().all(|line| all(values, line));
        self.decide(reading, some, every)
    }
}

/// Returns the members of a header line that is a list, without empty ones (RFC 9110 section 5.6.1).
pub(crate) fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_list = line.contains(&b',');
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(move |member| is_list && !member.is_empty())
}

/// Returns `true` for a byte of a token, such as a method or the name of a header (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The issuer and subject of a token: `requestPrincipals`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RequestPrincipal {
    pub(crate) issuer: Text,
    pub(crate) subject: Text,
}

impl RequestPrincipal {
    /// Parses a value, which is split at the last `/`, as in Istio.
    pub(crate) fn new(value: &str) -> Self {
        let part = |text: &str| Text::new(text);
        let (issuer, subject) = match value.rsplit_once('/') {
            None if value == "*" => (Text::Present, Text::Present),
            // Without a slash: a suffix of the subject, a prefix of the issuer, or an issuer with an empty subject.
            None if value.starts_with('*') => (Text::Present, part(value)),
            None if value.ends_with('*') => (part(value), Text::Present),
            None => (part(value), Text::Exact("".into())),
            // A leading `*` takes precedence, and leaves the subject unchanged.
            Some((issuer, subject)) if value.starts_with('*') => (part(issuer), Text::Exact(subject.into())),
            Some((issuer, subject)) => (
                Text::Exact(issuer.into()),
                match subject.strip_suffix('*') {
                    Some("") => Text::Present,
                    Some(prefix) => Text::Prefix(prefix.into()),
                    None => Text::Exact(subject.into()),
                },
            ),
        };
        Self { issuer, subject }
    }
}

#[cfg(test)]
mod tests {
    use super::{Glob, Text, Values};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_form_of_text_matches_its_values() {
        for (pattern, value, expected) in [
            ("*", "", true),
            ("*", "x", true),
            ("ab", "ab", true),
            ("ab", "abc", false),
            ("ab", "AB", false),
            ("ab*", "ab", true),
            ("ab*", "abc", true),
            ("ab*", "xab", false),
            ("*ab", "ab", true),
            ("*ab", "xab", true),
            ("*ab", "abx", false),
            ("*a*", "xa*", true),
            ("*a*", "xax", false),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
        ] {
            assert_eq!(Text::new(pattern).matches(value.as_bytes()), expected, "{pattern} on {value}");
        }
    }

    #[test]
    fn a_glob_matches_with_any_number_of_wildcards() {
        for (pattern, value, expected) in [
            ("prod", "prod", true),
            ("prod", "prod-x", false),
            ("*", "anything", true),
            ("prod*", "prod-x", true),
            ("*-x", "prod-x", true),
            ("p*d*x", "prod-x", true),
            ("p*d*x", "prod-y", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a**b", "ab", true),
            ("*b*b", "b", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(value), expected, "{pattern} on {value}");
        }
        assert_eq!(Glob::new("prod").exact(), Some("prod"));
        assert_eq!(Glob::new("prod*").exact(), None);
    }

    #[test]
    fn values_and_not_values_are_anded() {
        let values = |any: &[&'static str], none: &[&'static str]| Values { any_of: any.into(), none_of: none.into() };
        let on = |values: Values<&str>, subject: &str| values.admit(|value| *value == subject);
        assert!(on(values(&["a", "b"], &[]), "b"));
        assert!(!on(values(&["a"], &["a"]), "a"));
        assert!(!on(values(&["a"], &["b"]), "c"));
        assert!(on(values(&[], &["b"]), "c"));
        assert!(!on(values(&[], &["b"]), "b"));
    }
}

//! The matchers for subject alternative names in a validation context.

use super::message::{StringMatcher, TypedMatcher, ValidationContext};

/// The matchers for subject alternative names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Matchers {
    typed: Vec<TypedMatcher>,
    untyped: Vec<StringMatcher>,
}

impl Matchers {
    /// Adds the matchers of another context.
    pub(super) fn append(&mut self, mut other: Self) {
        self.typed.append(&mut other.typed);
        self.untyped.append(&mut other.untyped);
    }

    /// Returns `true` if there is none: every name passes.
    pub(crate) const fn is_empty(&self) -> bool {
        self.typed.is_empty() && self.untyped.is_empty()
    }

    /// Returns the matchers that a SPIFFE ID can pass.
    fn for_uris(&self) -> impl Iterator<Item = &StringMatcher> {
        self.typed.iter().filter(|typed| typed.san_type == "URI").map(|typed| &typed.matcher).chain(&self.untyped)
    }

    /// Returns `true` if an ID of this trust domain can pass.
    pub(crate) fn allow(&self, trust_domain: &str) -> bool {
        let start = format!("spiffe://{trust_domain}/");
        let can_match = |matcher: &StringMatcher| match (&matcher.exact, &matcher.prefix) {
            (Some(exact), _) => exact.starts_with(&start),
            (None, Some(prefix)) => prefix.starts_with(&start) || start.starts_with(prefix.as_str()),
            (None, None) => true,
        };
        self.is_empty() || self.for_uris().any(can_match)
    }

    /// Returns `true` if no SPIFFE ID can pass.
    pub(crate) fn exclude_spiffe_ids(&self) -> bool {
        let can_match = |matcher: &StringMatcher| match (&matcher.exact, &matcher.prefix) {
            (Some(exact), _) => exact.starts_with("spiffe://"),
            (None, Some(prefix)) => prefix.starts_with("spiffe://") || "spiffe://".starts_with(prefix.as_str()),
            (None, None) => true,
        };
        !self.is_empty() && !self.for_uris().any(can_match)
    }

    /// Returns the trust domains that matchers name, if each matcher names one.
    pub(crate) fn trust_domains(&self) -> Option<Vec<&str>> {
        let named = self.for_uris().map(|matcher| {
            let text = matcher.exact.as_ref().or(matcher.prefix.as_ref())?;
            let (domain, _) = text.strip_prefix("spiffe://")?.split_once('/')?;
            Some(domain)
        });
        let mut domains = named.collect::<Option<Vec<_>>>()?;
        domains.sort_unstable();
        domains.dedup();
        Some(domains)
    }
}

impl ValidationContext {
    /// Returns the matchers for subject alternative names.
    pub(crate) fn matchers(&self) -> Matchers {
        Matchers { typed: self.match_typed_subject_alt_names.clone(), untyped: self.match_subject_alt_names.clone() }
    }

    /// Removes the matchers for subject alternative names, and returns them.
    pub(super) fn take_matchers(&mut self) -> Matchers {
        let Self { match_typed_subject_alt_names, match_subject_alt_names, .. } = self;
        Matchers {
            typed: std::mem::take(match_typed_subject_alt_names),
            untyped: std::mem::take(match_subject_alt_names),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::message::ValidationContext;

    fn matchers(matchers: serde_json::Value) -> super::Matchers {
        let context = json!({"match_typed_subject_alt_names": matchers});
        serde_json::from_value::<ValidationContext>(context).unwrap().matchers()
    }

    fn uri(matcher: &serde_json::Value) -> super::Matchers {
        matchers(json!([{"san_type": "URI", "matcher": matcher}]))
    }

    #[test]
    fn matchers_allow_a_trust_domain_or_do_not() {
        assert!(matchers(json!([])).allow("a"));
        for (matcher, yes) in [
            (json!({"prefix": "spiffe://a/"}), true),
            (json!({"prefix": "spiffe://a/ns/x/"}), true),
            (json!({"prefix": "spiffe://"}), true),
            (json!({"prefix": "spiffe://ab/"}), false),
            (json!({"exact": "spiffe://a/x"}), true),
            (json!({"exact": "spiffe://b/x"}), false),
            (json!({"safe_regex": {"regex": ".*"}}), true),
        ] {
            assert_eq!(uri(&matcher).allow("a"), yes, "{matcher}");
        }
        assert!(!matchers(json!([{"san_type": "DNS", "matcher": {"prefix": "spiffe://a/"}}])).allow("a"));
    }

    #[test]
    fn matchers_name_trust_domains() {
        assert_eq!(uri(&json!({"exact": "spiffe://a/x"})).trust_domains(), Some(vec!["a"]));
        assert_eq!(uri(&json!({"prefix": "spiffe://a"})).trust_domains(), None);
        assert_eq!(uri(&json!({"safe_regex": {}})).trust_domains(), None);
        assert!(uri(&json!({"exact": "httpbin"})).exclude_spiffe_ids());
        assert!(matchers(json!([{"san_type": "DNS", "matcher": {"exact": "httpbin"}}])).exclude_spiffe_ids());
        assert!(!uri(&json!({"suffix": "/sa/httpbin"})).exclude_spiffe_ids());
        assert!(!matchers(json!([])).exclude_spiffe_ids());
    }
}

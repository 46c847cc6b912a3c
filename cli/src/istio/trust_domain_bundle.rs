//! The trust domain of a mesh with its aliases, and how Istio replaces them in policies.
//!
//! Source: Istio's `pilot/pkg/trustdomain`, where the type has the same name.

/// Istio's placeholder for the trust domain of the mesh.
const CLUSTER_LOCAL: &str = "cluster.local";

/// The trust domain of a mesh, followed by its aliases.
pub(crate) struct TrustDomainBundle(Vec<String>);

impl TrustDomainBundle {
    /// Returns the bundle of a mesh. Repeated names are dropped, as in Istio.
    pub(crate) fn new(trust_domain: &str, aliases: &[String]) -> Self {
        let mut names = vec![trust_domain.to_owned()];
        for alias in aliases {
            if !names.contains(alias) {
                names.push(alias.clone());
            }
        }
        Self(names)
    }

    /// Returns the aliases.
    pub(crate) fn aliases(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }

    /// Returns `true` if a trust domain is Istio's placeholder, and not one of the mesh. Istio replaces the placeholder in
    /// principals only.
    pub(crate) fn is_unreplaced_placeholder(&self, value: &str) -> bool {
        value == CLUSTER_LOCAL && !self.0.iter().any(|own| own == CLUSTER_LOCAL)
    }

    /// Returns the principals that Istio matches instead: one for each trust domain of the mesh, if the principal has five
    /// parts and its trust domain matches one of them or is `cluster.local`.
    pub(crate) fn principals(&self, value: &str) -> Vec<String> {
        let parts: Vec<&str> = value.split('/').collect();
        let &[trust_domain, .., _] = parts.as_slice() else { return vec![value.to_owned()] };
        if parts.len() != 5 || trust_domain == "*" {
            return vec![value.to_owned()];
        }
        let is_local = trust_domain == CLUSTER_LOCAL || self.0.iter().any(|own| is_covered(own, trust_domain));
        if !is_local {
            return vec![value.to_owned()];
        }
        let rest = &value[trust_domain.len()..];
        let suffix = trust_domain.strip_prefix('*').filter(|suffix| !suffix.is_empty());
        let replaced = self.0.iter().map(|own| match suffix {
            // A trust domain that the suffix matches needs no principal of its own.
            Some(suffix) if own.ends_with(suffix) => value.to_owned(),
            _ => format!("{own}{rest}"),
        });
        replaced.collect()
    }

    /// Returns the trust domains that Istio matches instead: all of the mesh if the value is one of them.
    pub(crate) fn trust_domains(&self, value: &str) -> Vec<String> {
        if self.0.iter().any(|own| own == value) {
            return self.0.clone();
        }
        vec![value.to_owned()]
    }
}

/// Returns `true` if one name matches the other. Either can have a wildcard at one end.
fn is_covered(one: &str, other: &str) -> bool {
    let covers = |pattern: &str, name: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(suffix), _) => name.ends_with(suffix),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => pattern == name,
    };
    covers(one, other) || covers(other, one)
}

//! Lints on the values of a field.

use super::outline::{FieldUse, TrustDomains};
use super::{Findings, Lint};
use crate::policy::field::{FEDERATED_TRUST_DOMAINS, Field, TRUST_DOMAIN};

pub(super) fn lint(findings: &mut Findings, used: &FieldUse<'_>, trust_domains: &TrustDomains<'_>) {
    for (position, value) in used.values.iter().enumerate() {
        let at = format!("{}/{position}", used.pointer);
        let mut add = |lint, message| findings.add(lint, &at, message);
        match used.field {
            Field::Principals => principal(&mut add, value, trust_domains),
            Field::TrustDomains => trust_domain(&mut add, value, used.negated, trust_domains),
            Field::Namespaces if has_inner_asterisk(value) => {
                add(Lint::NamespaceWildcard, format!("`{value}` contains a `*` that is neither first nor last"));
            }
            Field::Hosts => host(&mut add, value, &used.values),
            _ => {}
        }
        if is_text(used.field) && has_inner_asterisk(value) && !value.contains("{*") {
            add(Lint::LiteralAsterisk, format!("`{value}` matches the character `*`"));
        }
    }
}

const fn is_text(field: Field) -> bool {
    !matches!(field, Field::Namespaces | Field::Ports | Field::IpBlocks | Field::RemoteIpBlocks | Field::DestinationIp)
}

fn has_inner_asterisk(value: &str) -> bool {
    let inner = value.strip_prefix('*').unwrap_or_else(|| value.strip_suffix('*').unwrap_or(value));
    inner.contains('*')
}

fn host(add: &mut impl FnMut(Lint, String), value: &str, values: &[&str]) {
    let with_port = format!("{value}:*");
    if !value.contains([':', '*']) && !values.contains(&&*with_port) {
        add(Lint::HostWithoutPort, format!("`{value}` is listed without `{with_port}`"));
    }
}

fn principal(add: &mut impl FnMut(Lint, String), value: &str, trust_domains: &TrustDomains<'_>) {
    if value == "*" {
        add(Lint::AnyPrincipal, "`*` matches every workload".to_owned());
        return;
    }
    if value.starts_with('*') {
        return;
    }
    let prefix = value.strip_suffix('*');
    let literal = prefix.unwrap_or(value);
    match literal.split_once('/') {
        None => add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches every trust domain with this prefix")),
        Some((trust_domain, _)) if !trust_domains.contains(trust_domain) => {
            add(Lint::UnknownTrustDomain, unknown(trust_domain));
        }
        Some(_) => {}
    }
    if prefix.is_some_and(|prefix| prefix.contains('/') && !prefix.ends_with('/')) {
        add(Lint::PrefixSplitsSegment, format!("`{value}` ends within a path segment"));
    }
}

fn trust_domain(add: &mut impl FnMut(Lint, String), value: &str, negated: bool, trust_domains: &TrustDomains<'_>) {
    if value.ends_with('*') && value != "*" {
        add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches every trust domain with this prefix"));
    } else if !value.contains('*') && !trust_domains.contains(value) {
        add(Lint::UnknownTrustDomain, unknown(value));
    } else if negated && trust_domains.aliases.contains(&value) {
        add(Lint::AliasExcluded, format!("`{value}` is an alias of `{}`", trust_domains.local));
    }
}

fn unknown(trust_domain: &str) -> String {
    format!("`{trust_domain}` is neither `{TRUST_DOMAIN}`, nor an alias, nor in `{FEDERATED_TRUST_DOMAINS}`")
}

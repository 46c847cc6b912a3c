//! Lints on the values of a field.

use super::outline::{FieldUse, Policy, Settings};
use super::{Findings, Lint, impossible, improbable};
use crate::policy::Action;
use crate::policy::field::{FEDERATED_TRUST_DOMAINS, Field, TRUST_DOMAIN};

pub(super) fn lint(findings: &mut Findings, policy: &Policy<'_>, used: &FieldUse<'_>, settings: &Settings<'_>) {
    for (position, value) in used.values.iter().enumerate() {
        let at = format!("{}/{position}", used.pointer);
        let mut add = |lint, message| findings.add(lint, &at, message);
        if excludes_everyone(used, value, settings) {
            let lint = if policy.action == Action::Deny { Lint::VoidRestriction } else { Lint::ImpossibleValue };
            add(lint, "`*` excludes every caller, so that nothing matches (remove the source or the rule)".to_owned());
            continue;
        }
        if let Some(reason) = impossible::reason(used, value) {
            let restricts = used.negated || policy.action == Action::Deny;
            add(if restricts { Lint::VoidRestriction } else { Lint::ImpossibleValue }, reason);
            continue;
        }
        if let Some(reason) = improbable::reason(used, value) {
            add(Lint::ImprobableValue, reason);
            continue;
        }
        match used.field {
            Field::Principals => principal(&mut add, policy, used, value, settings),
            Field::TrustDomains => trust_domain(&mut add, policy, used, value, settings),
            Field::Namespaces if has_inner_asterisk(value) => {
                add(Lint::NamespaceWildcard, format!("`{value}` contains a `*` that is neither first nor last"));
            }
            Field::Hosts => host(&mut add, policy, used, value),
            _ => {}
        }
        if is_text(used.field) && has_inner_asterisk(value) && !value.contains("{*") {
            add(Lint::LiteralAsterisk, format!("`{value}` matches the character `*`"));
        }
    }
}

/// Returns `true` for `notPrincipals: ["*"]` if every caller has a principal.
fn excludes_everyone(used: &FieldUse<'_>, value: &str, settings: &Settings<'_>) -> bool {
    used.field == Field::Principals && used.negated && value == "*" && !settings.peer_is_optional
}

const fn is_text(field: Field) -> bool {
    !matches!(field, Field::Namespaces | Field::Ports | Field::IpBlocks | Field::RemoteIpBlocks | Field::DestinationIp)
}

fn has_inner_asterisk(value: &str) -> bool {
    let inner = value.strip_prefix('*').unwrap_or_else(|| value.strip_suffix('*').unwrap_or(value));
    inner.contains('*')
}

fn principal(
    add: &mut impl FnMut(Lint, String),
    policy: &Policy<'_>,
    used: &FieldUse<'_>,
    value: &str,
    settings: &Settings<'_>,
) {
    if value == "*" {
        if policy.grants(used) {
            add(Lint::AnyPrincipal, "`*` matches every workload".to_owned());
        }
        return;
    }
    if let Some(suffix) = value.strip_prefix('*') {
        if !suffix.starts_with('/') {
            add(Lint::SuffixSplitsName, format!("`{value}` starts within a path segment (start it with `*/`)"));
        }
        if policy.grants(used) && settings.federates() {
            add(Lint::AnyTrustDomain, format!("`{value}` matches workloads of every federated trust domain"));
        }
        return;
    }
    if let Some(reason) = impossible::out_of_pattern(value, settings) {
        add(Lint::OutOfPattern, reason);
    }
    let prefix = value.strip_suffix('*');
    let literal = prefix.unwrap_or(value);
    match literal.split_once('/') {
        None => add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches every trust domain with this prefix")),
        Some((trust_domain, _)) if !settings.accepts(trust_domain) => {
            add(Lint::UnknownTrustDomain, unknown(trust_domain));
        }
        Some(_) => {}
    }
    if prefix.is_some_and(|prefix| prefix.contains('/') && !prefix.ends_with('/')) {
        add(Lint::PrefixSplitsSegment, format!("`{value}` ends within a path segment"));
    }
}

fn trust_domain(
    add: &mut impl FnMut(Lint, String),
    policy: &Policy<'_>,
    used: &FieldUse<'_>,
    value: &str,
    settings: &Settings<'_>,
) {
    if value == "*" {
        if policy.grants(used) {
            add(Lint::AnyPrincipal, "`*` matches every trust domain".to_owned());
        }
    } else if value.ends_with('*') {
        add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches every trust domain with this prefix"));
    } else if let Some(suffix) = value.strip_prefix('*') {
        if !suffix.starts_with('.') {
            add(Lint::SuffixSplitsName, format!("`{value}` starts within a label (start it with `*.`)"));
        }
    } else if !settings.accepts(value) {
        add(Lint::UnknownTrustDomain, unknown(value));
    } else if used.negated && settings.aliases.contains(&value) {
        add(Lint::AliasExcluded, format!("`{value}` is an alias of `{}`", settings.local));
    }
}

fn unknown(trust_domain: &str) -> String {
    format!("`{trust_domain}` is neither `{TRUST_DOMAIN}`, nor an alias, nor in `{FEDERATED_TRUST_DOMAINS}`")
}

fn host(add: &mut impl FnMut(Lint, String), policy: &Policy<'_>, used: &FieldUse<'_>, value: &str) {
    if value == "*" {
        return;
    }
    if let Some(suffix) = value.strip_prefix('*')
        && !suffix.starts_with(['.', ':'])
    {
        add(Lint::SuffixSplitsName, format!("`{value}` starts within a label (start it with `*.`)"));
    }
    if value.ends_with('*') || value.contains(':') {
        return;
    }
    // The filter compares hosts without case. A suffix cannot have a second wildcard, so that any port counts.
    let value_in_lower_case = value.to_ascii_lowercase();
    let has_port = |other: &&str| {
        let other = other.to_ascii_lowercase();
        let port = other.strip_prefix(&value_in_lower_case);
        port.is_some_and(|port| port == ":*" || (value.starts_with('*') && port.starts_with(':')))
    };
    if used.values.iter().any(has_port) {
        return;
    }
    let grants = policy.grants(used);
    if value.starts_with('*') {
        if !grants {
            let message = format!("`{value}` does not match a host with a port (add one such as `{value}:8080`)");
            add(Lint::HostPortBypass, message);
        }
    } else if grants {
        add(Lint::HostWithoutPort, format!("`{value}` is listed without `{value}:*`"));
    } else {
        add(Lint::HostPortBypass, format!("`{value}` does not match a host with a port (add `{value}:*`)"));
    }
}

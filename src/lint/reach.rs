//! Lints on the callers and connections that a rule reaches.

use super::outline::{FieldUse, Policy, Rule, Settings};
use super::{Findings, Lint, Target, ztunnel};
use crate::policy::Action;
use crate::policy::field::Field;

pub(super) fn lint(
    findings: &mut Findings,
    policy: &Policy<'_>,
    rule: &Rule<'_>,
    settings: &Settings<'_>,
    target: Target,
) {
    for fields in rule.sources.iter().chain([&rule.conditions]) {
        trust_domain_unsaid(findings, rule, fields, settings);
    }
    if policy.action == Action::Allow {
        open(findings, rule, settings);
    }
    if rule.fields().any(|used| used.field.is_http_only()) {
        http_only(findings, policy, rule, target);
    }
    if target == Target::Ztunnel {
        ztunnel::lint(findings, policy, rule);
    }
}

fn trust_domain_unsaid(findings: &mut Findings, rule: &Rule<'_>, fields: &[FieldUse<'_>], settings: &Settings<'_>) {
    let named = fields.iter().any(|used| used.field == Field::TrustDomains && !used.negated);
    if named || rule.conditions_name_trust_domain || !settings.federates() {
        return;
    }
    for used in fields.iter().filter(|used| matches!(used.field, Field::Namespaces | Field::ServiceAccounts)) {
        let message = format!("`{}` does not name a trust domain", used.name);
        findings.add(Lint::TrustDomainUnsaid, &used.pointer, message);
    }
}

/// Finds ALLOW rules that do not require a caller.
fn open(findings: &mut Findings, rule: &Rule<'_>, settings: &Settings<'_>) {
    let requires = |fields: &[FieldUse<'_>]| fields.iter().any(|used| used.field.is_of_caller() && !used.negated);
    let names =
        |fields: &[FieldUse<'_>]| requires(fields) || fields.iter().any(|used| used.field == Field::TrustDomains);
    let only_negative = rule.fields().next().is_some() && rule.fields().all(|used| used.negated);
    if only_negative {
        findings.add(Lint::OnlyNegative, &rule.pointer, "the rule has only negated fields".to_owned());
    }
    let sources_are = |test: &dyn Fn(&[FieldUse<'_>]) -> bool| {
        !rule.sources.is_empty() && rule.sources.iter().all(|fields| test(fields))
    };
    if settings.peer_is_optional && !requires(&rule.conditions) && !sources_are(&requires) {
        let message = "the rule does not require a caller, and `identity.peer` is `optional`".to_owned();
        findings.add(Lint::AnonymousAllowed, &rule.pointer, message);
    } else if !only_negative && settings.federates() && !names(&rule.conditions) && !sources_are(&names) {
        let message = "the rule does not name a caller, and allows those of every federated trust domain".to_owned();
        findings.add(Lint::AnyCaller, &rule.pointer, message);
    }
}

fn http_only(findings: &mut Findings, policy: &Policy<'_>, rule: &Rule<'_>, target: Target) {
    let is_http_only = |used: &FieldUse<'_>| used.field.is_http_only();
    match policy.action {
        Action::Deny => {
            // On TCP, a selector that has only HTTP attributes matches every connection.
            let matches_all = |selectors: &[Vec<FieldUse<'_>>]| {
                selectors.is_empty() || selectors.iter().any(|fields| fields.iter().all(is_http_only))
            };
            let conditions = rule.conditions.iter().all(is_http_only);
            if matches_all(&rule.sources) && matches_all(&rule.operations) && conditions {
                let message = "the rule has only HTTP attributes, and denies every connection on TCP".to_owned();
                findings.add(Lint::HttpOnlyDeny, &rule.pointer, message);
            } else if target == Target::Tcp {
                let message = "the rule has HTTP attributes, which are ignored on TCP".to_owned();
                findings.add(Lint::HttpOnlyDeny, &rule.pointer, message);
            }
        }
        Action::Allow if target == Target::Tcp => {
            let message = "the rule has HTTP attributes, and never matches on TCP".to_owned();
            findings.add(Lint::HttpOnlyAllow, &rule.pointer, message);
        }
        Action::Allow | Action::Audit => {}
    }
}

/// Finds two neighboring rules that were probably intended as one: the first names only callers, and the second does not name any,
/// or the reverse. In YAML, an extra dash splits a rule in this way.
///
/// Source: Istio, "Common problems", security issues.
pub(super) fn extra_dash(findings: &mut Findings, policy: &Policy<'_>) {
    let only_callers =
        |rule: &Rule<'_>| !rule.sources.is_empty() && rule.operations.is_empty() && rule.conditions.is_empty();
    let no_callers = |rule: &Rule<'_>| {
        rule.sources.is_empty()
            && !(rule.operations.is_empty() && rule.conditions.is_empty())
            && !rule.conditions.iter().any(|used| used.field.is_of_caller())
    };
    for pair in policy.rules.windows(2) {
        let [first, second] = pair else { continue };
        if (only_callers(first) && no_callers(second)) || (no_callers(first) && only_callers(second)) {
            let message = format!("this rule and {} each match alone (remove the dash to join them)", first.pointer);
            findings.add(Lint::SplitRule, &second.pointer, message);
        }
    }
}

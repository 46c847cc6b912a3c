//! Lints on the requests that a rule reaches: of which trust domains, and on which layer.

use super::outline::{FieldUse, Policy, Rule, TrustDomains};
use super::{Findings, Lint, Target};
use crate::policy::Action;
use crate::policy::field::Field;

pub(super) fn lint(
    findings: &mut Findings,
    policy: &Policy<'_>,
    rule: &Rule<'_>,
    trust_domains: &TrustDomains<'_>,
    target: Target,
) {
    for fields in rule.sources.iter().chain([&rule.conditions]) {
        trust_domain_unsaid(findings, rule, fields, trust_domains);
    }
    if target == Target::Ztunnel {
        for used in rule.fields().filter(|used| used.field == Field::TrustDomains) {
            findings.add(Lint::TrustDomainsIgnored, &used.pointer, "ztunnel ignores this field".to_owned());
        }
    }
    let mut fields = rule.fields().peekable();
    if policy.action == Action::Allow && fields.peek().is_some() && fields.all(|used| used.negated) {
        findings.add(Lint::OnlyNegative, &rule.pointer, "the rule has only negated fields".to_owned());
    }
    if rule.fields().any(|used| used.field.is_http_only()) {
        http_only(findings, policy, rule, target);
    }
}

fn trust_domain_unsaid(
    findings: &mut Findings,
    rule: &Rule<'_>,
    fields: &[FieldUse<'_>],
    trust_domains: &TrustDomains<'_>,
) {
    let named = fields.iter().any(|used| used.field == Field::TrustDomains && !used.negated);
    if named || rule.conditions_name_trust_domain || trust_domains.federated.is_empty() {
        return;
    }
    for used in fields.iter().filter(|used| matches!(used.field, Field::Namespaces | Field::ServiceAccounts)) {
        let message = format!("`{}` does not name a trust domain", used.name);
        findings.add(Lint::TrustDomainUnsaid, &used.pointer, message);
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
        Action::Allow if target != Target::Http => {
            let message = "the rule has HTTP attributes, and never matches on TCP".to_owned();
            findings.add(Lint::HttpOnlyAllow, &rule.pointer, message);
        }
        Action::Allow | Action::Audit => {}
    }
}

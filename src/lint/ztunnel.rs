//! Lints for policies that ztunnel enforces, too.
//!
//! istiod passes ztunnel a clause for the sources of a rule, one for its operations, and one for each condition. Every clause must
//! match, which takes one of its matches. A match contains only fields that ztunnel evaluates, and an empty match never matches.
//! istiod drops an ALLOW rule with a field that is not evaluated, except for the trust domains of a source, which it ignores.
//!
//! Source: Istio, `pilot/pkg/serviceregistry/ambient/authorization.go` (`handleRule`); ztunnel, `src/rbac.rs`
//! (`Authorization::matches`).

use super::outline::{FieldUse, Policy, Rule};
use super::{Findings, Lint};
use crate::policy::Action;
use crate::policy::field::Field;

/// The fields of a source, of an operation, or of a condition.
struct Match<'u, 'n> {
    has_evaluated: bool,
    ignored: Vec<&'u FieldUse<'n>>,
}

impl<'u, 'n> Match<'u, 'n> {
    fn new(fields: &'u [FieldUse<'n>], is_evaluated: fn(Field) -> bool) -> Self {
        let ignored: Vec<_> = fields.iter().filter(|used| !is_evaluated(used.field)).collect();
        Self { has_evaluated: ignored.len() < fields.len(), ignored }
    }

    const fn never_matches(&self) -> bool {
        !self.has_evaluated
    }

    const fn is_wider(&self) -> bool {
        self.has_evaluated && !self.ignored.is_empty()
    }
}

pub(super) fn lint(findings: &mut Findings, policy: &Policy<'_>, rule: &Rule<'_>) {
    let clauses = clauses(rule);
    let matches = || clauses.iter().flatten();
    if matches().all(|of| of.ignored.is_empty()) {
        return;
    }
    let never = clauses.iter().any(|clause| clause.iter().all(Match::never_matches));
    let partly_never = matches().any(Match::never_matches);
    let (lint, effect) = match policy.action {
        Action::Deny if never => (Lint::ZtunnelNoEffect, "so that the rule has no effect there"),
        Action::Deny if partly_never => (Lint::ZtunnelNoEffect, "so that a part of the rule has no effect there"),
        Action::Deny => (Lint::ZtunnelDeniesMore, "so that the rule denies more there"),
        Action::Allow if never || is_dropped(rule) => {
            (Lint::ZtunnelAllowsNoOne, "and drops the rule, which then allows no one")
        }
        Action::Allow if matches().any(Match::is_wider) => {
            (Lint::ZtunnelAllowsMore, "so that the rule allows more there")
        }
        Action::Allow => (Lint::ZtunnelAllowsNoOne, "so that a source of the rule allows no one there"),
        Action::Audit => return,
    };
    let names = names(matches().flat_map(|of| &of.ignored).copied());
    findings.add(lint, &rule.pointer, format!("ztunnel does not evaluate {names}, {effect}"));
}

fn clauses<'u, 'n>(rule: &'u Rule<'n>) -> Vec<Vec<Match<'u, 'n>>> {
    let selectors = [&rule.sources, &rule.operations].into_iter().filter(|selectors| !selectors.is_empty());
    let selectors = selectors
        .map(|selectors| selectors.iter().map(|fields| Match::new(fields, Field::is_read_by_ztunnel)).collect());
    let conditions = rule.conditions.iter().map(std::slice::from_ref);
    let conditions = conditions.map(|used| vec![Match::new(used, Field::is_condition_read_by_ztunnel)]);
    selectors.chain(conditions).collect()
}

/// Returns `true` if istiod drops the rule from an ALLOW policy.
fn is_dropped(rule: &Rule<'_>) -> bool {
    let kept = |used: &FieldUse<'_>| used.field.is_read_by_ztunnel() || used.field == Field::TrustDomains;
    !rule.sources.iter().chain(&rule.operations).flatten().all(kept)
        || !rule.conditions.iter().all(|used| used.field.is_condition_read_by_ztunnel())
}

fn names<'u>(fields: impl Iterator<Item = &'u FieldUse<'u>>) -> String {
    let mut names: Vec<String> = fields.map(|used| format!("`{}`", used.name)).collect();
    names.dedup();
    names.join(", ")
}

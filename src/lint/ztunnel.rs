//! Lints for policies that ztunnel enforces, too.
//!
//! Source: Istio, `pilot/pkg/serviceregistry/ambient/authorization.go`. istiod drops a field that ztunnel does not evaluate from a
//! DENY rule, and drops the whole rule from an ALLOW policy.

use super::outline::{FieldUse, Policy, Rule};
use super::{Findings, Lint};
use crate::policy::Action;

pub(super) fn lint(findings: &mut Findings, policy: &Policy<'_>, rule: &Rule<'_>) {
    let selected =
        rule.sources.iter().chain(&rule.operations).flatten().map(|used| (used, used.field.is_read_by_ztunnel()));
    let conditions = rule.conditions.iter().map(|used| (used, used.field.is_condition_read_by_ztunnel()));
    let (evaluated, ignored): (Vec<_>, Vec<_>) = selected.chain(conditions).partition(|(_, is_read)| *is_read);
    if ignored.is_empty() {
        return;
    }
    let names = names(ignored.iter().map(|(used, _)| *used));
    let (lint, effect) = match policy.action {
        Action::Deny if evaluated.is_empty() => (Lint::ZtunnelNoEffect, "so that the rule has no effect there"),
        Action::Deny => (Lint::ZtunnelDeniesMore, "so that the rule denies more there"),
        Action::Allow => (Lint::ZtunnelAllowsNoOne, "and drops the rule, which then allows no one"),
        Action::Audit => return,
    };
    findings.add(lint, &rule.pointer, format!("ztunnel does not evaluate {names}, {effect}"));
}

fn names<'u>(fields: impl Iterator<Item = &'u FieldUse<'u>>) -> String {
    let mut names: Vec<String> = fields.map(|used| format!("`{}`", used.name)).collect();
    names.dedup();
    names.join(", ")
}

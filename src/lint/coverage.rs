//! Lints on rules that an earlier rule covers: it matches every request that the later one matches.
//!
//! The comparison looks at the words of two rules and is never wrongly positive. An index limits it to rules that share a value,
//! so that its time is not quadratic in the number of rules.

use rustc_hash::FxHashMap;

use super::outline::{FieldUse, Policy, Rule};
use super::{Findings, Lint};
use crate::policy::field::Field;
use crate::policy::{Action, Mode};

/// The enforced rules of a document, by a value that a rule must share with each rule that it covers.
pub(super) struct Coverage<'d, 'n> {
    /// In the order of the document.
    rules: Vec<(&'d Policy<'n>, &'d Rule<'n>)>,
    by_value: FxHashMap<Key<'n>, Vec<usize>>,
    /// The rules without a positive value.
    others: Vec<usize>,
}

/// A value of a field, in a part of a rule.
type Key<'n> = (Part, &'n str, &'n str);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Source,
    Operation,
    Condition,
}

const ANY: &str = "*";

impl<'d, 'n> Coverage<'d, 'n> {
    pub(super) fn new(policies: &'d [Policy<'n>]) -> Self {
        let enforced = policies.iter().filter(|policy| policy.mode == Mode::Enforce);
        let rules: Vec<_> = enforced.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule))).collect();
        let mut frequency = FxHashMap::<Key<'n>, usize>::default();
        for key in rules.iter().flat_map(|(_, rule)| parts(rule)).flatten().flatten() {
            *frequency.entry(key).or_default() += 1;
        }
        let mut by_value = FxHashMap::<Key<'n>, Vec<usize>>::default();
        let mut others = Vec::new();
        for (id, (_, rule)) in rules.iter().enumerate() {
            // The rarest values keep the lists short.
            let cost = |keys: &Vec<Key<'n>>| keys.iter().filter_map(|key| frequency.get(key)).sum::<usize>();
            match parts(rule).into_iter().flatten().min_by_key(cost) {
                None => others.push(id),
                Some(keys) => {
                    for key in keys {
                        let ids = by_value.entry(key).or_default();
                        if ids.last() != Some(&id) {
                            ids.push(id);
                        }
                    }
                }
            }
        }
        Self { rules, by_value, others }
    }

    /// Reports the first rule that leaves nothing for this one to decide.
    pub(super) fn lint(&self, findings: &mut Findings, policy: &Policy<'n>, rule: &Rule<'n>) {
        if policy.mode != Mode::Enforce {
            return;
        }
        for other in self.candidates(rule).into_iter().filter_map(|id| self.rules.get(id)) {
            if let Some((lint, message)) = compare(*other, (policy, rule)) {
                findings.add(lint, &rule.pointer, message);
                return;
            }
        }
    }

    /// Returns the rules that can cover this one, in the order of the document.
    fn candidates(&self, rule: &Rule<'n>) -> Vec<usize> {
        // A rule that covers this one covers its first source and its first operation.
        let first = |part, selectors: &[Vec<FieldUse<'n>>]| -> Vec<Key<'n>> {
            selectors.first().into_iter().flatten().flat_map(|used| shared_keys(part, used)).collect()
        };
        let mut keys = first(Part::Source, &rule.sources);
        keys.extend(first(Part::Operation, &rule.operations));
        keys.extend(rule.conditions.iter().flat_map(|used| shared_keys(Part::Condition, used)));
        let mut ids: Vec<usize> = keys.iter().filter_map(|key| self.by_value.get(key)).flatten().copied().collect();
        ids.extend(&self.others);
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Returns, for the sources, the operations and each condition of a rule, the values of which a rule that this one covers has one.
/// `None` is a part without positive values in one of its selectors.
fn parts<'n>(rule: &Rule<'n>) -> Vec<Option<Vec<Key<'n>>>> {
    let selectors = |part, selectors: &[Vec<FieldUse<'n>>]| -> Option<Vec<Key<'n>>> {
        if selectors.is_empty() {
            return None;
        }
        let keys = selectors.iter().map(|fields| {
            let positive = fields.iter().filter(|used| !used.negated).min_by_key(|used| used.values.len())?;
            Some(own_keys(part, positive))
        });
        Some(keys.collect::<Option<Vec<_>>>()?.concat())
    };
    let mut parts = vec![selectors(Part::Source, &rule.sources), selectors(Part::Operation, &rule.operations)];
    let positive = rule.conditions.iter().filter(|used| !used.negated);
    parts.extend(positive.map(|used| Some(own_keys(Part::Condition, used))));
    parts
}

fn own_keys<'n>(part: Part, used: &FieldUse<'n>) -> Vec<Key<'n>> {
    used.values.iter().map(|value| (part, used.name, *value)).collect()
}

/// The keys of the index for a rule that covers these values: the first value, or `*`.
fn shared_keys<'n>(part: Part, used: &FieldUse<'n>) -> Vec<Key<'n>> {
    if used.negated {
        return Vec::new();
    }
    used.values.first().into_iter().flat_map(|value| [(part, used.name, *value), (part, used.name, ANY)]).collect()
}

/// Compares a rule with another one, and returns a finding if the other one leaves nothing for the rule to decide.
fn compare(
    (other_policy, other): (&Policy<'_>, &Rule<'_>),
    (policy, rule): (&Policy<'_>, &Rule<'_>),
) -> Option<(Lint, String)> {
    // A policy with a period covers only policies with the same limit.
    let applies = (other_policy.not_before.is_none() || other_policy.not_before == policy.not_before)
        && (other_policy.expires.is_none() || other_policy.expires == policy.expires);
    // A service account without a namespace is in the namespace of the policy, so that equal words can mean different callers.
    let same_words =
        other_policy.namespace == policy.namespace || !rule.fields().any(|used| used.field == Field::ServiceAccounts);
    if !applies || !same_words || !other_policy.applies_where(policy) {
        return None;
    }
    if other_policy.action == policy.action && other.position < rule.position && covers(other, rule) {
        let same_period = other_policy.not_before == policy.not_before && other_policy.expires == policy.expires;
        return Some(if same_period && policy.applies_where(other_policy) && covers(rule, other) {
            (Lint::DuplicateRule, format!("{} is the same rule", other.pointer))
        } else {
            (Lint::ShadowedRule, format!("{} matches every request that this rule matches", other.pointer))
        });
    }
    // If the trust domain is omitted, DENY applies to every one, and ALLOW to the local one.
    let denies = policy.action == Action::Allow
        && other_policy.action == Action::Deny
        && !other.fields().any(|used| used.negated)
        && covers(other, rule);
    denies.then(|| (Lint::UnreachableAllow, format!("{} denies every request that this rule matches", other.pointer)))
}

/// Returns `true` if `wide` matches every request that `narrow` matches.
fn covers(wide: &Rule<'_>, narrow: &Rule<'_>) -> bool {
    // A condition that names trust domains changes the meaning of every namespace of the rule.
    wide.conditions_name_trust_domain == narrow.conditions_name_trust_domain
        && selectors_cover(&wide.sources, &narrow.sources)
        && selectors_cover(&wide.operations, &narrow.operations)
        && wide.conditions.iter().all(|used| is_implied(used, &narrow.conditions))
}

/// Returns `true` if each selector of `narrow` is within one of `wide`. No selectors match everything.
fn selectors_cover(wide: &[Vec<FieldUse<'_>>], narrow: &[Vec<FieldUse<'_>>]) -> bool {
    let within = |narrow: &Vec<FieldUse<'_>>| {
        wide.iter().any(|wide| {
            trust_domains(wide) == trust_domains(narrow) && wide.iter().all(|used| is_implied(used, narrow))
        })
    };
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(within))
}

/// The trust domains of a source, which change the meaning of its namespaces.
fn trust_domains<'s, 'n>(fields: &'s [FieldUse<'n>]) -> Vec<(bool, &'s [&'n str])> {
    let mut trust_domains: Vec<_> = fields
        .iter()
        .filter(|used| used.field == Field::TrustDomains)
        .map(|used| (used.negated, &*used.values))
        .collect();
    trust_domains.sort_unstable();
    trust_domains
}

/// Returns `true` if one of these fields, all of which must match, matches only if `wide` does.
fn is_implied(wide: &FieldUse<'_>, narrow: &[FieldUse<'_>]) -> bool {
    let is_subset = |small: &[&str], large: &[&str]| small.iter().all(|value| large.contains(value));
    narrow.iter().filter(|used| used.name == wide.name && used.negated == wide.negated).any(|narrow| {
        if wide.negated {
            is_subset(&wide.values, &narrow.values)
        } else {
            is_subset(&narrow.values, &wide.values) || (wide.values.contains(&ANY) && any_matches_all(wide.field))
        }
    })
}

/// Returns `true` if `*` covers every other value of the field. In metadata, `*` matches strings, and `[a]` matches lists.
const fn any_matches_all(field: Field) -> bool {
    !matches!(field, Field::Metadata)
}

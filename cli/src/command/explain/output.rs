//! An explanation, human-readable and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::{Action, Explanation, Layer, MatcherTrace, Mode, Node, PolicyTrace, RuleTrace};

use super::hint;
use crate::decision::{DecisionLine, by, decision_json, request_json};
use crate::printable::{say, styled};
use crate::style::{BAD, GOOD, HEADING};

/// Returns the rules: the one that decides, those that match, and the others by the number of fields that differ.
fn closest_first<'e>(explanation: &'e Explanation<'_>) -> Vec<(&'e PolicyTrace<'e>, usize, &'e RuleTrace)> {
    let mut rules: Vec<_> = explanation
        .policies
        .iter()
        .flat_map(|policy| policy.rules.iter().enumerate().map(move |(position, rule)| (policy, position, rule)))
        .collect();
    let decided = explanation.outcome.decision.rule;
    rules.sort_by_key(|(policy, position, rule)| {
        let decides =
            decided.is_some_and(|name| name.policy == policy.name && usize::try_from(name.position) == Ok(*position));
        (!decides, !rule.matched, rule.left_out, rule.misses)
    });
    rules
}

/// Returns the values of a field in the document: those of which one must match, and those of which none must match.
fn expected(root: &Node, field: &MatcherTrace) -> [Option<Vec<String>>; 2] {
    field.names.map(|name| {
        let values = root.at(&field.pointer)?.field(name)?.items();
        Some(values.iter().filter_map(Node::text).map(str::to_owned).collect())
    })
}

/// Returns the name of a field, or the key of a condition.
fn name(root: &Node, field: &MatcherTrace) -> String {
    let key = root.at(&field.pointer).and_then(|condition| condition.field("key")).and_then(Node::text);
    key.unwrap_or(field.names[0]).to_owned()
}

/// The number of rules in human-readable output.
const SHOWN: usize = 5;

/// An explanation with everything that its output needs.
pub(super) struct Explained<'e> {
    pub(super) root: &'e Node<'e>,
    pub(super) layer: Layer,
    pub(super) request: &'e CaseRequest,
    pub(super) explanation: &'e Explanation<'e>,
    pub(super) assumed: Vec<String>,
    pub(super) hints: Vec<String>,
}

impl Explained<'_> {
    /// Returns a hint on a field that does not match.
    fn hint(&self, field: &MatcherTrace) -> Option<String> {
        let claims = self.request.claims.as_ref().filter(|_| !field.matched && field.found.is_empty());
        hint::claim(&name(self.root, field), claims)
    }

    pub(super) fn write_human(&self, out: &mut impl Write, all: bool) -> io::Result<()> {
        let Self { root, layer, request, explanation, assumed, hints } = self;
        let outcome = &explanation.outcome;
        say!(out, "{}", DecisionLine(&outcome.decision))?;
        if let Some(shadow) = &outcome.shadow {
            say!(out, "with the shadow policies enforced: {}", DecisionLine(shadow))?;
        }
        if outcome.audit.is_some() {
            say!(out, "audited{}", by(outcome.audit))?;
        }
        say!(out, "caller   {}", request.peer.as_deref().unwrap_or("without an identity"))?;
        match layer {
            Layer::Http => say!(out, "request  {} {}", request.method, request.path)?,
            Layer::Tcp => {
                let port = request.port.map_or_else(|| "unknown".to_owned(), |port| port.to_string());
                let name = request.sni.as_deref().unwrap_or("none");
                say!(out, "connection to port {}, server name {}", port, name)?;
            }
        }
        assumed.iter().try_for_each(|assumption| say!(out, "assumed  {}", assumption))?;
        hints.iter().try_for_each(|hint| say!(out, "hint     {}", hint))?;
        let rules = closest_first(explanation);
        let shown = if all { rules.len() } else { SHOWN };
        for (policy, position, rule) in rules.iter().take(shown) {
            let mode = if policy.mode == Mode::Shadow { " (shadow)" } else { "" };
            let state = match rule.misses {
                _ if !policy.applies => styled(BAD, "does not apply at this time (`notBefore`, `expires`)"),
                _ if rule.left_out => styled(BAD, "skipped: a TCP connection has no HTTP attributes"),
                0 => styled(GOOD, "matches"),
                1 => styled(BAD, "no match: 1 field differs"),
                misses => styled(BAD, &format!("no match: {misses} fields differ")),
            };
            let heading = format!("{} {}, rule {position}{mode}", policy.action.name(), policy.name);
            say!(out, "\n{}: {}", styled(HEADING, &heading), state)?;
            if rule.fields.is_empty() && !rule.left_out {
                say!(out, "  matches every request")?;
            }
            for field in &rule.fields {
                let mark = if field.matched { styled(GOOD, "matches") } else { styled(BAD, "differs") };
                let place = field.pointer.strip_prefix(&rule.pointer).unwrap_or(&field.pointer);
                let place = place.trim_start_matches('/').trim_end_matches("/source").trim_end_matches("/operation");
                let [any_of, none_of] = expected(root, field);
                let mut required = Vec::new();
                required.extend(any_of.map(|values| format!("requires {}", values.join(" or "))));
                required.extend(none_of.map(|values| format!("requires none of {}", values.join(", "))));
                let found = match &*field.found {
                    _ if field.skipped => "not evaluated on TCP".to_owned(),
                    [] => "got nothing".to_owned(),
                    found => format!("got {}", found.join(", ")),
                };
                let hint = self.hint(field).map(|hint| format!(" ({hint})")).unwrap_or_default();
                say!(out, "  {}  {} {}: {}; {}{}", mark, place, name(root, field), required.join(", "), found, hint)?;
            }
        }
        if let Some(more) = rules.len().checked_sub(shown).filter(|more| *more > 0) {
            let noun = if more == 1 { "rule" } else { "rules" };
            say!(out, "\n{} more {} (`--all` shows them)", more, noun)?;
        }
        let empty = explanation.policies.iter().filter(|policy| policy.rules.is_empty());
        for policy in empty.take(shown) {
            let heading = format!("{} {}", policy.action.name(), policy.name);
            say!(out, "\n{}: no rules: matches no request", styled(HEADING, &heading))?;
        }
        let word = if outcome.decision.verdict == Verdict::Allow { "allowed" } else { "denied" };
        let noun = if *layer == Layer::Http { "request" } else { "connection" };
        say!(out, "\nthe {} is {}", noun, word)
    }

    pub(super) fn as_json(&self) -> Value {
        let Self { root, layer, request, explanation, assumed, hints } = self;
        let rules: Vec<Value> = closest_first(explanation)
        .into_iter()
        .map(|(policy, position, rule)| {
            let fields: Vec<Value> = rule
                .fields
                .iter()
                .map(|field| {
                    let [any_of, none_of] = expected(root, field);
                    let mut answer = json!({
                        "pointer": field.pointer, "field": name(root, field), "matched": field.matched,
                        "anyOf": any_of, "noneOf": none_of, "unasked": field.skipped, "found": field.found,
                    });
                    if let Some(hint) = self.hint(field) {
                        answer["hint"] = json!(hint);
                    }
                    answer
                })
                .collect();
            json!({
                "policy": policy.name, "action": Action::name(policy.action), "mode": policy.mode.slug(), "rule": position,
                "pointer": rule.pointer, "matched": rule.matched,
                "leftOut": rule.left_out, "misses": rule.misses, "fields": fields,
            })
        })
        .collect();
        let mut answer = decision_json(&explanation.outcome.decision);
        answer["shadow"] = explanation.outcome.shadow.as_ref().map(decision_json).unwrap_or_default();
        answer["audit"] = json!(explanation.outcome.audit.map(|rule| rule.policy));
        answer["request"] = request_json(request, *layer);
        answer["rules"] = json!(rules);
        answer["assumed"] = json!(assumed);
        answer["hints"] = json!(hints);
        answer
    }
}

//! An explanation, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::policy::{Action, Explanation, FieldTrace, Layer, Mode, Node, PolicyTrace, RuleTrace};

use crate::decision::{DecisionLine, decision_json};
use crate::printable::{say, styled};
use crate::style::{BAD, GOOD, HEADING};

/// Rules to show, those that decide first, then those that match, then by how little they miss.
fn nearest_first<'e>(explanation: &'e Explanation<'_>) -> Vec<(&'e PolicyTrace<'e>, usize, &'e RuleTrace)> {
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

/// The values of a field in the document: those of which one must match, and those of which none may.
fn expected(root: &Node, field: &MatcherTrace) -> [Option<Vec<String>>; 2] {
    field.names.map(|name| {
        let values = root.at(&field.pointer)?.field(name)?.items();
        Some(values.iter().filter_map(Node::text).map(str::to_owned).collect())
    })
}

/// What a field is called: a condition by its key.
fn name(root: &Node, field: &MatcherTrace) -> String {
    let key = root.at(&field.pointer).and_then(|condition| condition.field("key")).and_then(Node::text);
    key.unwrap_or(field.names[0]).to_owned()
}

pub(super) fn write_human(
    out: &mut impl Write,
    root: &Node,
    layer: Layer,
    request: &CaseRequest,
    explanation: &Explanation<'_>,
) -> io::Result<()> {
    let outcome = &explanation.outcome;
    say!(out, "{}", DecisionLine(&outcome.decision))?;
    if let Some(shadow) = &outcome.shadow {
        say!(out, "with the shadow policies enforced: {}", DecisionLine(shadow))?;
    }
    if let Some(audit) = outcome.audit {
        say!(out, "audited by {}, rule {}", audit.policy, audit.position)?;
    }
    say!(out, "caller   {}", request.peer.as_deref().unwrap_or("without identity"))?;
    match layer {
        Layer::Http => say!(out, "request  {} {}", request.method, request.path)?,
        Layer::Tcp => {
            let port = request.port.map_or_else(|| "unknown".to_owned(), |port| port.to_string());
            let name = request.sni.as_deref().unwrap_or("none");
            say!(out, "connection to port {}, server name {}", port, name)?;
        }
    }
    for (policy, position, rule) in nearest_first(explanation) {
        let mode = if policy.mode == Mode::Shadow { " (shadow)" } else { "" };
        let state = match rule.misses {
            _ if !policy.applies => styled(BAD, "does not apply at this time (`notBefore`, `expires`)"),
            _ if rule.left_out => styled(BAD, "left out, since TCP has no attributes of HTTP"),
            0 => styled(GOOD, "matches"),
            1 => styled(BAD, "misses by 1 field"),
            misses => styled(BAD, &format!("misses by {misses} fields")),
        };
        let heading = format!("{} {}, rule {position}{mode}", policy.action.name(), policy.name);
        say!(out, "\n{}: {}", styled(HEADING, &heading), state)?;
        if rule.fields.is_empty() && !rule.left_out {
            say!(out, "  matches every request")?;
        }
        for field in &rule.fields {
            let mark = if field.matched { styled(GOOD, "matches") } else { styled(BAD, "misses ") };
            let place = field.pointer.strip_prefix(&rule.pointer).unwrap_or(&field.pointer);
            let place = place.trim_start_matches('/').trim_end_matches("/source").trim_end_matches("/operation");
            let [any_of, none_of] = expected(root, field);
            let mut wanted = Vec::new();
            wanted.extend(any_of.map(|values| format!("wants {}", values.join(" or "))));
            wanted.extend(none_of.map(|values| format!("wants none of {}", values.join(", "))));
            let found = match &*field.found {
                _ if field.skipped => "not asked on TCP".to_owned(),
                [] => "found nothing".to_owned(),
                found => format!("found {}", found.join(", ")),
            };
            say!(out, "  {}  {} {}: {}; {}", mark, place, name(root, field), wanted.join(", "), found)?;
        }
    }
    for policy in explanation.policies.iter().filter(|policy| policy.rules.is_empty()) {
        let heading = format!("{} {}", policy.action.name(), policy.name);
        say!(out, "\n{}: no rules, matches nothing", styled(HEADING, &heading))?;
    }
    Ok(())
}

pub(super) fn as_json(root: &Node, request: &CaseRequest, explanation: &Explanation<'_>) -> Value {
    let rules: Vec<Value> = nearest_first(explanation)
        .into_iter()
        .map(|(policy, position, rule)| {
            let fields: Vec<Value> = rule
                .fields
                .iter()
                .map(|field| {
                    let [any_of, none_of] = expected(root, field);
                    json!({
                        "pointer": field.pointer, "field": name(root, field), "matched": field.matched,
                        "anyOf": any_of, "noneOf": none_of, "unasked": field.skipped, "found": field.found,
                    })
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
    answer["request"] = json!(request);
    answer["rules"] = json!(rules);
    answer
}

//! Answers about all requests, human-readable and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{Answer, Condition, NotDecided, Pattern, Requests};

use crate::decision::request_json;
use crate::printable::say;

/// The number of patterns in a line, beyond which the others are counted.
const MAX_PATTERNS: usize = 12;

/// The minimum width of the names of attributes.
const WIDTH: usize = 8;

/// Returns the error for a question without an answer.
pub(crate) fn not_decided(place: &str, reason: &NotDecided) -> io::Error {
    io::Error::other(format!("{place}: not decided: {reason}"))
}

/// Returns patterns as text.
pub(crate) fn patterns(patterns: &[Pattern]) -> String {
    let mut shown: Vec<String> = patterns.iter().take(MAX_PATTERNS).map(shown).collect();
    if patterns.len() > MAX_PATTERNS {
        shown.push(format!("{} more", patterns.len() - MAX_PATTERNS));
    }
    shown.join(", ")
}

fn shown(pattern: &Pattern) -> String {
    let Pattern { pattern, except } = pattern;
    if except.len() <= MAX_PATTERNS {
        return if except.is_empty() { pattern.clone() } else { format!("{pattern} except {}", except.join(" or ")) };
    }
    let listed = except.iter().take(MAX_PATTERNS).map(String::as_str).collect::<Vec<_>>().join(" or ");
    format!("{pattern} except {listed} or {} more", except.len() - MAX_PATTERNS)
}

/// Returns the reason why requests are allowed.
pub(crate) fn reason(rule: Option<&(String, u32)>) -> String {
    match rule {
        Some((policy, rule)) => format!("by {policy}, rule {rule}"),
        None => "because there is no ALLOW policy".to_owned(),
    }
}

/// Returns a request as a case of a table has it, on one line.
pub(crate) fn request(witness: &CaseRequest, layer: Layer) -> String {
    request_json(witness, layer).to_string()
}

/// Writes requests, with a line for each attribute, and one of them.
pub(crate) fn write_requests(
    out: &mut impl Write,
    requests: &Requests,
    witness: &CaseRequest,
    layer: Layer,
) -> io::Result<()> {
    let Requests { callers, conditions } = requests;
    let width = conditions.iter().map(|condition| condition.attribute.len()).max().unwrap_or_default().max(WIDTH);
    say!(out, "  {} {}", format!("{:width$}", "callers"), patterns(callers))?;
    for Condition { attribute, values, is_opaque } in conditions {
        let note = if *is_opaque { " (written by another filter)" } else { "" };
        say!(out, "  {} {}{}", format!("{attribute:width$}"), patterns(values), note)?;
    }
    say!(out, "  {} {}", format!("{:width$}", "example"), request(witness, layer))
}

/// Adds the callers and the conditions of requests to a JSON object.
pub(crate) fn add_requests(object: &mut Value, requests: &Requests) {
    let patterns = |patterns: &[Pattern]| -> Vec<Value> {
        patterns.iter().map(|Pattern { pattern, except }| json!({"pattern": pattern, "except": except})).collect()
    };
    let Requests { callers, conditions } = requests;
    let conditions = conditions.iter().map(|Condition { attribute, values, is_opaque }| {
        json!({"attribute": attribute, "values": patterns(values), "opaque": is_opaque})
    });
    object["callers"] = patterns(callers).into();
    object["conditions"] = conditions.collect();
}

/// Returns a verdict with its rule as text.
pub(crate) fn text(Answer { verdict, rule }: &Answer) -> String {
    let reason = verdict.reason().map(|reason| format!(": {}", reason.slug())).unwrap_or_default();
    let by = rule.as_ref().map(|(policy, rule)| format!(" by {policy}, rule {rule}")).unwrap_or_default();
    format!("{}{reason}{by}", verdict.slug())
}

/// Returns a verdict as JSON.
pub(crate) fn answer_json(Answer { verdict, rule }: &Answer) -> Value {
    json!({
        "verdict": verdict.slug(),
        "reason": verdict.reason().map(DenyReason::slug),
        "policy": rule.as_ref().map(|(policy, _)| policy),
        "rule": rule.as_ref().map(|(_, rule)| rule),
    })
}

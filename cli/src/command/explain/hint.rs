//! Hints: properties of the request in the options that differ from what the filter gets from Envoy.

use serde_json::{Map, Value};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::{DenyReason, Outcome};
use spiffe_authz::policy::field::{Field, Key};

use crate::command::rule;
use crate::decision::DecisionLine;
use crate::envoy::path::PathNormalization;

/// The scheme of a SPIFFE ID.
const SCHEME: &str = "spiffe://";

/// Returns the hints for a request and its outcome.
pub(super) fn on(request: &CaseRequest, outcome: &Outcome<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(peer) = request.peer.as_deref().filter(|peer| !peer.contains("://")) {
        hints.push(format!("a SPIFFE ID has a scheme: use `--peer {SCHEME}{peer}`"));
    }
    hints.extend(outcome.decision.verdict.reason().map(in_words));
    hints
}

/// Returns the meaning of a reason, and the next step.
fn in_words(reason: DenyReason) -> String {
    format!("{} {}", reason.summary(), rule::action(reason.slug())).trim_end().to_owned()
}

/// Returns the decision about the path that the filter gets with another normalization.
pub(super) fn other_path(normalization: PathNormalization, path: &str, outcome: &Outcome<'_>) -> String {
    let (name, decision) = (normalization.name(), DecisionLine(&outcome.decision).text());
    format!("with `--path-normalization {name}`, Envoy passes `{path}` to the filter: {decision}")
}

/// Returns a hint on a condition whose claim does not match although the token has a claim that looks like it.
pub(super) fn claim(condition: &str, claims: Option<&Map<String, Value>>) -> Option<String> {
    let key = Key::parse(condition).filter(|key| key.field == Field::Claim)?;
    let claims = claims?;
    let names: Vec<&str> = key.name.split("][").collect();
    if let Some(value) = nested(claims, &names) {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Object(_) => "an object",
            Value::Array(items) if !items.iter().any(Value::is_string) => "a list without strings",
            Value::String(_) | Value::Array(_) => return None,
        };
        return Some(format!("the claim is {found}; only strings and lists of strings match"));
    }
    let [name] = names.as_slice() else { return None };
    let parts: Vec<&str> = name.split('.').collect();
    nested(claims, &parts).filter(|_| parts.len() > 1)?;
    let key = key.field.key().unwrap_or_default();
    Some(format!("did you mean `{key}[{}]`?", parts.join("][")))
}

fn nested<'c>(claims: &'c Map<String, Value>, names: &[&str]) -> Option<&'c Value> {
    let (first, rest) = names.split_first()?;
    rest.iter().try_fold(claims.get(*first)?, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::claim;

    #[test]
    fn claims_have_hints() {
        let claims = json!({"tenant": 42, "admin": true, "name": "x", "realm": {"roles": ["a"]}});
        let hint = |name: &str| claim(&format!("request.auth.claims[{name}]"), claims.as_object());
        for (name, expected) in [
            ("tenant", Some("the claim is a number; only strings and lists of strings match")),
            ("admin", Some("the claim is a boolean; only strings and lists of strings match")),
            ("realm", Some("the claim is an object; only strings and lists of strings match")),
            ("realm.roles", Some("did you mean `request.auth.claims[realm][roles]`?")),
            ("realm][roles", None),
            ("name", None),
            ("x", None),
        ] {
            assert_eq!(hint(name).as_deref(), expected, "{name}");
        }
        assert_eq!(claim("source.ip", claims.as_object()), None);
    }
}

//! Hints: properties of the request in the options that differ from what the filter gets from Envoy.

use std::net::IpAddr;

use serde_json::{Map, Value};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::{DenyReason, Outcome};
use spiffe_authz::identity::IdentityReason;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::policy::field::{Field, Key};

use crate::command::rule;
use crate::decision::DecisionLine;

/// The scheme of a SPIFFE ID.
const SCHEME: &str = "spiffe://";

/// Returns the hints for a request and its outcome. `decide` decides another request.
pub(super) fn all<'p>(
    policy: &PolicySet,
    request: &CaseRequest,
    outcome: &Outcome<'_>,
    decide: impl Fn(&CaseRequest) -> Outcome<'p>,
) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(peer) = request.peer.as_deref().filter(|peer| !peer.contains("://")) {
        hints.push(format!("a SPIFFE ID has a scheme: use `--peer {SCHEME}{peer}`"));
    }
    hints.extend(outcome.decision.verdict.reason().and_then(identity));
    hints.extend(remote_ip(policy, request));
    hints.extend(path(policy, request, decide));
    hints
}

/// Returns the meaning of a reason for rejecting an identity, and the next step.
fn identity(reason: DenyReason) -> Option<String> {
    let is_identity = IdentityReason::all().any(|identity| identity.slug() == reason.slug());
    is_identity.then(|| format!("{} {}", reason.summary(), rule::action(reason.slug())).trim_end().to_owned())
}

/// The filter gets the remote address from Envoy, which reads the header of trusted proxies only.
fn remote_ip(policy: &PolicySet, request: &CaseRequest) -> Option<String> {
    let header = request.headers.get("x-forwarded-for").filter(|_| request.remote_ip.is_none())?;
    if !policy.reads(Field::RemoteIpBlocks) {
        return None;
    }
    let address = header.as_slice().last()?.split(',').next_back()?.trim();
    let option = address.parse::<IpAddr>().map_or_else(|_| String::new(), |address| format!(" {address}"));
    Some(format!("the header `x-forwarded-for` does not set the remote address: use `--remote-ip{option}`"))
}

/// Envoy normalizes the path before the filter gets it, if it is configured to.
fn path<'p>(policy: &PolicySet, request: &CaseRequest, decide: impl Fn(&CaseRequest) -> Outcome<'p>) -> Option<String> {
    let normalized = normalized(&request.path).filter(|_| policy.reads(Field::Paths))?;
    let other = CaseRequest { path: normalized, ..request.clone() };
    let decision = DecisionLine(&decide(&other).decision).text();
    let path = &other.path;
    Some(format!("with `normalize_path` and `merge_slashes`, Envoy passes `{path}` to the filter: {decision}"))
}

/// Returns a path without repeated slashes and without dot segments (RFC 3986, section 5.2.4), if it had any.
fn normalized(path: &str) -> Option<String> {
    let (before, query) = path.split_once('?').map_or((path, None), |(before, query)| (before, Some(query)));
    if !before.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in before.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let ends_with_slash = matches!(before.rsplit('/').next(), Some("" | "." | ".."));
    let mut normalized = format!("/{}", segments.join("/"));
    if ends_with_slash && !normalized.ends_with('/') {
        normalized.push('/');
    }
    if normalized == before {
        return None;
    }
    if let Some(query) = query {
        normalized.push('?');
        normalized.push_str(query);
    }
    Some(normalized)
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

    use super::{claim, normalized};

    #[test]
    fn paths_are_normalized() {
        for (path, expected) in [
            ("//admin", Some("/admin")),
            ("/a/../b/./c?x=//", Some("/b/c?x=//")),
            ("/a/..", Some("/")),
            ("/a/.", Some("/a/")),
            ("/a//", Some("/a/")),
            ("/a/./b.", Some("/a/b.")),
            ("/a/b/", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(normalized(path).as_deref(), expected, "{path}");
        }
    }

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

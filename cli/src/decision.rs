//! Requests and decisions, human-readable and as JSON.

use std::fmt;

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::{Decision, DenyReason, RuleName};
use spiffe_authz::policy::Layer;

use crate::printable::{Show, Shown, styled};
use crate::style::{BAD, GOOD};

/// Returns the rule that decides, such as ` by <policy>, rule <position>`, or an empty string without one.
pub(crate) fn by(rule: Option<RuleName<'_>>) -> String {
    rule.map(|rule| format!(" by {}, rule {}", rule.policy, rule.position)).unwrap_or_default()
}

/// A decision, such as `allow by <policy>, rule <position>`.
pub(crate) struct DecisionLine<'d>(pub(crate) &'d Decision<'d>);

impl Show for DecisionLine<'_> {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Decision { verdict, rule }) = self;
        let by = by(*rule);
        match verdict.reason() {
            None => write!(f, "{}{}", Shown(&styled(GOOD, "allow")), Shown(&by)),
            Some(reason) => write!(f, "{}: {}{}", Shown(&styled(BAD, "deny")), Shown(reason.slug()), Shown(&by)),
        }
    }
}

impl DecisionLine<'_> {
    /// Returns the decision without a style.
    pub(crate) fn text(&self) -> String {
        let Self(Decision { verdict, rule }) = self;
        let by = by(*rule);
        let reason = verdict.reason().map(|reason| format!(": {}", reason.slug())).unwrap_or_default();
        format!("{}{reason}{by}", verdict.slug())
    }
}

/// Returns a request on this layer as JSON. A TCP connection has no method and no path.
pub(crate) fn request_json(request: &CaseRequest, layer: Layer) -> Value {
    let mut request = json!(request);
    if let (Layer::Tcp, Some(fields)) = (layer, request.as_object_mut()) {
        fields.retain(|name, _| !["method", "path"].contains(&&**name));
    }
    request
}

/// Returns a decision as JSON.
pub(crate) fn decision_json(decision: &Decision<'_>) -> Value {
    json!({
        "verdict": decision.verdict.slug(),
        "reason": decision.verdict.reason().map(DenyReason::slug),
        "policy": decision.rule.map(|rule: RuleName<'_>| rule.policy),
        "rule": decision.rule.map(|rule| rule.position),
    })
}

//! The layer that policies apply to: HTTP requests, or TCP connections.
//!
//! On TCP, the HTTP attributes that a rule matches are unknown. As in Istio, the filter takes the reading that grants less: an
//! ALLOW rule with HTTP attributes never matches, and in a DENY or AUDIT rule each HTTP attribute counts as matched.

use super::action::Action;
use super::rule::{Matcher, Rule};

/// The unit that policies decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// An HTTP request.
    #[default]
    Http,
    /// A connection, with any protocol.
    Tcp,
}

impl Rule {
    /// Converts the rule of a policy with this action to the rule that applies on TCP.
    pub(super) fn on_tcp(self, action: Action) -> Self {
        if action == Action::Allow {
            let left_out = self.matchers().any(Matcher::is_http_only);
            return Self { left_out, ..self };
        }
        let selectors = |selectors: Box<[Box<[Matcher]>]>| selectors.into_iter().map(without_http).collect();
        Self {
            sources: selectors(self.sources),
            operations: selectors(self.operations),
            conditions: without_http(self.conditions),
            ..self
        }
    }
}

/// Returns the same matchers in the same places, with the HTTP ones skipped.
fn without_http(matchers: Box<[Matcher]>) -> Box<[Matcher]> {
    let skipped = |matcher: Matcher| if matcher.is_http_only() { Matcher::Skipped(Box::new(matcher)) } else { matcher };
    matchers.into_iter().map(skipped).collect()
}

impl Matcher {
    fn is_http_only(&self) -> bool {
        !matches!(self, Self::Skipped(_)) && self.field().is_http_only()
    }
}

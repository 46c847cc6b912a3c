//! The rules that a request matches, also if some of its attributes are unknown.

use std::net::IpAddr;

use super::super::rule::{Matcher, Rule};
use super::super::{Action, Mode, PolicySet};
use crate::host::{AddressOf, HostFailure, RequestAttributes};
use crate::identity::Peer;
use crate::metadata::Object;
use crate::request::Request;
use crate::timestamp::Timestamp;

/// A rule of a policy set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// The policy: `<namespace>/<name>`, or `<name>` for a policy without a namespace.
    pub policy: String,
    /// The position of the rule in its policy, from 0.
    pub rule: u32,
    /// The effect of the policy.
    pub action: Action,
    /// Whether the verdict of the policy is enforced.
    pub mode: Mode,
    /// The JSON pointer to the rule.
    pub pointer: String,
    /// Whether the rule never matches on this layer.
    pub left_out: bool,
}

impl PolicySet {
    /// Returns the rules, in the order of the document.
    pub fn rule_infos(&self) -> impl Iterator<Item = RuleInfo> {
        self.rules.iter().filter_map(|rule| {
            let policy = self.policy(rule)?;
            Some(RuleInfo {
                policy: policy.full_name.to_string(),
                rule: rule.position,
                action: policy.action,
                mode: policy.mode,
                pointer: format!("/policies/{}/rules/{}", policy.position, rule.position),
                left_out: rule.left_out,
            })
        })
    }

    /// Returns the indexes of the rules that can match requests of a caller, or of a caller without an identity. An index is the position
    /// among all rules of the document.
    #[must_use]
    pub fn rules_for(&self, peer: Option<&Peer>) -> Vec<usize> {
        let nothing = Request::new(&Nothing, Timestamp::from_seconds(0));
        let can_match = |rule: &Rule| !rule.left_out && matches(rule, peer, &nothing) != Some(false);
        self.rules.iter().enumerate().filter(|(_, rule)| can_match(rule)).map(|(index, _)| index).collect()
    }

    /// Returns whether the rule with this index matches a request of a caller, at the time of the request. Returns `None` if this depends on
    /// an attribute that the host cannot read.
    pub fn rule_matches<A: RequestAttributes>(
        &self,
        index: usize,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Option<bool> {
        match self.rules.get(index) {
            Some(rule) if !rule.left_out && self.applies(rule, request.now()) => matches(rule, peer, request),
            _ => Some(false),
        }
    }
}

/// A request of which only the caller is known.
struct Nothing;

impl RequestAttributes for &Nothing {
    type Text = &'static str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'static str>, HostFailure> {
        Err(HostFailure)
    }

    fn path(&self) -> Result<Option<&'static str>, HostFailure> {
        Err(HostFailure)
    }

    fn authority(&self) -> Result<Option<&'static str>, HostFailure> {
        Err(HostFailure)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Err(HostFailure)
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        Err(HostFailure)
    }

    fn address(&self, _: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        Err(HostFailure)
    }

    fn server_name(&self) -> Result<Option<&'static str>, HostFailure> {
        Err(HostFailure)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Err(HostFailure)
    }
}

/// Evaluates a rule as [`Rule::matches`] does. An unknown attribute makes the result unknown only if the others do not decide it.
fn matches<A: RequestAttributes>(rule: &Rule, peer: Option<&Peer>, request: &Request<A>) -> Option<bool> {
    let from = any(&rule.sources, peer, request);
    if from == Some(false) {
        return from;
    }
    let to = any(&rule.operations, peer, request);
    if to == Some(false) {
        return to;
    }
    match all(&rule.conditions, peer, request) {
        Some(true) => Some(from? && to?),
        when => when,
    }
}

fn any<A: RequestAttributes>(selectors: &[Box<[Matcher]>], peer: Option<&Peer>, request: &Request<A>) -> Option<bool> {
    let mut any = Some(selectors.is_empty());
    for selector in selectors {
        match all(selector, peer, request) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => any = None,
        }
    }
    any
}

fn all<A: RequestAttributes>(matchers: &[Matcher], peer: Option<&Peer>, request: &Request<A>) -> Option<bool> {
    let mut all = Some(true);
    for matcher in matchers {
        match matcher.matches(peer, request) {
            Ok(true) => {}
            Ok(false) => return Some(false),
            Err(_) => all = None,
        }
    }
    all
}

//! The callers that a policy set allows, and their requests.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::super::PolicySet;
use super::super::rule::RuleId;
use super::attribute::{Attribute, Value};
use super::cube::{Budget, Cube, outside};
use super::minimal::minimal;
use super::pattern::{Requests, Vocabularies};
use super::space::{CALLER, Given, Side, Space};
use super::{Answer, NotDecided, STEPS};
use crate::case::CaseRequest;
use crate::decision::Verdict;
use crate::host::AddressOf;
use crate::identity::TrustDomains;
use crate::timestamp::Timestamp;

/// The attributes of requests that a question fixes. An attribute that is `None` can have any value.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The SPIFFE ID of the caller.
    pub peer: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The port of the local address.
    pub port: Option<u16>,
    /// The direct remote address.
    pub source_ip: Option<std::net::IpAddr>,
    /// The remote address.
    pub remote_ip: Option<std::net::IpAddr>,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// The lines of headers, by the name in lower case.
    pub headers: Vec<(String, String)>,
    /// The claims of the token.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The requests that a policy set allows.
#[derive(Debug, Clone)]
pub struct Permissions {
    /// The permissions. Each request of the question that is allowed is in one of them.
    pub permissions: Vec<Permission>,
    /// The limits on the values that were considered. Without limits, the list is complete.
    pub limits: Vec<String>,
}

/// Requests that a rule allows.
#[derive(Debug, Clone)]
pub struct Permission {
    /// The policy and the position of the rule in it, or `None` if there is no ALLOW policy.
    pub rule: Option<(String, u32)>,
    /// The requests.
    pub requests: Requests,
    /// The kinds of their callers, in ascending order.
    pub kinds: Vec<CallerKind>,
    /// Whether every accepted caller is one of them.
    pub has_every_caller: bool,
    /// One of them.
    pub witness: CaseRequest,
    /// The verdict on it, whose rule can be an earlier one.
    pub answer: Answer,
}

/// A kind of caller, by its trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// The caller belongs to the local trust domain.
    Local,
    /// The caller belongs to an alias, which is a former name of the local trust domain.
    Alias,
    /// The caller belongs to a federated trust domain.
    Federated,
    /// The caller has no identity.
    Anonymous,
}

impl CallerKind {
    /// The name of the kind in output.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Alias => "alias",
            Self::Federated => "federated",
            Self::Anonymous => "no-identity",
        }
    }

    /// Returns the kind of an accepted caller.
    fn of(caller: &Value, trust_domains: &TrustDomains) -> Self {
        let Value::Text(principal) = caller else { return Self::Anonymous };
        let trust_domain = principal.split('/').next().unwrap_or_default();
        if *trust_domain == *trust_domains.local {
            Self::Local
        } else if trust_domains.aliases.iter().any(|alias| **alias == *trust_domain) {
            Self::Alias
        } else {
            Self::Federated
        }
    }
}

impl Question {
    fn given(&self) -> Given {
        let text = |attribute: Attribute, value: &Option<String>| Some((attribute, Value::Text(value.clone()?)));
        let address = |of, value: Option<std::net::IpAddr>| Some((Attribute::Address(of), Value::Address(value?)));
        let peer = self.peer.as_ref().map(|peer| {
            let principal = peer.strip_prefix("spiffe://").unwrap_or(peer).to_owned();
            (Attribute::Caller, Value::Text(principal))
        });
        let values = [
            peer,
            text(Attribute::Method, &self.method),
            text(Attribute::Path, &self.path),
            text(Attribute::Host, &self.host),
            text(Attribute::ServerName, &self.sni),
            self.port.map(|port| (Attribute::Port, Value::Port(port))),
            address(AddressOf::Source, self.source_ip),
            address(AddressOf::Remote, self.remote_ip),
        ];
        let headers = self
            .headers
            .iter()
            .map(|(name, line)| (Attribute::Header(name.as_str().into()), Value::Text(line.clone())));
        Given { values: values.into_iter().flatten().chain(headers).collect(), claims: self.claims.clone() }
    }
}

/// Returns the requests of a question that a policy set allows at a moment.
///
/// # Errors
/// Returns [`NotDecided`] if the answer is not known.
pub fn who(policies: &PolicySet, question: &Question, now: Timestamp) -> Result<Permissions, NotDecided> {
    let space = Space::new(&[policies], &question.given(), now)?;
    let mut budget = Budget::new(STEPS);
    let vocabularies = Vocabularies::new(&space);
    let mut permissions = Vec::new();
    for (rule, cubes) in allowed(&space, &mut budget)? {
        let rule = rule.and_then(|rule| policies.rule_name(rule)).map(|name| (name.policy.to_owned(), name.position));
        for cube in minimal(cubes, &space.sizes, &mut budget)? {
            let witness = space.witness(&cube);
            let answer = space.check_verdict(0, &witness, Verdict::Allow)?;
            permissions.push(Permission {
                rule: rule.clone(),
                requests: vocabularies.describe(&space, &cube),
                kinds: kinds(&space, &cube),
                has_every_caller: cube
                    .get(CALLER)
                    .is_none_or(|callers| space.sides[0].accepted.without(callers).is_empty()),
                witness,
                answer,
            });
        }
    }
    Ok(Permissions { permissions, limits: space.limits() })
}

/// Returns the kinds of the callers in a region. The classes of callers distinguish the trust domains.
fn kinds(space: &Space<'_>, region: &Cube) -> Vec<CallerKind> {
    let Side { policies, accepted, .. } = &space.sides[0];
    let (_, callers) = &space.attributes[CALLER];
    let is_in_region = |class: &usize| region.get(CALLER).is_none_or(|callers| callers.contains(*class));
    let classes = (0..callers.classes.len()).filter(|class| accepted.contains(*class)).filter(is_in_region);
    let kinds = classes.map(|class| CallerKind::of(&callers.classes[class].value, &policies.identity().trust_domains));
    kinds.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A rule, or `None` if there is no ALLOW policy, with the regions that it allows.
type Allowed = (Option<RuleId>, Vec<Cube>);

/// Returns the regions that each rule allows, in the order of the document.
pub(super) fn allowed(space: &Space<'_>, budget: &mut Budget) -> Result<Vec<Allowed>, NotDecided> {
    let side = &space.sides[0];
    let all = Cube::all(space.sizes.len());
    let everything = (!side.has_allow).then_some((None, &all));
    let rules = side.allow.iter().map(|region| (Some(region.rule), &region.cube));
    let mut found: Vec<Allowed> = Vec::new();
    let mut positions: FxHashMap<Option<RuleId>, usize> = FxHashMap::default();
    for (rule, cube) in everything.into_iter().chain(rules) {
        let accepted = cube.within(CALLER, &side.accepted).into_iter().collect();
        let parts = outside(accepted, side.deny.iter().map(|region| &region.cube), &space.sizes, budget)?;
        if parts.is_empty() {
            continue;
        }
        let position = *positions.entry(rule).or_insert_with(|| {
            found.push((rule, Vec::new()));
            found.len() - 1
        });
        found[position].1.extend(parts);
    }
    Ok(found)
}

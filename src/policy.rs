//! Policies, compiled: immutable, indexed, decided without allocation.

mod affixes;
mod compile;
mod explanation;
mod index;
mod layer;
mod names;
mod node;
mod path_template;
mod pointer;
mod reader;
mod rule;
mod values;

pub(crate) use compile::IGNORE_LINTS;
pub use explanation::{Explanation, FieldTrace, PolicyTrace, RuleTrace};
pub use layer::Layer;
pub use node::Node;
pub(crate) use rule::JWT_PAYLOAD;
pub use rule::{Action, Mode};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::{Decision, DenyReason, Outcome, RuleName, Verdict};
use crate::diagnostic::Diagnostic;
use crate::identity::{IdentitySource, Lifetime};
use crate::peer::{IdentityReason, Peer, Realm};
use crate::request::{Attributes, HostFailure, Request};
use crate::revocation::Revoked;
use crate::timestamp::Timestamp;
use index::{Index, RuleId};
use rule::{PolicyName, Rule, Untraced};

/// A compiled configuration document.
#[derive(Debug)]
pub struct Policy {
    id: PolicyId,
    realm: Realm,
    source: IdentitySource,
    peer: PeerRequirement,
    require_validated: bool,
    lifetime: Lifetime,
    revoked: Arc<Revoked>,
    names: Box<[PolicyName]>,
    rules: Box<[Rule]>,
    stages: Stages,
    /// The moments at which a policy begins or ceases to apply, in ascending order.
    boundaries: Box<[Timestamp]>,
}

/// The number of a compiled document, which no other one of this process has. A later one has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(u64);

impl PolicyId {
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    fn next() -> Self {
        static COMPILED: AtomicU64 = AtomicU64::new(0);
        Self(COMPILED.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a route says for itself, besides the configuration document of its filter.
///
/// Neither field lets somebody in whose identity does not count, unless a document of the route's own says so.
#[derive(Debug)]
pub struct RoutePolicy {
    /// Whether policies are acted on.
    pub mode: Mode,
    /// The document that stands here in the place of the filter's.
    pub policy: Option<Policy>,
}

impl RoutePolicy {
    /// Compiles `{"mode": …, "configuration": …}`; one of both may be left out.
    ///
    /// # Errors
    /// Every mistake in it, or that it is no JSON.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        compile::compile_route(text)
    }
}

/// What happens to a caller that shows no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRequirement {
    /// It is denied.
    Required,
    /// It reaches the policies as a request without identity.
    Optional,
}

/// The rules, by what their match means.
#[derive(Debug)]
struct Stages {
    deny: Index,
    allow: Index,
    audit: Index,
    shadow_deny: Index,
    shadow_allow: Index,
    has_allow: bool,
    has_shadow_allow: bool,
    has_shadow: bool,
}

impl Stages {
    /// Files each rule under the stage that asks for it.
    fn of(names: &[PolicyName], rules: &[Rule]) -> Self {
        let stage = |action, mode| {
            let mut of_stage = (0..).zip(rules).filter(|(_, rule)| {
                let index = usize::try_from(rule.policy).unwrap_or(usize::MAX);
                let of_stage = |name: &PolicyName| name.action == action && name.mode == mode;
                !rule.left_out && names.get(index).is_some_and(of_stage)
            });
            Index::new(&mut of_stage)
        };
        let has = |mode| names.iter().any(|name| name.action == Action::Allow && name.mode == mode);
        Self {
            deny: stage(Action::Deny, Mode::Enforce),
            allow: stage(Action::Allow, Mode::Enforce),
            audit: stage(Action::Audit, Mode::Enforce),
            shadow_deny: stage(Action::Deny, Mode::Shadow),
            shadow_allow: stage(Action::Allow, Mode::Shadow),
            has_allow: has(Mode::Enforce),
            has_shadow_allow: has(Mode::Shadow),
            has_shadow: names.iter().any(|name| name.mode == Mode::Shadow),
        }
    }
}

/// The places in the index of the rules that can match a peer. They are cached with the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    deny: Box<[usize]>,
    allow: Box<[usize]>,
    audit: Box<[usize]>,
    shadow_deny: Box<[usize]>,
    shadow_allow: Box<[usize]>,
}

impl Policy {
    /// Compiles a configuration document.
    ///
    /// # Errors
    /// Every mistake in the document, or that it is no JSON.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        compile::compile_json(text)
    }

    /// Compiles a configuration document that was parsed from another notation.
    ///
    /// # Errors
    /// Every mistake in the document.
    pub fn from_node(root: &Node) -> Result<Self, Vec<Diagnostic>> {
        compile::compile(root)
    }

    /// The same policies, asked on this layer. Documents are compiled for HTTP; what becomes of rules that ask for HTTP
    /// where there is none, README.md says under "TCP".
    #[must_use]
    pub fn on(self, layer: Layer) -> Self {
        if layer == Layer::Http {
            return self;
        }
        let action = |rule: &Rule| usize::try_from(rule.policy).ok().and_then(|policy| self.names.get(policy));
        let rules: Box<[Rule]> = self
            .rules
            .into_iter()
            .map(|rule| match action(&rule) {
                Some(name) => rule.on_tcp(name.action),
                None => rule,
            })
            .collect();
        Self { stages: Stages::of(&self.names, &rules), rules, ..self }
    }

    /// The number of this document.
    #[must_use]
    pub const fn id(&self) -> PolicyId {
        self.id
    }

    /// How many policies there are.
    #[must_use]
    pub const fn policy_count(&self) -> usize {
        self.names.len()
    }

    /// Whose identities count.
    #[must_use]
    pub const fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Where callers' identities come from.
    #[must_use]
    pub const fn identity_source(&self) -> &IdentitySource {
        &self.source
    }

    /// What happens to a caller that shows no certificate.
    #[must_use]
    pub const fn peer_requirement(&self) -> PeerRequirement {
        self.peer
    }

    /// Whether Envoy must have validated the caller's certificate on this very handshake.
    #[must_use]
    pub const fn requires_validated(&self) -> bool {
        self.require_validated
    }

    /// The limits on the lifetime of an SVID.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The identities that are no longer accepted.
    #[must_use]
    pub const fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Returns `true` if a policy begins or ceases to apply at some moment, so that decisions depend on the time.
    #[must_use]
    pub const fn depends_on_time(&self) -> bool {
        !self.boundaries.is_empty()
    }

    /// The next moment after `now` at which a policy begins or ceases to apply.
    #[must_use]
    pub(crate) fn next_boundary(&self, now: Timestamp) -> Timestamp {
        let passed = self.boundaries.partition_point(|boundary| *boundary <= now);
        self.boundaries.get(passed).copied().unwrap_or(Timestamp::NEVER)
    }

    /// Where the rules that can match `peer` are filed; `None` is a caller without identity.
    #[must_use]
    pub fn candidates(&self, peer: Option<&Peer>) -> Candidates {
        let Stages { deny, allow, audit, shadow_deny, shadow_allow, .. } = &self.stages;
        Candidates {
            deny: deny.candidates(peer),
            allow: allow.candidates(peer),
            audit: audit.candidates(peer),
            shadow_deny: shadow_deny.candidates(peer),
            shadow_allow: shadow_allow.candidates(peer),
        }
    }

    /// Decides a request of a caller with this identity, or with the reason why it has none that counts. `candidates`
    /// are those of its peer.
    #[must_use]
    pub fn authorize<A: Attributes>(
        &self,
        identity: &Result<Option<Peer>, IdentityReason>,
        candidates: &Candidates,
        request: &Request<A>,
    ) -> Outcome<'_> {
        match identity {
            Ok(peer) => self.decide(peer.as_ref(), candidates, request),
            Err(reason) => Outcome::denied(DenyReason::Identity(*reason)),
        }
    }

    /// Decides a request. `candidates` are those of `peer`.
    #[must_use]
    pub fn decide<A: Attributes>(
        &self,
        peer: Option<&Peer>,
        candidates: &Candidates,
        request: &Request<A>,
    ) -> Outcome<'_> {
        let mut matches = |id: RuleId| match self.rule(id) {
            Some(rule) if self.applies(rule, request.now()) => rule.matches(peer, request, &mut Untraced),
            _ => Ok(false),
        };
        let stages = &self.stages;
        let mut first = |index: &Index, candidates: &[usize]| index.first_match(candidates, &mut matches, request);
        let deny = first(&stages.deny, &candidates.deny);
        let allow = match deny {
            Ok(None) => first(&stages.allow, &candidates.allow),
            _ => Ok(None),
        };
        let shadow = stages.has_shadow.then(|| {
            let deny = earlier(deny, first(&stages.shadow_deny, &candidates.shadow_deny));
            let allow = match deny {
                Ok(None) => earlier(allow, first(&stages.shadow_allow, &candidates.shadow_allow)),
                _ => Ok(None),
            };
            self.conclude(deny, allow, stages.has_allow || stages.has_shadow_allow)
        });
        // What cannot be read is audited by nobody; it decides nothing.
        let audit = first(&stages.audit, &candidates.audit).unwrap_or(None);
        Outcome {
            decision: self.conclude(deny, allow, stages.has_allow),
            shadow,
            audit: audit.and_then(|id| self.name(id)),
        }
    }

    /// Istio's order: a DENY that matches, no ALLOW policy at all, an ALLOW that matches, and else a denial.
    fn conclude(&self, deny: Match, allow: Match, has_allow: bool) -> Decision<'_> {
        let verdict = match (deny, allow) {
            (Err(HostFailure), _) | (_, Err(HostFailure)) => Verdict::Deny(DenyReason::RequestUnreadable),
            (Ok(Some(_)), _) => Verdict::Deny(DenyReason::DeniedByPolicy),
            (Ok(None), Ok(None)) if has_allow => Verdict::Deny(DenyReason::NoPolicyAllows),
            (Ok(None), Ok(_)) => Verdict::Allow,
        };
        let rule = deny.ok().flatten().or(allow.ok().flatten());
        Decision { verdict, rule: rule.and_then(|id| self.name(id)) }
    }

    /// Each policy by its name, with what it does.
    pub(crate) fn names(&self) -> impl Iterator<Item = (RuleName<'_>, Action, Mode)> {
        (0..).zip(&self.names).map(|(policy_id, name)| {
            (RuleName { policy: &name.full_name, policy_id, position: 0 }, name.action, name.mode)
        })
    }

    /// The modes in which there are verdicts.
    pub(crate) fn modes(&self) -> impl Iterator<Item = Mode> + use<> {
        [Mode::Enforce].into_iter().chain(self.stages.has_shadow.then_some(Mode::Shadow))
    }

    /// Returns `true` if the rule's policy applies at this moment. One that does not matches nothing, and still exists: an ALLOW
    /// policy that has expired allows no one, and the requests that no other policy allows stay denied.
    fn applies(&self, rule: &Rule, now: Timestamp) -> bool {
        let policy = usize::try_from(rule.policy).ok().and_then(|policy| self.names.get(policy));
        policy.is_some_and(|policy| policy.period.contains(now))
    }

    fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::try_from(id).ok()?)
    }

    fn name(&self, id: RuleId) -> Option<RuleName<'_>> {
        let rule = self.rule(id)?;
        let policy = self.names.get(usize::try_from(rule.policy).ok()?)?;
        Some(RuleName { policy: &policy.full_name, policy_id: rule.policy, position: rule.position })
    }
}

/// The first rule that matches, or that the host failed before one was found.
type Match = Result<Option<RuleId>, HostFailure>;

fn earlier(one: Match, other: Match) -> Match {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.into_iter().chain(other).min()),
        (Ok(Some(found)), Err(_)) | (Err(_), Ok(Some(found))) => Ok(Some(found)),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

#[cfg(test)]
mod tests;

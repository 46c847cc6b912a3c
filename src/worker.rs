//! What one worker of Envoy does with a request or a connection, the same for every adapter: it decides, and then shows,
//! counts and logs what came of it.

pub(crate) mod memory;

use std::sync::Arc;

use crate::decision::{Decision, DenyReason, Outcome, RuleName, Verdict};
use crate::filter::{Caller, Callers, Connection};
use crate::log_line::{LogLine, RateLimit};
use crate::peer::Peer;
use crate::policy::{Action, Layer, Mode, Policy, PolicyId};
use crate::request::{Attributes, HostFailure, Request};
use crate::revocation::Revocations;
use crate::timestamp::Timestamp;

/// The status of a denied request.
pub const FORBIDDEN: u32 = 403;
/// The body of a denied request: what a caller learns.
pub const BODY: &str = "spiffe-authz: access denied";

/// What is told of a denied request, or of a closed connection, in the access log.
#[must_use]
pub fn details(reason: DenyReason) -> String {
    format!("spiffe_authz_denied[{}]", reason.slug())
}

/// The state of one worker thread of Envoy, for all configurations of the filter on it: the cached callers, and the limit of its
/// log.
#[derive(Debug, Default)]
pub struct Worker {
    callers: Callers,
    revocations: Arc<Revocations>,
    log_limit: RateLimit,
}

impl Worker {
    /// A worker that obeys these revocations.
    #[must_use]
    pub fn new(revocations: Arc<Revocations>) -> Self {
        Self { revocations, ..Self::default() }
    }

    /// Decides under `policy`. In `Mode::Shadow` no policy is enforced. `clock` returns the time.
    pub fn decide<'p, A: Attributes>(
        &mut self,
        policy: &'p Policy,
        mode: Mode,
        connection: &impl Connection,
        attributes: A,
        clock: impl FnOnce() -> Result<Timestamp, HostFailure>,
    ) -> Ruling<'p> {
        let Ok(now) = clock() else { return self.deny(DenyReason::ClockUnavailable, attributes, || Err(HostFailure)) };
        let request = Request::new(attributes, now);
        // Before the decision: what is revoked in between is seen by the next one.
        let revocations = self.revocations.latest();
        let caller = self.callers.caller(policy, connection, &request);
        let outcome = caller.authorize(policy, &self.revocations, &request);
        let outcome = if mode == Mode::Shadow { outcome.in_shadow() } else { outcome };
        let line = self.line(&outcome, caller.peer(), &request);
        let until = caller.end(policy).min(policy.next_boundary(now));
        Ruling { caller: Some(caller), outcome, line, lease: Lease { until, revocations } }
    }

    /// Denies for a reason that neither the caller nor a policy is evaluated for.
    pub fn deny<A: Attributes>(
        &mut self,
        reason: DenyReason,
        attributes: A,
        clock: impl FnOnce() -> Result<Timestamp, HostFailure>,
    ) -> Ruling<'static> {
        let outcome = Outcome::denied(reason);
        // Without a clock, all lines fall into one second.
        let request = Request::new(attributes, clock().unwrap_or(Timestamp::from_seconds(0)));
        let line = self.line(&outcome, None, &request);
        Ruling { caller: None, outcome, line, lease: Lease { until: request.now(), revocations: 0 } }
    }

    /// Returns `true` if a decision on an open connection holds at this moment. If not, the connection must be decided again.
    #[must_use]
    pub fn holds(&self, lease: &Lease, clock: impl FnOnce() -> Result<Timestamp, HostFailure>) -> bool {
        lease.revocations == self.revocations.latest() && clock().is_ok_and(|now| now < lease.until)
    }

    /// Drops what was cached under this policy set, which decides no more.
    pub fn forget(&mut self, policy: PolicyId) {
        self.callers.forget(policy);
    }

    fn line<A: Attributes>(
        &mut self,
        outcome: &Outcome<'_>,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Option<String> {
        let line = LogLine::of(outcome, peer, request)?;
        Some(line.to_json(self.log_limit.pass(request.now().seconds())?))
    }
}

/// The time for which a decision on a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The first moment at which it does not.
    until: Timestamp,
    /// The revocations that it was made under.
    revocations: u64,
}

/// The outcome of a request. It does not borrow from the request, so the host can be changed.
#[derive(Debug)]
#[must_use]
pub struct Ruling<'p> {
    caller: Option<Arc<Caller>>,
    outcome: Outcome<'p>,
    line: Option<String>,
    lease: Lease,
}

impl Ruling<'_> {
    /// The reason for the denial, if it is one.
    #[must_use]
    pub const fn denial(&self) -> Option<DenyReason> {
        self.outcome.decision.verdict.reason()
    }

    /// The time for which the decision holds on a connection that stays open.
    pub const fn lease(&self) -> Lease {
        self.lease
    }

    /// Shows, counts and logs the outcome.
    pub fn record<O: Outputs>(&self, outputs: &mut O) {
        let decision = &self.outcome.decision;
        let mut digits = itoa::Buffer::new();
        let peer = self.caller.as_ref().and_then(|caller| caller.peer());
        let peer = peer.filter(|peer| !outputs.shows_peer(peer.spiffe_id()));
        let facts = [
            peer.map(|peer| (Fact::Peer, peer.spiffe_id())),
            peer.map(|peer| (Fact::TrustDomain, peer.trust_domain())),
            peer.and_then(|peer| Some((Fact::Namespace, peer.namespace()?))),
            peer.and_then(|peer| Some((Fact::ServiceAccount, peer.service_account()?))),
            Some((Fact::Verdict, decision.verdict.slug())),
            decision.verdict.reason().map(|reason| (Fact::Reason, reason.slug())),
            decision.rule.map(|rule| (Fact::Policy, rule.policy)),
            decision.rule.map(|rule| (Fact::Rule, digits.format(rule.position))),
        ];
        outputs.show(facts.into_iter().flatten());
        self.outcome.counts().for_each(|count| outputs.count(&count));
        if let Some(line) = &self.line {
            outputs.log(line);
        }
    }
}

/// Where a host takes what operators and later filters see.
pub trait Outputs {
    /// Whether an earlier request of this connection has shown that the peer has this SPIFFE ID, so that it need not be shown
    /// again.
    fn shows_peer(&self, spiffe_id: &str) -> bool;

    /// Shows facts to access logs and to later filters.
    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)> + Clone);

    /// Counts one.
    fn count(&mut self, count: &Count<'_>);

    /// Writes a line to the host's log.
    fn log(&mut self, line: &str);
}

/// What is shown of a caller and of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The caller's SPIFFE ID.
    Peer,
    /// Its trust domain.
    TrustDomain,
    /// Its namespace.
    Namespace,
    /// Its service account.
    ServiceAccount,
    /// `allow` or `deny`.
    Verdict,
    /// Why it is a denial.
    Reason,
    /// The policy that decided.
    Policy,
    /// The place of the rule in it, from 0.
    Rule,
}

impl Fact {
    /// Every fact.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::TrustDomain,
        Self::Namespace,
        Self::ServiceAccount,
        Self::Verdict,
        Self::Reason,
        Self::Policy,
        Self::Rule,
    ];

    /// Those that stay the same for the life of a connection.
    pub const OF_CALLER: [Self; 4] = [Self::Peer, Self::TrustDomain, Self::Namespace, Self::ServiceAccount];

    /// The name of the filter state that shows it. An HTTP filter and a network filter can share a connection, and the caller of a
    /// request is not always the peer of the connection, so each layer has names of its own.
    #[must_use]
    pub const fn name(self, layer: Layer) -> &'static str {
        match layer {
            Layer::Http => match self {
                Self::Peer => "spiffe_authz_peer",
                Self::TrustDomain => "spiffe_authz_trust_domain",
                Self::Namespace => "spiffe_authz_namespace",
                Self::ServiceAccount => "spiffe_authz_service_account",
                Self::Verdict => "spiffe_authz_verdict",
                Self::Reason => "spiffe_authz_reason",
                Self::Policy => "spiffe_authz_policy",
                Self::Rule => "spiffe_authz_rule",
            },
            Layer::Tcp => match self {
                Self::Peer => "spiffe_authz_connection_peer",
                Self::TrustDomain => "spiffe_authz_connection_trust_domain",
                Self::Namespace => "spiffe_authz_connection_namespace",
                Self::ServiceAccount => "spiffe_authz_connection_service_account",
                Self::Verdict => "spiffe_authz_connection_verdict",
                Self::Reason => "spiffe_authz_connection_reason",
                Self::Policy => "spiffe_authz_connection_policy",
                Self::Rule => "spiffe_authz_connection_rule",
            },
        }
    }

    /// The key of the dynamic metadata that shows it, in our namespace.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::TrustDomain => "trust_domain",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Verdict => "verdict",
            Self::Reason => "reason",
            Self::Policy => "policy",
            Self::Rule => "rule",
        }
    }
}

/// What the counter counts, by its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<'p> {
    /// Whether this is the verdict that is acted on, or what it would be with the shadow policies.
    pub mode: Mode,
    /// `None` counts an AUDIT match.
    pub verdict: Option<Verdict>,
    /// The rule that decided or matched.
    pub rule: Option<RuleName<'p>>,
}

impl<'p> Outcome<'p> {
    /// What is counted of it.
    pub fn counts(&self) -> impl Iterator<Item = Count<'p>> {
        let Self { decision, shadow, audit } = *self;
        let of = |mode, Decision { verdict, rule }| Count { mode, verdict: Some(verdict), rule };
        let audit = audit.map(|rule| Count { mode: Mode::Enforce, verdict: None, rule: Some(rule) });
        [Some(of(Mode::Enforce, decision)), shadow.map(|shadow| of(Mode::Shadow, shadow)), audit].into_iter().flatten()
    }
}

impl<'p> Count<'p> {
    /// The names of the labels, without the prefix that sets them apart from those of other filters.
    pub const LABELS: [&'static str; 4] = ["mode", "verdict", "reason", "policy"];

    /// Every count that can come of `policy`, where it is acted on: one for all rules of a policy, and those that no rule makes.
    pub fn all(policy: &'p Policy) -> impl Iterator<Item = Self> {
        let without_rule = DenyReason::all().map(Verdict::Deny).chain([Verdict::Allow]);
        let without_rule = without_rule
            .flat_map(|verdict| policy.modes().map(move |mode| Self { mode, verdict: Some(verdict), rule: None }));
        let with_rule = policy.names().flat_map(|(rule, action, own)| {
            let verdict = match action {
                Action::Allow => Some(Verdict::Allow),
                Action::Deny => Some(Verdict::Deny(DenyReason::DeniedByPolicy)),
                Action::Audit => None,
            };
            // A policy that is enforced decides of the shadow verdict, too.
            let modes = policy.modes().filter(move |mode| own == Mode::Enforce || *mode == own);
            modes.map(move |mode| Self { mode, verdict, rule: Some(rule) })
        });
        without_rule.chain(with_rule)
    }

    /// What tells it from every other count of the same policy document.
    #[must_use]
    pub fn key(&self) -> CountKey {
        CountKey { mode: self.mode, verdict: self.verdict, policy: self.rule.map(|rule| rule.policy_id) }
    }

    /// The values of the labels, in their order.
    #[must_use]
    pub fn values(&self) -> [&'p str; 4] {
        let reason = self.verdict.and_then(Verdict::reason);
        [
            self.mode.slug(),
            self.verdict.map_or("audit", Verdict::slug),
            reason.map_or("none", |reason| reason.slug()),
            self.rule.map_or("none", |rule| rule.policy),
        ]
    }

    /// The name of a counter that has no labels: `base`, and the name and value of each. It ends with the policy, which may hold
    /// dots; the stats tags of a bootstrap take it apart.
    #[must_use]
    pub fn name(&self, base: &str) -> String {
        let labels = Self::LABELS.iter().zip(self.values());
        labels.fold(base.to_owned(), |name, (label, value)| name + "." + label + "." + value)
    }
}

/// What tells counts apart that are made by one policy document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountKey {
    mode: Mode,
    verdict: Option<Verdict>,
    policy: Option<u32>,
}

//! A worker thread of Envoy, which decides requests and connections and records the outcome. It is the same for every adapter.

mod callers;
mod log_line;
mod memory;
mod output;
mod revocations;

use std::sync::Arc;

use crate::decision::{DenyReason, Outcome};
use crate::host::{Connection, HostFailure, RequestAttributes};
use crate::identity::Peer;
use crate::outputs::{CallerSpan, CounterDetail, OutputSettings};
use crate::policy::{Mode, PolicySet, PolicySetId};
use crate::request::Request;
use crate::timestamp::Timestamp;
use callers::{Caller, Callers};
use log_line::{LogLine, RateLimit};

pub use log_line::MAX_TEXT_BYTES;
pub use output::{
    Count, CountKey, Event, Fact, MODULE_ALLOWED_COUNTER, MODULE_COUNTER, Outputs, Span, WASM_ALLOWED_COUNTER,
    WASM_COUNTER,
};
pub use revocations::Revocations;

/// The HTTP status of the response to a denied request.
pub const FORBIDDEN: u32 = 403;
/// The body of the response to a denied request.
pub const BODY: &str = "spiffe-authz: access denied";

/// The details of a denied request, or of a closed connection, in the access log.
#[must_use]
pub fn details(reason: DenyReason) -> String {
    format!("spiffe_authz_denied[{}]", reason.slug())
}

/// The state of a worker thread of Envoy for all configurations: the cached callers and the rate limit of its log.
#[derive(Debug, Default)]
pub struct Worker {
    callers: Callers,
    revocations: Arc<Revocations>,
    log_limit: RateLimit,
}

impl Worker {
    /// Creates a worker that obeys these revocations.
    #[must_use]
    pub fn new(revocations: Arc<Revocations>) -> Self {
        Self { revocations, ..Self::default() }
    }

    /// Decides a request under a policy set. In `Mode::Shadow` no policy is enforced. `clock` returns the time.
    pub fn decide<'p, A: RequestAttributes>(
        &mut self,
        policies: &'p PolicySet,
        mode: Mode,
        connection: &impl Connection,
        attributes: A,
        clock: impl FnOnce() -> Result<Timestamp, HostFailure>,
    ) -> Ruling<'p> {
        let outputs = policies.outputs();
        let Ok(now) = clock() else {
            return self.deny(outputs, DenyReason::ClockUnavailable, attributes, || Err(HostFailure));
        };
        let request = Request::new(attributes, now);
        // Read before the decision, so that the next decision obeys a revocation that is added in between.
        let revocations = self.revocations.latest();
        let caller = self.callers.caller(policies, connection, &request);
        let outcome = caller.decide(policies, &self.revocations, &request);
        let outcome = if mode == Mode::Shadow { outcome.in_shadow() } else { outcome };
        let line = self.line(&outcome, caller.peer(), &request);
        let until = caller.end(policies).min(policies.next_boundary(now));
        Ruling { caller: Some(caller), outcome, line, lease: Lease { until, revocations }, outputs }
    }

    /// Denies a request without evaluating the caller or a policy.
    pub fn deny<A: RequestAttributes>(
        &mut self,
        outputs: OutputSettings,
        reason: DenyReason,
        attributes: A,
        clock: impl FnOnce() -> Result<Timestamp, HostFailure>,
    ) -> Ruling<'static> {
        let outcome = Outcome::denied(reason);
        // Without a clock, the rate limit counts all lines in one second.
        let request = Request::new(attributes, clock().unwrap_or(Timestamp::from_seconds(0)));
        let line = self.line(&outcome, None, &request);
        let lease = Lease { until: request.now(), revocations: 0 };
        Ruling { caller: None, outcome, line, lease, outputs }
    }

    /// Returns `true` if a decision on an open connection is still valid. Otherwise the connection must be decided again.
    #[must_use]
    pub fn holds(&self, lease: &Lease, clock: impl FnOnce() -> Result<Timestamp, HostFailure>) -> bool {
        lease.revocations == self.revocations.latest() && clock().is_ok_and(|now| now < lease.until)
    }

    /// Drops the entries of this policy set, which is no longer used, from the cache.
    pub fn forget(&mut self, policies: PolicySetId) {
        self.callers.forget(policies);
    }

    fn line<A: RequestAttributes>(
        &mut self,
        outcome: &Outcome<'_>,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Option<String> {
        let line = LogLine::of(outcome, peer, request)?;
        Some(line.into_json(self.log_limit.pass(request.now().seconds())?))
    }
}

/// The period in which a decision on a connection is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The first moment at which the decision is not valid.
    until: Timestamp,
    /// The latest revocations at the time of the decision.
    revocations: u64,
}

/// The outcome of a request. It does not borrow from the request, so that the adapter can change the host.
#[derive(Debug)]
#[must_use]
pub struct Ruling<'p> {
    caller: Option<Arc<Caller>>,
    outcome: Outcome<'p>,
    line: Option<String>,
    lease: Lease,
    outputs: OutputSettings,
}

impl Ruling<'_> {
    /// The reason for the denial, or `None` if the request is allowed.
    #[must_use]
    pub const fn denial(&self) -> Option<DenyReason> {
        self.outcome.decision.verdict.reason()
    }

    /// The period in which the decision is valid, on an open connection.
    pub const fn lease(&self) -> Lease {
        self.lease
    }

    /// Shows, counts and logs the outcome.
    pub fn record<O: Outputs>(&self, outputs: &mut O) {
        let OutputSettings { decision: form, caller: shown, counters } = self.outputs;
        let decision = &self.outcome.decision;
        let peer = self.caller.as_ref().and_then(|caller| caller.peer()).filter(|_| shown != CallerSpan::Never);
        // A write replaces the same value, and costs less than a read. Several writes cost more.
        let reads = O::FACTS_ARE_STATE && form.has_facts();
        let new_peer = peer.filter(|peer| !(reads && outputs.shows_peer(peer.id().as_str())));
        if let Some(peer) = new_peer {
            outputs.set_state(Fact::Peer, peer.id().as_str());
        }
        if form.has_summary() {
            outputs.set_state(Fact::Decision, &decision.summary());
        }
        if form.has_facts() {
            let mut digits = itoa::Buffer::new();
            let peer = if O::FACTS_ARE_STATE { new_peer } else { peer };
            let facts = [
                peer.map(|peer| (Fact::Peer, peer.id().as_str())),
                peer.map(|peer| (Fact::TrustDomain, peer.trust_domain())),
                peer.and_then(|peer| Some((Fact::Namespace, peer.namespace()?))),
                peer.and_then(|peer| Some((Fact::ServiceAccount, peer.service_account()?))),
                Some((Fact::Verdict, decision.verdict.slug())),
                decision.verdict.reason().map(|reason| (Fact::Reason, reason.slug())),
                decision.rule.map(|rule| (Fact::Policy, rule.policy)),
                decision.rule.map(|rule| (Fact::Rule, digits.format(rule.position))),
            ];
            outputs.show(facts.into_iter().flatten());
        }
        for count in self.outcome.counts() {
            if counters == CounterDetail::Verdict && count.is_plain_allow() {
                outputs.count_allowed();
            } else {
                outputs.count(&count);
            }
        }
        if let Some(line) = &self.line {
            outputs.log(line);
        }
    }
}

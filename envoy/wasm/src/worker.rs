//! Decides, counts, logs and leaves word in filter state: the same for requests and connections.

use std::cell::RefCell;

use spiffe_authz::decision::{Decision, DenyReason, Outcome};
use spiffe_authz::filter::{Authorizer, Caller};
use spiffe_authz::log_line::{LogLine, RateLimit};
use spiffe_authz::peer::Peer;
use spiffe_authz::policy::{Mode, Policy};
use spiffe_authz::request::{Attributes, Request};

use crate::attributes::CurrentConnection;
use crate::counters::Counters;
use crate::host;

const STATE_PEER: &str = "spiffe_authz_peer";
const STATE_TRUST_DOMAIN: &str = "spiffe_authz_trust_domain";
const STATE_NAMESPACE: &str = "spiffe_authz_namespace";
const STATE_SERVICE_ACCOUNT: &str = "spiffe_authz_service_account";
const STATE_VERDICT: &str = "spiffe_authz_verdict";
const STATE_REASON: &str = "spiffe_authz_reason";
const STATE_POLICY: &str = "spiffe_authz_policy";
const STATE_RULE: &str = "spiffe_authz_rule";

/// What the requests or connections of one configuration share on one worker.
pub(crate) struct Worker {
    authorizer: Authorizer,
    requires_validated: bool,
    counters: RefCell<Counters>,
    log_limit: RefCell<RateLimit>,
}

impl Worker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            requires_validated: policy.requires_validated(),
            authorizer: Authorizer::new(policy),
            counters: RefCell::default(),
            log_limit: RefCell::default(),
        }
    }

    /// Whether Envoy must have validated the caller's certificate on this very handshake.
    pub(crate) const fn requires_validated(&self) -> bool {
        self.requires_validated
    }

    /// Why what is being served is denied; `None` lets it pass.
    pub(crate) fn decide<A: Attributes>(&self, request: &Request<A>) -> Option<DenyReason> {
        let (caller, is_new) = self.authorizer.caller(&CurrentConnection);
        if is_new {
            record_peer(&caller);
        }
        let outcome = self.authorizer.authorize(&caller, request);
        self.record(&outcome, caller.peer(), request)
    }

    /// Denies what is being served for a reason that no policy was asked for.
    pub(crate) fn deny<A: Attributes>(&self, reason: DenyReason, request: &Request<A>) {
        self.record(&Outcome::denied(reason), None, request);
    }

    fn record<'a, A: Attributes>(
        &self,
        outcome: &Outcome<'a>,
        peer: Option<&'a Peer>,
        request: &'a Request<A>,
    ) -> Option<DenyReason> {
        record_decision(&outcome.decision);
        self.count(outcome);
        if let Some(line) = LogLine::of(outcome, peer, request)
            && let Some(suppressed) = self.log_limit.borrow_mut().pass(host::seconds())
        {
            log::warn!("{}", line.to_json(suppressed));
        }
        outcome.decision.verdict.reason()
    }

    fn count(&self, outcome: &Outcome<'_>) {
        let mut counters = self.counters.borrow_mut();
        counters.decision(Mode::Enforce, &outcome.decision);
        if let Some(shadow) = &outcome.shadow {
            counters.decision(Mode::Shadow, shadow);
        }
        if let Some(rule) = outcome.audit {
            counters.audit(rule);
        }
    }
}

/// Makes what is known of a caller last for the connection.
pub(crate) fn declare_filter_state() {
    for key in [STATE_PEER, STATE_TRUST_DOMAIN, STATE_NAMESPACE, STATE_SERVICE_ACCOUNT] {
        host::keep_filter_state_for_connection(key);
    }
}

fn record_peer(caller: &Caller) {
    let Some(peer) = caller.peer() else { return };
    host::set_filter_state(STATE_PEER, peer.spiffe_id().as_bytes());
    host::set_filter_state(STATE_TRUST_DOMAIN, peer.trust_domain().as_bytes());
    for (key, value) in [(STATE_NAMESPACE, peer.namespace()), (STATE_SERVICE_ACCOUNT, peer.service_account())] {
        if let Some(value) = value {
            host::set_filter_state(key, value.as_bytes());
        }
    }
}

fn record_decision(decision: &Decision<'_>) {
    host::set_filter_state(STATE_VERDICT, decision.verdict.slug().as_bytes());
    if let Some(reason) = decision.verdict.reason() {
        host::set_filter_state(STATE_REASON, reason.slug().as_bytes());
    }
    if let Some(rule) = decision.rule {
        host::set_filter_state(STATE_POLICY, rule.policy.as_bytes());
        host::set_filter_state(STATE_RULE, rule.position.to_string().as_bytes());
    }
}

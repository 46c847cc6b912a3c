//! The core's worker with the outputs of Envoy: the same for requests and connections.

use std::cell::RefCell;

use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::{Mode, Policy};
use spiffe_authz::request::Attributes;
use spiffe_authz::worker::{self, Fact, Ruling};

use crate::attributes::CurrentConnection;
use crate::host;
use crate::outputs::CurrentOutputs;

thread_local! {
    /// The worker of this VM, of which Envoy has one for each worker thread. A new configuration finds what the previous one has
    /// cached.
    static WORKER: RefCell<worker::Worker> = RefCell::default();
}

/// A configuration, with its outputs.
pub(crate) struct Worker {
    policy: Policy,
    outputs: CurrentOutputs,
}

impl Worker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, outputs: CurrentOutputs::default() }
    }

    /// Whether Envoy must have validated the caller's certificate on this handshake.
    pub(crate) const fn requires_validated(&self) -> bool {
        self.policy.requires_validated()
    }

    /// Returns the reason why the current request or connection is denied, or `None` if it is allowed.
    pub(crate) fn decide(&self, attributes: impl Attributes) -> Option<DenyReason> {
        self.record(&WORKER.with_borrow_mut(|worker| {
            worker.decide(&self.policy, Mode::Enforce, &CurrentConnection, attributes, host::seconds)
        }))
    }

    /// Denies the current request or connection for a reason that no policy is evaluated for.
    pub(crate) fn deny(&self, reason: DenyReason, attributes: impl Attributes) {
        self.record(&WORKER.with_borrow_mut(|worker| worker.deny(reason, attributes, host::seconds)));
    }

    fn record(&self, ruling: &Ruling<'_>) -> Option<DenyReason> {
        ruling.record(&mut &self.outputs);
        ruling.denial()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        WORKER.with_borrow_mut(|worker| worker.forget(self.policy.id()));
    }
}

/// Makes the facts about a caller last for the connection.
pub(crate) fn declare_filter_state() {
    for fact in Fact::OF_CALLER {
        host::keep_filter_state_for_connection(fact.name());
    }
}

//! The worker of the core with the outputs of Envoy, for requests and connections.

use std::cell::RefCell;
use std::sync::Arc;

use spiffe_authz::decision::DenyReason;
use spiffe_authz::host::RequestAttributes;
use spiffe_authz::policy::{Layer, Mode, PolicySet};
use spiffe_authz::worker::{self, Fact, Lease, Revocations, Ruling, Span};

use crate::attributes::CurrentConnection;
use crate::host;
use crate::outputs::CurrentOutputs;

thread_local! {
    static REVOCATIONS: Arc<Revocations> = Arc::default();
    /// The worker of this VM. Envoy has a VM for each worker thread. A new configuration uses the cache of the previous one.
    static WORKER: RefCell<worker::Worker> = REVOCATIONS.with(|revocations| RefCell::new(worker::Worker::new(Arc::clone(revocations))));
}

/// A configuration, with its outputs.
pub(crate) struct Worker {
    policies: PolicySet,
    outputs: CurrentOutputs,
}

impl Worker {
    pub(crate) fn new(policies: PolicySet, layer: Layer) -> Self {
        REVOCATIONS.with(|revocations| revocations.add(&policies));
        let outputs = CurrentOutputs::new(layer, Span::of_caller(&policies));
        Self { policies: policies.on(layer), outputs }
    }

    /// Returns `true` if Envoy must have validated the client's certificate in this handshake.
    pub(crate) const fn requires_validated(&self) -> bool {
        self.policies.identity().source.requires_validated()
    }

    /// Returns the reason why the current request is denied, or `None` if it is allowed.
    pub(crate) fn decide(&self, attributes: impl RequestAttributes) -> Option<DenyReason> {
        if self.policies.is_delegated() && self.is_decided() {
            return None;
        }
        self.decide_for_now(attributes).err()
    }

    /// Returns `true` if a filter before this one has shown its decision on the current request, which it did not deny.
    fn is_decided(&self) -> bool {
        self.outputs.shown(Fact::of_every_decision(self.policies.outputs().decision)).is_some()
    }

    /// Returns the period in which the current connection is allowed, or the reason why it is denied.
    pub(crate) fn decide_for_now(&self, attributes: impl RequestAttributes) -> Result<Lease, DenyReason> {
        self.record(&WORKER.with_borrow_mut(|worker| {
            worker.decide(&self.policies, Mode::Enforce, &CurrentConnection, attributes, host::now)
        }))
    }

    /// Returns `true` if an earlier decision on the current connection is still valid.
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        WORKER.with_borrow(|worker| worker.holds(lease, host::now))
    }

    /// Denies the current request or connection without evaluating a policy.
    pub(crate) fn deny(&self, reason: DenyReason, attributes: impl RequestAttributes) {
        // The caller of this function denies, so the reason is known.
        let _: Result<Lease, DenyReason> = self.record(
            &WORKER.with_borrow_mut(|worker| worker.deny(self.policies.outputs(), reason, attributes, host::now)),
        );
    }

    fn record(&self, ruling: &Ruling<'_>) -> Result<Lease, DenyReason> {
        ruling.record(&mut &self.outputs);
        ruling.denial().map_or(Ok(ruling.lease()), Err)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        REVOCATIONS.with(|revocations| revocations.remove(self.policies.id()));
        WORKER.with_borrow_mut(|worker| worker.forget(self.policies.id()));
    }
}

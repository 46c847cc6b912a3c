//! The core's worker with the outputs of Envoy: the same for requests and connections.

use std::cell::RefCell;
use std::sync::Arc;

use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::{Layer, Mode, Policy};
use spiffe_authz::request::Attributes;
use spiffe_authz::revocation::Revocations;
use spiffe_authz::worker::{self, Lease, Ruling};

use crate::attributes::CurrentConnection;
use crate::host;
use crate::outputs::CurrentOutputs;

thread_local! {
    static REVOCATIONS: Arc<Revocations> = Arc::default();
    /// The worker of this VM, of which Envoy has one for each worker thread. A new configuration finds what the previous one has
    /// cached.
    static WORKER: RefCell<worker::Worker> = REVOCATIONS.with(|revocations| RefCell::new(worker::Worker::new(Arc::clone(revocations))));
}

/// A configuration, with its outputs.
pub(crate) struct Worker {
    policy: Policy,
    outputs: CurrentOutputs,
}

impl Worker {
    pub(crate) fn new(policy: Policy, layer: Layer) -> Self {
        REVOCATIONS.with(|revocations| revocations.add(&policy));
        let outputs = CurrentOutputs::new(layer, policy.identity_source().is_of_connection());
        Self { policy: policy.on(layer), outputs }
    }

    /// Whether Envoy must have validated the caller's certificate on this handshake.
    pub(crate) const fn requires_validated(&self) -> bool {
        self.policy.requires_validated()
    }

    /// Returns the reason why the current request is denied, or `None` if it is allowed.
    pub(crate) fn decide(&self, attributes: impl Attributes) -> Option<DenyReason> {
        self.decide_for_now(attributes).err()
    }

    /// Returns how long the current connection is allowed, or the reason why it is denied.
    pub(crate) fn decide_for_now(&self, attributes: impl Attributes) -> Result<Lease, DenyReason> {
        self.record(&WORKER.with_borrow_mut(|worker| {
            worker.decide(&self.policy, Mode::Enforce, &CurrentConnection, attributes, host::now)
        }))
    }

    /// Returns `true` if an earlier decision on the current connection holds now.
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        WORKER.with_borrow(|worker| worker.holds(lease, host::now))
    }

    /// Denies the current request or connection for a reason that no policy is evaluated for.
    pub(crate) fn deny(&self, reason: DenyReason, attributes: impl Attributes) {
        // The caller of this function denies, so the reason is known.
        let _: Result<Lease, DenyReason> =
            self.record(&WORKER.with_borrow_mut(|worker| worker.deny(reason, attributes, host::now)));
    }

    fn record(&self, ruling: &Ruling<'_>) -> Result<Lease, DenyReason> {
        ruling.record(&mut &self.outputs);
        ruling.denial().map_or(Ok(ruling.lease()), Err)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        REVOCATIONS.with(|revocations| revocations.remove(self.policy.id()));
        WORKER.with_borrow_mut(|worker| worker.forget(self.policy.id()));
    }
}

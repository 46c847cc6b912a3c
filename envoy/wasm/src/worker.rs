//! The core's worker with the outputs of Envoy: the same for requests and connections.

use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::{Mode, Policy};
use spiffe_authz::request::Attributes;
use spiffe_authz::worker::{self, Fact, Ruling};

use crate::attributes::CurrentConnection;
use crate::host;
use crate::outputs::CurrentOutputs;

/// What the requests or connections of one configuration share on one worker.
pub(crate) struct Worker {
    worker: worker::Worker,
    outputs: CurrentOutputs,
}

impl Worker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { worker: worker::Worker::new(policy), outputs: CurrentOutputs::default() }
    }

    /// Whether Envoy must have validated the caller's certificate on this very handshake.
    pub(crate) fn requires_validated(&self) -> bool {
        self.worker.requires_validated()
    }

    /// Why what is being served is denied; `None` lets it pass.
    pub(crate) fn decide(&self, attributes: impl Attributes) -> Option<DenyReason> {
        self.record(&self.worker.decide(Mode::Enforce, &CurrentConnection, attributes, host::seconds))
    }

    /// Denies what is being served for a reason that no policy was asked for.
    pub(crate) fn deny(&self, reason: DenyReason, attributes: impl Attributes) {
        self.record(&self.worker.deny(reason, attributes, host::seconds));
    }

    fn record(&self, ruling: &Ruling<'_>) -> Option<DenyReason> {
        ruling.record(&mut &self.outputs);
        ruling.denial()
    }
}

/// Makes what is known of a caller last for the connection.
pub(crate) fn declare_filter_state() {
    for fact in Fact::OF_CALLER {
        host::keep_filter_state_for_connection(fact.name());
    }
}

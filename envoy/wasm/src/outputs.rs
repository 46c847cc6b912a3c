//! What operators and later filters see: filter state, counters, and Envoy's log.

use std::cell::RefCell;

use spiffe_authz::policy::Layer;
use spiffe_authz::worker::{Count, Fact, Outputs};

use crate::counters::Counters;
use crate::host::{self, Span};

/// The outputs of the request that is being served.
pub(crate) struct CurrentOutputs {
    layer: Layer,
    counters: RefCell<Counters>,
}

impl CurrentOutputs {
    /// Outputs of requests or of connections. `caller_lasts`: the caller of a connection is the caller of each of its requests.
    pub(crate) fn new(layer: Layer, caller_lasts: bool) -> Self {
        for fact in Fact::ALL {
            let lasts = layer == Layer::Tcp || (caller_lasts && Fact::OF_CALLER.contains(&fact));
            host::declare_filter_state(fact.name(layer), if lasts { Span::Connection } else { Span::Request });
        }
        Self { layer, counters: RefCell::default() }
    }
}

impl Outputs for &CurrentOutputs {
    /// Filter state lasts for the connection, if it was declared so. One read costs less than writing every fact again.
    fn shows_peer(&self, spiffe_id: &str) -> bool {
        host::property(Fact::Peer.name(self.layer).as_bytes())
            .is_ok_and(|shown| shown.as_deref() == Some(spiffe_id.as_bytes()))
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)>) {
        for (fact, value) in facts {
            host::set_filter_state(fact.name(self.layer), value.as_bytes());
        }
    }

    fn count(&mut self, count: &Count<'_>) {
        self.counters.borrow_mut().count(count);
    }

    fn log(&mut self, line: &str) {
        log::warn!("{line}");
    }
}

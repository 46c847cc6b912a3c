//! The outputs of the filter: filter state, counters, and Envoy's log.

use std::cell::RefCell;

use spiffe_authz::policy::Layer;
use spiffe_authz::worker::{Count, Fact, Outputs};

use crate::counters::Counters;
use crate::host::{self, Span};

/// The outputs of the current request or connection.
pub(crate) struct CurrentOutputs {
    layer: Layer,
    counters: RefCell<Counters>,
}

impl CurrentOutputs {
    /// Declares the filter state of a layer. `caller_lasts` is `true` if all requests of a connection have the same caller.
    pub(crate) fn new(layer: Layer, caller_lasts: bool) -> Self {
        for fact in Fact::ALL.iter().copied() {
            let lasts = layer == Layer::Tcp || (caller_lasts && Fact::OF_CALLER.contains(&fact));
            host::declare_filter_state(fact.name(layer), if lasts { Span::Connection } else { Span::Request });
        }
        Self { layer, counters: RefCell::default() }
    }
}

impl Outputs for &CurrentOutputs {
    /// Reads the filter state, which can last for the connection. A read costs less than writing every fact again.
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

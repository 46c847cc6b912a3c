//! The outputs of the filter: filter state, counters, and Envoy's log.

use std::cell::RefCell;

use spiffe_authz::policy::Layer;
use spiffe_authz::worker::{Count, Fact, Outputs, Span};

use crate::counters::Counters;
use crate::host;

/// The outputs of the current request or connection.
pub(crate) struct CurrentOutputs {
    layer: Layer,
    counters: RefCell<Counters>,
}

impl CurrentOutputs {
    /// Declares the filter state of a layer. `of_caller` is the life of the facts about the caller.
    pub(crate) fn new(layer: Layer, of_caller: Span) -> Self {
        for fact in Fact::ALL.iter().copied() {
            let span = match layer {
                Layer::Tcp => Span::Connection,
                Layer::Http if Fact::OF_CALLER.contains(&fact) => of_caller,
                Layer::Http => Span::Request,
            };
            host::declare_filter_state(fact.name(layer), span);
        }
        Self { layer, counters: RefCell::default() }
    }

    /// Returns the value of a fact that this filter or one before it has shown.
    pub(crate) fn shown(&self, fact: Fact) -> Option<Vec<u8>> {
        host::property(fact.name(self.layer).as_bytes()).ok().flatten()
    }
}

impl Outputs for &CurrentOutputs {
    const FACTS_ARE_STATE: bool = true;

    /// Reads the filter state, which can last for the connection. A read costs less than writing every fact again.
    fn shows_peer(&self, spiffe_id: &str) -> bool {
        self.shown(Fact::Peer).as_deref() == Some(spiffe_id.as_bytes())
    }

    fn set_state(&mut self, fact: Fact, value: &str) {
        host::set_filter_state(fact.name(self.layer), value.as_bytes());
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)>) {
        for (fact, value) in facts {
            host::set_filter_state(fact.name(self.layer), value.as_bytes());
        }
    }

    fn count_allowed(&mut self) {
        self.counters.borrow_mut().count_allowed();
    }

    fn count(&mut self, count: &Count<'_>) {
        self.counters.borrow_mut().count(count);
    }

    fn log(&mut self, line: &str) {
        log::warn!("{line}");
    }
}

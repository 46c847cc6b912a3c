//! What operators and later filters see: filter state, counters, and Envoy's log.

use std::cell::RefCell;

use spiffe_authz::worker::{Count, Fact, Outputs};

use crate::counters::Counters;
use crate::host;

/// The outputs of the request that is being served.
#[derive(Default)]
pub(crate) struct CurrentOutputs {
    counters: RefCell<Counters>,
}

impl Outputs for &CurrentOutputs {
    /// Filter state lasts for the connection, if it was declared so. One read costs less than writing every fact again.
    fn shows_peer(&self, spiffe_id: &str) -> bool {
        host::property(Fact::Peer.name().as_bytes()).is_ok_and(|shown| shown.as_deref() == Some(spiffe_id.as_bytes()))
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)>) {
        for (fact, value) in facts {
            host::set_filter_state(fact.name(), value.as_bytes());
        }
    }

    fn count(&mut self, count: &Count<'_>) {
        self.counters.borrow_mut().count(count);
    }

    fn log(&mut self, line: &str) {
        log::warn!("{line}");
    }
}

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
    /// By `host::keep_filter_state_for_connection`.
    const CALLER_IS_KEPT: bool = true;

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

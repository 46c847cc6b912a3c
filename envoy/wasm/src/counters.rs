//! The counters: of allowed requests or connections, and by mode, verdict, reason and policy.

use rustc_hash::FxHashMap;
use spiffe_authz::worker::{Count, CountKey, WASM_ALLOWED_COUNTER, WASM_COUNTER};

use crate::host;

/// The counters that are defined. A counter is defined on its first increment.
#[derive(Default)]
pub(crate) struct Counters {
    allowed: Option<u32>,
    ids: FxHashMap<CountKey, u32>,
}

impl Counters {
    pub(crate) fn count_allowed(&mut self) {
        self.allowed = self.allowed.or_else(|| host::counter(WASM_ALLOWED_COUNTER).ok());
        if let Some(id) = self.allowed {
            host::increment(id);
        }
    }

    pub(crate) fn count(&mut self, count: &Count<'_>) {
        let key = count.key();
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let Ok(id) = host::counter(&count.name(WASM_COUNTER)) else { return };
                self.ids.insert(key, id);
                id
            }
        };
        host::increment(id);
    }
}

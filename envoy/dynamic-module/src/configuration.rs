//! A configuration, compiled, with what each worker remembers under it.

use std::sync::{Arc, Mutex, PoisonError};

use spiffe_authz::diagnostic::{Diagnostic, refusal};
use spiffe_authz::policy::Policy;
use spiffe_authz::worker::Worker;

use crate::abi::{self, Level};

/// A worker has a number from 0; one beyond these shares.
const WORKERS: usize = 64;

/// One for each worker thread of Envoy. A worker waits for no other but where there are more of them than places.
pub(crate) struct Workers([Mutex<Option<Box<Worker>>>; WORKERS]);

impl Workers {
    pub(crate) const fn new() -> Self {
        Self([const { Mutex::new(None) }; WORKERS])
    }

    /// Runs `job` with the worker of this number under `policy`.
    pub(crate) fn with<T>(&self, number: u32, policy: &Arc<Policy>, job: impl FnOnce(&Worker) -> T) -> Option<T> {
        let place = usize::try_from(number).ok()?.checked_rem(WORKERS)?;
        // What a panic has left of a worker is no half-done decision: it remembers whole callers only.
        let mut worker = self.0.get(place)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(job(worker.get_or_insert_with(|| Box::new(Worker::new(Arc::clone(policy))))))
    }
}

/// Whether Envoy's configuration names this module's filter; logged, if not.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    let ours = name == crate::NAME.as_bytes();
    if !ours {
        let name = String::from_utf8_lossy(name);
        abi::log(Level::Error, &format!("spiffe-authz: there is no filter `{name}` here (`{}`)", crate::NAME));
    }
    ours
}

/// What was compiled, or `None` with every diagnostic in Envoy's log.
pub(crate) fn accepted<T>(compiled: Result<T, Vec<Diagnostic>>) -> Option<T> {
    compiled.map_err(|diagnostics| refusal(&diagnostics).for_each(|line| abi::log(Level::Error, &line))).ok()
}

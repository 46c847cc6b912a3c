//! A compiled configuration, and the workers that all configurations share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use spiffe_authz::diagnostic::{Diagnostic, rejection};
use spiffe_authz::policy::PolicySet;
use spiffe_authz::worker::{Revocations, Worker};

use crate::abi::{self, Level};

/// The maximum number of workers. Worker threads with a higher number share a worker.
const WORKERS: usize = 64;

/// The policy set of a filter or of a route, and the workers.
pub(crate) struct Configuration {
    policies: PolicySet,
    workers: Arc<Workers>,
}

impl Configuration {
    /// Creates the configuration of a filter. The earlier configurations obey its revocations.
    pub(crate) fn of_filter(policies: PolicySet) -> Self {
        let configuration = Self::of_route(policies);
        configuration.workers.revocations.add(&configuration.policies);
        configuration
    }

    /// Creates the configuration of a route. Envoy uses a new one for the next request of every connection.
    pub(crate) fn of_route(policies: PolicySet) -> Self {
        Self { policies, workers: Workers::shared() }
    }

    /// Runs `job` with the worker that has this number.
    pub(crate) fn with<'c, T>(&'c self, number: u32, job: impl FnOnce(&mut Worker, &'c PolicySet) -> T) -> Option<T> {
        let place = usize::try_from(number).ok()?.checked_rem(WORKERS)?;
        let Workers { revocations, places } = &*self.workers;
        let mut worker = lock(places.get(place)?);
        let worker = worker.get_or_insert_with(|| Box::new(Worker::new(Arc::clone(revocations))));
        Some(job(worker, &self.policies))
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        self.workers.revocations.remove(self.policies.id());
        for worker in &self.workers.places {
            if let Some(worker) = lock(worker).as_mut() {
                worker.forget(self.policies.id());
            }
        }
        let mut shared = lock(&SHARED);
        if Arc::strong_count(&self.workers) == 1 {
            // Envoy can unload the module after this, and does not drop statics.
            *shared = Weak::new();
        }
    }
}

/// A worker for each worker thread of Envoy. A thread waits for a different one only if there are more than `WORKERS`.
struct Workers {
    revocations: Arc<Revocations>,
    places: [Mutex<Option<Box<Worker>>>; WORKERS],
}

/// The workers of all configurations: a new configuration uses the cache of the previous one. They are not thread-local, so that
/// they are dropped with the last configuration.
static SHARED: Mutex<Weak<Workers>> = Mutex::new(Weak::new());

impl Workers {
    fn shared() -> Arc<Self> {
        let mut shared = lock(&SHARED);
        shared.upgrade().unwrap_or_else(|| {
            let places = [const { Mutex::new(None) }; WORKERS];
            let workers = Arc::new(Self { revocations: Arc::default(), places });
            *shared = Arc::downgrade(&workers);
            workers
        })
    }
}

/// Locks a mutex after a panic, too, because the caches of a worker contain complete entries only.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns `true` if Envoy's configuration names the filter of this module. Otherwise writes an error to Envoy's log.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    let ours = name == crate::NAME.as_bytes();
    if !ours {
        let name = String::from_utf8_lossy(name);
        abi::log(Level::Error, &format!("spiffe-authz: unknown filter `{name}` (use `{}`)", crate::NAME));
    }
    ours
}

/// Returns the compiled value, or `None` if there are errors, which are written to Envoy's log.
pub(crate) fn accepted<T>(compiled: Result<T, Vec<Diagnostic>>) -> Option<T> {
    compiled.map_err(|diagnostics| rejection(&diagnostics).for_each(|line| abi::log(Level::Error, &line))).ok()
}

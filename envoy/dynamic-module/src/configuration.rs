//! A configuration, compiled, and what the worker threads keep for every configuration.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use spiffe_authz::diagnostic::{Diagnostic, refusal};
use spiffe_authz::policy::Policy;
use spiffe_authz::revocation::Revocations;
use spiffe_authz::worker::Worker;

use crate::abi::{self, Level};

/// A worker thread has a number from 0. Those beyond this number share.
const WORKERS: usize = 64;

/// The policy set of a filter or of a route, with the workers that decide under it.
pub(crate) struct Configuration {
    policy: Policy,
    workers: Arc<Workers>,
}

impl Configuration {
    /// The configuration of a filter, whose revocations the configurations before it obey from now on.
    pub(crate) fn of_filter(policy: Policy) -> Self {
        let configuration = Self::of_route(policy);
        configuration.workers.revocations.add(&configuration.policy);
        configuration
    }

    /// The configuration of a route. Envoy uses a new one for the next request of every connection.
    pub(crate) fn of_route(policy: Policy) -> Self {
        Self { policy, workers: Workers::shared() }
    }

    /// Runs `job` with the worker of this number.
    pub(crate) fn with<'c, T>(&'c self, number: u32, job: impl FnOnce(&mut Worker, &'c Policy) -> T) -> Option<T> {
        let place = usize::try_from(number).ok()?.checked_rem(WORKERS)?;
        let Workers { revocations, places } = &*self.workers;
        let mut worker = lock(places.get(place)?);
        let worker = worker.get_or_insert_with(|| Box::new(Worker::new(Arc::clone(revocations))));
        Some(job(worker, &self.policy))
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        self.workers.revocations.remove(self.policy.id());
        for worker in &self.workers.places {
            if let Some(worker) = lock(worker).as_mut() {
                worker.forget(self.policy.id());
            }
        }
        let mut shared = lock(&SHARED);
        if Arc::strong_count(&self.workers) == 1 {
            // The module may be unloaded next, and statics are not dropped then.
            *shared = Weak::new();
        }
    }
}

/// One worker for each worker thread of Envoy. No thread waits for another one unless there are more than `WORKERS`.
struct Workers {
    revocations: Arc<Revocations>,
    places: [Mutex<Option<Box<Worker>>>; WORKERS],
}

/// The workers of the configurations that exist: a new configuration finds what the previous one has cached. They are not
/// thread-local, so that they end with the last configuration.
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

/// A panic leaves no half-made decision in a worker: its caches hold whole entries only.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

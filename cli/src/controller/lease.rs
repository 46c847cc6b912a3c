//! The Lease by which replicas choose the one that acts, as Kubernetes' own controllers do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::log;

const NAME: &str = "spiffe-authz-controller";
/// The time after which another replica can take an expired lease.
const DURATION: Duration = Duration::from_secs(15);
/// The time after a renewal began in which this replica acts. The difference is for clocks and writes under way.
const DEADLINE: Duration = Duration::from_secs(10);
/// The time between two renewals, or attempts.
const INTERVAL: Duration = Duration::from_secs(2);
/// The time for one attempt.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lease of this replica.
pub(super) struct Lease {
    api: Api<Object>,
    replica: String,
    /// The end of the time in which this replica acts.
    held_until: Mutex<Option<Instant>>,
    /// Whether the API server has answered.
    is_known: AtomicBool,
    changed: Arc<Notify>,
}

impl Lease {
    pub(super) fn new(client: Client, namespace: &str, replica: &str, changed: Arc<Notify>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            replica: replica.to_owned(),
            held_until: Mutex::new(None),
            is_known: AtomicBool::new(false),
            changed,
        }
    }

    /// Returns `true` if this replica acts.
    pub(super) fn is_held(&self) -> bool {
        self.held_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|end| Instant::now() < end)
    }

    /// Returns `true` if it is known which replica acts.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Renews the lease, or takes it when it is free.
    pub(super) async fn hold(&self) {
        let mut seen = None;
        let mut was_held = false;
        loop {
            // The other replicas count from the write, which can be long before the response.
            let begin = Instant::now();
            let taken = timeout(PATIENCE, self.take(&mut seen)).await;
            match taken.unwrap_or_else(|_| Err(no_answer())) {
                Ok(holds) => {
                    self.is_known.store(true, Ordering::Relaxed);
                    self.set(holds.then(|| begin + DEADLINE));
                }
                Err(error) => log::error("the lease cannot be read or written", &[("error", &error.to_string())]),
            }
            let is_held = self.is_held();
            if is_held != was_held {
                let message = if is_held { "this replica acts" } else { "this replica no longer acts" };
                log::info(message, &[("replica", &self.replica)]);
                self.changed.notify_one();
                was_held = is_held;
            }
            sleep(INTERVAL).await;
        }
    }

    fn set(&self, until: Option<Instant>) {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Takes or renews the lease. Returns `true` if this replica has it. `seen` is the last version of another holder's
    /// lease, and when this replica saw it first, because the clocks of machines differ.
    async fn take(&self, seen: &mut Option<(Option<String>, Instant)>) -> kube::Result<bool> {
        let Some(mut object) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let object = Object { metadata, spec: Some(self.spec(None)) };
            return written(self.api.create(&PostParams::default(), &object).await);
        };
        let holder = object.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.replica {
            let version = object.metadata.resource_version.clone();
            match seen {
                Some((last, since)) if *last == version => {
                    if since.elapsed() < DURATION {
                        return Ok(false);
                    }
                }
                _ => {
                    *seen = Some((version, Instant::now()));
                    return Ok(false);
                }
            }
        }
        object.spec = Some(self.spec(object.spec.as_ref()));
        // The version in the object makes the write fail if another replica was faster.
        written(self.api.replace(NAME, &PostParams::default(), &object).await)
    }

    /// Returns the specification with this replica as the holder.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let own = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.replica));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            acquire_time: own.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
            holder_identity: Some(self.replica.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(if own.is_some() { transitions } else { transitions.saturating_add(1) }),
            renew_time: now,
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that another replica need not wait until it expires.
    pub(super) async fn release(&self) {
        if !self.is_held() {
            return;
        }
        self.set(None);
        let result = async {
            let mut object = self.api.get(NAME).await?;
            if let Some(spec) = &mut object.spec
                && spec.holder_identity.as_deref() == Some(&self.replica)
            {
                spec.holder_identity = None;
                self.api.replace(NAME, &PostParams::default(), &object).await?;
            }
            Ok::<_, kube::Error>(())
        };
        let result = timeout(PATIENCE, result).await;
        if let Err(error) = result.unwrap_or_else(|_| Err(no_answer())) {
            log::error("the lease cannot be given back", &[("error", &error.to_string())]);
        }
    }
}

fn no_answer() -> kube::Error {
    kube::Error::Service("the API server does not answer".into())
}

/// Returns whether a write succeeded, or another replica was faster.
fn written(result: kube::Result<Object>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

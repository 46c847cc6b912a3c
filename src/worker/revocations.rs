//! The revocations of all configurations that a proxy has loaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::Revoked;
use crate::policy::{PolicySet, PolicySetId};

/// The revocations of the configurations that a proxy has loaded.
///
/// While Envoy drains an open connection, it keeps the configuration that the connection was opened under. A configuration
/// therefore also obeys the revocations of later ones with the same trust domain, so that a revocation takes effect at once.
#[derive(Debug, Default)]
pub struct Revocations {
    /// One more than the number of the latest policy set with revocations, or 0 if there is none.
    latest: AtomicU64,
    lists: Mutex<Vec<List>>,
}

#[derive(Debug)]
struct List {
    policies: PolicySetId,
    trust_domain: Box<str>,
    revoked: Arc<Revoked>,
}

impl Revocations {
    /// Adds the revocations of a policy set, before its first use.
    pub fn add(&self, policies: &PolicySet) {
        if policies.identity().revoked.is_empty() {
            return;
        }
        let mut lists = self.lists();
        let trust_domain = policies.identity().trust_domains.local.clone();
        lists.push(List { policies: policies.id(), trust_domain, revoked: Arc::clone(&policies.identity().revoked) });
        self.set_latest(&lists);
    }

    /// Removes the revocations of a policy set that is no longer used.
    pub fn remove(&self, policies: PolicySetId) {
        let mut lists = self.lists();
        lists.retain(|list| list.policies != policies);
        self.set_latest(&lists);
    }

    /// Returns a value that changes if a policy set with revocations is added.
    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Returns `true` if `revoked` returns `true` for the revocations of this policy set or of a later one.
    pub(super) fn any(&self, policies: &PolicySet, revoked: impl Fn(&Revoked) -> bool) -> bool {
        if revoked(&policies.identity().revoked) {
            return true;
        }
        if self.latest() <= policies.id().number().saturating_add(1) {
            return false;
        }
        let trust_domain = &policies.identity().trust_domains.local;
        let later = |list: &List| list.policies > policies.id() && list.trust_domain == *trust_domain;
        self.lists().iter().any(|list| later(list) && revoked(&list.revoked))
    }

    fn lists(&self) -> MutexGuard<'_, Vec<List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_latest(&self, lists: &[List]) {
        let latest = lists.iter().map(|list| list.policies.number().saturating_add(1)).max();
        self.latest.store(latest.unwrap_or(0), Ordering::Release);
    }
}

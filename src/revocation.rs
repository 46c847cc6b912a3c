//! Identities that are no longer accepted, although their certificates are still valid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashSet;

use crate::certificate::Svid;
use crate::policy::{Policy, PolicyId};
use crate::spiffe_id::SpiffeId;

/// The field `identity.revoked` of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    pub(crate) spiffe_ids: FxHashSet<Box<str>>,
    pub(crate) trust_domains: FxHashSet<Box<str>>,
    /// As [`Svid::serial_number`] returns them.
    pub(crate) serial_numbers: FxHashSet<Box<[u8]>>,
    pub(crate) authority_key_ids: FxHashSet<Box<[u8]>>,
}

impl Revoked {
    /// Returns `true` if nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { spiffe_ids, trust_domains, serial_numbers, authority_key_ids } = self;
        spiffe_ids.is_empty() && trust_domains.is_empty() && serial_numbers.is_empty() && authority_key_ids.is_empty()
    }

    /// Returns `true` if this ID, or its trust domain, is revoked.
    #[must_use]
    pub fn has_id(&self, spiffe_id: &str, trust_domain: &str) -> bool {
        self.spiffe_ids.contains(spiffe_id) || self.trust_domains.contains(trust_domain)
    }

    /// Returns `true` if this certificate is revoked: by its ID, its serial number or its authority. If any authority is revoked,
    /// a certificate that does not name its authority counts as revoked.
    #[must_use]
    pub fn has_svid(&self, svid: &Svid) -> bool {
        let has_id = || {
            SpiffeId::parse(svid.spiffe_id().as_bytes())
                .map_or(true, |id| self.has_id(svid.spiffe_id(), id.trust_domain().as_str()))
        };
        self.serial_numbers.contains(svid.serial_number())
            || (!self.authority_key_ids.is_empty()
                && svid.authority_key_id().is_none_or(|key| self.authority_key_ids.contains(key)))
            || (!(self.spiffe_ids.is_empty() && self.trust_domains.is_empty()) && has_id())
    }
}

/// The revocations of the configurations that a proxy has loaded.
///
/// A connection that is open keeps the configuration that it was opened under, for as long as Envoy drains it. So that a
/// revocation acts on it at once, a configuration also obeys the revocations of the later ones with the same trust domain.
#[derive(Debug, Default)]
pub struct Revocations {
    /// One more than the number of the latest configuration that revokes anything; 0 if there is none.
    latest: AtomicU64,
    lists: Mutex<Vec<List>>,
}

#[derive(Debug)]
struct List {
    policy: PolicyId,
    trust_domain: Box<str>,
    revoked: Arc<Revoked>,
}

impl Revocations {
    /// Adds the revocations of a configuration that is about to be used.
    pub fn add(&self, policy: &Policy) {
        if policy.revoked().is_empty() {
            return;
        }
        let mut lists = self.lists();
        let trust_domain = policy.realm().trust_domain.clone();
        lists.push(List { policy: policy.id(), trust_domain, revoked: Arc::clone(policy.revoked()) });
        self.set_latest(&lists);
    }

    /// Removes the revocations of a configuration that is no longer used.
    pub fn remove(&self, policy: PolicyId) {
        let mut lists = self.lists();
        lists.retain(|list| list.policy != policy);
        self.set_latest(&lists);
    }

    /// A value that changes whenever a configuration is added that revokes anything.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Returns `true` if `revoked` returns `true` for the revocations of this configuration or of a later one.
    pub(crate) fn any(&self, policy: &Policy, revoked: impl Fn(&Revoked) -> bool) -> bool {
        if revoked(policy.revoked()) {
            return true;
        }
        if self.latest() <= policy.id().number().saturating_add(1) {
            return false;
        }
        let trust_domain = &policy.realm().trust_domain;
        let later = |list: &List| list.policy > policy.id() && list.trust_domain == *trust_domain;
        self.lists().iter().any(|list| later(list) && revoked(&list.revoked))
    }

    fn lists(&self) -> MutexGuard<'_, Vec<List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_latest(&self, lists: &[List]) {
        let latest = lists.iter().map(|list| list.policy.number().saturating_add(1)).max();
        self.latest.store(latest.unwrap_or(0), Ordering::Release);
    }
}

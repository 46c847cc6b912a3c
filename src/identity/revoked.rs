//! Identities that are no longer accepted, although their certificates are still valid.

use rustc_hash::FxHashSet;

use crate::certificate::Svid;
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
    pub fn has_id(&self, id: SpiffeId<'_>) -> bool {
        self.spiffe_ids.contains(id.as_str()) || self.trust_domains.contains(id.trust_domain().as_str())
    }

    /// Returns `true` if this certificate is revoked: by its ID, its serial number or its authority. If any authority is revoked,
    /// a certificate that does not name its authority counts as revoked.
    #[must_use]
    pub fn has_svid(&self, svid: &Svid) -> bool {
        self.serial_numbers.contains(svid.serial_number())
            || (!self.authority_key_ids.is_empty()
                && svid.authority_key_id().is_none_or(|key| self.authority_key_ids.contains(key)))
            || self.has_id(svid.spiffe_id().borrow())
    }
}

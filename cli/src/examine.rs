//! Checks of certificates and bundles that `doctor` and `secret` share.

pub(crate) mod own_certificate;
pub(crate) mod validation;

use crate::report::{FindingId, Place};

/// The use of a certificate or a bundle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage<'u> {
    /// The listeners and clusters that use it.
    pub(crate) places: &'u [Place],
    /// The finding that explains why Envoy gets no newer one.
    pub(crate) stale: Option<FindingId>,
}

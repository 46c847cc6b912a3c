//! Checks of certificates and bundles that `doctor` and `secret` share.

pub(crate) mod own_certificate;
pub(crate) mod validation;

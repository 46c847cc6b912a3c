//! Istio's AuthorizationPolicy.

pub(crate) mod convert;

//! Istio's AuthorizationPolicy: reading resources, and conversion to policies of the document.

pub(crate) mod authorization_policy;
pub(crate) mod fields;
pub(crate) mod import;
pub(crate) mod remark;
pub(crate) mod resource;
pub(crate) mod rules;
pub(crate) mod scope;
pub(crate) mod target;
pub(crate) mod trust_domain_bundle;

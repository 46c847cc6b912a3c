//! spiffe-authz as a dynamic module of Envoy. The module translates between Envoy and the core.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

mod abi;
mod clock;
mod configuration;
mod hooks;
mod http;
mod network;
mod value;

/// The name of the filter, of the module, and of the namespace of its dynamic metadata.
const NAME: &str = "spiffe_authz";

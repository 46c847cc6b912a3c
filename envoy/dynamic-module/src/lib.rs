//! spiffe-authz as an Envoy dynamic module: translates between Envoy and the core, and decides nothing itself.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

mod abi;
mod configuration;
mod http;
mod network;
mod outputs;
mod state;

/// The name of the filter, and of the module.
const NAME: &str = "spiffe_authz";

//! spiffe-authz as a proxy-wasm filter: translates between Envoy and the core, and decides nothing itself.
//!
//! One module is both filters. Envoy tells which of the two a context is by what it calls: `http` answers for a
//! request, `tcp` for a connection.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod attributes;
mod counters;
mod exports;
mod header_map;
mod host;
mod http;
mod plugin;
mod tcp;
mod worker;

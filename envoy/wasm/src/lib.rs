//! spiffe-authz as a proxy-wasm filter. The module translates between Envoy and the core.
//!
//! One module contains both filters: `http` decides requests, and `tcp` decides connections. The root ID of a configuration selects
//! one of them.
#![expect(missing_docs, reason = "the SDK's macro writes the public entry point")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod attributes;
mod counters;
mod header_map;
mod host;
mod http;
mod node;
mod outputs;
mod plugin;
mod tcp;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(plugin::Plugin::default()));
}}

//! spiffe-authz as a proxy-wasm filter: translates between Envoy and the core, and decides nothing itself.
//!
//! One module is both filters: `http` answers for requests, `tcp` for connections. The root ID of a configuration tells which
//! of the two it is for.
#![expect(missing_docs, reason = "the SDK's macro writes the public entry point")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod attributes;
mod counters;
mod header_map;
mod host;
mod http;
mod outputs;
mod plugin;
mod tcp;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(plugin::Plugin::default()));
}}

//! The exports of the Wasm filter.

use std::collections::BTreeSet;

use anyhow::Result;
use spiffe_authz_integration::tools;
use wasmparser::{Parser, Payload};

/// Envoy calls every exported hook for each request. proxy-wasm has 28 hooks; the SDK exports them all.
#[test]
fn only_the_hooks_that_the_filter_has_are_exported() -> Result<()> {
    let module = std::fs::read(tools::path(tools::WASM)?)?;
    let mut exports = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ExportSection(section) = payload? {
            for export in section {
                exports.insert(export?.name);
            }
        }
    }
    let expected = [
        "_initialize",
        "memory",
        "proxy_abi_version_0_2_1",
        "proxy_on_configure",
        "proxy_on_context_create",
        "proxy_on_delete",
        "proxy_on_downstream_data",
        "proxy_on_memory_allocate",
        "proxy_on_new_connection",
        "proxy_on_request_body",
        "proxy_on_request_headers",
        "proxy_on_request_trailers",
        "proxy_on_tick",
        "proxy_on_upstream_data",
        "proxy_on_vm_start",
    ];
    assert_eq!(exports, expected.into());
    Ok(())
}

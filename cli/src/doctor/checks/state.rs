//! Whether Envoy keeps the connections of different callers apart in HBONE.

use serde_json::Value;

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::filter::resolve;
use crate::doctor::finding::{Check, Report};
use crate::doctor::route::tables;

/// The object with the caller's SPIFFE ID, which the outer listener shares with the inner one.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
/// The only factory whose objects take part in the key of Envoy's connection pools.
const HASHABLE: &str = "envoy.hashable_string";

/// Checks each filter, with or without ours among them: the outer listener of HBONE has none.
pub(super) fn check(way: &Way<'_>, envoy: &Envoy, report: &mut Report) {
    // The connection manager's message contains its HTTP filters and those of upgrades.
    let filters = way.chain.filters.iter().chain(way.http_filters.iter());
    let found = filters.filter_map(|filter| resolve(filter, &envoy.discovered));
    let routes = way.manager.iter().flat_map(|manager| tables(manager, envoy));
    for config in found.map(|filter| &filter.typed_config).chain(routes) {
        collect(config, way, report);
    }
}

/// Reports each entry of a `set_filter_state`, in this message or below.
fn collect(node: &Value, way: &Way<'_>, report: &mut Report) {
    match node {
        Value::Object(fields) => {
            if node["object_key"] == PEER_PRINCIPAL && is_shared(node) && node["factory_key"] != HASHABLE {
                // Without a factory, Envoy takes the one that is called like the object.
                let factory = node["factory_key"].as_str().unwrap_or(PEER_PRINCIPAL);
                let message = format!("`{PEER_PRINCIPAL}` is shared with upstream and made by `{factory}`");
                report.find(Check::PeerPrincipalNotHashable, &way.place, message);
            }
            fields.values().for_each(|below| collect(below, way, report));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, way, report)),
        _ => {}
    }
}

fn is_shared(state: &Value) -> bool {
    !matches!(&state["shared_with_upstream"], Value::Null) && state["shared_with_upstream"] != "NONE"
}

//! The separation of the connections of different callers in HBONE.

use serde_json::Value;

use super::Facts;
use crate::command::doctor::channel::{Channel, PEER_PRINCIPAL, State};
use crate::command::doctor::route_overrides::tables;
use crate::finding::FindingCode;
use crate::report::Report;

/// The factories of strings that take part in the key of Envoy's connection pools: Envoy's own, and that of Istio's proxies.
const HASHABLE: [&str; 2] = ["envoy.hashable_string", "istio.hashable_string"];

/// Checks each filter of a channel with mutual TLS. The HBONE listener does not have this project's filter.
pub(super) fn check(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    // The connection manager's message contains its HTTP filters and those of upgrades.
    let filters = channel.chain.filters.iter().chain(channel.http_filters.iter());
    let found = filters.filter_map(|filter| facts.catalog.resolve(filter)).map(|filter| &filter.typed_config);
    let named = found.filter(|config| config.text().contains(PEER_PRINCIPAL)).map(|config| config.value());
    let routes = channel.manager.iter().flat_map(|manager| tables(manager, facts.envoy));
    for config in named.chain(routes) {
        collect(&config, channel, report);
    }
}

/// Reports each entry of a `set_filter_state` in this message.
fn collect(node: &Value, channel: &Channel<'_>, report: &mut Report) {
    match node {
        Value::Object(fields) => {
            if node["object_key"] == PEER_PRINCIPAL
                && let Ok(state) = serde_json::from_value::<State>(node.clone())
                && state.is_shared()
                && !state.factory_key.as_deref().is_some_and(|factory| HASHABLE.contains(&factory))
            {
                // Without a factory, Envoy takes the one with the name of the object.
                let factory = state.factory_key.as_deref().unwrap_or(PEER_PRINCIPAL);
                let message = format!("`{PEER_PRINCIPAL}` is shared with upstream and made by `{factory}`");
                report.find(FindingCode::PeerPrincipalNotHashable, &channel.place, message);
            }
            fields.values().for_each(|below| collect(below, channel, report));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, channel, report)),
        _ => {}
    }
}

//! The tokens that policies use, which another filter verifies.

use serde_json::Value;
use spiffe_authz::filter_state::METADATA_PREFIX;

use super::Facts;
use super::filter::before;
use crate::claims::{self, JWT_AUTHN as NAMESPACE};
use crate::command::doctor::channel::Channel;
use crate::command::doctor::installation::Adapter;
use crate::document::Document;
use crate::envoy::message::Extension;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::Report;

const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
/// The key of the claims in it.
const KEY: &str = "payload";
const SET_FILTER_STATE: &str = "envoy.extensions.filters.http.set_filter_state.v3.Config";

/// Checks that the claims of tokens reach the filter, if policies use them.
pub(super) fn check(channel: &Channel<'_>, document: &Document, facts: &Facts<'_>, report: &mut Report) {
    let Some(before) = before(channel, facts.catalog) else { return };
    if !claims::FIELDS.into_iter().any(|field| document.policy.reads(field)) {
        return;
    }
    let enabled = before.iter().filter(|filter| !filter.disabled);
    let enabled: Vec<&Extension> = enabled.filter_map(|filter| facts.catalog.resolve(filter)).collect();
    let is_module = channel.installed().is_some_and(|installed| installed.adapter == Adapter::Module);
    let message = match enabled.iter().position(|filter| provides_claims(filter)) {
        None if enabled.iter().any(|filter| filter.typed_config.kind() == JWT_AUTHN) => {
            format!("no provider of `{NAMESPACE}` has `payload_in_metadata: {KEY}`")
        }
        None => format!("no `{NAMESPACE}` comes before the filter"),
        Some(provider) if is_module && !enabled.iter().skip(provider).any(|filter| keeps_claims(filter)) => {
            format!(
                "no HTTP filter set_filter_state between `{NAMESPACE}` and the dynamic module sets `{METADATA_PREFIX}{NAMESPACE}`"
            )
        }
        Some(_) => {
            report.fine(FindingLayer::Request, &channel.http_place, "the claims of tokens reach the filter");
            return;
        }
    };
    report.find(FindingCode::TokenMissing, &channel.http_place, message);
}

/// Returns `true` if a filter sets the metadata. Filters other than Envoy's own can do it, as in Lua.
fn provides_claims(filter: &Extension) -> bool {
    match filter.typed_config.kind().as_str() {
        JWT_AUTHN => {
            let config = filter.typed_config.value();
            let providers = config["providers"].as_object();
            providers.is_some_and(|providers| providers.values().any(|one| one["payload_in_metadata"] == KEY))
        }
        SET_FILTER_STATE => false,
        _ => filter.typed_config.text().contains(NAMESPACE),
    }
}

/// Returns `true` if a filter keeps the metadata in filter state, which the dynamic module reads.
fn keeps_claims(filter: &Extension) -> bool {
    let is_key = |state: &Value| {
        let key = state["object_key"].as_str().and_then(|key| key.strip_prefix(METADATA_PREFIX));
        key == Some(NAMESPACE)
    };
    filter.typed_config.kind() == SET_FILTER_STATE
        && filter.typed_config.value()["on_request_headers"].as_array().is_some_and(|states| states.iter().any(is_key))
}

//! The attributes of a request that reach the filter.

use serde_json::Value;

use super::{Facts, tokens};
use crate::command::doctor::channel::{Channel, Hbone};
use crate::command::doctor::installation::Adapter;
use crate::command::doctor::route_overrides::tables;
use crate::document::Document;
use crate::envoy::message::Extension;
use crate::envoy::snapshot::Envoy;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::Report;
use spiffe_authz::filter_state;
use spiffe_authz::identity::IdentitySource;
use spiffe_authz::policy::field::Field;

const HEADER_MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const XFCC: &str = "x-forwarded-client-cert";
const SET_FILTER_STATE: &str = "envoy.extensions.filters.network.set_filter_state.v3.Config";
const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
/// The extension that takes the remote address from `x-forwarded-for`.
const FORWARDED_FOR: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
/// The filter state with the direct remote address, and the field of `set_filter_state` that sets it.
const SOURCE_ADDRESS: (&str, &str) = ("on_new_connection", filter_state::SOURCE_IP);
/// The filter state with the caller's certificate for the dynamic module, and the field of `set_filter_state` that sets it.
const PEER_CERTIFICATE: (&str, &str) = ("on_downstream_tls_handshake", filter_state::PEER_CERTIFICATE);

pub(super) fn check(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    // Without a document, the fields that policies use are unknown.
    let Some(document) = channel.document() else { return };
    check_paths(channel, document, facts.envoy, report);
    tokens::check(channel, document, facts, report);
    check_remote_address(channel, document, report);
    check_principal(channel, report);
    check_xfcc(channel, document, report);
    if document.policy.reads(Field::IpBlocks) {
        check_state(channel, SOURCE_ADDRESS, "the caller's address", FindingCode::SourceAddressMissing, report);
    }
    let is_module = channel.installed().is_some_and(|installed| installed.adapter == Adapter::Module);
    let whose = match document.policy.identity().source {
        IdentitySource::Tls { .. } => Some("the caller's certificate"),
        IdentitySource::Xfcc { .. } => Some("the proxy's certificate"),
        IdentitySource::PeerPrincipal => None,
    };
    if let Some(whose) = whose.filter(|_| is_module && channel.tls.is_some()) {
        check_state(channel, PEER_CERTIFICATE, whose, FindingCode::PeerCertificateMissing, report);
    }
    if document.policy.reads(Field::ServerName) {
        if has_listener_filter(channel, TLS_INSPECTOR) {
            report.fine(FindingLayer::Request, &channel.place, "the listener reads the server name");
        } else {
            report.find(FindingCode::ServerNameMissing, &channel.place, "the listener has no tls_inspector");
        }
    }
}

fn has_listener_filter(channel: &Channel<'_>, kind: &str) -> bool {
    channel.listener.listener_filters.iter().any(|filter| filter.typed_config.kind() == kind)
}

/// Checks the source of the remote address. On TCP, only a PROXY protocol listener filter can change it. On HTTP, Envoy
/// prefers `x-forwarded-for` to the address in the PROXY protocol.
fn check_remote_address(channel: &Channel<'_>, document: &Document, report: &mut Report) {
    let Some(manager) =
        channel.manager.as_ref().filter(|_| channel.is_http && document.policy.reads(Field::RemoteIpBlocks))
    else {
        return;
    };
    let extensions = &manager.original_ip_detection_extensions;
    let is_safe =
        if extensions.is_empty() { manager.use_remote_address } else { extensions.iter().all(trusts_proxies_only) };
    if is_safe {
        report.fine(FindingLayer::Request, &channel.http_place, "clients cannot choose their remote address");
        return;
    }
    let message = match extensions.iter().find(|extension| !trusts_proxies_only(extension)) {
        Some(Extension { name, .. }) => {
            format!(
                "the extension `{name}` in `original_ip_detection_extensions` takes the remote address from a header"
            )
        }
        None => "`use_remote_address` is not set, so Envoy takes the remote address from `x-forwarded-for`".to_owned(),
    };
    report.find(FindingCode::RemoteAddressUntrusted, &channel.http_place, message);
}

/// Returns `true` if an extension takes the remote address from trusted proxies only. With `xff_num_trusted_hops`, which
/// is the default extension, a client that connects directly chooses the address.
fn trusts_proxies_only(extension: &Extension) -> bool {
    extension.typed_config.kind() == FORWARDED_FOR && !extension.typed_config.value()["xff_trusted_cidrs"].is_null()
}

/// Checks that the caller's SPIFFE ID reaches an internal listener.
fn check_principal(channel: &Channel<'_>, report: &mut Report) {
    if channel.needs_tls_of_internal_listener() {
        let message = "`identity.from` is `tls`, and an internal listener has no TLS";
        report.find(FindingCode::PeerPrincipalUnused, &channel.http_place, message);
    }
    match &channel.hbone {
        None | Some(Hbone::Unknown) => {}
        Some(Hbone::Kept) => {
            report.fine(
                FindingLayer::Request,
                &channel.http_place,
                "the HBONE listener passes on the caller's SPIFFE ID",
            );
        }
        Some(Hbone::Lost(reason)) => {
            report.find(FindingCode::PeerPrincipalMissing, &channel.http_place, reason);
        }
    }
}

/// Checks the header `x-forwarded-client-cert`: the filter needs it unchanged with `from: xfcc`, and the workload must
/// not get it from a client otherwise.
fn check_xfcc(channel: &Channel<'_>, document: &Document, report: &mut Report) {
    let Some(manager) = channel.manager.as_ref().filter(|_| channel.is_http) else { return };
    let place = &channel.http_place;
    let set = manager.forward_client_cert_details.as_str();
    let said = if set.is_empty() { "is not set, so it is `SANITIZE`".to_owned() } else { format!("is `{set}`") };
    let message = format!("`forward_client_cert_details` {said}");
    // For the requests that it selects, the matcher replaces the setting.
    let mut selected = Vec::new();
    collect_details(&manager.forward_client_cert_matcher.value(), &mut selected);
    let is_forwarded = |details: &str| matches!(details, "FORWARD_ONLY" | "ALWAYS_FORWARD_ONLY");
    let is_kept = set == "FORWARD_ONLY" || selected.iter().any(|details| details == "FORWARD_ONLY");
    match &document.policy.identity().source {
        IdentitySource::Xfcc { .. } if is_kept => {
            report.fine(FindingLayer::Request, place, "the header `x-forwarded-client-cert` reaches the filter");
        }
        IdentitySource::Xfcc { .. } => {
            report.find(FindingCode::XfccNotForwarded, place, message);
        }
        _ if channel.http_filters.iter().any(replaces_xfcc) => {}
        _ if is_forwarded(set) => {
            report.find(FindingCode::XfccForwarded, place, message);
        }
        _ => {
            if let Some(details) = selected.iter().find(|details| is_forwarded(details)) {
                let message = format!("an action of `forward_client_cert_matcher` is `{details}`");
                report.find(FindingCode::XfccForwarded, place, message);
            }
        }
    }
}

/// Collects the settings in the actions of `forward_client_cert_matcher`.
fn collect_details(node: &Value, found: &mut Vec<String>) {
    match node {
        Value::Object(fields) => {
            found.extend(node["forward_client_cert_details"].as_str().map(str::to_owned));
            fields.values().for_each(|below| collect_details(below, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_details(item, found)),
        _ => {}
    }
}

/// Returns `true` if a filter only replaces the header of the client, as in a waypoint that adds the caller's SPIFFE ID.
pub(super) fn replaces_xfcc(filter: &Extension) -> bool {
    let replaces = |mutation: &Value| {
        let append = &mutation["append"];
        let is_xfcc = append["header"]["key"].as_str().is_some_and(|key| key.eq_ignore_ascii_case(XFCC));
        is_xfcc && append["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    };
    filter.typed_config.kind() == HEADER_MUTATION && {
        let config = filter.typed_config.value();
        let mutations = config["mutations"]["request_mutations"].as_array();
        mutations.is_some_and(|mutations| !mutations.is_empty() && mutations.iter().all(replaces))
    }
}

fn check_paths(channel: &Channel<'_>, document: &Document, envoy: &Envoy, report: &mut Report) {
    let Some(manager) = &channel.manager else { return };
    let place = &channel.http_place;
    if !document.policy.reads(Field::Paths) {
        report.fine(FindingLayer::Request, place, "no policy uses paths");
        return;
    }
    if !manager.normalize_path {
        report.find(FindingCode::PathNotNormalized, place, "`normalize_path` is not set");
    }
    if !manager.merge_slashes {
        report.find(FindingCode::SlashesNotMerged, place, "`merge_slashes` is not set");
    }
    let escaped = &manager.path_with_escaped_slashes_action;
    let are_kept = matches!(escaped.as_str(), "" | "IMPLEMENTATION_SPECIFIC_DEFAULT" | "KEEP_UNCHANGED");
    if are_kept {
        let message = "`path_with_escaped_slashes_action` keeps `%2f` and `%5c`";
        report.find(FindingCode::EscapedSlashesKept, place, message);
    }
    for table in tables(manager, envoy) {
        if ignores_path_parameters(&table) {
            let name = table["name"].as_str().unwrap_or_default();
            let message = format!("the route table `{name}` sets `ignore_path_parameters_in_path_matching`");
            report.find(FindingCode::PathParametersIgnored, place, message);
        }
    }
    if manager.normalize_path && manager.merge_slashes && !are_kept {
        report.fine(FindingLayer::Request, place, "Envoy normalizes paths before the filter reads them");
    }
}

/// Returns `true` if this route table sets the option, or one inside of it: scoped routes contain tables.
fn ignores_path_parameters(node: &Value) -> bool {
    match node {
        Value::Object(fields) => {
            node["ignore_path_parameters_in_path_matching"] == true || fields.values().any(ignores_path_parameters)
        }
        Value::Array(items) => items.iter().any(ignores_path_parameters),
        _ => false,
    }
}

/// Checks that the listener keeps an attribute in filter state that Envoy does not expose by itself.
fn check_state(
    channel: &Channel<'_>,
    (moment, key): (&str, &str),
    what: &str,
    check: FindingCode,
    report: &mut Report,
) {
    let is_kept = channel.network.iter().any(|filter| {
        filter.typed_config.kind() == SET_FILTER_STATE && {
            let config = filter.typed_config.value();
            config[moment].as_array().into_iter().flatten().any(|value| value["object_key"] == key)
        }
    });
    if is_kept {
        report.fine(FindingLayer::Request, &channel.place, format!("{what} is in filter state"));
    } else {
        let message = format!("no set_filter_state before the connection manager sets `{key}` in `{moment}`");
        report.find(check, &channel.place, message);
    }
}

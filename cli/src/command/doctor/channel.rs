//! The channels of an Envoy: from a connection, through one listener or two, to the filters that decide.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::installation::{Catalog, Installation, Installed};
use super::route_overrides::{enables_upgrade, has_tables, tables};
use crate::document::Document;
use crate::envoy::message::{Any, ConnectionManager, DownstreamTls, Extension, FilterChain, Listener};
use crate::envoy::page::invalid;
use crate::envoy::snapshot::Envoy;
use crate::envoy::tls::{downstream_tls, passes_filter_state};
use crate::report::Place;
use spiffe_authz::identity::{IdentitySource, PeerRequirement};

const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// The object with the caller's SPIFFE ID, which the HBONE listener shares with the internal one.
pub(crate) const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// A filter chain and, in it, one chain of HTTP filters.
///
/// The connection manager has a chain of its own, and one for each upgrade with filters. In HBONE, TLS terminates in the
/// filter chain of another listener.
#[derive(Clone)]
pub(crate) struct Channel<'e> {
    /// The filter chain in which TLS terminates.
    pub(crate) place: Place,
    /// The chain of filters; the same as `place` unless it belongs to an upgrade or an internal listener.
    pub(crate) http_place: Place,
    pub(crate) listener: &'e Listener,
    pub(crate) chain: &'e FilterChain,
    pub(crate) tls: Option<Rc<DownstreamTls>>,
    /// The network filters before the last one.
    pub(crate) network: &'e [Extension],
    pub(crate) manager: Option<Rc<ConnectionManager>>,
    pub(crate) http_filters: Rc<[Extension]>,
    pub(crate) filter: Option<Rc<Installation>>,
    /// Whether the filter is an HTTP filter, and not a network filter.
    pub(crate) is_http: bool,
    /// The state of the caller's SPIFFE ID in an internal listener; `None` without HBONE.
    pub(crate) hbone: Option<Hbone>,
    /// The destinations of a channel with mutual TLS in an Envoy with internal listeners, or of an upgrade.
    pub(crate) destination: Destination,
}

/// The destinations of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Internal listeners only, where the filters decide.
    Inside,
    /// Other clusters, too.
    Outside,
    /// The dump lacks a route table or a cluster.
    Unknown,
}

/// The state of the caller's SPIFFE ID in an internal listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hbone {
    /// The HBONE listener sets it, and the cluster passes it on.
    Kept,
    /// The ID is lost, for this reason.
    Lost(String),
    /// The listener in front is unknown.
    Unknown,
}

impl Channel<'_> {
    pub(crate) fn installed(&self) -> Option<&Installed> {
        match self.filter.as_deref() {
            Some(Installation::Loaded(installed)) => Some(installed),
            _ => None,
        }
    }

    /// Returns the filter's document if there is one that compiles.
    pub(crate) fn document(&self) -> Option<&Document> {
        self.installed()?.document.as_ref().as_ref().ok()
    }

    pub(crate) fn is_mutual(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_mutual())
    }

    pub(crate) fn is_upgrade(&self) -> bool {
        self.http_place.upgrade.is_some()
    }

    /// Returns `true` if the filter requires a certificate of the TLS connection in an internal listener, which has no TLS.
    pub(crate) fn needs_tls_of_internal_listener(&self) -> bool {
        let needs_tls = self.document().map(|document| document.policy.identity()).is_some_and(|identity| {
            identity.peer == PeerRequirement::Required && matches!(identity.source, IdentitySource::Tls { .. })
        });
        self.is_internal() && self.tls.is_none() && needs_tls
    }

    fn is_internal(&self) -> bool {
        self.listener.internal_listener.is_present()
    }
}

/// Returns each channel through these listeners.
///
/// # Errors
/// Returns an error if a part of a listener cannot be parsed.
pub(crate) fn channels<'e>(
    listeners: &'e [Listener],
    envoy: &Envoy,
    catalog: &Catalog<'_>,
) -> io::Result<Vec<Channel<'e>>> {
    let mut direct = Vec::new();
    for listener in listeners {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for (position, chain) in chains.enumerate() {
            let name = if chain.name.is_empty() { format!("#{position}") } else { chain.name.clone() };
            let place = Place { filter_chain: Some(name), ..Place::listener(&listener.name) };
            let first = channel(listener, chain, place, catalog)?;
            direct.extend(upgrades(&first, envoy, catalog));
            direct.push(first);
        }
    }
    let (outer, has_unknown) = mark_outer(&mut direct, envoy);
    let mut all = Vec::new();
    for channel in direct {
        all.extend(through(channel, &outer, has_unknown));
    }
    Ok(all)
}

/// A filter chain that leads to an internal listener.
struct Outer<'e> {
    channel: Channel<'e>,
    hbone: Hbone,
}

/// Finds the mutual TLS channels that lead to internal listeners, by the name of the listener. The flag is `true` if the
/// destinations of one are unknown.
fn mark_outer<'e>(direct: &mut [Channel<'e>], envoy: &Envoy) -> (HashMap<String, Vec<Outer<'e>>>, bool) {
    let mut outer: HashMap<String, Vec<Outer<'e>>> = HashMap::new();
    let mut has_unknown = false;
    if !direct.iter().any(Channel::is_internal) {
        return (outer, false);
    }
    for channel in direct.iter_mut().filter(|channel| channel.is_mutual() && !channel.is_upgrade()) {
        let Some(clusters) = destinations(channel, envoy) else {
            has_unknown = true;
            channel.destination = Destination::Unknown;
            continue;
        };
        let mut destination = if clusters.is_empty() { Destination::Outside } else { Destination::Inside };
        for name in clusters {
            let Some(cluster) = envoy.cluster(&name) else {
                destination = Destination::Unknown;
                has_unknown = true;
                continue;
            };
            let mut inside: Vec<Option<&str>> = cluster.load_assignment.internal_listeners().collect();
            inside.dedup();
            if inside.is_empty() || !inside.iter().all(Option::is_some) {
                destination = Destination::Outside;
            }
            for listener in inside.into_iter().flatten() {
                let hbone = if !keeps_principal(channel) {
                    Hbone::Lost(format!("the HBONE listener does not share `{PEER_PRINCIPAL}` with upstream"))
                } else if passes_filter_state(cluster) {
                    Hbone::Kept
                } else {
                    Hbone::Lost(format!(
                        "the cluster `{name}` does not pass on `{PEER_PRINCIPAL}`: it has no transport socket internal_upstream"
                    ))
                };
                outer.entry(listener.to_owned()).or_default().push(Outer { channel: channel.clone(), hbone });
            }
        }
        channel.destination = destination;
    }
    (outer, has_unknown)
}

/// Returns the channel once for each HBONE listener that leads to it, or as it is.
fn through<'e>(channel: Channel<'e>, outer: &HashMap<String, Vec<Outer<'e>>>, has_unknown: bool) -> Vec<Channel<'e>> {
    let source = channel.document().map(|document| &document.policy.identity().source);
    if source.is_some_and(|source| *source != IdentitySource::PeerPrincipal) {
        return vec![channel];
    }
    match outer.get(&channel.listener.name).filter(|_| channel.is_internal()) {
        Some(outer) => outer
            .iter()
            .map(|Outer { channel: outer, hbone }| Channel {
                place: outer.place.clone(),
                tls: outer.tls.clone(),
                hbone: Some(if sets_principal(&channel) { Hbone::Kept } else { hbone.clone() }),
                ..channel.clone()
            })
            .collect(),
        None if source.is_some() => {
            let hbone = if sets_principal(&channel) {
                Hbone::Kept
            } else if has_unknown {
                Hbone::Unknown
            } else if channel.is_internal() {
                Hbone::Lost("no listener with mutual TLS leads to this internal listener".to_owned())
            } else {
                Hbone::Lost(format!(
                    "no filter of this listener sets `{PEER_PRINCIPAL}`, and no HBONE listener leads to it"
                ))
            };
            vec![Channel { hbone: Some(hbone), ..channel }]
        }
        None => vec![channel],
    }
}

/// Returns the filter chain with the HTTP filters for requests without an upgrade.
fn channel<'e>(
    listener: &'e Listener,
    chain: &'e FilterChain,
    place: Place,
    catalog: &Catalog<'_>,
) -> io::Result<Channel<'e>> {
    let unreadable = |error: serde_json::Error| invalid(&format!("config_dump: listener {}: {error}", listener.name));
    let end = chain.filters.iter().position(|filter| filter.typed_config.kind() == CONNECTION_MANAGER);
    let manager: Option<ConnectionManager> = match end.and_then(|end| chain.filters.get(end)) {
        Some(filter) => Some(filter.typed_config.read().map_err(unreadable)?),
        None => None,
    };
    let http_filters = manager.as_ref().map_or(&[][..], |manager| &manager.http_filters);
    let http = catalog.find(http_filters);
    let network = chain.filters.get(..end.unwrap_or(chain.filters.len())).unwrap_or_default();
    Ok(Channel {
        http_place: place.clone(),
        place,
        listener,
        chain,
        tls: downstream_tls(chain).map_err(unreadable)?.map(Rc::new),
        network,
        is_http: http.is_some(),
        filter: http.or_else(|| catalog.find(&chain.filters)),
        http_filters: http_filters.into(),
        manager: manager.map(Rc::new),
        hbone: None,
        destination: Destination::Outside,
    })
}

/// Returns the filter chain once for each upgrade with HTTP filters that requests can use.
fn upgrades<'e>(first: &Channel<'e>, envoy: &Envoy, catalog: &Catalog<'_>) -> Vec<Channel<'e>> {
    let Some(manager) = &first.manager else { return Vec::new() };
    let with_filters = manager.upgrade_configs.iter().filter(|upgrade| !upgrade.filters.is_empty());
    let own = with_filters.filter_map(|upgrade| {
        let destination = if upgrade.enabled != Some(false) || enables_upgrade(manager, &upgrade.upgrade_type, envoy) {
            Destination::Outside
        } else if has_tables(manager, envoy) {
            // Envoy responds to such requests itself.
            return None;
        } else {
            Destination::Unknown
        };
        let http = catalog.find(&upgrade.filters);
        // A network filter decides for every request of the connection, but it does not replace an HTTP filter.
        let of_connection = || first.filter.clone().filter(|_| !first.is_http);
        Some(Channel {
            http_place: Place { upgrade: Some(upgrade.upgrade_type.clone()), ..first.place.clone() },
            http_filters: upgrade.filters.as_slice().into(),
            is_http: http.is_some(),
            filter: http.or_else(of_connection),
            destination,
            ..first.clone()
        })
    });
    own.collect()
}

/// Returns the clusters to which a channel sends requests or connections, or `None` if they are unknown.
fn destinations(channel: &Channel<'_>, envoy: &Envoy) -> Option<Vec<String>> {
    let mut clusters = Vec::new();
    let is_known = if let Some(manager) = &channel.manager {
        let tables = tables(manager, envoy);
        has_tables(manager, envoy) && tables.iter().all(|table| collect_clusters(table, &mut clusters))
    } else {
        let proxies = channel.chain.filters.iter().filter(|filter| filter.typed_config.kind() == TCP_PROXY);
        proxies.map(|filter| filter.typed_config.value()).all(|proxy| collect_clusters(&proxy, &mut clusters))
    };
    clusters.sort_unstable();
    clusters.dedup();
    is_known.then_some(clusters)
}

/// Collects the clusters in a message. Returns `false` if a request's header chooses the cluster.
fn collect_clusters(node: &Value, clusters: &mut Vec<String>) -> bool {
    match node {
        Value::Object(fields) => fields.iter().all(|(name, below)| match (name.as_str(), below) {
            ("cluster", Value::String(cluster)) => {
                clusters.push(cluster.clone());
                true
            }
            ("cluster_header" | "cluster_specifier_plugin" | "inline_cluster_specifier_plugin", _) => false,
            ("weighted_clusters", below) => {
                let weighted = below["clusters"].as_array().into_iter().flatten();
                clusters.extend(weighted.filter_map(|cluster| cluster["name"].as_str()).map(str::to_owned));
                true
            }
            // Mirrored requests have no effect on the response.
            ("request_mirror_policies" | "typed_per_filter_config" | "metadata", _) => true,
            _ => collect_clusters(below, clusters),
        }),
        Value::Array(items) => items.iter().all(|item| collect_clusters(item, clusters)),
        _ => true,
    }
}

/// Returns `true` if a filter of the channel sets the caller's SPIFFE ID.
fn sets_principal(channel: &Channel<'_>) -> bool {
    states(channel).iter().any(|state| state.object_key == PEER_PRINCIPAL)
}

/// Returns `true` if a filter of the channel sets the caller's SPIFFE ID and shares it with upstream.
fn keeps_principal(channel: &Channel<'_>) -> bool {
    states(channel).iter().any(|state| state.object_key == PEER_PRINCIPAL && state.is_shared())
}

/// An entry of `set_filter_state`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) object_key: String,
    pub(crate) factory_key: Option<String>,
    shared_with_upstream: Value,
}

impl State {
    /// Returns `true` if Envoy shares the object with the upstream connection.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(&self.shared_with_upstream, Value::Null)
            && self.shared_with_upstream != "NONE"
            && self.shared_with_upstream != 0
    }
}

/// Returns the entries of each `set_filter_state` among the filters of a channel.
fn states(channel: &Channel<'_>) -> Vec<State> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct SetFilterState {
        on_new_connection: Vec<State>,
        on_downstream_data: Vec<State>,
        on_downstream_tls_handshake: Vec<State>,
        on_request_headers: Vec<State>,
    }
    let is_state = |config: &&Any| config.kind().contains(".set_filter_state.");
    let configs = channel.chain.filters.iter().chain(channel.http_filters.iter()).map(|filter| &filter.typed_config);
    let messages = configs.filter(is_state).map(|config| config.read::<SetFilterState>().unwrap_or_default());
    messages
        .flat_map(|message| {
            let SetFilterState {
                on_new_connection,
                on_downstream_data,
                on_downstream_tls_handshake,
                on_request_headers,
            } = message;
            [on_new_connection, on_downstream_data, on_downstream_tls_handshake, on_request_headers]
                .into_iter()
                .flatten()
        })
        .collect()
}

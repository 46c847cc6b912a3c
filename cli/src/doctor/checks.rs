//! Looks through an Envoy, layer by layer.

mod envoy;
mod filter;
mod handshake;
mod identity;
mod request;
mod routes;
mod secrets;
mod state;
mod trust;

use std::io;
use std::rc::Rc;

use super::dump::Envoy;
use super::filter::{Document, Installation, Installed, message, recognize};
use super::finding::{Place, Report};
use super::message::{ConnectionManager, DownstreamTls, Extension, FilterChain, Listener};
use super::trust::downstream_tls;

const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// A filter chain and, in it, one chain of HTTP filters.
///
/// The connection manager has a chain of its own, and one for each upgrade with filters.
#[derive(Clone)]
struct Way<'e> {
    /// The filter chain.
    place: Place,
    /// The chain of HTTP filters in it; the same as `place` for the connection manager's own.
    http_place: Place,
    listener: &'e Listener,
    chain: &'e FilterChain,
    tls: Option<Rc<DownstreamTls>>,
    /// The network filters before the one that ends the chain.
    network: &'e [Extension],
    manager: Option<Rc<ConnectionManager>>,
    http_filters: Rc<[Extension]>,
    filter: Option<Rc<Installation>>,
    /// Whether the filter is among the HTTP filters, and not a network filter.
    is_http: bool,
}

impl Way<'_> {
    fn installed(&self) -> Option<&Installed> {
        match self.filter.as_deref() {
            Some(Installation::Loaded(installed)) => Some(installed),
            _ => None,
        }
    }

    /// The filter's configuration, if there is one that compiles.
    fn document(&self) -> Option<&Document> {
        self.installed()?.document.as_ref().ok()
    }

    fn is_mutual(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_mutual())
    }

    fn is_upgrade(&self) -> bool {
        self.http_place.upgrade.is_some()
    }
}

/// Finds what is wrong and what is not.
///
/// # Errors
/// When a part of the dump cannot be read.
pub(crate) fn examine(envoy: &Envoy) -> io::Result<Report> {
    let mut report = Report::default();
    let ways = ways(&envoy.listeners, envoy)?;
    envoy::check(&ways, envoy, &mut report)?;
    filter::presence(&ways, &mut report);
    for way in &ways {
        state::check(way, envoy, &mut report);
        if way.filter.is_some() || way.is_mutual() {
            check_connection(way, envoy, &mut report);
        }
        if way.filter.is_some() {
            handshake::check(way, &mut report);
            request::check(way, envoy, &mut report);
            filter::check(way, envoy, &mut report);
            for own in routes::check(way, envoy, &mut report) {
                check_connection(&own, envoy, &mut report);
                handshake::check(&own, &mut report);
                request::check(&own, envoy, &mut report);
            }
        }
    }
    filter::labels(&ways, envoy, &mut report);
    Ok(report)
}

/// Checks certificates and bundles, by the document that decides here.
fn check_connection(way: &Way<'_>, envoy: &Envoy, report: &mut Report) {
    if let Some(tls) = &way.tls {
        secrets::check(way, tls, envoy, report);
        identity::check(way, tls, envoy, report);
        trust::check(way, tls, envoy, report);
    }
}

/// Every way through these listeners.
fn ways<'e>(listeners: &'e [Listener], envoy: &Envoy) -> io::Result<Vec<Way<'e>>> {
    let mut ways = Vec::new();
    for listener in listeners {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for (position, chain) in chains.enumerate() {
            let name = if chain.name.is_empty() { format!("#{position}") } else { chain.name.clone() };
            let place = Place { listener: Some(listener.name.clone()), filter_chain: Some(name), ..Place::default() };
            let first = way(listener, chain, place, envoy)?;
            ways.extend(upgrades(&first, envoy));
            ways.push(first);
        }
    }
    Ok(ways)
}

/// Returns the filter chain with the HTTP filters for requests without an upgrade.
fn way<'e>(listener: &'e Listener, chain: &'e FilterChain, place: Place, envoy: &Envoy) -> io::Result<Way<'e>> {
    let unreadable = |error: serde_json::Error| {
        let listener = &listener.name;
        io::Error::new(io::ErrorKind::InvalidData, format!("config_dump: listener {listener}: {error}"))
    };
    let end = chain.filters.iter().position(|filter| message(&filter.typed_config).0 == CONNECTION_MANAGER);
    let manager: Option<ConnectionManager> = match end.and_then(|end| chain.filters.get(end)) {
        Some(filter) => Some(serde_json::from_value(message(&filter.typed_config).1.clone()).map_err(unreadable)?),
        None => None,
    };
    let http_filters = manager.as_ref().map_or(&[][..], |manager| &manager.http_filters);
    let network = chain.filters.get(..end.unwrap_or(chain.filters.len())).unwrap_or_default();
    let http = find_filter(http_filters, envoy);
    Ok(Way {
        http_place: place.clone(),
        place,
        listener,
        chain,
        tls: downstream_tls(chain).map_err(unreadable)?.map(Rc::new),
        network,
        is_http: http.is_some(),
        filter: http.or_else(|| find_filter(&chain.filters, envoy)),
        http_filters: http_filters.into(),
        manager: manager.map(Rc::new),
    })
}

/// Returns the filter chain once for each upgrade with HTTP filters.
fn upgrades<'e>(first: &Way<'e>, envoy: &Envoy) -> Vec<Way<'e>> {
    let upgrades = first.manager.iter().flat_map(|manager| &manager.upgrade_configs);
    let own = upgrades.filter(|upgrade| !upgrade.filters.is_empty()).map(|upgrade| {
        let http = find_filter(&upgrade.filters, envoy);
        // A network filter decides for every request of the connection, but it does not replace an HTTP filter.
        let of_connection = || first.filter.clone().filter(|_| !first.is_http);
        Way {
            http_place: Place { upgrade: Some(upgrade.upgrade_type.clone()), ..first.place.clone() },
            http_filters: upgrade.filters.as_slice().into(),
            is_http: http.is_some(),
            filter: http.or_else(of_connection),
            ..first.clone()
        }
    });
    own.collect()
}

fn find_filter(filters: &[Extension], envoy: &Envoy) -> Option<Rc<Installation>> {
    filters.iter().find_map(|place| recognize(place, &envoy.discovered)).map(Rc::new)
}

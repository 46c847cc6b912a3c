//! Looks through an Envoy, layer by layer.

mod envoy;
mod filter;
mod handshake;
mod identity;
mod request;
mod secrets;
mod trust;

use std::io;

use super::dump::Envoy;
use super::filter::{Document, Installation, Installed, message, recognize};
use super::finding::{Place, Report};
use super::message::{ConnectionManager, DownstreamTls, Extension, FilterChain, Listener};
use super::trust::downstream_tls;

const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// One way through a listener.
struct Way<'e> {
    place: Place,
    listener: &'e Listener,
    tls: Option<DownstreamTls>,
    /// The network filters before the one that ends the chain.
    network: &'e [Extension],
    manager: Option<ConnectionManager>,
    filter: Option<Installation>,
}

impl Way<'_> {
    fn installed(&self) -> Option<&Installed> {
        match &self.filter {
            Some(Installation::Loaded(installed)) => Some(installed),
            _ => None,
        }
    }

    /// The filter's configuration, if there is one that compiles.
    fn document(&self) -> Option<&Document> {
        self.installed()?.document.as_ref().ok()
    }

    fn is_mutual(&self) -> bool {
        self.tls.as_ref().is_some_and(DownstreamTls::is_mutual)
    }
}

/// Finds what is wrong and what is not.
///
/// # Errors
/// When a part of the dump cannot be read.
pub(crate) fn examine(envoy: &Envoy) -> io::Result<Report> {
    let mut report = Report::default();
    let ways = ways(&envoy.listeners, envoy)?;
    envoy::check(envoy, &mut report)?;
    filter::presence(&ways, &mut report);
    for way in ways.iter().filter(|way| way.filter.is_some() || way.is_mutual()) {
        if let Some(tls) = &way.tls {
            secrets::check(way, tls, envoy, &mut report);
            identity::check(way, tls, envoy, &mut report);
            trust::check(way, tls, envoy, &mut report);
        }
        if way.filter.is_some() {
            handshake::check(way, &mut report);
            request::check(way, &mut report);
            filter::check(way, envoy, &mut report);
        }
    }
    filter::labels(&ways, envoy, &mut report);
    Ok(report)
}

/// Every way through these listeners.
fn ways<'e>(listeners: &'e [Listener], envoy: &Envoy) -> io::Result<Vec<Way<'e>>> {
    let mut ways = Vec::new();
    for listener in listeners {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for (position, chain) in chains.enumerate() {
            let name = if chain.name.is_empty() { format!("#{position}") } else { chain.name.clone() };
            let place = Place { listener: Some(listener.name.clone()), filter_chain: Some(name), ..Place::default() };
            ways.push(way(listener, chain, place, envoy)?);
        }
    }
    Ok(ways)
}

fn way<'e>(listener: &'e Listener, chain: &'e FilterChain, place: Place, envoy: &Envoy) -> io::Result<Way<'e>> {
    let unreadable = |error: serde_json::Error| {
        let listener = &listener.name;
        io::Error::new(io::ErrorKind::InvalidData, format!("config_dump: listener {listener}: {error}"))
    };
    let end = chain.filters.iter().position(|filter| message(&filter.typed_config).0 == CONNECTION_MANAGER);
    let manager = match end.and_then(|end| chain.filters.get(end)) {
        Some(filter) => Some(serde_json::from_value(message(&filter.typed_config).1.clone()).map_err(unreadable)?),
        None => None,
    };
    let http_filters = manager.iter().flat_map(|manager: &ConnectionManager| &manager.http_filters);
    let filter = http_filters.chain(&chain.filters).find_map(|place| recognize(place, &envoy.discovered));
    let network = chain.filters.get(..end.unwrap_or(chain.filters.len())).unwrap_or_default();
    Ok(Way { place, listener, tls: downstream_tls(chain).map_err(unreadable)?, network, manager, filter })
}

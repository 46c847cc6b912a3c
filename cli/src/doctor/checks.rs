//! Looks through an Envoy, layer by layer.

mod filter;
mod identity;
mod request;
mod secrets;
mod trust;

use std::io;

use super::dump::Envoy;
use super::filter::{Document, Installation, Installed, message, recognize};
use super::finding::{Check, Layer, Place, Report};
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
    taken(envoy, &mut report)?;
    filter::presence(&ways, &mut report);
    for way in ways.iter().filter(|way| way.filter.is_some() || way.is_mutual()) {
        if let Some(tls) = &way.tls {
            secrets::check(way, tls, envoy, &mut report);
            identity::check(way, tls, envoy, &mut report);
            trust::check(way, tls, envoy, &mut report);
        }
        if way.filter.is_some() {
            handshake(way, &mut report);
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

/// What Envoy has taken of its configuration.
fn taken(envoy: &Envoy, report: &mut Report) -> io::Result<()> {
    for refused in &envoy.refused {
        let name = &refused.listener.name;
        let place = Place { listener: (!name.is_empty()).then(|| name.clone()), ..Place::default() };
        report.find(Check::UpdateRefused, &place, format!("Envoy says: {}", refused.details.trim()));
        let listeners = std::slice::from_ref(&refused.listener);
        for way in &ways(listeners, envoy)? {
            filter::refused(way, report);
        }
    }
    for listener in &envoy.warming {
        let place = Place { listener: Some(listener.name.clone()), ..Place::default() };
        report.find(Check::ListenerWarming, &place, "an update waits for what it needs");
    }
    for way in ways(&envoy.warming, envoy)? {
        if let Some(tls) = &way.tls {
            secrets::check(&way, tls, envoy, report);
        }
        if !matches!(way.filter, Some(Installation::Loaded(_))) {
            filter::check(&way, envoy, report);
        }
    }
    // `server.state` would tell, too, but is not written before all is initialized.
    if envoy.stat("listener_manager.workers_started") == Some(0) {
        report.find(Check::ListenerWarming, &Place::default(), "Envoy is initializing: no listener serves yet");
    }
    if !report.findings.iter().any(|finding| finding.check.layer() == Layer::Envoy) {
        let count = envoy.listeners.len();
        let listeners = if count == 1 { "the listener serves".to_owned() } else { format!("{count} listeners serve") };
        report.fine(Layer::Envoy, &Place::default(), format!("{listeners}, and no update was refused"));
    }
    Ok(())
}

/// What a connection must show.
fn handshake(way: &Way<'_>, report: &mut Report) {
    let document = way.document();
    let optional = document
        .is_some_and(|document| document.policy.peer_requirement() == spiffe_authz::policy::PeerRequirement::Optional);
    // The identity of another hop than this connection's is none of this layer's business.
    let elsewhere = document.is_some_and(|document| !document.identity_is_from_tls());
    let place = &way.place;
    match &way.tls {
        None if optional || elsewhere => {
            report.fine(Layer::Handshake, place, "no TLS, and the filter's configuration means it so");
        }
        None => report.find(Check::PlainText, place, "the filter chain has no TLS settings"),
        Some(tls) => {
            if tls.require_client_certificate {
                report.fine(Layer::Handshake, place, "callers must show a certificate");
            } else if optional || elsewhere {
                report.fine(Layer::Handshake, place, "callers may show a certificate, as `identity` says");
            } else {
                let message = "`require_client_certificate` is not set";
                report.find(Check::ClientCertificateOptional, place, message);
            }
            let resumption = [
                ("stateless", tls.disable_stateless_session_resumption),
                ("stateful", tls.disable_stateful_session_resumption),
            ];
            let on: Vec<&str> = resumption.iter().filter(|(_, off)| !off).map(|(kind, _)| *kind).collect();
            if on.is_empty() {
                report.fine(Layer::Handshake, place, "sessions are not resumed");
            } else {
                report.find(Check::SessionResumption, place, format!("{} resumption is on", on.join(" and ")));
            }
        }
    }
}

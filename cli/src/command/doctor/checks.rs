//! Examines an Envoy: collects the facts, then checks them.

mod envoy;
mod filter;
mod handshake;
mod identity;
mod pages;
mod request;
mod routes;
mod secrets;
mod state;
mod tokens;
mod trust;
mod upstream;

use std::io;

use super::channel::{Channel, channels};
use super::installation::Catalog;
use super::secret_requests::{self, Role, SecretRequests};
use crate::envoy::message::{CommonTls, Listener, SecretConfig};
use crate::envoy::snapshot::Envoy;
use crate::report::{FindingId, Place, Report};

/// The facts about an Envoy that the checks use.
struct Facts<'e> {
    envoy: &'e Envoy,
    catalog: &'e Catalog<'e>,
    serving: Vec<Channel<'e>>,
    warming: Vec<Channel<'e>>,
    rejected: Vec<Channel<'e>>,
    requests: SecretRequests,
    /// For each of the requests, the problem that it has, if any.
    problems: Vec<Option<Problem>>,
}

/// The problem of a request for a secret.
#[derive(Debug, Clone, Copy)]
enum Problem {
    /// The secret did not arrive. Listeners and clusters wait for it.
    Missing(FindingId),
    /// The secret arrived, and a newer one does not. It expires.
    Stale(FindingId),
}

impl Facts<'_> {
    /// Returns the finding that explains why these TLS settings wait for a secret.
    fn missing(&self, tls: &CommonTls) -> Option<FindingId> {
        secret_requests::secrets(tls).find_map(|(config, role)| match self.problem(config, role)? {
            Problem::Missing(finding) => Some(finding),
            Problem::Stale(_) => None,
        })
    }

    /// Returns the finding that explains why a secret that arrived is not renewed.
    fn stale(&self, config: &SecretConfig, role: Role) -> Option<FindingId> {
        match self.problem(config, role)? {
            Problem::Missing(_) => None,
            Problem::Stale(finding) => Some(finding),
        }
    }

    fn problem(&self, config: &SecretConfig, role: Role) -> Option<Problem> {
        self.problems.get(self.requests.position(config, role)?).copied().flatten()
    }

    /// Returns `true` if a listener that serves, waits or was rejected has the filter.
    fn has_filter(&self) -> bool {
        [&self.serving, &self.warming, &self.rejected]
            .into_iter()
            .flatten()
            .any(|channel| channel.filter.as_ref().is_some_and(|filter| filter.is_certain()))
    }
}

/// The TLS settings of a channel or of clusters, with the places where they are used.
#[derive(Clone, Copy)]
struct Context<'c> {
    tls: &'c CommonTls,
    places: &'c [Place],
}

impl Context<'_> {
    fn at_secret(&self, name: &str) -> Vec<Place> {
        self.places.iter().map(|place| place.secret(name)).collect()
    }
}

/// Returns the findings.
///
/// # Errors
/// Returns an error if a part of the dump cannot be parsed.
pub(crate) fn examine(envoy: &Envoy) -> io::Result<Report> {
    let catalog = Catalog::new(envoy);
    let rejected: Vec<Listener> = envoy.dump.rejected.iter().map(|rejected| rejected.listener.clone()).collect();
    let serving = channels(&envoy.dump.listeners, envoy, &catalog)?;
    let warming = channels(&envoy.dump.warming, envoy, &catalog)?;
    let requests = SecretRequests::of(&[serving.as_slice(), &warming].concat(), envoy)?;
    let rejected = channels(&rejected, envoy, &catalog)?;
    let mut facts = Facts { envoy, catalog: &catalog, serving, warming, rejected, requests, problems: Vec::new() };
    if facts.has_filter() {
        // Then no other plugin can be this filter.
        for channel in facts.serving.iter_mut().chain(&mut facts.warming).chain(&mut facts.rejected) {
            channel.filter.take_if(|filter| !filter.is_certain());
        }
    }
    let mut report = Report::default();
    judge(&mut facts, &mut report);
    Ok(report)
}

fn judge(facts: &mut Facts<'_>, report: &mut Report) {
    pages::check(facts.envoy, report);
    facts.problems = secrets::check(&facts.requests, facts.envoy, report);
    let facts = &*facts;
    envoy::check(facts, report);
    upstream::check(facts, report);
    filter::presence(facts, report);
    for channel in &facts.serving {
        // Without the filter, nothing depends on the object.
        if channel.is_mutual() && facts.has_filter() {
            state::check(channel, facts, report);
        }
        if channel.filter.is_some() || channel.is_mutual() {
            check_connection(channel, facts, report);
        }
        if channel.filter.is_some() {
            handshake::check(channel, report);
            request::check(channel, facts, report);
            filter::check(channel, facts, report);
            for own in routes::check(channel, facts, report) {
                check_connection(&own, facts, report);
                handshake::check(&own, report);
                request::check(&own, facts, report);
            }
        }
    }
    filter::labels(facts, report);
    envoy::check_updates(facts, report);
    report.finish();
}

/// Compares certificates and bundles with the document of the channel.
fn check_connection(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    if let Some(tls) = &channel.tls {
        let context = Context { tls: &tls.common_tls_context, places: std::slice::from_ref(&channel.place) };
        secrets::check_certificate_exists(context, report);
        identity::check(context, channel.document(), facts, report);
        if tls.is_mutual() {
            trust::check(context, channel.document(), facts, report);
        }
    }
}

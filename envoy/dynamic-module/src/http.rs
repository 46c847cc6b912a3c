//! The HTTP filter.

use std::net::{IpAddr, SocketAddr};

use spiffe_authz::decision::DenyReason;
use spiffe_authz::filter_state::{
    METADATA_PREFIX, PEER_CERTIFICATE, PEER_CERTIFICATE_VALID, PEER_PRINCIPAL, SOURCE_IP,
};
use spiffe_authz::host::{AddressOf, Connection, Headers, HostFailure, RequestAttributes};
use spiffe_authz::metadata::{Object, Value};
use spiffe_authz::policy::{Layer, Mode, PolicySet, RoutePolicy};
use spiffe_authz::worker::{BODY, Count, FORBIDDEN, Fact, MODULE_ALLOWED_COUNTER, MODULE_COUNTER, Outputs, details};

use crate::abi::http::{HttpFilter, HttpFilterConfig};
use crate::abi::{self, Attribute, Counter, Level};
use crate::clock::now;
use crate::configuration::{Configuration, accepted, is_ours};
use crate::value::{parse, written};

/// <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>
const GRPC_PERMISSION_DENIED: &str = "7";

/// A configuration of the filter, for all workers.
pub(crate) struct HttpConfiguration {
    configuration: Configuration,
    counters: Counters,
}

/// The counters. Envoy looks up a counter with labels by its labels on each increment.
#[derive(Clone, Copy)]
struct Counters {
    allowed: Counter,
    decisions: Counter,
}

/// The configuration of a route.
pub(crate) struct RouteConfiguration {
    mode: Mode,
    own: Option<Configuration>,
}

/// The configuration of a route that a different module has made, even a copy of this one. Its content is unknown.
#[derive(Debug)]
pub(crate) struct OfAnotherModule;

/// The next step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next filter handles the request.
    Continue,
    /// This filter has responded to the request.
    Responded,
}

/// Hooks run on every worker.
const fn is_shared_by_threads<T: Send + Sync>() {}
const _: () = is_shared_by_threads::<(HttpConfiguration, RouteConfiguration)>();

impl HttpConfiguration {
    /// Compiles a document. Returns `None` if it has errors, which are written to Envoy's log.
    pub(crate) fn new(host: &mut HttpFilterConfig<'_>, name: &[u8], text: &[u8]) -> Option<Self> {
        if !is_ours(name) {
            return None;
        }
        let policy = accepted(PolicySet::from_json(text))?;
        let allowed = host.counter(MODULE_ALLOWED_COUNTER, []);
        let decisions = host.counter(MODULE_COUNTER, Count::LABELS);
        let (Some(allowed), Some(decisions)) = (allowed, decisions) else {
            abi::log(Level::Error, "spiffe-authz: Envoy did not define a counter");
            return None;
        };
        let counters = Counters { allowed, decisions };
        Some(Self { configuration: Configuration::of_filter(policy), counters })
    }

    /// Decides a request, whose route has this configuration.
    pub(crate) fn on_request(
        &self,
        host: &mut HttpFilter<'_>,
        route: Result<Option<&RouteConfiguration>, OfAnotherModule>,
    ) -> Step {
        #[cfg(feature = "panic-on-request")]
        assert!(host.header("x-spiffe-authz-panic").is_none(), "asked to");
        let Ok(route) = route else { return deny(host, DenyReason::NotConfigured) };
        let mode = route.map_or(Mode::Enforce, |route| route.mode);
        let configuration = route.and_then(|route| route.own.as_ref()).unwrap_or(&self.configuration);
        let ruling = configuration.with(host.worker_index(), |worker, policies| {
            worker.decide(policies, mode, &*host, CurrentRequest(host), now)
        });
        let Some(ruling) = ruling else { return fail(host) };
        ruling.record(&mut CurrentOutputs { host, counters: self.counters });
        ruling.denial().map_or(Step::Continue, |reason| deny(host, reason))
    }
}

impl RouteConfiguration {
    /// Compiles the configuration of a route. Returns `None` if it has errors, which are written to Envoy's log.
    pub(crate) fn new(name: &[u8], text: &[u8]) -> Option<Self> {
        if !is_ours(name) {
            return None;
        }
        let RoutePolicy { mode, policies } = accepted(RoutePolicy::from_json(text))?;
        Some(Self { mode, own: policies.map(Configuration::of_route) })
    }
}

/// Denies a request because the filter failed.
pub(crate) fn fail(host: &mut HttpFilter<'_>) -> Step {
    deny(host, DenyReason::FilterFailed)
}

fn deny(host: &mut HttpFilter<'_>, reason: DenyReason) -> Step {
    // By default, Envoy responds to a gRPC request with the status 0, which means success.
    let is_grpc = host.header("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
    let headers: &[_] = if is_grpc { &[("grpc-status", GRPC_PERMISSION_DENIED)] } else { &[] };
    host.respond(FORBIDDEN, headers, BODY, &details(reason));
    if reason.closes_connection() {
        host.drain_connection();
    }
    Step::Responded
}

impl Connection for HttpFilter<'_> {
    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure> {
        Ok(self.text(Attribute::PeerCertificateDigest).filter(|digest| !digest.is_empty()))
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(written(self.filter_state(PEER_CERTIFICATE)).map(<[u8]>::to_vec))
    }

    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        Ok(written(self.filter_state(PEER_CERTIFICATE)).is_some())
    }

    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        // Envoy has no value for a connection without TLS.
        Ok(Some(self.boolean(Attribute::ConnectionMtls) == Some(true)))
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.text(Attribute::PeerUriSan).filter(|text| !text.is_empty()).map(<[u8]>::to_vec))
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        Ok(self.filter_state(PEER_CERTIFICATE_VALID).map(|valid| valid == b"true"))
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.filter_state(PEER_PRINCIPAL).filter(|principal| !principal.is_empty()).map(<[u8]>::to_vec))
    }
}

/// The current request.
struct CurrentRequest<'h>(&'h HttpFilter<'h>);

impl<'h> RequestAttributes for CurrentRequest<'h> {
    type Text = &'h [u8];
    type Headers = Lines<'h>;

    fn method(&self) -> Result<Option<&'h [u8]>, HostFailure> {
        Ok(self.0.header(":method"))
    }

    fn path(&self) -> Result<Option<&'h [u8]>, HostFailure> {
        Ok(self.0.header(":path"))
    }

    fn authority(&self) -> Result<Option<&'h [u8]>, HostFailure> {
        Ok(self.0.header(":authority"))
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(self.0.number(Attribute::DestinationPort))
    }

    fn headers(&self) -> Result<Lines<'h>, HostFailure> {
        self.0.headers().map(Lines).ok_or(HostFailure)
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        let with_port = |attribute| -> Result<Option<IpAddr>, HostFailure> {
            let Some(text) = self.0.text(attribute) else { return Ok(None) };
            let address: SocketAddr = parse(text)?;
            Ok(Some(address.ip()))
        };
        match of {
            // Only some of the supported releases expose it to an HTTP filter.
            AddressOf::Source => parse(self.0.filter_state(SOURCE_IP).ok_or(HostFailure)?).map(Some),
            AddressOf::Remote => with_port(Attribute::SourceAddress),
            AddressOf::Destination => with_port(Attribute::DestinationAddress),
        }
    }

    fn server_name(&self) -> Result<Option<&'h [u8]>, HostFailure> {
        Ok(self.0.text(Attribute::ServerName).filter(|name| !name.is_empty()))
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        // Envoy exposes only strings and lists of strings, and logs an error for every other value. A bootstrap therefore writes the
        // metadata of a filter to filter state as JSON. The metadata of other filters exists, and is unknown.
        let value = |name: &[u8]| -> Option<Value> {
            let key = format!("{METADATA_PREFIX}{}", str::from_utf8(name).ok()?);
            let json: serde_json::Value = serde_json::from_slice(self.0.filter_state(&key)?).ok()?;
            json.is_object().then(|| Value::from(&json))
        };
        let names = self.0.metadata_namespaces().ok_or(HostFailure)?;
        Ok(names.into_iter().map(|name| (name.into(), value(name).unwrap_or(Value::Unreadable))).collect())
    }
}

/// The headers of a request.
struct Lines<'h>(Vec<(&'h [u8], &'h [u8])>);

impl Headers for Lines<'_> {
    fn lines<'l>(&'l self, name: &'l str) -> impl Iterator<Item = &'l [u8]> + Clone {
        let named = move |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        self.0.iter().filter(move |(found, _)| named(found)).map(|(_, value)| *value)
    }
}

/// The outputs of the current request.
struct CurrentOutputs<'o, 'h> {
    host: &'o mut HttpFilter<'h>,
    counters: Counters,
}

impl Outputs for CurrentOutputs<'_, '_> {
    /// Facts are dynamic metadata, which belongs to the request.
    const FACTS_ARE_STATE: bool = false;

    /// Returns `false`: to set filter state costs little more than to read it.
    fn shows_peer(&self, _: &str) -> bool {
        false
    }

    /// Sets filter state of the request. Filter state of the connection could not be replaced on a route whose document has
    /// another source of identities: later filters would see the previous caller.
    fn set_state(&mut self, fact: Fact, value: &str) {
        self.host.set_filter_state(fact.name(Layer::Http), value);
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)> + Clone) {
        self.host.set_metadata(crate::NAME, facts.map(|(fact, value)| (fact.key(), value)));
    }

    fn count_allowed(&mut self) {
        self.host.increment(self.counters.allowed, []);
    }

    fn count(&mut self, count: &Count<'_>) {
        self.host.increment(self.counters.decisions, count.values());
    }

    fn log(&mut self, line: &str) {
        abi::log(Level::Warning, line);
    }
}

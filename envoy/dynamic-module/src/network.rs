//! The network filter.

use std::collections::HashMap;
use std::net::IpAddr;

use spiffe_authz::decision::DenyReason;
use spiffe_authz::filter_state::{PEER_CERTIFICATE, PEER_CERTIFICATE_DIGEST, PEER_CERTIFICATE_VALID, PEER_PRINCIPAL};
use spiffe_authz::host::{AddressOf, Connection, HostFailure, NoHeaders, RequestAttributes};
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::{Layer, Mode, PolicySet};
use spiffe_authz::worker::{Count, CountKey, Fact, Lease, MODULE_ALLOWED_COUNTER, MODULE_COUNTER, Outputs, details};

use crate::abi::network::{Address, NetworkFilter, NetworkFilterConfig};
use crate::abi::{self, Counter, Level};
use crate::clock::now;
use crate::configuration::{Configuration, accepted, is_ours};
use crate::value::{parse, written};

/// A configuration of the filter, for all workers.
pub(crate) struct NetworkConfiguration {
    configuration: Configuration,
    counters: Counters,
}

/// The maximum number of counters of policies. Each takes memory, and a line on the page with the statistics, used or not.
const MAX_POLICY_COUNTERS: usize = 1000;

/// The counters. Envoy has no labels for the counters of network filters, and requires that each one is defined with the
/// configuration: a worker reads the list of counters without a lock. If there would be more than [`MAX_POLICY_COUNTERS`], the
/// counters do not distinguish policies.
struct Counters {
    allowed: Counter,
    decisions: HashMap<CountKey, Counter>,
}

/// Hooks run on every worker.
const fn is_shared_by_threads<T: Send + Sync>() {}
const _: () = is_shared_by_threads::<NetworkConfiguration>();

impl NetworkConfiguration {
    /// Compiles a document. Returns `None` if it has errors, which are written to Envoy's log.
    pub(crate) fn new(host: &mut NetworkFilterConfig<'_>, name: &[u8], text: &[u8]) -> Option<Self> {
        if !is_ours(name) {
            return None;
        }
        let policies = accepted(PolicySet::from_json(text))?.on(Layer::Tcp);
        let Some(counters) = counters(host, &policies) else {
            abi::log(Level::Error, "spiffe-authz: Envoy did not define a counter");
            return None;
        };
        Some(Self { configuration: Configuration::of_filter(policies), counters })
    }

    /// Decides a connection. Returns the period in which it is allowed, or the details of the denial.
    pub(crate) fn on_connection(&self, host: &mut NetworkFilter<'_>) -> Result<Lease, String> {
        let ruling = self.configuration.with(host.worker_index(), |worker, policies| {
            worker.decide(policies, Mode::Enforce, &*host, CurrentConnection(host), now)
        });
        let Some(ruling) = ruling else { return Err(failed()) };
        ruling.record(&mut CurrentOutputs { host, counters: &self.counters });
        ruling.denial().map_or(Ok(ruling.lease()), |reason| Err(details(reason)))
    }

    /// Returns `true` if an earlier decision on the connection is still valid.
    pub(crate) fn holds(&self, host: &NetworkFilter<'_>, lease: &Lease) -> bool {
        self.configuration.with(host.worker_index(), |worker, _| worker.holds(lease, now)) == Some(true)
    }
}

/// The details of a denial because the filter failed.
pub(crate) fn failed() -> String {
    details(DenyReason::FilterFailed)
}

fn counters(host: &mut NetworkFilterConfig<'_>, policies: &PolicySet) -> Option<Counters> {
    let allowed = host.counter(MODULE_ALLOWED_COUNTER)?;
    let are_few = Count::by_policies(policies).nth(MAX_POLICY_COUNTERS).is_none();
    let by_policies = Count::by_policies(policies).filter(|_| are_few);
    let counts = Count::without_policies(policies).chain(by_policies);
    let decisions = counts.map(|count| Some((count.key(), host.counter(&count.name(MODULE_COUNTER))?)));
    Some(Counters { allowed, decisions: decisions.collect::<Option<_>>()? })
}

impl Connection for NetworkFilter<'_> {
    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure> {
        Ok(written(self.filter_state(PEER_CERTIFICATE_DIGEST)).map(<[u8]>::to_vec))
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(written(self.filter_state(PEER_CERTIFICATE)).map(<[u8]>::to_vec))
    }

    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        Ok(written(self.filter_state(PEER_CERTIFICATE)).is_some())
    }

    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        if !self.is_tls() {
            return Ok(Some(false));
        }
        if self.subject().is_some_and(|subject| !subject.is_empty()) {
            return Ok(Some(true));
        }
        // A certificate can have an empty subject. Without a subject, the filter state of the bootstrap must prove that no certificate was presented.
        Ok(self.filter_state(PEER_CERTIFICATE).map(|state| written(Some(state)).is_some()))
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.uri_sans().first().map(|san| san.to_vec()))
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        Ok(self.filter_state(PEER_CERTIFICATE_VALID).map(|valid| valid == b"true"))
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(self.filter_state(PEER_PRINCIPAL).filter(|principal| !principal.is_empty()).map(<[u8]>::to_vec))
    }
}

/// The current connection.
struct CurrentConnection<'h>(&'h NetworkFilter<'h>);

impl<'h> RequestAttributes for CurrentConnection<'h> {
    type Text = &'h [u8];
    type Headers = NoHeaders;

    fn headers(&self) -> Result<NoHeaders, HostFailure> {
        Ok(NoHeaders)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(self.0.address(Address::Local).map(|(_, port)| port.into()))
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        let of = match of {
            AddressOf::Source => Address::Direct,
            AddressOf::Remote => Address::Remote,
            AddressOf::Destination => Address::Local,
        };
        self.0.address(of).map(|(address, _)| parse(address)).transpose()
    }

    fn server_name(&self) -> Result<Option<&'h [u8]>, HostFailure> {
        Ok(self.0.server_name())
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        // Envoy does not expose the names of the filters to a network filter.
        Err(HostFailure)
    }
}

/// The outputs of the current connection.
struct CurrentOutputs<'o, 'h> {
    host: &'o mut NetworkFilter<'h>,
    counters: &'o Counters,
}

impl Outputs for CurrentOutputs<'_, '_> {
    const FACTS_ARE_STATE: bool = false;

    /// Returns `false`, because the outputs of a connection are shown with each decision.
    fn shows_peer(&self, _: &str) -> bool {
        false
    }

    /// The filter state of a network filter lasts for the connection.
    fn set_state(&mut self, fact: Fact, value: &str) {
        self.host.set_filter_state(fact.name(Layer::Tcp), value);
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)>) {
        for (fact, value) in facts {
            self.host.set_metadata(crate::NAME, fact.key(), value);
        }
    }

    fn count_allowed(&mut self) {
        self.host.increment(self.counters.allowed);
    }

    fn count(&mut self, count: &Count<'_>) {
        let decisions = &self.counters.decisions;
        let counter = decisions.get(&count.key()).or_else(|| decisions.get(&count.without_policy().key()));
        if let Some(counter) = counter {
            self.host.increment(*counter);
        }
    }

    fn log(&mut self, line: &str) {
        abi::log(Level::Warning, line);
    }
}

//! One Envoy with two listeners for each set of policies: one with the filter, one with Istio's RBAC filters. Both
//! decide requests, or both decide connections.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use serde_json::{Value, json};

use super::PolicySet;
use super::policies::PORT;
use crate::authority::{Leaf, Shape, client_config};
use crate::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER, TLS};
use crate::envoy::{Envoy, Start};
use crate::fixture::{Fixture, Validation};
use crate::http::Client;
use crate::istio;
use crate::port::ReservedPort;
use crate::tcp::{self, Database, First};
use crate::token::{METADATA, TokenKey, metadata_filter};

pub(super) const ISSUERS: [&str; 2] = ["https://issuer-a", "https://issuer-b"];
/// The addresses of the two listeners of a set. They share a port, so that policies can use it.
const OURS: [u8; 4] = [127, 0, 0, 1];
const ISTIO: [u8; 4] = [127, 0, 0, 3];

/// The SPIFFE IDs of the callers. The first caller has none.
const IDENTITIES: [&str; 7] = [
    "",
    "spiffe://example.org/ns/default/sa/sleep",
    "spiffe://example.org/ns/prod/sa/curl",
    "spiffe://example.org/ns/default/sa/curl",
    "spiffe://example.io/ns/default/sa/sleep",
    "spiffe://example.io/ns/prod/sa/curl",
    "spiffe://example.org/workload",
];
const SOURCES: [[u8; 4]; 2] = [[127, 0, 0, 1], [127, 0, 0, 2]];
const SERVER_NAMES: [Option<&str>; 2] = [None, Some("s.example")];

/// The layer of the decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// HTTP requests.
    Http,
    /// TCP connections.
    Tcp,
}

/// The layer and the adapter that are compared with Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The layer.
    pub layer: Layer,
    /// The adapter.
    pub adapter: Adapter,
}

/// The identity, address and server name of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    identity: usize,
    source: usize,
    server_name: usize,
}

impl Caller {
    /// The number of callers.
    pub(super) const ALL: usize = IDENTITIES.len() * SOURCES.len() * SERVER_NAMES.len();

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::ALL).map(|number| {
            let (number, identity) = (number / IDENTITIES.len(), number % IDENTITIES.len());
            Self { identity, source: number % SOURCES.len(), server_name: number / SOURCES.len() }
        })
    }

    pub(super) fn random(rng: &mut Rng) -> Self {
        Self {
            identity: rng.usize(..IDENTITIES.len()),
            source: rng.usize(..SOURCES.len()),
            server_name: rng.usize(..SERVER_NAMES.len()),
        }
    }

    fn id(&self) -> &'static str {
        IDENTITIES[self.identity]
    }

    pub(super) fn is_federated(&self) -> bool {
        self.id().starts_with("spiffe://example.io/")
    }

    pub(super) fn is_malformed(&self) -> bool {
        !self.id().is_empty() && !self.id().contains("/ns/")
    }

    pub(super) fn describe(&self) -> String {
        let id = if self.id().is_empty() { "no certificate" } else { self.id() };
        let source = IpAddr::from(SOURCES[self.source]);
        format!("{id}, from {source}, server name {}", SERVER_NAMES[self.server_name].unwrap_or("none"))
    }
}

pub(super) struct Environment {
    pub(super) comparison: Comparison,
    envoy: Envoy,
    leaves: Vec<Option<Leaf>>,
    ports: Vec<ReservedPort>,
    /// Tokens for requests.
    pub(super) tokens: Vec<String>,
    /// The key of the tokens.
    pub(super) key: TokenKey,
    fixture: Fixture,
}

/// Returns the document for a set of policies. Callers need no certificate.
pub(super) fn document(set: &PolicySet) -> Result<Value> {
    let mut document = istio::import(set)?;
    document["identity"] = json!({"peer": "optional"});
    Ok(document)
}

/// A connection to each of the two listeners of a set.
pub(super) struct Pair {
    ours: Client,
    istio: Client,
}

impl Pair {
    /// Returns the verdicts of the filter and of Istio on a request. `true` means allow.
    pub(super) fn decide(&mut self, bytes: &[u8]) -> Result<(bool, bool)> {
        let mut verdicts = [&mut self.ours, &mut self.istio].map(|client| -> Result<bool> {
            let response = client.raw(bytes)?;
            ensure!(matches!(response.status, 200 | 403), "status {}: {}", response.status, response.text());
            Ok(response.status == 200)
        });
        let [ours, istio] = &mut verdicts;
        Ok((std::mem::replace(ours, Ok(false))?, std::mem::replace(istio, Ok(false))?))
    }
}

impl Environment {
    pub(super) fn start(comparison: Comparison, sets: &[PolicySet]) -> Result<Self> {
        // The SPIFFE validator rejects a caller without a certificate, even if the listener does not require one.
        let fixture = Fixture::new(comparison.adapter, Validation::Pooled)?;
        let key = TokenKey::new()?;
        let database = Database::start(First::Client)?;
        let ports = sets.iter().map(|_| ReservedPort::new()).collect::<Result<Vec<_>>>()?;
        let sets: Vec<PolicySet> = sets.iter().zip(&ports).map(|(set, port)| with_port(set, port.number())).collect();
        let chain = match comparison.layer {
            Layer::Http => Chain::http(&fixture, &key)?,
            Layer::Tcp => Chain::tcp(&fixture, &database)?,
        };
        let mut listeners = Vec::new();
        for ((set, rbac), port) in sets.iter().zip(istio::rbac_filters(&sets)?).zip(&ports) {
            let rbac = match comparison.layer {
                Layer::Http => rbac.http,
                Layer::Tcp => rbac.tcp,
            };
            let ours = chain.filter(comparison.layer, &document(set)?)?;
            listeners.push(chain.listener(OURS, port.number(), &[ours])?);
            listeners.push(chain.listener(ISTIO, port.number(), &rbac)?);
        }
        let bootstrap = chain.base.clone().set("/static_resources/listeners", json!(listeners))?;
        let envoy = Envoy::start(&Start::tested("differential")?, &bootstrap, fixture.scratch.path())?;
        let certificate = |id: &str| if id.is_empty() { Ok(None) } else { leaf(&fixture, id).map(Some) };
        let leaves = IDENTITIES.into_iter().map(certificate).collect::<Result<_>>()?;
        Ok(Self { comparison, envoy, leaves, ports, tokens: tokens(&key)?, key, fixture })
    }

    pub(super) fn connect(&self, set: usize, caller: &Caller) -> Result<Pair> {
        Ok(Pair { ours: self.client(OURS, set, caller)?, istio: self.client(ISTIO, set, caller)? })
    }

    /// Connects to a set as the workload with this SPIFFE ID, or without a certificate.
    pub(super) fn connect_as(&self, set: usize, peer: Option<&str>, server_name: Option<&str>) -> Result<Pair> {
        let leaf = peer.map(|id| leaf(&self.fixture, id)).transpose()?;
        let [ours, istio] = [OURS, ISTIO].map(|address| {
            let address = SocketAddr::from((address, self.ports[set].number()));
            Client::tls_from(SOURCES[0].into(), address, client_config(leaf.as_ref())?, server_name)
        });
        Ok(Pair { ours: ours?, istio: istio? })
    }

    /// Returns the verdicts of the filter and of Istio on a connection. `true` means allow.
    pub(super) fn admits(&self, set: usize, caller: &Caller) -> Result<(bool, bool)> {
        let echoes = |address| tcp::echoes(self.client(address, set, caller)?).with_context(|| caller.describe());
        Ok((echoes(OURS)?, echoes(ISTIO)?))
    }

    fn client(&self, address: [u8; 4], set: usize, caller: &Caller) -> Result<Client> {
        let config = client_config(self.leaves[caller.identity].as_ref())?;
        let address = SocketAddr::from((address, self.ports[set].number()));
        let source = IpAddr::from(SOURCES[caller.source]);
        Client::tls_from(source, address, config, SERVER_NAMES[caller.server_name])
            .with_context(|| format!("{}\n{}", caller.describe(), self.envoy.log().unwrap_or_default()))
    }
}

/// Signs the certificate of a workload.
fn leaf(fixture: &Fixture, id: &str) -> Result<Leaf> {
    let authority = if id.starts_with("spiffe://example.io/") { &fixture.federated } else { &fixture.local };
    authority.sign(&Shape::svid(id))
}

/// The parts of a listener except the filters that decide.
struct Chain {
    base: Bootstrap,
    /// The JSON pointer of the filters in the listener.
    pointer: &'static str,
    before: Vec<Value>,
    /// The filter after those that decide.
    last: Value,
}

impl Chain {
    fn http(fixture: &Fixture, key: &TokenKey) -> Result<Self> {
        let base = fixture
            .bootstrap()?
            .set(&format!("{CONNECTION_MANAGER}/access_log"), json!([]))?
            // Both must get the path that the client sent.
            .set(&format!("{CONNECTION_MANAGER}/normalize_path"), json!(false))?
            .set(&format!("{CONNECTION_MANAGER}/merge_slashes"), json!(false))?
            .set(&format!("{CONNECTION_MANAGER}/path_with_escaped_slashes_action"), json!("KEEP_UNCHANGED"))?
            .set(&format!("{TLS}/require_client_certificate"), json!(false))?
            .set(
                &format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes"),
                json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]),
            )?;
        let pointer = "/filter_chains/0/filters/1/typed_config/http_filters";
        let before = vec![key.filter(&ISSUERS), metadata_filter(&json!({"zone": "abc", "list": ["x", "y"]}))];
        let with_before = base.clone().filters_before(before, &METADATA)?;
        let [before @ .., _, last] = filters(&with_before, pointer)? else {
            bail!("expected at least two filters in the example")
        };
        Ok(Self { before: before.to_vec(), last: last.clone(), base, pointer })
    }

    fn tcp(fixture: &Fixture, database: &Database) -> Result<Self> {
        let base = fixture.tcp_bootstrap(database)?.set(&format!("{TLS}/require_client_certificate"), json!(false))?;
        let pointer = "/filter_chains/0/filters";
        let [before @ .., _, last] = filters(&base, pointer)? else {
            bail!("expected at least two filters in the example")
        };
        Ok(Self { before: before.to_vec(), last: last.clone(), base, pointer })
    }

    /// Returns the filter of the example with this document.
    fn filter(&self, layer: Layer, document: &Value) -> Result<Value> {
        let (base, text) = (self.base.clone(), document.to_string());
        let configured = match layer {
            Layer::Http => base.configuration(&text)?,
            Layer::Tcp => base.tcp_configuration(&text)?,
        };
        let [.., filter, _] = filters(&configured, self.pointer)? else {
            bail!("expected at least two filters in the example")
        };
        Ok(filter.clone())
    }

    fn listener(&self, address: [u8; 4], port: u16, deciding: &[Value]) -> Result<Value> {
        let mut listener = self.base.at("/static_resources/listeners/0")?.clone();
        listener["name"] = json!(format!("{address:?}:{port}"));
        listener["address"]["socket_address"] = json!({"address": IpAddr::from(address), "port_value": port});
        let filters = [&self.before, deciding, std::slice::from_ref(&self.last)].concat();
        *listener.pointer_mut(self.pointer).context("no filters")? = json!(filters);
        Ok(listener)
    }
}

/// Returns the filters of the example's listener.
fn filters<'b>(base: &'b Bootstrap, pointer: &str) -> Result<&'b [Value]> {
    Ok(base.at(&format!("/static_resources/listeners/0{pointer}"))?.as_array().context("no filters")?)
}

fn tokens(key: &TokenKey) -> Result<Vec<String>> {
    Ok(vec![
        key.sign(json!({"iss": ISSUERS[0], "sub": "alice", "aud": ["web", "api"], "azp": "app", "groups": ["dev", 5],
                        "realm": {"roles": ["admin"]}, "level": 7}))?,
        key.sign(json!({"iss": ISSUERS[1], "sub": "bob", "aud": "api", "groups": "ops"}))?,
        key.sign(json!({"iss": ISSUERS[0], "sub": "al", "realm": "roles"}))?,
    ])
}

fn with_port(set: &PolicySet, port: u16) -> PolicySet {
    let text = Value::from(set.clone()).to_string().replace(PORT, &port.to_string());
    serde_json::from_str(&text).unwrap_or_default()
}

//! The environment of the federated examples: SPIRE of both trust domains, httpbin with its Envoy, the gateway, and an
//! Envoy for each caller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::authority::{Authority, Leaf, Shape};
use crate::bootstrap::{Adapter, Bootstrap, GATEWAY_HOST, SERVER_HOST};
use crate::environment::{SVID_TTL, await_identity, envoy};
use crate::envoy::{Envoy, Epoch, Start};
use crate::http::Client;
use crate::relay::Relay;
use crate::scenario::{Answer, Certificate, Server, TestEnvironment, Workload};
use crate::spire::{self, Federated, Spire};
use crate::upstream::Upstream;
use crate::{port, tools};

/// The trust domain of httpbin and the gateway.
pub const LOCAL: &str = "example.org";
/// The trust domain that it federates with.
pub const FEDERATED: &str = "example.io";
/// A trust domain that example.org does not federate with, although it has the bundle.
pub const OUTSIDER: &str = "example.net";

/// One of the two trust domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// example.org, the trust domain of httpbin.
    Local,
    /// example.io, the federated trust domain.
    Federated,
}

impl Side {
    /// Returns the other trust domain.
    #[must_use]
    pub const fn across(self) -> Self {
        match self {
            Self::Local => Self::Federated,
            Self::Federated => Self::Local,
        }
    }
}

/// The callers of the examples: trust domain and service account.
pub const CALLERS: [(&str, &str); 4] =
    [(LOCAL, "sleep"), (LOCAL, "stranger"), (FEDERATED, "sleep"), (FEDERATED, "web")];

/// The `federates_with` of httpbin and the gateway in the examples. Here, they also get the bundle of the outsider.
const FEDERATES_WITH: &str = "\"federates_with\": [\"spiffe://example.io\"]";
const KNOWS: &str = "\"federates_with\": [\"spiffe://example.io\", \"spiffe://example.net\"]";

/// Two federated trust domains with their workloads.
#[derive(Debug)]
pub struct Federation<'d> {
    // Fields are dropped in this order: the Envoys use SPIRE.
    callers: BTreeMap<String, Envoy>,
    /// The gateway.
    pub gateway: Envoy,
    /// The Envoy of httpbin.
    pub httpbin: Envoy,
    /// The workload httpbin.
    pub upstream: Upstream,
    /// SPIRE of example.org.
    pub local: Domain,
    /// SPIRE of example.io.
    pub federated: Domain,
    outsider: Authority,
    changes: Changes,
    epoch: u32,
    directory: &'d Path,
}

/// A trust domain, and a relay to its bundle endpoint.
#[derive(Debug)]
pub struct Domain {
    /// The server and the agent.
    pub spire: Spire,
    /// The relay through which the other trust domain reaches the bundle endpoint.
    pub endpoint: Relay,
    authority: Authority,
}

/// The differences between environments.
#[derive(Debug, Clone, Copy)]
pub struct Changes {
    /// The adapter in the Envoys of httpbin and the gateway.
    pub adapter: Adapter,
    /// The lifetime of SVIDs.
    pub ttl: Duration,
    /// Changes the bootstrap of httpbin.
    pub httpbin: fn(Bootstrap, &Path) -> Result<Bootstrap>,
    /// Changes the bootstrap of the gateway.
    pub gateway: fn(Bootstrap) -> Result<Bootstrap>,
    /// Changes the bootstrap of every client.
    pub client: fn(Bootstrap) -> Result<Bootstrap>,
}

impl Changes {
    /// No changes to the examples.
    pub const NONE: Self =
        Self { adapter: Adapter::Wasm, ttl: SVID_TTL, httpbin: |bootstrap, _| Ok(bootstrap), gateway: Ok, client: Ok };
}

impl<'d> Federation<'d> {
    /// Starts SPIRE, the Envoys and the workload.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub fn start(directory: &'d Path, changes: Changes) -> Result<Self> {
        let outsider = Authority::new(OUTSIDER)?;
        let [local, federated] = domains(directory, changes.ttl, &outsider)?;
        let upstream = Upstream::start()?;
        let bootstrap = Bootstrap::federated_server(changes.adapter, upstream.port())?.agent(&local.spire.socket())?;
        let httpbin = start_httpbin(&local.spire, &(changes.httpbin)(bootstrap, directory)?, directory, 0)?;
        let bootstrap = Bootstrap::gateway(changes.adapter, httpbin.address()?)?.agent(&local.spire.socket())?;
        let gateway = envoy(&local.spire, "gateway", "gateway", &(changes.gateway)(bootstrap)?, directory)?;
        let mut callers = BTreeMap::new();
        for (trust_domain, name) in CALLERS {
            let spire = if trust_domain == LOCAL { &local.spire } else { &federated.spire };
            let bootstrap = Bootstrap::federated_client(httpbin.address()?, gateway.address()?)?;
            let bootstrap = (changes.client)(bootstrap.agent(&spire.socket())?)?;
            let caller = envoy(spire, name, &format!("{trust_domain}-{name}"), &bootstrap, directory)?;
            await_identity(&caller)?;
            callers.insert(format!("{trust_domain}/{name}"), caller);
        }
        await_identity(&gateway)?;
        Ok(Self { callers, gateway, httpbin, upstream, local, federated, outsider, changes, epoch: 0, directory })
    }

    /// Returns the Envoy of a caller.
    ///
    /// # Errors
    /// Returns an error if this caller does not exist.
    pub fn caller(&self, trust_domain: &str, name: &str) -> Result<&Envoy> {
        let name = format!("{trust_domain}/{name}");
        self.callers.get(&name).with_context(|| format!("unknown caller {name}"))
    }

    /// Returns every Envoy.
    pub fn envoys(&self) -> impl Iterator<Item = &Envoy> {
        self.callers.values().chain([&self.gateway, &self.httpbin])
    }

    /// Returns the reasons for which httpbin's Envoy has denied requests.
    ///
    /// # Errors
    /// Returns an error if the admin interface does not respond.
    pub fn deny_reasons(&self) -> Result<BTreeSet<String>> {
        let stats = self.httpbin.admin("/stats?usedonly&filter=spiffe_authz")?.text();
        let reasons = stats.lines().filter_map(|line| self.changes.adapter.deny_reason(line));
        Ok(reasons.map(str::to_owned).collect())
    }

    /// Returns the Envoys of a trust domain.
    pub fn envoys_of(&self, side: Side) -> impl Iterator<Item = &Envoy> {
        let is_local = side == Side::Local;
        let callers = self.callers.iter().filter(move |(name, _)| name.starts_with(LOCAL) == is_local);
        let servers = [&self.gateway, &self.httpbin].into_iter().filter(move |_| is_local);
        callers.map(|(_, envoy)| envoy).chain(servers)
    }

    /// Returns one of the two trust domains.
    #[must_use]
    pub const fn domain(&self, side: Side) -> &Domain {
        match side {
            Side::Local => &self.local,
            Side::Federated => &self.federated,
        }
    }

    /// Returns one of the two trust domains for changes.
    pub const fn domain_mut(&mut self, side: Side) -> &mut Domain {
        match side {
            Side::Local => &mut self.local,
            Side::Federated => &mut self.federated,
        }
    }

    /// Returns the bootstrap of httpbin's Envoy, before it is adapted to this environment.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn example(&self) -> Result<Bootstrap> {
        Bootstrap::federated_server(self.changes.adapter, self.upstream.port())
    }

    /// The directory of the environment.
    #[must_use]
    pub const fn directory(&self) -> &'d Path {
        self.directory
    }

    /// Replaces httpbin's Envoy while both run (hot restart).
    ///
    /// # Errors
    /// Returns an error if the successor does not start, or the old Envoy does not end.
    pub fn restart_httpbin(&mut self) -> Result<()> {
        let port = self.httpbin.address()?.port();
        let bootstrap = self.example()?.agent(&self.local.spire.socket())?;
        let bootstrap = (self.changes.httpbin)(bootstrap, self.directory)?.listening_on(port)?;
        self.epoch += 1;
        let successor = start_httpbin(&self.local.spire, &bootstrap, self.directory, self.epoch)?;
        std::mem::replace(&mut self.httpbin, successor).wait_for_end()
    }

    fn address(&self, server: Server) -> Result<SocketAddr> {
        match server {
            Server::Httpbin => self.httpbin.address(),
            Server::Gateway => self.gateway.address(),
        }
    }

    fn authority(&self, trust_domain: &str) -> Result<&Authority> {
        match trust_domain {
            LOCAL => Ok(&self.local.authority),
            FEDERATED => Ok(&self.federated.authority),
            OUTSIDER => Ok(&self.outsider),
            _ => anyhow::bail!("unknown authority {trust_domain}"),
        }
    }
}

impl Domain {
    /// Mints an X509-SVID on the server for a path such as `/ns/default/sa/sleep`.
    ///
    /// # Errors
    /// Returns an error if the server fails.
    pub fn mint(&self, path: &str) -> Result<Leaf> {
        let (certificate, key) = self.spire.server.mint(path)?;
        Ok(Leaf::new(certificate, key))
    }
}

impl TestEnvironment for Federation<'_> {
    fn by_workload(&self, workload: &Workload, to: Server, method: &str, path: &str) -> Result<Answer> {
        let caller = self.caller(&workload.trust_domain, &workload.name)?;
        let answer = Client::plain(caller.address()?)?.request_of(host(to), method, path, &[])?;
        Ok(Answer::Status(answer.status))
    }

    fn by_certificate(&self, certificate: &Certificate, to: Server, method: &str, path: &str) -> Result<Answer> {
        let leaf = self.authority(&certificate.authority)?.sign(&Shape::svid(&certificate.id))?;
        Answer::of(leaf.connect(self.address(to)?).and_then(|mut client| client.request(method, path, &[])))
    }

    fn access_log(&self, server: Server) -> Result<Vec<Value>> {
        match server {
            Server::Httpbin => self.httpbin.access_log(),
            Server::Gateway => self.gateway.access_log(),
        }
    }
}

/// Returns the host in requests to a client's Envoy.
#[must_use]
pub const fn host(server: Server) -> &'static str {
    match server {
        Server::Httpbin => SERVER_HOST,
        Server::Gateway => GATEWAY_HOST,
    }
}

/// Starts both SPIRE servers and federates them. example.org also gets the bundle of the outsider.
fn domains(directory: &Path, ttl: Duration, outsider: &Authority) -> Result<[Domain; 2]> {
    let ports = [port::free()?, port::free()?];
    let relays = [Relay::start(ports[0])?, Relay::start(ports[1])?];
    let start = |trust_domain: &str, port, with: &str, relay: &Relay| {
        let federated = Federated { port, with: with.to_owned(), their_port: relay.port() };
        spire::Server::start(&directory.join(trust_domain), trust_domain, Some(federated))
    };
    let local = start(LOCAL, ports[0], FEDERATED, &relays[1])?;
    let federated = start(FEDERATED, ports[1], LOCAL, &relays[0])?;
    local.learn(FEDERATED, "spiffe", &federated.command(&["bundle", "show", "-format", "spiffe"])?)?;
    federated.learn(LOCAL, "spiffe", &local.command(&["bundle", "show", "-format", "spiffe"])?)?;
    local.learn(OUTSIDER, "pem", outsider.certificate())?;
    let [to_local, to_federated] = relays;
    let domain = |server: spire::Server, endpoint, substitutions: &[(&str, &str)]| -> Result<Domain> {
        let certificate = server.authorities()?.concat();
        let authority = Authority::stolen(server.trust_domain(), &certificate, &server.stolen_key()?)?;
        let entries = format!("federation/spire/entries-{}.json", server.trust_domain());
        Ok(Domain { spire: Spire::register(server, &entries, ttl, substitutions)?, endpoint, authority })
    };
    Ok([domain(local, to_local, &[(FEDERATES_WITH, KNOWS)])?, domain(federated, to_federated, &[])?])
}

fn start_httpbin(spire: &Spire, bootstrap: &Bootstrap, directory: &Path, number: u32) -> Result<Envoy> {
    let program: PathBuf = spire.workload("httpbin", &tools::path(tools::ENVOY)?)?;
    let name = format!("httpbin-{number}");
    let epoch = Epoch { number, base_id: &directory.join("httpbin.base-id") };
    Envoy::start_epoch(&Start { program, name: &name, arguments: &[] }, bootstrap, directory, epoch)
}

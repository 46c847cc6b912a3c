//! The variants that are measured: an Envoy for each filter and number of policies.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::Fixture;
use spiffe_authz_integration::istio;
use spiffe_authz_integration::tools;

use crate::policies::{Kind, policies};
use crate::{authorization_server, peers};

/// The numbers of policies.
const COUNTS: [u32; 4] = [1, 100, 1000, 10_000];
/// The numbers of policies for Istio's RBAC filter. With 10,000, a request would take a millisecond.
const RBAC_COUNTS: [u32; 3] = [1, 100, 1000];
/// The number of policies of `Kind::Callers`.
const CALLERS: u32 = 1000;
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The number of policies in the measurement of compilation.
const COMPILED: u32 = 10_000;

/// The filter in the Envoy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decider {
    Nothing,
    EmptyWasm,
    EmptyModule,
    IstiosRbac,
    MatcherTree,
    Lua,
    ExtAuthz,
    Ours(Adapter),
}

impl Decider {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no filter",
            Self::EmptyWasm => "empty Wasm filter",
            Self::EmptyModule => "empty module",
            Self::IstiosRbac => "Istio's RBAC",
            Self::MatcherTree => "RBAC's matcher tree",
            Self::Lua => "Lua",
            Self::ExtAuthz => "ext_authz, always allows",
            Self::Ours(Adapter::Wasm) => "spiffe-authz, Wasm",
            Self::Ours(Adapter::Module) => "spiffe-authz, module",
        }
    }

    /// Returns `true` if the filter denies other callers.
    pub(crate) const fn denies(self) -> bool {
        match self {
            Self::Nothing | Self::EmptyWasm | Self::EmptyModule | Self::ExtAuthz => false,
            Self::IstiosRbac | Self::MatcherTree | Self::Lua | Self::Ours(_) => true,
        }
    }
}

/// The filter of a variant, and its policies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) decider: Decider,
    /// The form and the number of the policies.
    pub(crate) policies: Option<(Kind, u32)>,
}

impl Subject {
    pub(crate) const fn of(decider: Decider, kind: Kind, count: u32) -> Self {
        Self { decider, policies: Some((kind, count)) }
    }

    pub(crate) const fn plain(decider: Decider) -> Self {
        Self { decider, policies: None }
    }

    pub(crate) fn name(self) -> String {
        let decider = self.decider.name();
        match self.policies {
            None => decider.to_owned(),
            Some((Kind::Paths, 1)) => format!("{decider}, 1 policy"),
            Some((Kind::Paths, count)) => format!("{decider}, {count} policies"),
            Some((Kind::Callers, count)) => format!("{decider}, {count} policies of serviceAccounts"),
        }
    }
}

/// A running Envoy.
pub(crate) struct Variant<'g> {
    pub(crate) subject: Subject,
    pub(crate) fixture: &'g Fixture,
    pub(crate) envoy: Envoy,
}

/// The configuration of an Envoy that is not running.
pub(crate) struct Configured<'g> {
    pub(crate) subject: Subject,
    fixture: &'g Fixture,
    bootstrap: Bootstrap,
}

impl<'g> Configured<'g> {
    /// Starts an Envoy.
    pub(crate) fn start(&self) -> Result<Variant<'g>> {
        self.start_with(&tools::path(tools::ENVOY)?, READY_LIMIT)
    }

    /// Starts an Envoy with this program, and waits until it is ready.
    pub(crate) fn start_with(&self, program: &Path, limit: Duration) -> Result<Variant<'g>> {
        let Self { subject, fixture, bootstrap } = self;
        let name = subject.name().replace([' ', ',', '\''], "-");
        let start = Start { program: program.to_owned(), ..Start::tested(&name)? };
        let envoy = Envoy::start_within(limit, &start, bootstrap, fixture.scratch.path())?;
        Ok(Variant { subject: *subject, fixture, envoy })
    }
}

/// The fixtures and bootstraps of the variants.
pub(crate) struct Fixtures<'g> {
    wasm: (&'g Fixture, Bootstrap),
    module: (&'g Fixture, Bootstrap),
}

impl<'g> Fixtures<'g> {
    pub(crate) fn new(wasm: &'g Fixture, module: &'g Fixture) -> Result<Self> {
        Ok(Self { wasm: (wasm, quiet(wasm.bootstrap()?)?), module: (module, quiet(module.bootstrap()?)?) })
    }

    /// Configures every variant.
    pub(crate) fn variants(&self) -> Result<Vec<Configured<'g>>> {
        let of_paths =
            |counts: &'static [u32]| counts.iter().map(|count| (Kind::Paths, *count)).chain([(Kind::Callers, CALLERS)]);
        let mut variants = vec![self.nothing()?, self.empty_wasm()?, self.empty_module()?];
        for (kind, count) in of_paths(&RBAC_COUNTS) {
            variants.push(self.rbac(kind, count)?);
        }
        for count in COUNTS {
            let tree = Subject::of(Decider::MatcherTree, Kind::Paths, count);
            variants.push(self.peer(tree, peers::matcher_tree(count))?);
        }
        variants.push(self.peer(Subject::of(Decider::Lua, Kind::Paths, 1), peers::lua())?);
        variants.push(self.ext_authz()?);
        for adapter in Adapter::ALL {
            for (kind, count) in of_paths(&COUNTS) {
                variants.push(self.ours(adapter, kind, count)?);
            }
        }
        Ok(variants)
    }

    fn nothing(&self) -> Result<Configured<'g>> {
        let (fixture, base) = &self.wasm;
        Ok(Configured { subject: Subject::plain(Decider::Nothing), fixture, bootstrap: replaced(base, Vec::new())? })
    }

    fn empty_wasm(&self) -> Result<Configured<'g>> {
        let mut filter = first_filter(&self.wasm.1)?;
        let code = &mut filter["typed_config"]["config"]["vm_config"]["code"];
        code["local"]["filename"] = json!(tools::path(tools::EMPTY_WASM)?);
        self.peer(Subject::plain(Decider::EmptyWasm), filter)
    }

    /// The empty module gets no certificate, so its listener is that of the Wasm filter.
    fn empty_module(&self) -> Result<Configured<'g>> {
        let mut filter = first_filter(&self.module.1)?;
        let module = &mut filter["typed_config"]["dynamic_module_config"]["module"];
        module["local"]["filename"] = json!(tools::path(tools::EMPTY_MODULE)?);
        self.peer(Subject::plain(Decider::EmptyModule), filter)
    }

    fn ext_authz(&self) -> Result<Configured<'g>> {
        let (fixture, base) = &self.wasm;
        let clusters = "/static_resources/clusters";
        let mut list = base.at(clusters)?.as_array().context("no clusters")?.clone();
        list.push(peers::authorization_cluster(authorization_server::start()?));
        let bootstrap = replaced(base, vec![peers::ext_authz()])?.set(clusters, json!(list))?;
        Ok(Configured { subject: Subject::plain(Decider::ExtAuthz), fixture, bootstrap })
    }

    fn peer(&self, subject: Subject, filter: Value) -> Result<Configured<'g>> {
        let (fixture, base) = &self.wasm;
        Ok(Configured { subject, fixture, bootstrap: replaced(base, vec![filter])? })
    }

    fn rbac(&self, kind: Kind, count: u32) -> Result<Configured<'g>> {
        let (fixture, base) = &self.wasm;
        let set = policies(kind, count);
        let filters =
            istio::rbac_filters(std::slice::from_ref(&set))?.pop().context("Istio generated no filters")?.http;
        let subject = Subject::of(Decider::IstiosRbac, kind, count);
        Ok(Configured { subject, fixture, bootstrap: replaced(base, filters)? })
    }

    fn ours(&self, adapter: Adapter, kind: Kind, count: u32) -> Result<Configured<'g>> {
        let (fixture, base) = match adapter {
            Adapter::Wasm => &self.wasm,
            Adapter::Module => &self.module,
        };
        let bootstrap = base.clone().configuration(&istio::import(&policies(kind, count))?.to_string())?;
        Ok(Configured { subject: Subject::of(Decider::Ours(adapter), kind, count), fixture, bootstrap })
    }

    /// Returns the time and memory of compilation in the VMs of one Envoy, from the log lines of the Wasm filter.
    pub(crate) fn compiling(&self) -> Result<String> {
        let mut times = Vec::new();
        let mut largest = 0;
        for kind in [Kind::Paths, Kind::Callers] {
            let log = self.ours(Adapter::Wasm, kind, COMPILED)?.start()?.envoy.log()?;
            let compilations: Vec<(u64, u64)> = log.lines().filter_map(compiled).collect();
            // Envoy configures a trial VM, a base VM, and one for each worker.
            ensure!(compilations.len() >= 2, "the filter logs no compilation:\n{log}");
            for (milliseconds, mebibytes) in compilations {
                times.push(milliseconds);
                largest = largest.max(mebibytes);
            }
        }
        times.sort_unstable();
        let (fastest, slowest) = (times.first().context("no time")?, times.last().context("no time")?);
        Ok(format!(
            "{COMPILED} policies, compiled in Envoy's VM: {fastest} to {slowest} ms, at most {largest} MiB of memory."
        ))
    }
}

/// The server without an upstream and an access log, which add noise to every variant.
pub(crate) fn quiet(server: Bootstrap) -> Result<Bootstrap> {
    server.connection_manager(json!({
        "access_log": [],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
        }]}
    }))
}

/// Returns the filter in front of the router.
fn first_filter(base: &Bootstrap) -> Result<Value> {
    Ok(base.at(&format!("{CONNECTION_MANAGER}/http_filters/0"))?.clone())
}

/// Replaces the filter with these filters.
pub(crate) fn replaced(base: &Bootstrap, mut filters: Vec<Value>) -> Result<Bootstrap> {
    let list = format!("{CONNECTION_MANAGER}/http_filters");
    filters.extend(base.at(&list)?.as_array().context("no filters")?.last().cloned());
    base.clone().set(&list, json!(filters))
}

/// Parses the milliseconds and MiB in a line such as `… spiffe-authz: 7 policies compiled in 8 ms; the VM has 9 MiB`.
fn compiled(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once(&format!("{COMPILED} policies compiled in "))?;
    let mut words = rest.split_whitespace();
    let milliseconds = words.next()?.parse().ok()?;
    let mebibytes = words.nth(4)?.parse().ok()?;
    Some((milliseconds, mebibytes))
}

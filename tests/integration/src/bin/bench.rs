//! Envoy's CPU time per request, with and without the filter, beside Istio's RBAC for the same policies, in one run; and
//! what compiling ten thousand policies takes inside Envoy.
//!
//! Run it by `cargo xtask bench`, which gets everything that it needs. Arguments: requests per round, rounds.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::guarded::{Ground, Validation};
use spiffe_authz_integration::istio::{self, PolicySet};
use spiffe_authz_integration::tools;

const CONNECTIONS: u32 = 4;
/// Requests before the first round, for caches and the JIT compiler.
const WARM_UP: u32 = 4000;
/// Policies that are many.
const MANY: u32 = 1000;
/// Policies that are compiled.
const COMPILED: u32 = 10_000;

/// What a policy says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A caller by `principals`, which Istio compares as text, GET, and a path of its own.
    Paths,
    /// A caller by `serviceAccounts`, which is a regular expression in Istio, and nothing else.
    Callers,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let requests = arguments.next().context("how many requests?")??;
    let rounds = arguments.next().context("how many rounds?")??;
    let ground = Ground::new(Validation::Spiffe)?;
    let bed = Bed::new(&ground)?;
    println!("{}\n", bed.compiling()?);
    let variants = bed.variants()?;
    for (name, envoy) in &variants {
        eprintln!("warming up: {name}");
        microseconds_per_request(&ground, envoy, WARM_UP)?;
    }
    let mut measured = vec![Vec::new(); variants.len()];
    for round in 1..=rounds {
        for ((_, envoy), measured) in variants.iter().zip(&mut measured) {
            measured.push(microseconds_per_request(&ground, envoy, requests)?);
        }
        eprintln!("round {round} of {rounds}");
    }
    let names: Vec<&str> = variants.iter().map(|(name, _)| &**name).collect();
    print_table(&names, &measured, requests, rounds);
    Ok(())
}

/// What the Envoys have in common.
struct Bed<'g> {
    ground: &'g Ground,
    base: Bootstrap,
    ours: Value,
    router: Value,
}

impl<'g> Bed<'g> {
    fn new(ground: &'g Ground) -> Result<Self> {
        let base = ground
            .bootstrap()?
            // No upstream and no log: less noise, the same for all.
            .set(&format!("{CONNECTION_MANAGER}/access_log"), json!([]))?
            .set(
                &format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes"),
                json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]),
            )?;
        let filters = base.at(&format!("{CONNECTION_MANAGER}/http_filters"))?;
        let [ours, router] = filters.as_array().context("no filters")?.as_slice() else {
            anyhow::bail!("the example does not have two filters");
        };
        let (ours, router) = (ours.clone(), router.clone());
        Ok(Self { ground, base, ours, router })
    }

    /// An Envoy with these filters before the router.
    fn start(&self, name: &str, mut filters: Vec<Value>) -> Result<(String, Envoy)> {
        filters.push(self.router.clone());
        let bootstrap = self.base.clone().set(&format!("{CONNECTION_MANAGER}/http_filters"), json!(filters))?;
        let file = name.replace([' ', ','], "-");
        Ok((name.to_owned(), Envoy::start(&Start::tested(&file)?, &bootstrap, self.ground.scratch.path())?))
    }

    fn filter(&self, policies: &PolicySet) -> Result<Value> {
        let mut filter = self.ours.clone();
        filter["typed_config"]["config"]["configuration"]["value"] = json!(istio::import(policies)?.to_string());
        Ok(filter)
    }

    /// Every variant, running.
    fn variants(&self) -> Result<Vec<(String, Envoy)>> {
        let mut empty = self.ours.clone();
        empty["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] =
            json!(tools::path(tools::EMPTY_WASM)?);
        let mut variants = vec![self.start("no filter", vec![])?, self.start("empty Wasm filter", vec![empty])?];
        for (words, kind, count) in [
            ("1 policy", Kind::Paths, 1),
            ("1000 policies of principals and paths", Kind::Paths, MANY),
            ("1000 policies of serviceAccounts", Kind::Callers, MANY),
        ] {
            let policies = policies(kind, count);
            let rbac =
                istio::rbac_filters(std::slice::from_ref(&policies))?.pop().context("no filters of Istio's")?.http;
            variants.push(self.start(&format!("spiffe-authz, {words}"), vec![self.filter(&policies)?])?);
            variants.push(self.start(&format!("Istio's RBAC, {words}"), rbac)?);
        }
        Ok(variants)
    }

    /// What the filter itself logs of compiling, inside Envoy, by Envoy's clock: from the fastest to the slowest of its VMs.
    fn compiling(&self) -> Result<String> {
        let mut times = Vec::new();
        let mut largest = 0;
        for kind in [Kind::Paths, Kind::Callers] {
            let (_, envoy) = self.start("compiling", vec![self.filter(&policies(kind, COMPILED))?])?;
            let log = envoy.log()?;
            let told: Vec<(u64, u64)> = log.lines().filter_map(compiled).collect();
            // Envoy configures a trial VM, a base VM, and one for each worker.
            ensure!(told.len() >= 2, "the filter does not tell what compiling took:\n{log}");
            for (milliseconds, mebibytes) in told {
                times.push(milliseconds);
                largest = largest.max(mebibytes);
            }
        }
        times.sort_unstable();
        let (fastest, slowest) = (times.first().context("no time")?, times.last().context("no time")?);
        Ok(format!(
            "{COMPILED} policies, in Envoy's VM: compiled in {fastest} to {slowest} ms; at most {largest} MiB of memory"
        ))
    }
}

/// Milliseconds and MiB in a line such as `… spiffe-authz: 7 policies compiled in 8 ms; the VM has 9 MiB`.
fn compiled(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once(&format!("{COMPILED} policies compiled in "))?;
    let mut words = rest.split_whitespace();
    let milliseconds = words.next()?.parse().ok()?;
    let mebibytes = words.nth(4)?.parse().ok()?;
    Some((milliseconds, mebibytes))
}

/// The last of `count` policies lets the caller in.
fn policies(kind: Kind, count: u32) -> PolicySet {
    let one = |number: u32| {
        let is_last = number + 1 == count;
        let account = if is_last { "sleep".to_owned() } else { format!("other-{number}") };
        let path = if is_last { "status".to_owned() } else { format!("p{number}") };
        let rule = match kind {
            Kind::Paths => json!({
                "from": [{"source": {"principals": [format!("example.org/ns/default/sa/{account}")]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": [format!("/{path}/*")]}}]
            }),
            Kind::Callers => json!({"from": [{"source": {"serviceAccounts": [account]}}]}),
        };
        json!({"name": format!("p{number:05}"), "namespace": "default", "spec": {"rules": [rule]}})
    };
    (0..count).map(one).collect()
}

fn microseconds_per_request(ground: &Ground, envoy: &Envoy, requests: u32) -> Result<f64> {
    let address = envoy.address()?;
    let before = envoy.cpu_ticks()?;
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = ground.leaf("default", "sleep")?.connect(address)?;
                    for _ in 0..requests / CONNECTIONS {
                        let status = client.get("/status/200")?.status;
                        ensure!(status == 200, "status {status}");
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let ticks = u32::try_from(envoy.cpu_ticks()? - before)?;
    // Linux counts in hundredths of a second for user space (time(7), "USER_HZ").
    Ok(f64::from(ticks) * 10_000.0 / f64::from(requests))
}

fn print_table(names: &[&str], measured: &[Vec<f64>], requests: u32, rounds: u32) {
    println!(
        "{rounds} rounds of {requests} requests over {CONNECTIONS} mTLS connections; Envoy's CPU time per request,"
    );
    println!("user and system, in microseconds: median (lowest to highest round).\n");
    println!("| Variant | µs per request | over no filter | over the empty Wasm filter |");
    println!("|---|---|---|---|");
    let medians: Vec<f64> = measured.iter().map(|values| median(values)).collect();
    let over = |own: f64| own - medians[0];
    for ((name, values), own) in names.iter().zip(measured).zip(&medians) {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {own:.1} ({low:.1} to {high:.1}) | {:+.1} | {:+.1} |", over(*own), own - medians[1]);
    }
    println!();
    for (position, name) in names.iter().enumerate().filter(|(_, name)| name.starts_with("Istio's RBAC, 1000")) {
        // The filter with the same policies stands before it.
        let (ours, istio) = (over(medians[position - 1]), over(medians[position]));
        println!("{name}: {:.0} times what the filter costs, both over no filter", istio / ours);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

//! Envoy's CPU time per request, with and without the filter, side by side in one run.
//!
//! Run it by `cargo xtask bench`, which gets everything that it needs. Arguments: requests per round, rounds.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::guarded::{Ground, Validation};
use spiffe_authz_integration::tools;

const CONNECTIONS: u32 = 4;
/// Requests before the first round, for caches and the JIT compiler.
const WARM_UP: u32 = 4000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let requests = arguments.next().context("how many requests?")??;
    let rounds = arguments.next().context("how many rounds?")??;
    let ground = Ground::new(Validation::Spiffe)?;
    let variants = variants(&ground)?;
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
    print_table(&variants, &measured, requests, rounds);
    Ok(())
}

/// Every variant, running.
fn variants(ground: &Ground) -> Result<Vec<(String, Envoy)>> {
    let base = ground
        .bootstrap()?
        // No upstream and no log: less noise, the same for all.
        .set(&format!("{CONNECTION_MANAGER}/access_log"), json!([]))?
        .set(
            &format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes"),
            json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]),
        )?;
    let filters = format!("{CONNECTION_MANAGER}/http_filters");
    let [ours, router] = base.at(&filters)?.as_array().context("no filters")?.as_slice() else {
        anyhow::bail!("the example does not have two filters");
    };
    let mut empty = ours.clone();
    empty["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] = json!(tools::path(tools::EMPTY_WASM)?);
    let with = |count: u32| -> Result<Value> {
        let mut filter = ours.clone();
        filter["typed_config"]["config"]["configuration"]["value"] = json!(document(count).to_string());
        Ok(json!([filter, router]))
    };
    let start = |name: &str, list: Value| -> Result<(String, Envoy)> {
        let bootstrap: Bootstrap = base.clone().set(&filters, list)?;
        let file = name.replace(' ', "-");
        Ok((name.to_owned(), Envoy::start(&Start::tested(&file)?, &bootstrap, ground.scratch.path())?))
    };
    Ok(vec![
        start("no filter", json!([router]))?,
        start("empty Wasm filter", json!([empty, router]))?,
        start("spiffe-authz, 1 policy", with(1)?)?,
        start("spiffe-authz, 1000 policies", with(1000)?)?,
        start("Envoy RBAC, 1 policy", json!([rbac(1), router]))?,
        start("Envoy RBAC, 1000 policies", json!([rbac(1000), router]))?,
    ])
}

/// The last of `count` policies lets the caller in.
fn document(count: u32) -> Value {
    let policies: Vec<Value> = (0..count)
        .map(|number| {
            let name = format!("p{number}");
            json!({"name": name, "namespace": "default", "rules": [{
                "from": [{"source": {"principals": [format!("example.org/ns/default/sa/{}", account(number, count))]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": [format!("/{}/*", path(number, count))]}}]
            }]})
        })
        .collect();
    json!({"trustDomain": "example.org", "policies": policies})
}

/// The same as Envoy's own filter has it.
fn rbac(count: u32) -> Value {
    let policies: serde_json::Map<String, Value> = (0..count)
        .map(|number| {
            let id = format!("spiffe://example.org/ns/default/sa/{}", account(number, count));
            let method = json!({"header": {"name": ":method", "string_match": {"exact": "GET"}}});
            let path = json!({"url_path": {"path": {"prefix": format!("/{}/", path(number, count))}}});
            let policy = json!({
                "principals": [{"authenticated": {"principal_name": {"exact": id}}}],
                "permissions": [{"and_rules": {"rules": [method, path]}}]
            });
            (format!("p{number:04}"), policy)
        })
        .collect();
    json!({"name": "rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": policies}
    }})
}

fn account(number: u32, count: u32) -> String {
    if number + 1 == count { "sleep".to_owned() } else { format!("other-{number}") }
}

fn path(number: u32, count: u32) -> String {
    if number + 1 == count { "status".to_owned() } else { format!("p{number}") }
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

fn print_table(variants: &[(String, Envoy)], measured: &[Vec<f64>], requests: u32, rounds: u32) {
    println!(
        "{rounds} rounds of {requests} requests over {CONNECTIONS} mTLS connections; Envoy's CPU time per request,"
    );
    println!("user and system, in microseconds: median (lowest to highest round); and over the empty Wasm filter.\n");
    println!("| Variant | µs per request | over the empty Wasm filter | ratio to no filter |");
    println!("|---|---|---|---|");
    let medians: Vec<f64> = measured.iter().map(|values| median(values)).collect();
    for (((name, _), values), own) in variants.iter().zip(measured).zip(&medians) {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let (over, ratio) = (own - medians[1], own / medians[0]);
        println!("| {name} | {own:.1} ({low:.1} to {high:.1}) | {over:+.1} | {ratio:.2} |");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

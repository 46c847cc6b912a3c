//! The latency of requests while the policies change, at a steady rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde_json::json;
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::istio;
use spiffe_authz_integration::wait;

use crate::load::CLIENTS;
use crate::policies::{Kind, policies};
use crate::statistics::{median, microseconds, quantiles};
use crate::variants::{Decider, quiet};

/// The documents: the number of policies, and how many of them apply to the workload.
const DOCUMENTS: [(u32, Kept); 4] =
    [(1000, Kept::All), (10_000, Kept::All), (10_000, Kept::OfMesh), (100_000, Kept::All)];
/// The number of policies of a mesh that apply to the workload.
const KEPT: u32 = 20;
/// The number of other namespaces of a mesh.
const NAMESPACES: u32 = 500;
/// The time between two requests of a client, for 1,000 requests a second in total.
const PACE: Duration = Duration::from_millis(4);
/// The duration of the load before the first update.
const BEFORE: Duration = Duration::from_secs(5);
/// The time from one update to the next, or until an update is applied if that takes longer.
const INTERVAL: Duration = Duration::from_secs(1);
/// The limit on the time until an update is applied.
const LIMIT: Duration = Duration::from_secs(60);

const FILE: &str = "filter.json";
/// The place of the revision in the document.
const REVISION: &str = "REVISION";

/// The policies that apply to the workload.
#[derive(Clone, Copy)]
enum Kept {
    All,
    /// Those of its namespace. The others have other namespaces.
    OfMesh,
}

/// A request. Its latency counts from the time at which it was due, and so includes the time behind the previous request.
struct Sample {
    due: Instant,
    latency: f64,
}

/// The measurements of one adapter with one number of policies.
struct Measured {
    samples: Vec<Sample>,
    first_update: Instant,
    /// The start of each update, and the time until a request was decided by the new policies.
    updates: Vec<(Instant, Duration)>,
    /// Envoy's memory after the updates, in MB.
    memory: u64,
}

/// Measures both adapters with each number of policies, and prints the results as Markdown.
pub(crate) fn run(updates: u32) -> Result<()> {
    println!(
        "Updates for each row: {updates}, one a second or as fast as they are applied, under a steady load of {} requests a \
         second over {CLIENTS} mTLS connections. All times in milliseconds.\n",
        f64::from(CLIENTS) / PACE.as_secs_f64()
    );
    println!(
        "| Policies | Variant | applied after (median) | longest request in an update: median | maximum | without updates: \
         p50 | p99 | p99.9 | with updates: p50 | p99 | p99.9 | Envoy's memory (MB) |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for (count, kept) in DOCUMENTS {
        let policies = match kept {
            Kept::All => count.to_string(),
            Kept::OfMesh => format!("{count} of a mesh, {KEPT} apply"),
        };
        for adapter in Adapter::ALL {
            let decider = Decider::Ours(adapter).name();
            eprintln!("updates of {policies} policies: {decider}");
            let cells = measure(adapter, &document(count, kept)?, updates)?.cells();
            println!("| {policies} | {decider} | {} |", cells.join(" | "));
        }
    }
    Ok(())
}

fn measure(adapter: Adapter, document: &str, updates: u32) -> Result<Measured> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let base = quiet(fixture.bootstrap()?)?;
    let write = |revision: u32| -> Result<Bootstrap> {
        let configured = base.clone().configuration(&document.replace(REVISION, &revision.to_string()))?;
        let (bootstrap, content) = configured.watched_filter(&fixture.scratch.join(FILE))?;
        fixture.scratch.write(FILE, &content)?;
        Ok(bootstrap)
    };
    let envoy = Envoy::start(&Start::tested("server")?, &write(0)?, fixture.scratch.path())?;
    let connect = |_| fixture.leaf("default", "sleep")?.connect(envoy.address()?);
    let clients: Vec<Client> = (0..CLIENTS).map(connect).collect::<Result<_>>()?;
    let mut probe = connect(CLIENTS)?;

    let stop = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let shift = |number: u32| start + PACE * number / CLIENTS;
        let stop = &stop;
        let send = |(number, client)| scope.spawn(move || steady(client, shift(number), stop));
        let started: Vec<_> = (0..).zip(clients).map(send).collect();
        thread::sleep(BEFORE);
        let first_update = Instant::now();
        let applied = (1..=updates).map(|revision| {
            let start = Instant::now();
            write(revision)?;
            wait::until("the update is applied", LIMIT, || {
                Ok((probe.get(&format!("/revision-{revision}"))?.status == 200).then_some(()))
            })?;
            let applied = start.elapsed();
            thread::sleep(INTERVAL.saturating_sub(applied));
            Ok((start, applied))
        });
        let applied = applied.collect::<Result<Vec<_>>>();
        stop.store(true, Ordering::Relaxed);
        let joined = started.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        let samples = joined.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let memory = envoy.memory()? / 1_000_000;
        Ok(Measured { samples, first_update, updates: applied?, memory })
    })
}

/// Returns a document with this number of policies. The first one allows a path with the revision, the last one the load.
fn document(count: u32, kept: Kept) -> Result<String> {
    let mut document = istio::import(&policies(Kind::Paths, count))?;
    document["policies"][0]["rules"] = json!([{
        "from": [{"source": {"namespaces": ["default"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": [format!("/revision-{REVISION}")]}}]
    }]);
    if matches!(kept, Kept::OfMesh) {
        let workload = json!({"namespace": "default", "labels": {"app": "httpbin"}});
        document["scope"] = json!({"rootNamespace": "istio-system", "workload": workload});
        let policies = document["policies"].as_array_mut().ok_or_else(|| anyhow!("no policies"))?;
        for (number, policy) in (0..count).zip(policies) {
            let applies = number < KEPT - 1 || number == count - 1;
            policy["namespace"] = if applies { json!("default") } else { json!(format!("n{}", number % NAMESPACES)) };
        }
    }
    Ok(document.to_string())
}

/// Sends a request at each step of the pace, until `stop`.
fn steady(mut client: Client, mut due: Instant, stop: &AtomicBool) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        // A timer is late by some microseconds, which do not belong to the latency of Envoy.
        let sent = if left.is_zero() { due } else { (thread::sleep(left), Instant::now()).1 };
        let status = client.get("/status/200")?.status;
        ensure!(status == 200, "status {status}");
        samples.push(Sample { due, latency: microseconds(sent.elapsed()) });
        due += PACE;
    }
    Ok(samples)
}

impl Measured {
    /// Returns the cells of the row.
    fn cells(&self) -> Vec<String> {
        let milliseconds = |microseconds: f64| format!("{:.1}", microseconds / 1e3);
        let (with, without): (Vec<_>, Vec<_>) = self.samples.iter().partition(|sample| sample.due >= self.first_update);
        let applied: Vec<f64> = self.updates.iter().map(|(_, applied)| microseconds(*applied)).collect();
        let ends = self.updates.iter().map(|(start, _)| *start).skip(1).map(Some).chain([None]);
        let longest: Vec<f64> = self
            .updates
            .iter()
            .zip(ends)
            .map(|((start, _), end)| {
                let within =
                    with.iter().filter(|sample| sample.due >= *start && end.is_none_or(|end| sample.due < end));
                within.map(|sample| sample.latency).fold(0.0, f64::max)
            })
            .collect();
        let mut cells = vec![median(&applied), median(&longest), longest.iter().copied().fold(0.0, f64::max)];
        for samples in [without, with] {
            let latencies: Vec<f64> = samples.iter().map(|sample| sample.latency).collect();
            cells.extend(quantiles(&latencies, [0.5, 0.99, 0.999]));
        }
        let mut cells: Vec<String> = cells.into_iter().map(milliseconds).collect();
        cells.push(self.memory.to_string());
        cells
    }
}

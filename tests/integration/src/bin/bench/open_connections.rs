//! Envoy's CPU time per request while many connections are open, all on one worker.
//!
//! A separate process holds the connections of each Envoy, because one process can often open only 20,000 files. All
//! Envoys run at the same time. In each round, every Envoy is measured.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use rustls::client::Resumption;
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Leaf, Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;

use crate::load::CLIENTS;
use crate::statistics::{compared, microseconds, spread};
use crate::targets::{Limit, Target};
use crate::variants::{Decider, quiet, replaced};

/// The argument that makes this program hold the connections of one Envoy.
pub(crate) const HOLD: &str = "hold-connections";
/// The requests in a round, spread over the connections in turn.
const REQUESTS: usize = 10_000;
/// The maximum number of files that a process opens in addition to its connections.
const OTHER_FILES: u64 = 200;

/// The number of connections to an Envoy, and the number of SVIDs on them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Scenario {
    connections: usize,
    svids: usize,
}

/// The scenario that the others are compared with.
const HUNDRED: Scenario = Scenario { connections: 100, svids: 1 };
const SCENARIOS: [Scenario; 4] = [
    // The number of connections in the benchmark of policies.
    Scenario { connections: 4, svids: 1 },
    HUNDRED,
    Scenario { connections: 10_000, svids: 1 },
    Scenario { connections: 10_000, svids: 5_000 },
];
const DECIDERS: [Decider; 3] = [Decider::Nothing, Decider::Ours(Adapter::Wasm), Decider::Ours(Adapter::Module)];

/// A running Envoy, and the process with its connections.
struct Case {
    scenario: Scenario,
    decider: Decider,
    envoy: Envoy,
    holder: Holder,
    /// The CPU time per request, in microseconds, for each round.
    measured: Vec<f64>,
}

/// A process that holds connections. It ends when its standard input is closed.
struct Holder {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Measures every scenario and variant, and prints the table.
pub(crate) fn run(rounds: u32) -> Result<()> {
    raise_file_limit()?;
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let counts: BTreeSet<usize> = SCENARIOS.iter().map(|scenario| scenario.svids).collect();
    counts.into_iter().try_for_each(|count| write_svids(&fixture, count))?;
    let mut cases = Vec::new();
    for scenario in SCENARIOS {
        for decider in DECIDERS {
            let Scenario { connections, svids } = scenario;
            eprintln!("opening connections: {connections}, SVIDs: {svids}, {}", decider.name());
            cases.push(Case::start(&fixture, scenario, decider)?);
        }
    }
    let mut random = Rng::with_seed(rounds.into());
    for round in 1..=rounds {
        let mut turns: Vec<_> = cases.iter_mut().collect();
        random.shuffle(&mut turns);
        for case in turns {
            let microseconds = case.round()?;
            case.measured.push(microseconds);
        }
        eprintln!("round {round} of {rounds}");
    }
    print(rounds, &cases)
}

/// Writes certificates with different SPIFFE IDs for `count` callers to a file.
fn write_svids(fixture: &Fixture, count: usize) -> Result<()> {
    eprintln!("SVIDs to issue: {count}");
    let issue = |numbers: std::ops::Range<usize>| -> Result<String> {
        let secret = |number| {
            let id = format!("spiffe://example.org/ns/default/sa/caller-{number}");
            Ok(fixture.local.sign(&Shape::svid(id))?.secret() + "\n")
        };
        numbers.map(secret).collect()
    };
    let threads = thread::available_parallelism()?.get();
    let share = count.div_ceil(threads);
    let shares = thread::scope(|scope| {
        let start = |number: usize| scope.spawn(move || issue(number * share..count.min((number + 1) * share)));
        let started: Vec<_> = (0..threads).map(start).collect();
        let joined = started.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("issuing panicked"))?);
        joined.collect::<Result<String>>()
    })?;
    fixture.scratch.write(&svids_file(count), &shares).map(|_| ())
}

fn svids_file(count: usize) -> String {
    format!("svids-{count}.jsonl")
}

impl Case {
    fn start(fixture: &Fixture, scenario: Scenario, decider: Decider) -> Result<Self> {
        let Scenario { connections, svids } = scenario;
        let name = format!("{}-{connections}-{svids}", decider.name().replace([' ', ','], "-"));
        let envoy = Envoy::start(&Start::tested(&name)?, &bootstrap(fixture, decider)?, fixture.scratch.path())?;
        let holder = Holder::start(envoy.address()?, &fixture.scratch.join(&svids_file(svids)), connections)?;
        Ok(Self { scenario, decider, envoy, holder, measured: Vec::new() })
    }

    /// Returns the microseconds of a request.
    fn round(&mut self) -> Result<f64> {
        let before = self.envoy.cpu_time()?;
        self.holder.send()?;
        Ok(microseconds(self.envoy.cpu_time()? - before) / f64::from(u32::try_from(REQUESTS)?))
    }

    /// Returns the memory of Envoy in MB, or an error if a connection was closed in between.
    fn megabytes(&self) -> Result<u64> {
        for stat in ["http.inbound.downstream_cx_active", "http.inbound.downstream_cx_total"] {
            let count = self.envoy.stat(stat)?;
            ensure!(count == Some(self.scenario.connections.try_into()?), "{stat} is {count:?}");
        }
        Ok(self.envoy.memory()? / 1_000_000)
    }
}

/// The server with one policy, which allows all callers. The duration of connections is unlimited.
fn bootstrap(fixture: &Fixture, decider: Decider) -> Result<Bootstrap> {
    let adapter = if let Decider::Ours(adapter) = decider { adapter } else { Adapter::Wasm };
    let document = json!({"trustDomain": "example.org", "policies": [{"name": "callers", "rules": [{
        "from": [{"source": {"namespaces": ["default"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": ["/status/*"]}}]
    }]}]});
    let bootstrap = Bootstrap::server(adapter, fixture.upstream.port())?
        .secrets(&fixture.scratch.join("certificate.json"), &fixture.scratch.join("validation.json"))?
        .configuration(&document.to_string())?
        .without(&format!("{CONNECTION_MANAGER}/common_http_protocol_options"), "max_connection_duration")?;
    let bootstrap = quiet(bootstrap)?;
    if decider == Decider::Nothing { replaced(&bootstrap, Vec::new()) } else { Ok(bootstrap) }
}

impl Holder {
    /// Starts the process, and waits until it has opened the connections and sent a request on each of them.
    fn start(address: SocketAddr, svids: &Path, connections: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(HOLD)
            .arg(address.to_string())
            .arg(svids)
            .arg(connections.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the child has no standard output")?);
        let mut holder = Self { child, requests, answers };
        holder.wait()?;
        Ok(holder)
    }

    /// Sends the requests of a round.
    fn send(&mut self) -> Result<()> {
        writeln!(self.requests.as_mut().context("the child has no standard input")?)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the process that holds the connections failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.requests = None;
        // There is no remedy if the child cannot be waited for.
        let _ = self.child.wait();
    }
}

/// Opens connections that present the SVIDs of a file in turn, and sends a request on each. Then sends the requests of
/// a round for each line on standard input.
pub(crate) fn hold(address: SocketAddr, svids: &Path, connections: usize) -> Result<()> {
    let mut configs = Vec::new();
    for line in BufReader::new(File::open(svids)?).lines() {
        let secret: Value = serde_json::from_str(&line?)?;
        let secret = &secret["resources"][0]["tls_certificate"];
        let text = |field: &str| secret[field]["inline_string"].as_str().map(str::to_owned).context("no such secret");
        let mut config = client_config(Some(&Leaf::new(text("certificate_chain")?, text("private_key")?)))?;
        config.resumption = Resumption::disabled();
        configs.push(config);
    }
    ensure!(!configs.is_empty(), "{} has no SVID", svids.display());
    let threads = usize::try_from(CLIENTS)?;
    let mut held: Vec<Vec<Client>> = (0..threads).map(|_| Vec::new()).collect();
    on_each(&mut held, |thread, clients| {
        for number in (thread..connections).step_by(threads) {
            clients.push(Client::tls(address, configs[number % configs.len()].clone())?);
        }
        let count = clients.len();
        request_in_turn(clients, count)
    })?;
    println!("open");
    for line in std::io::stdin().lines() {
        line?;
        on_each(&mut held, |_, clients| request_in_turn(clients, REQUESTS / threads))?;
        println!("done");
    }
    Ok(())
}

/// Runs `act` on each element in its own thread.
fn on_each(held: &mut [Vec<Client>], act: impl Fn(usize, &mut Vec<Client>) -> Result<()> + Sync) -> Result<()> {
    let act = &act;
    thread::scope(|scope| {
        let start = |(number, clients)| scope.spawn(move || act(number, clients));
        let started: Vec<_> = held.iter_mut().enumerate().map(start).collect();
        started.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

fn request_in_turn(clients: &mut [Client], count: usize) -> Result<()> {
    let connections = clients.len();
    for number in 0..count {
        let status = clients[number % connections].get("/status/200")?.status;
        ensure!(status == 200, "status {status}");
    }
    Ok(())
}

/// Raises the limit of open files to the hard limit, for this process and its children.
#[expect(unsafe_code, reason = "getrlimit and setrlimit are C functions")]
fn raise_file_limit() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the write.
    ensure!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0, "getrlimit failed");
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the read.
    ensure!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0, "setrlimit failed");
    let most = SCENARIOS.iter().map(|scenario| scenario.connections).max().unwrap_or_default();
    let needed = u64::try_from(most)? + OTHER_FILES;
    ensure!(limit.rlim_max >= needed, "a process can open {} files; the benchmark needs {needed}", limit.rlim_max);
    Ok(())
}

/// The limit on the cost per request with more open connections, relative to a hundred.
const MOST_GROWTH: f64 = 1.2;

/// Prints the results as Markdown.
fn print(rounds: u32, cases: &[Case]) -> Result<()> {
    let of = |scenario, decider| {
        let case = cases.iter().find(|case| case.scenario == scenario && case.decider == decider);
        case.map(|case| &case.measured).with_context(|| format!("{} was not measured", decider.name()))
    };
    println!(
        "Rounds: {rounds}, each of {REQUESTS} requests, spread over the open connections in turn, {CLIENTS} at a time.\n"
    );
    println!(
        "| Connections | SVIDs | Variant | µs per request | over no filter | relative to 100 connections | Envoy's memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut targets = Vec::new();
    for case in cases {
        let Scenario { connections, svids } = case.scenario;
        let name = case.decider.name();
        let over = compared(&case.measured, of(case.scenario, Decider::Nothing)?, |one, other| one - other);
        let relative = compared(&case.measured, of(HUNDRED, case.decider)?, |one, other| one / other);
        println!(
            "| {connections} | {svids} | {name} | {} | {over:+.1} | {relative:.2} | {} MB |",
            spread(&case.measured),
            case.megabytes()?
        );
        if connections > HUNDRED.connections && case.decider != Decider::Nothing {
            let name = format!("{name}: {connections} open connections with {svids} SVIDs, over 100");
            targets.push(Target { name, limit: Limit::AtMost(MOST_GROWTH), unit: "", measured: relative });
        }
    }
    crate::targets::print(&targets);
    Ok(())
}

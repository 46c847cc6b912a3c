//! `learn` and `prune` with the logs of a real Envoy: policies from a part of the log allow the rest of it, and no attack.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Leaf, Shape, client_config};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fault::callers;
use spiffe_authz_integration::federation::{Changes, Federation};
use spiffe_authz_integration::fixture::{Fixture, ProtectedServer, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::load::Load;
use spiffe_authz_integration::port::ReservedPort;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::tcp::{Database, First, echoes};
use spiffe_authz_integration::{tools, wait};

spiffe_authz_integration::test_with_each_adapter![
    a_part_of_the_log_predicts_the_rest_and_no_attack,
    connections_are_learned_by_caller_and_port,
    the_load_of_the_soak_is_learned,
];

const READER: &str = "example.org/ns/default/sa/reader";
const BUYER: &str = "example.org/ns/default/sa/buyer";
const PARTNER: &str = "example.io/ns/web/sa/shop";
/// Allowed by the first policies, and never seen.
const SILENT: &str = "example.org/ns/default/sa/silent";
/// Denied by the first policies.
const STRANGER: &str = "example.org/ns/other/sa/stranger";

/// The policies while the log is written: they allow more than the callers need.
fn before() -> Value {
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"],
        "policies": [
            {"name": "wide", "namespace": "default", "rules": [
                {"from": [{"source": {"namespaces": ["default"]}}]},
                {"from": [{"source": {"trustDomains": ["example.io"]}}]},
            ]},
            {"name": "no-admin", "namespace": "default", "action": "DENY",
             "rules": [{"to": [{"operation": {"paths": ["/admin", "/admin/*"]}}]}]},
            {"name": "everything", "namespace": "default", "action": "AUDIT", "rules": [{}]},
        ]
    })
}

/// A request: the caller, the method and the path.
type Request = (&'static str, &'static str, String);

/// The requests of the workload. Later ones have identifiers that earlier ones do not.
fn workload() -> Vec<Request> {
    let mut requests = Vec::new();
    for number in 0..60_u64 {
        requests.push((READER, "GET", format!("/users/{}?page={number}", 1000 + number)));
        requests.push((BUYER, "POST", format!("/orders/{}/items/{}", number % 9, number % 6)));
        requests.push((PARTNER, "GET", format!("/files/{:024x}/content", 0x00ab_cdef_1234 * (number + 1))));
        requests.push((PARTNER, "GET", "/users/me".to_owned()));
        requests.push((BUYER, "GET", "/status".to_owned()));
    }
    for _ in 0..10 {
        requests.push((STRANGER, "GET", "/users/1000".to_owned()));
        requests.push((READER, "GET", "/admin/users".to_owned()));
    }
    fastrand::Rng::with_seed(11).shuffle(&mut requests);
    requests
}

/// Requests that an attacker could make with the callers' certificates, or with others.
fn attacks() -> Vec<Request> {
    let attack = |caller, method, path: &str| (caller, method, path.to_owned());
    vec![
        // Other callers.
        attack(SILENT, "GET", "/users/1000"),
        attack(SILENT, "GET", "/status"),
        attack(STRANGER, "GET", "/status"),
        attack("example.io/ns/default/sa/reader", "GET", "/users/1000"),
        attack("example.org/ns/web/sa/shop", "GET", "/users/me"),
        // Other methods.
        attack(READER, "DELETE", "/users/1000"),
        attack(READER, "POST", "/users/1000"),
        attack(BUYER, "GET", "/orders/1/items/1"),
        attack(BUYER, "POST", "/status"),
        // Paths of other callers, and paths next to those that were seen.
        attack(READER, "GET", "/users/me"),
        attack(READER, "GET", "/status"),
        attack(PARTNER, "GET", "/users/1000"),
        attack(READER, "GET", "/users"),
        attack(READER, "GET", "/users/1000/keys"),
        attack(BUYER, "POST", "/orders/1/refunds/1"),
        attack(PARTNER, "GET", "/files/1/secret"),
        attack(READER, "GET", "/admin"),
        attack(READER, "GET", "/admin/users"),
        // Traversal, encoded separators and parameters.
        attack(READER, "GET", "/users/../admin"),
        attack(READER, "GET", "/users/1000/../../status"),
        attack(READER, "GET", "/users/..%2fadmin"),
        attack(READER, "GET", "/users/1000%2f..%2f..%2fadmin"),
        attack(READER, "GET", "/users%5c1000"),
        attack(READER, "GET", "/users/%2e%2e/admin"),
        attack(READER, "GET", "//users//me"),
        attack(BUYER, "GET", "/status;admin"),
        attack(BUYER, "GET", "/status/"),
    ]
}

fn leaf(server: &ProtectedServer, caller: &str) -> Result<Leaf> {
    let fixture = &server.fixture;
    let authority = if caller.starts_with("example.io/") { &fixture.federated } else { &fixture.local };
    authority.sign(&Shape::svid(format!("spiffe://{caller}")))
}

/// Sends a request, and returns the status.
fn send(server: &ProtectedServer, (caller, method, path): &Request) -> Result<u16> {
    Ok(leaf(server, caller)?.connect(server.address()?)?.request(method, path, &[])?.status)
}

/// The outcome of the command.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command in a directory.
fn run(scratch: &Scratch, arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    let output = command.args(arguments).current_dir(scratch.path()).output()?;
    let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok(Ran { status: output.status.code(), out: out?, err: err? })
}

/// Learns from a log, and returns the report and the document.
fn learn(scratch: &Scratch, log: &str, options: &[&str]) -> Result<(Value, Value)> {
    let fixed = [
        "learn",
        "--trust-domain=example.org",
        "--federated-trust-domain=example.io",
        "--to=json",
        "--format=json",
        "--output=new.json",
        "--table=table.json",
        log,
    ];
    let Ran { status, err, .. } = run(scratch, &[&fixed, options].concat())?;
    ensure!(status == Some(0), "{err}");
    for arguments in [&["test", "--quiet", "table.json"][..], &["check", "--fail-level=error", "new.json"]] {
        let Ran { status, out, err } = run(scratch, arguments)?;
        ensure!(status == Some(0), "{arguments:?}: {out}{err}");
    }
    Ok((serde_json::from_str(&err)?, serde_json::from_str(&fs::read_to_string(scratch.join("new.json"))?)?))
}

/// Learns from 70 % of the lines. The learned policies must not change the verdict on any other line.
fn learn_from_a_part(scratch: &Scratch, log: &str) -> Result<(Value, Value)> {
    let lines: Vec<&str> = log.lines().collect();
    let (first, rest) = lines.split_at(lines.len() * 7 / 10);
    scratch.write("first.log", &first.join("\n"))?;
    scratch.write("rest.log", &rest.join("\n"))?;
    let learned = learn(scratch, "first.log", &[])?;
    let Ran { status, out, err } = run(scratch, &["replay", "--policy=new.json", "rest.log"])?;
    ensure!(status == Some(0) && err.contains(": 0 would change, 0 unknown"), "{out}{err}");
    Ok(learned)
}

fn callers_in(report: &Value) -> Vec<String> {
    let policies = report["policies"].as_array().into_iter().flatten();
    let callers = policies.flat_map(|policy| policy["callers"].as_array().into_iter().flatten());
    let mut callers: Vec<String> = callers.filter_map(Value::as_str).map(str::to_owned).collect();
    callers.sort_unstable();
    callers
}

fn a_part_of_the_log_predicts_the_rest_and_no_attack(adapter: Adapter) -> Result<()> {
    let mut server = ProtectedServer::start(adapter, Validation::Spiffe, &before())?;
    let workload = workload();
    let (denied, allowed): (Vec<&Request>, Vec<&Request>) =
        workload.iter().partition(|(caller, _, path)| *caller == STRANGER || path.starts_with("/admin"));
    for (requests, expected) in [(&denied, 403), (&allowed, 200)] {
        for request in requests {
            ensure!(send(&server, request)? == expected, "{request:?}");
        }
    }
    server.envoy.access_log_of(workload.len())?;
    let log = server.envoy.process().output()?;
    let scratch = &server.fixture.scratch;
    let (report, document) = learn_from_a_part(scratch, &log)?;
    let templates = report["generalizations"].as_array().into_iter().flatten();
    let templates: Vec<&str> = templates.filter_map(|found| found["path"].as_str()).collect();
    assert_eq!(templates, ["/files/{*}/content", "/orders/{*}/items/{*}", "/users/{*}"], "{report:#}");
    // The lines of the AUDIT policy, as far as the filter did not suppress them, have the same callers.
    scratch.write("envoy.log", &server.envoy.log()?)?;
    assert_eq!(callers_in(&learn(scratch, "envoy.log", &[])?.0), callers_in(&report));
    enforce(adapter, &document, &allowed)
}

/// Enforces the learned policies: the workload is allowed, and no attack is.
fn enforce(adapter: Adapter, document: &Value, workload: &[&Request]) -> Result<()> {
    let mut server = ProtectedServer::start(adapter, Validation::Spiffe, document)?;
    for request in workload {
        ensure!(send(&server, request)? == 200, "{request:?}");
    }
    let attacks = attacks();
    for attack in &attacks {
        let status = send(&server, attack)?;
        // Envoy rejects an encoded slash, before the filter runs.
        ensure!(status == 403 || (status == 400 && attack.2.contains('%')), "{attack:?}: {status}");
    }
    server.envoy.access_log_of(workload.len() + attacks.len())?;
    let log = server.envoy.process().output()?;
    let scratch = &server.fixture.scratch;
    scratch.write("all.log", &log)?;
    scratch.write("new.json", &document.to_string())?;
    scratch.write("before.json", &before().to_string())?;
    let Ran { status, out, err } = run(scratch, &["replay", "--policy=new.json", "all.log"])?;
    ensure!(status == Some(0), "{out}{err}");
    let Ran { status, out, err } = run(scratch, &["prune", "new.json", "all.log"])?;
    ensure!(status == Some(0) && out.starts_with("3 rules: 3 used; "), "{out}{err}");
    // Requests that were denied are evaluated, too.
    let Ran { status, out, err } = run(scratch, &["prune", "--format=json", "before.json", "all.log"])?;
    let pruned: Value = serde_json::from_str(&out).with_context(|| err)?;
    let rules = pruned["rules"].as_array().into_iter().flatten();
    let usage: Vec<Option<&str>> = rules.map(|rule| rule["usage"].as_str()).collect();
    assert_eq!((status, usage), (Some(0), vec![Some("used"); 4]));
    ensure!(pruned["period"]["first"].is_string() && pruned["period"]["withoutTime"] == 0, "{out}");
    Ok(())
}

fn connections_are_learned_by_caller_and_port(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let database = Database::start(First::Client)?;
    // Rules have the port, so both Envoys need the same.
    let reserved = ReservedPort::new()?;
    let port = reserved.number();
    let start = |document: &Value| -> Result<Envoy> {
        let bootstrap = fixture
            .tcp_bootstrap(&database)?
            .tcp_configuration(&document.to_string())?
            .set("/static_resources/listeners/0/address/socket_address/port_value", json!(port))?;
        Envoy::start(&Start::tested("tcp")?, &bootstrap, fixture.scratch.path())
    };
    let is_allowed = |envoy: &Envoy, caller: &str| -> Result<bool> {
        let authority = if caller.starts_with("example.io/") { &fixture.federated } else { &fixture.local };
        let leaf = authority.sign(&Shape::svid(format!("spiffe://{caller}")))?;
        echoes(Client::tls(envoy.address()?, client_config(Some(&leaf))?)?)
    };
    let mut wide = before();
    // On TCP, the rule with paths denies every connection.
    wide["policies"].as_array_mut().context("no policies")?.retain(|policy| policy["action"] != "DENY");
    let mut envoy = start(&wide)?;
    let callers = [READER, PARTNER, STRANGER, READER, PARTNER];
    for (position, caller) in callers.into_iter().enumerate() {
        ensure!(is_allowed(&envoy, caller)? == (caller != STRANGER), "{caller}");
        // A connection is logged at its end.
        envoy.access_log_of(position + 1)?;
    }
    fixture.scratch.write("tcp.log", &envoy.process().output()?)?;
    drop(envoy);
    let (report, document) = learn(&fixture.scratch, "tcp.log", &["--layer=tcp"])?;
    assert_eq!(callers_in(&report), [PARTNER, READER]);
    let envoy = start(&document)?;
    for (caller, expected) in
        [(READER, true), (PARTNER, true), (BUYER, false), (STRANGER, false), ("example.io/ns/default/sa/reader", false)]
    {
        ensure!(is_allowed(&envoy, caller)? == expected, "{caller}");
    }
    Ok(())
}

/// The requests of the soak test, with SVIDs from SPIRE, through the server and the gateway of the federated examples.
fn the_load_of_the_soak_is_learned(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut environment = Federation::start(scratch.path(), Changes { adapter, ..Changes::NONE })?;
    let load = Load::start(callers(&environment)?);
    wait::until("the load has some requests", Duration::from_secs(60), || {
        Ok((load.tally().requests > 600).then_some(()))
    })?;
    let wrong = load.tally().wrong;
    drop(load);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (report, _) = learn_from_a_part(&scratch, &complete_log(&mut environment.httpbin)?)?;
    let expected = [
        "example.io/ns/default/sa/sleep",
        "example.io/ns/shop/sa/web",
        "example.org/ns/default/sa/sleep",
        "example.org/ns/edge/sa/gateway",
    ];
    assert_eq!((callers_in(&report), &report["generalizations"]), (expected.map(str::to_owned).to_vec(), &json!([])));

    // The gateway rewrites `/partners/news` to `/public/news`, which it denies to this caller. The access log has the same path for
    // both, so neither is learned.
    scratch.write("gateway.log", &complete_log(&mut environment.gateway)?)?;
    let (report, _) = learn(&scratch, "gateway.log", &[])?;
    assert_eq!(callers_in(&report), ["example.org/ns/default/sa/sleep"]);
    let mut not_used = report["notUsed"].as_array().into_iter().flatten();
    ensure!(not_used.any(|one| one["reason"] == "also-denied"), "{report:#}");
    let Ran { out, err, .. } = run(&scratch, &["replay", "--policy=new.json", "gateway.log"])?;
    ensure!(!out.contains("deny -> allow") && out.contains("allow -> deny"), "{out}{err}");
    Ok(())
}

/// Returns the lines of the access log that are complete.
fn complete_log(envoy: &mut Envoy) -> Result<String> {
    envoy.access_log_of(100)?;
    let log = envoy.process().output()?;
    Ok(log.rsplit_once('\n').context("the log has no line")?.0.to_owned())
}

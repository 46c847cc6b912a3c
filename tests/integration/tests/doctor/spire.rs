//! Secrets that a real SPIRE agent does not provide.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONFIGURATION};
use spiffe_authz_integration::environment::SVID_TTL;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::federation::{Changes, Federation};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::spire::Spire;
use spiffe_authz_integration::upstream::Upstream;
use spiffe_authz_integration::{tools, wait};

use crate::support::{
    LIMIT, Listeners, PATIENCE, any_path, at, bundle_pointer, certificate_pointer, doctor, document, run, wait_for,
};

/// The SPIFFE ID of the server.
const HTTPBIN: &str = "spiffe://example.org/ns/default/sa/httpbin";

/// The server of the example with more listeners, and a real SPIRE agent.
fn with_spire(spire: &Spire, upstream: &Upstream) -> Result<Bootstrap> {
    let mut bootstrap = Bootstrap::server(Adapter::Wasm, upstream.port())?.agent(&spire.socket())?;
    for pointer in [certificate_pointer(), bundle_pointer()] {
        let mut config = bootstrap.at(&pointer)?.clone();
        config["sds_config"]["initial_fetch_timeout"] = json!(PATIENCE);
        bootstrap = bootstrap.set(&pointer, config)?;
    }
    let mut listeners = Listeners::of(&bootstrap)?;
    listeners.add("healthy", &[])?;
    let federated = json!(document(&["example.io"], &any_path()).to_string());
    listeners.add("federated", &[(CONFIGURATION, federated)])?;
    listeners.add("certificate", &[(&at(&certificate_pointer(), "name"), json!("svid"))])?;
    listeners.add("bundle", &[(&at(&bundle_pointer(), "name"), json!("bundles"))])?;
    listeners.into(bootstrap)
}

/// Both bundles come from SPIRE, and one of a trust domain that the document does not list.
#[test]
fn the_federated_examples_have_no_findings() -> Result<()> {
    let scratch = Scratch::new()?;
    let environment = Federation::start(scratch.path(), Changes::NONE)?;
    let answer = wait_for(&environment.httpbin, scratch.path(), &[("inbound", &["bundle-unnamed"])])?;
    assert_eq!(answer.status, Some(0), "a note");
    assert_eq!(answer.messages("bundle-unnamed"), ["the filter's document does not name `example.net`"]);
    assert!(answer.report["fine"].to_string().contains("a bundle for `example.io`, `example.net`, `example.org`"));
    assert_eq!(doctor(&environment.gateway)?.status, Some(0));
    Ok(())
}

#[test]
fn missing_secrets_are_reported() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut spire = Spire::start(scratch.path(), SVID_TTL)?;
    let upstream = Upstream::start()?;
    let bootstrap = with_spire(&spire, &upstream)?;
    let start = |name| -> Result<Envoy> {
        let program = spire.workload(name, &tools::path(tools::ENVOY)?)?;
        Envoy::start(&Start { program, name, arguments: &[] }, &bootstrap, scratch.path())
    };
    let server = start("httpbin")?;
    // No registration entry matches this workload.
    let unknown = start("nobody")?;
    let wrong: [(&str, &[&str]); 3] = [
        ("federated", &["bundle-missing"]),
        ("certificate", &["secret-name-unknown"]),
        ("bundle", &["secret-name-unknown"]),
    ];
    let answer = wait_for(&server, scratch.path(), &wrong)?;
    let fine = answer.report["fine"].to_string();
    assert!(fine.contains("the cluster `spire_agent` delivered it and is connected"), "{fine}");
    assert!(fine.contains(&format!("{HTTPBIN}, valid until ")), "{fine}");
    wait_for(
        &unknown,
        scratch.path(),
        &[
            ("healthy", &["workload-unknown"]),
            ("federated", &["bundle-missing", "workload-unknown"]),
            ("certificate", &["secret-name-unknown"]),
            ("bundle", &["secret-name-unknown", "workload-unknown"]),
        ],
    )?;

    // Istio's proxies keep few counters. Without those of secrets, the state of the agent is unknown.
    let few = json!({"inclusion_list": {"patterns": [{"prefix": "server."}, {"prefix": "listener_manager."}]}});
    let mut counters = bootstrap.at("/stats_config")?.clone();
    counters["stats_matcher"] = few;
    let few = bootstrap.clone().set("/stats_config", counters)?;
    let program = spire.workload("httpbin", &tools::path(tools::ENVOY)?)?;
    let few = Envoy::start(&Start { program, name: "few", arguments: &[] }, &few, scratch.path())?;
    let answer = wait_for(
        &few,
        scratch.path(),
        &[
            ("healthy", &["agent-unknown"]),
            ("federated", &["bundle-missing", "agent-unknown"]),
            ("certificate", &["secret-missing", "agent-unknown"]),
            ("bundle", &["secret-missing", "agent-unknown"]),
        ],
    )?;
    for message in answer.messages("agent-unknown").into_iter().chain(answer.messages("secret-missing")) {
        let annotation = r#"proxyStatsMatcher: {inclusionPrefixes: ["sds.", "cluster.spire_agent."]}"#;
        assert!(message.contains(annotation), "{message}");
    }
    drop(few);

    let (_, text) = run(&[&server.admin_address().to_string()])?;
    for line in documented_lines()? {
        assert!(text.contains(line), "docs/troubleshoot.md shows `{line}`:\n{text}");
    }

    // Without its entry, the workload keeps its certificate, so only the agent's state shows the problem.
    let entries = spire.server.command(&["entry", "show", "-spiffeID", HTTPBIN, "-output", "json"])?;
    let entries: Value = serde_json::from_str(&entries)?;
    let entry = entries.pointer("/entries/0/id").and_then(Value::as_str).context("an entry")?;
    spire.server.command(&["entry", "delete", "-entryID", entry])?;
    let wrong: [(&str, &[&str]); 4] = [
        ("healthy", &["workload-unknown"]),
        ("federated", &["bundle-missing", "workload-unknown"]),
        ("certificate", &["secret-name-unknown"]),
        ("bundle", &["secret-name-unknown", "workload-unknown"]),
    ];
    wait_for(&server, scratch.path(), &wrong)?;

    spire.kill_agent()?;
    let wrong: [(&str, &[&str]); 4] = [
        ("healthy", &["agent-unreachable"]),
        ("federated", &["agent-unreachable", "bundle-missing"]),
        ("certificate", &["agent-unreachable"]),
        ("bundle", &["agent-unreachable"]),
    ];
    wait_for(&server, scratch.path(), &wrong)?;
    spire.restart_agent()?;
    wait::until("the agent is available again", LIMIT, || {
        let answer = doctor(&server)?;
        Ok(answer.messages("agent-unreachable").is_empty().then_some(()))
    })
}

/// The part of a report in docs/troubleshoot.md.
fn documented_lines() -> Result<Vec<&'static str>> {
    let page = include_str!("../../../../docs/troubleshoot.md");
    let (_, section) = page.split_once("\n## Read a report\n").context("a heading")?;
    let block = section.split("```").nth(1).context("a block")?;
    let lines: Vec<&str> = block.lines().skip(2).filter(|line| *line != "…").collect();
    ensure!(lines.len() >= 3, "{lines:?}");
    Ok(lines)
}

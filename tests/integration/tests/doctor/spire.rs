//! What a real SPIRE agent does not give.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use spiffe_authz_integration::bootstrap::{Bootstrap, CONFIGURATION};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::mesh::LONG;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::spire::Spire;
use spiffe_authz_integration::upstream::Upstream;
use spiffe_authz_integration::{tools, wait};

use crate::support::{
    LIMIT, Listeners, PATIENCE, any_path, at, bundle_pointer, certificate_pointer, doctor, document, run, wait_for,
};

/// The server of the example with further listeners, beside a real SPIRE agent.
fn with_spire(spire: &Spire, upstream: &Upstream) -> Result<Bootstrap> {
    let mut bootstrap = Bootstrap::server(upstream.port())?.agent(&spire.socket())?;
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

#[test]
fn what_spire_does_not_give_is_told() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut spire = Spire::start(scratch.path(), LONG)?;
    let upstream = Upstream::start()?;
    let bootstrap = with_spire(&spire, &upstream)?;
    let start = |name| -> Result<Envoy> {
        let program = spire.workload(name, &tools::path(tools::ENVOY)?)?;
        Envoy::start(&Start { program, name, arguments: &[] }, &bootstrap, scratch.path())
    };
    let server = start("httpbin")?;
    // No entry says who this is.
    let unknown = start("nobody")?;
    let wrong: [(&str, &[&str]); 3] = [
        ("federated", &["bundle-missing"]),
        ("certificate", &["secret-name-unknown"]),
        ("bundle", &["secret-name-unknown"]),
    ];
    let answer = wait_for(&server, scratch.path(), &wrong)?;
    let fine = answer.report["fine"].to_string();
    assert!(fine.contains("delivered by the cluster `spire_agent`"), "{fine}");
    assert!(fine.contains("spiffe://example.org/ns/default/sa/httpbin, good until "), "{fine}");
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

    let (_, text) = run(&[&server.admin_address().to_string()])?;
    for line in readme_lines()? {
        assert!(text.contains(line), "README.md shows `{line}`:\n{text}");
    }

    spire.kill_agent()?;
    let wrong: [(&str, &[&str]); 4] = [
        ("healthy", &["agent-unreachable"]),
        ("federated", &["agent-unreachable", "bundle-missing"]),
        ("certificate", &["agent-unreachable"]),
        ("bundle", &["agent-unreachable"]),
    ];
    wait_for(&server, scratch.path(), &wrong)?;
    spire.restart_agent()?;
    wait::until("the agent is found again", LIMIT, || {
        let answer = doctor(&server)?;
        Ok(answer.messages("agent-unreachable").is_empty().then_some(()))
    })
}

/// What README.md shows of the doctor's answer.
fn readme_lines() -> Result<Vec<&'static str>> {
    let (_, section) = include_str!("../../../../README.md").split_once("\n## The doctor\n").context("a heading")?;
    let block = section.split("```").nth(1).context("a block")?;
    let lines: Vec<&str> = block.lines().skip(2).filter(|line| *line != "…").collect();
    ensure!(lines.len() >= 3, "{lines:?}");
    Ok(lines)
}

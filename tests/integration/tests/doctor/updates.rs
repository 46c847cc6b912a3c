//! Updates that Envoy rejects, and updates that wait.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};

use crate::support::{Answer, any_path, at, certificate_pointer, document, healthy, run, set, wait_for};

#[test]
fn rejected_and_waiting_updates_are_reported() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let directory = &fixture.scratch;
    let file = directory.join("listeners.json");
    let good = healthy(&fixture)?.set("/stats_config/stats_tags", json!([]))?;
    let (bootstrap, content) = good.clone().watched_listeners(&file)?;
    directory.write("listeners.json", &content)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, directory.path())?;
    let answer = wait_for(&envoy, directory.path(), &[("-", &["labels-missing"])])?;
    assert_eq!(answer.status, Some(0), "a note");
    assert_eq!(run(&[&envoy.admin_address().to_string(), "--fail-level", "note"])?.0, Some(3));

    let mut backwards = good.at(&at(CONNECTION_MANAGER, "http_filters"))?.as_array().cloned().context("a list")?;
    backwards.reverse();
    let update = good.clone().set(&at(CONNECTION_MANAGER, "http_filters"), json!(backwards))?;
    directory.write("listeners.json", &update.listeners_file()?)?;
    let refused = |code: &'static str| [("inbound", ["update-refused", code]), ("-", ["labels-missing"; 2])];
    let wait_for_refusal = |code: &'static str| -> Result<Answer> {
        let wanted = refused(code);
        let wanted: Vec<(&str, &[&str])> = wanted.iter().map(|(name, codes)| (*name, codes.as_slice())).collect();
        wait_for(&envoy, directory.path(), &wanted)
    };
    wait_for_refusal("filter-after-router")?;

    let mut mistaken = document(&["EXAMPLE.io"], &any_path());
    mistaken["policies"][0]["actoin"] = json!("DENY");
    let update = good.clone().configuration(&mistaken.to_string())?;
    directory.write("listeners.json", &update.listeners_file()?)?;
    let answer = wait_for_refusal("configuration-refused")?;
    let mistakes = answer.messages("configuration-refused");
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes[0].starts_with("/federatedTrustDomains/0: invalid-value: "), "{mistakes:?}");
    assert!(mistakes[1].starts_with("/policies/0/actoin: unknown-field: "), "{mistakes:?}");

    // A valid update that waits for a secret. The current configuration still applies.
    let mut waiting = Bootstrap::example("server/envoy.yaml")?.at(&certificate_pointer())?.clone();
    waiting["name"] = json!("waited-for");
    waiting["sds_config"]["initial_fetch_timeout"] = json!("0s");
    let update = good.set(&certificate_pointer(), waiting)?;
    directory.write("listeners.json", &update.listeners_file()?)?;
    let warming: &[&str] = &["listener-warming", "agent-unreachable"];
    // The counter of rejected updates remains.
    let remaining: &[&str] = &["labels-missing", "updates-rejected"];
    wait_for(&envoy, directory.path(), &[("inbound", warming), ("-", remaining)])?;

    // A certificate that Envoy rejects.
    directory.write("certificate.json", &mismatched(&fixture)?)?;
    let rejected: &[&str] = &["listener-warming", "agent-unreachable", "secret-rejected"];
    wait_for(&envoy, directory.path(), &[("inbound", rejected), ("-", remaining)])?;
    Ok(())
}

/// Returns the certificate of one leaf with the key of another.
fn mismatched(fixture: &Fixture) -> Result<String> {
    let mut secret: Value = serde_json::from_str(&fixture.leaf("default", "httpbin")?.secret())?;
    let other: Value = serde_json::from_str(&fixture.leaf("default", "httpbin")?.secret())?;
    let key = "/resources/0/tls_certificate/private_key";
    set(&mut secret, key, other.pointer(key).context("a key")?.clone())?;
    Ok(secret.to_string())
}

#[test]
fn a_rejected_policy_update_is_reported() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let file = fixture.scratch.join("filter.json");
    let good = healthy(&fixture)?;
    let (bootstrap, content) = good.clone().watched_filter(&file)?;
    fixture.scratch.write("filter.json", &content)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    wait_for(&envoy, fixture.scratch.path(), &[])?;
    let bad = good.configuration("{\"trustDomain\": \"example.org\"}")?;
    fixture.scratch.write("filter.json", &bad.filter_file()?)?;
    let wanted: &[(&str, &[&str])] = &[("inbound", &["configuration-refused"]), ("-", &["updates-rejected"])];
    let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
    assert!(answer.messages("configuration-refused")[0].starts_with("/policies: missing-field: "));
    let findings = answer.report["findings"].as_array().context("a list")?;
    let rejected = findings.iter().find(|finding| finding["code"] == "updates-rejected").context("a finding")?;
    assert_eq!(rejected["consequenceOf"], "configuration-refused", "{rejected}");
    Ok(())
}

//! `spiffe-authz secret` with the secrets that a real Envoy got from a real SPIRE agent.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::environment::{Environment, SVID_TTL};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::{tools, wait};

#[test]
fn reports_the_secrets_from_spire() -> Result<()> {
    let scratch = Scratch::new()?;
    let environment = Environment::start(Adapter::Wasm, scratch.path(), SVID_TTL, Ok)?;
    let file = scratch.path().join("config_dump.json");
    let read = |arguments: &[&str]| -> Result<(Option<i32>, Value)> {
        fs::write(&file, environment.server.admin("/config_dump")?.body)?;
        let mut command = Command::new(tools::path(tools::COMMAND)?);
        let output = command.args(["secret", "--format", "json"]).args(arguments).arg(&file).output()?;
        let answer = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.code(), answer))
    };
    let answer = wait::until("Envoy has its secrets", Duration::from_secs(20), || {
        let (status, answer) = read(&[])?;
        Ok::<_, anyhow::Error>((status == Some(0)).then_some(answer))
    })?;
    let svid = &answer["svid"];
    ensure!(svid["spiffeId"] == "spiffe://example.org/ns/default/sa/httpbin", "{answer}");
    ensure!(svid["issuedByBundle"] == "example.org", "{answer}");
    ensure!(answer["bundles"].as_array().is_some_and(|bundles| bundles.len() == 1), "{answer}");

    let (status, answer) = read(&["--bundle", "example.io"])?;
    ensure!(status == Some(3) && answer["findings"][0]["code"] == "bundle-missing", "{answer}");
    Ok(())
}

//! The access log that istiod configures in the proxies because of 3-istio/access-log.yaml.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Via::{Gateway, Sidecar};
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::LIMIT;

const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";

/// The caller, the proxies, the method, the path, and the line in the log of the first proxy: caller, decision, status.
type Case = (&'static str, Via, &'static str, &'static str, (&'static str, &'static str, u16));

const CASES: [Case; 4] = [
    ("sleep", Sidecar, "GET", "/status/200?allowed", (SLEEP, "allow default/sleep-reads 0", 200)),
    ("sleep", Sidecar, "DELETE", "/status/200?denied", (SLEEP, "deny denied-by-policy default/nobody-deletes 0", 403)),
    (
        "partner-report",
        Sidecar,
        "GET",
        "/headers?no-policy",
        ("spiffe://example.io/ns/prod/sa/report", "deny no-policy-allows", 403),
    ),
    (
        "partner-sleep",
        Gateway,
        "GET",
        "/status/200?gateway",
        ("spiffe://example.io/ns/default/sa/sleep", "allow istio-system/partner-enters 0", 200),
    ),
];

/// Waits for the line of a request, and returns it.
fn line(envoy: &Envoy, method: &str, path: &str) -> Result<Value> {
    wait::until("the request is in the access log", LIMIT, || {
        Ok(envoy.access_log()?.into_iter().find(|line| line["method"] == method && line["path"] == path))
    })
}

pub(crate) fn shows_decision_and_caller(mesh: &Mesh) -> Result<()> {
    let mut lines = Vec::new();
    for (caller, via, method, path, (peer, decision, status)) in CASES {
        let response = mesh.connect(caller, via)?.send(method, path)?;
        ensure!(response.status == status, "{caller} {method} {path}: {}, not {status}", response.status);
        let envoy = if via == Gateway { &mesh.gateway } else { &mesh.sidecar };
        let line = line(envoy, method, path)?;
        ensure!(
            line["peer"] == peer && line["decision"] == decision && line["status"] == json!(status),
            "expected {peer}: {decision}, {status}; got {line}"
        );
        if via == Sidecar {
            lines.push(line.to_string());
        }
    }
    // The log has every attribute that the policies use.
    let file = mesh.environment.directory().join("access.log");
    fs::write(&file, lines.join("\n") + "\n")?;
    let command = format!("spiffe-authz replay --policy 5-authorization/policies/httpbin.yaml {} 2>&1", file.display());
    let output = mesh.shell.run(&command)?;
    ensure!(output.contains("3 requests: 0 would change, 0 unknown"), "{output}");
    Ok(())
}

//! AuthorizationPolicies, as Istio enforces them and as `spiffe-authz import` converts them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools;

/// The AuthorizationPolicies of one workload in `example.org`: objects with `name`, `namespace` and `spec`.
pub type PolicySet = Vec<Value>;

/// The RBAC filters that Istio pushes for a set.
#[derive(Debug, Deserialize)]
pub struct RbacFilters {
    /// The HTTP filters.
    pub http: Vec<Value>,
    /// The network filters.
    pub tcp: Vec<Value>,
}

/// Returns the RBAC filters that Istio pushes for each set.
///
/// # Errors
/// Returns an error if Istio's builder fails.
pub fn rbac_filters(sets: &[PolicySet]) -> Result<Vec<RbacFilters>> {
    let input: Vec<Value> = sets.iter().map(|set| json!({"policies": set})).collect();
    let output = piped(&mut Command::new(tools::path(tools::ISTIO_RBAC)?), &Value::from(input).to_string())?;
    Ok(serde_json::from_str(&output)?)
}

/// Converts the policies to a document with `example.io` as a federated trust domain.
///
/// # Errors
/// Returns an error if `spiffe-authz import` fails.
pub fn import(set: &PolicySet) -> Result<Value> {
    let items: Vec<Value> = set
        .iter()
        .map(|policy| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "spec": policy["spec"],
                "metadata": {"name": policy["name"], "namespace": policy["namespace"]}
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    command.args(["import", "--trust-domain", "example.org", "--federated-trust-domain", "example.io", "-"]);
    Ok(serde_json::from_str(&piped(&mut command, &list.to_string())?)?)
}

fn piped(command: &mut Command, input: &str) -> Result<String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start")?;
    let mut stdin = child.stdin.take().context("no input")?;
    let input = input.to_owned();
    // A separate thread writes, because the command can block on its output before it has read all of its input.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writer.join().ok().context("the writer panicked")?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    written?;
    Ok(String::from_utf8(output.stdout)?)
}

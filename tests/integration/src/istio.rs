//! AuthorizationPolicies, as Istio enforces them and as `spiffe-authz import` converts them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
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

/// A mesh of which one workload is considered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// The policies of all workloads.
    pub policies: PolicySet,
    /// The namespace whose policies apply to the whole mesh.
    pub root_namespace: String,
    /// The workload: an object with `namespace`, `labels` and `waypoint`.
    pub workload: Value,
}

/// Returns the full names of the policies that Istio applies to the workload of each mesh.
///
/// # Errors
/// Returns an error if Istio's code fails.
pub fn applied(meshes: &[Mesh]) -> Result<Vec<BTreeSet<String>>> {
    #[derive(Deserialize)]
    struct Applied {
        #[serde(default)]
        applied: BTreeSet<String>,
    }
    let input = serde_json::to_string(meshes)?;
    let output = piped(&mut Command::new(tools::path(tools::ISTIO_RBAC)?), &input)?;
    let applied: Vec<Applied> = serde_json::from_str(&output)?;
    Ok(applied.into_iter().map(|of_mesh| of_mesh.applied).collect())
}

/// Converts the policies to a document with `example.io` as a federated trust domain.
///
/// # Errors
/// Returns an error if `spiffe-authz import` fails.
pub fn import(set: &PolicySet) -> Result<Value> {
    import_with(set, &[])
}

/// Converts the policies of a whole mesh to a document with `scope`.
///
/// # Errors
/// Returns an error if `spiffe-authz import` fails.
pub fn import_all(set: &PolicySet, root_namespace: &str) -> Result<Value> {
    import_with(set, &["--all", "--root-namespace", root_namespace])
}

fn import_with(set: &PolicySet, options: &[&str]) -> Result<Value> {
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
    command.args(options);
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

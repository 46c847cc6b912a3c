//! The Helm chart of the controller.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_mesh::kubectl::finish;
use spiffe_authz_mesh::mesh::Mesh;
use spiffe_authz_mesh::tools;

const RELEASE: &str = "spiffe-authz";
/// The namespace in the kustomization.
const NAMESPACE: &str = "spiffe-authz";

fn helm(mesh: &Mesh, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tools::path(tools::HELM, "helm")?);
    // Helm reads and writes files in the home directory.
    command.env("HOME", mesh.environment.directory()).env("KUBECONFIG", mesh.environment.kubectl().kubeconfig());
    finish(command.args(arguments).args(["--namespace", NAMESPACE]))
}

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/helm/spiffe-authz-controller").display().to_string()
}

/// Returns the objects in manifests by kind and name.
fn objects(mesh: &Mesh, arguments: &[&str], manifests: &str) -> Result<BTreeMap<String, Value>> {
    let arguments = [&["create", "--dry-run=client", "--validate=false", "-o", "json"], arguments].concat();
    let text = mesh.environment.kubectl().with_input(&arguments, manifests)?;
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let named = objects.map(|object| {
        let object = object?;
        Ok((format!("{} {}", object["kind"], object["metadata"]["name"]), object))
    });
    named.collect()
}

pub(crate) fn the_chart_installs_the_kustomization(mesh: &Mesh) -> Result<()> {
    let chart = chart();
    println!("{}", helm(mesh, &["lint", "--strict", &chart])?);
    for (webhook, folder) in [("false", "controller"), ("true", "controller-webhook")] {
        let value = format!("webhook={webhook}");
        let templates = helm(mesh, &["template", RELEASE, &chart, "--include-crds", "--set", &value])?;
        let of_chart = objects(mesh, &["-f", "-"], &templates)?;
        let path = mesh.shell.files().join("5-authorization").join(folder).display().to_string();
        let mut of_kustomization = objects(mesh, &["-k", &path], "")?;
        // Helm creates the namespace of a release.
        of_kustomization.remove("\"Namespace\" \"spiffe-authz\"").context("no namespace")?;
        ensure!(of_chart.len() >= 8, "objects are missing: {:?}", of_chart.keys());
        for (name, object) in &of_kustomization {
            ensure!(of_chart.get(name) == Some(object), "{name}: {object}, and in the chart: {:?}", of_chart.get(name));
        }
        ensure!(of_chart.keys().eq(of_kustomization.keys()), "{:?}", of_chart.keys());
    }
    let result = install(mesh, &chart);
    // Helm keeps the definitions in a chart's `crds`.
    mesh.shell.run("kubectl delete --ignore-not-found -k 5-authorization/controller-webhook")?;
    result
}

fn install(mesh: &Mesh, chart: &str) -> Result<()> {
    helm(mesh, &["install", RELEASE, chart, "--create-namespace", "--set", "webhook=true"])?;
    let kubectl = mesh.environment.kubectl();
    let deployment = kubectl.get(&["deployment", "spiffe-authz-controller", "-n", NAMESPACE])?;
    ensure!(deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm", "{deployment}");
    helm(mesh, &["upgrade", RELEASE, chart, "--set", "webhook=false"])?;
    let webhooks = kubectl.run(&["get", "validatingwebhookconfigurations", "-o", "name"])?;
    ensure!(!webhooks.contains("/spiffe-authz\n"), "the webhook is left: {webhooks}");
    helm(mesh, &["uninstall", RELEASE])?;
    let left = kubectl.run(&["get", "deployments,services,networkpolicies", "-n", NAMESPACE, "-o", "name"])?;
    ensure!(left.trim().is_empty(), "objects are left: {left}");
    Ok(())
}

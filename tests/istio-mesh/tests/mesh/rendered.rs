//! The AuthorizationPolicies of the mesh, deployed by `spiffe-authz render`.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Via::{Gateway, Sidecar};
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::{LIMIT, guide};

/// The command of the test. The policies follow.
const RENDER: &str = "spiffe-authz render --to wasm-plugin --trust-domain example.org --federated-trust-domain example.io \
                      --image \"file://$WASM\" --sha256 \"$(sha256sum \"$WASM\" | cut -c 1-64)\" --proxies sidecars \
                      --proxies gateway:istio-system/istio=ingressgateway";
const POLICIES: &str = "kubectl get authorizationpolicies -A -o yaml";

/// The caller, the proxies, the method, and the status. The federated callers have the names of the local ones.
const VERDICTS: [(&str, Via, &str, u16); 7] = [
    ("sleep", Sidecar, "GET", 200),
    ("sleep", Sidecar, "POST", 403),
    ("report", Sidecar, "GET", 403),
    ("partner-sleep", Sidecar, "GET", 403),
    ("partner-report", Sidecar, "GET", 403),
    // The policy of httpbin denies them, and the policy of the gateway does not apply to httpbin.
    ("report", Gateway, "GET", 403),
    ("partner-report", Gateway, "GET", 403),
];

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// Policies of three namespaces, as people write them for Istio alone.
fn policies() -> Value {
    let from = |source: Value| json!([{"source": source}]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        policy("default", "sleep-reads", &json!({
            "selector": {"matchLabels": {"app": "httpbin"}},
            "rules": [{
                "from": from(json!({"principals": ["cluster.local/ns/default/sa/sleep"]})),
                "to": [{"operation": {"methods": ["GET"]}}],
            }],
        })),
        policy("istio-system", "enter", &json!({
            "selector": {"matchLabels": {"istio": "ingressgateway"}},
            "rules": [{"from": from(json!({"namespaces": ["prod"]}))}],
        })),
        policy("kube-public", "other", &json!({"rules": [{"from": from(json!({"namespaces": ["nowhere"]}))}]})),
    ]})
}

/// Policies of two more namespaces, with which the object of the mesh would be too big.
fn large_policies() -> Value {
    let paths: Vec<String> = (0..6000).map(|number| format!("/{number}/{}", "x".repeat(80))).collect();
    let large =
        |namespace: &str| policy(namespace, "large", &json!({"rules": [{"to": [{"operation": {"paths": paths}}]}]}));
    json!({"apiVersion": "v1", "kind": "List", "items": [large("kube-public"), large("kube-node-lease")]})
}

pub(crate) fn policies_of_the_mesh_are_enforced(mesh: &Mesh) -> Result<()> {
    with_policies(mesh, || deployed(mesh).and_then(|()| enforced(mesh)))
}

pub(crate) fn a_mesh_that_is_too_big_is_split(mesh: &Mesh) -> Result<()> {
    with_policies(mesh, || deployed(mesh).and_then(|()| split(mesh)))
}

/// Runs a test in place of the filter of the guide, and removes its policies.
fn with_policies(mesh: &Mesh, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    let result = test();
    mesh.shell.run("kubectl delete wasmplugins -A -l app.kubernetes.io/managed-by=spiffe-authz")?;
    for policies in [policies(), large_policies()] {
        kubectl.with_input(&["delete", "--ignore-not-found", "-f", "-"], &policies.to_string())?;
    }
    result
}

fn deployed(mesh: &Mesh) -> Result<()> {
    mesh.environment.kubectl().apply(&policies().to_string())?;
    render(mesh)?;
    // Istio's own filter denies with another text.
    wait::until("sidecar and gateway enforce the policies", LIMIT, || {
        let at_gateway = denied_by_filter(mesh, "partner-report", Gateway)?;
        Ok((denied_by_filter(mesh, "partner-sleep", Sidecar)? && at_gateway).then_some(()))
    })
}

/// Deploys the policies of the cluster.
fn render(mesh: &Mesh) -> Result<()> {
    let command = format!("{POLICIES} | {RENDER} -o rendered.yaml - && kubectl apply --server-side -f rendered.yaml");
    mesh.shell.run(&command).map(drop)
}

fn denied_by_filter(mesh: &Mesh, caller: &str, via: Via) -> Result<bool> {
    let response = mesh.connect(caller, via)?.send("GET", "/status/200")?;
    Ok(response.status == 403 && response.text().contains("spiffe-authz: access denied"))
}

/// The object of the mesh is split while requests flow: nothing is allowed that the policies deny, also without the object of the
/// workload's namespace.
fn split(mesh: &Mesh) -> Result<()> {
    let start = Instant::now();
    mesh.environment.kubectl().with_input(&["apply", "--server-side", "-f", "-"], &large_policies().to_string())?;
    render(mesh)?;
    let (mut requests, mut denied) = (0, 0);
    wait::until("the sidecar has both filters", LIMIT, || {
        ensure!(mesh.status("sleep", Sidecar, "POST", "/status/200")? == 403, "a denied method is allowed");
        ensure!(mesh.status("partner-sleep", Sidecar, "GET", "/status/200")? == 403, "a denied caller is allowed");
        requests += 1;
        let is_denied = mesh.status("sleep", Sidecar, "GET", "/status/200")? != 200;
        denied += usize::from(is_denied);
        let filters = guide::discovered(&mesh.sidecar)?;
        let count = filters.iter().filter(|name| name.contains("spiffe-authz")).count();
        Ok((count == 2 && is_delegated(mesh)? && !is_denied).then_some(()))
    })?;
    println!(
        "the mesh was split after {:.1} s; {denied} of {requests} allowed requests were denied meanwhile",
        start.elapsed().as_secs_f64()
    );
    verdicts(mesh)?;

    mesh.shell.run("kubectl delete wasmplugin spiffe-authz -n default")?;
    wait::until("the sidecar has the filter of the mesh only", LIMIT, || {
        Ok((mesh.status("sleep", Sidecar, "GET", "/status/200")? == 403).then_some(()))
    })?;
    let marked = mesh.sidecar.log()?.contains("delegate-missing");
    ensure!(marked, "the denials have another reason");
    render(mesh)?;
    wait::until("the policies decide again", LIMIT, || Ok(verdicts(mesh).ok()))
}

/// Returns `true` if the filter of the mesh in the sidecar knows that the workload's namespace has another one.
fn is_delegated(mesh: &Mesh) -> Result<bool> {
    let dump = mesh.sidecar.admin("/config_dump?resource=ecds_filters")?.text();
    Ok(dump.contains("delegatedNamespaces"))
}

fn verdicts(mesh: &Mesh) -> Result<()> {
    for (caller, via, method, expected) in VERDICTS {
        let status = mesh.status(caller, via, method, "/status/200")?;
        ensure!(status == expected, "{caller} via {via:?}, {method}: {status}, not {expected}");
    }
    Ok(())
}

fn enforced(mesh: &Mesh) -> Result<()> {
    verdicts(mesh)?;
    // The objects are as rendered, until someone changes them.
    let check =
        format!("{POLICIES} > policies.yaml && kubectl get wasmplugins -A -o yaml | {RENDER} policies.yaml --check -");
    mesh.shell.run(&check).context("nothing has changed")?;
    mesh.shell.run(
        "kubectl patch wasmplugin spiffe-authz -n istio-system --type json --patch \
         '[{\"op\": \"replace\", \"path\": \"/spec/failStrategy\", \"value\": \"FAIL_CLOSE\"}]'",
    )?;
    let Err(error) = mesh.shell.run(&check) else { anyhow::bail!("a change of the object is not found") };
    let error = format!("{error:#}");
    ensure!(error.contains("WasmPlugin istio-system/spiffe-authz differs at /spec/failStrategy"), "{error}");
    Ok(())
}

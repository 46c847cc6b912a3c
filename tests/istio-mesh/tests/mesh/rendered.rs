//! The AuthorizationPolicies of the mesh, deployed by `spiffe-authz render`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Via::{Gateway, Sidecar};
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::LIMIT;

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

pub(crate) fn policies_of_the_mesh_are_enforced(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    let result = deployed(mesh).and_then(|()| enforced(mesh));
    mesh.shell.run("kubectl delete wasmplugins -A -l app.kubernetes.io/managed-by=spiffe-authz")?;
    kubectl.with_input(&["delete", "--ignore-not-found", "-f", "-"], &policies().to_string())?;
    result
}

fn deployed(mesh: &Mesh) -> Result<()> {
    mesh.environment.kubectl().apply(&policies().to_string())?;
    mesh.shell.run(&format!("{POLICIES} | {RENDER} -o rendered.yaml - && kubectl apply -f rendered.yaml")).map(drop)
}

fn enforced(mesh: &Mesh) -> Result<()> {
    // Istio's own filter denies with another text.
    let denied_by_filter = |caller, via| {
        let response = mesh.connect(caller, via)?.send("GET", "/status/200")?;
        Ok::<_, anyhow::Error>(response.status == 403 && response.text().contains("spiffe-authz: access denied"))
    };
    wait::until("sidecar and gateway enforce the policies", LIMIT, || {
        let at_gateway = denied_by_filter("partner-report", Gateway)?;
        Ok((denied_by_filter("partner-sleep", Sidecar)? && at_gateway).then_some(()))
    })?;
    for (caller, via, method, expected) in VERDICTS {
        let status = mesh.status(caller, via, method, "/status/200")?;
        ensure!(status == expected, "{caller} via {via:?}, {method}: {status}, not {expected}");
    }

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

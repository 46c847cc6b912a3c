//! The admission webhook of the controller.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::{port, wait};
use spiffe_authz_mesh::controller::Controller;
use spiffe_authz_mesh::mesh::Mesh;

use crate::LIMIT;

/// Returns an AuthorizationPolicy of a workload that does not exist.
fn policy(name: &str, spec: Value) -> String {
    let mut policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "nobody"}}},
    });
    policy["spec"]
        .as_object_mut()
        .into_iter()
        .zip(spec.as_object())
        .for_each(|(all, fields)| all.extend(fields.clone()));
    policy.to_string()
}

fn allowing(paths: &[&str]) -> Value {
    json!({"rules": [{"to": [{"operation": {"paths": paths}}]}]})
}

pub(crate) fn policies_with_errors_are_rejected(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl apply --server-side -k 5-authorization/controller-webhook")?;
    let result = with_webhook(mesh);
    mesh.shell.run("kubectl delete --ignore-not-found -k 5-authorization/controller-webhook")?;
    mesh.shell.run("kubectl delete --ignore-not-found authorizationpolicies -n default no-error custom")?;
    result
}

fn with_webhook(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    mesh.shell.run("5-authorization/controller-webhook/certificate.sh")?;
    // The pods of the Deployment are not processes. The API server reaches the replica below by the name of the Service,
    // which it also compares with the certificate.
    let port = port::free()?;
    let service = json!({"spec": {"type": "ExternalName", "externalName": "localhost", "selector": null}}).to_string();
    kubectl.run(&["patch", "service", "spiffe-authz-controller", "-n", "spiffe-authz", "-p", &service])?;
    let at_port = json!([{"op": "add", "path": "/webhooks/0/clientConfig/service/port", "value": port}]).to_string();
    kubectl.run(&["patch", "validatingwebhookconfiguration", "spiffe-authz", "--type=json", "-p", &at_port])?;
    let controller = Controller::start_with_webhook(kubectl, mesh.environment.directory(), "webhook", port)?;

    let custom = policy("custom", json!({"action": "CUSTOM", "provider": {"name": "nobody"}, "rules": [{}]}));
    let rejected = |policy: &str| kubectl.apply(policy).err().map(|error| format!("{error:#}"));
    // The API server reads its webhooks from time to time.
    let message = wait::until("the policy is rejected", LIMIT, || {
        let message = rejected(&custom);
        if message.is_none() {
            kubectl.with_input(&["delete", "-f", "-"], &custom)?;
        }
        Ok(message)
    })
    .with_context(|| controller.log().unwrap_or_default())?;
    for text in ["policies.spiffe-authz.io", "default/custom: spec.action: ", "CUSTOM"] {
        ensure!(message.contains(text), "no {text} in {message}");
    }
    // The controller of this test keeps the previous certificate, as a pod does for a while.
    mesh.shell.run("5-authorization/controller-webhook/certificate.sh")?;
    let never = policy("never", json!({"action": "DENY", "rules": allowing(&["/a?b"])["rules"]}));
    let message = rejected(&never).context("a DENY policy that can never match is admitted")?;
    ensure!(message.contains("never-matches"), "{message}");

    mesh.shell.run(&format!("kubectl apply -f - <<'EOF'\n{}\nEOF", policy("no-error", allowing(&["/a/*"]))))?;
    let warned = format!("kubectl apply -f - 2>&1 <<'EOF'\n{}\nEOF", policy("no-error", allowing(&["/a/*/b"])));
    let warned = mesh.shell.run(&warned)?;
    ensure!(warned.contains("Warning: default/no-error: ") && warned.contains("literal-asterisk"), "{warned}");

    // Without a replica, the API server applies `failurePolicy`.
    controller.kill()?;
    kubectl.apply(&custom).map(drop)
}

//! Istio's injector adds the agent's socket to pods of the sample workload, and SPIRE's controller manager registers
//! them.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Mesh;

use crate::LIMIT;

pub(crate) fn as_container(mesh: &Mesh) -> Result<()> {
    injected_and_registered(mesh, "false", "containers", "initContainers")
}

pub(crate) fn as_native_sidecar(mesh: &Mesh) -> Result<()> {
    injected_and_registered(mesh, "true", "initContainers", "containers")
}

/// Creates a copy of the Deployment `sleep` with this kind of sidecar, checks its pod and its entry, and deletes it.
fn injected_and_registered(mesh: &Mesh, native: &str, place: &str, other: &str) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let name = format!("sleep-{native}");
    let mut deployment = kubectl.get(&["deployment", "sleep", "-n", "default"])?;
    deployment["metadata"] = json!({"name": name, "namespace": "default"});
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!(name);
    let template = &mut deployment["spec"]["template"]["metadata"];
    template["labels"]["app"] = json!(name);
    // The injection template sets the label. The sample has it for pods that the webhook does not see.
    template["labels"].as_object_mut().context("no labels")?.remove("spiffe.io/spire-managed-identity");
    template["annotations"]["sidecar.istio.io/nativeSidecar"] = json!(native);
    kubectl.apply(&deployment.to_string())?;
    let pod = wait::until("the pod runs", LIMIT, || {
        let pods = kubectl.list(&["pods", "-n", "default", "-l", &format!("app={name}")])?;
        Ok(pods.into_iter().find(|pod| pod["status"]["phase"] == "Running"))
    })?;
    injected(&pod, place, other)?;

    let uid = pod["metadata"]["uid"].as_str().context("the pod has no uid")?;
    let selector = json!({"type": "k8s", "value": format!("pod-uid:{uid}")});
    let of_pod = |entry: &Value| entry["selectors"].as_array().is_some_and(|all| all.contains(&selector));
    let entry =
        wait::until("the pod is registered", LIMIT, || Ok(mesh.environment.local.entries()?.into_iter().find(of_pod)))?;
    let id = json!({"trust_domain": "example.org", "path": "/ns/default/sa/sleep"});
    ensure!(entry["spiffe_id"] == id, "{entry}");
    let parent = &entry["parent_id"];
    let parent = format!("spiffe://{}{}", text(&parent["trust_domain"])?, text(&parent["path"])?);
    ensure!(parent == mesh.environment.agent_id, "{parent} is not the agent of the cluster");
    let namespace = json!({"type": "k8s", "value": "ns:default"});
    let selectors = entry["selectors"].as_array().context("no selectors")?;
    ensure!(selectors.len() == 2 && selectors.contains(&namespace), "{entry}");
    let federates = entry["federates_with"].as_array().context("no federated trust domains")?;
    ensure!(
        federates.len() == 2 && ["example.io", "example.ai"].iter().all(|name| federates.contains(&json!(name))),
        "{entry}"
    );

    kubectl.run(&["delete", "deployment", &name, "-n", "default", "--wait"])?;
    wait::until("the entry goes with the pod", LIMIT, || {
        Ok((!mesh.environment.local.entries()?.iter().any(of_pod)).then_some(()))
    })
}

fn injected(pod: &Value, place: &str, other: &str) -> Result<()> {
    ensure!(pod["metadata"]["labels"]["spiffe.io/spire-managed-identity"] == "true", "the pod has no label: {pod}");
    let named = |list: &Value, name: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().filter(|item| item["name"] == name).cloned().collect()
    };
    let proxies = named(&pod["spec"][place], "istio-proxy");
    ensure!(proxies.len() == 1, "{} proxies among {place}: {pod}", proxies.len());
    ensure!(named(&pod["spec"][other], "istio-proxy").is_empty(), "another proxy among {other}: {pod}");
    let mounts = named(&proxies[0]["volumeMounts"], "workload-socket");
    ensure!(mounts.iter().any(|mount| mount["mountPath"] == "/run/secrets/workload-spiffe-uds"), "{mounts:?}");
    let volumes = named(&pod["spec"]["volumes"], "workload-socket");
    ensure!(volumes.len() == 1 && volumes[0]["csi"]["driver"] == "csi.spiffe.io", "{volumes:?}");
    Ok(())
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("no text")
}

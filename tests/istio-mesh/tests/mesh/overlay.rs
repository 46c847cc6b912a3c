//! The objects that Istio generates from examples/istio/3-istio/istio.yaml.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_mesh::mesh::Mesh;

const SOCKET_DIRECTORY: &str = "/run/secrets/workload-spiffe-uds";

fn generated(mesh: &Mesh, kind: &str, name: &str) -> Result<Value> {
    let text = mesh.shell.run("istioctl manifest generate -f 3-istio/istio.yaml")?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let wanted = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.into_iter().find(wanted).with_context(|| format!("istioctl generates no {kind} {name}"))
}

fn named<'v>(list: &'v Value, name: &str) -> Result<&'v Value> {
    let items = list.as_array().context("no list")?;
    items.iter().find(|item| item["name"] == name).with_context(|| format!("no `{name}` in {list}"))
}

pub(crate) fn the_gateway_mounts_the_socket_and_waits_for_it(mesh: &Mesh) -> Result<()> {
    let deployment = generated(mesh, "Deployment", "istio-ingressgateway")?;
    let pod = &deployment["spec"]["template"]["spec"];
    let volume = named(&pod["volumes"], "workload-socket")?;
    ensure!(volume["csi"] == json!({"driver": "csi.spiffe.io", "readOnly": true}), "{volume}");
    for container in
        [named(&pod["containers"], "istio-proxy")?, named(&pod["initContainers"], "wait-for-spire-socket")?]
    {
        let mount = named(&container["volumeMounts"], "workload-socket")?;
        ensure!(mount["mountPath"] == SOCKET_DIRECTORY && mount["readOnly"] == true, "{mount}");
    }
    let waits = named(&pod["initContainers"], "wait-for-spire-socket")?;
    ensure!(named(&waits["env"], "CHECK_FILE")?["value"] == format!("{SOCKET_DIRECTORY}/socket"), "{waits}");
    Ok(())
}

pub(crate) fn istiod_gets_trust_domains_and_template(mesh: &Mesh) -> Result<()> {
    let text = |object: &Value, key: &str| object["data"][key].as_str().map(str::to_owned).context("no such key");
    let settings: Value = serde_saphyr::from_str(&text(&generated(mesh, "ConfigMap", "istio")?, "mesh")?)?;
    ensure!(settings["trustDomain"] == "example.org", "{settings}");
    ensure!(settings["caCertificates"] == json!([{"trustDomains": ["example.io", "example.ai"]}]), "{settings}");
    ensure!(settings["trustDomainAliases"].is_null(), "{settings}");
    ensure!(settings["pathNormalization"]["normalization"] == "DECODE_AND_MERGE_SLASHES", "{settings}");
    let config = text(&generated(mesh, "ConfigMap", "istio-sidecar-injector")?, "config")?;
    let config: Value = serde_saphyr::from_str(&config)?;
    let template = config["templates"]["spire"].as_str().context("no template spire")?;
    ensure!(template.contains("spiffe.io/spire-managed-identity: \"true\""), "{template}");
    ensure!(template.contains("csi.spiffe.io") && template.contains(SOCKET_DIRECTORY), "{template}");
    Ok(())
}

//! The manifests of examples/istio that provide what the filter relies on. tests/istio-mesh applies them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::CONNECTION_MANAGER;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/istio")
}

fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.split("\n---\n").map(|document| Ok(serde_saphyr::from_str(document)?)).collect()
}

/// Returns the workloads that these resources select, as namespace and labels.
fn selected(resources: &[Value], selector: &str) -> BTreeSet<String> {
    let one = |resource: &Value| {
        let spec = &resource["spec"][selector];
        let labels = spec.get("matchLabels").or_else(|| spec.get("labels")).unwrap_or(spec);
        format!("{} {labels}", resource["metadata"]["namespace"])
    };
    resources.iter().map(one).collect()
}

#[test]
fn no_workload_with_the_filter_resumes_sessions() -> Result<()> {
    let connections = documents(&examples().join("5-authorization/connections.yaml"))?;
    let mut filters = Vec::new();
    for name in ["sidecar", "gateway"] {
        filters.extend(documents(&examples().join(format!("5-authorization/wasmplugin/{name}.yaml")))?);
    }
    assert_eq!(selected(&connections, "workloadSelector"), selected(&filters, "selector"));
    for filter in &connections {
        let patches = filter["spec"]["configPatches"].as_array().context("no patches")?;
        let tls = patches.iter().find(|patch| patch["applyTo"] == "FILTER_CHAIN").context("no patch for TLS")?;
        let socket = &tls["patch"]["value"]["transport_socket"]["typed_config"];
        for field in ["disable_stateless_session_resumption", "disable_stateful_session_resumption"] {
            assert_eq!(socket[field], true, "{filter}");
        }
    }
    Ok(())
}

#[test]
fn every_host_of_the_gateway_is_patched() -> Result<()> {
    let gateways = documents(&examples().join("4-workloads/gateway.yaml"))?;
    let gateway = gateways.iter().find(|one| one["kind"] == "Gateway").context("no gateway")?;
    let servers = gateway["spec"]["servers"].as_array().context("no servers")?;
    let hosts: BTreeSet<&str> =
        servers.iter().flat_map(|server| server["hosts"].as_array()).flatten().filter_map(Value::as_str).collect();
    let connections = documents(&examples().join("5-authorization/connections.yaml"))?;
    let patches = connections.iter().flat_map(|filter| filter["spec"]["configPatches"].as_array()).flatten();
    for kind in ["FILTER_CHAIN", "NETWORK_FILTER"] {
        let of_gateway = |patch: &&Value| patch["match"]["context"] == "GATEWAY" && patch["applyTo"] == kind;
        let patched: BTreeSet<&str> = patches
            .clone()
            .filter(of_gateway)
            .filter_map(|patch| patch["match"]["listener"]["filterChain"]["sni"].as_str())
            .collect();
        assert_eq!(patched, hosts, "{kind}");
    }
    assert!(!hosts.is_empty());
    Ok(())
}

#[test]
fn the_mesh_normalizes_paths_and_keeps_counters() -> Result<()> {
    let istio = documents(&examples().join("3-istio/istio.yaml"))?.remove(0);
    let helm = documents(&examples().join("3-istio/helm/istiod.yaml"))?.remove(0);
    for settings in [&istio["spec"]["meshConfig"], &helm["meshConfig"]] {
        assert_eq!(settings["pathNormalization"], json!({"normalization": "DECODE_AND_MERGE_SLASHES"}));
        // Without the first two, the doctor cannot report whether the SPIRE agent responds. The alerts of
        // examples/monitoring need the others.
        let kept = &settings["defaultConfig"]["proxyStatsMatcher"]["inclusionPrefixes"];
        let needed = ["sds.", "cluster.sds-grpc.", "extension_config_discovery.", "dynamicmodulescustom."];
        assert_eq!(*kept, json!(needed));
    }
    Ok(())
}

/// `spiffe-authz replay` reads these fields.
#[test]
fn the_access_log_has_the_fields_of_the_bootstrap() -> Result<()> {
    let bootstrap = documents(&examples().join("../bootstrap/server/envoy.yaml"))?.remove(0);
    let expected = bootstrap.pointer(&format!("{CONNECTION_MANAGER}/access_log/0/typed_config/log_format/json_format"));
    let istio = documents(&examples().join("3-istio/istio.yaml"))?.remove(0);
    let provider = &istio["spec"]["meshConfig"]["extensionProviders"][0];
    assert_eq!(Some(&provider["envoyFileAccessLog"]["logFormat"]["labels"]), expected);
    let telemetry = documents(&examples().join("3-istio/access-log.yaml"))?.remove(0);
    assert_eq!(telemetry["spec"]["accessLogging"][0]["providers"], json!([{"name": provider["name"]}]));
    Ok(())
}

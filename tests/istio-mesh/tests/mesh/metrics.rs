//! The metrics of a proxy that istiod configures.

use anyhow::{Context as _, Result, ensure};
use spiffe_authz_mesh::mesh::Mesh;
use spiffe_authz_mesh::mesh::Via::Sidecar;
use spiffe_authz_mesh::proxy::proxy_settings;

/// The prefixes of the counters that every proxy of Istio keeps.
///
/// Source: Istio, `pkg/bootstrap/config.go`, `requiredEnvoyStatsMatcherInclusionPrefixes`.
const ALWAYS_KEPT: [&str; 5] = ["cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"];

/// Envoy's counters in the alert rules of examples/monitoring: the beginning and the end of their names.
const OF_ALERTS: [(&str, &str); 6] = [
    ("extension_config_discovery.", ".update_rejected"),
    ("listener_manager.lds", ".update_rejected"),
    ("sds.", ".update_failure"),
    ("sds.", ".update_rejected"),
    ("wasm.", ".vm_reload_backoff"),
    ("wasm.", ".vm_reload_failure"),
];

/// Istio's bootstrap turns mode, verdict, reason and policy into labels, because the mesh lists them in `extraStatTags`.
pub(crate) fn the_counter_has_labels(mesh: &Mesh) -> Result<()> {
    for (method, status) in [("DELETE", 403), ("GET", 200)] {
        ensure!(mesh.status("sleep", Sidecar, method, "/status/200")? == status);
    }
    let page = mesh.sidecar.admin("/stats/prometheus")?.text();
    let ours: Vec<&str> = page.lines().filter(|line| line.starts_with("spiffe_authz_")).collect();
    let denied = r#"spiffe_authz_decisions{spiffe_authz_mode="enforce",spiffe_authz_verdict="deny",spiffe_authz_reason="denied-by-policy",spiffe_authz_policy="default/nobody-deletes"} "#;
    ensure!(ours.iter().any(|line| line.starts_with(denied)), "expected {denied} in {ours:#?}");
    ensure!(ours.iter().any(|line| line.starts_with("spiffe_authz_allowed{} ")), "{ours:#?}");
    Ok(())
}

/// The alert rules of examples/monitoring find Envoy's counters, and Istio's proxies keep them.
pub(crate) fn the_counters_of_the_alerts_exist(mesh: &Mesh) -> Result<()> {
    let settings = proxy_settings(mesh.environment.kubectl())?;
    let added = settings["proxyStatsMatcher"]["inclusionPrefixes"].as_array().context("no `inclusionPrefixes`")?;
    let kept: Vec<&str> = ALWAYS_KEPT.into_iter().chain(added.iter().filter_map(|prefix| prefix.as_str())).collect();
    let page = mesh.sidecar.admin("/stats/prometheus")?.text();
    let stats = mesh.sidecar.admin("/stats")?.text();
    for (start, end) in OF_ALERTS {
        let of_envoy = stats.lines().filter_map(|line| Some(line.split_once(": ")?.0));
        let of_envoy: Vec<&str> = of_envoy.filter(|name| name.starts_with(start) && name.ends_with(end)).collect();
        let is_kept = |name: &&str| kept.iter().any(|prefix| name.starts_with(prefix));
        ensure!(
            !of_envoy.is_empty() && of_envoy.iter().all(is_kept),
            "Istio drops some of {start}…{end}: {of_envoy:?}"
        );
        let (start, end) = (format!("envoy_{}", start.replace('.', "_")), end.replace('.', "_"));
        let mut names = page.lines().filter_map(|line| Some(line.split_once('{')?.0));
        ensure!(names.any(|name| name.starts_with(&start) && name.ends_with(&end)), "no {start}…{end} in {page}");
    }
    Ok(())
}

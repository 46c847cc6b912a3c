//! The metrics of a proxy that istiod configures.

use anyhow::{Result, ensure};
use spiffe_authz_mesh::mesh::Mesh;
use spiffe_authz_mesh::mesh::Via::Sidecar;

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

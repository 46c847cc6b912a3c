//! Policies change while callers keep their connections.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::{LIMIT, verdicts};

/// Gauges and counters of an Envoy that change if it drains a listener or closes a connection.
const CONNECTIONS: [&str; 4] = [
    "listener_manager.total_listeners_draining",
    "listener_manager.listener_modified",
    "listener_manager.listener_removed",
    "listener_manager.listener_in_place_updated",
];

/// Returns the WasmPlugin of httpbin, ready for `kubectl apply`.
fn plugin(mesh: &Mesh) -> Result<Value> {
    let mut plugin = mesh.environment.kubectl().get(&["wasmplugin", "spiffe-authz-httpbin", "-n", "default"])?;
    plugin["metadata"] = json!({"name": "spiffe-authz-httpbin", "namespace": "default"});
    plugin.as_object_mut().context("no object")?.remove("status");
    Ok(plugin)
}

fn connections(mesh: &Mesh) -> Result<Vec<(String, u64)>> {
    let text = mesh.sidecar.admin("/stats?usedonly")?.text();
    let of_callers = |name: &str| {
        name.starts_with("http.")
            && name.contains("inbound")
            && name.contains("downstream_cx_")
            && !name.contains("bytes")
    };
    let counted = |name: &str| name.ends_with("_total") || name.ends_with("_destroy") || name.ends_with("_drain_close");
    let stats = text.lines().filter_map(|line| line.split_once(": "));
    let wanted = stats.filter(|(name, _)| CONNECTIONS.contains(name) || of_callers(name) && counted(name));
    wanted.map(|(name, value)| Ok((name.to_owned(), value.parse()?))).collect()
}

pub(crate) fn a_policy_takes_effect_without_draining(mesh: &Mesh) -> Result<()> {
    let old = plugin(mesh)?;
    let mut new = old.clone();
    new["spec"]["pluginConfig"]["policies"].as_array_mut().context("no policies")?.push(json!({
        "name": "partner-reads-its-address",
        "namespace": "default",
        "rules": [{
            "from": [{"source": {"principals": ["example.io/ns/default/sa/sleep"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/ip"]}}],
        }],
    }));
    let mut caller = mesh.connect("partner-sleep", Via::Sidecar)?;
    ensure!(caller.send("GET", "/ip")?.status == 403, "the policy already applies");
    let before = connections(mesh)?;
    ensure!(before.iter().any(|(name, total)| name.ends_with("downstream_cx_total") && *total > 0), "{before:?}");
    for (manifest, wanted) in [(&new, 200), (&old, 403)] {
        mesh.environment.kubectl().apply(&manifest.to_string())?;
        let applied = Instant::now();
        wait::until("the policy takes effect", LIMIT, || {
            Ok((caller.send("GET", "/ip")?.status == wanted).then_some(()))
        })?;
        println!("kubectl apply to verdict {wanted}: {} ms", applied.elapsed().as_millis());
    }
    let after = connections(mesh)?;
    ensure!(before == after, "connections or listeners changed: {before:?} to {after:?}");
    Ok(())
}

/// Returns the number of rejected configurations of filters, which an alert rule of examples/monitoring finds.
fn rejected(mesh: &Mesh) -> Result<u64> {
    let page = mesh.sidecar.admin("/stats/prometheus")?.text();
    let is_counter =
        |name: &str| name.starts_with("envoy_extension_config_discovery_") && name.contains("_update_rejected{");
    page.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| is_counter(name))
        .map(|(_, value)| Ok(value.parse::<u64>()?))
        .sum()
}

pub(crate) fn an_invalid_configuration_changes_nothing(mesh: &Mesh) -> Result<()> {
    let old = plugin(mesh)?;
    let before = rejected(mesh)?;
    let mut broken = old.clone();
    broken["spec"]["pluginConfig"]["policies"][0]["action"] = json!("PERMIT");
    let mark = mesh.sidecar.log()?.len();
    // The API server admits it, because Istio does not check the configuration of a plugin.
    mesh.environment.kubectl().apply(&broken.to_string())?;
    wait::until("Envoy logs the error", LIMIT, || {
        let said = mesh.sidecar.log()?[mark..].contains("spiffe-authz: /policies/0/action: invalid-value");
        Ok(said.then_some(()))
    })?;
    wait::until("Envoy counts the rejection", LIMIT, || Ok((rejected(mesh)? > before).then_some(())))?;
    verdicts::check(mesh)?;
    // Envoy accepts a later valid configuration.
    let mut closed = old.clone();
    closed["spec"]["pluginConfig"]["policies"] = json!([{"name": "nobody", "namespace": "default"}]);
    mesh.environment.kubectl().apply(&closed.to_string())?;
    wait::until("the next configuration applies", LIMIT, || {
        Ok((mesh.status("sleep", Via::Sidecar, "GET", "/status/200")? == 403).then_some(()))
    })?;
    mesh.environment.kubectl().apply(&old.to_string())?;
    wait::until("the first configuration applies again", LIMIT, || {
        Ok(verdicts::mismatch(mesh)?.is_none().then_some(()))
    })
}

//! The state at the end of the guide. Every test starts in it, regardless of the previous test.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Mesh;

use crate::{LIMIT, istio_alone, verdicts};

/// Attaches the filter as in the guide, and removes the resources of other tests.
pub(crate) fn restore(mesh: &Mesh) -> Result<()> {
    for folder in ["trafficextension", "envoyfilter"] {
        mesh.shell.run(&format!("kubectl delete --ignore-not-found -k 5-authorization/{folder}"))?;
    }
    istio_alone::remove_policy(mesh)?;
    istio_alone::set_trust(mesh, istio_alone::Trust::Federated)?;
    mesh.shell.run("kubectl apply -k 5-authorization/wasmplugin")?;
    wait::until("the filter is attached as the guide does", LIMIT, || {
        Ok((attached(mesh, "wasmplugin").is_ok() && !is_inline(&mesh.sidecar)? && !is_inline(&mesh.gateway)?)
            .then_some(()))
    })?;
    let mut mismatch = None;
    wait::until("the policies of the guide decide", LIMIT, || {
        mismatch = verdicts::mismatch(mesh)?;
        Ok(mismatch.is_none().then_some(()))
    })
    .with_context(|| mismatch.unwrap_or_default())?;
    // Closed connections of replaced listeners would change the counters that a test compares.
    wait_until_nothing_drains(mesh)
}

/// Waits until no replaced listener has connections. Envoy closes them at the end, also between two requests.
pub(crate) fn wait_until_nothing_drains(mesh: &Mesh) -> Result<()> {
    wait::until("nothing drains", LIMIT, || {
        let draining = |envoy: &Envoy| -> Result<bool> {
            let gauges = ["total_filter_chains_draining", "total_listeners_draining"];
            let stats = gauges.map(|gauge| envoy.stat(&format!("listener_manager.{gauge}")));
            Ok(stats.into_iter().collect::<Result<Vec<_>>>()?.iter().any(|value| *value != Some(0)))
        };
        Ok((!draining(&mesh.sidecar)? && !draining(&mesh.gateway)?).then_some(()))
    })
}

/// Checks that sidecar and gateway have the filter from exactly one resource of this kind, through ECDS.
pub(crate) fn attached(mesh: &Mesh, kind: &str) -> Result<()> {
    for (envoy, namespace) in [(&mesh.sidecar, "default"), (&mesh.gateway, "istio-system")] {
        let names = discovered(envoy)?;
        let wanted = format!("{namespace}.spiffe-authz");
        let filters: Vec<&String> = names.iter().filter(|name| name.contains(&wanted)).collect();
        ensure!(filters.len() == 1 && filters[0].contains(kind), "expected one {kind} {wanted}, found {names:?}");
    }
    Ok(())
}

/// Returns the names of the filters that an Envoy got through ECDS.
pub(crate) fn discovered(envoy: &Envoy) -> Result<Vec<String>> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=ecds_filters")?.body)?;
    let all = dump["configs"].as_array().into_iter().flatten();
    Ok(all.filter_map(|one| Some(one["ecds_filter"]["name"].as_str()?.to_owned())).collect())
}

/// Returns `true` if a listener contains the configuration of the filter, which an EnvoyFilter adds.
fn is_inline(envoy: &Envoy) -> Result<bool> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=dynamic_listeners")?.body)?;
    Ok(has_inline(&dump))
}

fn has_inline(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_inline),
        Value::Object(fields) => {
            let named = value["name"] == "spiffe-authz" && fields.contains_key("typed_config");
            named || fields.values().any(has_inline)
        }
        _ => false,
    }
}

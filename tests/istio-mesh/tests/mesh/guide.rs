//! The state that the guide leaves: every test begins with it, regardless of what the previous test has left.

use anyhow::{Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Mesh;

use crate::{LIMIT, istio_alone, verdicts};

/// Attaches the filter as the guide does, and removes what other tests attach.
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
    wait::until("the policies of the guide decide", LIMIT, || Ok(verdicts::wrong(mesh)?.is_none().then_some(())))?;
    // The connections of the previous listeners are closed, which a test that counts connections would see.
    wait::until("nothing drains", LIMIT, || {
        let draining = |envoy: &Envoy| -> Result<bool> {
            let gauges = ["total_filter_chains_draining", "total_listeners_draining"];
            let stats = gauges.map(|gauge| envoy.stat(&format!("listener_manager.{gauge}")));
            Ok(stats.into_iter().collect::<Result<Vec<_>>>()?.iter().any(|value| *value != Some(0)))
        };
        Ok((!draining(&mesh.sidecar)? && !draining(&mesh.gateway)?).then_some(()))
    })
}

/// Checks that sidecar and gateway have the filter by extension config discovery, from a resource of this kind alone.
pub(crate) fn attached(mesh: &Mesh, kind: &str) -> Result<()> {
    for (envoy, namespace) in [(&mesh.sidecar, "default"), (&mesh.gateway, "istio-system")] {
        let names = discovered(envoy)?;
        let wanted = format!("{namespace}.spiffe-authz");
        let filters: Vec<&String> = names.iter().filter(|name| name.contains(&wanted)).collect();
        ensure!(filters.len() == 1 && filters[0].contains(kind), "expected one {kind} {wanted}, found {names:?}");
    }
    Ok(())
}

/// The names of the filters that an Envoy got by extension config discovery.
fn discovered(envoy: &Envoy) -> Result<Vec<String>> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=ecds_filters")?.body)?;
    let all = dump["configs"].as_array().into_iter().flatten();
    Ok(all.filter_map(|one| Some(one["ecds_filter"]["name"].as_str()?.to_owned())).collect())
}

/// Whether a listener has the filter in its own configuration, as an EnvoyFilter puts it there.
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

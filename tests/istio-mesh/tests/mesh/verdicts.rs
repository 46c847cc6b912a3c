//! Callers of the local and the federated trust domain, at the sidecar and at the gateway, with the filter from each of
//! the three resources.

use anyhow::{Context as _, Result, ensure};
use spiffe_authz_integration::tools as programs;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Via::{Gateway, Sidecar, Sidecars};
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::{LIMIT, guide};

/// The caller, the proxies, the method, the path, the status, and the reason if the status is 403.
type Verdict = (&'static str, Via, &'static str, &'static str, u16, &'static str);

/// The verdicts of the policies in examples/istio.
const VERDICTS: [Verdict; 19] = [
    ("sleep", Sidecar, "GET", "/status/200", 200, ""),
    ("sleep", Sidecar, "GET", "/headers", 200, ""),
    ("sleep", Sidecar, "GET", "/ip", 403, "no-policy-allows"),
    ("sleep", Sidecar, "DELETE", "/status/200", 403, "denied-by-policy"),
    // Denied in shadow mode only.
    ("sleep", Sidecar, "GET", "/status/418", 200, ""),
    ("sleep", Sidecars, "GET", "/status/200", 200, ""),
    ("sleep", Sidecars, "GET", "/ip", 403, "no-policy-allows"),
    ("sleep", Sidecars, "DELETE", "/status/200", 403, "denied-by-policy"),
    ("report", Sidecar, "GET", "/headers", 200, ""),
    ("report", Sidecar, "GET", "/status/200", 403, "no-policy-allows"),
    ("partner-sleep", Sidecar, "GET", "/status/200", 200, ""),
    // The policies allow these paths to `sleep` and `prod` of the local trust domain only.
    ("partner-sleep", Sidecar, "GET", "/headers", 403, "no-policy-allows"),
    ("partner-report", Sidecar, "GET", "/headers", 403, "no-policy-allows"),
    ("partner-sleep", Gateway, "GET", "/status/200", 200, ""),
    ("partner-sleep", Gateway, "GET", "/headers", 403, "no-policy-allows"),
    ("partner-report", Gateway, "GET", "/status/200", 403, "no-policy-allows"),
    ("report", Gateway, "GET", "/status/200", 200, ""),
    // The gateway allows the request. The sidecar denies it, because its caller is the gateway.
    ("report", Gateway, "GET", "/headers", 403, "no-policy-allows"),
    ("report", Gateway, "POST", "/status/200", 403, "no-policy-allows"),
];

/// Checks every verdict, and that only allowed requests reach the workload.
pub(crate) fn check(mesh: &Mesh) -> Result<()> {
    let before = mesh.upstream.requests();
    for (caller, via, method, path, status, reason) in VERDICTS {
        let marks = [mesh.sidecar.log()?.len(), mesh.gateway.log()?.len()];
        let response = mesh.connect(caller, via)?.send(method, path)?;
        ensure!(response.status == status, "{caller} via {via:?}, {method} {path}: {}, not {status}", response.status);
        if status == 403 {
            let body = response.text();
            ensure!(body.contains("spiffe-authz: access denied"), "{caller} via {via:?}, {method} {path}: {body}");
            logged(mesh, marks, caller, reason)?;
        }
    }
    let allowed = VERDICTS.iter().filter(|verdict| verdict.4 == 200).count();
    ensure!(
        mesh.upstream.requests() - before == u64::try_from(allowed)?,
        "others than the allowed requests got through"
    );
    Ok(())
}

/// Checks that the sidecar or the gateway has logged a denial of this caller since these offsets.
fn logged(mesh: &Mesh, marks: [usize; 2], caller: &str, reason: &str) -> Result<()> {
    let id = match caller {
        "sleep" => "spiffe://example.org/ns/default/sa/sleep",
        "report" => "spiffe://example.org/ns/",
        "partner-sleep" => "spiffe://example.io/ns/default/sa/sleep",
        _ => "spiffe://example.io/ns/prod/sa/report",
    };
    let wanted = [format!("\"reason\":\"{reason}\""), format!("\"peer\":\"{id}")];
    let since =
        || Ok::<_, anyhow::Error>(mesh.sidecar.log()?[marks[0]..].to_owned() + &mesh.gateway.log()?[marks[1]..]);
    wait::until("the denial is logged", LIMIT, || {
        Ok(since()?.lines().any(|line| wanted.iter().all(|part| line.contains(part))).then_some(()))
    })
    .with_context(|| format!("{caller}: {reason}; logged instead:\n{}", since().unwrap_or_default()))
}

/// Returns the first request whose status differs from the table.
pub(crate) fn mismatch(mesh: &Mesh) -> Result<Option<String>> {
    for (caller, via, method, path, wanted, _) in VERDICTS {
        let status = mesh.status(caller, via, method, path)?;
        if status != wanted {
            return Ok(Some(format!("{caller} via {via:?}, {method} {path}: {status}, not {wanted}")));
        }
    }
    Ok(None)
}

/// Waits until neither sidecar nor gateway has the filter, so that both allow a caller that no policy allows.
fn wait_for_none(mesh: &Mesh) -> Result<()> {
    wait::until("the filter is gone", LIMIT, || {
        let at = |via| Ok::<_, anyhow::Error>(mesh.status("partner-report", via, "GET", "/headers")? == 200);
        Ok((at(Sidecar)? && at(Gateway)?).then_some(()))
    })
}

/// Waits until sidecar and gateway have the filter.
fn wait_for_filter(mesh: &Mesh) -> Result<()> {
    wait::until("the filter decides", LIMIT, || Ok((sidecar_decides(mesh)? && gateway_decides(mesh)?).then_some(())))
}

fn sidecar_decides(mesh: &Mesh) -> Result<bool> {
    Ok(mesh.status("partner-report", Sidecar, "GET", "/headers")? == 403)
}

/// Returns `true` if the gateway has the filter. The sidecar allows this request if the gateway forwards it. If both
/// denied it, the sidecar's denial would look the same before the gateway has the filter.
fn gateway_decides(mesh: &Mesh) -> Result<bool> {
    let denied = mesh.status("partner-report", Gateway, "GET", "/status/200")? == 403;
    Ok(denied && mesh.status("partner-sleep", Gateway, "GET", "/status/200")? == 200)
}

pub(crate) fn by_wasm_plugin(mesh: &Mesh) -> Result<()> {
    guide::attached(mesh, "wasmplugin")?;
    check(mesh)
}

pub(crate) fn by_traffic_extension(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    wait_for_none(mesh)?;
    mesh.shell.run("kubectl apply -k 5-authorization/trafficextension")?;
    wait_for_filter(mesh)?;
    guide::attached(mesh, "trafficextension")?;
    check(mesh)
}

pub(crate) fn by_envoy_filter(mesh: &Mesh) -> Result<()> {
    let wasm = programs::path(programs::WASM)?;
    for file in ["sidecar", "gateway"] {
        let file = format!("5-authorization/envoyfilter/{file}.yaml");
        mesh.shell.substitute(&file, "/etc/spiffe-authz/spiffe-authz.wasm", &wasm.to_string_lossy())?;
    }
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    wait_for_none(mesh)?;
    // istiod can also apply these two in sequence if the machine is busy.
    mesh.shell.run("kubectl apply -f 5-authorization/envoyfilter/sidecar.yaml")?;
    wait::until("the sidecar decides", LIMIT, || Ok(sidecar_decides(mesh)?.then_some(())))?;
    ensure!(!gateway_decides(mesh)?, "the check reports a filter in the gateway before it exists");
    mesh.shell.run("kubectl apply -k 5-authorization/envoyfilter")?;
    wait_for_filter(mesh)?;
    check(mesh)
}

//! Follows examples/istio in a mesh on this machine, with the check of each step.
//!
//! Run it with `cargo xtask mesh`, which provides the programs that it needs.

use std::fs;
use std::process::ExitCode;
use std::thread;

use anyhow::{Result, ensure};
use spiffe_authz_integration::interruption;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_mesh::mesh::Via::{Gateway, Sidecar, Sidecars};
use spiffe_authz_mesh::mesh::{Mesh, Via};

/// The caller, the proxies, the method and the path of a request, and the status that the policies of the guide give
/// it.
const REQUESTS: [(&str, Via, &str, &str, u16); 9] = [
    ("sleep", Sidecar, "GET", "/status/200", 200),
    ("sleep", Sidecar, "GET", "/ip", 403),
    ("sleep", Sidecar, "DELETE", "/status/200", 403),
    ("sleep", Sidecars, "GET", "/status/200", 200),
    ("report", Sidecar, "GET", "/headers", 200),
    ("partner-report", Sidecar, "GET", "/headers", 403),
    ("partner-sleep", Sidecar, "GET", "/status/200", 200),
    ("partner-sleep", Gateway, "GET", "/status/200", 200),
    ("partner-report", Gateway, "GET", "/status/200", 403),
];

fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    interruption::run(keep, move |scratch| tour(scratch, keep))
}

fn tour(scratch: &Scratch, keep: bool) -> Result<()> {
    eprintln!("starting etcd, the API server, KWOK, and SPIRE for three trust domains");
    eprintln!("(instead of step 1, because no package registry has SPIRE's Helm charts)");
    let mesh = Mesh::start(scratch.path(), true)?;
    verify(&mesh)?;
    if keep {
        print_hints(&mesh)?;
        loop {
            thread::park();
        }
    }
    mesh.shell.step("8. Clean-up");
    mesh.clean_up()?;
    println!(
        "everything is removed: no object in the API server; no entry, relationship or bundle in the SPIRE server"
    );
    Ok(())
}

/// Runs the checks of the guide. Some of its scripts run commands in containers, and there are none. Instead, the admin
/// interfaces of the Envoys provide the secrets, and the callers send the requests.
fn verify(mesh: &Mesh) -> Result<()> {
    mesh.shell.step("7. Verify");
    mesh.shell.run("7-verify/entries.sh -spiffeID spiffe://example.org/ns/default/sa/httpbin")?;
    mesh.shell.run("7-verify/gateway.sh")?;
    let dump = mesh.environment.directory().join("httpbin.json");
    fs::write(&dump, mesh.sidecar.admin("/config_dump")?.body)?;
    mesh.shell.run(&format!(
        "istioctl proxy-config secret --file {} -o json | spiffe-authz secret --bundle example.io --bundle example.ai -",
        dump.display()
    ))?;
    println!("\n{:<15} {:<8} {:<20} STATUS", "CALLER", "VIA", "REQUEST");
    for (caller, via, method, path, wanted) in REQUESTS {
        let status = mesh.status(caller, via, method, path)?;
        let via = format!("{via:?}").to_lowercase();
        println!("{caller:<15} {via:<8} {:<20} {status}", format!("{method} {path}"));
        ensure!(status == wanted, "{caller} {method} {path}: got {status}, expected {wanted}");
    }
    Ok(())
}

fn print_hints(mesh: &Mesh) -> Result<()> {
    println!("\nThe mesh runs until you press Ctrl-C. Commands to try:");
    println!("  export KUBECONFIG={}", mesh.environment.kubectl().kubeconfig().display());
    println!(
        "  export PATH={}:$PATH   # kubectl, istioctl, spire-server, spiffe-authz",
        mesh.shell.programs().display()
    );
    println!("  export SPIRE_SERVER=spire-server   # otherwise the scripts of the examples look for a pod");
    println!("  cd {}   # the examples, adapted to this mesh", mesh.shell.files().display());
    println!("  kubectl get pods -A");
    println!("  spire-server entry show");
    println!("  kubectl edit wasmplugin spiffe-authz -n default   # and repeat:");
    for (caller, host, address) in mesh.callers() {
        println!("  curl -i -H 'host: {host}' http://{address}/status/200   # as {caller}");
    }
    println!(
        "  curl -s 'http://{}/stats?filter=spiffe_authz'   # the sidecar's counters",
        mesh.sidecar.admin_address()
    );
    Ok(())
}

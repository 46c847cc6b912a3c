//! The API server, with the definitions and webhooks of Istio and SPIRE, and istioctl check every manifest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use spiffe_authz_mesh::mesh::Mesh;

/// Files of examples/istio that are not resources of a cluster: values for Helm, patches, documents, tables.
const OTHER_FILES: [&str; 11] = [
    "1-spire/values.yaml",
    "3-istio/helm/gateway.yaml",
    "3-istio/helm/istiod.yaml",
    "5-authorization/envoyfilter/volume-gateway.yaml",
    "5-authorization/envoyfilter/volume-httpbin.yaml",
    "5-authorization/policies/database.yaml",
    "5-authorization/policies/httpbin.yaml",
    "5-authorization/policies/httpbin_test.yaml",
    "5-authorization/policies/ingress.yaml",
    "5-authorization/policies/ingress_test.yaml",
    "5-authorization/values.yaml",
];
/// The folder with a definition and its objects. The test of the controller applies it, because the definition must exist
/// before the objects are checked.
const CONTROLLER: &str = "5-authorization/controller";
/// The file that only istioctl reads.
const OVERLAY: &str = "3-istio/istio.yaml";

/// Returns the YAML files of examples/istio, relative to it.
fn files(mesh: &Mesh) -> Result<Vec<String>> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                collect(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
        Ok(())
    }
    let root = mesh.shell.files();
    let mut found = Vec::new();
    collect(root, &mut found)?;
    found.sort();
    found.iter().map(|path| Ok(path.strip_prefix(root)?.to_string_lossy().into_owned())).collect()
}

/// Returns the files with resources and the folders with a kustomization.
fn manifests(mesh: &Mesh) -> Result<(Vec<String>, Vec<String>)> {
    let (mut resources, mut folders) = (Vec::new(), Vec::new());
    for file in files(mesh)?.into_iter().filter(|file| !file.starts_with(CONTROLLER)) {
        match file.strip_suffix("/kustomization.yaml") {
            Some(folder) => folders.push(folder.to_owned()),
            None if OTHER_FILES.contains(&&*file) || file == OVERLAY => {}
            None => resources.push(file),
        }
    }
    ensure!(resources.len() >= 15 && folders.len() >= 6, "files are missing: {resources:?} {folders:?}");
    Ok((resources, folders))
}

pub(crate) fn every_manifest_is_admitted(mesh: &Mesh) -> Result<()> {
    let (resources, folders) = manifests(mesh)?;
    for file in &resources {
        mesh.shell.run(&format!("kubectl apply --dry-run=server -f {file}")).context(file.clone())?;
    }
    for folder in &folders {
        mesh.shell.run(&format!("kubectl apply --dry-run=server -k {folder}")).context(folder.clone())?;
    }
    Ok(())
}

pub(crate) fn invalid_manifests_are_rejected(mesh: &Mesh) -> Result<()> {
    for (folder, from, to, complaint) in [
        ("5-authorization/wasmplugin", "phase: AUTHZ", "phase: LATER", "spec.phase"),
        ("5-authorization/trafficextension", "mode: SERVER", "mode: SERVERS", "spec.match"),
        ("2-registration", "spiffeIDTemplate:", "spiffeIdTemplate:", "spiffeIDTemplate"),
    ] {
        let line =
            format!("kubectl kustomize {folder} | sed 's/{from}/{to}/' | kubectl apply --dry-run=server -f - 2>&1");
        let Err(error) = mesh.shell.run(&line) else { anyhow::bail!("{folder} with {to} is admitted") };
        ensure!(format!("{error:#}").contains(complaint), "{folder} with {to}: {error:#}");
    }
    // Only istiod's webhook knows the keys of conditions.
    let policy = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x}, \
                  spec: {rules: [{when: [{key: request.nonsense, values: [a]}]}]}}";
    let line = format!("echo '{policy}' | kubectl apply --dry-run=server -f - 2>&1");
    let Err(error) = mesh.shell.run(&line) else { anyhow::bail!("an unknown condition is admitted") };
    ensure!(format!("{error:#}").contains("validation.istio.io"), "{error:#}");
    Ok(())
}

/// The findings of `istioctl analyze` that are expected: the EnvoyFilters, and a port of the gateway that the tests
/// choose.
const KNOWN_FINDINGS: [&str; 3] = [
    "Warning [IST0133] (EnvoyFilter default/spiffe-authz-connections)",
    "Warning [IST0133] (EnvoyFilter istio-system/spiffe-authz-connections)",
    "Warning [IST0162] (Gateway default/httpbin)",
];

pub(crate) fn istioctl_reports_only_known_findings(mesh: &Mesh) -> Result<()> {
    let (resources, _) = manifests(mesh)?;
    let all = resources.iter().map(|file| format!(" -f {file}")).collect::<String>();
    mesh.shell.run(&format!("istioctl validate -f {OVERLAY}{all}"))?;
    let broken = "sed 's/phase: AUTHZ/phase: LATER/' 5-authorization/wasmplugin/sidecar.yaml | istioctl validate -f -";
    ensure!(mesh.shell.run(broken).is_err(), "istioctl accepts an invalid manifest");
    let found = mesh.shell.run("istioctl analyze --all-namespaces 2>&1")?;
    let mut faults: Vec<&str> =
        found.lines().filter(|line| line.starts_with("Error [") || line.starts_with("Warning [")).collect();
    faults.sort_unstable();
    let known = faults.len() == KNOWN_FINDINGS.len()
        && faults.iter().zip(KNOWN_FINDINGS).all(|(f, known)| f.starts_with(known));
    ensure!(known, "{found}");
    Ok(())
}

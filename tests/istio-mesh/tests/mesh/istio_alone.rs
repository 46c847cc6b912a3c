//! The verdicts of Istio's own policies, and of the filter, with a federated trust domain: the reason for this project.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::LIMIT;

/// The way in which the mesh trusts example.io.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// `caCertificates[].trustDomains`, as in the guide.
    Federated,
    /// `trustDomainAliases`, which some meshes use.
    Alias,
}

/// The filter that enforces the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decider {
    Istio,
    Filter,
}

const LOCAL_SLEEP: &str = "example.org/ns/default/sa/sleep";

pub(crate) fn set_trust(mesh: &Mesh, trust: Trust) -> Result<()> {
    match trust {
        Trust::Federated => self::trust(mesh, &["example.io", "example.ai"]),
        Trust::Alias => set_settings(mesh, "trustDomainAliases", json!(["example.io"])),
    }
}

/// Makes Istio accept the certificates of these trust domains.
pub(crate) fn trust(mesh: &Mesh, trust_domains: &[&str]) -> Result<()> {
    set_settings(mesh, "caCertificates", json!([{"trustDomains": trust_domains}]))
}

/// Sets one of the fields of the mesh configuration that name other trust domains, and removes the other one.
fn set_settings(mesh: &Mesh, field: &str, value: Value) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let map = kubectl.get(&["configmap", "istio", "-n", "istio-system"])?;
    let mut settings: Value = serde_saphyr::from_str(map["data"]["mesh"].as_str().context("no mesh configuration")?)?;
    let fields = settings.as_object_mut().context("no mesh configuration")?;
    let before = fields.clone();
    fields.remove("trustDomainAliases");
    fields.remove("caCertificates");
    fields.insert(field.to_owned(), value);
    if *fields == before {
        return Ok(());
    }
    let patch = json!({"data": {"mesh": settings.to_string()}});
    kubectl.run(&["patch", "configmap", "istio", "-n", "istio-system", "--patch", &patch.to_string()])?;
    Ok(())
}

/// Removes the AuthorizationPolicy.
pub(crate) fn remove_policy(mesh: &Mesh) -> Result<()> {
    let policy = ["authorizationpolicy", "compared", "-n", "default"];
    mesh.environment.kubectl().run(&[&["delete", "--ignore-not-found"], &policy[..]].concat())?;
    Ok(())
}

/// Makes an ALLOW policy for this source the only policy of httpbin.
fn set_policy(mesh: &Mesh, decider: Decider, source: &Value) -> Result<()> {
    let rules = json!([{"from": [{"source": source}]}]);
    let selector = json!({"matchLabels": {"app": "httpbin"}});
    let kubectl = mesh.environment.kubectl();
    match decider {
        Decider::Istio => {
            mesh.shell
                .run("kubectl delete --ignore-not-found -f 5-authorization/wasmplugin/sidecar.yaml -n default")?;
            kubectl.apply(
                &json!({
                    "apiVersion": "security.istio.io/v1",
                    "kind": "AuthorizationPolicy",
                    "metadata": {"name": "compared", "namespace": "default"},
                    "spec": {"selector": selector, "rules": rules},
                })
                .to_string(),
            )?;
        }
        Decider::Filter => {
            remove_policy(mesh)?;
            let file = fs::read_to_string(mesh.shell.files().join("5-authorization/wasmplugin/sidecar.yaml"))?;
            let mut plugin: Value = serde_saphyr::from_str(&file)?;
            let policy = json!({"name": "compared", "namespace": "default", "rules": rules});
            plugin["spec"]["pluginConfig"]["policies"] = json!([policy]);
            kubectl.apply(&plugin.to_string())?;
        }
    }
    Ok(())
}

/// The rows of the table in docs/mesh.md: trust, decider, source, and the verdicts for the local caller that the source
/// means and for the federated caller with the same name.
fn documented() -> Result<Vec<[String; 5]>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mesh.md");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read the file", path.display()))?;
    let mut lines = text.lines().skip_while(|line| !line.starts_with("| The mesh trusts example.io by |"));
    ensure!(lines.by_ref().take(2).count() == 2, "docs/mesh.md has no table of verdicts");
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            cells.try_into().map_err(|cells| anyhow::anyhow!("a row of another length: {cells:?}"))
        })
        .collect()
}

pub(crate) fn allows_federated_workloads(mesh: &Mesh) -> Result<()> {
    let cases = [
        (Trust::Federated, Decider::Istio, "namespaces: [prod]"),
        (Trust::Federated, Decider::Istio, "principals: [example.org/ns/default/sa/sleep]"),
        (Trust::Alias, Decider::Istio, "namespaces: [prod]"),
        (Trust::Alias, Decider::Istio, "principals: [example.org/ns/default/sa/sleep]"),
        (Trust::Alias, Decider::Filter, "principals: [example.org/ns/default/sa/sleep]"),
        (Trust::Alias, Decider::Filter, "namespaces: [prod]"),
        (Trust::Federated, Decider::Filter, "namespaces: [prod]"),
        (Trust::Federated, Decider::Filter, "principals: [example.org/ns/default/sa/sleep]"),
    ];
    let mut measured = Vec::new();
    for (trust, decider, source) in cases {
        set_trust(mesh, trust)?;
        let (local, federated, other, value) = if source.starts_with("namespaces") {
            ("report", "partner-report", "sleep", json!({"namespaces": ["prod"]}))
        } else {
            ("sleep", "partner-sleep", "report", json!({"principals": [LOCAL_SLEEP]}))
        };
        set_policy(mesh, decider, &value)?;
        let status = |caller| mesh.status(caller, Via::Sidecar, "GET", "/anything");
        wait_for_trust(mesh, trust)?;
        // The text of a denial shows which filter is active: the previous one has some of the same verdicts.
        let denial = if decider == Decider::Istio { "RBAC: access denied" } else { "spiffe-authz: access denied" };
        wait::until("the policy is in force", LIMIT, || {
            let denied = mesh.connect(other, Via::Sidecar)?.send("GET", "/anything")?;
            Ok((status(local)? == 200 && denied.status == 403 && denied.text().contains(denial)).then_some(()))
        })
        .with_context(|| format!("{trust:?} {decider:?} {source}"))?;
        let word = |status: u16| if status == 200 { "allowed" } else { "denied" }.to_owned();
        let (trust, decider) = match (trust, decider) {
            (Trust::Federated, Decider::Istio) => ("caCertificates[].trustDomains", "Istio"),
            (Trust::Alias, Decider::Istio) => ("trustDomainAliases", "Istio"),
            (Trust::Federated, Decider::Filter) => ("caCertificates[].trustDomains", "spiffe-authz"),
            (Trust::Alias, Decider::Filter) => ("trustDomainAliases", "spiffe-authz"),
        };
        measured.push([
            trust.to_owned(),
            decider.to_owned(),
            source.to_owned(),
            word(status(local)?),
            word(status(federated)?),
        ]);
    }
    for row in &measured {
        println!("{}", row.join(" | "));
    }
    let mut documented = documented()?;
    documented.sort();
    measured.sort();
    ensure!(measured == documented, "docs/mesh.md differs: {documented:?}");
    Ok(())
}

/// Waits until the listener of httpbin uses this form of trust. Both forms accept the federated trust domain. Only
/// `caCertificates` has the third one.
fn wait_for_trust(mesh: &Mesh, trust: Trust) -> Result<()> {
    wait::until("the listener follows the mesh configuration", LIMIT, || {
        let dump = mesh.sidecar.admin("/config_dump?resource=dynamic_listeners")?.text();
        Ok((dump.contains("spiffe://example.ai/") == (trust == Trust::Federated)).then_some(()))
    })
}

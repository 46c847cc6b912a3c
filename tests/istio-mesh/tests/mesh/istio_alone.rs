//! Why this project exists: what Istio's own policies make of a federated trust domain, and what the filter makes of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::LIMIT;

/// How the mesh trusts example.io.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// By `caCertificates[].trustDomains`, as in the guide.
    Federated,
    /// By `trustDomainAliases`, as some do.
    Alias,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decider {
    Istio,
    Filter,
}

const OWN_SLEEP: &str = "example.org/ns/default/sa/sleep";

pub(crate) fn set_trust(mesh: &Mesh, trust: Trust) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let map = kubectl.get(&["configmap", "istio", "-n", "istio-system"])?;
    let mut settings: Value = serde_saphyr::from_str(map["data"]["mesh"].as_str().context("no mesh configuration")?)?;
    let fields = settings.as_object_mut().context("no mesh configuration")?;
    let before = fields.clone();
    fields.remove("trustDomainAliases");
    fields.remove("caCertificates");
    match trust {
        Trust::Federated => {
            fields.insert("caCertificates".to_owned(), json!([{"trustDomains": ["example.io", "example.ai"]}]));
        }
        Trust::Alias => {
            fields.insert("trustDomainAliases".to_owned(), json!(["example.io"]));
        }
    }
    if *fields == before {
        return Ok(());
    }
    let patch = json!({"data": {"mesh": settings.to_string()}});
    kubectl.run(&["patch", "configmap", "istio", "-n", "istio-system", "--patch", &patch.to_string()])?;
    Ok(())
}

/// Removes Istio's own policy.
pub(crate) fn remove_policy(mesh: &Mesh) -> Result<()> {
    let policy = ["authorizationpolicy", "compared", "-n", "default"];
    mesh.environment.kubectl().run(&[&["delete", "--ignore-not-found"], &policy[..]].concat())?;
    Ok(())
}

/// One policy in front of httpbin, and nothing else: ALLOW for this source, by the decider.
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

/// The rows of the table in docs/mesh.md: trust, decider, source; then whether the own caller that is meant, and the foreign one
/// of the same name, get in.
fn documented() -> Result<Vec<[String; 5]>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mesh.md");
    let text = fs::read_to_string(&path).with_context(|| format!("there is no {}", path.display()))?;
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

pub(crate) fn lets_federated_workloads_in(mesh: &Mesh) -> Result<()> {
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
        let (own, federated, other, value) = if source.starts_with("namespaces") {
            ("report", "partner-report", "sleep", json!({"namespaces": ["prod"]}))
        } else {
            ("sleep", "partner-sleep", "report", json!({"principals": [OWN_SLEEP]}))
        };
        set_policy(mesh, decider, &value)?;
        let status = |caller| mesh.status(caller, Via::Sidecar, "GET", "/anything");
        wait_for_trust(mesh, trust)?;
        // The denial tells who decides: what decided before would give some of these verdicts, too.
        let denial = if decider == Decider::Istio { "RBAC: access denied" } else { "spiffe-authz: access denied" };
        wait::until("the policy is in force", LIMIT, || {
            let denied = mesh.connect(other, Via::Sidecar)?.send("GET", "/anything")?;
            Ok((status(own)? == 200 && denied.status == 403 && denied.text().contains(denial)).then_some(()))
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
            word(status(own)?),
            word(status(federated)?),
        ]);
    }
    for row in &measured {
        println!("{}", row.join(" | "));
    }
    let mut documented = documented()?;
    documented.sort();
    measured.sort();
    ensure!(measured == documented, "docs/mesh.md says otherwise: {documented:?}");
    Ok(())
}

/// Which form of trust the listener of httpbin is made by: both accept the foreign trust domain, but with aliases Istio has
/// rewritten what it decides by. The Envoy does not tell, so istiod is asked for its mesh configuration's consequence.
fn wait_for_trust(mesh: &Mesh, trust: Trust) -> Result<()> {
    // The third trust domain is accepted in one of the two only.
    wait::until("the listener follows the mesh configuration", LIMIT, || {
        let dump = mesh.sidecar.admin("/config_dump?resource=dynamic_listeners")?.text();
        Ok((dump.contains("spiffe://example.ai/") == (trust == Trust::Federated)).then_some(()))
    })
}

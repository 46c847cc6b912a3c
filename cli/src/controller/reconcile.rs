//! One comparison of the cluster with its policies.

use std::collections::BTreeSet;
use std::io;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::Settings;
use super::cluster::{DEPLOYMENT, Resource, managed};
use super::events::Events;
use super::inputs::{Inputs, Rendered};
use super::lease::Lease;
use super::log;
use super::metrics::{Found, Metrics};
use super::status::{self, Outcome, Problem};
use crate::deploy::Part;
use crate::deploy::object::MANAGED_BY;
use crate::deploy::values::Values;
use crate::exit;

/// The owner of the fields that the controller writes.
pub(super) const FIELD_MANAGER: &str = "spiffe-authz-controller";

/// Compares each deployment with the cluster, and writes what differs.
///
/// # Errors
/// Returns an error if the API server does not answer or rejects a write, after the other deployments were compared.
/// Problems of policies go to the status.
pub(super) async fn run(
    client: &Client,
    settings: &Settings,
    lease: &Lease,
    metrics: &Metrics,
    events: &mut Events,
) -> io::Result<()> {
    let (mut found, mut problems, mut failures) = (Found::default(), Vec::new(), Vec::new());
    let mut deployments = DEPLOYMENT.list(client, None).await?;
    deployments.retain(|deployment| deployment.metadata.deletion_timestamp.is_none());
    for deployment in &deployments {
        // Another replica can act by now.
        if !lease.is_held() {
            return Ok(());
        }
        let deployed = deploy(client, settings, deployment, &deployments, metrics).await;
        let outcome = deployed.unwrap_or_else(|error| {
            failures.push(error.to_string());
            Outcome::failed(&error)
        });
        found.policies += outcome.policies;
        found.objects += outcome.objects;
        found.problems += outcome.problems.len();
        if let Err(error) = status::write(client, deployment, &outcome, events).await {
            failures.push(error.to_string());
        }
        problems.extend(outcome.problems);
    }
    events.publish_problems(&problems).await;
    metrics.found(&found);
    if failures.is_empty() { Ok(()) } else { Err(io::Error::other(failures.join("; "))) }
}

/// Renders a deployment, and writes its objects. The objects stay as they are if a policy cannot be deployed.
async fn deploy(
    client: &Client,
    settings: &Settings,
    deployment: &DynamicObject,
    all: &[DynamicObject],
    metrics: &Metrics,
) -> io::Result<Outcome> {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let mut spec = deployment.data["spec"].clone();
    let mut take = |field: &str| spec.as_object_mut().and_then(|spec| spec.remove(field));
    let selector = take("policySelector").map(|selector| labels(&selector));
    let allows_partial = take("allowPartial").is_some_and(|value| value == true);
    let inputs = Inputs::read(client, settings, selector.as_deref()).await?;
    let rendered = Values::parse(&spec.to_string())
        .map_err(io::Error::other)
        .and_then(|values| inputs.render(&values, allows_partial));
    let Rendered { parts, remarks } = match rendered {
        Ok(rendered) => rendered,
        Err(error) => {
            let problems: Vec<Problem> = match exit::lost(&error) {
                [] => exit::details(&error).into_iter().map(|text| Problem { policy: None, text }).collect(),
                lost => lost.iter().map(|remark| inputs.problem(remark)).collect(),
            };
            log::error("the last objects stay", &[("deployment", &name), ("error", &exit::text(&error))]);
            return Ok(Outcome::invalid(inputs.policies.len(), problems));
        }
    };
    let lost = remarks.iter().filter(|remark| remark.lost.is_some()).map(|remark| inputs.problem(remark)).collect();
    let owner = owner(deployment);
    let written = apply(client, &parts, &owner, all, metrics).await?;
    remove_others(client, &parts, &owner, metrics).await?;
    if written > 0 {
        let (written, objects) = (written.to_string(), parts.len().to_string());
        log::info("deployed", &[("deployment", &name), ("written", &written), ("objects", &objects)]);
    }
    Ok(Outcome::deployed(inputs.policies.len(), parts.len(), lost))
}

/// Returns the text of a label selector with these labels.
fn labels(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

/// Returns the reference by which Kubernetes deletes the objects with their deployment.
fn owner(deployment: &DynamicObject) -> OwnerReference {
    let resource = DEPLOYMENT.api_resource();
    OwnerReference {
        api_version: resource.api_version,
        kind: resource.kind,
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        // A deletion with `--cascade=foreground` waits for the object.
        block_owner_deletion: Some(true),
        ..OwnerReference::default()
    }
}

/// Applies the objects that differ. Returns their number.
///
/// # Errors
/// Returns an error if the API server rejects an object, or if an object belongs to something else.
async fn apply(
    client: &Client,
    parts: &[Part],
    owner: &OwnerReference,
    all: &[DynamicObject],
    metrics: &Metrics,
) -> io::Result<usize> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let mut written = 0;
    for part in parts {
        let mut rendered = serde_json::to_value(&part.value)?;
        rendered["metadata"]["ownerReferences"] = json!([owner]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&rendered["kind"]);
        let Some(resource) = Resource::written(&kind) else {
            return Err(io::Error::other(format!("{}: the controller writes objects of Istio only", part.name)));
        };
        let (namespace, name) = (text(&rendered["metadata"]["namespace"]), text(&rendered["metadata"]["name"]));
        let api = resource.in_namespace(client, &namespace);
        let named = |error: kube::Error| io::Error::other(format!("{}: {error}", part.name));
        let now = api.get_opt(&name).await.map_err(named)?;
        if let Some(now) = &now {
            if is_current(now, &rendered, owner) {
                continue;
            }
            if let Some(reason) = not_ours(now, owner, all) {
                return Err(io::Error::other(format!("{}: {reason}", part.name)));
            }
        }
        let after = api.patch(&name, &parameters, &Patch::Apply(&rendered)).await.map_err(named)?;
        // A field of something else stays, and then nothing changes.
        if now.and_then(|now| now.metadata.resource_version) != after.metadata.resource_version {
            metrics.applied();
            written += 1;
        }
    }
    Ok(written)
}

/// Returns the reason if an object must not be replaced.
fn not_ours(now: &DynamicObject, owner: &OwnerReference, all: &[DynamicObject]) -> Option<String> {
    let owners = now.metadata.owner_references.as_deref().unwrap_or_default();
    if owners.iter().any(|one| one.uid == owner.uid) {
        return None;
    }
    // The object of a deployment that was deleted is taken over, if Kubernetes has not deleted it yet.
    let is_of =
        |deployment: &&DynamicObject| owners.iter().any(|one| Some(&one.uid) == deployment.metadata.uid.as_ref());
    if let Some(other) = all.iter().find(is_of) {
        let name = other.metadata.name.as_deref().unwrap_or_default();
        return Some(format!("the object belongs to the PolicyDeployment {name} (set another `name`)"));
    }
    let (label, manager) = MANAGED_BY;
    let is_managed = now.metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|is| is == manager);
    (!is_managed)
        .then(|| format!("the object exists, and has no label {label}={manager} (delete it, or set another `name`)"))
}

/// Returns `true` if an object has the rendered specification, the label and the owner.
fn is_current(now: &DynamicObject, rendered: &Value, owner: &OwnerReference) -> bool {
    let owners = now.metadata.owner_references.as_deref().unwrap_or_default();
    let is_managed = now
        .metadata
        .labels
        .iter()
        .flatten()
        .any(|(name, value)| rendered["metadata"]["labels"][name.as_str()] == *value);
    now.data["spec"] == rendered["spec"] && is_managed && owners.iter().any(|one| one.uid == owner.uid)
}

/// Deletes the objects of a deployment that are not rendered.
async fn remove_others(client: &Client, parts: &[Part], owner: &OwnerReference, metrics: &Metrics) -> io::Result<()> {
    let rendered: BTreeSet<&str> = parts.iter().map(|part| &*part.name).collect();
    let kinds: BTreeSet<&str> = parts.iter().filter_map(|part| part.name.split(' ').next()).collect();
    for resource in kinds.into_iter().filter_map(Resource::written) {
        for object in resource.list(client, Some(&managed())).await? {
            let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let name = object.metadata.name.clone().unwrap_or_default();
            let shown = format!("{} {namespace}/{name}", resource.api_resource().kind);
            if !owners.iter().any(|one| one.uid == owner.uid) || rendered.contains(&*shown) {
                continue;
            }
            match resource.in_namespace(client, &namespace).delete(&name, &DeleteParams::default()).await {
                Ok(_) => metrics.deleted(),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(io::Error::other(format!("{shown}: {error}"))),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    use super::not_ours;

    fn object(metadata: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": metadata})).expect("an object")
    }

    #[test]
    fn objects_of_others_are_not_replaced() {
        let owner = OwnerReference { uid: "1".to_owned(), ..OwnerReference::default() };
        let all = [object(json!({"name": "mesh", "uid": "1"})), object(json!({"name": "other", "uid": "2"}))];
        let owned = |uid: &str| {
            let reference = json!({"apiVersion": "v1", "kind": "PolicyDeployment", "name": "x", "uid": uid});
            json!({
                "labels": {"app.kubernetes.io/managed-by": "spiffe-authz"}, "ownerReferences": [reference],
            })
        };
        let reason = |metadata: Value| not_ours(&object(metadata), &owner, &all).unwrap_or_default();
        assert_eq!(reason(owned("1")), "");
        assert!(reason(owned("2")).contains("the PolicyDeployment other"));
        // The deployment that owned the object was deleted.
        assert_eq!(reason(owned("3")), "");
        // From `spiffe-authz render`.
        assert_eq!(reason(json!({"labels": {"app.kubernetes.io/managed-by": "spiffe-authz"}})), "");
        assert!(reason(json!({"labels": {"app": "x"}})).contains("no label"));
        assert!(reason(json!({})).contains("no label"));
    }
}

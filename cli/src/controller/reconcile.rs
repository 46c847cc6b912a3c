//! One comparison of the cluster with its policies.

use std::collections::BTreeSet;
use std::io;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::Settings;
use super::cluster::{DEPLOYMENT, Resource, managed};
use super::inputs::{Inputs, Rendered};
use super::lease::Lease;
use super::log;
use super::metrics::{Found, Metrics};
use super::status::{self, Outcome};
use crate::deploy::Part;
use crate::deploy::values::Values;
use crate::exit;

/// The owner of the fields that the controller writes.
pub(super) const FIELD_MANAGER: &str = "spiffe-authz-controller";

/// Compares each deployment with the cluster, and writes what differs.
///
/// # Errors
/// Returns an error if the API server does not answer or rejects a write. Problems of policies go to the status.
pub(super) async fn run(client: &Client, settings: &Settings, lease: &Lease, metrics: &Metrics) -> io::Result<()> {
    let mut found = Found::default();
    for deployment in DEPLOYMENT.list(client, None).await.map_err(io::Error::other)? {
        if deployment.metadata.deletion_timestamp.is_some() {
            continue;
        }
        // Another replica can act by now.
        if !lease.is_held() {
            return Ok(());
        }
        let outcome = deploy(client, settings, &deployment, metrics).await?;
        found.policies += outcome.policies;
        found.objects += outcome.objects;
        found.problems += outcome.problems.len();
        status::write(client, &deployment, &outcome).await?;
    }
    metrics.found(&found);
    Ok(())
}

/// Renders a deployment, and writes its objects. The objects stay as they are if a policy cannot be deployed.
async fn deploy(
    client: &Client,
    settings: &Settings,
    deployment: &DynamicObject,
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
        .and_then(|values| inputs.render(settings, &values, allows_partial));
    let Rendered { parts, remarks } = match rendered {
        Ok(rendered) => rendered,
        Err(error) => {
            let problems = exit::details(&error);
            log::error("the last objects stay", &[("deployment", &name), ("error", &exit::text(&error))]);
            return Ok(Outcome::failed(inputs.policies.len(), problems));
        }
    };
    let lost = remarks.iter().filter(|remark| remark.lost.is_some()).map(ToString::to_string).collect();
    let owner = owner(deployment);
    let written = apply(client, &parts, &owner, metrics).await?;
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
        ..OwnerReference::default()
    }
}

/// Applies the objects that differ. Returns their number.
async fn apply(client: &Client, parts: &[Part], owner: &OwnerReference, metrics: &Metrics) -> io::Result<usize> {
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
        if now.as_ref().is_some_and(|now| is_current(now, &rendered, owner)) {
            continue;
        }
        api.patch(&name, &parameters, &Patch::Apply(&rendered)).await.map_err(named)?;
        metrics.applied();
        written += 1;
    }
    Ok(written)
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
        for object in resource.list(client, Some(&managed())).await.map_err(io::Error::other)? {
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

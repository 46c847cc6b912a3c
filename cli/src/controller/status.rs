//! The status of a deployment, and its events.

use std::io;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::cluster::DEPLOYMENT;
use super::reconcile::FIELD_MANAGER;

/// The most problems in a status.
const SHOWN: usize = 20;
/// The most characters of the note of an event.
const NOTE: usize = 1000;

/// The result of a deployment.
pub(super) struct Outcome {
    pub(super) policies: usize,
    /// The number of objects, or 0 if the previous objects stay.
    pub(super) objects: usize,
    /// Whether the objects are those of the policies.
    is_deployed: bool,
    /// The problems of policies that cannot be deployed.
    pub(super) problems: Vec<String>,
}

impl Outcome {
    pub(super) fn deployed(policies: usize, objects: usize, problems: Vec<String>) -> Self {
        Self { policies, objects, is_deployed: true, problems }
    }

    pub(super) fn failed(policies: usize, problems: Vec<String>) -> Self {
        Self { policies, objects: 0, is_deployed: false, problems }
    }

    /// Returns the reason of the condition, as Kubernetes writes reasons, and a sentence.
    fn reason(&self) -> (&'static str, String) {
        match (self.is_deployed, self.problems.len()) {
            (true, 0) => ("Deployed", format!("{} policies are deployed", self.policies)),
            (true, lost) => ("Partial", format!("{lost} problems: policies are omitted")),
            (false, problems) => ("Invalid", format!("{problems} problems: the previous objects stay")),
        }
    }
}

/// Writes the status, and an event if it has changed.
///
/// # Errors
/// Returns an error if the API server rejects the status.
pub(super) async fn write(client: &Client, deployment: &DynamicObject, outcome: &Outcome) -> io::Result<()> {
    let before = &deployment.data["status"];
    let (reason, message) = outcome.reason();
    let state = if outcome.is_deployed { "True" } else { "False" };
    let problems: Vec<&String> = outcome.problems.iter().take(SHOWN).collect();
    let condition = &before["conditions"][0];
    let since = match condition["lastTransitionTime"].as_str() {
        Some(since) if condition["status"] == state => since.to_owned(),
        _ => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let status = json!({
        "policies": outcome.policies,
        "problems": problems,
        "conditions": [{
            "type": "Deployed", "status": state, "reason": reason, "message": message, "lastTransitionTime": since,
            "observedGeneration": deployment.metadata.generation,
        }],
    });
    if *before == status {
        return Ok(());
    }
    let resource = DEPLOYMENT.api_resource();
    let name = deployment.name_any();
    let patch = json!({"apiVersion": resource.api_version, "kind": resource.kind, "status": status});
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    DEPLOYMENT
        .everywhere(client)
        .patch_status(&name, &parameters, &Patch::Apply(&patch))
        .await
        .map_err(|error| io::Error::other(format!("PolicyDeployment {name}: {error}")))?;
    if before["problems"] != status["problems"] || condition["reason"] != reason {
        publish(client, deployment, outcome, reason, message).await?;
    }
    Ok(())
}

/// Publishes an event of the deployment, with the problems.
async fn publish(
    client: &Client,
    deployment: &DynamicObject,
    outcome: &Outcome,
    reason: &str,
    message: String,
) -> io::Result<()> {
    let mut note = message;
    for problem in &outcome.problems {
        note.push_str("; ");
        note.push_str(problem);
    }
    let note = note.chars().take(NOTE).collect();
    let kind = if outcome.problems.is_empty() { EventType::Normal } else { EventType::Warning };
    let event = Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Deploy".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(client.clone(), Reporter::from(FIELD_MANAGER));
    let reference = deployment.object_ref(&DEPLOYMENT.api_resource());
    recorder.publish(&event, &reference).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn reasons() {
        let problem = || vec!["x".to_owned()];
        assert_eq!(Outcome::deployed(2, 1, Vec::new()).reason(), ("Deployed", "2 policies are deployed".to_owned()));
        assert_eq!(Outcome::deployed(2, 1, problem()).reason().0, "Partial");
        assert_eq!(Outcome::failed(2, problem()).reason().0, "Invalid");
    }
}

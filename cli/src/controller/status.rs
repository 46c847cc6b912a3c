//! The status of a deployment, and its events.

use std::fmt;
use std::io;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::cluster::DEPLOYMENT;
use super::events::Events;
use super::reconcile::FIELD_MANAGER;

/// The most problems in a status.
const SHOWN: usize = 20;

/// Something that keeps policies from being deployed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    /// The policy, or `None` if the problem is not in a policy.
    pub(super) policy: Option<ObjectReference>,
    pub(super) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ObjectReference { namespace: Some(namespace), name: Some(name), .. }) = &self.policy {
            write!(f, "{namespace}/{name}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// The end of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The objects are those of the policies.
    Deployed,
    /// The settings or a policy have an error. The previous objects stay.
    Invalid,
    /// The cluster could not be read or changed.
    Failed,
}

/// The result of a deployment.
pub(super) struct Outcome {
    pub(super) policies: usize,
    /// The number of objects, or 0 if the previous objects stay.
    pub(super) objects: usize,
    end: End,
    pub(super) problems: Vec<Problem>,
}

impl Outcome {
    /// Returns the result with these objects. The problems are those of policies that are omitted.
    pub(super) fn deployed(policies: usize, objects: usize, problems: Vec<Problem>) -> Self {
        Self { policies, objects, end: End::Deployed, problems }
    }

    /// Returns the result without a change of the objects.
    pub(super) fn invalid(policies: usize, problems: Vec<Problem>) -> Self {
        Self { policies, objects: 0, end: End::Invalid, problems }
    }

    /// Returns the result if the cluster cannot be read or changed.
    pub(super) fn failed(error: &io::Error) -> Self {
        let problem = Problem { policy: None, text: error.to_string() };
        Self { policies: 0, objects: 0, end: End::Failed, problems: vec![problem] }
    }

    /// Returns the reason of the condition, as Kubernetes writes reasons, and a sentence.
    fn reason(&self) -> (&'static str, String) {
        let problems = match self.problems.len() {
            1 => "1 problem".to_owned(),
            several => format!("{several} problems"),
        };
        match (self.end, self.problems.len()) {
            (End::Deployed, 0) if self.policies == 1 => ("Deployed", "1 policy is deployed".to_owned()),
            (End::Deployed, 0) => ("Deployed", format!("{} policies are deployed", self.policies)),
            (End::Deployed, _) => ("Partial", format!("{problems}: policies are omitted")),
            (End::Invalid, _) => ("Invalid", format!("{problems}: the previous objects stay")),
            (End::Failed, _) => ("Failed", "the cluster cannot be read or changed".to_owned()),
        }
    }
}

/// Writes the status, and publishes an event if its problems or its reason have changed.
///
/// # Errors
/// Returns an error if the API server rejects the status.
pub(super) async fn write(
    client: &Client,
    deployment: &DynamicObject,
    outcome: &Outcome,
    events: &Events,
) -> io::Result<()> {
    let before = &deployment.data["status"];
    let (reason, message) = outcome.reason();
    let state = if outcome.end == End::Deployed { "True" } else { "False" };
    let problems: Vec<String> = outcome.problems.iter().take(SHOWN).map(ToString::to_string).collect();
    let condition = &before["conditions"][0];
    let since = match condition["lastTransitionTime"].as_str() {
        Some(since) if condition["status"] == state => since.to_owned(),
        _ => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let note = [std::slice::from_ref(&message), &problems].concat().join("; ");
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
        let kind = if outcome.problems.is_empty() { EventType::Normal } else { EventType::Warning };
        events.publish(&deployment.object_ref(&resource), kind, reason, &note).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use k8s_openapi::api::core::v1::ObjectReference;

    use super::{Outcome, Problem};

    #[test]
    fn reasons() {
        let problem = || vec![Problem { policy: None, text: "x".to_owned() }];
        let reason = |outcome: Outcome| outcome.reason();
        let text = str::to_owned;
        assert_eq!(reason(Outcome::deployed(2, 1, Vec::new())), ("Deployed", text("2 policies are deployed")));
        assert_eq!(reason(Outcome::deployed(1, 1, Vec::new())), ("Deployed", text("1 policy is deployed")));
        assert_eq!(reason(Outcome::deployed(2, 1, problem())), ("Partial", text("1 problem: policies are omitted")));
        let two = [problem(), problem()].concat();
        assert_eq!(reason(Outcome::invalid(2, two)), ("Invalid", text("2 problems: the previous objects stay")));
        let failed = Outcome::failed(&io::Error::other("forbidden"));
        assert_eq!(failed.problems[0].to_string(), "forbidden");
        assert_eq!(reason(failed), ("Failed", text("the cluster cannot be read or changed")));
    }

    #[test]
    fn problems_name_their_policy() {
        let policy = ObjectReference {
            namespace: Some("default".to_owned()),
            name: Some("reads".to_owned()),
            ..ObjectReference::default()
        };
        let problem = Problem { policy: Some(policy), text: "spec.action: x".to_owned() };
        assert_eq!(problem.to_string(), "default/reads: spec.action: x");
    }
}

//! The admission webhook: rejects AuthorizationPolicies in which `spiffe-authz check` finds errors.
//!
//! The messages are those of `AdmissionReview` in `admission.k8s.io/v1`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::inputs::mesh_settings;
use super::server::{self, Answer, Asked, Certificate};
use super::{Settings, log};
use crate::exit;
use crate::mesh::MeshSettings;

/// The path of the webhook.
const PATH: &str = "/validate";
/// The longest warning that the API server passes on, in bytes.
const WARNING: usize = 256;
/// The number of warnings. The API server passes on 4,096 bytes.
const WARNINGS: usize = 16;

/// The settings of the webhook.
pub(crate) struct Webhook {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: Certificate,
    /// Returns the problems of a policy, which is JSON.
    pub(crate) review: fn(&str, MeshSettings) -> io::Result<Review>,
}

/// The problems of a policy, each in one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Review {
    /// The reasons for rejecting the policy.
    pub(crate) errors: Vec<String>,
    /// The findings that its author should know about.
    pub(crate) warnings: Vec<String>,
}

/// The part of an `AdmissionReview` that the webhook reads.
#[derive(Deserialize)]
struct AdmissionReview<'r> {
    #[serde(borrow)]
    request: AdmissionRequest<'r>,
}

#[derive(Deserialize)]
struct AdmissionRequest<'r> {
    uid: String,
    #[serde(borrow)]
    object: &'r RawValue,
}

/// Serves the webhook, and never ends.
pub(super) async fn serve(listener: &TcpListener, webhook: &Webhook, client: &Client, settings: &Arc<Settings>) {
    let (client, settings, review) = (client.clone(), Arc::clone(settings), webhook.review);
    let answer = move |asked| {
        let (client, settings) = (client.clone(), Arc::clone(&settings));
        async move { answer(asked, mesh_settings(&client, &settings), review).await }
    };
    server::serve(listener, Some(&webhook.certificate), answer).await;
}

/// Answers a request. An answer other than 200 leaves the decision to the `failurePolicy` of the webhook.
async fn answer(
    asked: Asked,
    mesh: impl Future<Output = io::Result<MeshSettings>>,
    review: fn(&str, MeshSettings) -> io::Result<Review>,
) -> Answer {
    if asked.path != PATH {
        return Answer::text(StatusCode::NOT_FOUND, "expected /validate\n");
    }
    let admission = match serde_json::from_slice::<AdmissionReview<'_>>(&asked.body) {
        Ok(AdmissionReview { request }) => (request.uid, request.object.get().to_owned()),
        Err(error) => {
            let message = format!("expected an AdmissionReview with an object: {error}\n");
            return Answer::text(StatusCode::BAD_REQUEST, &message);
        }
    };
    let (uid, policy) = admission;
    let reviewed = match mesh.await {
        // A large policy must not delay the health checks.
        Ok(mesh) => {
            spawn_blocking(move || review(&policy, mesh)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
        Err(error) => Err(error),
    };
    match reviewed {
        Ok(review) => Answer {
            status: StatusCode::OK,
            content_type: "application/json",
            body: response(&uid, review).to_string(),
        },
        Err(error) => {
            let text = exit::text(&error);
            log::error("a policy cannot be reviewed", &[("error", &text)]);
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{text}\n"))
        }
    }
}

fn response(uid: &str, review: Review) -> Value {
    let Review { errors, warnings } = review;
    let mut warnings: Vec<String> = warnings.into_iter().map(shortened).collect();
    if let Some(more) = warnings.len().checked_sub(WARNINGS).filter(|more| *more > 0) {
        warnings.truncate(WARNINGS - 1);
        warnings.push(format!("{} more warnings (`spiffe-authz check` shows them)", more + 1));
    }
    let mut response = json!({"uid": uid, "allowed": errors.is_empty()});
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    if !errors.is_empty() {
        response["status"] = json!({"code": 422, "reason": "Invalid", "message": errors.join("\n")});
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn shortened(warning: String) -> String {
    const CUT: &str = "…";
    if warning.len() <= WARNING {
        return warning;
    }
    let end = (0..=WARNING - CUT.len()).rev().find(|end| warning.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{CUT}", &warning[..end])
}

#[cfg(test)]
mod tests {
    use std::io;

    use hyper::StatusCode;
    use serde_json::{Value, json};

    use super::super::server::{Answer, Asked};
    use super::{Review, WARNING, WARNINGS, answer};
    use crate::mesh::MeshSettings;

    /// Returns the problems that the policy itself lists.
    fn listed(policy: &str, mesh: MeshSettings) -> io::Result<Review> {
        let policy: Value = serde_json::from_str(policy)?;
        let texts = |name: &str| {
            policy[name].as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        if policy["fails"] == true {
            return Err(io::Error::other(format!("no review for {}", mesh.root_namespace)));
        }
        Ok(Review { errors: texts("errors"), warnings: texts("warnings") })
    }

    async fn asked(path: &str, body: &str) -> Answer {
        let asked = Asked { path: path.to_owned(), body: body.to_owned().into() };
        answer(asked, async { Ok(MeshSettings::default()) }, listed).await
    }

    async fn reviewed(policy: Value) -> Value {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "object": policy}});
        let Answer { status, content_type, body } = asked("/validate", &body.to_string()).await;
        assert_eq!((status, content_type), (StatusCode::OK, "application/json"));
        let review: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&review["apiVersion"], &review["kind"]),
            (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
        );
        review["response"].clone()
    }

    #[tokio::test]
    async fn policies_with_errors_are_rejected() {
        assert_eq!(reviewed(json!({})).await, json!({"uid": "u", "allowed": true}));
        assert_eq!(
            reviewed(json!({"errors": ["a", "b"], "warnings": ["c"]})).await,
            json!({
                "uid": "u", "allowed": false, "warnings": ["c"],
                "status": {"code": 422, "reason": "Invalid", "message": "a\nb"},
            })
        );
    }

    #[tokio::test]
    async fn warnings_have_the_length_that_the_api_server_passes_on() {
        let warnings: Vec<String> = (0..=WARNINGS).map(|_| "ü".repeat(WARNING)).collect();
        let response = reviewed(json!({"warnings": warnings})).await;
        let warnings: Vec<&str> = response["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(warnings.len(), WARNINGS);
        assert!(warnings.iter().all(|warning| warning.len() <= WARNING), "{warnings:?}");
        assert_eq!(warnings[WARNINGS - 1], "2 more warnings (`spiffe-authz check` shows them)");
    }

    #[tokio::test]
    async fn without_a_review_the_api_server_decides() {
        let object = |text: &str| format!(r#"{{"request": {{"uid": "u", "object": {text}}}}}"#);
        for (path, body, expected, text) in [
            ("/validate", "{}".to_owned(), StatusCode::BAD_REQUEST, "missing field `request`"),
            ("/validate", "[".to_owned(), StatusCode::BAD_REQUEST, "expected an AdmissionReview"),
            ("/validate", r#"{"request": {"uid": "u"}}"#.to_owned(), StatusCode::BAD_REQUEST, "missing field `object`"),
            (
                "/validate",
                object(r#"{"fails": true}"#),
                StatusCode::INTERNAL_SERVER_ERROR,
                "no review for istio-system",
            ),
            ("/other", object("{}"), StatusCode::NOT_FOUND, "expected /validate"),
        ] {
            let Answer { status, body: answer, .. } = asked(path, &body).await;
            assert_eq!(status, expected, "{body}: {answer}");
            assert!(answer.contains(text), "{body}: {answer}");
        }
    }
}

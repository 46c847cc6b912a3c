//! The problems of one AuthorizationPolicy, for the admission webhook of the controller.

use std::io;
use std::path::PathBuf;

use spiffe_authz::lint::{self, Severity};

use super::settings::Settings;
use super::{File, Problem, authorization_policies};
use crate::clock::now;
use crate::controller::webhook::Review;
use crate::document::Document;
use crate::mesh::{Mesh, MeshSettings};
use crate::source::Source;

/// Returns the problems that `check` finds in a policy, which is an object of the API server as JSON.
///
/// # Errors
/// Returns an error if the object is not an AuthorizationPolicy.
pub(crate) fn review(policy: &str, mesh: MeshSettings) -> io::Result<Review> {
    let path = PathBuf::from("policy");
    let source = Source::parse(&path, policy.to_owned())
        .map_err(|(_, unusable)| io::Error::other(unusable.diagnostic.message))?;
    if !source.has_policies() {
        return Err(io::Error::other("expected an AuthorizationPolicy"));
    }
    let files = [File { path, is_named: true, source }];
    let now = now()?;
    let lint = |document: &Document| lint::lint(&document.root, lint::Target::Http, now);
    let mesh = Mesh { settings: mesh, workload: None };
    let checked = authorization_policies::check(&files, &mesh, &Settings::default(), lint)?;
    let mut review = Review::default();
    for problem in checked.into_iter().flat_map(|checked| checked.problems) {
        let of_severity = match problem.severity {
            Severity::Error => &mut review.errors,
            Severity::Warning => &mut review.warnings,
            Severity::Note => continue,
        };
        of_severity.push(line(&problem));
    }
    Ok(review)
}

/// Returns a problem in one line, without the position, which is one in the message of the API server.
fn line(problem: &Problem) -> String {
    format!("{}: {}: {}", problem.place(), problem.code, problem.text())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::review;
    use crate::mesh::MeshSettings;

    fn reviewed(spec: Value) -> [Vec<String>; 2] {
        let metadata = json!({"name": "reads", "namespace": "default"});
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec,
        });
        let mesh = MeshSettings { trust_domain: Some("example.org".to_owned()), ..MeshSettings::default() };
        let review = review(&policy.to_string(), mesh).unwrap();
        [review.errors, review.warnings]
    }

    #[test]
    fn the_problems_are_those_of_check() {
        let rule = |paths: Value| {
            let from = json!([{"source": {"principals": ["cluster.local/ns/default/sa/sleep"]}}]);
            json!({"rules": [{"from": from, "to": [{"operation": {"paths": paths}}]}]})
        };
        assert_eq!(reviewed(rule(json!(["/status/*"]))), [Vec::<String>::new(), Vec::new()]);
        let [errors, warnings] = reviewed(rule(json!(["/a/*/b"])));
        assert_eq!(errors, Vec::<String>::new());
        assert!(
            warnings[0].starts_with("default/reads: spec.rules[0].to[0].operation.paths[0]: literal-asterisk: "),
            "{warnings:?}"
        );
        let [errors, _] = reviewed(json!({"action": "CUSTOM", "provider": {"name": "other"}, "rules": [{}]}));
        assert!(errors[0].starts_with("default/reads: spec.action: "), "{errors:?}");
        let [errors, _] = reviewed(json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/a?b"]}}]}]}));
        assert!(errors.iter().any(|error| error.contains("never-matches")), "{errors:?}");
    }

    #[test]
    fn another_object_is_an_error() {
        let error = review(r#"{"apiVersion": "v1", "kind": "ConfigMap"}"#, MeshSettings::default()).unwrap_err();
        assert_eq!(error.to_string(), "expected an AuthorizationPolicy");
    }
}

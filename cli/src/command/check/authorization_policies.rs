//! The problems in AuthorizationPolicies: those of the import, and the findings in the document that they make.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::rc::Rc;

use spiffe_authz::lint::{Finding, Severity};
use spiffe_authz::policy::Proxy;

use super::settings::Settings;
use super::{Checked, File, Problem, policy_name};
use crate::document::Document;
use crate::exit::Failure;
use crate::istio::import::{Import, path_of};
use crate::istio::remark::Remark;
use crate::istio::scope::Scope;
use crate::located::positions::Positions;
use crate::located::{Field, Located, Position, Value};
use crate::mesh::Mesh;
use crate::printable::say;
use crate::source::Source;
use crate::stream::stderr;

/// Checks the AuthorizationPolicies of all files together, because one policy can cover another one. The policies are those of
/// the workload, or all.
pub(super) fn check(
    files: &[File],
    mesh: &Mesh,
    settings: &Settings,
    lint: impl Fn(&Document) -> Vec<Finding>,
) -> io::Result<Vec<Checked>> {
    let resources = Source::resources(files.iter().map(|file| &file.source));
    let import = mesh.import(resources, Scope::All, Vec::new(), true)?;
    if import.policies.is_empty() && import.lost == 0 {
        return Err(io::Error::other("no AuthorizationPolicy applies to the workload"));
    }
    if let Some(message) = &import.not_applicable {
        say!(stderr(), "skipped: {}", message)?;
    }
    let resources: HashMap<[&str; 2], &Located> = files
        .iter()
        .flat_map(|file| &file.source.policies)
        .map(|(resource, origin)| ([&*origin.file, &*origin.place], resource))
        .collect();
    // Each file with a policy that applies, or that cannot be read.
    let mut problems: HashMap<&str, Vec<Problem>> =
        import.policies.iter().map(|imported| (&*imported.origin.file, Vec::new())).collect();
    for remark in &import.remarks {
        if let Some((file, problem)) = of_remark(remark, &resources) {
            problems.entry(file).or_default().push(problem);
        }
    }
    // The import has removed the policies that do not compile.
    let document = Document::compile(&import.document, Proxy::Every)
        .map_err(|errors| io::Error::other(Failure::of_document("AuthorizationPolicies", &errors)))?;
    let place = Place { import: &import, positions: Positions::of(&import.document) };
    for finding in lint(&document) {
        if let Some((file, problem)) = place.problem(finding, settings) {
            problems.entry(file).or_default().push(problem);
        }
    }
    let checked = files.iter().filter_map(|File { path, source, .. }| {
        let mut problems = problems.remove(&*path.display().to_string())?;
        problems.sort_by_key(|problem| problem.position);
        let first = source.policies.first().map(|(policy, _)| policy.position);
        let has_documents = !source.documents.is_empty() || !source.rejected.is_empty();
        let position = first.filter(|_| has_documents);
        Some(Checked { file: path.clone(), text: Rc::clone(&source.text), position, problems })
    });
    Ok(checked.collect())
}

/// Returns the problem of a policy, or of a part of it, that cannot be read, and its file.
fn of_remark<'r>(remark: &'r Remark, resources: &HashMap<[&str; 2], &Located>) -> Option<(&'r str, Problem)> {
    let Remark { origin, place, field, lost, message } = remark;
    let code = lost.as_ref()?.slug();
    let (file, position) = origin.as_ref()?;
    let resource = resources.get(&[&**file, &**place]);
    let field = field.as_deref().unwrap_or_default();
    let pointer = resource.zip(*position).map(|(resource, position)| pointer_at(resource, position, field));
    let message = message.strip_prefix(&format!("{code}: ")).unwrap_or(message).to_owned();
    let problem = Problem {
        position: *position,
        pointer: pointer.unwrap_or_default(),
        subject: Some(subject(place, field)),
        policy: Some(place.clone()),
        severity: Severity::Error,
        code,
        message,
        help: String::new(),
        is_error: true,
    };
    Some((file, problem))
}

/// Finds the places of findings in the policies of an import.
struct Place<'i> {
    import: &'i Import<'i>,
    positions: Positions<'i>,
}

impl<'i> Place<'i> {
    /// Returns the problem of a finding, and its file. Returns `None` if the lint is not reported.
    fn problem(&self, finding: Finding, settings: &Settings) -> Option<(&'i str, Problem)> {
        let Finding { lint, pointer, message } = finding;
        let severity = settings.severity(lint)?;
        let document = &self.import.document;
        let (index, field) = split(&pointer);
        // A finding about all policies is shown with the first one.
        let imported = self.import.policies.get(index.unwrap_or_default())?;
        let policy = policy_name(&pointer, document);
        let path = policy.as_ref().map(|_| path_of(field)).unwrap_or_default();
        let position = policy.as_ref().map(|_| self.positions.at(&pointer, false));
        let subject = match &policy {
            Some(policy) => subject(policy, &path),
            None => "AuthorizationPolicies".to_owned(),
        };
        let problem = Problem {
            position,
            pointer: position.map(|position| pointer_at(imported.resource, position, &path)).unwrap_or_default(),
            subject: Some(subject),
            policy,
            severity,
            code: lint.slug(),
            message: in_words(&message, document),
            help: lint.remedy().to_owned(),
            is_error: false,
        };
        Some((&imported.origin.file, problem))
    }
}

/// Returns the name of a policy with the path of a field in it.
fn subject(policy: &str, path: &str) -> String {
    if path.is_empty() { policy.to_owned() } else { format!("{policy}: {path}") }
}

/// Splits a JSON pointer into the position of a policy and the rest.
fn split(pointer: &str) -> (Option<usize>, &str) {
    let Some(rest) = pointer.strip_prefix("/policies/") else { return (None, pointer) };
    let (index, field) = rest.split_once('/').unwrap_or((rest, ""));
    (index.parse().ok(), field)
}

/// Returns a message with a path and the name of the policy in place of each pointer to a rule.
fn in_words(message: &str, document: &Located) -> String {
    let words = message.split(' ').map(|word| match policy_name(word, document) {
        Some(name) => format!("{} of {name}", path_of(split(word).1)),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the JSON pointer to the value at a position of a resource. An object begins where its first field does, so that several
/// values can have the same position: of these, it is the one with this path.
fn pointer_at(resource: &Located, position: Position, path: &str) -> String {
    let mut found = Vec::new();
    collect(resource, String::new(), position, &mut found);
    let is_path = |pointer: &String| dotted(pointer) == path;
    found.iter().find(|pointer| is_path(pointer)).or(found.first()).cloned().unwrap_or_default()
}

fn collect(value: &Located, pointer: String, position: Position, found: &mut Vec<String>) {
    if value.position == position {
        found.push(pointer.clone());
    }
    match &value.value {
        Value::List(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| collect(item, format!("{pointer}/{index}"), position, found));
        }
        Value::Object(fields) => {
            for Field { position: of_name, name, value } in fields {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                if *of_name == position && value.position != position {
                    found.push(pointer.clone());
                }
                collect(value, pointer, position, found);
            }
        }
        _ => {}
    }
}

/// Returns a JSON pointer as a path, such as `spec.rules[0].from`.
fn dotted(pointer: &str) -> String {
    path_of(pointer.trim_start_matches("/spec").trim_start_matches("/metadata"))
}

#[cfg(test)]
mod tests {
    use super::pointer_at;
    use crate::located::{Position, parse_all};

    #[test]
    fn a_position_has_a_pointer() {
        let text = "spec:\n  rules:\n  - from:\n    - source: {principals: [a, b]}\n";
        let resource = parse_all(text).unwrap().remove(0);
        for (line, column, path, expected) in [
            (3, 5, "spec.rules[0]", "/spec/rules/0"),
            (3, 5, "spec.rules[0].from", "/spec/rules/0/from"),
            (4, 29, "", "/spec/rules/0/from/0/source/principals/0"),
            (4, 16, "", "/spec/rules/0/from/0/source/principals"),
            (9, 9, "", ""),
        ] {
            assert_eq!(pointer_at(&resource, Position { line, column }, path), expected, "{line}:{column} {path}");
        }
    }
}

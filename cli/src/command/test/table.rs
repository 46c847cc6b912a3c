//! Tables of cases, and every mistake in them.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use spiffe_authz::case::Case;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::Layer;

use crate::claims;
use crate::document::Document;
use crate::exit::Failure;
use crate::located::read::ReadError;
use crate::located::{Field, Located, Position, Value};
use crate::mesh::Mesh;
use crate::suggestion::{hint, similar};

/// The fields of a table. `description` is a comment for its readers.
const FIELDS: [&str; 8] =
    ["policy", "configuration", "mesh", "workload", "layer", "spaceDelimitedClaims", "cases", "description"];

/// A table whose cases can be decided.
pub(super) struct Table {
    pub(super) document: Document,
    pub(super) layer: Layer,
    pub(super) cases: Vec<(Case, Position)>,
    /// The claims that Envoy splits at spaces.
    pub(super) space_delimited: Vec<String>,
}

/// The mistakes in a table.
struct Mistakes(Vec<(Option<Position>, String)>);

impl Mistakes {
    fn add(&mut self, position: Position, message: impl Into<String>) {
        self.0.push((Some(position), message.into()));
    }

    fn add_error(&mut self, ReadError { position, message }: ReadError) {
        self.0.push((position, message));
    }
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// Returns every mistake in the table, or the errors in its document.
    pub(super) fn read(table: &Located, file: &Path) -> io::Result<Self> {
        let name = file.display().to_string();
        let mut mistakes = Mistakes(Vec::new());
        if !matches!(table.value, Value::Object(_)) {
            mistakes.add_error(table.expected("an object with `policy` and `cases`"));
            return Err(Failure::of_file(&name, &mistakes.0));
        }
        for (position, field) in table.fields().iter().enumerate() {
            if !FIELDS.contains(&&*field.name) {
                let message = format!("unknown field `{}` ({})", field.name, hint(&field.name, &FIELDS));
                mistakes.add(field.position, message);
            } else if table.fields().iter().take(position).any(|earlier| earlier.name == field.name) {
                mistakes.add(field.position, format!("duplicate field `{}` (remove one of the two)", field.name));
            }
        }
        let layer = read_field(table, "layer", &mut mistakes).unwrap_or_default();
        let space_delimited = read_field(table, "spaceDelimitedClaims", &mut mistakes);
        let space_delimited = space_delimited.unwrap_or_else(|| claims::OF_ISTIO.map(str::to_owned).to_vec());
        let mesh = Mesh {
            settings: read_field(table, "mesh", &mut mistakes).unwrap_or_default(),
            workload: read_field(table, "workload", &mut mistakes),
        };
        let cases = read_cases(table, &mut mistakes);
        let document = read_document(table, file, &mesh, &mut mistakes)?.map(|document| document.on(layer));
        if let Some(document) = &document {
            let policies = document.policies().collect();
            for (case, located) in &cases {
                check_case(case, located, document, &policies, &mut mistakes);
            }
        }
        match document {
            Some(document) if mistakes.0.is_empty() => {
                let cases = cases.into_iter().map(|(case, located)| (case, located.position)).collect();
                Ok(Self { document, layer, cases, space_delimited })
            }
            _ => {
                mistakes.0.sort_by_key(|(position, _)| *position);
                Err(Failure::of_file(&name, &mistakes.0))
            }
        }
    }
}

/// Reads an optional field of a table.
fn read_field<'t, T: Deserialize<'t>>(table: &'t Located, name: &str, mistakes: &mut Mistakes) -> Option<T> {
    table.field(name)?.read().map_err(|error| mistakes.add_error(error)).ok()
}

/// Reads the document of a table. Returns `None` after a mistake in the table.
fn read_document(table: &Located, file: &Path, mesh: &Mesh, mistakes: &mut Mistakes) -> io::Result<Option<Document>> {
    match (table.field("policy"), table.field("configuration")) {
        (Some(policy), None) => {
            let Some(policy_file) = policy.text() else {
                mistakes.add_error(policy.expected("a string"));
                return Ok(None);
            };
            if policy_file.is_empty() {
                mistakes.add(policy.position, "expected the name of a file, found an empty string");
                return Ok(None);
            }
            let path = file.parent().unwrap_or(Path::new("")).join(policy_file);
            match Document::load(&path, mesh) {
                Ok(document) => Ok(Some(document)),
                Err(error) if error.get_ref().is_some_and(|error| error.is::<Failure>()) => Err(error),
                Err(error) => {
                    mistakes.add(policy.position, format!("`policy`: {error}"));
                    Ok(None)
                }
            }
        }
        (None, Some(configuration)) => {
            let place = format!("{}: `configuration`", file.display());
            let document = mesh.with_proxy(|proxy| Document::compile(configuration, proxy));
            document.map(Some).map_err(|errors| io::Error::other(Failure::of_document(&place, &errors)))
        }
        (Some(policy), Some(_)) => {
            mistakes.add(policy.position, "`policy` and `configuration` cannot be combined");
            Ok(None)
        }
        (None, None) => {
            mistakes.add(table.position, "missing field `policy` or `configuration`");
            Ok(None)
        }
    }
}

fn read_cases<'t>(table: &'t Located, mistakes: &mut Mistakes) -> Vec<(Case, &'t Located)> {
    let Some(list) = table.field("cases") else {
        let position = table.fields().iter().find(|field| field.name == "cases").map(|field| field.position);
        let message = match position {
            Some(_) => "`cases` is empty (expected at least one case)",
            None => "missing field `cases`",
        };
        mistakes.add(position.unwrap_or(table.position), message);
        return Vec::new();
    };
    match &list.value {
        Value::List(items) if items.is_empty() => {
            mistakes.add(list.position, "`cases` is empty (expected at least one case)");
        }
        Value::List(_) => {}
        _ => mistakes.add_error(list.expected("a list")),
    }
    let mut cases: Vec<(Case, &Located)> = Vec::new();
    let mut names: HashMap<&str, Position> = HashMap::new();
    for located in list.items() {
        if let Some(name) = located.field("name")
            && let Some(text) = name.text()
            && let Some(first) = names.insert(text, name.position)
        {
            mistakes.add(name.position, format!("duplicate name `{text}` (the first one is in line {})", first.line));
        }
        match headers(located).and_then(|()| located.read::<Case>()) {
            Ok(case) => cases.push((case, located)),
            Err(error) => mistakes.add_error(error),
        }
    }
    cases
}

/// Checks the types of the headers of a case. The error of their Rust type has no place.
fn headers(case: &Located) -> Result<(), ReadError> {
    let headers = case.field("request").and_then(|request| request.field("headers"));
    for Field { value, .. } in headers.map_or(&[][..], Located::fields) {
        let lines = if let Value::List(lines) = &value.value { lines } else { std::slice::from_ref(value) };
        if let Some(other) = lines.iter().find(|line| line.text().is_none()) {
            return Err(other.expected("a string"));
        }
    }
    Ok(())
}

/// Checks the names that a case expects, because a case with an unknown one cannot pass.
fn check_case(
    case: &Case,
    located: &Located,
    document: &Document,
    policies: &HashMap<String, usize>,
    mistakes: &mut Mistakes,
) {
    let expected = |name: &str| located.field("expect").and_then(|expect| expect.field(name));
    for name in ["policy", "audit"] {
        let Some(value) = expected(name) else { continue };
        let Some(text) = value.text() else { continue };
        if !policies.contains_key(text) {
            let next = match similar(text, policies.keys().map(String::as_str)) {
                Some(closest) => format!("did you mean `{closest}`?"),
                None => "expected `<namespace>/<name>` of a policy in the document".to_owned(),
            };
            mistakes.add(value.position, format!("unknown policy `{text}` ({next})"));
        }
    }
    let rules = case.expect.policy.as_ref().and_then(|name| policies.get_key_value(name));
    if let (Some((policy, count)), Some(rule), Some(value)) = (rules, case.expect.rule, expected("rule"))
        && usize::try_from(rule).is_ok_and(|rule| rule >= *count)
    {
        let rules = if *count == 1 { "1 rule".to_owned() } else { format!("{count} rules") };
        mistakes.add(value.position, format!("`{policy}` has {rules}, numbered from 0"));
    }
    if let (Some(reason), Some(value)) = (&case.expect.reason, expected("reason")) {
        let known: Vec<&str> = DenyReason::all().map(DenyReason::slug).collect();
        if !known.contains(&&**reason) {
            let next = match similar(reason, known) {
                Some(closest) => format!("did you mean `{closest}`?"),
                None => "docs/reference/reasons.md lists the reasons".to_owned(),
            };
            mistakes.add(value.position, format!("unknown reason `{reason}` ({next})"));
        }
    }
    if document.policy.depends_on_time() && case.request.time.is_none() {
        let message = format!(
            "the case `{}` needs a `time` in its `request`, because a policy has `notBefore` or `expires`",
            case.name
        );
        mistakes.add(located.position, message);
    }
}

//! The tables of README.md hold what the code holds: no more, no less.

use std::collections::BTreeSet;

use serde_json::json;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::diagnostic::Code;
use spiffe_authz::lint::{Lint, Target, lint};
use spiffe_authz::policy::{Node, Policy};

const LINTS: &str = include_str!("../../docs/lints.md");
const README: &str = include_str!("../../README.md");

/// The first column of the table under a heading, without its code marks.
fn first_column(heading: &str) -> BTreeSet<&'static str> {
    let heading = format!("\n{heading}\n");
    let (_, section) = README.split_once(&heading).unwrap_or_else(|| panic!("README.md has no heading{heading}"));
    let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).filter_map(|row| row.split('|').nth(1)).map(|cell| cell.trim().trim_matches('`')).collect()
}

#[test]
fn deny_reasons() {
    assert_eq!(first_column("### Deny reasons"), DenyReason::all().map(DenyReason::slug).collect());
}

#[test]
fn diagnostic_codes() {
    assert_eq!(first_column("### Mistakes in a configuration"), Code::ALL.map(Code::slug).into());
}

#[test]
fn the_configuration_compiles() {
    let (_, section) = README.split_once("\n## Configuration\n").expect("a heading");
    let document = section.split("```").nth(1).and_then(|block| block.strip_prefix("json\n")).expect("a JSON block");
    Policy::from_json(document.as_bytes()).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
}

/// What may stand at a place, as the diagnostic of an unknown field says, without the `not…` twins.
fn allowed_at(document: &serde_json::Value) -> BTreeSet<String> {
    let diagnostics = Policy::from_json(document.to_string().as_bytes()).expect_err("an unknown field");
    let diagnostic =
        diagnostics.iter().find(|diagnostic| diagnostic.code == Code::UnknownField).expect("its diagnostic");
    let names = diagnostic.help.split('`').skip(1).step_by(2).map(str::to_owned);
    names.filter(|name| !(name.starts_with("not") && name[3..].starts_with(|c: char| c.is_ascii_uppercase()))).collect()
}

#[test]
fn fields() {
    let documented = |header: &str| -> BTreeSet<String> {
        let (_, table) = README.split_once(&format!("\n| {header} |")).expect("a table");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect()
    };
    let rule = |rule: serde_json::Value| json!({"trustDomain": "a", "policies": [{"name": "p", "rules": [rule]}]});
    for (header, document) in [
        ("Field | Meaning | Left out", json!({"x": 1})),
        ("Field of `identity` | Meaning | Left out", json!({"trustDomain": "a", "identity": {"x": 1}, "policies": []})),
        ("Field of a policy | Meaning", json!({"trustDomain": "a", "policies": [{"x": 1}]})),
        ("Field of a source | Values", rule(json!({"from": [{"source": {"x": 1}}]}))),
        ("Field of an operation | Values", rule(json!({"to": [{"operation": {"x": 1}}]}))),
    ] {
        assert_eq!(documented(header), allowed_at(&document), "{header}");
    }
}

#[test]
fn keys_of_conditions() {
    let document =
        json!({"trustDomain": "a", "policies": [{"name": "p", "rules": [{"when": [{"key": "x", "values": ["y"]}]}]}]});
    let diagnostics = Policy::from_json(document.to_string().as_bytes()).expect_err("an unknown key");
    let known: BTreeSet<&str> = diagnostics[0].help.split('`').skip(1).step_by(2).collect();
    let (_, table) = README.split_once("\n| Key of a condition | Values |").expect("a table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    assert_eq!(cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect::<BTreeSet<_>>(), known);
}

#[test]
fn lints_have_a_page_with_their_severity_and_summary() {
    for lint in Lint::ALL {
        let slug = lint.slug();
        let row = format!("| [`{slug}`](#{slug}) | {} |", lint.severity().slug());
        assert!(LINTS.contains(&row), "{row}");
        assert!(LINTS.contains(&format!("\n## {slug}\n\n{}\n", lint.summary())), "{slug}");
    }
    assert_eq!(LINTS.matches("\n## ").count(), Lint::ALL.len());
}

#[test]
fn lints_find_their_examples_and_not_the_better_ones() {
    let mut examples = 0;
    for section in LINTS.split("\n## ").skip(1) {
        let name = section.lines().next().expect("a heading");
        let Some(row) = section.lines().find(|line| line.starts_with("| `{")) else { continue };
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        assert!(found_in(cells[0]).contains(&name), "{name}: {}", cells[0]);
        assert!(!found_in(cells[1]).contains(&name), "{name}: {}", cells[1]);
        examples += 1;
    }
    assert!(examples > 10, "{examples}");
}

/// The lints of an example: fields of a source or of an operation.
fn found_in(fields: &str) -> BTreeSet<&'static str> {
    let fields: serde_json::Value = serde_json::from_str(fields).expect("JSON");
    let is_operation = ["paths", "hosts", "methods", "ports"].iter().any(|name| fields.get(name).is_some());
    let rule =
        if is_operation { json!({"to": [{"operation": fields}]}) } else { json!({"from": [{"source": fields}]}) };
    let mut found = BTreeSet::new();
    for (action, target) in
        [("ALLOW", Target::Http), ("DENY", Target::Http), ("ALLOW", Target::Tcp), ("ALLOW", Target::Ztunnel)]
    {
        let document = json!({
            "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "trustDomainAliases": ["old.example.org"],
            "policies": [{"name": "p", "namespace": "n", "action": action, "rules": [rule]}]
        });
        Policy::from_json(document.to_string().as_bytes()).expect("a document that compiles");
        let root: Node = serde_json::from_str(&document.to_string()).expect("JSON");
        found.extend(lint(&root, target).into_iter().map(|finding| finding.lint.slug()));
    }
    found
}

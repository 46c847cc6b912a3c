//! The tables of README.md and docs/ list exactly the names that the code has, and their examples work.

use std::collections::BTreeSet;

use crate::support::NOW;
use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::diagnostic::Code;
use spiffe_authz::identity::Identity;
use spiffe_authz::lint::{Lint, Target, lint};
use spiffe_authz::policy::{Layer, Node, PolicySet, Proxy, RoutePolicy};
use spiffe_authz::request::Request;
use spiffe_authz::worker::{Count, Fact};

const LINTS: &str = include_str!("../../docs/reference/lints.md");
const POLICY: &str = include_str!("../../docs/reference/policy.md");
const MODULE: &str = include_str!("../../docs/reference/dynamic-module.md");
const TCP: &str = include_str!("../../docs/reference/tcp.md");
const REASONS: &str = include_str!("../../docs/reference/reasons.md");
const DIAGNOSTICS: &str = include_str!("../../docs/reference/diagnostics.md");
const METRICS: &str = include_str!("../../docs/reference/metrics-and-logs.md");
const MESH: &str = include_str!("../../docs/mesh.md");
const README: &str = include_str!("../../README.md");

/// Returns the first column of the first table after this text, without the backticks.
fn first_column_after(page: &'static str, text: &str) -> BTreeSet<&'static str> {
    let (_, section) = page.split_once(text).unwrap_or_else(|| panic!("there is no `{text}`"));
    let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).filter_map(|row| row.split('|').nth(1)).map(|cell| cell.trim().trim_matches('`')).collect()
}

#[test]
fn deny_reasons() {
    assert_eq!(first_column_after(REASONS, "# Deny reasons\n"), DenyReason::all().map(DenyReason::slug).collect());
    for reason in DenyReason::all() {
        let row = format!("\n| `{}` | {}", reason.slug(), reason.summary());
        assert!(REASONS.contains(&row), "{row}");
    }
}

#[test]
fn diagnostic_codes() {
    assert_eq!(first_column_after(DIAGNOSTICS, "# Diagnostics\n"), Code::all().map(Code::slug).collect());
    for code in Code::all() {
        let row = format!("\n| `{}` | {}", code.slug(), code.summary());
        assert!(DIAGNOSTICS.contains(&row), "{row}");
    }
}

#[test]
fn facts_of_a_decision() {
    for fact in Fact::ALL {
        // The page lists the names for requests, and the prefix of the names for connections.
        let key = fact.key();
        assert_eq!(fact.name(Layer::Http), format!("spiffe_authz_{key}"));
        assert_eq!(fact.name(Layer::Tcp), format!("spiffe_authz_connection_{key}"));
    }
    let names: BTreeSet<&str> = Fact::ALL.iter().map(|fact| fact.name(Layer::Http)).collect();
    assert_eq!(first_column_after(METRICS, "\n## Access logs\n"), names);
    // The summary and the peer are filter state of the module, too.
    let keys = names.iter().filter_map(|name| name.strip_prefix("spiffe_authz_"));
    let keys = keys.filter(|key| *key != Fact::Decision.key()).collect();
    assert_eq!(first_column_after(MODULE, "**Dynamic metadata**"), keys);
}

#[test]
fn labels_of_the_counter() {
    let labels = first_column_after(METRICS, "\n## Metrics\n");
    assert_eq!(labels, Count::LABELS.into_iter().collect());
}

#[test]
fn fields_of_a_route() {
    let diagnostics = RoutePolicy::from_json(br#"{"x": 1}"#).expect_err("an unknown field");
    let allowed: BTreeSet<&str> = codes(&diagnostics[0].help).collect();
    assert_eq!(first_column_after(MODULE, "## Routes"), allowed);
}

#[test]
fn the_configuration_compiles() {
    let (_, section) = README.split_once("\n## Configuration\n").expect("a heading");
    let document = section.split("```").nth(1).and_then(|block| block.strip_prefix("json\n")).expect("a JSON block");
    PolicySet::from_json(document.as_bytes()).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
}

/// Returns the cells of the table with this header.
fn table(page: &'static str, header: &str) -> Vec<Vec<&'static str>> {
    let (_, table) = page.split_once(&format!("\n| {header} |")).unwrap_or_else(|| panic!("no table `{header}`"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// Returns the cells of the table of docs/reference/policy.md with this header.
fn rows(header: &str) -> Vec<Vec<&'static str>> {
    table(POLICY, header)
}

/// A test of a mesh measures docs/mesh.md. README.md repeats the verdicts for the federated caller.
#[test]
fn the_readme_has_the_measured_verdicts() {
    let measured = table(MESH, "The mesh trusts example.io by | Decided by | The policy's source | Local | Federated");
    let verdict = |trust: &str, decider: &str, source: &str| {
        let row = measured.iter().find(|row| row[..3] == [trust, decider, source]);
        row.unwrap_or_else(|| panic!("no row {trust} {decider} {source}"))[4]
    };
    let header = "The mesh trusts `example.io` through | Source of the policy | Istio alone | spiffe-authz";
    let shown = table(README, header);
    assert_eq!(shown.len() * 2, measured.len());
    for row in shown {
        for (decider, cell) in [("Istio", row[2]), ("spiffe-authz", row[3])] {
            assert_eq!(cell.trim_matches('*'), verdict(row[0], decider, row[1]), "{row:?}");
        }
    }
}

/// Returns the strings in backticks.
fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Parses a cell with JSON.
fn example(cell: &str) -> Value {
    serde_json::from_str(cell.trim_matches('`')).unwrap_or_else(|error| panic!("{cell}: {error}"))
}

/// Returns the fields of an object, which the diagnostic for an unknown field lists.
fn known_at(document: &Value) -> BTreeSet<String> {
    let diagnostics = PolicySet::from_json(document.to_string().as_bytes()).expect_err("an unknown field");
    let diagnostic =
        diagnostics.iter().find(|diagnostic| diagnostic.code == Code::UnknownField).expect("its diagnostic");
    codes(&diagnostic.help).map(str::to_owned).collect()
}

fn is_negated(name: &str) -> bool {
    name.strip_prefix("not").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn policy(rule: &Value) -> Value {
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "identity": {"peer": "optional"},
        "policies": [{"name": "p", "namespace": "default", "rules": [rule]}]
    })
}

const DOCUMENT: &str = "Field | Meaning | Default | Example";
const IDENTITY: &str = "Field of `identity` | Meaning | Default | Example";
const OUTPUTS: &str = "Field of `outputs` | Meaning | Default | Example";
const REVOKED: &str = "Field of `revoked` | Values | Default | Example";
const SCOPE: &str = "Field of `scope` | Meaning | Default | Example";
const WORKLOAD: &str = "Field of `workload` | Meaning | Default | Example";
const OF_POLICY: &str = "Field of a policy | Meaning | Default | Example";
const SOURCE: &str = "Field of a source | Values | Example | Matches | No match";
const OPERATION: &str = "Field of an operation | Values | Example | Matches | No match";
const CONDITION: &str = "Key of a condition | Values | Example | Matches | No match";

#[test]
fn every_field_has_a_row_and_no_other() {
    for (header, document) in [
        (DOCUMENT, json!({"x": 1})),
        (IDENTITY, json!({"trustDomain": "a", "identity": {"x": 1}, "policies": []})),
        (OUTPUTS, json!({"trustDomain": "a", "outputs": {"x": 1}, "policies": []})),
        (REVOKED, json!({"trustDomain": "a", "identity": {"revoked": {"x": 1}}, "policies": []})),
        (SCOPE, json!({"trustDomain": "a", "scope": {"x": 1}, "policies": []})),
        (WORKLOAD, json!({"trustDomain": "a", "scope": {"workload": {"x": 1}}, "policies": []})),
        (OF_POLICY, json!({"trustDomain": "a", "scope": {}, "policies": [{"x": 1}]})),
        (SOURCE, policy(&json!({"from": [{"source": {"x": 1}}]}))),
        (OPERATION, policy(&json!({"to": [{"operation": {"x": 1}}]}))),
    ] {
        let mut documented: BTreeSet<String> =
            rows(header).iter().flat_map(|row| codes(row[0])).map(str::to_owned).collect();
        let known = known_at(&document);
        assert!(documented.is_subset(&known), "{header}: {documented:?}");
        // The page lists one negated field of each kind.
        documented.retain(|name| !is_negated(name));
        assert_eq!(documented, known.into_iter().filter(|name| !is_negated(name)).collect(), "{header}");
    }
}

#[test]
fn every_key_of_a_condition_has_a_row() {
    let document = policy(&json!({"when": [{"key": "x", "values": ["y"]}]}));
    let diagnostics = PolicySet::from_json(document.to_string().as_bytes()).expect_err("an unknown key");
    let known: BTreeSet<&str> = codes(&diagnostics[0].help).collect();
    let rows = rows(CONDITION);
    assert_eq!(rows.iter().flat_map(|row| codes(row[0])).collect::<BTreeSet<_>>(), known);
}

/// Adds the fields of `example` to the object at `pointer`.
fn extended(mut document: Value, pointer: &str, example: &Value) -> Value {
    let object = document.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object");
    object.extend(example.as_object().expect("an object").clone());
    document
}

#[test]
fn examples_of_settings_compile_and_show_their_field() {
    let base = json!({
        "trustDomain": "a", "identity": {"revoked": {}}, "outputs": {},
        "scope": {"rootNamespace": "r", "workload": {"namespace": "n", "labels": {}}},
        "policies": [{"name": "p", "namespace": "n", "rules": [{}]}]
    });
    for (header, pointer) in [
        (DOCUMENT, ""),
        (OUTPUTS, "/outputs"),
        (IDENTITY, "/identity"),
        (REVOKED, "/identity/revoked"),
        (SCOPE, "/scope"),
        (WORKLOAD, "/scope/workload"),
        (OF_POLICY, "/policies/0"),
    ] {
        for row in rows(header) {
            let example = example(row[3]);
            assert!(example.get(row[0].trim_matches('`')).is_some(), "{row:?}");
            let mut document = extended(base.clone(), pointer, &example);
            if document["identity"]["revoked"] == json!({}) {
                document["identity"].as_object_mut().expect("an object").remove("revoked");
            }
            // A document for other workloads names none.
            if document["scope"]["delegatedNamespaces"].is_array() {
                document["scope"].as_object_mut().expect("an object").remove("workload");
            }
            PolicySet::from_json_for(document.to_string().as_bytes(), Proxy::Every)
                .unwrap_or_else(|wrong| panic!("{row:?}: {wrong:#?}"));
        }
    }
}

#[test]
fn examples_of_rules_match_as_documented() {
    let in_rule = |header, example: &Value| match header {
        SOURCE => json!({"from": [{"source": example}]}),
        OPERATION => json!({"to": [{"operation": example}]}),
        _ => json!({"when": [example]}),
    };
    for header in [SOURCE, OPERATION, CONDITION] {
        for row in rows(header) {
            let document = policy(&in_rule(header, &example(row[2])));
            let policy = PolicySet::from_json(document.to_string().as_bytes())
                .unwrap_or_else(|wrong| panic!("{row:?}: {wrong:#?}"));
            for (cell, matches) in [(row[3], true), (row[4], false)] {
                let mut request: CaseRequest = serde_json::from_value(example(cell)).expect("a request");
                request.peer.get_or_insert_with(|| "spiffe://example.org/ns/default/sa/sleep".to_owned());
                let verdict = request.decide(&policy, NOW).decision.verdict;
                assert_eq!(verdict == Verdict::Allow, matches, "{row:?}: {cell}: {verdict:?}");
            }
        }
    }
}

#[test]
fn lints_have_a_page_with_their_severity_and_summary() {
    for lint in Lint::all() {
        let slug = lint.slug();
        let row = format!("| [`{slug}`](#{slug}) | {} |", lint.severity().slug());
        assert!(LINTS.contains(&row), "{row}");
        assert!(LINTS.contains(&format!("\n## {slug}\n\n{}\n", lint.summary())), "{slug}");
    }
    assert_eq!(LINTS.matches("\n## ").count(), Lint::all().count());
}

#[test]
fn lints_find_their_examples_and_not_the_fixed_ones() {
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

/// Returns the lints of an example, which has the fields of a source or of an operation.
fn found_in(fields: &str) -> BTreeSet<&'static str> {
    let fields: Value = serde_json::from_str(fields).expect("JSON");
    let is_operation = ["paths", "hosts", "methods", "ports"].iter().any(|name| fields.get(name).is_some());
    let rule =
        if is_operation { json!({"to": [{"operation": fields}]}) } else { json!({"from": [{"source": fields}]}) };
    let mut found = BTreeSet::new();
    for (action, target) in [
        ("ALLOW", Target::Http),
        ("DENY", Target::Http),
        ("ALLOW", Target::Tcp),
        ("ALLOW", Target::Ztunnel),
        ("DENY", Target::Ztunnel),
    ] {
        let document = json!({
            "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "trustDomainAliases": ["old.example.org"],
            "policies": [{"name": "p", "namespace": "n", "action": action, "rules": [rule]}]
        });
        PolicySet::from_json(document.to_string().as_bytes()).expect("a document that compiles");
        let text = document.to_string();
        let root: Node<'_> = serde_json::from_str(&text).expect("JSON");
        found.extend(lint(&root, target, NOW).into_iter().map(|finding| finding.lint.slug()));
    }
    found
}

/// Returns a rule with this field or condition only.
fn rule_of(name: &str) -> Value {
    let source = ["rincipals", "amespaces", "erviceAccounts", "rustDomains", "Blocks"];
    let values = match name {
        "ports" | "destination.port" => json!(["80"]),
        _ if name.ends_with("Blocks") || name.ends_with(".ip") => json!(["10.0.0.0/8"]),
        "serviceAccounts" | "source.serviceAccount" => json!(["n/a"]),
        "trustDomains" | "source.trustDomain" => json!(["example.org"]),
        _ => json!(["*"]),
    };
    match name {
        _ if name.contains('.') => json!({"when": [{"key": name, "values": values}]}),
        _ if source.iter().any(|end| name.ends_with(end)) => json!({"from": [{"source": {name: values}}]}),
        _ => json!({"to": [{"operation": {name: values}}]}),
    }
}

#[test]
fn fields_on_tcp() {
    let (_, table) = TCP.split_once("\n| Field or condition | On TCP |\n").expect("a table");
    let mut names = 0;
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let http_only = row.ends_with("| HTTP only |");
        assert!(http_only || row.ends_with("| evaluated |"), "{row}");
        for name in codes(row) {
            let policies = json!([{"name": "p", "rules": [rule_of(name)]}]);
            let document = json!({"trustDomain": "example.org", "policies": policies}).to_string();
            let policy = PolicySet::from_json(document.as_bytes()).unwrap_or_else(|found| panic!("{name}: {found:#?}"));
            let policy = policy.on(Layer::Tcp);
            let request = CaseRequest::default();
            let explanation = policy.explain(&policy.subject(Identity::Anonymous), &Request::new(&request, NOW));
            let explanation = explanation.unwrap_or_else(|_| panic!("{name} cannot be read"));
            assert_eq!(explanation.policies[0].rules[0].left_out, http_only, "{name}");
            names += 1;
        }
    }
    // The fields of a source and of an operation, and the conditions.
    assert_eq!(names, 7 + 4 + 15);
}

#[cfg(not(target_arch = "wasm32"))]
mod layout {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    const DESIGN: &str = include_str!("../../DESIGN.md");

    /// Returns the paths of all files below a folder.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn the_layout_table_matches_the_tree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let rows: BTreeSet<&str> = super::first_column_after(DESIGN, "\n## Layout\n");
        for row in &rows {
            assert!(root.join(row).exists(), "`{row}` does not exist");
        }
        // The core has a row for each file. The other folders have rows for selected files.
        for file in files(&root.join("src")) {
            let path = file.strip_prefix(root).expect("a path below the root").to_str().expect("a path in UTF-8");
            assert!(path.ends_with("tests.rs") || rows.contains(path), "`{path}` has no row");
        }
        for folder in
            ["envoy/wasm/", "envoy/dynamic-module/", "cli/", "docs/", "tests/core/", "fuzz/", "bench/", "xtask/"]
        {
            assert!(rows.contains(folder), "`{folder}` has no row");
        }
    }
}

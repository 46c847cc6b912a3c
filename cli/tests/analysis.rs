//! `diff`, `who` and `prove`, as a user runs them. The core compares the answers with every request.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const OLD: &str = "
trustDomain: example.org
federatedTrustDomains: [example.io]
policies:
- name: reads
  namespace: a
  rules:
  - from: [{source: {serviceAccounts: [one, two]}}]
    to: [{operation: {methods: [GET], paths: [/public/*]}}]
- name: no-admin
  namespace: a
  action: DENY
  rules: [{to: [{operation: {paths: [/public/admin]}}]}]
";

/// Returns a directory with the old document and a new one, in which a string is replaced.
fn documents(replaced: &str, with: &str) -> TempDir {
    assert!(OLD.contains(replaced), "{replaced}");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("old.yaml"), OLD).unwrap();
    fs::write(directory.path().join("new.yaml"), OLD.replace(replaced, with)).unwrap();
    directory
}

fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_status_tells_whether_the_change_grants() {
    for (replaced, with, any, granted) in [
        ("one, two", "two, one", 0, 0),
        ("name: reads", "name: renamed", 0, 0),
        ("one, two", "one", 3, 0),
        ("one, two", "one, two, three", 3, 3),
        ("/public/admin]", "/public/admin, /public/other]", 3, 0),
        ("[/public/admin]", "[/public/admins]", 3, 3),
        // `foreign-trust-domain` becomes `no-policy-allows`.
        ("[example.io]", "[example.io, example.net]", 3, 0),
        // No request shows it, and it could allow more.
        ("policies:", "identity: {maxAge: 1h}\npolicies:", 3, 3),
    ] {
        let directory = documents(replaced, with);
        let (status, text) = run(directory.path(), &["diff", "old.yaml", "new.yaml"]);
        assert_eq!(status, Some(any), "{with}: {text}");
        let (status, text) = run(directory.path(), &["diff", "--fail-on", "granted", "old.yaml", "new.yaml"]);
        assert_eq!(status, Some(granted), "{with}: {text}");
    }
}

#[test]
fn a_change_has_its_rules_and_a_request_that_test_accepts() {
    let directory = documents("one, two", "one, two, three");
    let (_, text) = run(directory.path(), &["diff", "--format", "json", "old.yaml", "new.yaml"]);
    let difference: Value = serde_json::from_str(&text).unwrap();
    let [change] = difference["changes"].as_array().unwrap().as_slice() else { panic!("{difference}") };
    assert_eq!(change["change"], "granted");
    assert_eq!(change["callers"][0]["pattern"], "example.org/ns/a/sa/three");
    assert_eq!(change["because"], serde_json::json!([{"document": "new", "policy": "a/reads", "rule": 0}]));
    for (document, verdict) in [("old", "deny"), ("new", "allow")] {
        let table = serde_json::json!({"policy": format!("{document}.yaml"), "cases": [
            {"name": "example", "request": change["witness"], "expect": {"verdict": verdict}}
        ]});
        fs::write(directory.path().join("table.json"), table.to_string()).unwrap();
        let (status, text) = run(directory.path(), &["test", "table.json"]);
        assert_eq!(status, Some(0), "{text}");
    }
}

/// The caller of a request is in a header, and the proxy is one that the documents trust.
#[test]
fn a_request_through_a_proxy_has_its_header() {
    let xfcc =
        "identity: {from: xfcc, trustedProxies: [example.org/ns/a/sa/other, example.org/ns/a/sa/proxy]}\npolicies:";
    let directory = documents("policies:", xfcc);
    let old = OLD.replace("policies:", &xfcc.replace("other", "third")).replace("one, two", "one");
    fs::write(directory.path().join("old.yaml"), old).unwrap();
    let (status, text) = run(directory.path(), &["diff", "--format", "json", "old.yaml", "new.yaml"]);
    assert_eq!(status, Some(3), "{text}");
    let difference: Value = serde_json::from_str(&text).unwrap();
    let witness = &difference["changes"][0]["witness"];
    assert_eq!(witness["peer"], "spiffe://example.org/ns/a/sa/proxy");
    assert_eq!(witness["headers"]["x-forwarded-client-cert"], "URI=spiffe://example.org/ns/a/sa/two");
    assert_eq!(difference["unseen"], serde_json::json!(["identity.trustedProxies"]));
    // Without a common proxy, no request has the same caller in both.
    fs::write(directory.path().join("old.yaml"), OLD).unwrap();
    let (status, text) = run(directory.path(), &["diff", "old.yaml", "new.yaml"]);
    assert!(status == Some(1) && text.contains("no source of identities in common"), "{text}");
}

#[test]
fn a_header_with_several_lines_is_not_answered() {
    let directory = documents("one, two", "one");
    let (status, text) = run(directory.path(), &["who", "--header", "x: 1", "--header", "X: 2", "old.yaml"]);
    assert!(status == Some(1) && text.contains("`--header x` is repeated"), "{text}");
}

#[test]
fn sarif_logs_of_changes_are_valid() {
    let directory = documents("[/public/admin]", "[/other]");
    let (_, text) = run(directory.path(), &["diff", "--format", "sarif", "old.yaml", "new.yaml"]);
    let log: Value = serde_json::from_str(&text).unwrap();
    let schema: Value = serde_json::from_str(include_str!("sarif/sarif-2.1.0-rtm.5.json")).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(&log).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result["ruleId"] == "granted"), "{log}");
}

#[test]
fn markdown_has_a_row_for_each_change_and_no_text_of_a_policy_unescaped() {
    let directory = documents("paths: [/public/*]", "paths: [\"/public/*\", \"/a|b`*_<i>\"]");
    let (_, text) = run(directory.path(), &["diff", "--format", "markdown", "old.yaml", "new.yaml"]);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| granted |")).collect();
    assert_eq!(rows.len(), 1, "{text}");
    // Six cells, and no other vertical bar.
    assert_eq!(rows[0].matches('|').count(), 7, "{text}");
    assert!(!rows[0].contains("<i>") && rows[0].contains("&#60;i&#62;"), "{text}");
}

#[test]
fn a_question_that_is_not_decided_is_an_error() {
    let directory = documents(
        "    to: [{operation: {methods: [GET], paths: [/public/*]}}]",
        "    when: [{key: \"request.headers[:path]\", values: [/a]}]",
    );
    let (status, text) = run(directory.path(), &["diff", "old.yaml", "new.yaml"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.starts_with("error: old.yaml and new.yaml: not decided: a rule matches the header `:path`"), "{text}");
}

#[test]
fn authorization_policies_are_compared_for_one_workload() {
    let directory = tempfile::tempdir().unwrap();
    let policy = |app: &str, account: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {app}, namespace: a}}\nspec:\n  \
             selector: {{matchLabels: {{app: {app}}}}}\n  rules: [{{from: [{{source: {{principals: \
             [\"example.org/ns/a/sa/{account}\"]}}}}]}}]\n"
        )
    };
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
    write("old.yaml", [policy("web", "one"), policy("db", "one")].join("---\n"));
    write("new.yaml", [policy("web", "one"), policy("db", "two")].join("---\n"));
    let mesh = ["diff", "--trust-domain=example.org", "--namespace=a", "old.yaml", "new.yaml"];
    for (label, expected) in [("--label=app=web", 0), ("--label=app=db", 3)] {
        let (status, text) = run(directory.path(), &[&mesh[..], &[label]].concat());
        assert_eq!(status, Some(expected), "{label}: {text}");
    }
}

#[test]
fn a_document_with_scope_is_compared_for_one_workload() {
    let scoped = "scope: {rootNamespace: istio-system}\npolicies:";
    let selected = "name: no-admin\n  selector: {matchLabels: {app: web}}";
    let old = OLD.replace("policies:", scoped).replace("name: no-admin", selected);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("old.yaml"), &old).unwrap();
    fs::write(directory.path().join("new.yaml"), old.replace("/public/admin]", "/public/other]")).unwrap();
    for (app, expected) in [("web", 3), ("db", 0)] {
        let label = format!("--label=app={app}");
        let (status, text) = run(directory.path(), &["diff", "--namespace=a", &label, "old.yaml", "new.yaml"]);
        assert_eq!(status, Some(expected), "{app}: {text}");
    }
}

/// Without its policies, the answer would be that the workload allows everyone.
#[test]
fn a_document_without_the_policies_of_the_workload_is_an_error() {
    let scoped = "scope: {rootNamespace: istio-system, delegatedNamespaces: [shop]}\npolicies:";
    let directory = documents("", "");
    fs::write(directory.path().join("old.yaml"), OLD.replace("policies:", scoped)).unwrap();
    for command in [&["who"][..], &["explain", "--policy"], &["diff", "new.yaml"]] {
        let (status, text) = run(directory.path(), &[command, &["old.yaml", "--namespace=shop"]].concat());
        assert_eq!(status, Some(1), "{command:?}: {text}");
        let expected = "old.yaml:4:38: /scope/delegatedNamespaces: invalid-value: the policies of the workload are in another document";
        assert!(text.contains(expected), "{command:?}: {text}");
    }
    let (status, text) = run(directory.path(), &["who", "old.yaml", "--namespace=bank"]);
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn a_policy_with_dates_is_compared_at_a_time() {
    let directory = documents("  namespace: a\n  rules:", "  namespace: a\n  expires: 2030-01-01T00:00:00Z\n  rules:");
    for (time, expected) in [("2029-01-01T00:00:00Z", 0), ("2031-01-01T00:00:00Z", 3)] {
        let (status, text) = run(directory.path(), &["diff", "--at", time, "old.yaml", "new.yaml"]);
        assert_eq!(status, Some(expected), "{time}: {text}");
    }
}

#[test]
fn connections_are_compared_without_their_http_attributes() {
    let directory = documents("/public/*", "/other/*");
    for (layer, expected) in [("http", 3), ("tcp", 0)] {
        let (status, text) = run(directory.path(), &["diff", "--layer", layer, "old.yaml", "new.yaml"]);
        assert_eq!(status, Some(expected), "{layer}: {text}");
    }
}

#[test]
fn who_shows_the_callers_of_a_request_and_the_requests_of_a_caller() {
    let directory = documents("one, two", "one, two");
    let who = |arguments: &[&str]| {
        let (status, text) = run(directory.path(), &[&["who", "--format", "json"], arguments, &["old.yaml"]].concat());
        assert_eq!(status, Some(0), "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["permissions"].clone()
    };
    let patterns = |values: &Value| -> Vec<String> {
        values.as_array().unwrap().iter().map(|value| value["pattern"].as_str().unwrap().to_owned()).collect()
    };
    let callers = who(&["--path", "/public/a?query"]);
    assert_eq!(patterns(&callers[0]["callers"]), ["example.org/ns/a/sa/one", "example.org/ns/a/sa/two"]);
    assert_eq!(callers[0]["conditions"].as_array().unwrap().len(), 1, "{callers}");
    // The DENY policy matches, and another method does not.
    for options in [["--path", "/public/admin"], ["--method", "POST"], ["--peer", "spiffe://example.org/ns/b/sa/one"]] {
        assert_eq!(who(&options), serde_json::json!([]), "{options:?}");
    }
    let requests = who(&["--peer", "spiffe://example.org/ns/a/sa/one"]);
    assert_eq!(patterns(&requests[0]["callers"]), ["example.org/ns/a/sa/one"]);
    let path = &requests[0]["conditions"][1];
    assert_eq!((&path["attribute"], patterns(&path["values"])), (&"path".into(), vec!["/public/*".to_owned()]));
    assert_eq!(path["values"][0]["except"], serde_json::json!(["/public/admin"]));
}

const INVARIANTS: &str = "
invariants:
- name: nobody-administers
  never: {to: [{operation: {paths: [/public/admin]}}]}
- name: one-reads
  always:
    from: [{source: {principals: [example.org/ns/a/sa/one]}}]
    to: [{operation: {methods: [GET], paths: [/public/a, /public/b]}}]
";

#[test]
fn an_invariant_holds_or_has_a_counterexample() {
    for (replaced, with, failing) in [
        ("one, two", "one", None),
        ("one, two", "two", Some("one-reads")),
        ("[/public/admin]", "[/public/other]", Some("nobody-administers")),
    ] {
        let directory = documents(replaced, with);
        fs::write(directory.path().join("invariants.yaml"), INVARIANTS).unwrap();
        let prove = ["prove", "--invariants", "invariants.yaml", "new.yaml"];
        let (status, text) = run(directory.path(), &prove);
        assert_eq!(status, Some(if failing.is_some() { 3 } else { 0 }), "{text}");
        let fails: Vec<&str> = text.lines().filter(|line| line.contains(": fails: ")).collect();
        assert_eq!(fails.len(), usize::from(failing.is_some()), "{text}");
        if let Some(failing) = failing {
            assert!(fails[0].contains(failing), "{text}");
        }
        let (_, text) = run(directory.path(), &[&prove[..], &["--format", "junit"]].concat());
        assert_eq!(text.matches("<failure ").count(), usize::from(failing.is_some()), "{text}");
        let (_, text) = run(directory.path(), &[&prove[..], &["--format", "sarif"]].concat());
        let log: Value = serde_json::from_str(&text).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(
            results.iter().map(|result| result["ruleId"].as_str()).collect::<Vec<_>>(),
            Vec::from_iter(failing.map(Some))
        );
    }
}

#[test]
fn a_mistake_in_a_file_of_invariants_has_its_place() {
    let directory = documents("one, two", "one, two");
    for (text, message) in [
        ("- name: a\n", "i.yaml:1:1: expected a list `invariants`"),
        ("invariants: []\n", "i.yaml:1:1: expected a list `invariants`"),
        ("invariants:\n- name: a\n", "i.yaml:2:3: expected either `never` or `always`"),
        ("invariants:\n- name: a\n  never: {}\n  always: {}\n", "i.yaml:2:3: expected either `never` or `always`"),
        (
            "invariants:\n- name: a\n  nevr: {}\n  always: {}\n",
            "i.yaml:3:3: unknown field `nevr` (did you mean `never`?)",
        ),
        (
            "invariants:\n- name: a\n  never: {to: [{operation: {pths: [/a]}}]}\n",
            "i.yaml:3:29: /invariants/0/never/to/0/operation/pths: unknown-field: unknown field `pths` (did you mean `paths`?)",
        ),
    ] {
        fs::write(directory.path().join("i.yaml"), text).unwrap();
        let (status, found) = run(directory.path(), &["prove", "--invariants", "i.yaml", "old.yaml"]);
        assert_eq!(status, Some(1), "{found}");
        assert!(found.contains(message), "{found}");
    }
}

/// A demand about a caller that no one accepts would hold for nothing.
#[test]
fn a_demand_that_no_request_meets_is_not_decided() {
    let directory = documents("one, two", "one, two");
    let invariants = "invariants:\n- name: a\n  always: {from: [{source: {principals: [example.net/ns/a/sa/b]}}]}\n";
    fs::write(directory.path().join("i.yaml"), invariants).unwrap();
    let (status, text) = run(directory.path(), &["prove", "--invariants", "i.yaml", "old.yaml"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("old.yaml: a: not decided\n  no request of an accepted caller matches the rule\n"), "{text}");
}

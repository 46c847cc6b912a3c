//! `prune`, as a user runs it: the rules that it reports are those that no request matches.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// The outcome of a command.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn run(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { status: output.status.code(), out, err }
}

const DOCUMENT: &str = "trustDomain: example.org
policies:
- name: reads
  namespace: a
  rules:
  - from: [{source: {serviceAccounts: [one]}}]
    to: [{operation: {methods: [GET]}}]
  - from: [{source: {serviceAccounts: [two]}}]
  - from: [{source: {serviceAccounts: [one]}}]
    when: [{key: 'request.headers[x-role]', values: [admin]}]
- name: no-admin
  namespace: a
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
- name: watched
  namespace: a
  action: AUDIT
  rules: [{to: [{operation: {paths: [/watched]}}]}]
- name: trial
  namespace: a
  mode: shadow
  rules:
  - to: [{operation: {paths: [/trial]}}]
";

fn line(account: &str, method: &str, path: &str, decision: &str) -> String {
    let peer = format!("spiffe://example.org/ns/a/sa/{account}");
    json!({"peer": peer, "method": method, "path": path, "decision": decision}).to_string()
}

/// Runs `prune` on a document and lines.
fn prune(document: &str, lines: &[String], options: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policy.yaml"), document).unwrap();
    fs::write(directory.path().join("access.log"), lines.join("\n")).unwrap();
    let ran = run(directory.path(), &[&["prune", "policy.yaml", "access.log"], options].concat());
    assert_eq!(fs::read_to_string(directory.path().join("policy.yaml")).unwrap(), document, "the file is not changed");
    ran
}

/// Returns the policy, the rule, the usage and the number of requests that match each rule.
fn usage(document: &str, lines: &[String]) -> Vec<(String, u64, String, u64)> {
    let Ran { out, err, .. } = prune(document, lines, &["--format=json"]);
    let pruned: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    let rules = pruned["rules"].as_array().unwrap().iter().map(|rule| {
        let text = |name: &str| rule[name].as_str().unwrap().to_owned();
        (text("policy"), rule["rule"].as_u64().unwrap(), text("usage"), rule["matched"].as_u64().unwrap())
    });
    rules.collect()
}

#[test]
fn each_rule_has_its_place_and_its_usage() {
    let lines = [
        line("one", "GET", "/", "allow"),
        line("one", "GET", "/trial", "allow"),
        line("one", "POST", "/", "deny no-policy-allows"),
        "something else".to_owned(),
    ];
    let Ran { status, out, err } = prune(DOCUMENT, &lines, &[]);
    assert_eq!(status, Some(3), "{err}");
    assert_eq!(
        out,
        "policy.yaml:8:5: unused: ALLOW a/reads, rule 1
policy.yaml:9:5: not decided: ALLOW a/reads, rule 2 (3 requests can match, depending on attributes that the log lacks)
policy.yaml:14:11: no match: DENY a/no-admin, rule 0 (it can be for requests that must not occur)
policy.yaml:18:11: no match: AUDIT a/watched, rule 0 (it can be for requests that must not occur)
6 rules: 2 used, 1 unused, 2 without a match, 1 not decided; 3 requests; 1 line not understood
"
    );
}

#[test]
fn only_an_unused_allow_rule_is_a_finding() {
    let all = ["one", "two"].map(|account| line(account, "GET", "/trial", "allow"));
    assert_eq!(prune(DOCUMENT, &all, &[]).status, Some(0));
    assert_eq!(prune(DOCUMENT, &all[..1], &[]).status, Some(3));
    // A shadow ALLOW rule is one that can be removed, too.
    let untried = ["one", "two"].map(|account| line(account, "GET", "/", "allow"));
    let Ran { status, out, .. } = prune(DOCUMENT, &untried, &[]);
    assert_eq!(status, Some(3));
    assert!(out.contains("unused: shadow ALLOW a/trial, rule 0\n"), "{out}");
}

/// Requests that were denied, matches of DENY and AUDIT rules, and a rule after one that decides.
#[test]
fn a_rule_is_used_if_it_matches_whatever_decides() {
    let lines = [
        line("two", "GET", "/admin", "deny denied-by-policy a/no-admin 0"),
        line("one", "GET", "/watched", "allow"),
        line("one", "GET", "/admin", "deny denied-by-policy a/no-admin 0"),
    ];
    let found = usage(DOCUMENT, &lines);
    let used: Vec<(&str, u64, u64)> = found
        .iter()
        .filter(|(.., usage, _)| usage == "used")
        .map(|(policy, rule, _, matched)| (&**policy, *rule, *matched))
        .collect();
    assert_eq!(used, [("a/reads", 0, 2), ("a/reads", 1, 1), ("a/no-admin", 0, 2), ("a/watched", 0, 1)]);
}

#[test]
fn a_caller_without_an_accepted_identity_uses_no_rule() {
    let document = "trustDomain: example.org\npolicies: [{name: all, rules: [{}]}]\n";
    let foreign = json!({"peer": "spiffe://example.net/ns/a/sa/b", "method": "GET", "path": "/", "decision": "allow"});
    let unknown =
        json!({"peer": null, "method": "GET", "path": "/", "decision": "deny foreign-trust-domain"}).to_string();
    let lines = [foreign.to_string(), unknown];
    let Ran { status, out, .. } = prune(document, &lines, &[]);
    assert_eq!(status, Some(3), "{out}");
    assert!(out.ends_with("1 rule: 1 unused; 2 requests; 2 of callers without an accepted identity\n"), "{out}");
}

#[test]
fn connections_use_the_rules_of_tcp() {
    let connection = json!({
        "peer": "spiffe://example.org/ns/a/sa/two", "received": 1, "sent": 1, "port": 5432, "decision": "allow"
    });
    let found = usage(DOCUMENT, &[connection.to_string()]);
    let of = |policy: &str, rule: u64| {
        found.iter().find(|found| found.0 == policy && found.1 == rule).map(|found| &*found.2).unwrap()
    };
    // An ALLOW rule with HTTP attributes is skipped, and a DENY rule ignores them.
    assert_eq!([of("a/reads", 0), of("a/reads", 1)], ["unused", "used"]);
    assert_eq!(of("a/no-admin", 0), "used");
    let lines = [connection.to_string(), line("one", "GET", "/", "allow")];
    let Ran { out, .. } = prune(DOCUMENT, &lines, &[]);
    assert!(out.contains("; 1 request and 1 connection"), "{out}");
}

#[test]
fn a_policy_with_dates_is_evaluated_at_the_time_of_the_line() {
    let document = "trustDomain: example.org
policies:
- {name: past, expires: '2026-01-01T00:00:00Z', rules: [{}]}
- {name: now, notBefore: '2026-01-01T00:00:00Z', rules: [{}]}
";
    let dated = |time: &str| {
        let line = line("one", "GET", "/", "allow");
        format!("{{\"time\":\"{time}\",{}", line.strip_prefix('{').unwrap())
    };
    for (lines, expected) in [
        (vec![dated("2025-12-31T23:59:59.9Z")], ["used", "unused"]),
        (vec![dated("2026-01-01T00:00:00Z")], ["unused", "used"]),
        (vec![line("one", "GET", "/", "allow")], ["unused", "used"]),
    ] {
        let found: Vec<String> = usage(document, &lines).into_iter().map(|(.., usage, _)| usage).collect();
        assert_eq!(found, expected, "{lines:?}");
    }
    let lines = [dated("2026-02-01T00:00:00Z"), dated("2026-01-02T00:00:00+01:00"), line("one", "GET", "/", "allow")];
    let Ran { out, .. } = prune(document, &lines, &[]);
    let expected = "; 3 requests; from 2026-01-01T23:00:00Z to 2026-02-01T00:00:00Z (1 without a time)\n";
    assert!(out.ends_with(expected), "{out}");
}

#[test]
fn a_log_without_a_request_is_an_error() {
    for lines in [&[][..], &["something else".to_owned()]] {
        let Ran { status, out, err } = prune(DOCUMENT, lines, &[]);
        assert_eq!((status, &*out), (Some(1), ""));
        assert!(err.starts_with("error: access.log: no request: "), "{err}");
    }
    // The results of the other logs are shown.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policy.yaml"), DOCUMENT).unwrap();
    fs::write(directory.path().join("access.log"), line("one", "GET", "/", "allow")).unwrap();
    let Ran { status, out, err } = run(directory.path(), &["prune", "policy.yaml", "missing.log", "access.log"]);
    assert_eq!(status, Some(1));
    assert!(out.contains("1 request") && err.starts_with("error: missing.log: "), "{out}{err}");
}

#[test]
fn authorization_policies_have_no_place() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\nspec: {rules: [{to: [{operation: {methods: [PUT]}}]}]}\n";
    let options = ["--trust-domain=example.org", "--namespace=a"];
    let Ran { status, out, err } = prune(policy, &[line("one", "GET", "/", "allow")], &options);
    assert_eq!(status, Some(3), "{err}");
    assert!(out.starts_with("unused: ALLOW a/p, rule 0\n"), "{out}");
}

/// `test --coverage` finds the same rules with the same requests.
#[test]
fn the_rules_are_those_of_the_coverage_of_a_table() {
    let requests: Vec<(&str, &str, &str)> = ["one", "two", "three"]
        .iter()
        .flat_map(|account| ["GET", "POST"].iter().map(move |method| (*account, *method)))
        .flat_map(|(account, method)| ["/", "/admin", "/watched", "/trial"].map(|path| (account, method, path)))
        .collect();
    // Without the rule that needs a header, which a log lacks.
    let (before, after) = DOCUMENT.split_once("  - from: [{source: {serviceAccounts: [one]}}]\n    when:").unwrap();
    let document = format!("{before}{}", after.split_once('\n').unwrap().1);
    for step in [1, 2, 3, 5, 7, 11] {
        let some: Vec<_> = requests.iter().step_by(step).collect();
        let lines: Vec<String> =
            some.iter().map(|(account, method, path)| line(account, method, path, "allow")).collect();
        let mut unmatched: Vec<(String, u64)> = usage(&document, &lines)
            .into_iter()
            .filter(|(.., matched)| *matched == 0)
            .map(|(policy, rule, ..)| (policy, rule))
            .collect();
        let cases: Vec<Value> = some
            .iter()
            .enumerate()
            .map(|(number, (account, method, path))| {
                let peer = format!("spiffe://example.org/ns/a/sa/{account}");
                let request = json!({"peer": peer, "method": method, "path": path});
                json!({"name": number.to_string(), "request": request, "expect": {"verdict": "allow"}})
            })
            .collect();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("policy.yaml"), &document).unwrap();
        let table = json!({"policy": "policy.yaml", "cases": cases});
        fs::write(directory.path().join("table.json"), table.to_string()).unwrap();
        let Ran { out, err, .. } = run(directory.path(), &["test", "--coverage", "--format=json", "table.json"]);
        let result: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
        let missing = result["coverage"]["notMatched"].as_array().unwrap().iter();
        let mut missing: Vec<(String, u64)> =
            missing.map(|rule| (rule["policy"].as_str().unwrap().to_owned(), rule["rule"].as_u64().unwrap())).collect();
        unmatched.sort_unstable();
        missing.sort_unstable();
        assert_eq!(unmatched, missing, "step {step}");
    }
}

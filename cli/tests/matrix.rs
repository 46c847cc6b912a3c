//! `matrix`, as a user runs it. Each answer is compared with the decisions of the filter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::{PolicySet, Proxy, Workload};
use spiffe_authz::timestamp::Timestamp;
use tempfile::TempDir;

const MESH: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: a}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: ["example.org/ns/a/sa/one"]}}]
    to: [{operation: {methods: [GET]}}]
  - from: [{source: {principals: ["example.io/ns/b/sa/*"]}}]
    to: [{operation: {methods: [GET], paths: ["/public/*"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: version, namespace: a}
spec:
  selector: {matchLabels: {version: v2}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/public/*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway, namespace: a}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: writes, namespace: b}
spec:
  rules:
  - from: [{source: {namespaces: [a]}}]
    to: [{operation: {methods: [POST]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: istio-system}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: waypoints, namespace: istio-system}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]
  rules: [{from: [{source: {trustDomains: [example.org]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tools, namespace: istio-system}
spec:
  selector: {matchLabels: {tool: "true"}}
  rules: [{from: [{source: {principals: ["example.org/ns/c/sa/tool"]}}]}]
"#;
const OPTIONS: [&str; 2] = ["--trust-domain=example.org", "--federated-trust-domain=example.io"];
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Returns a directory with a file.
fn directory(file: &str, text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(file), text).unwrap();
    directory
}

/// Returns the status, standard output and standard error.
fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.arg("matrix").args(arguments).current_dir(directory).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Returns the matrix of AuthorizationPolicies in a format.
fn of_mesh(policies: &str, format: &str) -> (Option<i32>, String) {
    let directory = directory("mesh.yaml", policies);
    let (status, out, err) = run(directory.path(), &[&OPTIONS[..], &["--format", format, "mesh.yaml"]].concat());
    (status, out + &err)
}

/// Returns the workloads of a matrix in JSON.
fn workloads(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn names(workloads: &[Value]) -> Vec<&str> {
    workloads.iter().map(|workload| workload["workload"].as_str().unwrap()).collect()
}

/// Returns `true` if a pattern of the answers of [`MESH`] matches a value.
fn matches(pattern: &str, value: &str) -> bool {
    if pattern.starts_with("any") {
        return true;
    }
    // `A and B` means both.
    pattern.split(" and ").all(|pattern| match pattern.split_once('*') {
        Some((start, end)) => {
            value.len() >= start.len() + end.len() && value.starts_with(start) && value.ends_with(end)
        }
        None => value == pattern,
    })
}

fn is_in(patterns: &Value, value: &str) -> bool {
    patterns.as_array().unwrap().iter().any(|pattern| {
        let excepts = pattern["except"].as_array().unwrap();
        let is_excepted =
            excepts.iter().any(|except| matches(except.as_str().unwrap().trim_matches(['(', ')']), value));
        matches(pattern["pattern"].as_str().unwrap(), value) && !is_excepted
    })
}

/// Returns `true` if a permission contains the request of a caller.
fn allows(permission: &Value, request: &CaseRequest) -> bool {
    let caller = request.peer.as_ref().unwrap().strip_prefix("spiffe://").unwrap();
    is_in(&permission["callers"], caller)
        && permission["conditions"].as_array().unwrap().iter().all(|condition| {
            let value = match condition["attribute"].as_str().unwrap() {
                "method" => &request.method,
                "path" => &request.path,
                other => panic!("{other}"),
            };
            is_in(&condition["values"], value)
        })
}

/// Returns the requests of callers in each trust domain.
fn requests() -> Vec<CaseRequest> {
    let mut requests = Vec::new();
    for caller in [
        "example.org/ns/a/sa/one",
        "example.org/ns/a/sa/two",
        "example.org/ns/b/sa/one",
        "example.org/ns/c/sa/tool",
        "example.io/ns/a/sa/one",
        "example.io/ns/b/sa/one",
    ] {
        for method in ["GET", "POST", "PUT"] {
            for path in ["/", "/admin", "/admin/", "/public", "/public/", "/public/a"] {
                requests.push(CaseRequest {
                    peer: Some(format!("spiffe://{caller}")),
                    method: method.to_owned(),
                    path: path.to_owned(),
                    ..CaseRequest::default()
                });
            }
        }
    }
    requests
}

/// Every proxy that a workload of the matrix stands for, with the name of the workload.
fn proxies() -> Vec<(&'static str, Workload)> {
    let proxy = |namespace: &str, labels: &[(&str, &str)], is_waypoint| Workload {
        namespace: namespace.to_owned(),
        labels: Some(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()),
        is_waypoint,
    };
    let (web, v2, tool, public) = (("app", "web"), ("version", "v2"), ("tool", "true"), (GATEWAY_NAME, "public"));
    vec![
        ("a: app=web", proxy("a", &[web, ("other", "label")], false)),
        ("a: version=v2", proxy("a", &[v2, ("app", "db")], false)),
        ("a: app=web, version=v2", proxy("a", &[web, v2], false)),
        ("a: tool=true", proxy("a", &[tool], false)),
        ("a: app=web, tool=true", proxy("a", &[web, tool], false)),
        ("a: app=web, tool=true, version=v2", proxy("a", &[web, tool, v2], false)),
        ("a: tool=true, version=v2", proxy("a", &[tool, v2], false)),
        ("a: other workloads", proxy("a", &[("version", "v1")], false)),
        ("a: other workloads", proxy("a", &[(GATEWAY_NAME, "private")], false)),
        ("a: Gateway/public (gateway)", proxy("a", &[public], false)),
        ("a: Gateway/public (waypoint)", proxy("a", &[public], true)),
        ("a: Gateway/public (waypoint)", proxy("a", &[public, web], true)),
        ("a: Gateway/public (gateway), app=web", proxy("a", &[public, web], false)),
        ("b: other workloads", proxy("b", &[web, v2], false)),
        ("b: tool=true", proxy("b", &[tool], false)),
        ("other namespaces: other workloads", proxy("c", &[web], false)),
        ("other namespaces: other workloads", proxy("istio-system", &[v2], false)),
        ("other namespaces: tool=true", proxy("c", &[tool], false)),
        ("every namespace: other waypoints", proxy("c", &[(GATEWAY_NAME, "public")], true)),
        ("every namespace: other waypoints", proxy("a", &[(GATEWAY_NAME, "private")], true)),
    ]
}

/// Returns the document of every policy, which each filter of a mesh has.
fn document(directory: &Path) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.arg("import").arg("--all").args(OPTIONS).arg("mesh.yaml").current_dir(directory).output();
    output.unwrap().stdout
}

#[test]
fn every_request_at_every_workload_is_decided_as_by_the_filter() {
    let directory = directory("mesh.yaml", MESH);
    let (status, text, _) = run(directory.path(), &[&OPTIONS[..], &["--format", "json", "mesh.yaml"]].concat());
    assert_eq!(status, Some(0), "{text}");
    let found = workloads(&text);
    let document = document(directory.path());
    let now = Timestamp::from_seconds(1_700_000_000);
    let (mut compared, mut allowed) = (0, 0);
    let mut used = BTreeSet::new();
    for (name, proxy) in proxies() {
        let policies = PolicySet::from_json_for(&document, Proxy::Of(&proxy)).unwrap();
        let [workload] = &*found.iter().filter(|workload| workload["workload"] == name).collect::<Vec<_>>() else {
            panic!("{name} in {:?}", names(&found));
        };
        used.insert(name);
        for request in requests() {
            let permissions = workload["permissions"].as_array().unwrap();
            let is_allowed = request.decide(&policies, now).decision.verdict == Verdict::Allow;
            let is_found = permissions.iter().any(|permission| allows(permission, &request));
            assert_eq!(is_found, is_allowed, "{name}: {request:?}\n{workload:#}");
            compared += 1;
            allowed += u32::from(is_allowed);
        }
    }
    assert!(compared > 2_000 && allowed > 300, "{compared} {allowed}");
    // The rest are the combinations with the gateway.
    let others: Vec<&str> = names(&found).into_iter().filter(|name| !used.contains(name)).collect();
    assert!(others.iter().all(|name| name.starts_with("a: Gateway/public (gateway), ")), "{others:?}");
    assert_eq!(names(&found).iter().collect::<BTreeSet<_>>().len(), found.len());
}

#[test]
fn a_gateway_and_a_waypoint_with_the_same_policies_are_one_workload() {
    let (_, gateway) = MESH.split_once("name: gateway").unwrap();
    let gateway = gateway.split("---").next().unwrap();
    let policy =
        format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: gateway{gateway}");
    let (status, text) = of_mesh(&policy, "json");
    assert_eq!(status, Some(0), "{text}");
    let found = workloads(&text);
    assert_eq!(
        names(&found),
        ["a: Gateway/public (gateway or waypoint)", "a: other workloads", "other namespaces: other workloads"]
    );
    // A workload without policies is open, and the matrix says so.
    assert_eq!(found[1]["permissions"][0]["everyCaller"], true);
    assert_eq!(found[1]["permissions"][0]["policy"], Value::Null);
    let (_, text) = of_mesh(&policy, "human");
    assert!(text.contains("a: other workloads\n  note: no policy applies\n"), "{text}");
}

#[test]
fn documents_are_workloads() {
    let rules = "rules: [{from: [{source: {serviceAccounts: [one]}}]}]";
    let document = format!("trustDomain: example.org\npolicies: [{{name: p, namespace: a, {rules}}}]\n");
    let selected = format!(
        "trustDomain: example.org\nscope: {{rootNamespace: istio-system}}\npolicies:\n- {{name: p, namespace: a, selector: \
         {{matchLabels: {{app: web}}}}, {rules}}}\n"
    );
    let named = selected.replace("istio-system}", "istio-system, workload: {namespace: a, labels: {app: db}}}");
    let directory = directory("one.yaml", &document);
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("two.yaml", &format!("{document}---\n{document}"));
    write("scoped.yaml", &selected);
    write("named.yaml", &named);
    write("mesh.yaml", MESH.split("---").next().unwrap());
    let files = ["one.yaml", "two.yaml", "scoped.yaml", "named.yaml", "mesh.yaml"];
    let (status, text, error) = run(directory.path(), &[&OPTIONS[..], &["--format", "json"], &files].concat());
    assert_eq!(status, Some(0), "{text}{error}");
    let found = workloads(&text);
    assert_eq!(
        names(&found),
        [
            "one.yaml",
            "two.yaml:1:1",
            "two.yaml:4:1",
            "scoped.yaml: a: app=web",
            "scoped.yaml: a: other workloads",
            "scoped.yaml: other namespaces: other workloads",
            "named.yaml",
            "a: app=web",
            "a: other workloads",
            "other namespaces: other workloads",
        ]
    );
    // No policy applies to the workload that the document names.
    assert_eq!((&found[6]["labels"], &found[6]["permissions"][0]["policy"]), (&json!({"app": "db"}), &Value::Null));
    let (status, text, error) = run(directory.path(), &[&OPTIONS[..], &["missing.yaml"]].concat());
    assert_eq!((status, &*text), (Some(1), ""), "{error}");
}

#[test]
fn what_is_not_decided_is_listed_and_a_problem() {
    let policies =
        MESH.replace("to: [{operation: {methods: [POST]}}]", "when: [{key: \"request.headers[:path]\", values: [/a]}]");
    for format in ["human", "json", "csv", "markdown", "mermaid", "html"] {
        let (status, text) = of_mesh(&policies, format);
        assert_eq!(status, Some(1), "{format}");
        assert!(text.contains("b") && text.contains("not decided") || text.contains("notDecided\":\"a rule"), "{text}");
        assert!(text.contains("app=web"), "{format}: the other workloads are listed: {text}");
    }
    let many: Vec<String> = (0..12)
        .map(|number| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: a}}\nspec: \
                 {{selector: {{matchLabels: {{l{number}: x}}}}}}\n"
            )
        })
        .collect();
    let (status, text) = of_mesh(&many.join("---\n"), "json");
    assert_eq!(status, Some(1), "{text}");
    let found = workloads(&text);
    assert_eq!(found.len(), 15, "{:?}", names(&found));
    assert!(names(&found).contains(&"a: workloads that several selectors choose"), "{:?}", names(&found));
}

#[test]
fn a_policy_that_cannot_be_read_is_an_error() {
    for (what, expected) in [
        (MESH.replace("methods: [POST]", "method: [POST]"), "unknown field `method`"),
        (MESH.replace("action: DENY", "action: CUSTOM"), "`action: CUSTOM` is not supported"),
        (
            MESH.replace("kind: Gateway, name: public", "kind: Service, name: web")
                .replace("gateway.networking.k8s.io", "\"\""),
            "error",
        ),
    ] {
        for format in ["human", "html"] {
            let (status, text) = of_mesh(&what, format);
            assert!(status == Some(1) && text.starts_with("error: ") && text.contains(expected), "{text}");
        }
    }
    let directory = directory("mesh.yaml", MESH);
    let (status, _, error) = run(directory.path(), &["mesh.yaml"]);
    assert!(status == Some(1) && error.contains("--trust-domain"), "{error}");
}

#[test]
fn callers_outside_the_local_trust_domain_stand_out() {
    let (_, text) = of_mesh(MESH, "human");
    assert!(text.contains("  federated   example.io/ns/b/sa/*\n"), "{text}");
    assert!(text.ends_with(" permissions\n"), "{text}");
    let (_, text) = of_mesh(MESH, "markdown");
    assert!(text.contains("</code> | **federated** | "), "{text}");
    let (_, text) = of_mesh(MESH, "mermaid");
    assert!(text.contains("<br/>(federated)\"]:::federated\n") && text.contains("]:::everyone\n"), "{text}");
    let (_, text) = of_mesh(MESH, "html");
    assert!(text.contains("<span class=\"kind federated\">federated</span>"), "{text}");
}

/// A document whose values have the markup of every format.
const HOSTILE: &str = r#"{"trustDomain": "example.org", "identity": {"peer": "optional"}, "policies": [
  {"name": "all", "rules": [
    {"to": [{"operation": {"paths": ["/</script><img/src=x/onerror=alert(1)>", "/a|b`*_[c](d)", "/\u202e\"'&lt"]}}]}
  ]},
  {"name": "long", "rules": [{"when": [{"key": "request.headers[x-a]", "values": ["=cmd|' /C calc'!A0", "</style>,\"x"]}]}]}
]}"#;

fn hostile(format: &str) -> String {
    let directory = directory("=hostile<b>.json", HOSTILE);
    let (status, out, err) = run(directory.path(), &["--format", format, "=hostile<b>.json"]);
    assert_eq!(status, Some(0), "{out}{err}");
    let is_hostile =
        |character: char| character.is_control() && !matches!(character, '\n' | '\r') || character == '\u{202e}';
    assert!(!out.contains(is_hostile), "{out}");
    out
}

/// Parses comma-separated values whose cells are all in quotes, as RFC 4180 describes them.
fn records(text: &str) -> Vec<Vec<String>> {
    let mut records = Vec::new();
    for line in text.split_terminator("\r\n") {
        let (mut cells, mut cell) = (Vec::new(), String::new());
        let mut rest = line.strip_prefix('"').unwrap();
        while let Some((before, after)) = rest.split_once('"') {
            cell.push_str(before);
            if let Some(after) = after.strip_prefix('"') {
                cell.push('"');
                rest = after;
                continue;
            }
            cells.push(std::mem::take(&mut cell));
            rest = after.strip_prefix(",\"").unwrap_or(after);
        }
        assert_eq!(rest, "", "{line}");
        records.push(cells);
    }
    records
}

#[test]
fn values_are_not_markup() {
    let html = hostile("html");
    assert!(html.contains("&lt;/script&gt;&lt;img/src=x/onerror=alert(1)&gt;"), "{html}");
    assert_eq!(html.matches("</script>").count(), 1);
    assert_eq!(html.matches("</style>").count(), 1);
    let csv = hostile("csv");
    let rows = records(&csv);
    assert!(rows.len() > 2 && rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{csv}");
    assert!(rows.iter().skip(1).all(|row| row[0] == "'=hostile<b>.json"), "{csv}");
    let markdown = hostile("markdown");
    for row in markdown.lines().filter(|line| line.starts_with("| <code>")) {
        assert_eq!(row.matches('|').count(), 6, "{row}");
        assert!(!row.contains("<i") && !row.contains('`'), "{row}");
    }
    let mermaid = hostile("mermaid");
    let is_line = |line: &str| {
        ["flowchart LR", "  c", "  w", "  classDef "].iter().any(|start| line.starts_with(start))
            && line.matches('"').count().is_multiple_of(2)
            && !line.contains("<i")
    };
    assert!(mermaid.lines().all(is_line), "{mermaid}");
}

#[test]
fn connections_have_a_matrix_too() {
    let (status, text) = {
        let directory = directory("mesh.yaml", MESH);
        let (status, out, err) =
            run(directory.path(), &[&OPTIONS[..], &["--layer", "tcp", "--format", "json", "mesh.yaml"]].concat());
        (status, out + &err)
    };
    assert_eq!(status, Some(0), "{text}");
    // An ALLOW rule with a method allows no connection, and a DENY rule with a path denies every one.
    let found = workloads(&text);
    let open: Vec<&str> = names(&found)
        .into_iter()
        .zip(&found)
        .filter(|(_, workload)| workload["permissions"] != json!([]))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(open, ["a: Gateway/public (waypoint)", "every namespace: other waypoints"], "{text}");
    for permission in found.iter().flat_map(|workload| workload["permissions"].as_array().unwrap()) {
        assert!(permission["witness"].get("method").is_none(), "{permission}");
    }
}

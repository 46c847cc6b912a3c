//! `matrix`, as a user runs it. Each answer is compared with the decisions of the filter.

use std::collections::{BTreeMap, BTreeSet};
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

/// Returns `true` if a pattern of the answers matches a value. `A and B` means both.
fn matches(pattern: &str, value: &str) -> bool {
    fn has_form(pattern: &str, value: &str) -> bool {
        match pattern.split_once('*') {
            Some((start, rest)) => value
                .strip_prefix(start)
                .is_some_and(|value| (0..=value.len()).any(|taken| has_form(rest, &value[taken..]))),
            None => value == pattern,
        }
    }
    pattern.starts_with("any") || pattern.split(" and ").all(|pattern| has_form(pattern, value))
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

/// A generator of numbers, which a seed determines (SplitMix64).
struct Random(u64);

impl Random {
    fn of<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let count = u64::try_from(choices.len()).unwrap();
        &choices[usize::try_from((mixed ^ (mixed >> 31)) % count).unwrap()]
    }
}

type Labels = BTreeMap<String, String>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A random policy with what chooses its workloads.
struct Policy {
    namespace: &'static str,
    /// The selector, or the label of the Gateway.
    choice: Labels,
    /// Whether the policy is for the GatewayClass of waypoints.
    is_of_class: bool,
    text: String,
}

fn policy(random: &mut Random, number: usize) -> Policy {
    let namespace = *random.of(&["x", "y", "istio-system"]);
    let selectors: [&[(&str, &str)]; 5] = [&[], &[("a", "1")], &[("a", "2")], &[("b", "1")], &[("a", "1"), ("b", "1")]];
    let mut choice = labels(random.of::<&[(&str, &str)]>(&selectors));
    let is_of_class = namespace == "istio-system" && *random.of(&[true, false, false]);
    let is_of_gateway = !is_of_class && *random.of(&[true, false, false, false]);
    let reference =
        |kind: &str, name: &str| json!([{"group": "gateway.networking.k8s.io", "kind": kind, "name": name}]);
    let mut spec = json!({"action": random.of(&["ALLOW", "ALLOW", "DENY"])});
    if is_of_class {
        choice.clear();
        spec["targetRefs"] = reference("GatewayClass", "istio-waypoint");
    } else if is_of_gateway {
        choice = labels(&[(GATEWAY_NAME, "g")]);
        spec["targetRefs"] = reference("Gateway", "g");
    } else if !choice.is_empty() {
        spec["selector"] = json!({"matchLabels": choice});
    }
    let principal = random.of(&["example.org/ns/a/sa/one", "example.org/ns/a/*", "example.io/*", "*"]);
    let method = random.of(&["GET", "POST", "*"]);
    let path = random.of(&["/admin", "/public/*", "*"]);
    spec["rules"] = json!([{
        "from": [{"source": {"principals": [principal]}}],
        "to": [{"operation": {"methods": [method], "paths": [path]}}],
    }]);
    let metadata = json!({"name": format!("p{number}"), "namespace": namespace});
    let resource = json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec});
    Policy { namespace, choice, is_of_class, text: resource.to_string() }
}

/// Returns the entry of a proxy as docs/review.md describes it, or `None` for a waypoint that is not listed.
fn entry_of<'w>(found: &'w [Value], policies: &[Policy], proxy: &Workload) -> Option<&'w Value> {
    let own = labels(&proxy.labels.as_ref().unwrap().iter().map(|(a, b)| (&**a, &**b)).collect::<Vec<_>>());
    let namespace = &*proxy.namespace;
    let is_gateway = |policy: &&Policy| policy.choice.contains_key(GATEWAY_NAME);
    let of_namespace = || policies.iter().filter(move |policy| policy.namespace == namespace);
    let is_listed = if namespace == "istio-system" {
        of_namespace().any(|policy| is_gateway(&policy))
    } else {
        of_namespace().next().is_some()
    };
    let has_gateway =
        own.get(GATEWAY_NAME).is_some_and(|name| name == "g") && of_namespace().any(|policy| is_gateway(&policy));
    if proxy.is_waypoint && !has_gateway {
        let class = policies.iter().any(|policy| policy.is_of_class);
        let is_other = |entry: &&Value| entry["proxy"] == "waypoint" && entry["gateway"].is_null();
        return class.then(|| found.iter().find(is_other).unwrap());
    }
    let chosen = policies.iter().filter(|policy| {
        let is_near = policy.namespace == namespace || (policy.namespace == "istio-system" && !is_gateway(policy));
        is_near && policy.choice.iter().all(|(name, value)| own.get(name) == Some(value))
    });
    let mut union: Labels = chosen.flat_map(|policy| policy.choice.clone()).collect();
    union.remove(GATEWAY_NAME);
    if proxy.is_waypoint {
        union.clear();
    }
    let kinds: &[&str] = match (proxy.is_waypoint, has_gateway) {
        (true, _) => &["waypoint", "gateway or waypoint"],
        (false, true) => &["gateway", "gateway or waypoint"],
        (false, false) => &["workload"],
    };
    let entry = found.iter().find(|entry| {
        entry["namespace"] == json!(is_listed.then_some(namespace))
            && entry["labels"] == json!(union)
            && entry["gateway"] == json!(has_gateway.then_some("g"))
            && kinds.contains(&entry["proxy"].as_str().unwrap())
    });
    Some(entry.unwrap_or_else(|| panic!("{proxy:?}: {union:?} in {:?}", names(found))))
}

#[test]
fn every_proxy_of_a_random_mesh_has_an_entry_that_is_right() {
    let now = Timestamp::from_seconds(1_700_000_000);
    let (mut compared, mut allowed) = (0_u64, 0_u64);
    for round in 0..12 {
        let mut random = Random(round);
        let policies: Vec<Policy> = (0..8).map(|number| policy(&mut random, number)).collect();
        let text = policies.iter().map(|policy| &*policy.text).collect::<Vec<_>>().join("\n");
        let directory = directory("mesh.yaml", &text.replace('\n', "\n---\n"));
        let (status, text, error) = run(directory.path(), &[&OPTIONS[..], &["--format", "json", "mesh.yaml"]].concat());
        assert_eq!(status, Some(0), "{text}{error}");
        let found = workloads(&text);
        let document = document(directory.path());
        for _ in 0..40 {
            let mut own = Vec::new();
            for (name, values) in
                [("a", &["", "1", "2", "3"][..]), ("b", &["", "1", "2"]), (GATEWAY_NAME, &["", "", "g", "h"])]
            {
                own.extend(
                    Some(*random.of(values))
                        .filter(|value| !value.is_empty())
                        .map(|value| (name.to_owned(), value.to_owned())),
                );
            }
            let is_waypoint = own.iter().any(|(name, _)| name == GATEWAY_NAME) && *random.of(&[true, false]);
            let namespace = random.of(&["x", "y", "z", "istio-system"]);
            let proxy = Workload { namespace: (*namespace).to_owned(), labels: Some(own), is_waypoint };
            let Some(entry) = entry_of(&found, &policies, &proxy) else { continue };
            let set = PolicySet::from_json_for(&document, Proxy::Of(&proxy)).unwrap();
            for request in requests() {
                let is_allowed = request.decide(&set, now).decision.verdict == Verdict::Allow;
                let permissions = entry["permissions"].as_array().unwrap();
                let is_found = permissions.iter().any(|permission| allows(permission, &request));
                assert_eq!(is_found, is_allowed, "round {round}: {proxy:?}: {request:?}\n{entry:#}");
                compared += 1;
                allowed += u64::from(is_allowed);
            }
        }
    }
    assert!(compared > 30_000 && allowed > 3_000, "{compared} {allowed}");
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

/// `who` answers for one waypoint with options.
#[test]
fn requests_to_a_service_have_the_policies_of_its_waypoint() {
    let service = MESH.replace(
        "metadata: {name: writes, namespace: b}\nspec:\n",
        "metadata: {name: writes, namespace: a}\nspec:\n  \
                                targetRefs: [{group: \"\", kind: Service, name: web}]\n",
    );
    let directory = directory("mesh.yaml", &service);
    let (status, text, error) = run(directory.path(), &[&OPTIONS[..], &["--format", "json", "mesh.yaml"]].concat());
    assert_eq!(status, Some(0), "{text}{error}");
    let found = workloads(&text);
    let services: Vec<&Value> = found.iter().filter(|workload| !workload["service"].is_null()).collect();
    let expected = ["a: requests to Service/web, Gateway/public (waypoint)", "a: requests to Service/web (waypoint)"];
    assert_eq!(services.iter().map(|workload| &workload["workload"]).collect::<Vec<_>>(), expected);
    assert!(names(&found).contains(&"a: Gateway/public (waypoint)") && !text.contains("b: "), "{text}");
    let targets =
        ["--target-ref=Service/web", "--target-ref=GatewayClass/istio-waypoint", "--target-ref=Gateway/public"];
    for (workload, targets) in services.into_iter().zip([&targets[..], &targets[..2]]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.args(["who", "--format=json", "--namespace=a", "mesh.yaml"]).args(OPTIONS).args(targets);
        let output = command.current_dir(directory.path()).output().unwrap();
        let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut permissions = workload["permissions"].clone();
        for permission in permissions.as_array_mut().unwrap() {
            let fields = permission.as_object_mut().unwrap();
            fields.retain(|name, _| !["everyCaller", "trustDomains"].contains(&&**name));
        }
        assert_eq!(permissions, answer["permissions"].take(), "{targets:?}");
        assert!(permissions.as_array().unwrap().len() > 1, "{permissions}");
    }
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
            MESH.replace(
                "kind: Gateway, name: public}",
                "kind: Gateway, name: public}, {group: core, kind: Service, name: web}",
            ),
            "is enforced for requests to `Service/web`",
        ),
        (
            MESH.replace(
                "group: gateway.networking.k8s.io, kind: Gateway, name: public",
                "group: x, kind: Service, name: web",
            ),
            "unknown group `x` of a Service",
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

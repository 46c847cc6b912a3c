//! `spiffe-authz import`: the conversion of Istio's policies, and the remarks on the differences.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn run(arguments: &[&str], resources: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .arg("import")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command with invalid options ends before it reads its input.
    match child.stdin.take().unwrap().write_all(resources.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        _ => {}
    }
    child.wait_with_output().unwrap()
}

/// Imports resources. Returns the exit status, the document, and each remark as JSON.
fn import(arguments: &[&str], resources: &str) -> (Option<i32>, Value, Vec<Value>) {
    let output = run(&[&["--trust-domain", "example.org", "--format", "json", "-"], arguments].concat(), resources);
    let remarks = String::from_utf8(output.stderr).unwrap();
    let remarks = remarks.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), remarks.collect())
}

#[test]
fn other_resources_are_counted() {
    let resources = "kind: Service\nmetadata: {name: a}\n---\nnothing: 1\n---\n";
    let (status, document, remarks) = import(&[], resources);
    assert_eq!((status, document), (Some(1), Value::Null));
    let found: Vec<&str> = remarks.iter().map(|remark| remark["message"].as_str().unwrap()).collect();
    let expected = [
        "skipped 2 other resources: 1 Service, 1 without `kind`",
        "no document is written: the input has no AuthorizationPolicy",
    ];
    assert_eq!(found, expected);
}

/// A policy `default/p` with this specification.
fn policy(spec: &Value) -> String {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "default"}, "spec": spec
    })
    .to_string()
}

/// The fields with a remark that contains `text`.
fn fields(spec: &Value, text: &str) -> Vec<String> {
    let (_, _, remarks) = import(&[], &policy(spec));
    let found = remarks.iter().filter(|remark| remark["message"].as_str().unwrap().contains(text));
    found.map(|remark| format!("{} {}", remark["place"].as_str().unwrap(), remark["field"].as_str().unwrap())).collect()
}

const OMITTED: &str = "without a trust domain";

fn rule(sources: &[Value]) -> Value {
    let from: Vec<Value> = sources.iter().map(|source| json!({"source": source})).collect();
    json!({"from": from})
}

#[test]
fn an_omitted_trust_domain_is_reported_for_each_source() {
    let (said, omitted) = (json!({"namespaces": ["a"], "trustDomains": ["example.io"]}), json!({"namespaces": ["b"]}));
    let rules = json!({"rules": [rule(&[said.clone(), omitted.clone()]), rule(&[said]), rule(&[omitted])]});
    assert_eq!(
        fields(&rules, OMITTED),
        ["default/p spec.rules[0].from[1].source", "default/p spec.rules[2].from[0].source"]
    );
    // The negated form excludes trust domains, and does not name one.
    let excluded = json!({"rules": [rule(&[json!({"serviceAccounts": ["b"], "notTrustDomains": ["example.io"]})])]});
    assert_eq!(fields(&excluded, OMITTED), ["default/p spec.rules[0].from[0].source"]);
}

#[test]
fn conditions_name_the_trust_domain_of_their_rule_only() {
    let condition = |key: &str, values: &str| json!([{"key": key, values: ["example.io"]}]);
    let with = |when: Value| {
        let mut named = rule(&[json!({"namespaces": ["a"]})]);
        named["when"] = when;
        json!({"rules": [named, rule(&[json!({"namespaces": ["b"]})])]})
    };
    let (first, second) =
        ("default/p spec.rules[0].from[0].source".to_owned(), "default/p spec.rules[1].from[0].source".to_owned());
    assert_eq!(fields(&with(condition("source.trustDomain", "values")), OMITTED), std::slice::from_ref(&second));
    assert_eq!(fields(&with(condition("source.trustDomain", "notValues")), OMITTED), [first, second]);
    // The trust domain of a source does not apply to a condition.
    let mut said = rule(&[json!({"namespaces": ["a"], "trustDomains": ["example.io"]})]);
    said["when"] =
        json!([{"key": "source.namespace", "values": ["a"]}, {"key": "source.serviceAccount", "values": ["a/b"]}]);
    assert_eq!(
        fields(&json!({"rules": [said]}), OMITTED),
        ["default/p spec.rules[0].when[0]", "default/p spec.rules[0].when[1]"]
    );
}

#[test]
fn values_cause_and_suppress_no_remark() {
    let operation = |values: Value| json!({"to": [{"operation": {"paths": values}}]});
    let named = json!(["namespaces", "/source.trustDomain", "request.headers[", "\"request.headers["]);
    let (_, _, remarks) = import(&[], &policy(&json!({"rules": [operation(named.clone())]})));
    assert!(remarks.iter().all(|remark| remark["lost"] == true || remark["place"] == "/"), "{remarks:?}");
    let mut with_source = operation(named);
    with_source["from"] = json!([{"source": {"namespaces": ["trustDomain"]}}]);
    assert_eq!(fields(&json!({"rules": [with_source]}), OMITTED), ["default/p spec.rules[0].from[0].source"]);
}

/// If the filter and Istio read a rule in the same way, there is no remark.
#[test]
fn readings_that_agree_with_istio_are_not_reported() {
    let with = |action: &str, field: &str| json!({"action": action, "rules": [rule(&[json!({field: ["a"]})])]});
    for (action, field, differs) in [
        ("ALLOW", "namespaces", true),
        ("ALLOW", "notNamespaces", false),
        ("DENY", "namespaces", false),
        ("DENY", "notNamespaces", true),
        ("DENY", "notServiceAccounts", true),
        ("AUDIT", "serviceAccounts", false),
    ] {
        assert_eq!(!fields(&with(action, field), OMITTED).is_empty(), differs, "{action} {field}");
    }
}

#[test]
fn conditions_on_headers_are_reported() {
    let when = json!([{"key": "source.ip", "values": ["10.0.0.1"]}, {"key": "request.headers[x-a]", "values": ["b"]}]);
    let spec = json!({"rules": [{}, {"when": when}]});
    assert_eq!(fields(&spec, "several lines of the header"), ["default/p spec.rules[1].when[1]"]);
}

#[test]
fn rewritten_values_are_reported_with_their_place() {
    let spec = json!({"rules": [
        {"from": [{"source": {"principals": ["a/b"]}}, {"source": {"principals": ["cluster.local/ns/a/sa/b"]}}]},
        {"when": [{"key": "source.trustDomain", "notValues": ["old.example.org"]}]},
    ]});
    let (_, document, remarks) = import(&["--trust-domain-alias", "old.example.org"], &policy(&spec));
    let places: Vec<&str> = remarks
        .iter()
        .filter(|remark| remark["lost"] == false)
        .map(|remark| remark["field"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(places, ["spec.rules[0].from[1].source.principals", "spec.rules[1].when[0].notValues"]);
    let rules = &document["policies"][0]["rules"];
    assert_eq!(
        rules[0]["from"][1]["source"]["principals"],
        json!(["example.org/ns/a/sa/b", "old.example.org/ns/a/sa/b"])
    );
    assert_eq!(rules[1]["when"][0]["notValues"], json!(["example.org", "old.example.org"]));
}

#[test]
fn errors_are_placed_in_the_policy() {
    let spec = json!({"rules": [{"to": [{"operation": {"prots": ["25"]}}]}, 1]});
    let (status, document, remarks) = import(&[], &policy(&spec));
    assert_eq!((status, document), (Some(3), Value::Null));
    let lost: Vec<_> = remarks.iter().filter(|remark| remark["lost"] == true).collect();
    let unknown =
        lost.iter().find(|remark| remark["message"].as_str().unwrap().starts_with("unknown-field: ")).unwrap();
    let place = (&unknown["place"], &unknown["field"], &unknown["file"], &unknown["line"]);
    let field = json!("spec.rules[0].to[0].operation.prots");
    assert_eq!(place, (&json!("default/p"), &field, &json!("-"), &json!(1)));
    assert!(unknown["message"].as_str().unwrap().ends_with("(did you mean `ports`?)"), "{unknown}");
    assert!(lost.iter().any(|remark| remark["field"] == "spec.rules[1]"), "{lost:?}");
}

#[test]
fn policies_are_converted() {
    let istio = r#"
apiVersion: v1
kind: List
items:
- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: {name: reads, namespace: default, annotations: {istio.io/dry-run: "true"}}
  spec:
    selector: {matchLabels: {app: httpbin}}
    rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/sleep], namespaces: [prod]}}]
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: custom, namespace: default}
spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: other}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: whole-mesh, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["25"]}}]}]}
"#;
    let base = ["--trust-domain", "example.org", "--trust-domain-alias", "old.example.org"];
    let here = [&base[..], &["--namespace", "default", "--label", "app=httpbin", "--allow-partial", "-"]].concat();
    let output = run(&here, istio);
    assert_eq!(output.status.code(), Some(3));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "trustDomain": "example.org", "federatedTrustDomains": [], "trustDomainAliases": ["old.example.org"],
        "policies": [
            {"name": "reads", "namespace": "default", "mode": "shadow", "rules": [{"from": [{"source": {
                "principals": ["example.org/ns/default/sa/sleep", "old.example.org/ns/default/sa/sleep"],
                "namespaces": ["prod"]
            }}]}]},
            {"name": "whole-mesh", "namespace": "istio-system", "action": "DENY",
             "rules": [{"to": [{"operation": {"ports": ["25"]}}]}]}
        ]
    });
    assert_eq!(document, expected);
    let remarks = String::from_utf8(output.stderr).unwrap();
    for remark in [
        "-:11:36: default/reads: note: spec.rules[0].from[0].source.principals: replaced cluster.local/ns/default/sa/sleep with ",
        "default/reads: note: spec.rules[0].from[0].source: `namespaces` without a trust domain: the filter matches only ",
        "default/custom: not imported: spec.action: `action: CUSTOM` is not supported",
        "note: 1 policy does not apply to the workload: other/elsewhere",
    ] {
        assert!(remarks.lines().any(|line| line.contains(remark)), "{remark} in {remarks}");
    }
    let unlabelled = [&base[..], &["--namespace", "default", "--allow-partial", "-"]].concat();
    let out = String::from_utf8(run(&unlabelled, istio).stdout).unwrap();
    assert!(!out.contains("\"reads\""), "{out}");
    let unknown = istio.replace("ports:", "prots:");
    let output = run(&here, &unknown);
    assert!(String::from_utf8(output.stderr).unwrap().contains("unknown-field"));
}

#[test]
fn a_large_mesh_is_converted() {
    let values = "a, ".repeat(2600);
    let policy = |number| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: ns}}\n\
             spec: {{rules: [{{to: [{{operation: {{methods: [{values}]}}}}]}}]}}\n"
        )
    };
    let mesh: String = (0..100).map(policy).collect();
    let (status, document, _) = import(&[], &mesh);
    assert_eq!((status, document["policies"].as_array().unwrap().len()), (Some(0), 100));
}

/// Returns the messages of an import, each with its field.
fn messages(arguments: &[&str], resources: &str) -> (Option<i32>, Vec<String>) {
    let (status, _, remarks) = import(arguments, resources);
    let text = |remark: &Value, name: &str| remark[name].as_str().unwrap_or_default().to_owned();
    (status, remarks.iter().map(|remark| format!("{}: {}", text(remark, "field"), text(remark, "message"))).collect())
}

/// Fails unless some message contains each part, in this order.
fn assert_reported(messages: &[String], parts: &[&str]) {
    assert!(
        messages.iter().any(|message| {
            let mut rest = &**message;
            parts.iter().all(|part| rest.split_once(part).map(|(_, after)| rest = after).is_some())
        }),
        "{parts:?} in {messages:#?}"
    );
}

#[test]
fn references_that_istio_rejects_are_errors() {
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"});
    let with = |name: &str, value: &str| {
        let mut changed = gateway.clone();
        changed[name] = value.into();
        changed
    };
    let (elsewhere, class) = (with("namespace", "edge"), with("kind", "GatewayClass"));
    let selector = json!({"matchLabels": {"app": "a"}});
    for (spec, expected) in [
        (json!({"targetRefs": [gateway, elsewhere]}), ["spec.targetRefs[1].namespace: ", "`edge`", "`default`"]),
        (json!({"targetRef": elsewhere}), ["spec.targetRef.namespace: ", "`edge`", "`default`"]),
        (json!({"targetRef": gateway, "targetRefs": [gateway]}), ["spec.targetRefs: ", "`targetRef` and", "combined"]),
        (json!({"selector": selector, "targetRefs": [gateway]}), ["spec.targetRefs: ", "`selector` and", "combined"]),
        (json!({"selector": selector, "targetRef": gateway}), ["spec.targetRef: ", "and `targetRef` cannot", ""]),
        (json!({"selector": selector, "targetRefs": [{}]}), ["spec.targetRefs: ", "`selector` and", "combined"]),
        (json!({"targetRefs": [class]}), ["spec.targetRefs[0].kind: ", "root namespace", "`istio-system`"]),
        (json!({"targetRefs": [with("kind", "Gatway")]}), ["spec.targetRefs[0].kind: ", "`Gatway`", "`Gateway`"]),
    ] {
        let here = ["--namespace=default", "--target-ref=Gateway/public", "--target-ref=GatewayClass/public"];
        let (status, found) = messages(&here, &policy(&spec));
        assert_eq!(status, Some(3), "{spec}");
        assert_reported(&found, &expected);
    }
    // Istio accepts an empty namespace and the empty group, and the policy's own namespace has the same meaning.
    for namespace in ["", "default"] {
        let spec = json!({"targetRefs": [
            {"group": "", "kind": "Service", "name": "a", "namespace": namespace}
        ]});
        let (status, found) = messages(&["--namespace=default", "--target-ref=Service/a"], &policy(&spec));
        assert_eq!(status, Some(0), "{found:?}");
    }
}

#[test]
fn attached_policies_apply_to_their_own_proxy() {
    let group = |kind: &str| match kind {
        "Service" => "",
        "ServiceEntry" => "networking.istio.io",
        _ => "gateway.networking.k8s.io",
    };
    let attached = |namespace: &str, targets: &[&str]| {
        let targets: Vec<Value> = targets
            .iter()
            .map(|target| target.split_once('/').unwrap())
            .map(|(kind, name)| json!({"group": group(kind), "kind": kind, "name": name}))
            .collect();
        policy(&json!({"targetRefs": targets})).replace("\"default\"", &format!("{namespace:?}"))
    };
    let (edge, root) = ("edge", "istio-system");
    let elsewhere = "is not a resource of the proxy";
    let service = "is not carried over to a document for other requests";
    for (namespace, targets, proxy, applies, expected) in [
        (edge, &["Gateway/a"][..], &["Gateway/a"][..], true, ""),
        (edge, &["Gateway/a"], &["Gateway/b"], false, ""),
        (root, &["Gateway/a"], &["Gateway/a"], false, ""),
        (root, &["GatewayClass/a"], &["GatewayClass/a"], true, ""),
        (edge, &["Gateway/b", "Gateway/a"], &["Gateway/a", "GatewayClass/a"], true, ""),
        (edge, &["Service/a"], &["Service/a"], true, ""),
        (edge, &["ServiceEntry/a", "Service/a"], &["Gateway/a", "Service/a", "ServiceEntry/a"], true, ""),
        (edge, &["Service/a", "Gateway/a"], &["Gateway/a"], true, ""),
        (edge, &["Service/b"], &["Service/a"], false, elsewhere),
        (root, &["Service/a"], &["Service/a"], false, elsewhere),
        // The document of these proxies applies to requests to other services, too.
        (edge, &["Service/a"], &["Gateway/a"], false, service),
        (edge, &["ServiceEntry/a"], &["GatewayClass/a"], false, service),
        (edge, &["Service/a"], &["Service/a", "Service/b"], false, service),
        (edge, &["Service/a"], &["Service/a", "ServiceEntry/a"], false, service),
        (edge, &["Gateway/a"], &[], false, "`--namespace edge --target-ref Gateway/a`"),
        (root, &["GatewayClass/a"], &[], false, "`--namespace` of the waypoint, and `--target-ref GatewayClass/a`"),
    ] {
        let proxy: Vec<String> = proxy.iter().map(|target| format!("--target-ref={target}")).collect();
        let mut arguments = vec!["--namespace=edge"];
        arguments.extend(proxy.iter().map(String::as_str));
        let (status, found) = messages(&arguments, &attached(namespace, targets));
        assert_eq!(status, Some(if applies { 0 } else { 3 }), "{namespace} {targets:?} {proxy:?} {found:?}");
        if [service, elsewhere].contains(&expected) {
            let name = targets.iter().find(|target| target.starts_with("Service")).unwrap();
            assert_reported(&found, &["spec.targetRefs: ", name, expected]);
        } else if !expected.is_empty() {
            assert_reported(&found, &["spec.targetRefs: ", expected]);
        }
    }
}

#[test]
fn a_policy_with_an_unknown_group_or_version_is_an_error() {
    let resource = |version: &str, kind: &str| {
        let head = if version.is_empty() { String::new() } else { format!("apiVersion: {version}\n") };
        format!("{head}kind: {kind}\nmetadata: {{name: p, namespace: a}}\nspec: {{action: DENY, rules: [{{}}]}}\n")
    };
    let good = resource("security.istio.io/v1", "AuthorizationPolicy");
    for (version, kind, expected) in [
        ("security.istio.io", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: security.istio.io`"]),
        ("v1", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: v1`"]),
        ("", "AuthorizationPolicy", ["apiVersion: ", "missing field `apiVersion`"]),
        ("securty.istio.io/v1", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: securty.istio.io/v1`"]),
        ("security.istio.io/v2", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: security.istio.io/v2`"]),
        ("policy.linkerd.io", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: policy.linkerd.io`"]),
        ("rbac.istio.io/v1alpha1", "AuthorizationPolicy", ["apiVersion: ", "`apiVersion: rbac.istio.io/v1alpha1`"]),
        ("security.istio.io", "AuthorizationPolicies", ["kind: ", "`AuthorizationPolicy`"]),
        ("security.istio.io/v1", "AuthorisationPolicy", ["kind: ", "`AuthorizationPolicy`"]),
        ("v1", "authorizationPolicy", ["kind: ", "`AuthorizationPolicy`"]),
        ("securty.istio.io/v1", "null", ["kind: ", "missing field `kind`"]),
    ] {
        let (status, found) = messages(&[], &format!("{good}---\n{}", resource(version, kind)));
        assert_eq!(status, Some(3), "{version} {kind} {found:?}");
        assert_reported(&found, &expected);
    }
    for (version, kind) in [
        ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    ] {
        let (status, found) = messages(&[], &format!("{good}---\n{}", resource(version, kind)));
        assert_eq!(status, Some(0), "{version} {kind} {found:?}");
        assert_reported(&found, &["skipped 1 other resource: 1 ", kind]);
    }
}

#[test]
fn a_list_implies_the_kind_of_its_items() {
    const ITEM: &str = "metadata: {name: p, namespace: a}, spec: {action: DENY, rules: [{}]}";
    const ISTIO: &str = "apiVersion: security.istio.io/v1";
    const KIND: &str = "kind: AuthorizationPolicy";
    for (list, item, expected) in [
        (format!("{ISTIO}\n{KIND}List"), String::new(), Ok(())),
        (format!("{ISTIO}\n{KIND}List"), format!("{KIND}, "), Ok(())),
        (format!("{ISTIO}\n{KIND}List"), format!("{ISTIO}, "), Ok(())),
        ("apiVersion: v1\nkind: List".to_owned(), format!("{ISTIO}, {KIND}, "), Ok(())),
        (format!("apiVersion: v1\n{KIND}List"), String::new(), Err(["apiVersion: ", "`apiVersion: v1`"])),
        (format!("{KIND}List"), String::new(), Err(["apiVersion: ", "missing field `apiVersion`"])),
        (format!("{ISTIO}\n{KIND}List"), "apiVersion: v1, ".to_owned(), Err(["apiVersion: ", "`apiVersion: v1`"])),
        ("apiVersion: v1\nkind: List".to_owned(), String::new(), Err(["kind: ", "missing field `kind`"])),
        ("apiVersion: v1\nkind: List".to_owned(), format!("{KIND}, "), Err(["apiVersion: ", "missing field"])),
        ("apiVersion: v1\nkind: list".to_owned(), format!("{ISTIO}, {KIND}, "), Err(["kind: ", "`List`"])),
    ] {
        let (status, found) = messages(&[], &format!("{list}\nitems:\n- {{{item}{ITEM}}}\n"));
        match expected {
            Ok(()) => assert_eq!(status, Some(0), "{list} {item} {found:?}"),
            Err(expected) => {
                assert_eq!(status, Some(3), "{list} {item} {found:?}");
                assert_reported(&found, &expected);
            }
        }
    }
    let (status, found) = messages(&["--allow-empty"], &format!("{ISTIO}\n{KIND}List\nitmes: [{{{ITEM}}}]\n"));
    assert_eq!(status, Some(3), "{found:?}");
    assert_reported(&found, &["items: missing field `items`"]);
    // A list of another kind, a list of Linkerd's policies, and an empty list.
    for (list, expected) in [
        ("apiVersion: v1\nkind: ServiceList", "skipped 1 other resource: 1 Service"),
        ("apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicyList", "1 AuthorizationPolicy of policy.l"),
    ] {
        let (status, found) = messages(&[], &format!("{list}\nitems: [{{{ITEM}}}]\n"));
        assert_eq!(status, Some(1), "{found:?}");
        assert_reported(&found, &[expected]);
    }
    let (_, found) = messages(&[], &format!("{ISTIO}\n{KIND}List\nitems: null\n"));
    assert_reported(&found, &["the input has no AuthorizationPolicy"]);
}

#[test]
fn metadata_and_labels_are_checked() {
    let resource = |metadata: &str, spec: &str| {
        format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {metadata}\nspec: {spec}\n")
    };
    let labels = |labels: &str| format!("{{selector: {{matchLabels: {labels}}}}}");
    let good = "{name: p, namespace: a}";
    for (metadata, spec, expected) in [
        ("{name: p, namespace: a, namespace: b}", "{}".to_owned(), ["metadata.namespace: ", "duplicate field"]),
        ("{name: p, namespace: a, namespace: null}", "{}".to_owned(), ["metadata.namespace: ", "duplicate field"]),
        ("{name: p, name: q, namespace: a}", "{}".to_owned(), ["metadata.name: ", "duplicate field"]),
        ("{name: p, namspace: b}", "{}".to_owned(), ["metadata.namspace: ", "(did you mean `namespace`?)"]),
        ("{name: p, namespace: a, anotations: {}}", "{}".to_owned(), ["metadata.anotations: ", "`annotations`"]),
        ("{name: p, namespace: a, spec: {}}", "{}".to_owned(), ["metadata.spec: ", "unknown field"]),
        ("{name: p, namespace: a, annotations: {a: null}}", "{}".to_owned(), ["metadata.annotations.a: ", "null"]),
        (good, labels("{app: null}"), ["spec.selector.matchLabels.app: ", "expected a string, found null"]),
        (good, labels("{app: a, app: b}"), ["spec.selector.matchLabels.app: ", "duplicate field"]),
    ] {
        let (status, found) = messages(&["--namespace=a", "--label=app=a"], &resource(metadata, &spec));
        assert_eq!(status, Some(3), "{metadata} {spec} {found:?}");
        assert_reported(&found, &expected);
    }
    let all = "{name: p, namespace: a, uid: u, resourceVersion: '1', generation: 1, creationTimestamp: null, labels: {}, \
               annotations: {}, managedFields: [], ownerReferences: [], finalizers: [], generateName: p-, selfLink: /p, \
               deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 1}";
    assert_eq!(messages(&[], &resource(all, "{}")), (Some(0), vec![]));
}

#[test]
fn options_without_a_meaning_are_rejected() {
    for (arguments, expected) in [
        (&["--namespace="][..], "'--namespace <NAMESPACE>'"),
        (&["--namespace=Edge"], "'--namespace <NAMESPACE>'"),
        (&["--root-namespace="], "'--root-namespace <ROOT_NAMESPACE>'"),
        (&["--namespace=a", "--label==b"], "'--label <LABEL>'"),
        (&["--namespace=a", "--label=app"], "'--label <LABEL>'"),
        (
            &["--namespace=a", "--label=app=a", "--label=tier=x", "--label=app=b"],
            "`--label app` has the values `a` and `b`",
        ),
    ] {
        let output = run(&[&["--trust-domain", "example.org", "-"], arguments].concat(), &policy(&json!({})));
        let text = String::from_utf8(output.stderr).unwrap();
        // Every error in the command line has this status, because 2 is a denial.
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?} {text}");
        assert!(text.starts_with("error: ") && text.contains(expected), "{arguments:?} {text}");
    }
    // An empty value is a label's value, and repeating a label does not change it.
    let spec = json!({"selector": {"matchLabels": {"app": ""}}});
    let (status, found) = messages(&["--namespace=default", "--label=app=", "--label=app="], &policy(&spec));
    assert_eq!((status, found), (Some(0), vec![]));
}

#[test]
fn repeated_fields_are_errors() {
    const ISTIO: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
    const REST: &str = "metadata: {name: p, namespace: a}\nspec: {action: DENY, rules: [{}]}\n";
    let spec = |spec: &str| format!("{ISTIO}metadata: {{name: p, namespace: a}}\nspec: {spec}\n");
    let item = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: a}}";
    let from = "from: [{source: {principals: [a/b]}}]";
    for (resource, expected) in [
        (format!("kind: ConfigMap\n{ISTIO}{REST}"), ["kind: ", "duplicate field `kind`"]),
        (format!("kind: null\n{ISTIO}{REST}"), ["kind: ", "duplicate field `kind`"]),
        (format!("apiVersion: policy.linkerd.io/v1\n{ISTIO}{REST}"), ["apiVersion: ", "duplicate field `apiVersion`"]),
        (format!("kind: List\nitems: []\nitems: [{item}]\n"), ["items: ", "duplicate field `items`"]),
        (format!("{ISTIO}{REST}spec: null\n"), ["spec: ", "duplicate field `spec`"]),
        (spec("{action: null, action: DENY}"), ["spec.action: ", "duplicate field `action`"]),
        (spec(&format!("{{rules: [{{{from}, from: null}}]}}")), ["spec.rules[0].from: ", "duplicate-field"]),
        (spec(&format!("{{rules: [{{from: null, {from}}}]}}")), ["spec.rules[0].from: ", "duplicate-field"]),
        (
            spec("{rules: [{when: [{key: source.ip, values: [a], values: null}]}]}"),
            ["when[0].values: ", "duplicate-field"],
        ),
    ] {
        let (status, found) = messages(&[], &resource);
        assert_eq!(status, Some(3), "{resource} {found:?}");
        assert_reported(&found, &expected);
    }
}

#[test]
fn a_policy_of_one_revision_is_reported() {
    let labelled = |labels: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: a, labels: {labels}}}\n"
        )
    };
    assert_eq!(messages(&[], &labelled("{app: a}")), (Some(0), vec![]));
    let (status, found) = messages(&[], &labelled("{istio.io/rev: canary}"));
    assert_eq!(status, Some(0));
    assert_reported(&found, &["metadata.labels: ", "`istio.io/rev: canary`", "only by the control plane"]);
}

/// An import that compares each value with every other one needs minutes for this input, and otherwise seconds.
#[test]
fn large_policies_are_converted_in_linear_time() {
    const SIZE: usize = 100_000;
    let texts = |text: fn(usize) -> String| -> Vec<String> { (0..SIZE).map(text).collect() };
    let labels: serde_json::Map<String, Value> =
        texts(|number| format!("label-{number}")).into_iter().map(|name| (name, "a".into())).collect();
    let principals = texts(|number| format!("example.org/ns/a/sa/{number}"));
    let spec = json!({"selector": {"matchLabels": labels}, "rules": [rule(&[json!({"principals": principals})])]});
    let start = Instant::now();
    let (status, document, _) = import(&[], &policy(&spec));
    let taken = start.elapsed();
    assert_eq!(status, Some(0));
    let source = &document["policies"][0]["rules"][0]["from"][0]["source"];
    assert_eq!(source["principals"].as_array().unwrap().len(), SIZE);
    assert!(taken < Duration::from_secs(60), "{taken:?}");
}

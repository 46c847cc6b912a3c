//! The policies that a proxy keeps of a document with `scope`.
//!
//! The expectations follow Istio's `WorkloadPolicyMatcher.ShouldAttachPolicy`.

use crate::support::NOW;
use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::diagnostic::Code;
use spiffe_authz::lint::{Lint, Target, lint};
use spiffe_authz::policy::{Layer, Node, PolicySet, Proxy, Workload};
use spiffe_authz::request::Request;

const GATEWAY: (&str, &str) = ("gateway.networking.k8s.io/gateway-name", "public");

/// A workload in the namespace `shop` with these labels.
fn workload(labels: &[(&str, &str)]) -> Workload {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Workload { namespace: "shop".to_owned(), labels: Some(labels), is_waypoint: false }
}

fn waypoint() -> Workload {
    Workload { is_waypoint: true, ..workload(&[GATEWAY]) }
}

fn document(policies: Value) -> Value {
    json!({"trustDomain": "example.org", "scope": {"rootNamespace": "istio-system"}, "policies": policies})
}

/// A policy for the caller `sleep`, with these fields.
fn policy(name: &str, namespace: &str, fields: &Value) -> Value {
    let source = json!({"source": {"principals": ["example.org/ns/shop/sa/sleep"]}});
    let mut policy = json!({"name": name, "namespace": namespace, "rules": [{"from": [source]}]});
    policy.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    policy
}

fn target(kind: &str, name: &str) -> Value {
    json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": name}]})
}

fn selector(labels: Value) -> Value {
    json!({"selector": {"matchLabels": labels}})
}

fn compile(document: &Value, proxy: Proxy<'_>) -> PolicySet {
    PolicySet::from_json_for(document.to_string().as_bytes(), proxy).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// Returns the places and codes of the errors.
fn errors(document: &Value, proxy: Proxy<'_>) -> Vec<(String, Code)> {
    let errors = PolicySet::from_json_for(document.to_string().as_bytes(), proxy).expect_err("an error");
    errors.into_iter().map(|error| (error.pointer, error.code)).collect()
}

/// Returns the pointers to the rules of the policies that a proxy keeps.
fn kept(document: &Value, proxy: Proxy<'_>) -> Vec<String> {
    let policies = compile(document, proxy);
    let request: CaseRequest =
        serde_json::from_value(json!({"peer": "spiffe://example.org/ns/shop/sa/sleep"})).expect("a request");
    let subject = policies.subject(request.identity(policies.identity()));
    let explanation = policies.explain(&subject, &Request::new(&request, NOW)).expect("readable attributes");
    explanation.policies.iter().flat_map(|policy| &policy.rules).map(|rule| rule.pointer.clone()).collect()
}

#[test]
fn a_proxy_keeps_the_policies_that_apply_to_it() {
    let app = selector(json!({"app": "cart"}));
    let both = selector(json!({"app": "cart", "version": "v1"}));
    let policies = [
        policy("own", "shop", &json!({})),
        policy("elsewhere", "bank", &json!({})),
        policy("mesh", "istio-system", &json!({})),
        policy("cart", "shop", &app),
        policy("cart-v1", "shop", &both),
        policy("cart-everywhere", "istio-system", &app),
        policy("cart-elsewhere", "bank", &app),
        policy("public", "shop", &target("Gateway", "public")),
        policy("internal", "shop", &target("Gateway", "internal")),
        policy("public-elsewhere", "bank", &target("Gateway", "public")),
        policy("public-of-root", "istio-system", &target("Gateway", "public")),
        policy("waypoints", "istio-system", &target("GatewayClass", "istio-waypoint")),
        policy("waypoints-of-shop", "shop", &target("GatewayClass", "istio-waypoint")),
        policy("another-class", "istio-system", &target("GatewayClass", "istio")),
    ];
    let names: Vec<&str> = policies.iter().filter_map(|policy| policy["name"].as_str()).collect();
    let document = document(json!(policies));
    let root = Workload { namespace: "istio-system".to_owned(), ..workload(&[("app", "cart")]) };
    for (workload, expected) in [
        (workload(&[]), vec!["own", "mesh"]),
        (workload(&[("app", "cart")]), vec!["own", "mesh", "cart", "cart-everywhere"]),
        (workload(&[("app", "cart"), ("version", "v1")]), vec!["own", "mesh", "cart", "cart-v1", "cart-everywhere"]),
        (workload(&[("app", "other")]), vec!["own", "mesh"]),
        (workload(&[GATEWAY]), vec!["own", "mesh", "public"]),
        (workload(&[GATEWAY, ("app", "cart")]), vec!["own", "mesh", "cart", "cart-everywhere", "public"]),
        (waypoint(), vec!["public", "waypoints"]),
        (root, vec!["mesh", "cart-everywhere"]),
    ] {
        let expected: Vec<String> = expected
            .into_iter()
            .filter_map(|name| names.iter().position(|other| *other == name))
            .map(|position| format!("/policies/{position}/rules/0"))
            .collect();
        assert_eq!(kept(&document, Proxy::Of(&workload)), expected, "{workload:?}");
    }
    assert_eq!(compile(&document, Proxy::Every).policy_count(), names.len());
}

/// A policy of another workload neither allows nor denies, and its existence does not turn a document without ALLOW policies into
/// one that allows only what matches.
#[test]
fn dropped_policies_have_no_effect() {
    let allow = policy("reads", "shop", &json!({}));
    let deny = policy("stop", "shop", &json!({"action": "DENY", "selector": {"matchLabels": {"app": "other"}}}));
    let request = |peer: &str| -> CaseRequest {
        serde_json::from_value(json!({"peer": format!("spiffe://example.org/ns/shop/sa/{peer}")})).expect("a request")
    };
    let verdict = |document: &Value, peer: &str| {
        let workload = workload(&[("app", "cart")]);
        request(peer).decide(&compile(document, Proxy::Of(&workload)), NOW).decision.verdict.slug()
    };
    let both = document(json!([allow, deny]));
    assert_eq!((verdict(&both, "sleep"), verdict(&both, "curl")), ("allow", "deny"));
    let elsewhere = document(json!([policy("reads", "bank", &json!({}))]));
    assert_eq!(verdict(&elsewhere, "curl"), "allow");
}

#[test]
fn an_error_in_a_policy_of_another_workload_rejects_the_document() {
    let document =
        document(json!([policy("p", "bank", &json!({"rules": [{"to": []}]})), policy("p", "bank", &json!({}))]));
    let workload = workload(&[]);
    let expected =
        [("/policies/0/rules/0/to".to_owned(), Code::Empty), ("/policies".to_owned(), Code::DuplicatePolicy)];
    assert_eq!(errors(&document, Proxy::Of(&workload)), expected);
}

#[test]
fn labels_that_are_not_known_are_never_guessed() {
    let unlabeled = Workload { labels: None, ..workload(&[]) };
    let plain =
        document(json!([policy("own", "shop", &json!({})), policy("far", "bank", &selector(json!({"a": "b"})))]));
    assert_eq!(kept(&plain, Proxy::Of(&unlabeled)), ["/policies/0/rules/0"]);
    for (fields, place) in [(selector(json!({"a": "b"})), "selector"), (target("Gateway", "public"), "targetRefs")] {
        let document = document(json!([policy("own", "shop", &json!({})), policy("some", "shop", &fields)]));
        let expected = [(format!("/policies/1/{place}"), Code::ScopeUnresolved)];
        assert_eq!(errors(&document, Proxy::Of(&unlabeled)), expected);
    }
    let waypoint = Workload { is_waypoint: true, ..unlabeled };
    assert_eq!(errors(&plain, Proxy::Of(&waypoint)), [("/policies/0/name".to_owned(), Code::ScopeUnresolved)]);
}

#[test]
fn the_document_can_name_the_workload() {
    let mut document =
        document(json!([policy("cart", "shop", &selector(json!({"app": "cart"}))), policy("far", "bank", &json!({}))]));
    assert_eq!(errors(&document, Proxy::Unknown), [("/scope".to_owned(), Code::ScopeUnresolved)]);
    document["scope"]["workload"] = json!({"namespace": "shop", "labels": {"app": "cart"}});
    assert_eq!(kept(&document, Proxy::Unknown), ["/policies/0/rules/0"]);
    let same = workload(&[("app", "cart"), ("pod-template-hash", "1")]);
    assert_eq!(kept(&document, Proxy::Of(&same)), ["/policies/0/rules/0"]);
    let elsewhere = Workload { namespace: "bank".to_owned(), ..same.clone() };
    for other in [elsewhere, workload(&[("app", "other")]), Workload { is_waypoint: true, ..same }] {
        let expected = [("/scope/workload".to_owned(), Code::InvalidValue)];
        assert_eq!(errors(&document, Proxy::Of(&other)), expected, "{other:?}");
    }
}

#[test]
fn policies_of_delegated_namespaces_are_in_other_documents() {
    let verdict = |document: &Value, workload: &Workload| {
        let request: CaseRequest =
            serde_json::from_value(json!({"peer": "spiffe://example.org/ns/shop/sa/sleep"})).expect("a request");
        let policies = compile(document, Proxy::Of(workload));
        let verdict = request.decide(&policies, NOW).decision.verdict;
        let (is_delegated, count) = (policies.is_delegated(), policies.policy_count());
        let on_tcp = policies.on(Layer::Tcp);
        assert_eq!(request.decide(&on_tcp, NOW).decision.verdict, verdict);
        (is_delegated, count, verdict.reason().map_or("allow", DenyReason::slug))
    };
    // Without policies, everything would be allowed.
    for policies in [json!([]), json!([policy("mesh", "istio-system", &json!({}))])] {
        let mut document = document(policies.clone());
        document["scope"]["delegatedNamespaces"] = json!(["bank", "shop"]);
        assert_eq!(verdict(&document, &workload(&[])), (true, 0, "delegate-missing"));
        let elsewhere = Workload { namespace: "edge".to_owned(), ..workload(&[]) };
        let count = policies.as_array().map_or(0, Vec::len);
        assert_eq!(verdict(&document, &elsewhere), (false, count, "allow"));
        assert_eq!(errors(&document, Proxy::Unknown), [("/scope".to_owned(), Code::ScopeUnresolved)]);
        assert!(!compile(&document, Proxy::Every).is_delegated());
    }
}

#[test]
fn delegated_namespaces_are_consistent() {
    let with = |namespaces: Value| {
        let mut document = document(json!([policy("own", "shop", &json!({}))]));
        document["scope"]["delegatedNamespaces"] = namespaces;
        document
    };
    for (namespaces, place, code) in [
        (json!([]), "/scope/delegatedNamespaces", Code::Empty),
        (json!(["bank", "Bank"]), "/scope/delegatedNamespaces/1", Code::InvalidValue),
        (json!(["istio-system"]), "/scope/delegatedNamespaces/0", Code::InvalidValue),
        (json!(["bank", "shop"]), "/policies/0/namespace", Code::ConflictingFields),
    ] {
        for proxy in [Proxy::Every, Proxy::Of(&workload(&[]))] {
            assert_eq!(errors(&with(namespaces.clone()), proxy), [(place.to_owned(), code)], "{namespaces}");
        }
    }
}

/// Without `scope`, a document applies to every proxy that has it.
#[test]
fn a_document_without_scope_ignores_the_workload() {
    let document = json!({"trustDomain": "example.org", "policies": [policy("far", "bank", &json!({}))]});
    assert_eq!(kept(&document, Proxy::Of(&workload(&[]))), ["/policies/0/rules/0"]);
}

/// A rule covers another one only if its policy applies to every workload of the other policy.
#[test]
fn lints_compare_rules_of_the_same_workloads() {
    let found = |first: (&str, Value), second: (&str, Value)| {
        let document = document(json!([policy("a", first.0, &first.1), policy("b", second.0, &second.1)]));
        let text = document.to_string();
        let root: Node<'_> = serde_json::from_str(&text).expect("JSON");
        compile(&document, Proxy::Every);
        let about_rules = [Lint::ShadowedRule, Lint::DuplicateRule];
        let mut findings = lint(&root, Target::Http, NOW).into_iter().map(|finding| finding.lint);
        findings.find(|lint| about_rules.contains(lint)).map(Lint::slug)
    };
    let none = || json!({});
    let app = |value: &str| selector(json!({"app": value}));
    assert_eq!(found(("shop", none()), ("shop", none())), Some("duplicate-rule"));
    assert_eq!(found(("istio-system", none()), ("shop", none())), Some("shadowed-rule"));
    assert_eq!(found(("shop", none()), ("istio-system", none())), None);
    assert_eq!(found(("shop", none()), ("bank", none())), None);
    assert_eq!(found(("shop", none()), ("shop", app("a"))), Some("shadowed-rule"));
    assert_eq!(found(("shop", app("a")), ("shop", none())), None);
    assert_eq!(found(("shop", app("a")), ("shop", app("b"))), None);
    assert_eq!(found(("shop", app("a")), ("shop", app("a"))), Some("duplicate-rule"));
    assert_eq!(found(("shop", none()), ("shop", target("Gateway", "g"))), None);
    assert_eq!(found(("shop", target("Gateway", "g")), ("shop", target("Gateway", "g"))), Some("duplicate-rule"));
    assert_eq!(found(("shop", target("Gateway", "g")), ("shop", target("Gateway", "h"))), None);
    assert_eq!(found(("istio-system", target("Gateway", "g")), ("shop", target("Gateway", "g"))), None);
}

//! Each lint reports its problem, and nothing else.

use std::collections::BTreeSet;

use crate::support::NOW;
use serde_json::{Value, json};
use spiffe_authz::lint::{Lint, Target, lint, lint_values};
use spiffe_authz::policy::{Node, PolicySet};

/// Returns the lints of a document, as `<pointer> <lint>`.
fn found(document: &Value, target: Target) -> Vec<String> {
    let text = document.to_string();
    PolicySet::from_json(text.as_bytes()).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
    let root: Node<'_> = serde_json::from_str(&text).expect("JSON");
    lint(&root, target, NOW).iter().map(|finding| format!("{} {}", finding.pointer, finding.lint.slug())).collect()
}

fn document(policies: &Value) -> Value {
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "trustDomainAliases": ["old.example.org"],
        "policies": policies
    })
}

fn rules(rules: &[Value]) -> Value {
    document(&json!([{"name": "p", "namespace": "n", "rules": rules}]))
}

fn source(source: &Value) -> Value {
    rules(&[json!({"from": [{"source": source}]})])
}

fn operation(operation: &Value) -> Value {
    json!({"to": [{"operation": operation}]})
}

/// A rule for one caller with this operation.
fn call(operation: &Value) -> Value {
    json!({"from": [{"source": {"principals": ["example.org/ns/n/sa/a"]}}], "to": [{"operation": operation}]})
}

/// A DENY policy with this rule, before a policy that allows one caller.
fn denied(rule: &Value) -> Value {
    document(&json!([
        {"name": "d", "namespace": "n", "action": "DENY", "rules": [rule]},
        {"name": "a", "namespace": "n", "rules": [call(&json!({"methods": ["GET"]}))]}
    ]))
}

const RULE: &str = "/policies/0/rules/0";
const SOURCE: &str = "/policies/0/rules/0/from/0/source";

/// Documents with one lint each, and the pointer and the lint.
fn cases() -> Vec<(Value, String, Lint)> {
    let mut cases = Vec::new();
    for (field, value, lint) in [
        ("principals", "example.*", Lint::PrefixSplitsTrustDomain),
        ("trustDomains", "example*", Lint::PrefixSplitsTrustDomain),
        ("principals", "example.org/ns/prod*", Lint::PrefixSplitsSegment),
        ("principals", "cluster.local/ns/a/sa/b", Lint::UnknownTrustDomain),
        ("trustDomains", "example.com", Lint::UnknownTrustDomain),
        ("principals", "*", Lint::AnyPrincipal),
        ("trustDomains", "*", Lint::AnyPrincipal),
        ("trustDomains", "*example.org", Lint::SuffixSplitsName),
        ("principals", "*/ns/a/sa/b", Lint::AnyTrustDomain),
        ("principals", "example.org/workload/b", Lint::OutOfPattern),
    ] {
        cases.push((source(&json!({field: [value]})), format!("{SOURCE}/{field}/0"), lint));
    }
    let accounts = json!({"from": [{"source": {"serviceAccounts": ["a"], "trustDomains": ["example.io"]}}]});
    let mut narrower = accounts.clone();
    narrower["to"] = json!([{"operation": {"methods": ["GET"]}}]);
    let second = "/policies/0/rules/1".to_owned();
    for (value, lint) in [("i*s/x", Lint::LiteralAsterisk), ("https://issuer.example/", Lint::ImpossibleValue)] {
        let token = json!({"principals": ["example.org/ns/n/sa/a"], "requestPrincipals": [value]});
        cases.push((source(&token), format!("{SOURCE}/requestPrincipals/0"), lint));
    }
    cases.extend([
        (
            source(&json!({"namespaces": ["a*b"], "trustDomains": ["example.io"]})),
            format!("{SOURCE}/namespaces/0"),
            Lint::NamespaceWildcard,
        ),
        (source(&json!({"notPrincipals": ["example.org/ns/a/sa/b"]})), RULE.to_owned(), Lint::OnlyNegative),
        (source(&json!({"namespaces": ["a"]})), format!("{SOURCE}/namespaces"), Lint::TrustDomainUnsaid),
        (
            source(&json!({"trustDomains": ["example.org"], "notTrustDomains": ["old.example.org"]})),
            format!("{SOURCE}/notTrustDomains/0"),
            Lint::AliasExcluded,
        ),
        (
            document(&json!([
                {"name": "d", "action": "DENY", "rules": [operation(&json!({"paths": ["/a"]}))]},
                {"name": "a", "namespace": "n", "rules": [accounts]}
            ])),
            RULE.to_owned(),
            Lint::HttpOnlyDeny,
        ),
        (
            rules(&[call(&json!({"hosts": ["a.example"]}))]),
            format!("{RULE}/to/0/operation/hosts/0"),
            Lint::HostWithoutPort,
        ),
        (
            rules(&[call(&json!({"paths": ["/a", "/b"]})), call(&json!({"paths": ["/b", "/a"]}))]),
            second.clone(),
            Lint::DuplicateRule,
        ),
        (
            rules(&[call(&json!({"paths": ["/a", "/b"]})), call(&json!({"paths": ["/a"]}))]),
            second.clone(),
            Lint::ShadowedRule,
        ),
        (
            rules(&[
                json!({"from": [{"source": {"principals": ["example.org/ns/n/sa/a"]}}]}),
                call(&json!({"paths": ["/a"]})),
            ]),
            second.clone(),
            Lint::ShadowedRule,
        ),
        (
            document(&json!([
                {"name": "d", "namespace": "n", "action": "DENY", "rules": [accounts]},
                {"name": "a", "namespace": "n", "rules": [narrower]}
            ])),
            "/policies/1/rules/0".to_owned(),
            Lint::UnreachableAllow,
        ),
        (
            rules(&[call(&json!({"methods": ["get"]}))]),
            format!("{RULE}/to/0/operation/methods/0"),
            Lint::ImprobableValue,
        ),
        (
            denied(&json!({"from": [{"source": {"namespaces": ["."], "trustDomains": ["example.io"]}}]})),
            format!("{SOURCE}/namespaces/0"),
            Lint::VoidRestriction,
        ),
        (
            source(&json!({"namespaces": ["a,b"], "trustDomains": ["example.io"]})),
            format!("{SOURCE}/namespaces/0"),
            Lint::ImpossibleValue,
        ),
        (rules(&[operation(&json!({"methods": ["GET"]}))]), RULE.to_owned(), Lint::AnyCaller),
        (
            rules(&[json!({
                "from": [{"source": {"notPrincipals": ["example.org/ns/a/sa/b"]}}], "to": [{"operation": {"methods": ["GET"]}}]
            })]),
            RULE.to_owned(),
            Lint::AnyCaller,
        ),
        (
            json!({"trustDomain": "a", "identity": {"peer": "optional"}, "policies": [{"name": "p", "rules": [{}]}]}),
            RULE.to_owned(),
            Lint::AnonymousAllowed,
        ),
        (
            json!({"trustDomain": "a", "policies": [{"name": "p", "rules": [
                {"from": [{"source": {"namespaces": ["x"]}}]}, {"to": [{"operation": {"paths": ["/a"]}}]}
            ]}]}),
            second,
            Lint::SplitRule,
        ),
        (
            denied(&json!({"from": [{"source": {"principals": ["example.org/ns/n/sa/b"]}}], "to": [{"operation": {"hosts": ["*.example"]}}]})),
            format!("{RULE}/to/0/operation/hosts/0"),
            Lint::HostPortBypass,
        ),
        (
            denied(&json!({
                "from": [{"source": {"principals": ["example.org/ns/n/sa/b"]}}],
                "to": [{"operation": {"hosts": ["a.example", "a.example:8443"]}}]
            })),
            format!("{RULE}/to/0/operation/hosts/0"),
            Lint::HostPortBypass,
        ),
        (document(&json!([])), "/policies".to_owned(), Lint::NothingAllowed),
        (
            document(&json!([
                {"name": "p", "expires": "1960-01-01T00:00:00Z", "rules": [call(&json!({"methods": ["GET"]}))]}
            ])),
            "/policies/0/expires".to_owned(),
            Lint::LapsedPolicy,
        ),
        (
            json!({"trustDomain": "a", "policies": [{"name": "p", "ignoreLints": ["nonsense"]}]}),
            "/policies/0/ignoreLints/0".to_owned(),
            Lint::UnknownLint,
        ),
    ]);
    cases
}

#[test]
fn each_lint_finds_only_its_case() {
    for (document, pointer, lint) in cases() {
        assert_eq!(found(&document, Target::Http), [format!("{pointer} {}", lint.slug())], "{document}");
    }
}

#[test]
fn lints_of_each_target() {
    let http = rules(&[call(&json!({"methods": ["GET"]}))]);
    assert_eq!(found(&http, Target::Tcp), [format!("{RULE} {}", Lint::HttpOnlyAllow.slug())]);
    assert_eq!(found(&http, Target::Http), [""; 0]);
    // On TCP, a DENY rule denies everything unless one of its fields is evaluated there.
    let mut deny = rules(&[operation(&json!({"methods": ["GET"], "ports": ["80"]}))]);
    deny["policies"][0]["action"] = json!("DENY");
    let widened = [format!("{RULE} {}", Lint::HttpOnlyDeny.slug())];
    assert!(!found(&deny, Target::Http).contains(&widened[0]), "{deny}");
    assert!(found(&deny, Target::Tcp).contains(&widened[0]), "{deny}");
}

#[test]
fn ztunnel_drops_fields_of_deny_rules_and_most_allow_rules() {
    let condition = |key: &str, value: &str| json!({"when": [{"key": key, "values": [value]}]});
    let source = |field: &str, value: &str| json!({"from": [{"source": {field: [value]}}]});
    let lints = |document: &Value| {
        let lints = found(document, Target::Ztunnel).into_iter().filter(|lint| lint.contains("ztunnel"));
        lints.collect::<Vec<_>>()
    };
    let expected = |lint: Lint| vec![format!("{RULE} {}", lint.slug())];
    let and = |mut rule: Value, more: &Value| {
        rule.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        rule
    };
    for rule in [
        operation(&json!({"paths": ["/a"]})),
        source("remoteIpBlocks", "10.0.0.0/8"),
        source("trustDomains", "example.io"),
        condition("source.serviceAccount", "a/b"),
        condition("connection.sni", "a.example"),
        // A clause that has only empty matches never matches.
        call(&json!({"methods": ["GET"]})),
        and(source("ipBlocks", "10.0.0.0/8"), &condition("request.headers[x]", "a")),
        and(source("trustDomains", "example.org"), &operation(&json!({"ports": ["80"]}))),
    ] {
        assert_eq!(lints(&denied(&rule))[..1], expected(Lint::ZtunnelNoEffect), "{rule}");
        assert_eq!(lints(&rules(std::slice::from_ref(&rule))), expected(Lint::ZtunnelAllowsNoOne), "{rule}");
    }
    let both = call(&json!({"methods": ["GET"], "ports": ["80"]}));
    assert_eq!(lints(&denied(&both))[..1], expected(Lint::ZtunnelDeniesMore));
    let partly = json!({"to": [{"operation": {"paths": ["/a"]}}, {"operation": {"ports": ["80"]}}]});
    assert_eq!(lints(&denied(&partly))[..1], expected(Lint::ZtunnelNoEffect));
    // istiod silently ignores the trust domains of a source.
    let named = json!({"trustDomains": ["example.org"], "namespaces": ["prod"]});
    assert_eq!(lints(&rules(&[json!({"from": [{"source": named}]})])), expected(Lint::ZtunnelAllowsMore));
    let partly =
        json!({"from": [{"source": {"trustDomains": ["example.org"]}}, {"source": {"ipBlocks": ["10.0.0.0/8"]}}]});
    assert_eq!(lints(&rules(&[partly])), expected(Lint::ZtunnelAllowsNoOne));
    for rule in [
        source("principals", "example.org/ns/a/sa/b"),
        source("ipBlocks", "10.0.0.0/8"),
        operation(&json!({"ports": ["80"]})),
        condition("source.namespace", "a"),
        condition("destination.ip", "10.0.0.1"),
    ] {
        assert_eq!(lints(&rules(std::slice::from_ref(&rule))), [""; 0], "{rule}");
    }
}

#[test]
fn values_that_no_request_has() {
    let lint_of =
        |document: &Value, lint: Lint| found(document, Target::Http).iter().any(|found| found.ends_with(lint.slug()));
    for (field, values) in [
        ("methods", &["GE T", "/shop.Cart/List"][..]),
        ("paths", &["admin", "admin/*", "/a b"]),
        ("hosts", &["https://a.example", "a.example/x"]),
    ] {
        for value in values {
            let rule = operation(&json!({field: [value]}));
            assert!(lint_of(&denied(&rule), Lint::VoidRestriction), "{field}: {value}");
            let rule = call(&json!({field: [value]}));
            assert!(lint_of(&rules(&[rule]), Lint::ImpossibleValue), "{field}: {value}");
        }
    }
    for (key, value) in [("roles][0", "admin"), ("exp", "*"), ("email_verified", "true")] {
        let key = format!("request.auth.claims[{key}]");
        let rule = json!({"when": [{"key": key, "values": [value]}, {"key": "source.namespace", "values": ["a"]}]});
        assert!(lint_of(&rules(&[rule]), Lint::ImpossibleValue), "{key}");
    }
    let nobody = json!({"from": [{"source": {"notPrincipals": ["*"]}}]});
    assert!(lint_of(&denied(&nobody), Lint::VoidRestriction));
    assert!(lint_of(&rules(std::slice::from_ref(&nobody)), Lint::ImpossibleValue));
    let mut optional = denied(&nobody);
    optional["identity"] = json!({"peer": "optional"});
    assert!(!lint_of(&optional, Lint::VoidRestriction));
}

#[test]
fn values_that_are_probably_a_mistake() {
    let is_found = |field: &str, value: &str| {
        let with_port = (field == "hosts" && !value.ends_with('*')).then(|| format!("{value}:*"));
        let values: Vec<String> = [value.to_owned()].into_iter().chain(with_port).collect();
        let document = rules(&[call(&json!({field: values}))]);
        found(&document, Target::Http).iter().any(|found| found.ends_with(Lint::ImprobableValue.slug()))
    };
    for (field, value) in [
        ("methods", "get"),
        ("methods", "ANY"),
        ("paths", "/a//b"),
        ("paths", "/a/../b"),
        ("paths", "/a%2fb"),
        ("paths", "/files/[0-9]+"),
        ("paths", "^/private"),
        ("paths", "/private$"),
        ("paths", "/api/(a|b)/.*"),
        ("paths", "/<id>"),
        ("hosts", "${HOST}"),
        ("hosts", ".*.example"),
    ] {
        assert!(is_found(field, value), "{field}: {value}");
    }
    for (field, value) in [
        ("methods", "GET"),
        ("methods", "M-SEARCH"),
        ("paths", "/a/b"),
        ("paths", "/a.b/*"),
        ("paths", "/a/{*}/b/{**}"),
        ("paths", "*.png"),
        ("paths", "/a+b(c)"),
        ("hosts", "*.example"),
        ("hosts", "api.example.*"),
        ("hosts", "[::1]"),
    ] {
        assert!(!is_found(field, value), "{field}: {value}");
    }
}

#[test]
fn every_lint_has_a_case() {
    let mut seen: BTreeSet<Lint> = cases().into_iter().map(|(_, _, lint)| lint).collect();
    seen.extend([
        Lint::HttpOnlyAllow,
        Lint::ZtunnelNoEffect,
        Lint::ZtunnelDeniesMore,
        Lint::ZtunnelAllowsMore,
        Lint::ZtunnelAllowsNoOne,
    ]);
    assert_eq!(seen, Lint::all().collect());
}

#[test]
fn ignored_lints_are_not_reported() {
    let mut here = source(&json!({"principals": ["*"]}));
    let mut elsewhere = here.clone();
    here["policies"][0]["ignoreLints"] = json!([Lint::AnyPrincipal.slug()]);
    assert_eq!(found(&here, Target::Http), [""; 0]);
    let other = json!({"name": "x", "ignoreLints": [Lint::AnyPrincipal.slug()]});
    elsewhere["policies"].as_array_mut().expect("a list").push(other);
    assert_eq!(found(&elsewhere, Target::Http).len(), 1);
}

#[test]
fn a_policy_covers_only_its_own_period() {
    let rule = call(&json!({"methods": ["GET"]}));
    let lints = |first: &Value, second: &Value| {
        let mut policies = json!([{"name": "p", "rules": [rule]}, {"name": "q", "rules": [rule]}]);
        for (policy, fields) in [first, second].into_iter().enumerate() {
            policies[policy].as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        }
        found(&document(&policies), Target::Http)
    };
    let limited = [json!({"expires": "2999-01-01T00:00:00Z"}), json!({"notBefore": "1960-01-01T00:00:00Z"})];
    for limited in &limited {
        assert_eq!(lints(limited, &json!({})), [""; 0], "{limited}");
        assert_eq!(lints(limited, limited).len(), 1, "{limited}");
        // The first policy covers the second one, but is not the same: without it, the denial would end.
        let [shadowed] = &lints(&json!({}), limited)[..] else { panic!("{limited}") };
        assert!(shadowed.ends_with(Lint::ShadowedRule.slug()), "{shadowed}");
    }
}

#[test]
fn similar_conditions_are_not_compared() {
    let same = json!({"from": [{"source": {"serviceAccounts": ["a"], "trustDomains": ["example.org"]}}]});
    let elsewhere = document(&json!([
        {"name": "p", "namespace": "n", "rules": [same]}, {"name": "p", "namespace": "m", "rules": [same]}
    ]));
    assert_eq!(found(&elsewhere, Target::Http), [""; 0]);
    let own = json!({"from": [{"source": {"namespaces": ["a"]}}]});
    let mut foreign = own.clone();
    foreign["when"] = json!([{"key": "source.trustDomain", "values": ["example.io"]}]);
    let lints = found(&rules(&[own.clone(), foreign.clone()]), Target::Http);
    assert!(!lints.iter().any(|lint| lint.contains("shadowed")), "{lints:?}");
    // A condition that only excludes a trust domain does not define the trust domain of a namespace.
    let excluded = json!({"key": "source.trustDomain", "notValues": ["old.example.org"]});
    let mut local = own;
    local["when"] = json!([excluded]);
    foreign["when"].as_array_mut().expect("a list").push(excluded);
    let lints = found(&rules(&[local, foreign]), Target::Http);
    assert!(!lints.iter().any(|lint| lint.contains("shadowed")), "{lints:?}");
}

#[test]
fn a_document_with_errors_has_the_findings_about_its_values() {
    let document = rules(&[json!({"to": [{"operation": {"paths": ["admin", "/x?y"], "methodz": ["get"]}}]})]);
    let text = document.to_string();
    assert!(PolicySet::from_json(text.as_bytes()).is_err());
    let root: Node<'_> = serde_json::from_str(&text).expect("JSON");
    let found: Vec<_> = lint_values(&root).into_iter().map(|finding| (finding.pointer, finding.lint)).collect();
    assert_eq!(found, [(format!("{RULE}/to/0/operation/paths/0"), Lint::ImpossibleValue)]);
}

/// Trust domains that the document does not name can be accepted, so a rule without a caller allows their workloads.
#[test]
fn lints_know_open_federation() {
    let document = |federated: Value, source: Value| {
        json!({
            "trustDomain": "example.org", "federatedTrustDomains": federated, "identity": {"requireValidated": true},
            "policies": [{"name": "p", "namespace": "n", "rules": [{"from": [{"source": source}]}]}]
        })
    };
    let source = "/policies/0/rules/0/from/0/source";
    for federated in [json!("validated"), json!(["*.io"])] {
        let unsaid = document(federated.clone(), json!({"namespaces": ["n"]}));
        assert_eq!(found(&unsaid, Target::Http), [format!("{source}/namespaces trust-domain-unsaid")]);
        let known = document(federated, json!({"principals": ["example.io/ns/n/sa/a"]}));
        assert_eq!(found(&known, Target::Http), [""; 0]);
    }
    let unknown = document(json!(["*.io"]), json!({"principals": ["example.com/ns/n/sa/a"]}));
    assert_eq!(found(&unknown, Target::Http), [format!("{source}/principals/0 unknown-trust-domain")]);
}

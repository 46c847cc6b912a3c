//! What policies decide, field by field.

use crate::support::{GET, Plain, decide};
use serde_json::{Value, json};
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::policy::Policy;

const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";
const ALIAS: &str = "spiffe://old.example.org/ns/default/sa/sleep";
const FOREIGN: &str = "spiffe://example.io/ns/default/sa/sleep";
const CURL: &str = "spiffe://example.org/ns/prod/sa/curl";
const NOBODY: &str = "";

fn policy(policies: &Value) -> Policy {
    let document = json!({
        "trustDomain": "example.org",
        "federatedTrustDomains": ["example.io"],
        "trustDomainAliases": ["old.example.org"],
        "identity": {"peer": "optional"},
        "policies": policies
    });
    Policy::from_json(document.to_string().as_bytes()).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"))
}

/// Whether a rule of `source` or `operation` matches, as an ALLOW policy.
fn allows(rule: &Value, id: &str, request: Plain<'_>) -> bool {
    let policy = policy(&json!([{"name": "p", "namespace": "default", "rules": [rule]}]));
    decide(&policy, id, request).decision.verdict == Verdict::Allow
}

/// The same rule in a DENY policy.
fn denies(rule: &Value, id: &str, request: Plain<'_>) -> bool {
    let policy = policy(&json!([{"name": "p", "namespace": "default", "action": "DENY", "rules": [rule]}]));
    decide(&policy, id, request).decision.verdict != Verdict::Allow
}

#[test]
fn sources() {
    let everyone = [SLEEP, ALIAS, FOREIGN, CURL, NOBODY];
    for (source, allowed) in [
        (json!({"principals": ["example.org/ns/default/sa/sleep"]}), "s...."),
        (json!({"principals": ["example.org/ns/*"]}), "s..c."),
        (json!({"principals": ["*/sa/sleep"]}), "saf.."),
        (json!({"principals": ["*"]}), "safc."),
        (json!({"notPrincipals": ["*/sa/sleep"]}), "...cn"),
        (json!({"notPrincipals": ["*"]}), "....n"),
        (json!({"namespaces": ["default"]}), "sa..."),
        (json!({"namespaces": ["def*"]}), "sa..."),
        (json!({"namespaces": ["*"]}), "sa.c."),
        // Who is kept out is kept out wherever he comes from.
        (json!({"notNamespaces": ["default"]}), "...cn"),
        (json!({"namespaces": ["default"], "trustDomains": ["*"]}), "saf.."),
        (json!({"namespaces": ["default"], "trustDomains": ["example.io"]}), "..f.."),
        (json!({"serviceAccounts": ["sleep"]}), "sa..."),
        (json!({"serviceAccounts": ["default/sleep", "prod/curl"]}), "sa.c."),
        (json!({"serviceAccounts": ["default/sleep"], "trustDomains": ["example.io"]}), "..f.."),
        (json!({"notServiceAccounts": ["sleep"]}), "...cn"),
        (json!({"trustDomains": ["example.org"]}), "s..c."),
        (json!({"trustDomains": ["*.org"]}), "sa.c."),
        (json!({"trustDomains": ["example*"]}), "s.fc."),
        (json!({"notTrustDomains": ["example.io"]}), "sa.cn"),
        (json!({"trustDomains": ["*"], "notTrustDomains": ["example.io"]}), "sa.c."),
        (json!({"principals": ["*"], "notNamespaces": ["prod"]}), "saf.."),
    ] {
        let rule = json!({"from": [{"source": source}]});
        let letters = everyone.iter().zip(["s", "a", "f", "c", "n"]);
        let found: String = letters.map(|(id, letter)| if allows(&rule, id, GET) { letter } else { "." }).collect();
        assert_eq!(found, allowed, "{source}");
    }
}

#[test]
fn what_is_left_unsaid_grants_less() {
    let namespaces = json!({"from": [{"source": {"namespaces": ["default"]}}]});
    assert!(denies(&namespaces, SLEEP, GET) && denies(&namespaces, FOREIGN, GET) && !denies(&namespaces, CURL, GET));
    // `not` in a DENY policy spares somebody: the own trust domain's only.
    let spared = json!({"from": [{"source": {"notNamespaces": ["default"]}}]});
    assert!(!denies(&spared, SLEEP, GET) && denies(&spared, FOREIGN, GET) && denies(&spared, CURL, GET));
    assert!(denies(&spared, NOBODY, GET));
}

#[test]
fn operations() {
    let request = |method, path, authority, port| Plain { method, path, authority, port };
    let get = |path| request("GET", path, "a.example.org", 80);
    for (operation, request, expected) in [
        (json!({"paths": ["/a"]}), get("/a"), true),
        (json!({"paths": ["/a"]}), get("/a?b=/c"), true),
        (json!({"paths": ["/a"]}), get("/A"), false),
        (json!({"paths": ["/a"]}), get("/a/"), false),
        (json!({"paths": ["/a/*"]}), get("/a/b/c"), true),
        (json!({"paths": ["*.png"]}), get("/x/y.png?z"), true),
        (json!({"paths": ["*"]}), get("/"), true),
        (json!({"paths": ["*"]}), get(""), false),
        (json!({"paths": ["/a/{*}/c"]}), get("/a/b/c"), true),
        (json!({"paths": ["/a/{*}/c"]}), get("/a/b/b/c"), false),
        (json!({"paths": ["/a/{**}"]}), get("/a/b/b/c"), true),
        (json!({"paths": ["/a*"], "notPaths": ["/ab"]}), get("/ab"), false),
        (json!({"paths": ["/a*"], "notPaths": ["/ab"]}), get("/ac"), true),
        (json!({"notPaths": ["/a"]}), get(""), true),
        (json!({"methods": ["GET", "HEAD"]}), get("/"), true),
        (json!({"methods": ["get"]}), get("/"), false),
        (json!({"notMethods": ["GET"]}), get("/"), false),
        (json!({"methods": ["*"]}), request("", "/", "", 80), false),
        (json!({"hosts": ["a.example.org"]}), get("/"), true),
        (json!({"hosts": ["A.Example.ORG"]}), request("GET", "/", "a.EXAMPLE.org", 80), true),
        (json!({"hosts": ["*.example.org"]}), get("/"), true),
        (json!({"hosts": ["a.example.org"]}), request("GET", "/", "a.example.org:80", 80), false),
        (json!({"hosts": ["a.example.org:*"]}), request("GET", "/", "a.example.org:80", 80), true),
        (json!({"notHosts": ["a.example.org"]}), request("GET", "/", "", 80), true),
        (json!({"ports": ["80", "81"]}), get("/"), true),
        (json!({"ports": ["8080"]}), get("/"), false),
        (json!({"notPorts": ["80"]}), get("/"), false),
        (json!({"paths": ["/a"], "methods": ["GET"]}), get("/a"), true),
        (json!({"paths": ["/a"], "methods": ["PUT"]}), get("/a"), false),
    ] {
        let rule = json!({"to": [{"operation": operation}]});
        assert_eq!(allows(&rule, SLEEP, request), expected, "{operation} on {request:?}");
        assert_eq!(denies(&rule, SLEEP, request), expected, "{operation} on {request:?}");
    }
}

#[test]
fn any_source_and_any_operation_but_both() {
    let rule = json!({
        "from": [{"source": {"serviceAccounts": ["sleep"]}}, {"source": {"namespaces": ["prod"]}}],
        "to": [{"operation": {"paths": ["/a"]}}, {"operation": {"methods": ["PUT"]}}]
    });
    let request = |method, path| Plain { method, path, ..GET };
    assert!(allows(&rule, SLEEP, request("GET", "/a")));
    assert!(allows(&rule, CURL, request("PUT", "/b")));
    assert!(!allows(&rule, CURL, request("GET", "/b")));
    assert!(!allows(&rule, FOREIGN, request("GET", "/a")));
}

#[test]
fn deny_then_allow_then_the_default() {
    let allow = json!({"name": "allow", "rules": [{"to": [{"operation": {"paths": ["/a*"]}}]}]});
    let deny = json!({"name": "deny", "namespace": "x", "action": "DENY",
                      "rules": [{"to": [{"operation": {"paths": ["/no"]}}]}, {"to": [{"operation": {"paths": ["/ab"]}}]}]});
    let both = policy(&json!([allow, deny]));
    let on = |policy: &Policy, path| {
        let decision = decide(policy, SLEEP, Plain { path, ..GET }).decision;
        let rule = decision.rule.map(|rule| (rule.policy.to_owned(), rule.position));
        (decision.verdict.reason(), rule)
    };
    let rule = |name: &str, position| Some((name.to_owned(), position));
    assert_eq!(on(&both, "/a"), (None, rule("allow", 0)));
    assert_eq!(on(&both, "/ab"), (Some(DenyReason::DeniedByPolicy), rule("x/deny", 1)));
    assert_eq!(on(&both, "/c"), (Some(DenyReason::NoPolicyAllows), None));
    // Without any ALLOW policy, what is not denied passes; an ALLOW policy without rules lets nobody in.
    assert_eq!(on(&policy(&json!([deny])), "/c"), (None, None));
    assert_eq!(on(&policy(&json!([])), "/c"), (None, None));
    assert_eq!(on(&policy(&json!([{"name": "none"}])), "/c"), (Some(DenyReason::NoPolicyAllows), None));
    assert_eq!(on(&policy(&json!([{"name": "all", "rules": [{}]}])), "/c"), (None, rule("all", 0)));
}

#[test]
fn shadow_policies_tell_what_would_be() {
    let allow = json!({"name": "allow", "rules": [{"to": [{"operation": {"paths": ["/a*"]}}]}]});
    let shadow = |action: &str, path: &str| json!({"name": "shadow", "action": action, "mode": "shadow", "rules": [{"to": [{"operation": {"paths": [path]}}]}]});
    let on = |policies: &Value, path| {
        let policy = policy(policies);
        let outcome = decide(&policy, SLEEP, Plain { path, ..GET });
        (outcome.decision.verdict.reason(), outcome.shadow.map(|shadow| shadow.verdict.reason()))
    };
    let (no_policy, by_policy) = (Some(DenyReason::NoPolicyAllows), Some(DenyReason::DeniedByPolicy));
    assert_eq!(on(&json!([allow]), "/a"), (None, None));
    assert_eq!(on(&json!([allow, shadow("DENY", "/a")]), "/a"), (None, Some(by_policy)));
    assert_eq!(on(&json!([allow, shadow("DENY", "/a")]), "/ab"), (None, Some(None)));
    assert_eq!(on(&json!([allow, shadow("ALLOW", "/b")]), "/b"), (no_policy, Some(None)));
    // The first ALLOW policy of a workload, tried out: everything else would be denied.
    assert_eq!(on(&json!([shadow("ALLOW", "/b")]), "/a"), (None, Some(no_policy)));
}

#[test]
fn audit_decides_nothing() {
    let audit = json!({"name": "audit", "action": "AUDIT", "rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]});
    let policy = policy(&json!([audit]));
    let on = |path| decide(&policy, SLEEP, Plain { path, ..GET });
    assert_eq!(on("/a").audit.map(|rule| rule.policy), Some("audit"));
    assert_eq!(on("/a").decision.verdict, Verdict::Allow);
    assert_eq!(on("/b").audit, None);
}

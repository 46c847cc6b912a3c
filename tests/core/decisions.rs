//! The decisions of policies, field by field.

use crate::support::{GET, NOW, Plain, decide};
use serde_json::{Value, json};
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::identity::IdentityReason;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::request::Request;

const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";
const ALIAS: &str = "spiffe://old.example.org/ns/default/sa/sleep";
const FOREIGN: &str = "spiffe://example.io/ns/default/sa/sleep";
const CURL: &str = "spiffe://example.org/ns/prod/sa/curl";
const NOBODY: &str = "";

fn policy(policies: &Value) -> PolicySet {
    let document = json!({
        "trustDomain": "example.org",
        "federatedTrustDomains": ["example.io"],
        "trustDomainAliases": ["old.example.org"],
        "identity": {"peer": "optional"},
        "policies": policies
    });
    PolicySet::from_json(document.to_string().as_bytes()).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"))
}

/// Returns `true` if an ALLOW policy with a rule of this `source` or `operation` allows the request.
fn allows(rule: &Value, id: &str, request: Plain<'_>) -> bool {
    let policy = policy(&json!([{"name": "p", "namespace": "default", "rules": [rule]}]));
    decide(&policy, id, request).decision.verdict == Verdict::Allow
}

/// Returns `true` if a DENY policy with the same rule denies the request.
fn denies(rule: &Value, id: &str, request: Plain<'_>) -> bool {
    let policy = policy(&json!([{"name": "p", "namespace": "default", "action": "DENY", "rules": [rule]}]));
    decide(&policy, id, request).decision.verdict != Verdict::Allow
}

/// Trust domains that the document does not name are accepted as federated ones: a rule without a trust domain allows none of
/// their workloads.
#[test]
fn open_federation() {
    let verdict = |federated: Value, source: Value, id: &str| {
        let document = json!({
            "trustDomain": "example.org", "federatedTrustDomains": federated, "identity": {"requireValidated": true},
            "policies": [{"name": "p", "namespace": "default", "rules": [{"from": [{"source": source}]}]}]
        });
        let policy = PolicySet::from_json(document.to_string().as_bytes()).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
        let subject = policy.subject(policy.identity().identify(Some(id.as_bytes())));
        policy.decide(&subject, &Request::new(GET, NOW)).decision.verdict
    };
    let foreign = |domain: &str| format!("spiffe://{domain}/ns/default/sa/sleep");
    let anyone = || json!({"principals": ["*"]});
    let rejected = Verdict::Deny(DenyReason::Identity(IdentityReason::ForeignTrustDomain));
    let pattern = || json!(["*.partner.example"]);
    for (domain, accepted) in [
        ("a.partner.example", true),
        ("b.a.partner.example", true),
        ("partner.example", false),
        (".partner.example", false),
        ("evilpartner.example", false),
        ("a.partner.example.io", false),
    ] {
        let expected = if accepted { Verdict::Allow } else { rejected };
        assert_eq!(verdict(pattern(), anyone(), &foreign(domain)), expected, "{domain}");
        assert_eq!(verdict(json!("validated"), anyone(), &foreign(domain)), Verdict::Allow, "{domain}");
    }
    for federated in [pattern(), json!("validated")] {
        for source in [json!({"namespaces": ["default"]}), json!({"serviceAccounts": ["sleep"]})] {
            let of = |id: &str| verdict(federated.clone(), source.clone(), id);
            assert_eq!(of(SLEEP), Verdict::Allow);
            assert_eq!(of(&foreign("a.partner.example")), Verdict::Deny(DenyReason::NoPolicyAllows));
        }
        let named = json!({"trustDomains": ["*.partner.example"], "namespaces": ["default"]});
        assert_eq!(verdict(federated, named, &foreign("a.partner.example")), Verdict::Allow);
    }
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
        // A negated namespace applies to every trust domain.
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
fn an_omitted_trust_domain_grants_less_access() {
    let namespaces = json!({"from": [{"source": {"namespaces": ["default"]}}]});
    assert!(denies(&namespaces, SLEEP, GET) && denies(&namespaces, FOREIGN, GET) && !denies(&namespaces, CURL, GET));
    // A negated field in a DENY policy exempts callers of the local trust domain only.
    let spared = json!({"from": [{"source": {"notNamespaces": ["default"]}}]});
    assert!(!denies(&spared, SLEEP, GET) && denies(&spared, FOREIGN, GET) && denies(&spared, CURL, GET));
    assert!(denies(&spared, NOBODY, GET));
}

#[test]
fn operations() {
    let request = |method, path, authority, port| Plain { method, path, authority, port, ..GET };
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

fn when(key: &str, values: &[&str]) -> Value {
    json!({"when": [{"key": key, "values": values}]})
}

fn when_not(key: &str, values: &[&str]) -> Value {
    json!({"when": [{"key": key, "notValues": values}]})
}

#[test]
fn addresses() {
    let request = Plain { source: "10.1.2.3", remote: "203.0.113.9", destination: "::ffff:192.0.2.1", ..GET };
    for (rule, expected) in [
        (json!({"from": [{"source": {"ipBlocks": ["10.1.2.3"]}}]}), true),
        (json!({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}), true),
        (json!({"from": [{"source": {"ipBlocks": ["10.9.9.9/8"]}}]}), true),
        (json!({"from": [{"source": {"ipBlocks": ["203.0.113.0/24", "::/0"]}}]}), false),
        (json!({"from": [{"source": {"notIpBlocks": ["10.0.0.0/8"]}}]}), false),
        (json!({"from": [{"source": {"remoteIpBlocks": ["203.0.113.0/24"]}}]}), true),
        (json!({"from": [{"source": {"notRemoteIpBlocks": ["10.0.0.0/8"]}}]}), true),
        (when("source.ip", &["10.1.0.0/16"]), true),
        (when("remote.ip", &["10.1.0.0/16"]), false),
        (when_not("remote.ip", &["203.0.113.9"]), false),
        (when("destination.ip", &["192.0.2.0/24"]), true),
        (when("destination.port", &["8443"]), true),
        (when_not("destination.port", &["8443"]), false),
    ] {
        assert_eq!(allows(&rule, SLEEP, request), expected, "{rule}");
        assert_eq!(denies(&rule, SLEEP, request), expected, "{rule}");
    }
    let unknown = when_not("source.ip", &["0.0.0.0/0"]);
    assert!(allows(&unknown, SLEEP, GET) && !allows(&when("source.ip", &["0.0.0.0/0"]), SLEEP, GET));
}

#[test]
fn identity_and_server_name_conditions() {
    for (rule, id, expected) in [
        (when("source.principal", &["example.org/ns/default/sa/sleep"]), SLEEP, true),
        (when_not("source.principal", &["*"]), NOBODY, true),
        (when("source.namespace", &["default"]), SLEEP, true),
        (when("source.namespace", &["default"]), FOREIGN, false),
        (when("source.serviceAccount", &["sleep"]), SLEEP, true),
        (when("source.serviceAccount", &["prod/sleep"]), SLEEP, false),
        (when("source.trustDomain", &["example.io"]), FOREIGN, true),
        (when("connection.sni", &["*.example.org"]), SLEEP, true),
        (when("connection.sni", &["*"]), SLEEP, true),
        (when_not("connection.sni", &["a.example.org"]), SLEEP, false),
    ] {
        assert_eq!(allows(&rule, id, Plain { server_name: "a.example.org", ..GET }), expected, "{rule} {id}");
    }
    assert!(!allows(&when("connection.sni", &["*"]), SLEEP, GET));
    // A condition with a trust domain applies to the whole rule.
    let both = json!({"from": [{"source": {"namespaces": ["default"]}}],
                      "when": [{"key": "source.trustDomain", "values": ["example.io"]}]});
    assert!(allows(&both, FOREIGN, GET) && !allows(&both, SLEEP, GET));
    // Conditions are ANDed.
    let all = json!({"when": [{"key": "source.namespace", "values": ["default"]},
                              {"key": "connection.sni", "values": ["a"]}]});
    assert!(!allows(&all, SLEEP, GET) && allows(&all, SLEEP, Plain { server_name: "a", ..GET }));
}

#[test]
fn headers() {
    type Case<'a> = (&'a [(&'a str, &'a str)], [bool; 4], [bool; 4]);
    let cases: [Case<'_>; 7] = [
        // The header lines, and whether `a`, `a*`, `*` and not `a` match, in an ALLOW and a DENY policy.
        (&[], [false, false, false, true], [false, false, false, true]),
        (&[("x", "a")], [true, true, true, false], [true, true, true, false]),
        (&[("x", "")], [false, false, true, true], [false, false, true, true]),
        (&[("x", "A")], [false, false, true, true], [false, false, true, true]),
        (&[("x", "ab"), ("y", "a")], [false, true, true, true], [false, true, true, true]),
        // With several lines, the reading that grants less access applies.
        (&[("x", "a"), ("x", "b")], [false, false, true, false], [true, true, true, true]),
        (&[("x", "a"), ("X", "a")], [true, true, true, false], [true, true, true, false]),
    ];
    let rules = [
        when("request.headers[X]", &["a"]),
        when("request.headers[x]", &["a*"]),
        when("request.headers[x]", &["*"]),
        when_not("request.headers[x]", &["a"]),
    ];
    for (headers, allowed, denied) in cases {
        let request = Plain { headers, ..GET };
        assert_eq!(rules.each_ref().map(|rule| allows(rule, SLEEP, request)), allowed, "ALLOW {headers:?}");
        assert_eq!(rules.each_ref().map(|rule| denies(rule, SLEEP, request)), denied, "DENY {headers:?}");
    }
}

/// Encodes a protobuf field with this content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let size = u8::try_from(content.len() & 0x7f).expect("seven bits");
    let more = u8::try_from(content.len() >> 7).expect("short content");
    [&[number << 3 | 2, size | 0x80, more], content].concat()
}

/// Encodes a Metadata or Struct with strings, lists of strings, and objects.
fn message(value: &Value) -> Vec<u8> {
    let encode = |value: &Value| match value {
        Value::String(text) => field(3, text.as_bytes()),
        Value::Array(items) => {
            let items: Vec<u8> =
                items.iter().flat_map(|item| field(1, &field(3, item.as_str().expect("text").as_bytes()))).collect();
            field(6, &items)
        }
        Value::Object(_) => field(5, &message(value)),
        _ => vec![4 << 3, 1],
    };
    let entries = value.as_object().expect("an object").iter();
    entries
        .flat_map(|(name, value)| field(1, &[field(1, name.as_bytes()), field(2, &encode(value))].concat()))
        .collect()
}

#[test]
fn tokens_and_metadata() {
    let payload = json!({"iss": "https://issuer", "sub": "alice", "aud": ["api", "web"], "azp": "app",
                         "groups": ["dev"], "n": true, "nested": {"role": "admin"}, "a][": "odd"});
    // The structs of filters are entries of the message. Nested structs are values.
    let jwt = field(
        1,
        &[field(1, b"envoy.filters.http.jwt_authn"), field(2, &message(&json!({"payload": payload})))].concat(),
    );
    let other =
        field(1, &[field(1, b"envoy.filters.x"), field(2, &message(&json!({"k": "v", "l": ["v", "w"]})))].concat());
    let metadata = [jwt, other].concat();
    let request = Plain { metadata: &metadata, ..GET };
    let source = |field: &str, value: &str| json!({"from": [{"source": {field: [value]}}]});
    for (rule, expected) in [
        (source("requestPrincipals", "https://issuer/alice"), true),
        (source("requestPrincipals", "*"), true),
        (source("requestPrincipals", "https://issuer/*"), true),
        (source("requestPrincipals", "https://issuer/al*"), true),
        (source("requestPrincipals", "*/alice"), true),
        (source("requestPrincipals", "*issuer/alice"), true),
        (source("requestPrincipals", "*lice"), true),
        (source("requestPrincipals", "https://*"), false),
        (source("requestPrincipals", "https://issuer/bob"), false),
        (source("requestPrincipals", "*/al*"), false),
        (source("notRequestPrincipals", "*"), false),
        (when("request.auth.principal", &["https://issuer/alice"]), true),
        (when("request.auth.audiences", &["web"]), true),
        (when("request.auth.audiences", &["other"]), false),
        (when("request.auth.presenter", &["app"]), true),
        (when("request.auth.claims[groups]", &["dev"]), true),
        (when("request.auth.claims[groups]", &["d*"]), true),
        (when_not("request.auth.claims[groups]", &["dev"]), false),
        (when("request.auth.claims[nested][role]", &["admin"]), true),
        (when("request.auth.claims[nested]", &["*"]), false),
        (when("request.auth.claims[n]", &["*"]), false),
        (when("request.auth.claims[a][]", &["odd"]), true),
        (when("experimental.envoy.filters.x[k]", &["v"]), true),
        (when("experimental.envoy.filters.x[k]", &["[v]"]), false),
        (when("experimental.envoy.filters.x[l]", &["[w]"]), true),
        (when("experimental.envoy.filters.x[l]", &["w"]), false),
        (when_not("experimental.envoy.filters.y[k]", &["v"]), true),
    ] {
        assert_eq!(allows(&rule, SLEEP, request), expected, "{rule}");
    }
    // Without a token, no field of a token matches.
    assert!(!allows(&source("requestPrincipals", "*"), SLEEP, GET));
    assert!(allows(&source("notRequestPrincipals", "*"), SLEEP, GET));
}

#[test]
fn a_rule_needs_one_source_and_one_operation() {
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
    let on = |policy: &PolicySet, path| {
        let decision = decide(policy, SLEEP, Plain { path, ..GET }).decision;
        let rule = decision.rule.map(|rule| (rule.policy.to_owned(), rule.position));
        (decision.verdict.reason(), rule)
    };
    let rule = |name: &str, position| Some((name.to_owned(), position));
    assert_eq!(on(&both, "/a"), (None, rule("allow", 0)));
    assert_eq!(on(&both, "/ab"), (Some(DenyReason::DeniedByPolicy), rule("x/deny", 1)));
    assert_eq!(on(&both, "/c"), (Some(DenyReason::NoPolicyAllows), None));
    // Without an ALLOW policy, every request is allowed that is not denied. An ALLOW policy without rules allows no
    // one.
    assert_eq!(on(&policy(&json!([deny])), "/c"), (None, None));
    assert_eq!(on(&policy(&json!([])), "/c"), (None, None));
    assert_eq!(on(&policy(&json!([{"name": "none"}])), "/c"), (Some(DenyReason::NoPolicyAllows), None));
    assert_eq!(on(&policy(&json!([{"name": "all", "rules": [{}]}])), "/c"), (None, rule("all", 0)));
}

#[test]
fn shadow_policies_are_not_enforced() {
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
    // The first ALLOW policy of a workload in shadow mode would deny everything else.
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

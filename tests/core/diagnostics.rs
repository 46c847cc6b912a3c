//! Every error in a document, with its place and its code.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::PolicySet;

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    PolicySet::from_json(text.as_bytes()).err().unwrap_or_default()
}

fn found(text: &str) -> Vec<(String, &'static str)> {
    diagnostics(text).into_iter().map(|diagnostic| (diagnostic.pointer, diagnostic.code.slug())).collect()
}

fn document(policies: &Value) -> Value {
    json!({"trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "policies": policies})
}

fn with_rule(rule: &Value) -> Value {
    document(&json!([{"name": "p", "namespace": "default", "rules": [rule]}]))
}

fn with_source(source: &Value) -> Value {
    with_rule(&json!({"from": [{"source": source}]}))
}

fn with_operation(operation: &Value) -> Value {
    with_rule(&json!({"to": [{"operation": operation}]}))
}

const SOURCE: &str = "/policies/0/rules/0/from/0/source";
const OPERATION: &str = "/policies/0/rules/0/to/0/operation";

/// The cases of `scope`, `selector` and `targetRefs`.
fn scope_cases(case: &mut impl FnMut(Value, &str, Code)) {
    let named = json!({"rootNamespace": "r", "workload": {"namespace": "n", "labels": {}}});
    let with = |scope: Value, policy: Value| {
        let mut whole = json!({"name": "p", "namespace": "n", "rules": [{}]});
        whole.as_object_mut().expect("an object").extend(policy.as_object().expect("an object").clone());
        json!({"trustDomain": "a", "scope": scope, "policies": [whole]})
    };
    for (scope, pointer, code) in [
        (json!([]), "/scope", Code::WrongType),
        (json!({"workload": named["workload"]}), "/scope/rootNamespace", Code::MissingField),
        (json!({"rootNamespace": "R", "workload": named["workload"]}), "/scope/rootNamespace", Code::InvalidValue),
        (json!({"rootNamespace": "r"}), "/scope", Code::ScopeUnresolved),
        (json!({"rootNamespace": "r", "workload": {"labels": {}}}), "/scope/workload/namespace", Code::MissingField),
        (json!({"rootNamespace": "r", "workload": {"namespace": "n"}}), "/scope/workload/labels", Code::MissingField),
        (
            json!({"rootNamespace": "r", "workload": named["workload"], "delegatedNamespaces": ["m"]}),
            "/scope/delegatedNamespaces",
            Code::ConflictingFields,
        ),
    ] {
        case(with(scope, json!({})), pointer, code);
    }
    let anonymous = json!({"trustDomain": "a", "scope": named, "policies": [{"name": "p", "rules": [{}]}]});
    case(anonymous, "/policies/0/namespace", Code::MissingField);
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"});
    for (policy, pointer, code) in [
        (json!({"selector": {}}), "/selector/matchLabels", Code::MissingField),
        (json!({"selector": {"matchLabels": {}}}), "/selector/matchLabels", Code::Empty),
        (json!({"selector": {"matchLabels": {"app": 1}}}), "/selector/matchLabels/app", Code::WrongType),
        (json!({"selector": {"matchLabels": {"app": "a*"}}}), "/selector/matchLabels/app", Code::InvalidValue),
        (json!({"selector": {"matchLabels": {"*": "a"}}}), "/selector/matchLabels/*", Code::InvalidValue),
        (
            json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [gateway]}),
            "/targetRefs",
            Code::ConflictingFields,
        ),
        (json!({"targetRefs": []}), "/targetRefs", Code::Empty),
        (json!({"targetRefs": [{"kind": "Gateway", "name": "g"}]}), "/targetRefs/0/group", Code::MissingField),
        (
            json!({"targetRefs": [{"group": "core", "kind": "Gateway", "name": "g"}]}),
            "/targetRefs/0/group",
            Code::InvalidValue,
        ),
    ] {
        case(with(named.clone(), policy), &format!("/policies/0{pointer}"), code);
    }
    for kind in ["Service", "ServiceEntry", "gateway"] {
        let target = json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": "g"});
        let policy = json!({"targetRefs": [target]});
        case(with(named.clone(), policy), "/policies/0/targetRefs/0/kind", Code::InvalidValue);
    }
}

/// Documents with one error each, and the expected place and code.
fn cases() -> Vec<(String, String, Code)> {
    let mut cases = Vec::new();
    let mut case = |document: Value, pointer: &str, code| cases.push((document.to_string(), pointer.to_owned(), code));
    let base = document(&json!([]));
    let changed = |pointer: &str, value: Value| {
        let mut document = base.clone();
        document[pointer] = value;
        document
    };
    let policy = |fields: Value| {
        let mut policy = json!({"name": "p", "rules": [{}]});
        for (key, value) in fields.as_object().expect("an object") {
            policy[key] = value.clone();
        }
        document(&json!([policy]))
    };

    case(json!([]), "", Code::WrongType);
    case(json!({"policies": []}), "/trustDomain", Code::MissingField);
    case(json!({"trustDomain": "example.org"}), "/policies", Code::MissingField);
    case(changed("trustDomain", json!("Example.org")), "/trustDomain", Code::InvalidValue);
    case(changed("trustDomain", json!("")), "/trustDomain", Code::Empty);
    case(changed("trustDomain", json!(1)), "/trustDomain", Code::WrongType);
    case(changed("federatedTrustDomains", json!(["a/b"])), "/federatedTrustDomains/0", Code::InvalidValue);
    case(changed("federatedTrustDomains", json!(["example.org"])), "/federatedTrustDomains/0", Code::ConflictingFields);
    let open = |federated: Value, identity: Value| {
        let mut document = changed("federatedTrustDomains", federated);
        document["identity"] = identity;
        document
    };
    let validated = json!({"requireValidated": true});
    for (federated, pointer) in [
        (json!(["*"]), "/federatedTrustDomains/0"),
        (json!(["*.EXAMPLE"]), "/federatedTrustDomains/0"),
        (json!(["*."]), "/federatedTrustDomains/0"),
        (json!(["a", "partner.*"]), "/federatedTrustDomains/1"),
        (json!(["*example"]), "/federatedTrustDomains/0"),
        (json!("any"), "/federatedTrustDomains"),
    ] {
        case(open(federated, validated.clone()), pointer, Code::InvalidValue);
    }
    case(open(json!(["*.a", "*.a"]), validated), "/federatedTrustDomains/1", Code::ConflictingFields);
    let proxy = json!({"from": "xfcc", "trustedProxies": ["example.org/a"], "requireValidated": true});
    for identity in [json!({}), json!({"requireValidated": false}), json!({"from": "peerPrincipal"}), proxy] {
        for federated in [json!("validated"), json!(["a", "*.b"])] {
            case(open(federated, identity.clone()), "/federatedTrustDomains", Code::ConflictingFields);
        }
    }
    case(changed("trustDomainAliases", json!(["*.a"])), "/trustDomainAliases/0", Code::InvalidValue);
    case(changed("trustDomainAliases", json!(["a", "example.io"])), "/trustDomainAliases/1", Code::ConflictingFields);
    case(changed("trustdomain", json!("a")), "/trustdomain", Code::UnknownField);
    case(changed("a/b~c", json!("a")), "/a~1b~0c", Code::UnknownField);
    case(changed("identity", json!({"pattern": "kubernetes"})), "/identity/pattern", Code::InvalidValue);
    case(changed("identity", json!({"from": "xfcc"})), "/identity/trustedProxies", Code::MissingField);
    let proxies = |proxies: Value| changed("identity", json!({"from": "xfcc", "trustedProxies": proxies}));
    case(proxies(json!([])), "/identity/trustedProxies", Code::Empty);
    for wrong in ["spiffe://example.org/a", "example.org", "example.org/*", "*", "Example.org/a", "example.org/a/"] {
        case(proxies(json!([wrong])), "/identity/trustedProxies/0", Code::InvalidValue);
    }
    let idle = json!({"from": "tls", "trustedProxies": ["example.org/a"]});
    case(changed("identity", idle), "/identity/trustedProxies", Code::ConflictingFields);
    let elsewhere = json!({"from": "peerPrincipal", "requireValidated": true});
    case(changed("identity", elsewhere), "/identity/requireValidated", Code::ConflictingFields);
    let identity = |identity: Value| changed("identity", identity);
    case(identity(json!({"expired": "maybe"})), "/identity/expired", Code::InvalidValue);
    for wrong in ["1w", "0s", "1h30m", "-1s", "24"] {
        case(identity(json!({"maxAge": wrong})), "/identity/maxAge", Code::InvalidValue);
    }
    let revoked = |revoked: Value| changed("identity", json!({"revoked": revoked}));
    case(revoked(json!({})), "/identity/revoked", Code::Empty);
    case(revoked(json!({"spiffeIds": []})), "/identity/revoked/spiffeIds", Code::Empty);
    for wrong in ["example.org/a", "spiffe://example.org", "spiffe://example.org/*"] {
        case(revoked(json!({"spiffeIds": [wrong]})), "/identity/revoked/spiffeIds/0", Code::InvalidValue);
    }
    case(revoked(json!({"trustDomains": ["*"]})), "/identity/revoked/trustDomains/0", Code::InvalidValue);
    for (name, wrong) in
        [("serialNumbers", "123"), ("serialNumbers", "0x12"), ("authorityKeyIds", "0a:1"), ("authorityKeyIds", ":")]
    {
        case(revoked(json!({name: [wrong]})), &format!("/identity/revoked/{name}/0"), Code::InvalidValue);
    }
    for from in [json!({"from": "peerPrincipal"}), json!({"from": "xfcc", "trustedProxies": ["example.org/gateway"]})] {
        for (field, value, pointer) in [
            ("expired", json!("deny"), "/identity/expired"),
            ("maxAge", json!("1h"), "/identity/maxAge"),
            ("revoked", json!({"serialNumbers": ["01"]}), "/identity/revoked/serialNumbers"),
            ("revoked", json!({"authorityKeyIds": ["01"]}), "/identity/revoked/authorityKeyIds"),
        ] {
            let mut fields = from.clone();
            fields[field] = value;
            case(identity(fields), pointer, Code::ConflictingFields);
        }
    }
    for wrong in ["/a?b", "/a#b", "/a;b", "/a;*", "*;b", "/{*}/a;b"] {
        case(with_operation(&json!({"paths": [wrong]})), &format!("{OPERATION}/paths/0"), Code::NeverMatches);
    }
    for wrong in ["a@b", "a.", "*.b.", "a.:80"] {
        case(with_operation(&json!({"hosts": [wrong]})), &format!("{OPERATION}/hosts/0"), Code::NeverMatches);
    }
    case(policy(json!({"notBefore": "2026-01-01"})), "/policies/0/notBefore", Code::InvalidValue);
    case(policy(json!({"expires": "2026-02-30T00:00:00Z"})), "/policies/0/expires", Code::InvalidValue);
    let backwards = json!({"notBefore": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:00:00Z"});
    case(policy(backwards), "/policies/0/expires", Code::NeverMatches);
    case(changed("identity", json!({"from": "header"})), "/identity/from", Code::InvalidValue);
    case(changed("identity", json!({"peer": "maybe"})), "/identity/peer", Code::InvalidValue);
    case(changed("identity", json!({"requireValidated": "yes"})), "/identity/requireValidated", Code::WrongType);

    case(document(&json!([{"rules": [{}]}])), "/policies/0/name", Code::MissingField);
    case(policy(json!({"name": "A b"})), "/policies/0/name", Code::InvalidValue);
    case(policy(json!({"namespace": "a/b"})), "/policies/0/namespace", Code::InvalidValue);
    case(policy(json!({"action": "deny"})), "/policies/0/action", Code::InvalidValue);
    case(policy(json!({"action": "CUSTOM"})), "/policies/0/action", Code::Unsupported);
    case(policy(json!({"action": "AUDIT", "mode": "shadow"})), "/policies/0/mode", Code::ConflictingFields);
    case(policy(json!({"mode": "dry-run"})), "/policies/0/mode", Code::InvalidValue);
    case(policy(json!({"selector": {}})), "/policies/0/selector", Code::Unsupported);
    case(policy(json!({"targetRefs": []})), "/policies/0/targetRefs", Code::Unsupported);
    scope_cases(&mut case);
    case(policy(json!({"rule": []})), "/policies/0/rule", Code::UnknownField);
    case(document(&json!([{"name": "p", "action": "DENY"}])), "/policies/0/rules", Code::MissingField);
    case(document(&json!([{"name": "p", "action": "AUDIT"}])), "/policies/0/rules", Code::MissingField);
    case(document(&json!([{"name": "p"}, {"name": "p"}])), "/policies", Code::DuplicatePolicy);

    case(with_rule(&json!({"from": []})), "/policies/0/rules/0/from", Code::Empty);
    case(with_rule(&json!({"to": []})), "/policies/0/rules/0/to", Code::Empty);
    case(with_rule(&json!({"when": []})), "/policies/0/rules/0/when", Code::Empty);
    let when = |condition: Value| with_rule(&json!({"when": [condition]}));
    let condition = "/policies/0/rules/0/when/0";
    case(when(json!({"key": "source.ip"})), &format!("{condition}/values"), Code::MissingField);
    case(when(json!({"values": ["a"]})), &format!("{condition}/key"), Code::MissingField);
    case(when(json!({"key": "source.ip", "values": []})), &format!("{condition}/values"), Code::Empty);
    for key in [
        "source.user",
        "destination.labels",
        "request.headers",
        "request.headers[]",
        "request.headers[a b]",
        "request.headers[a",
        "request.auth.claims",
        "experimental.envoy.filters.a",
        "envoy.filters.a[b]",
    ] {
        case(when(json!({"key": key, "values": ["a"]})), &format!("{condition}/key"), Code::InvalidValue);
    }
    for (key, value, code) in [
        ("source.ip", "x", Code::InvalidValue),
        ("destination.port", "x", Code::InvalidValue),
        ("source.principal", "spiffe://example.org/a", Code::NeverMatches),
        ("source.serviceAccount", "*", Code::InvalidValue),
        ("source.trustDomain", "a/b", Code::InvalidValue),
        ("request.auth.principal", "issuer", Code::NeverMatches),
    ] {
        case(when(json!({"key": key, "notValues": [value]})), &format!("{condition}/notValues/0"), code);
    }
    case(with_rule(&json!({"from": [{}]})), "/policies/0/rules/0/from/0/source", Code::MissingField);
    case(
        with_rule(&json!({"from": [{"source": {"principals": ["*"]}, "principals": ["a"]}]})),
        "/policies/0/rules/0/from/0/principals",
        Code::UnknownField,
    );
    case(with_source(&json!({})), SOURCE, Code::Empty);
    case(with_operation(&json!({})), OPERATION, Code::Empty);
    for (field, value, code) in [
        ("ipBlocks", "10.0.0.0/33", Code::InvalidValue),
        ("notIpBlocks", "10.0.0", Code::InvalidValue),
        ("remoteIpBlocks", "localhost", Code::InvalidValue),
        ("notRemoteIpBlocks", "::1/129", Code::InvalidValue),
        ("requestPrincipals", "issuer", Code::NeverMatches),
        ("notRequestPrincipals", "issuer", Code::NeverMatches),
    ] {
        case(with_source(&json!({field: [value]})), &format!("{SOURCE}/{field}/0"), code);
    }
    for field in ["principals", "notPrincipals", "namespaces", "serviceAccounts", "trustDomains"] {
        case(with_source(&json!({field: []})), &format!("{SOURCE}/{field}"), Code::Empty);
        case(with_source(&json!({field: [""]})), &format!("{SOURCE}/{field}/0"), Code::Empty);
        case(with_source(&json!({field: "x"})), &format!("{SOURCE}/{field}"), Code::WrongType);
    }
    for (field, value, code) in [
        ("principals", "spiffe://example.org/ns/a/sa/b", Code::NeverMatches),
        ("principals", "example.org/ns/a b/sa/c", Code::NeverMatches),
        ("principals", "web", Code::NeverMatches),
        ("notPrincipals", "example.org", Code::NeverMatches),
        ("principals", "example.org/ns//sa/c", Code::NeverMatches),
        ("principals", "EXAMPLE.org/ns/a/sa/c", Code::NeverMatches),
        ("principals", "a*b", Code::NeverMatches),
        ("serviceAccounts", "a/b/c", Code::InvalidValue),
        ("serviceAccounts", "a/", Code::InvalidValue),
        ("serviceAccounts", "*", Code::InvalidValue),
        ("trustDomains", "EXAMPLE.org", Code::InvalidValue),
        ("trustDomains", "a*b", Code::InvalidValue),
    ] {
        case(with_source(&json!({field: [value]})), &format!("{SOURCE}/{field}/0"), code);
    }
    let both = json!({"serviceAccounts": ["a"], "namespaces": ["b"]});
    case(with_source(&both), SOURCE, Code::ConflictingFields);
    let seventeen: Vec<String> = (0..17).map(|number| format!("a{number}")).collect();
    case(with_source(&json!({"serviceAccounts": seventeen})), SOURCE, Code::InvalidValue);
    let homeless = json!([{"name": "p", "rules": [{"from": [{"source": {"serviceAccounts": ["a"]}}]}]}]);
    case(document(&homeless), &format!("{SOURCE}/serviceAccounts/0"), Code::InvalidValue);
    for (field, value, code) in [
        ("ports", "0", Code::InvalidValue),
        ("ports", "65536", Code::InvalidValue),
        ("ports", "+80", Code::InvalidValue),
        ("ports", "http", Code::InvalidValue),
        ("paths", "/a/{**}/{*}", Code::InvalidValue),
        ("paths", "/a{*}", Code::InvalidValue),
    ] {
        case(with_operation(&json!({field: [value]})), &format!("{OPERATION}/{field}/0"), code);
    }
    case(with_operation(&json!({"ports": [80]})), &format!("{OPERATION}/ports/0"), Code::WrongType);
    let mut telling_nothing = with_source(&json!({"namespaces": ["a"]}));
    telling_nothing["identity"] = json!({"pattern": "/workload/{serviceAccount}"});
    case(telling_nothing, &format!("{SOURCE}/namespaces/0"), Code::NeverMatches);
    cases
}

#[test]
fn each_error_has_its_place_and_code() {
    for (text, pointer, code) in cases() {
        assert_eq!(found(&text), [(pointer, code.slug())], "{text}");
    }
}

#[test]
fn every_code_has_a_case() {
    let mut seen: BTreeSet<Code> = cases().into_iter().map(|(_, _, code)| code).collect();
    // These two are errors of the JSON text, so no value can have them.
    seen.extend([Code::Syntax, Code::DuplicateField]);
    assert_eq!(seen, Code::all().collect());
}

#[test]
fn errors_of_the_json_text() {
    for text in ["", " \n", "{", "{\"trustDomain\": \"a\",}", "\u{feff}{}", "nonsense"] {
        assert_eq!(found(text), [(String::new(), "syntax")], "{text:?}");
    }
    let twice = r#"{"trustDomain": "a", "policies": [], "trustDomain": "b"}"#;
    assert_eq!(found(twice), [("/trustDomain".to_owned(), "duplicate-field")]);
}

#[test]
fn a_syntax_error_has_its_position_in_the_document() {
    for text in [
        "{\"trustDomain\": \"a\",\n \"policies\": [\n  {\"name\": \"\\ud800\"}]}",
        "{\"policies\": [],\n \"identity\": {\n  \"peer\": \"\\ud800\"}}",
    ] {
        let errors = PolicySet::from_json(text.as_bytes()).unwrap_err();
        let syntax = errors.iter().find(|error| error.code == Code::Syntax).unwrap();
        assert!(syntax.message.contains("at line 3 column "), "{syntax}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let document = json!({
        "trustDomain": "A", "extra": 1,
        "policies": [
            {"name": 5, "action": "MAYBE", "rules": [{"to": [{"operation": {"paths": [], "ports": ["x", "y"]}}]}]},
            {"namespace": "b", "rules": [{"from": [{"source": {"principals": ["spiffe://a"]}}]}, 7]}
        ]
    });
    let pointers: Vec<String> = found(&document.to_string()).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(
        pointers,
        [
            "/extra",
            "/trustDomain",
            "/policies/0/name",
            "/policies/0/action",
            "/policies/0/rules/0/to/0/operation/paths",
            "/policies/0/rules/0/to/0/operation/ports/0",
            "/policies/0/rules/0/to/0/operation/ports/1",
            "/policies/1/name",
            "/policies/1/rules/0/from/0/source/principals/0",
            "/policies/1/rules/1",
        ]
    );
}

#[test]
fn a_diagnostic_is_one_line_with_help() {
    let lines: Vec<String> =
        diagnostics(r#"{"trustDomain": "example.org", "polices": []}"#).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "/polices: unknown-field: unknown field `polices` (expected one of `trustDomain`, \
         `federatedTrustDomains`, `trustDomainAliases`, `identity`, `outputs`, `scope`, `policies`, `ignoreLints`)",
            "/policies: missing-field: missing field `policies` (add it: the field is required)",
        ]
    );
    for (text, _, _) in cases() {
        for diagnostic in diagnostics(&text) {
            assert!(!diagnostic.help.is_empty() && !diagnostic.to_string().contains('\n'), "{diagnostic}");
        }
    }
}

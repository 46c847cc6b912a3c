//! The JSON Schema and the parser accept and reject the same documents, as far as a schema can express the rules.

use serde_json::{Value, json};
use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::PolicySet;

/// Returns `true` for an error that no schema of this size can express, because it compares values of different fields.
fn is_beyond_schemas(diagnostic: &Diagnostic) -> bool {
    let across_lists = diagnostic.code == Code::ConflictingFields && diagnostic.pointer.contains("rustDomain");
    let homeless = diagnostic.message.ends_with("the policy does not set one");
    let never = diagnostic.message.starts_with("the policy expires before");
    let untold = diagnostic.message.starts_with("`identity.pattern` does not contain");
    let unresolved = diagnostic.code == Code::ScopeUnresolved;
    diagnostic.code == Code::DuplicatePolicy || unresolved || across_lists || homeless || untold || never
}

/// A document with every field.
fn every_field() -> Value {
    let values = |key: &str, value: &str| json!({"key": key, "values": [value], "notValues": [value]});
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "trustDomainAliases": ["old.example.org"],
        "identity": {"pattern": "/{cluster}/ns/{namespace}/sa/{serviceAccount}", "from": "tls", "peer": "optional",
                     "requireValidated": true, "expired": "allow", "maxAge": "24h", "revoked": {
                         "spiffeIds": ["spiffe://example.org/a"], "trustDomains": ["example.io"],
                         "serialNumbers": ["00:0a", "0B"], "authorityKeyIds": ["0a1b", "0A:1B:2C"]}},
        "outputs": {"decision": "both", "caller": "none", "counters": "policy"},
        "ignoreLints": ["any-principal"],
        "policies": [
            {"name": "a", "namespace": "n", "action": "ALLOW", "mode": "shadow", "ignoreLints": [], "rules": [{
                "from": [
                    {"source": {"principals": ["example.org/a", "example.*", "*/b", "*"], "notPrincipals": ["example.org/c"],
                                "namespaces": ["a*b"], "notNamespaces": ["c"], "trustDomains": ["example.org", "*.io", "e*"],
                                "notTrustDomains": ["*"], "requestPrincipals": ["*", "i/s"], "notRequestPrincipals": ["*s"],
                                "ipBlocks": ["10.0.0.1", "10.0.0.0/8", "2001:db8::/32", "::1"],
                                "notIpBlocks": ["10.1.0.0/16"], "remoteIpBlocks": ["0.0.0.0/0"], "notRemoteIpBlocks": ["::/0"]}},
                    {"source": {"serviceAccounts": ["a", "n/b"], "notServiceAccounts": ["c"]}}
                ],
                "to": [{"operation": {"hosts": ["h", "*.h"], "notHosts": ["x"], "ports": ["80"], "notPorts": ["65535"],
                                      "methods": ["GET"], "notMethods": ["PUT"], "paths": ["/a", "/a/{*}/b/{**}", "/{**}/c"],
                                      "notPaths": ["*.png"]}}],
                "when": [
                    values("request.headers[x-a]", "v"), values("source.ip", "10.0.0.0/8"), values("remote.ip", "::1"),
                    values("source.principal", "example.org/a"), values("source.namespace", "n"),
                    values("source.serviceAccount", "n/a"), values("source.trustDomain", "example.io"),
                    values("request.auth.principal", "i/s"), values("request.auth.audiences", "a"),
                    values("request.auth.presenter", "p"), values("request.auth.claims[a][b]", "c"),
                    values("destination.ip", "10.0.0.1"), values("destination.port", "443"),
                    values("connection.sni", "s"), values("experimental.envoy.filters.http.x[k]", "[v]")
                ]
            }]},
            {"name": "b", "action": "DENY", "mode": "enforce", "rules": [{}], "notBefore": "2026-01-01T00:00:00Z",
             "expires": "2026-07-01T00:00:00Z"},
            {"name": "c", "action": "AUDIT", "rules": [{}]},
            {"name": "d"}
        ]
    })
}

const STRINGS: [&str; 54] = [
    "validated",
    "*.a",
    "*.A",
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00+01:00",
    "90m",
    "1w",
    "0s",
    "0a1b",
    "0a:1",
    "spiffe://example.org",
    "spiffe://example.org/x",
    "",
    "*",
    "**",
    "a",
    "A",
    "a*b",
    "*a*",
    "a b",
    "/",
    "a/",
    "/a",
    "a/b",
    "a/b/c",
    "spiffe://a/b",
    "a//b",
    "a/../b",
    "a/.b",
    "0",
    "1",
    "080",
    "65535",
    "65536",
    "99999",
    "+1",
    "10.0.0.1",
    "10.0.0.256",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "::1",
    "::/129",
    "/a/{*}",
    "/a/{**}/{*}",
    "/a{*}",
    "{*}",
    "/{**}x",
    "istio",
    "ALLOW",
    "xfcc",
    "peerPrincipal",
    "source.ip",
    "request.headers[]",
    "source.nothing",
];

/// Every document that differs from `document` in one place.
fn mutants(document: &Value) -> Vec<Value> {
    let mut pointers = Vec::new();
    collect(document, String::new(), &mut pointers);
    let mut mutants = Vec::new();
    for pointer in &pointers {
        let others = [json!(null), json!(true), json!(7), json!([]), json!({}), json!([""]), json!(["a", "a"])];
        for value in others.into_iter().chain(STRINGS.map(Value::from)) {
            let mut mutant = document.clone();
            *mutant.pointer_mut(pointer).expect("a place") = value;
            mutants.push(mutant);
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        for change in ["remove", "add"] {
            let mut mutant = document.clone();
            match (mutant.pointer_mut(parent), change) {
                (Some(Value::Object(fields)), "remove") => drop(fields.remove(name)),
                (Some(Value::Object(fields)), _) => drop(fields.insert("unknown".to_owned(), json!(1))),
                (Some(Value::Array(items)), "remove") => drop(items.remove(name.parse().expect("an index"))),
                (Some(Value::Array(items)), _) => items.extend(vec![items[0].clone(); 17]),
                _ => {}
            }
            mutants.push(mutant);
        }
    }
    mutants
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(value, format!("{at}/{name}"), pointers));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{at}/{index}"), pointers));
        }
        _ => {}
    }
    if !at.is_empty() {
        pointers.push(at);
    }
}

#[test]
fn schema_and_parser_agree() {
    let schema: Value = serde_json::from_str(include_str!("../src/configuration.schema.json")).expect("JSON");
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    let (mut accepted, mut rejected) = (0, 0);
    let document = every_field();
    let mut tunnelled = json!({"trustDomain": "example.org", "identity": {"from": "peerPrincipal"}, "policies": []});
    let mut told = tunnelled.clone();
    tunnelled["identity"]["requireValidated"] = json!(false);
    told["identity"] = json!({"from": "xfcc", "trustedProxies": ["example.org/a/b"], "requireValidated": true});
    let scoped = json!({
        "trustDomain": "a",
        "scope": {"rootNamespace": "r", "workload": {"namespace": "n", "labels": {"a": "", "b": "c"}, "waypoint": true}},
        "policies": [
            {"name": "a", "namespace": "n", "selector": {"matchLabels": {"a": "b"}}},
            {"name": "b", "namespace": "n", "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
                {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}]},
            {"name": "c", "namespace": "n"}
        ]
    });
    // The parser needs a workload, and rejects both together.
    let delegating = json!({
        "trustDomain": "a", "scope": {"rootNamespace": "r", "delegatedNamespaces": ["n", "m"]}, "policies": []
    });
    let mut both = scoped.clone();
    both["scope"]["delegatedNamespaces"] = json!(["m"]);
    let identity = json!({"requireValidated": true, "from": "tls"});
    let validated =
        json!({"trustDomain": "a", "federatedTrustDomains": "validated", "identity": identity, "policies": []});
    let matched =
        json!({"trustDomain": "a", "federatedTrustDomains": ["b", "*.c"], "identity": identity, "policies": []});
    let documents = [document, tunnelled, told, scoped, delegating, both, validated, matched];
    for mutant in documents.iter().flat_map(|document| std::iter::once(document.clone()).chain(mutants(document))) {
        let diagnostics = PolicySet::from_json(mutant.to_string().as_bytes()).err().unwrap_or_default();
        if !diagnostics.is_empty() && diagnostics.iter().all(is_beyond_schemas) {
            continue;
        }
        let errors: Vec<String> =
            schema.iter_errors(&mutant).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert_eq!(
            diagnostics.is_empty(),
            errors.is_empty(),
            "{mutant}\nparser: {diagnostics:#?}\nschema: {errors:#?}"
        );
        if diagnostics.is_empty() { accepted += 1 } else { rejected += 1 }
    }
    assert!(accepted > 1000 && rejected > 3000, "{accepted} accepted, {rejected} rejected: too few");
}

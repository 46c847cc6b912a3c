//! Every field of a policy in a real Envoy, and the logs and counters of the decisions.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, CONNECTION_MANAGER, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, ProtectedServer, Validation};
use spiffe_authz_integration::http::Client;

spiffe_authz_integration::test_with_each_adapter![
    each_field_allows_and_denies,
    a_denial_is_reported_to_client_and_operator,
    decisions_are_counted,
    outputs_are_selected_by_the_document,
    an_optional_peer_can_be_anonymous,
];

fn allow(name: &str, source: &Value, operation: &Value) -> Value {
    json!({"name": name, "namespace": "default", "rules": [{
        "from": [{"source": source}], "to": [{"operation": operation}]
    }]})
}

fn document() -> Value {
    json!({
        "trustDomain": "example.org",
        "federatedTrustDomains": ["example.io"],
        "policies": [
            allow("by-namespace", &json!({"namespaces": ["prod"]}), &json!({"paths": ["/namespace"]})),
            allow("by-account", &json!({"serviceAccounts": ["sleep"]}), &json!({"paths": ["/account"]})),
            allow("by-trust-domain", &json!({"trustDomains": ["example.io"]}), &json!({"paths": ["/trust-domain"]})),
            allow("by-principal", &json!({"principals": ["example.io/ns/prod/sa/web"]}), &json!({"paths": ["/principal"]})),
            allow("by-path", &json!({"principals": ["*"]}), &json!({"paths": ["/files/{*}/raw", "/open/*"]})),
            allow("by-method", &json!({"principals": ["*"]}), &json!({"methods": ["GET"], "paths": ["/method"]})),
            {"name": "no-secrets", "namespace": "default", "action": "DENY",
             "rules": [{"to": [{"operation": {"paths": ["/open/secret"]}}]}]},
            {"name": "watch", "action": "AUDIT", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
            {"name": "strict", "namespace": "default", "action": "DENY", "mode": "shadow",
             "rules": [{"from": [{"source": {"notNamespaces": ["prod"]}}]}]}
        ]
    })
}

const LOCAL_PROD: &str = "spiffe://example.org/ns/prod/sa/web";
const FEDERATED_PROD: &str = "spiffe://example.io/ns/prod/sa/web";
const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";
const OTHER_SLEEP: &str = "spiffe://example.org/ns/other/sa/sleep";

fn each_field_allows_and_denies(adapter: Adapter) -> Result<()> {
    const NONE: &str = "no-policy-allows";
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document())?;
    let cases = [
        // The caller, the method, the path, and the policy that allows or the reason for the denial.
        (LOCAL_PROD, "GET", "/namespace", Ok("default/by-namespace")),
        (SLEEP, "GET", "/namespace", Err(NONE)),
        // The same namespace in a different trust domain is a different namespace.
        (FEDERATED_PROD, "GET", "/namespace", Err(NONE)),
        (SLEEP, "GET", "/account", Ok("default/by-account")),
        (OTHER_SLEEP, "GET", "/account", Err(NONE)),
        (LOCAL_PROD, "GET", "/account", Err(NONE)),
        (FEDERATED_PROD, "GET", "/trust-domain", Ok("default/by-trust-domain")),
        (LOCAL_PROD, "GET", "/trust-domain", Err(NONE)),
        (FEDERATED_PROD, "GET", "/principal", Ok("default/by-principal")),
        (LOCAL_PROD, "GET", "/principal", Err(NONE)),
        (SLEEP, "GET", "/files/x/raw", Ok("default/by-path")),
        (SLEEP, "GET", "/files/x/raw?cooked", Ok("default/by-path")),
        (SLEEP, "GET", "/files/x/y/raw", Err(NONE)),
        (SLEEP, "GET", "/files/raw", Err(NONE)),
        (SLEEP, "POST", "/open/door", Ok("default/by-path")),
        (SLEEP, "POST", "/open/secret", Err("denied-by-policy")),
        (SLEEP, "POST", "/open/./x/..//secret", Err("denied-by-policy")),
        (SLEEP, "GET", "/method", Ok("default/by-method")),
        (SLEEP, "POST", "/method", Err(NONE)),
    ];
    for (count, (id, method, path, expected)) in cases.into_iter().enumerate() {
        let reached = server.fixture.upstream.requests();
        let authority = if id == FEDERATED_PROD { &server.fixture.federated } else { &server.fixture.local };
        let leaf = authority.sign(&Shape::svid(id))?;
        let response = leaf.connect(server.address()?)?.request(method, path, &[])?;
        let log = server.envoy.access_log_of(count + 1)?;
        let line = &log[count];
        assert_eq!(line["peer"], id);
        let what = line["decision"].as_str().and_then(|decision| decision.split(' ').nth(1));
        let what = what.context("no policy and no reason")?;
        let seen = if response.status == 200 { Ok(what) } else { Err(what) };
        assert_eq!(seen, expected, "{id} {method} {path}");
        let forwarded = u64::from(expected.is_ok());
        assert_eq!(server.fixture.upstream.requests(), reached + forwarded, "{id} {method} {path}");
    }
    Ok(())
}

fn a_denial_is_reported_to_client_and_operator(adapter: Adapter) -> Result<()> {
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document())?;
    let mut sleep = server.caller("default", "sleep")?;
    assert_eq!(sleep.get("/account")?.status, 200);
    let denied = sleep.get("/open/secret?x=1")?;
    assert_eq!((denied.status, denied.text().as_str()), (403, "spiffe-authz: access denied"));

    // A gRPC client gets HTTP status 200 and PERMISSION_DENIED.
    let grpc = sleep.request("POST", "/pkg.Service/Method", &[b"content-type: application/grpc"])?;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("7")));
    assert_eq!(grpc.header("grpc-message"), Some("spiffe-authz: access denied"));

    let log = server.envoy.access_log_of(3)?;
    let expected = json!({
        "method": "GET", "path": "/open/secret?x=1", "status": 403,
        "details": "spiffe_authz_denied[denied-by-policy]", "peer": SLEEP,
        "decision": "deny denied-by-policy default/no-secrets 0", "host": "httpbin.example.org",
        "source_ip": "127.0.0.1", "remote_ip": "127.0.0.1", "sni": null,
    });
    let mut line = log[1].clone();
    // The time and the port differ between runs.
    line.as_object_mut().expect("a line is an object").retain(|field, _| field != "time" && field != "port");
    assert_eq!(line, expected);
    assert_eq!(log[0]["decision"], "allow default/by-account 0");
    assert_eq!(log[2]["details"], "spiffe_authz_denied[no-policy-allows]");

    let lines = log_lines(&server.envoy.log()?)?;
    let expected = json!({
        "event": "deny", "mode": "enforce", "reason": "denied-by-policy", "peer": SLEEP, "method": "GET",
        "path": "/open/secret?x=1", "host": "httpbin.example.org", "policy": "default/no-secrets", "rule": 0,
    });
    assert_eq!(lines[1], expected);
    // The shadow policy would deny the allowed request, which is also logged.
    assert_eq!((&lines[0]["mode"], &lines[0]["policy"]), (&json!("shadow"), &json!("default/strict")));
    Ok(())
}

/// Returns the log lines of the filter.
fn log_lines(log: &str) -> Result<Vec<Value>> {
    let texts = log.lines().filter_map(|line| line.get(line.find(r#"{"event":"#)?..));
    texts.map(|text| Ok(serde_json::from_str(text)?)).collect()
}

fn decisions_are_counted(adapter: Adapter) -> Result<()> {
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document())?;
    let mut sleep = server.caller("default", "sleep")?;
    for _ in 0..3 {
        sleep.get("/account")?;
    }
    sleep.request("POST", "/account", &[])?;
    sleep.request("POST", "/nowhere", &[])?;
    let count = |values| server.envoy.stat(&adapter.counter(values));
    assert_eq!(server.envoy.stat(adapter.allowed_counter())?, Some(4));
    assert_eq!(count(["enforce", "deny", "no-policy-allows", "none"])?, Some(1));
    assert_eq!(count(["enforce", "audit", "none", "watch"])?, Some(3));
    assert_eq!(count(["shadow", "deny", "denied-by-policy", "default/strict"])?, Some(5));
    let prometheus = server.envoy.admin("/stats/prometheus")?.text();
    // Envoy adds prefixes to the names of a module's metrics.
    let prefix = if adapter == Adapter::Module { "envoy_dynamicmodulescustom_" } else { "" };
    let line = r#"spiffe_authz_decisions{spiffe_authz_mode="enforce",spiffe_authz_verdict="deny",spiffe_authz_reason="no-policy-allows",spiffe_authz_policy="none"} 1"#;
    let ours: Vec<&str> = prometheus.lines().filter(|line| line.contains("spiffe_authz_decisions{")).collect();
    assert!(ours.contains(&&*format!("{prefix}{line}")), "expected {line} in {ours:#?}");
    Ok(())
}

fn outputs_are_selected_by_the_document(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let facts = ["peer", "trust_domain", "namespace", "service_account", "verdict", "reason", "policy", "rule"];
    let of_sleep = json!([SLEEP, "example.org", "default", "sleep"]);
    let allowed = json!(["allow", null, "default/by-account", "0"]);
    let denied = json!(["deny", "no-policy-allows", null, null]);
    let (summary, none) = (json!("allow default/by-account 0"), json!([null, null, null, null]));
    for (outputs, decision, caller, first, second) in [
        (json!({"decision": "facts"}), Value::Null, &of_sleep, &allowed, &denied),
        (json!({"decision": "both", "caller": "request"}), summary, &of_sleep, &allowed, &denied),
        (json!({"decision": "facts", "caller": "none"}), Value::Null, &none, &allowed, &denied),
    ] {
        let mut document = document();
        document["outputs"] = outputs.clone();
        document["outputs"]["counters"] = json!("policy");
        let pointer = format!("{CONNECTION_MANAGER}/access_log/0/typed_config/log_format/json_format");
        let bootstrap = fixture.bootstrap()?.configuration(&document.to_string())?;
        let mut format = bootstrap.at(&pointer)?.clone();
        for fact in facts {
            format[format!("fact_{fact}")] = json!(match adapter {
                Adapter::Wasm => format!("%FILTER_STATE(wasm.spiffe_authz_{fact}:PLAIN)%"),
                Adapter::Module => format!("%DYNAMIC_METADATA(spiffe_authz:{fact})%"),
            });
        }
        let envoy = Envoy::start(&Start::tested("server")?, &bootstrap.set(&pointer, format)?, fixture.scratch.path())?;
        let mut sleep = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        // Two requests of one connection.
        assert_eq!((sleep.get("/account")?.status, sleep.request("POST", "/nowhere", &[])?.status), (200, 403));
        let log = envoy.access_log_of(2)?;
        assert_eq!(log[0]["decision"], decision, "{outputs}");
        for (line, of_decision) in log.iter().zip([first, second]) {
            let found: Vec<&Value> = facts.iter().map(|fact| &line[&*format!("fact_{fact}")]).collect();
            let expected: Vec<&Value> =
                [caller, of_decision].into_iter().filter_map(Value::as_array).flatten().collect();
            assert_eq!(found, expected, "{outputs}: {line}");
        }
        let counter = adapter.counter(["enforce", "allow", "none", "default/by-account"]);
        assert_eq!(envoy.stat(&counter)?, Some(1), "{outputs}");
        assert!(envoy.stat(adapter.allowed_counter())?.is_none_or(|count| count == 0), "{outputs}");
    }
    Ok(())
}

fn an_optional_peer_can_be_anonymous(adapter: Adapter) -> Result<()> {
    let mut document = document();
    document["identity"] = json!({"peer": "optional"});
    let health = json!({"name": "health", "rules": [{"to": [{"operation": {"paths": ["/health"]}}]}]});
    document["policies"].as_array_mut().expect("a list").push(health);
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let bootstrap = fixture
        .bootstrap()?
        .configuration(&document.to_string())?
        .set(&format!("{TLS}/require_client_certificate"), json!(false))?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut nobody = Client::tls(envoy.address()?, client_config(None)?)?;
    assert_eq!(nobody.get("/health")?.status, 200);
    assert_eq!(nobody.get("/open/door")?.status, 403);
    let log = envoy.access_log_of(2)?;
    assert_eq!((&log[0]["peer"], &log[0]["decision"]), (&Value::Null, &json!("allow health 0")));
    assert_eq!(log[1]["decision"], "deny no-policy-allows");
    Ok(())
}

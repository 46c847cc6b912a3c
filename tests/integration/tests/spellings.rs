//! The settings of the examples' connection manager that normalize attributes, in a real Envoy.

use anyhow::Result;
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fixture::{ProtectedServer, Validation};

spiffe_authz_integration::test_with_each_adapter![
    a_caller_does_not_choose_its_remote_address,
    a_header_name_has_one_spelling,
    a_host_has_one_spelling,
];

/// Starts the example with these policies: name, action and rules.
fn server(adapter: Adapter, policies: &[(&str, &str, Value)]) -> Result<ProtectedServer> {
    let policy = |(name, action, rules): &(&str, &str, Value)| json!({"name": name, "action": action, "rules": rules});
    let policies: Vec<Value> = policies.iter().map(policy).collect();
    ProtectedServer::start(adapter, Validation::Spiffe, &json!({"trustDomain": "example.org", "policies": policies}))
}

fn a_caller_does_not_choose_its_remote_address(adapter: Adapter) -> Result<()> {
    let at = |path: &str, mut rule: Value| {
        rule["to"] = json!([{"operation": {"paths": [path]}}]);
        json!([rule])
    };
    let source = |field: &str, block: &str| json!({"from": [{"source": {field: [block]}}]});
    let condition = json!({"when": [{"key": "remote.ip", "values": ["203.0.113.0/24"]}]});
    let server = server(
        adapter,
        &[
            ("blocks", "ALLOW", at("/blocks", source("remoteIpBlocks", "203.0.113.0/24"))),
            ("condition", "ALLOW", at("/condition", condition)),
            ("negated", "ALLOW", at("/negated", source("notRemoteIpBlocks", "127.0.0.0/8"))),
            ("all", "ALLOW", at("/denied", json!({}))),
            ("denied", "DENY", at("/denied", source("remoteIpBlocks", "127.0.0.0/8"))),
            ("control", "ALLOW", at("/control", source("remoteIpBlocks", "127.0.0.0/8"))),
        ],
    )?;
    let mut client = server.caller("default", "sleep")?;
    let claims: [&[&[u8]]; 5] = [
        &[],
        &[b"x-forwarded-for: 203.0.113.7"],
        &[b"x-forwarded-for: 203.0.113.7, 203.0.113.7"],
        &[b"x-forwarded-for: 203.0.113.7", b"x-forwarded-for: 203.0.113.7"],
        &[b"x-envoy-external-address: 203.0.113.7", b"x-real-ip: 203.0.113.7", b"forwarded: for=203.0.113.7"],
    ];
    for claim in claims {
        for (path, status) in
            [("/blocks", 403), ("/condition", 403), ("/negated", 403), ("/denied", 403), ("/control", 200)]
        {
            assert_eq!(client.request("GET", path, claim)?.status, status, "{path} with {claim:?}");
        }
    }
    Ok(())
}

fn a_header_name_has_one_spelling(adapter: Adapter) -> Result<()> {
    let denied = json!([{"when": [{"key": "request.headers[x-role]", "values": ["guest"]}]}]);
    let server = server(adapter, &[("all", "ALLOW", json!([{}])), ("denied", "DENY", denied)])?;
    for (header, status) in [
        (&b"x-role: guest"[..], 403),
        // CGI servers do not distinguish `x_role` from `x-role`.
        (b"x_role: guest", 400),
        (b"X_Role: guest", 400),
        (b"x-role: admin", 200),
        (b"x-other: under_score", 200),
    ] {
        // Envoy closes the connection of a request that it rejects.
        let mut client = server.caller("default", "sleep")?;
        let header_text = String::from_utf8_lossy(header);
        assert_eq!(client.request("GET", "/", &[header])?.status, status, "{header_text}");
    }
    assert_eq!(server.fixture.upstream.requests(), 2);
    Ok(())
}

fn a_host_has_one_spelling(adapter: Adapter) -> Result<()> {
    let denied = json!([{"to": [{"operation": {"hosts": ["secret.example", "secret.example:*"]}}]}]);
    let server = server(adapter, &[("all", "ALLOW", json!([{}])), ("denied", "DENY", denied)])?;
    let mut client = server.caller("default", "sleep")?;
    for (host, status) in [
        ("secret.example", 403),
        ("secret.example.", 403),
        ("secret.example:80", 403),
        ("secret.example.:80", 403),
        ("SECRET.example.", 403),
        ("public.example", 200),
        ("public.example.", 200),
    ] {
        assert_eq!(client.request_of(host, "GET", "/", &[])?.status, status, "{host}");
    }
    Ok(())
}

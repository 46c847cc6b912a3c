//! Fields and conditions other than method, path and host, in a real Envoy.

use anyhow::Result;
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, ProtectedServer, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::token::{METADATA, TokenKey, metadata_filter};

spiffe_authz_integration::test_with_each_adapter![
    headers_line_by_line,
    addresses_and_server_name,
    without_filter_state_addresses_are_denied,
    verified_tokens,
];

/// Returns one policy for each rule. Each rule has the path `/<its number>`.
fn document(rules: &[Value]) -> Value {
    let policies: Vec<Value> = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| {
            let mut rule = rule.clone();
            rule["to"] = json!([{"operation": {"paths": [format!("/{number}")]}}]);
            json!({"name": format!("p{number}"), "namespace": "default", "rules": [rule]})
        })
        .collect();
    json!({"trustDomain": "example.org", "policies": policies})
}

fn when(key: &str, values: &[&str]) -> Value {
    json!({"when": [{"key": key, "values": values}]})
}

fn source(field: &str, value: &str) -> Value {
    json!({"from": [{"source": {field: [value]}}]})
}

/// Returns the rules that allow a request with these headers.
fn admitted(client: &mut Client, count: usize, headers: &[&[u8]]) -> Result<Vec<usize>> {
    let mut admitted = Vec::new();
    for number in 0..count {
        if client.request("GET", &format!("/{number}"), headers)?.status == 200 {
            admitted.push(number);
        }
    }
    Ok(admitted)
}

fn headers_line_by_line(adapter: Adapter) -> Result<()> {
    let rules = [
        when("request.headers[x-role]", &["admin"]),
        when("request.headers[X-Role]", &["a*"]),
        when("request.headers[x-role]", &["*"]),
        json!({"when": [{"key": "request.headers[x-role]", "notValues": ["admin"]}]}),
        when("request.headers[:method]", &["GET"]),
    ];
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document(&rules))?;
    let mut client = server.caller("default", "sleep")?;
    let mut with = |headers: &[&[u8]]| admitted(&mut client, rules.len(), headers);
    assert_eq!(with(&[])?, [3, 4]);
    assert_eq!(with(&[b"x-role: admin"])?, [0, 1, 2, 4]);
    assert_eq!(with(&[b"x-role: admin", b"x-role: nobody"])?, [2, 4]);
    // A line with a comma is equivalent to two lines, so every member must match.
    assert_eq!(with(&[b"x-role: admin,nobody"])?, [2, 4]);
    assert_eq!(with(&[b"x-role: abc, admin"])?, [1, 2, 4]);
    assert_eq!(with(&[b"x-role: guest, nobody"])?, [2, 3, 4]);
    assert_eq!(with(&[b"x-role:"])?, [2, 3, 4]);
    assert_eq!(with(&[b"x-role: \xff\xfe", b"x-other: \x80"])?, [2, 3, 4]);
    Ok(())
}

fn addresses_and_server_name(adapter: Adapter) -> Result<()> {
    let rules = [
        source("ipBlocks", "127.0.0.0/8"),
        source("ipBlocks", "203.0.113.0/24"),
        source("remoteIpBlocks", "203.0.113.0/24"),
        when("destination.ip", &["127.0.0.1"]),
        when("source.ip", &["127.0.0.1"]),
        when("remote.ip", &["127.0.0.1"]),
        json!({"when": [{"key": "connection.sni", "notValues": ["*"]}]}),
    ];
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document(&rules))?;
    let mut client = server.caller("default", "sleep")?;
    let forwarded: &[&[u8]] = &[b"x-forwarded-for: 203.0.113.7"];
    for headers in [&[][..], forwarded] {
        assert_eq!(admitted(&mut client, rules.len(), headers)?, [0, 3, 4, 5, 6], "{headers:?}");
    }

    // With a trusted hop, Envoy reads the remote address from a header of the proxy.
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let bootstrap = fixture.bootstrap()?.configuration(&document(&rules).to_string())?;
    let bootstrap = bootstrap.connection_manager(json!({"xff_num_trusted_hops": 1}))?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut proxy = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!(admitted(&mut proxy, rules.len(), &[])?, [0, 3, 4, 5, 6]);
    assert_eq!(admitted(&mut proxy, rules.len(), forwarded)?, [0, 2, 3, 4, 6]);
    Ok(())
}

fn without_filter_state_addresses_are_denied(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let rules = [json!({"from": [{"source": {"notIpBlocks": ["10.0.0.0/8"]}}]})];
    let state = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/on_new_connection";
    let bootstrap = fixture.bootstrap()?.configuration(&document(&rules).to_string())?.set(state, json!([]))?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!(client.get("/0")?.status, 403);
    assert_eq!(envoy.access_log_of(1)?[0]["decision"], "deny request-unreadable");
    Ok(())
}

fn verified_tokens(adapter: Adapter) -> Result<()> {
    let rules = [
        source("requestPrincipals", "https://issuer.example/alice"),
        source("requestPrincipals", "*"),
        json!({"from": [{"source": {"notRequestPrincipals": ["*"]}}]}),
        when("request.auth.audiences", &["api"]),
        when("request.auth.claims[groups]", &["dev"]),
        when("request.auth.claims[realm][roles]", &["admin"]),
        when("request.auth.claims[level]", &["*"]),
        when("experimental.envoy.filters.http.set_metadata[zone]", &["a*"]),
    ];
    let key = TokenKey::new()?;
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let bootstrap = fixture.bootstrap()?.configuration(&document(&rules).to_string())?;
    let filters = vec![key.filter(&["https://issuer.example"]), metadata_filter(&json!({"zone": "abc"}))];
    let bootstrap = bootstrap.filters_before(filters, &METADATA)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;

    assert_eq!(admitted(&mut client, rules.len(), &[])?, [2, 7]);
    let token = key.sign(json!({
        "iss": "https://issuer.example", "sub": "alice", "aud": ["web", "api"],
        "groups": ["dev", 5], "realm": {"roles": ["admin"]}, "level": 7
    }))?;
    let authorization = format!("authorization: Bearer {token}");
    assert_eq!(admitted(&mut client, rules.len(), &[authorization.as_bytes()])?, [0, 1, 3, 4, 5, 7]);
    Ok(())
}

//! Sources of the caller's identity other than the client certificate of the connection: HBONE and a trusted proxy.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Leaf, Name, Shape};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CLIENT_TLS, CONNECTION_MANAGER, FILTERS, TCP_FILTER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::http2::{Tunnel, canceled_connect};
use spiffe_authz_integration::tcp::{Database, First};
use spiffe_authz_integration::wait;

spiffe_authz_integration::test_with_each_adapter![
    a_canceled_connect_leaves_no_identity,
    a_connection_and_its_requests_have_their_own_callers,
    a_request_without_an_identity_inherits_none,
];

const LIMIT: Duration = Duration::from_secs(20);
const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";
const CURL: &str = "spiffe://example.org/ns/default/sa/curl";
const GATEWAY: &str = "spiffe://example.org/ns/edge/sa/gateway";

/// Returns the caller of the last request, and the policy that allows it or the reason for the denial, from the access log.
fn last_line(envoy: &Envoy, count: usize) -> Result<(Value, Value)> {
    let lines = envoy.access_log_of(count)?;
    let line = lines.last().context("no line")?;
    let what = line["decision"].as_str().and_then(|decision| decision.split(' ').nth(1));
    Ok((line["peer"].clone(), json!(what)))
}

/// An Envoy that opens HBONE tunnels to `server` with this certificate.
fn tunnel_client(fixture: &Fixture, name: &str, leaf: &Leaf, server: &Envoy) -> Result<Envoy> {
    let certificate = fixture.scratch.write(&format!("{name}.secret.json"), &leaf.secret())?;
    let bootstrap = Bootstrap::tunnel_client(server.address()?.port())?.secrets_at(
        CLIENT_TLS,
        &certificate,
        &fixture.scratch.join("validation.json"),
    )?;
    Envoy::start(&Start::tested(name)?, &bootstrap, fixture.scratch.path())
}

fn tunnel_server(fixture: &Fixture) -> Result<Bootstrap> {
    let (certificate, validation) = (fixture.scratch.join("certificate.json"), fixture.scratch.join("validation.json"));
    Bootstrap::tunnel_server(Adapter::Wasm, fixture.upstream.port())?.secrets(&certificate, &validation)
}

#[test]
fn over_hbone_the_caller_is_the_one_that_opened_the_stream() -> Result<()> {
    // With pooled authorities, a certificate with several URIs reaches the filter.
    let fixture = Fixture::new(Adapter::Wasm, Validation::Pooled)?;
    // Headers with underscores must reach the filter.
    let underscores = "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config/common_http_protocol_options/headers_with_underscores_action";
    let bootstrap = tunnel_server(&fixture)?.set(underscores, json!("ALLOW"))?;
    let server = Envoy::start(&Start::tested("tunnel-server")?, &bootstrap, fixture.scratch.path())?;
    let two_names = Shape { names: vec![Name::uri(SLEEP), Name::uri(CURL)], ..Shape::svid(SLEEP) };
    let federated = "spiffe://example.io/ns/default/sa/sleep";
    let cases = [
        ("sleep", fixture.leaf("default", "sleep")?, json!(SLEEP), "default/sleep-reads"),
        ("curl", fixture.leaf("default", "curl")?, json!(CURL), "no-policy-allows"),
        ("federated", fixture.federated.sign(&Shape::svid(federated))?, json!(federated), "no-policy-allows"),
        ("two-names", fixture.local.sign(&two_names)?, json!(null), "peer-principal-several"),
        ("no-workload", fixture.local.sign(&Shape::svid("spiffe://example.org/x"))?, json!(null), "wrong-pattern"),
    ];
    for (count, (name, leaf, peer, what)) in (1..).zip(cases) {
        let client = tunnel_client(&fixture, name, &leaf, &server)?;
        // A header of the inner request is an ordinary header.
        let forged = [format!("io.istio.peer_principal: {SLEEP}"), format!("x-forwarded-client-cert: URI={SLEEP}")];
        let forged = forged.each_ref().map(|line| line.as_bytes());
        let status = Client::plain(client.address()?)?.request("GET", "/status/200", &forged)?.status;
        assert_eq!(status, if what.contains('/') { 200 } else { 403 }, "{name}");
        assert_eq!(last_line(&server, count)?, (peer, json!(what)), "{name}");
    }
    Ok(())
}

#[test]
fn without_a_principal_from_hbone_everything_is_denied() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let filters = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
    let bootstrap = tunnel_server(&fixture)?;
    let router = bootstrap.at(&format!("{filters}/1"))?.clone();
    let bootstrap = bootstrap.set(filters, json!([router]))?;
    let server = Envoy::start(&Start::tested("tunnel-server")?, &bootstrap, fixture.scratch.path())?;
    let client = tunnel_client(&fixture, "sleep", &fixture.leaf("default", "sleep")?, &server)?;
    assert_eq!(Client::plain(client.address()?)?.get("/status/200")?.status, 403);
    assert_eq!(last_line(&server, 1)?, (json!(null), json!("peer-principal-missing")));
    Ok(())
}

/// The canceled CONNECT leaves an idle connection to the inner listener in Envoy's pool. With filter state that Envoy
/// cannot hash, the next caller would get this connection with the identity of the first one.
fn a_canceled_connect_leaves_no_identity(adapter: Adapter) -> Result<()> {
    const INNER: &str = "httpbin:80";
    const ATTEMPTS: usize = 12;
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let (certificate, validation) = (fixture.scratch.join("certificate.json"), fixture.scratch.join("validation.json"));
    let bootstrap = Bootstrap::tunnel_server(adapter, fixture.upstream.port())?;
    let bootstrap = bootstrap.every_secret(&certificate, &validation)?;
    let server = Envoy::start(&Start::tested("tunnel-server")?, &bootstrap, fixture.scratch.path())?;
    let (sleep, stranger) = (fixture.leaf("default", "sleep")?, fixture.leaf("other", "stranger")?);
    let status =
        |leaf: &Leaf| -> Result<u16> { Ok(Tunnel::open(server.address()?, leaf, INNER)?.client().get("/x")?.status) };
    assert_eq!((status(&stranger)?, status(&sleep)?), (403, 200), "without a canceled CONNECT");
    let mut log = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let _open = canceled_connect(server.address()?, &sleep, INNER)?;
        wait::until("the CONNECT is canceled", LIMIT, || {
            let reset = server.stat("http.tunnel.downstream_rq_rx_reset")?;
            Ok((reset >= Some(attempt.try_into()?)).then_some(()))
        })?;
        assert_eq!((status(&stranger)?, status(&sleep)?), (403, 200), "attempt {attempt}");
        log = server.access_log_of(2 * attempt + 2)?;
    }
    let peers: Vec<&Value> = log.iter().map(|line| &line["peer"]).collect();
    let pair = [json!("spiffe://example.org/ns/other/sa/stranger"), json!(SLEEP)];
    assert_eq!(peers, pair.iter().cycle().take(2 * ATTEMPTS + 2).collect::<Vec<_>>());
    Ok(())
}

/// `max_connection_duration` alone waits for the streams of a connection, and a CONNECT stream does not end by itself.
#[test]
fn an_hbone_stream_ends_after_the_duration_of_the_example() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let duration = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/common_http_protocol_options/max_stream_duration";
    let lasting = tunnel_server(&fixture)?;
    let short = lasting.clone().set(duration, json!("1s"))?;
    for (name, bootstrap, ends) in [("short", short, true), ("lasting", lasting, false)] {
        let server = Envoy::start(&Start::tested(name)?, &bootstrap, fixture.scratch.path())?;
        let mut client = Tunnel::open(server.address()?, &fixture.leaf("default", "sleep")?, "httpbin:80")?.client();
        assert_eq!(client.get("/x")?.status, 200, "{name}");
        let begun = std::time::Instant::now();
        let ended = wait::until("the end of the CONNECT stream", Duration::from_secs(4), || {
            Ok(client.get("/x").is_err().then_some(begun.elapsed()))
        });
        assert_eq!(ended.is_ok(), ends, "{name}: {ended:?}");
    }
    Ok(())
}

/// The Envoy of a workload that trusts the gateway. `forward` configures how it forwards the header.
fn protected(fixture: &Fixture, forward: &Value) -> Result<Envoy> {
    Envoy::start(&Start::tested("protected")?, &protection(fixture, forward)?, fixture.scratch.path())
}

fn protection(fixture: &Fixture, forward: &Value) -> Result<Bootstrap> {
    let document = json!({
        "trustDomain": "example.org",
        "identity": {"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]},
        "policies": [{"name": "sleep", "namespace": "default", "rules": [
            {"from": [{"source": {"serviceAccounts": ["sleep"]}}]}
        ]}]
    });
    fixture.bootstrap()?.configuration(&document.to_string())?.connection_manager(forward.clone())
}

/// Adds the filter state with the caller to the access log, as `connection_peer` and `request_peer`.
fn logging_filter_state(bootstrap: Bootstrap, adapter: Adapter) -> Result<Bootstrap> {
    let pointer = format!("{CONNECTION_MANAGER}/access_log/0/typed_config/log_format/json_format");
    let mut fields = bootstrap.at(&pointer)?.clone();
    // Envoy adds the prefix to the filter state of Wasm filters.
    let prefix = if adapter == Adapter::Wasm { "wasm." } else { "" };
    for (field, state) in [("connection_peer", "spiffe_authz_connection_peer"), ("request_peer", "spiffe_authz_peer")] {
        fields[field] = json!(format!("%FILTER_STATE({prefix}{state}:PLAIN)%"));
    }
    bootstrap.set(&pointer, fields)
}

/// The gateway of the examples. `reports` configures how it reports its callers.
fn gateway(fixture: &Fixture, server: &Envoy, reports: &Value) -> Result<Envoy> {
    let leaf = fixture.local.sign(&Shape::svid(GATEWAY))?;
    let certificate = fixture.scratch.write("gateway.secret.json", &leaf.secret())?;
    let validation = fixture.scratch.join("validation.json");
    let bootstrap = Bootstrap::gateway(Adapter::Wasm, server.address()?)?
        .secrets(&certificate, &validation)?
        .secrets_at(CLIENT_TLS, &certificate, &validation)?
        .connection_manager(reports.clone())?;
    Envoy::start(&Start::tested("gateway")?, &bootstrap, fixture.scratch.path())
}

fn sanitize_set() -> Value {
    json!({"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": true}})
}

fn forward_only() -> Value {
    json!({"forward_client_cert_details": "FORWARD_ONLY"})
}

/// A header with which a client claims to be `sleep`.
const FORGED: &[u8] = b"x-forwarded-client-cert: \
    By=spiffe://example.org/ns/edge/sa/gateway;URI=spiffe://example.org/ns/default/sa/sleep";

#[test]
fn a_trusted_gateway_reports_its_callers() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let server = protected(&fixture, &forward_only())?;
    let gateway = gateway(&fixture, &server, &sanitize_set())?;
    let connect = |account: &str| fixture.leaf("default", account)?.connect(gateway.address()?);
    let (mut sleep, mut curl) = (connect("sleep")?, connect("curl")?);
    // Callers alternate on the gateway's connections. Each request has its own caller.
    for round in 0..3 {
        assert_eq!(sleep.request("GET", "/a", &[])?.status, 200);
        assert_eq!(last_line(&server, round * 3 + 1)?, (json!(SLEEP), json!("default/sleep")));
        assert_eq!(curl.request("GET", "/a", &[])?.status, 403);
        assert_eq!(last_line(&server, round * 3 + 2)?, (json!(CURL), json!("no-policy-allows")));
        // The gateway overwrites the header of the client.
        assert_eq!(curl.request("GET", "/a", &[FORGED])?.status, 403);
        assert_eq!(last_line(&server, round * 3 + 3)?, (json!(CURL), json!("no-policy-allows")));
    }
    Ok(())
}

#[test]
fn the_header_of_an_untrusted_proxy_is_ignored() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let server = protected(&fixture, &forward_only())?;
    for (count, account) in (1..).zip(["sleep", "curl", "gateway"]) {
        let status =
            fixture.leaf("default", account)?.connect(server.address()?)?.request("GET", "/a", &[FORGED])?.status;
        assert_eq!(status, 403, "{account}");
        assert_eq!(last_line(&server, count)?, (json!(null), json!("untrusted-proxy")), "{account}");
    }
    Ok(())
}

#[test]
fn wrong_header_settings_deny_everything() -> Result<()> {
    let append =
        json!({"forward_client_cert_details": "APPEND_FORWARD", "set_current_client_cert_details": {"uri": true}});
    let cases = [
        // The settings of the workload's Envoy and of the gateway, the header of the client, and the expected result.
        (
            forward_only(),
            vec![
                (json!({"forward_client_cert_details": "SANITIZE"}), vec![], "xfcc-missing"),
                (json!({"forward_client_cert_details": "SANITIZE_SET"}), vec![], "xfcc-no-uri"),
                (append.clone(), vec![FORGED], "xfcc-several-elements"),
            ],
        ),
        (json!({"forward_client_cert_details": "SANITIZE"}), vec![(sanitize_set(), vec![], "xfcc-missing")]),
        (sanitize_set(), vec![(sanitize_set(), vec![], "xfcc-not-by-proxy")]),
        (append, vec![(sanitize_set(), vec![], "xfcc-several-elements")]),
    ];
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    for (forwards, gateways) in cases {
        let server = protected(&fixture, &forwards)?;
        for (count, (reports, claims, reason)) in (1..).zip(gateways) {
            let gateway = gateway(&fixture, &server, &reports)?;
            let mut sleep = fixture.leaf("default", "sleep")?.connect(gateway.address()?)?;
            assert_eq!(sleep.request("GET", "/a", &claims)?.status, 403, "{reason}");
            assert_eq!(last_line(&server, count)?, (json!(null), json!(reason)), "{reports} {forwards}");
        }
    }
    Ok(())
}

/// Connects as the gateway, which is a trusted proxy.
fn connect_as_gateway(fixture: &Fixture, server: &Envoy) -> Result<Client> {
    fixture.local.sign(&Shape::svid(GATEWAY))?.connect(server.address()?)
}

/// Returns the server that trusts the gateway, with the filter state of both layers in the access log. The second one
/// also has the network filter before the HTTP filter, and allows the gateway's connections.
fn without_and_with_network_filter(fixture: &Fixture) -> Result<[Envoy; 2]> {
    let bootstrap = logging_filter_state(protection(fixture, &forward_only())?, fixture.adapter)?;
    // The TCP example has the network filter and the filter state that it needs.
    let document = json!({"trustDomain": "example.org", "policies": [{"name": "gateway", "namespace": "edge", "rules": [
        {"from": [{"source": {"principals": ["example.org/ns/edge/sa/gateway"]}}]}
    ]}]});
    let tcp = fixture.tcp_bootstrap(&Database::start(First::Client)?)?.tcp_configuration(&document.to_string())?;
    let mut filters = bootstrap.at(FILTERS)?.as_array().context("no filters")?.clone();
    if fixture.adapter == Adapter::Module {
        let handshake = "on_downstream_tls_handshake";
        filters[0]["typed_config"][handshake] = tcp.at(&format!("{FILTERS}/0/typed_config/{handshake}"))?.clone();
    }
    filters.insert(1, tcp.at(TCP_FILTER)?.clone());
    let without = Envoy::start(&Start::tested("without")?, &bootstrap, fixture.scratch.path())?;
    let with = Envoy::start(&Start::tested("with")?, &bootstrap.set(FILTERS, json!(filters))?, fixture.scratch.path())?;
    Ok([without, with])
}

/// The layers set filter state with different keys, so that neither overwrites the other.
fn a_connection_and_its_requests_have_their_own_callers(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let servers = without_and_with_network_filter(&fixture)?;
    for (server, connection_peer) in servers.iter().zip([json!(null), json!(GATEWAY)]) {
        assert_eq!(connect_as_gateway(&fixture, server)?.request("GET", "/a", &[FORGED])?.status, 200);
        let line = server.access_log_of(1)?.remove(0);
        let seen = (&line["connection_peer"], &line["request_peer"], &line["peer"]);
        assert_eq!(seen, (&connection_peer, &json!(SLEEP), &json!(SLEEP)), "{line}");
    }
    Ok(())
}

/// A request inherits nothing from the previous request on its connection, or from the connection.
fn a_request_without_an_identity_inherits_none(adapter: Adapter) -> Result<()> {
    const FIELDS: [&str; 3] = ["peer", "request_peer", "decision"];
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    for server in without_and_with_network_filter(&fixture)? {
        let mut gateway = connect_as_gateway(&fixture, &server)?;
        assert_eq!(gateway.request("GET", "/a", &[FORGED])?.status, 200);
        assert_eq!(gateway.request("GET", "/a", &[])?.status, 403);
        let lines = server.access_log_of(2)?;
        for (line, expected) in lines
            .iter()
            .zip([[Some(SLEEP), Some(SLEEP), Some("allow default/sleep 0")], [None, None, Some("deny xfcc-missing")]])
        {
            assert_eq!(FIELDS.map(|field| line[field].as_str()), expected, "{line}");
        }
        assert_eq!(server.stat("http.inbound.downstream_cx_total")?, Some(1));
    }
    Ok(())
}

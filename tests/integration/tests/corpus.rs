//! The filter in a real Envoy decides the tables of tests/corpus.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use spiffe_authz::case::{Case, CaseRequest};
use spiffe_authz::policy::Layer;
use spiffe_authz_integration::authority::{Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, CONNECTION_MANAGER, SERVER_PORT, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::port::ReservedPort;
use spiffe_authz_integration::tcp::{Database, First, echoes};
use spiffe_authz_integration::token::{METADATA, TokenKey, metadata_filter};

spiffe_authz_integration::test_with_each_adapter![every_case_is_decided_as_expected];

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    layer: Layer,
    configuration: Value,
    cases: Vec<Case>,
}

fn every_case_is_decided_as_expected(adapter: Adapter) -> Result<()> {
    // The SPIFFE validator would reject some of the identities before the filter sees them.
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let mut cases = 0;
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            cases += run_table(&fixture, &path).with_context(|| path.display().to_string())?;
        }
    }
    ensure!(cases > 300, "only {cases} cases");
    Ok(())
}

fn run_table(fixture: &Fixture, path: &Path) -> Result<usize> {
    // The port in a table is the port of the listener.
    let reserved = ReservedPort::new()?;
    let port = reserved.number();
    let text = fs::read_to_string(path)?.replace(&SERVER_PORT.to_string(), &port.to_string());
    let table: Table = serde_json::from_str(&text)?;
    let key = TokenKey::new()?;
    let database = Database::start(First::Client)?;
    let envoy = match table.layer {
        Layer::Http => start(fixture, &table, port, &key)?,
        Layer::Tcp => start_tcp(fixture, &table, port, &database)?,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for (position, case) in table.cases.iter().enumerate() {
        let allowed = match table.layer {
            Layer::Http => request(fixture, address, &case.request, &key),
            Layer::Tcp => client(fixture, address, &case.request).and_then(echoes),
        };
        let verdict = if allowed.with_context(|| case.name.clone())? { "allow" } else { "deny" };
        ensure!(verdict == case.expect.verdict.slug(), "{}: {verdict}", case.name);
        if table.layer == Layer::Tcp {
            // A connection is logged at its end. Wait, because the next connection can end before it.
            envoy.access_log_of(position + 1)?;
        }
    }
    let lines = envoy.access_log_of(table.cases.len())?;
    for (case, line) in table.cases.iter().zip(&lines) {
        let mut words = line["decision"].as_str().with_context(|| format!("no decision: {line}"))?.split(' ');
        let reason = words.next().filter(|verdict| *verdict == "deny").and_then(|_| words.next());
        let (policy, rule) = (words.next(), words.next());
        let expect = &case.expect;
        for (expected, found) in [
            (expect.reason.as_deref(), reason),
            (expect.policy.as_deref(), policy),
            (expect.rule.map(|rule| rule.to_string()).as_deref(), rule),
        ] {
            if let Some(expected) = expected {
                ensure!(found == Some(expected), "{}: expected {expected}: {line}", case.name);
            }
        }
    }
    Ok(table.cases.len())
}

fn start(fixture: &Fixture, table: &Table, port: u16, key: &TokenKey) -> Result<Envoy> {
    let bootstrap = fixture
        .bootstrap()?
        .configuration(&table.configuration.to_string())?
        .set("/static_resources/listeners/0/address/socket_address/port_value", json!(port))?
        .set(&format!("{CONNECTION_MANAGER}/normalize_path"), json!(false))?
        .set(&format!("{CONNECTION_MANAGER}/merge_slashes"), json!(false))?
        .set(&format!("{CONNECTION_MANAGER}/path_with_escaped_slashes_action"), json!("KEEP_UNCHANGED"))?
        // Each caller comes through a trusted proxy, which reports the remote address. Paths reach the filter
        // unchanged.
        .connection_manager(json!({
            "xff_num_trusted_hops": 1,
            "strip_trailing_host_dot": false,
            "common_http_protocol_options": {"headers_with_underscores_action": "ALLOW"},
        }))?
        .set(&format!("{TLS}/require_client_certificate"), json!(false))?;
    let bootstrap = match table.configuration["identity"]["from"].as_str() {
        Some("xfcc") => bootstrap.connection_manager(json!({"forward_client_cert_details": "FORWARD_ONLY"}))?,
        Some("peerPrincipal") => bootstrap.set(SET_FILTER_STATE, peer_principal())?,
        _ => bootstrap,
    };
    let mut filters = Vec::new();
    let issuers: Vec<&str> =
        table.cases.iter().filter_map(|case| case.request.claims.as_ref()?.get("iss")?.as_str()).collect();
    filters.extend(issuers.first().map(|issuer| key.filter(&[issuer])));
    let metadata = table.cases.iter().find_map(|case| case.request.metadata.get("envoy.filters.http.set_metadata"));
    filters.extend(metadata.map(metadata_filter));
    let bootstrap = bootstrap.filters_before(filters, &METADATA)?;
    Envoy::start(&Start::tested("corpus")?, &bootstrap, fixture.scratch.path())
}

/// The JSON pointer of the network filter that sets filter state.
const SET_FILTER_STATE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// Sets the filter state that HBONE sets, from this connection.
fn peer_principal() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
        "on_downstream_tls_handshake": [{
            "object_key": "io.istio.peer_principal", "factory_key": "envoy.hashable_string",
            "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_PEER_URI_SAN%"}}
        }]
    })
}

fn start_tcp(fixture: &Fixture, table: &Table, port: u16, database: &Database) -> Result<Envoy> {
    let bootstrap = fixture
        .tcp_bootstrap(database)?
        .tcp_configuration(&table.configuration.to_string())?
        .set("/static_resources/listeners/0/address/socket_address/port_value", json!(port))?
        .set(&format!("{TLS}/require_client_certificate"), json!(false))?;
    Envoy::start(&Start::tested("corpus")?, &bootstrap, fixture.scratch.path())
}

/// Connects as the caller of a case.
fn client(fixture: &Fixture, address: SocketAddr, request: &CaseRequest) -> Result<Client> {
    let leaf = match &request.peer {
        None => None,
        Some(id) if id.starts_with("spiffe://example.io/") => Some(fixture.federated.sign(&Shape::svid(id))?),
        Some(id) => Some(fixture.local.sign(&Shape::svid(id))?),
    };
    let source = request.source_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // The config requires a static server name.
    let server = request.sni.clone().map(|name| &*name.leak());
    Client::tls_from(source, address, client_config(leaf.as_ref())?, server)
}

/// Sends the request of a case. Returns `true` if it is allowed.
fn request(fixture: &Fixture, address: SocketAddr, request: &CaseRequest, key: &TokenKey) -> Result<bool> {
    let mut client = client(fixture, address, request)?;
    let host = request.host.as_deref().unwrap_or("corpus.example");
    let mut text = format!("{} {} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n", request.method, request.path);
    for (name, lines) in &request.headers {
        lines.as_slice().iter().for_each(|line| text.push_str(&format!("{name}: {line}\r\n")));
    }
    if let Some(client) = request.remote_ip {
        text.push_str(&format!("x-forwarded-for: {client}\r\n"));
    }
    if let Some(claims) = &request.claims {
        text.push_str(&format!("authorization: Bearer {}\r\n", key.sign(json!(claims))?));
    }
    let status = client.raw(format!("{text}\r\n").as_bytes())?.status;
    ensure!(matches!(status, 200 | 403), "status {status}");
    Ok(status == 200)
}

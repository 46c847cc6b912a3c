//! Every file of examples/bootstrap has the settings that protect its users.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use spiffe_authz_integration::authority::client_config;
use spiffe_authz_integration::bootstrap::{
    ADMIN_PORT, Adapter, Bootstrap, CONNECTION_MANAGER, DATABASE_PORT, MODULE, SERVER_HOST, TLS, UPSTREAM_PORT, WASM,
    examples,
};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::tools;

const CONNECTION_MANAGER_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";

/// The longest allowed handshake, in seconds.
const MAX_HANDSHAKE: u64 = 30;
/// The longest allowed connection, in seconds. SPIRE's SVIDs are valid for an hour by default, and are renewed after
/// half of it.
const MAX_CONNECTION: u64 = 1800;

/// The names of all Envoy configurations, such as `server/envoy.yaml`.
fn names() -> Result<Vec<String>> {
    let (mut folders, mut names) = (vec![examples()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                names.push(path.strip_prefix(examples())?.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    ensure!(names.len() >= 10, "only {names:?}");
    Ok(names)
}

fn value(bootstrap: &Bootstrap) -> Result<Value> {
    Ok(serde_json::from_str(&bootstrap.to_json())?)
}

#[test]
fn every_example_has_the_protective_settings() -> Result<()> {
    for name in names()? {
        assert_eq!(omissions(&value(&Bootstrap::example(&name)?)?), [""; 0], "{name}");
    }
    Ok(())
}

#[test]
fn an_omitted_setting_is_found() -> Result<()> {
    let options = format!("{CONNECTION_MANAGER}/common_http_protocol_options");
    let tcp_proxy = format!("{CHAIN}/filters/2/typed_config");
    let retry = format!(
        "{TLS}/common_tls_context/tls_certificate_sds_secret_configs/0/sds_config/api_config_source/grpc_services/0/envoy_grpc"
    );
    let cluster = format!("/static_resources/clusters/0/typed_extension_protocol_options/{HTTP_OPTIONS}");
    let cases = [
        ("server/envoy.yaml", CHAIN, "transport_socket_connect_timeout"),
        ("server/envoy.yaml", CHAIN, "transport_socket"),
        ("server/envoy.yaml", TLS, "require_client_certificate"),
        ("server/envoy.yaml", TLS, "disable_stateless_session_resumption"),
        ("server/envoy.yaml", TLS, "disable_stateful_session_resumption"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "use_remote_address"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "strip_trailing_host_dot"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "normalize_path"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "merge_slashes"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "path_with_escaped_slashes_action"),
        ("server/envoy.yaml", CONNECTION_MANAGER, "common_http_protocol_options"),
        ("server/envoy.yaml", &options, "headers_with_underscores_action"),
        ("server/envoy.yaml", &options, "max_connection_duration"),
        ("server/envoy.yaml", &retry, "retry_policy"),
        ("tcp/envoy.yaml", &tcp_proxy, "max_downstream_connection_duration"),
        ("tcp/envoy.yaml", CHAIN, "transport_socket_connect_timeout"),
        ("client/envoy.yaml", &cluster, "common_http_protocol_options"),
        ("client/envoy.yaml", "/static_resources/clusters/0", "typed_extension_protocol_options"),
        ("tunnel/server/envoy.yaml", &format!("{CHAIN}/filters/0/typed_config"), "use_remote_address"),
        (
            "tunnel/server/envoy.yaml",
            "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config",
            "merge_slashes",
        ),
    ];
    for (name, pointer, field) in cases {
        let without = Bootstrap::example(name)?.without(pointer, field)?;
        assert!(!omissions(&value(&without)?).is_empty(), "{name}: {field} can be omitted");
    }
    for (name, pointer, set) in [
        ("server/envoy.yaml", format!("{CHAIN}/transport_socket_connect_timeout"), json!("31s")),
        ("server/envoy.yaml", format!("{options}/max_connection_duration"), json!("1801s")),
        (
            "tunnel/server/envoy.yaml",
            format!("{CHAIN}/filters/0/typed_config/http_filters/0/typed_config/on_request_headers/0/factory_key"),
            json!("envoy.string"),
        ),
    ] {
        let changed = Bootstrap::example(name)?.set(&pointer, set)?;
        assert!(!omissions(&value(&changed)?).is_empty(), "{name}: {pointer}");
    }
    Ok(())
}

/// The settings that an Envoy configuration omits or sets wrong.
fn omissions(bootstrap: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for listener in items(&bootstrap["static_resources"]["listeners"]) {
        listener_omissions(listener, &mut found);
    }
    for cluster in items(&bootstrap["static_resources"]["clusters"]) {
        let options = &cluster["typed_extension_protocol_options"][HTTP_OPTIONS]["common_http_protocol_options"];
        if cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls" {
            let duration = &options["max_connection_duration"];
            require(&mut found, at_most(duration, MAX_CONNECTION), &cluster["name"], "max_connection_duration");
        }
    }
    visit(bootstrap, &mut |value| {
        if value.get("envoy_grpc").is_some() {
            // Envoy's default interval of 30 s is longer than a short-lived SVID is valid.
            let back_off = &value["envoy_grpc"]["retry_policy"]["retry_back_off"];
            require(&mut found, at_most(&back_off["max_interval"], 5), &value["envoy_grpc"], "retry_back_off");
        }
        if value.get("shared_with_upstream").is_some() {
            let hashable = value["factory_key"] == "envoy.hashable_string";
            require(&mut found, hashable, &value["object_key"], "envoy.hashable_string");
        }
        require(&mut found, value.get("read_only").is_none(), value, "no read_only, which is deprecated");
    });
    found
}

fn listener_omissions(listener: &Value, found: &mut Vec<String>) {
    let place = &listener["name"];
    let internal = listener.get("internal_listener").is_some();
    // Listeners on loopback are for the workload itself.
    let guarded = listener["address"]["socket_address"]["address"] != "127.0.0.1";
    for chain in items(&listener["filter_chains"]) {
        if guarded && !internal {
            let tls = &chain["transport_socket"]["typed_config"];
            let timeout = &chain["transport_socket_connect_timeout"];
            require(found, at_most(timeout, MAX_HANDSHAKE), place, "transport_socket_connect_timeout");
            for field in [
                "require_client_certificate",
                "disable_stateless_session_resumption",
                "disable_stateful_session_resumption",
            ] {
                require(found, tls[field] == true, place, field);
            }
        }
        for filter in items(&chain["filters"]).map(|filter| &filter["typed_config"]) {
            if filter["@type"] == TCP_PROXY_TYPE {
                let duration = &filter["max_downstream_connection_duration"];
                require(found, at_most(duration, MAX_CONNECTION), place, "max_downstream_connection_duration");
            }
            if filter["@type"] == CONNECTION_MANAGER_TYPE && guarded {
                manager_omissions(filter, place, found);
            }
        }
    }
}

fn manager_omissions(manager: &Value, place: &Value, found: &mut Vec<String>) {
    let options = &manager["common_http_protocol_options"];
    let duration = &options["max_connection_duration"];
    require(found, manager["use_remote_address"] == true, place, "use_remote_address");
    require(found, at_most(duration, MAX_CONNECTION), place, "max_connection_duration");
    let underscores = options["headers_with_underscores_action"] == "REJECT_REQUEST";
    require(found, underscores, place, "headers_with_underscores_action");
    if items(&manager["upgrade_configs"]).any(|upgrade| upgrade["upgrade_type"] == "CONNECT") {
        // A CONNECT stream carries connections, so its duration must be limited, too.
        require(found, at_most(&options["max_stream_duration"], MAX_CONNECTION), place, "max_stream_duration");
        return;
    }
    for field in ["normalize_path", "merge_slashes", "strip_trailing_host_dot"] {
        require(found, manager[field] == true, place, field);
    }
    let slashes = manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST";
    require(found, slashes, place, "path_with_escaped_slashes_action");
}

fn require(found: &mut Vec<String>, holds: bool, place: &Value, what: &str) {
    if !holds {
        found.push(format!("{place}: {what}"));
    }
}

/// Returns `true` if this is a duration such as `900s`, of at most this number of seconds.
fn at_most(duration: &Value, seconds: u64) -> bool {
    let text = duration.as_str().and_then(|text| text.strip_suffix('s'));
    text.and_then(|text| text.parse::<u64>().ok()).is_some_and(|found| found <= seconds)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn visit(value: &Value, visitor: &mut impl FnMut(&Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| visit(item, visitor)),
        Value::Object(fields) => {
            visitor(value);
            fields.values().for_each(|field| visit(field, visitor));
        }
        _ => {}
    }
}

/// Returns an example with the path of the built filter, if it has the filter.
fn in_place(name: &str) -> Result<Bootstrap> {
    let mut bootstrap = Bootstrap::example(name)?;
    for (place, variable) in [(WASM, tools::WASM), (MODULE, tools::MODULE)] {
        if bootstrap.to_json().contains(place) {
            bootstrap = bootstrap.text(place, &tools::path(variable)?.to_string_lossy())?;
        }
    }
    Ok(bootstrap)
}

#[test]
fn every_example_is_valid_without_deprecated_fields() -> Result<()> {
    let scratch = Scratch::new()?;
    for name in names()? {
        let (accepted, log) = Envoy::validate(&in_place(&name)?, scratch.path())?;
        assert!(accepted && !log.to_lowercase().contains("deprecated"), "{name}:\n{log}");
    }
    // The check can fail.
    let broken = Bootstrap::example("client/envoy.yaml")?.set("/static_resources/clusters/0/type", json!("NONE"))?;
    assert!(!Envoy::validate(&broken, scratch.path())?.0);
    let state = format!("{CHAIN}/filters/0/typed_config/on_new_connection/0");
    let mut deprecated = in_place("server/envoy.yaml")?.at(&state)?.clone();
    deprecated["read_only"] = json!(true);
    let (_, log) = Envoy::validate(&in_place("server/envoy.yaml")?.set(&state, deprecated)?, scratch.path())?;
    assert!(log.to_lowercase().contains("deprecated"), "{log}");
    Ok(())
}

/// An example whose callers are remote, with a caller that stalls in the handshake and one that completes it.
struct Server {
    name: String,
    envoy: Envoy,
    stalled: TcpStream,
    since: Instant,
    complete: Client,
}

fn servers(fixture: &Fixture) -> Result<Vec<Server>> {
    let (certificate, validation) = (fixture.scratch.join("certificate.json"), fixture.scratch.join("validation.json"));
    let mut servers = Vec::new();
    for name in names()? {
        let mut bootstrap = in_place(&name)?;
        if !bootstrap.to_json().contains("0.0.0.0") {
            continue;
        }
        for (upstream, port) in [(UPSTREAM_PORT, fixture.upstream.port()), (DATABASE_PORT, fixture.upstream.port())] {
            bootstrap = bootstrap.clone().port(upstream, port).unwrap_or(bootstrap);
        }
        bootstrap = bootstrap.clone().text(SERVER_HOST, "127.0.0.1").unwrap_or(bootstrap);
        let bootstrap = bootstrap.text("0.0.0.0", "127.0.0.1")?.listening_on(0)?.port(ADMIN_PORT, 0)?;
        let bootstrap = bootstrap.every_secret(&certificate, &validation)?;
        let log_name = name.replace(['/', '.'], "-");
        let envoy = Envoy::start(&Start::tested(&log_name)?, &bootstrap, fixture.scratch.path())?;
        let config = client_config(Some(&fixture.leaf("default", "sleep")?))?;
        let complete = Client::tls(envoy.address()?, config.clone())?;
        let mut stalled = TcpStream::connect(envoy.address()?)?;
        rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(SERVER_HOST)?)?.write_tls(&mut stalled)?;
        servers.push(Server { name, envoy, stalled, since: Instant::now(), complete });
    }
    Ok(servers)
}

#[test]
fn a_caller_that_stalls_in_the_handshake_is_disconnected() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let mut servers = servers(&fixture)?;
    assert!(servers.len() >= 7, "only {} servers", servers.len());
    for server in &mut servers {
        let closed = wait_for_end(&mut server.stalled, server.since + Duration::from_secs(MAX_HANDSHAKE));
        closed.with_context(|| server.name.clone())?;
    }
    let last = servers.last().context("no servers")?;
    assert!(last.since.elapsed() > Duration::from_secs(5), "the handshakes were rejected before the timeout");
    for server in &mut servers {
        let answer = server.complete.get("/status/200");
        answer.with_context(|| format!("{}: the complete handshake timed out", server.name))?;
        server.envoy.process().check_running()?;
    }
    Ok(())
}

/// Reads until the server closes the connection.
fn wait_for_end(stream: &mut TcpStream, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the connection is still open");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
            // These bytes are the server's part of the handshake.
            Ok(_) => {}
        }
    }
}

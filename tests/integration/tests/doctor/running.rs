//! Findings about the running filter, with the requests that show that they are right.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;

use crate::support::{Listeners, at, filter, healthy, wait_for};

/// Wasm whose hook for request headers traps: `(func (export "proxy_on_request_headers") … unreachable)`.
const TRAPPING: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x10\x03\x60\0\0\x60\x03\x7f\x7f\x7f\x01\x7f\x60\x01\x7f\x01\x7f\
    \x03\x04\x03\0\x01\x02\
    \x05\x03\x01\0\x01\
    \x07\x5a\x04\
    \x06memory\x02\0\
    \x17proxy_abi_version_0_2_1\0\0\
    \x18proxy_on_request_headers\0\x01\
    \x18proxy_on_memory_allocate\0\x02\
    \x0a\x0e\x03\x02\0\x0b\x03\0\0\x0b\x05\0\x41\x80\x08\x0b";

#[test]
fn a_vm_that_fails_is_reported() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let mut listeners = Listeners::of(&bootstrap)?;
    let config = |field: &str| filter(&format!("/typed_config/config/{field}"));
    let code = json!({"local": {"inline_bytes": STANDARD.encode(TRAPPING)}});
    for (name, policy) in [("reload", "FAIL_RELOAD"), ("open", "FAIL_OPEN"), ("closed", "FAIL_CLOSED")] {
        // The counters are those of `config.name`. Filters with the same ID and code share a VM.
        let changes = [("name", json!(name)), ("failure_policy", json!(policy)), ("vm_config/vm_id", json!(name))];
        let mut changes: Vec<(String, Value)> =
            changes.into_iter().map(|(field, value)| (config(field), value)).collect();
        changes.push((config("vm_config/code"), code.clone()));
        let changes: Vec<(&str, Value)> =
            changes.iter().map(|(pointer, value)| (pointer.as_str(), value.clone())).collect();
        listeners.add(name, &changes)?;
    }
    let bootstrap = listeners.into(bootstrap)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let leaf = fixture.leaf("default", "sleep")?;
    // The first request makes the VM fail, and the second one needs it.
    for (name, status) in [("reload", 503), ("closed", 503), ("open", 200)] {
        let mut last = None;
        for _ in 0..2 {
            last = Some(leaf.connect(address_of(&envoy, name)?)?.get("/private")?.status);
        }
        assert_eq!(last, Some(status), "{name}");
    }
    let wanted: &[(&str, &[&str])] =
        &[("reload", &["filter-failing"]), ("open", &["filter-fail-open"]), ("closed", &["filter-stays-down"])];
    let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
    let fine = answer.report["fine"].to_string();
    assert!(fine.contains("is configured for `example.org`") && !fine.contains("decides for"), "{fine}");
    Ok(())
}

/// A listener waits for the code of its filter, from a server that accepts the connection and does not respond.
#[test]
fn a_listener_that_waits_for_code_is_reported() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let registry = TcpListener::bind(("127.0.0.1", 0))?;
    let endpoint = json!({"endpoint": {"address": {"socket_address": {
        "address": "127.0.0.1", "port_value": registry.local_addr()?.port()
    }}}});
    let cluster = json!({
        "name": "registry", "type": "STATIC",
        "load_assignment": {"cluster_name": "registry", "endpoints": [{"lb_endpoints": [endpoint]}]}
    });
    let bootstrap = healthy(&fixture)?;
    let mut clusters = bootstrap.at("/static_resources/clusters")?.as_array().cloned().context("a list")?;
    clusters.push(cluster);
    let good = bootstrap.set("/static_resources/clusters", json!(clusters))?;
    let (bootstrap, content) = good.clone().watched_listeners(&fixture.scratch.join("listeners.json"))?;
    fixture.scratch.write("listeners.json", &content)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    wait_for(&envoy, fixture.scratch.path(), &[])?;

    let remote = json!({"remote": {
        "http_uri": {"uri": "http://registry/filter.wasm", "cluster": "registry", "timeout": "60s"},
        "sha256": "0".repeat(64)
    }});
    let update = good.set(&filter("/typed_config/config/vm_config/code"), remote)?;
    fixture.scratch.write("listeners.json", &update.listeners_file()?)?;
    let waiting: &[&str] = &["listener-warming", "filter-not-loaded"];
    let answer = wait_for(&envoy, fixture.scratch.path(), &[("inbound", waiting)])?;
    let findings = answer.report["findings"].as_array().context("a list")?;
    let warming = findings.iter().find(|finding| finding["code"] == "listener-warming").context("a finding")?;
    assert_eq!(warming["consequenceOf"], "filter-not-loaded", "{warming}");
    Ok(())
}

/// A denied caller bypasses the filter with an upgrade that has filters of its own, unless Envoy rejects the upgrade.
#[test]
fn an_upgrade_with_its_own_filters_bypasses_the_filter() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let manager = |field: &str| at(CONNECTION_MANAGER, field);
    let filters = bootstrap.at(&manager("http_filters"))?.as_array().cloned().context("a list")?;
    let router = filters.last().context("the router")?;
    let upgrade = |enabled: bool| json!([{"upgrade_type": "websocket", "enabled": enabled, "filters": [router]}]);
    let route = manager("route_config/virtual_hosts/0/routes/0/route/upgrade_configs");
    let on_route = json!([{"upgrade_type": "WebSocket"}]);
    let mut listeners = Listeners::of(&bootstrap)?;
    listeners.add("enabled", &[(&manager("upgrade_configs"), upgrade(true))])?;
    listeners.add("disabled", &[(&manager("upgrade_configs"), upgrade(false))])?;
    listeners.add("on-route", &[(&manager("upgrade_configs"), upgrade(false)), (&route, on_route)])?;
    let bootstrap = listeners.into(bootstrap)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let leaf = fixture.leaf("default", "sleep")?;
    for (name, status) in [("enabled", 200), ("disabled", 403), ("on-route", 200)] {
        let address = address_of(&envoy, name)?;
        let with_upgrade =
            |mut client: Client| client.request("GET", "/private", &[b"connection: upgrade", b"upgrade: websocket"]);
        assert_eq!(leaf.connect(address)?.get("/private")?.status, 403, "{name}");
        assert_eq!(with_upgrade(leaf.connect(address)?)?.status, status, "{name}");
    }
    let unguarded: &[&str] = &["upgrade-unguarded"];
    wait_for(&envoy, fixture.scratch.path(), &[("enabled", unguarded), ("on-route", unguarded)])?;
    Ok(())
}

/// Returns the address of the listener with this name.
fn address_of(envoy: &Envoy, name: &str) -> Result<SocketAddr> {
    let page: Value = serde_json::from_slice(&envoy.admin("/listeners?format=json")?.body)?;
    let mut listeners = page["listener_statuses"].as_array().into_iter().flatten();
    let listener = listeners.find(|listener| listener["name"] == name).context("a listener")?;
    let port = listener["local_address"]["socket_address"]["port_value"].as_u64().context("a port")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
}

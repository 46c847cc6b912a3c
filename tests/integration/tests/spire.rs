//! Identities from a real SPIRE server and agent: they rotate, and the agent fails, while requests flow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::mesh::{LONG, Mesh};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::secrets::serial_number;
use spiffe_authz_integration::wait;

spiffe_authz_integration::test_with_each_adapter![
    identities_rotate_while_requests_flow,
    a_dead_agent_stops_nothing_and_comes_back,
    spire_identities_are_told_apart,
];

const LIMIT: Duration = Duration::from_secs(60);

/// Sends allowed and denied requests until `during` ends; every answer must be right.
fn under_load<T>(caller: &Envoy, during: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = caller.address()?;
    let load = || -> Result<()> {
        let mut client = Client::plain(address)?;
        while !stop.load(Ordering::SeqCst) {
            for (path, expected) in [("/public/news", 200), ("/public/admin", 403)] {
                let status = client.get(path)?.status;
                ensure!(status == expected, "{path}: {status} after {} requests", count.load(Ordering::SeqCst));
                count.fetch_add(1, Ordering::SeqCst);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let load = scope.spawn(load);
        let result = during();
        stop.store(true, Ordering::SeqCst);
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok((result?, count.load(Ordering::SeqCst)))
    })
}

/// Connections between the Envoys end after a second, so that new identities come into use.
fn short_connections(bootstrap: Bootstrap) -> Result<Bootstrap> {
    let duration = "common_http_protocol_options/max_connection_duration";
    bootstrap.set(&format!("{CONNECTION_MANAGER}/{duration}"), json!("1s"))
}

fn identities_rotate_while_requests_flow(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let mesh = Mesh::with(adapter, scratch.path(), Duration::from_secs(12), short_connections)?;
    let sleep = mesh.caller("sleep")?;
    let ((), count) = under_load(&sleep, || {
        for envoy in [&sleep, &mesh.server] {
            let first = serial_number(envoy)?;
            ensure!(first.is_some(), "Envoy shows no certificate of its own");
            wait::until("another certificate", LIMIT, || Ok((serial_number(envoy)? != first).then_some(())))?;
        }
        // A while beyond the end of the first certificates.
        thread::sleep(Duration::from_secs(8));
        Ok(())
    })?;
    assert!(count > 100, "{count} requests");
    assert!(mesh.server.stat("http.inbound.downstream_cx_total")? > Some(5), "connections were not renewed");
    Ok(())
}

fn a_dead_agent_stops_nothing_and_comes_back(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut mesh = Mesh::with(adapter, scratch.path(), LONG, short_connections)?;
    let sleep = mesh.caller("sleep")?;
    let spire = &mut mesh.spire;
    let ((), count) = under_load(&sleep, || {
        spire.kill_agent()?;
        thread::sleep(Duration::from_secs(3));
        spire.restart_agent()
    })?;
    assert!(count > 100, "{count} requests");
    // A caller that starts afterwards gets its identity from the agent that came back.
    let curl = mesh.caller("curl")?;
    assert_eq!(Client::plain(curl.address()?)?.get("/public/news")?.status, 200);
    wait::until("the caller in the access log", LIMIT, || {
        let seen = |line: &serde_json::Value| line["peer"] == "spiffe://example.org/ns/default/sa/curl";
        Ok(mesh.server.access_log()?.iter().any(seen).then_some(()))
    })
}

fn spire_identities_are_told_apart(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let mesh = Mesh::with(adapter, scratch.path(), LONG, Ok)?;
    for (count, (name, namespace, path, status, policy)) in [
        ("sleep", "default", "/status/200", 200, json!("default/sleep-reads")),
        ("curl", "default", "/status/200", 403, json!(null)),
        ("curl", "default", "/public/news", 200, json!("default/curl-reads-public")),
        ("stranger", "other", "/public/news", 403, json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        let caller = mesh.caller(name)?;
        assert_eq!(Client::plain(caller.address()?)?.get(path)?.status, status, "{name} {path}");
        let line = &mesh.server.access_log_of(count + 1)?[count];
        assert_eq!((&line["service_account"], &line["namespace"]), (&json!(name), &json!(namespace)));
        assert_eq!((&line["policy"], &line["trust_domain"]), (&policy, &json!("example.org")));
    }
    Ok(())
}

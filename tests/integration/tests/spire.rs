//! Identities from a real SPIRE server and agent: they rotate, and the agent fails, while requests continue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::environment::{self, Environment, SVID_TTL};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::secrets::serial_number;
use spiffe_authz_integration::spire::Spire;
use spiffe_authz_integration::upstream::Upstream;
use spiffe_authz_integration::wait;

spiffe_authz_integration::test_with_each_adapter![
    identities_rotate_while_requests_flow,
    a_dead_agent_stops_nothing,
    spire_identities_are_distinguished,
];

const LIMIT: Duration = Duration::from_secs(60);

/// Sends allowed and denied requests until `during` ends. Every response must be right.
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

/// Connections between the Envoys end after a second, so that new SVIDs are used.
fn short_connections(bootstrap: Bootstrap) -> Result<Bootstrap> {
    let duration = "common_http_protocol_options/max_connection_duration";
    bootstrap.set(&format!("{CONNECTION_MANAGER}/{duration}"), json!("1s"))
}

fn identities_rotate_while_requests_flow(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let environment = Environment::start(adapter, scratch.path(), Duration::from_secs(12), short_connections)?;
    let sleep = environment.caller("sleep")?;
    let ((), count) = under_load(&sleep, || {
        for envoy in [&sleep, &environment.server] {
            let first = serial_number(envoy)?;
            ensure!(first.is_some(), "Envoy has no certificate");
            wait::until("another certificate", LIMIT, || Ok((serial_number(envoy)? != first).then_some(())))?;
        }
        // Wait until the first certificates have expired.
        thread::sleep(Duration::from_secs(8));
        Ok(())
    })?;
    assert!(count > 100, "{count} requests");
    assert!(environment.server.stat("http.inbound.downstream_cx_total")? > Some(5), "connections were not renewed");
    Ok(())
}

fn a_dead_agent_stops_nothing(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut environment = Environment::start(adapter, scratch.path(), SVID_TTL, short_connections)?;
    let sleep = environment.caller("sleep")?;
    let spire = &mut environment.spire;
    let ((), count) = under_load(&sleep, || {
        spire.kill_agent()?;
        thread::sleep(Duration::from_secs(3));
        spire.restart_agent()
    })?;
    assert!(count > 100, "{count} requests");
    // A caller that starts later gets its identity from the restarted agent.
    let curl = environment.caller("curl")?;
    assert_eq!(Client::plain(curl.address()?)?.get("/public/news")?.status, 200);
    wait::until("the caller in the access log", LIMIT, || {
        let seen = |line: &serde_json::Value| line["peer"] == "spiffe://example.org/ns/default/sa/curl";
        Ok(environment.server.access_log()?.iter().any(seen).then_some(()))
    })
}

fn spire_identities_are_distinguished(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let environment = Environment::start(adapter, scratch.path(), SVID_TTL, Ok)?;
    for (count, (name, namespace, path, status, decision)) in [
        ("sleep", "default", "/status/200", 200, "allow default/sleep-reads 0"),
        ("curl", "default", "/status/200", 403, "deny no-policy-allows"),
        ("curl", "default", "/public/news", 200, "allow default/curl-reads-public 0"),
        ("stranger", "other", "/public/news", 403, "deny no-policy-allows"),
    ]
    .into_iter()
    .enumerate()
    {
        let caller = environment.caller(name)?;
        assert_eq!(Client::plain(caller.address()?)?.get(path)?.status, status, "{name} {path}");
        let line = &environment.server.access_log_of(count + 1)?[count];
        assert_eq!(line["peer"], format!("spiffe://example.org/ns/{namespace}/sa/{name}"));
        assert_eq!(line["decision"], decision);
    }
    Ok(())
}

/// The lifetime of an SVID in [`a_client_that_rotates_is_never_denied`]. SPIRE replaces an SVID when half of it is left.
const TTL: Duration = Duration::from_secs(60);
/// The bound on the age of connections in this test. It is less than half of [`TTL`], minus the five seconds that Envoy
/// takes to drain a connection, and the delay of a busy machine.
const BOUND: &str = "20s";
/// The time that the clients are observed, in seconds: more than two lifetimes.
const OBSERVED: u32 = 140;
/// The certificates that an Envoy must have used in that time: two rotations.
const CERTIFICATES: usize = 3;
/// The field that bounds the age of connections, in either of Envoy's objects for HTTP.
const DURATION: &str = "max_connection_duration";
/// The protocol options of the server in the client's bootstrap.
const UPSTREAM_OPTIONS: &str = "/static_resources/clusters/0/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Sets the bound on the age of connections in the object at a JSON pointer, or removes it.
fn bounded(bootstrap: Bootstrap, options: &str, is_bounded: bool) -> Result<Bootstrap> {
    let options = format!("{options}/common_http_protocol_options");
    if is_bounded {
        return bootstrap.set(&format!("{options}/{DURATION}"), json!(BOUND));
    }
    bootstrap.without(&options, DURATION)
}

/// Sends requests until `is_over`. Returns the number of responses for each status.
fn statuses(address: SocketAddr, is_over: &AtomicBool) -> Result<BTreeMap<u16, u64>> {
    let mut client = Client::plain(address)?;
    let mut statuses = BTreeMap::new();
    while !is_over.load(Ordering::SeqCst) {
        *statuses.entry(client.get("/public/news")?.status).or_default() += 1;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(statuses)
}

/// The Envoy of a client, which sends requests to the Envoy of a server with the filter.
struct Pair<'e> {
    server: &'e Envoy,
    client: Envoy,
    adapter: Adapter,
    /// `http1` or `http2`, between the two Envoys.
    protocol: &'static str,
    is_bounded: bool,
}

impl Pair<'_> {
    fn check(&self, statuses: &BTreeMap<u16, u64>, certificates: &BTreeSet<String>) -> Result<()> {
        let name = format!("{} {} bounded={}: {statuses:?}", self.adapter, self.protocol, self.is_bounded);
        eprintln!("{name}, {} certificates", certificates.len());
        ensure!(certificates.len() >= CERTIFICATES, "{name}: {certificates:?}");
        let used = self.server.stat(&format!("http.inbound.downstream_cx_{}_total", self.protocol))?;
        ensure!(used > Some(0), "{name}: no connection of this protocol");
        let expired = self.server.stat(&self.adapter.counter(["enforce", "deny", "svid-expired", "none"]))?;
        if self.is_bounded {
            ensure!(statuses.keys().eq(&[200]), "{name}: a status other than 200");
            ensure!(expired.is_none_or(|expired| expired == 0), "{name}: svid-expired is {expired:?}");
        } else {
            ensure!(statuses.contains_key(&403), "{name}: no denial, so the bound is not what prevents denials");
            ensure!(expired > Some(0), "{name}: svid-expired is {expired:?}");
        }
        Ok(())
    }
}

/// All Envoys run at the same time. For each adapter and protocol, one pair has bounded connections, and the control
/// has none.
#[test]
fn a_client_that_rotates_is_never_denied() -> Result<()> {
    let scratch = Scratch::new()?;
    let spire = Spire::start(scratch.path(), TTL)?;
    let upstream = Upstream::start()?;
    let start = |workload: &str, name: &str, bootstrap: Bootstrap| {
        environment::envoy(&spire, workload, name, &bootstrap.agent(&spire.socket())?, scratch.path())
    };
    let mut servers = Vec::new();
    for (adapter, is_bounded) in Adapter::ALL.into_iter().flat_map(|adapter| [(adapter, true), (adapter, false)]) {
        let bootstrap = bounded(Bootstrap::server(adapter, upstream.port())?, CONNECTION_MANAGER, is_bounded)?;
        let envoy = start("httpbin", &format!("server-{adapter}-{is_bounded}"), bootstrap)?;
        servers.push((adapter, is_bounded, envoy));
    }
    let mut pairs = Vec::new();
    for (adapter, is_bounded, server) in &servers {
        for protocol in ["http1", "http2"] {
            let options = match protocol {
                "http2" => json!({"http2_protocol_options": {}}),
                _ => json!({"http_protocol_options": {}}),
            };
            let bootstrap = Bootstrap::client(server.address()?.port())?
                .set(&format!("{UPSTREAM_OPTIONS}/explicit_http_config"), options)?;
            let bootstrap = bounded(bootstrap, UPSTREAM_OPTIONS, *is_bounded)?;
            let client = start("sleep", &format!("client-{adapter}-{is_bounded}-{protocol}"), bootstrap)?;
            environment::await_identity(&client)?;
            pairs.push(Pair { server, client, adapter: *adapter, protocol, is_bounded: *is_bounded });
        }
    }
    let addresses = pairs.iter().map(|pair| pair.client.address()).collect::<Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    let mut certificates = vec![BTreeSet::new(); pairs.len()];
    let statuses = thread::scope(|scope| {
        let start = |address: &SocketAddr| {
            let (address, is_over) = (*address, &is_over);
            scope.spawn(move || statuses(address, is_over))
        };
        let loads: Vec<_> = addresses.iter().map(start).collect();
        let observed = (0..OBSERVED).try_for_each(|_| -> Result<()> {
            thread::sleep(Duration::from_secs(1));
            for (pair, seen) in pairs.iter().zip(&mut certificates) {
                seen.extend(serial_number(&pair.client)?);
            }
            Ok(())
        });
        is_over.store(true, Ordering::SeqCst);
        let joined = loads.into_iter().map(|load| load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?);
        let statuses = joined.collect::<Result<Vec<_>>>()?;
        observed.map(|()| statuses)
    })?;
    pairs.iter().zip(&statuses).zip(&certificates).try_for_each(|((pair, statuses), seen)| pair.check(statuses, seen))
}

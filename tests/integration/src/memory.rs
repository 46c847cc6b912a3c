//! Measures that Envoy's memory does not grow with the dynamic module, over many connections and configurations.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bootstrap::{Adapter, CONNECTION_MANAGER};
use crate::envoy::{Envoy, Start};
use crate::fixture::{Fixture, Validation};
use crate::wait;

/// The allowed growth after the first fifth. One document has more than a tenth of this size.
const ALLOWED_KILOBYTES: u64 = 8 * 1024;
/// The number of policies in each configuration. A leaked configuration would be visible.
const POLICIES: u32 = 500;
const LIMIT: Duration = Duration::from_secs(20);

/// The size of the measurement.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// The number of connections, each with a handshake and a request.
    pub connections: u32,
    /// The number of configurations, each with a request.
    pub reloads: u32,
}

/// The resident memory in kilobytes.
#[derive(Debug)]
pub struct Measured {
    /// After one fifth of the connections, and at the end.
    pub connections: [u64; 2],
    /// After one fifth of the configurations, and at the end.
    pub reloads: [u64; 2],
}

impl Measured {
    /// Compares the growth with the limit.
    ///
    /// # Errors
    /// Returns an error if memory has grown more.
    pub fn check(&self) -> Result<()> {
        for (what, [early, late]) in [("connections", self.connections), ("configurations", self.reloads)] {
            ensure!(late.saturating_sub(early) <= ALLOWED_KILOBYTES, "{what}: from {early} kB to {late} kB");
        }
        Ok(())
    }
}

/// Runs the measurement.
///
/// # Errors
/// Returns an error if a request gets a wrong verdict, or a configuration does not apply.
pub fn measure(amounts: Amounts) -> Result<Measured> {
    let fixture = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    let file = fixture.scratch.join("filter.json");
    let base = fixture
        .bootstrap()?
        .set(&format!("{CONNECTION_MANAGER}/access_log"), json!([]))?
        .configuration(&document(0).to_string())?;
    let (bootstrap, content) = base.clone().watched_filter(&file)?;
    fixture.scratch.write("filter.json", &content)?;
    let mut envoy = Envoy::start(&Start::tested("memory")?, &bootstrap, fixture.scratch.path())?;
    let address = envoy.address()?;
    let leaf = fixture.leaf("default", "sleep")?;

    let early = amounts.connections / 5;
    let mut connections = [0; 2];
    for number in 1..=amounts.connections {
        ensure!(leaf.connect(address)?.get("/0")?.status == 200, "connection {number}");
        if number == early {
            connections[0] = resident(&mut envoy)?;
        }
    }
    connections[1] = resident(&mut envoy)?;

    let early = amounts.reloads / 5;
    let mut reloads = [0; 2];
    let mut client = leaf.connect(address)?;
    for number in 1..=amounts.reloads {
        let next = base.clone().configuration(&document(number).to_string())?;
        fixture.scratch.write("filter.json", &next.filter_file()?)?;
        let path = format!("/{number}");
        wait::until("the new configuration applies", LIMIT, || Ok((client.get(&path)?.status == 200).then_some(())))?;
        if number == early {
            reloads[0] = resident(&mut envoy)?;
        }
    }
    reloads[1] = resident(&mut envoy)?;
    Ok(Measured { connections, reloads })
}

/// Returns a document with many policies that allows `sleep` to send requests to one path.
fn document(number: u32) -> Value {
    let others = (0..POLICIES).map(|other| {
        json!({"name": format!("p{other}"), "namespace": "default", "rules": [{
            "from": [{"source": {"serviceAccounts": [format!("a{other}")]}}],
            "to": [{"operation": {"paths": [format!("/{other}/*")]}}],
        }]})
    });
    let ours = json!({"name": "ours", "namespace": "default", "rules": [{
        "from": [{"source": {"serviceAccounts": ["sleep"]}}], "to": [{"operation": {"paths": [format!("/{number}")]}}],
    }]});
    json!({"trustDomain": "example.org", "policies": others.chain([ours]).collect::<Vec<_>>()})
}

/// Returns `VmRSS` of proc(5).
fn resident(envoy: &mut Envoy) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", envoy.process().id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

//! The benchmark, the differential test and the soak test: programs of `tests/integration`, with the tools that they
//! need.

use std::process::Command;

use anyhow::Result;

use crate::tools::Tools;
use crate::{artifacts, process, workspace};

/// The adapters, as the programs name them.
pub(crate) const ADAPTERS: [&str; 2] = ["wasm", "module"];

/// Executes the benchmark, which measures every variant `rounds` times.
pub(crate) fn run(requests: u32, connections: u32, rounds: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let empty = artifacts::build_filter(&tools.wasm, "spiffe-authz-empty-filter")?;
    let mut bench = program(
        "bench",
        &[
            requests.to_string(),
            connections.to_string(),
            rounds.to_string(),
            workspace::root().join("bench/cost.svg").to_string_lossy().into_owned(),
        ],
    );
    tools.describe_to(&mut bench);
    bench.env("SPIFFE_AUTHZ_EMPTY_WASM", empty);
    Err(process::replace(&mut bench))
}

/// Executes the benchmark of open connections.
pub(crate) fn run_open_connections(rounds: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut bench = program("bench", &["open-connections".to_owned(), rounds.to_string()]);
    tools.describe_to(&mut bench);
    Err(process::replace(&mut bench))
}

/// Executes the measurement of memory.
pub(crate) fn run_memory(connections: u32, reloads: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut memory = program("memory", &[connections.to_string(), reloads.to_string()]);
    tools.describe_to(&mut memory);
    Err(process::replace(&mut memory))
}

/// Executes the differential test: `pairs` verdicts on this layer, with this adapter, generated from `seed`.
pub(crate) fn run_differential(layer: String, adapter: String, pairs: usize, seed: u64) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut differential = program("differential", &[layer, adapter, pairs.to_string(), seed.to_string()]);
    tools.describe_to(&mut differential);
    Err(process::replace(&mut differential))
}

/// Executes the soak test of this adapter for this number of minutes.
pub(crate) fn run_soak(adapter: String, minutes: u64, seed: Option<u64>) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut arguments = vec![adapter, minutes.to_string()];
    arguments.extend(seed.map(|seed| seed.to_string()));
    let mut soak = program("soak", &arguments);
    tools.describe_to(&mut soak);
    Err(process::replace(&mut soak))
}

fn program(name: &str, arguments: &[String]) -> Command {
    let mut cargo = process::cargo_binary("run", "spiffe-authz-integration", name);
    cargo.args(["--release", "--"]).args(arguments);
    cargo
}

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
    let chart = workspace::root().join("bench/cost.svg").to_string_lossy().into_owned();
    compare(&[requests.to_string(), connections.to_string(), rounds.to_string(), chart])
}

/// Executes the count of instructions of the variants whose name contains `part`.
pub(crate) fn run_instructions(part: String) -> Result<()> {
    compare(&["instructions".to_owned(), part])
}

/// Executes the benchmark with the filters that it compares.
fn compare(arguments: &[String]) -> Result<()> {
    let tools = Tools::find_or_get()?;
    let empty_wasm = artifacts::build_filter(&tools.wasm, "spiffe-authz-empty-filter")?.path;
    let empty_module = artifacts::build_empty_module()?;
    let mut bench = program(&tools, "bench", arguments)?;
    bench.env("SPIFFE_AUTHZ_EMPTY_WASM", empty_wasm).env("SPIFFE_AUTHZ_EMPTY_MODULE", empty_module);
    Err(process::replace(&mut bench))
}

/// Executes the benchmark of open connections.
pub(crate) fn run_open_connections(rounds: u32) -> Result<()> {
    execute("bench", &["open-connections".to_owned(), rounds.to_string()])
}

/// Executes the benchmark of updates.
pub(crate) fn run_updates(updates: u32) -> Result<()> {
    execute("bench", &["updates".to_owned(), updates.to_string()])
}

/// Executes the measurement of memory.
pub(crate) fn run_memory(connections: u32, reloads: u32) -> Result<()> {
    execute("memory", &[connections.to_string(), reloads.to_string()])
}

/// Executes the differential test: `pairs` verdicts on this layer, with this adapter, generated from `seed`.
pub(crate) fn run_differential(layer: String, adapter: String, pairs: usize, seed: u64) -> Result<()> {
    execute("differential", &[layer, adapter, pairs.to_string(), seed.to_string()])
}

/// Executes the soak test of this adapter for this number of minutes.
pub(crate) fn run_soak(adapter: String, minutes: u64, seed: Option<u64>) -> Result<()> {
    let mut arguments = vec![adapter, minutes.to_string()];
    arguments.extend(seed.map(|seed| seed.to_string()));
    execute("soak", &arguments)
}

/// Executes a program of the integration tests.
fn execute(name: &str, arguments: &[String]) -> Result<()> {
    Err(process::replace(&mut program(&Tools::find_or_get()?, name, arguments)?))
}

/// Builds the filter, and returns the command that runs a program of the integration tests with it.
fn program(tools: &Tools, name: &str, arguments: &[String]) -> Result<Command> {
    artifacts::build(&tools.wasm)?;
    let mut cargo = process::cargo_binary("run", "spiffe-authz-integration", name);
    cargo.args(["--release", "--"]).args(arguments);
    tools.describe_to(&mut cargo);
    Ok(cargo)
}

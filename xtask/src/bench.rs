//! The benchmark, the differential test of any size, and the soak: programs of `tests/integration`, with everything that they
//! need.

use std::process::Command;

use anyhow::Result;

use crate::tools::Tools;
use crate::{artifacts, process, workspace};

/// What decides, as the programs name it: the Wasm filter, the dynamic module.
pub(crate) const ADAPTERS: [&str; 2] = ["wasm", "module"];

/// Becomes the benchmark, which measures every variant in turn, `rounds` times.
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

/// Becomes the benchmark of open connections.
pub(crate) fn run_open_connections(rounds: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut bench = program("bench", &["open-connections".to_owned(), rounds.to_string()]);
    tools.describe_to(&mut bench);
    Err(process::replace(&mut bench))
}

/// Becomes the long run of the memory's test.
pub(crate) fn run_memory(connections: u32, reloads: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut memory = program("memory", &[connections.to_string(), reloads.to_string()]);
    tools.describe_to(&mut memory);
    Err(process::replace(&mut memory))
}

/// Becomes the comparison of the filter with Istio's RBAC, of so many verdicts on this layer by this adapter made from `seed`.
pub(crate) fn run_differential(layer: String, adapter: String, pairs: usize, seed: u64) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut differential = program("differential", &[layer, adapter, pairs.to_string(), seed.to_string()]);
    tools.describe_to(&mut differential);
    Err(process::replace(&mut differential))
}

/// Becomes the soak of this adapter, of so many minutes.
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
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "spiffe-authz-integration",
        "--bin",
        name,
        "--",
    ]);
    cargo.args(arguments);
    cargo
}

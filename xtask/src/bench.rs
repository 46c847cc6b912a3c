//! The benchmark: `tests/integration/src/bin/bench.rs` with everything that it needs.

use std::process::Command;

use anyhow::Result;

use crate::tools::Tools;
use crate::{artifacts, process, workspace};

/// Becomes the benchmark, which measures every variant in turn, `rounds` times.
pub(crate) fn run(requests: u32, rounds: u32) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let empty = artifacts::build_filter(&tools.wasm, "spiffe-authz-empty-filter")?;
    let mut bench = Command::new("cargo");
    bench.current_dir(workspace::root());
    bench.args([
        "run",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "spiffe-authz-integration",
        "--bin",
        "bench",
        "--",
    ]);
    bench.args([requests.to_string(), rounds.to_string()]);
    tools.describe_to(&mut bench);
    bench.env("SPIFFE_AUTHZ_EMPTY_WASM", empty);
    Err(process::replace(&mut bench))
}

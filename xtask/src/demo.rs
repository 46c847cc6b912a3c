//! The demo: `tests/integration/src/bin/demo.rs` with the tools that it needs.

use std::process::Command;

use anyhow::Result;

use crate::tools::Runtime;
use crate::tools::wasm::Toolchain;
use crate::{artifacts, process};

/// Executes the demo. With `keep`, it runs until it is interrupted.
pub(crate) fn run(keep: bool) -> Result<()> {
    let toolchain = Toolchain::find_or_get()?;
    let runtime = Runtime::find_or_get_during(|| {
        artifacts::build_wasm(&toolchain)?;
        process::run(&mut demo("build"))
    })?;
    let mut demo = demo("run");
    if keep {
        demo.args(["--", "--keep"]);
    }
    runtime.describe_to(&mut demo);
    Err(process::replace(&mut demo))
}

fn demo(subcommand: &str) -> Command {
    process::cargo_binary(subcommand, "spiffe-authz-integration", "demo")
}

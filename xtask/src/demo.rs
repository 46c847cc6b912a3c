//! The demo: `tests/integration/src/bin/demo.rs` with everything that it needs.

use std::process::Command;

use anyhow::Result;

use crate::tools::Tools;
use crate::{artifacts, process, workspace};

/// Becomes the demo; with `keep`, it runs until it is interrupted.
pub(crate) fn run(keep: bool) -> Result<()> {
    let tools = Tools::find_or_get()?;
    artifacts::build(&tools.wasm)?;
    let mut demo = Command::new("cargo");
    demo.current_dir(workspace::root());
    demo.args(["run", "--quiet", "--locked", "--package", "spiffe-authz-integration", "--bin", "demo", "--"]);
    if keep {
        demo.arg("--keep");
    }
    tools.describe_to(&mut demo);
    Err(process::replace(&mut demo))
}
